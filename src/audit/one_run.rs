//! The lower bound on epsilon from one run (Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training
//! Run", theorem 5.2 and corollary 5.4; proof in its appendix C).
//!
//! m canaries are each put into the data or left out by a fair coin of their own. The mechanism runs once. Whoever sees
//! its output guesses r of the m coins and abstains from the rest. If the mechanism is (ε, δ)-private under adding or
//! removing one record, then the number of correct guesses V satisfies, for every v,
//!
//! P\[V ≥ v\] ≤ P\[W ≥ v\] + 2·m·δ · max over i ≥ 1 of P\[v > W ≥ v − i\] / i,  W ~ Binomial(r, e^ε / (e^ε + 1)).
//!
//! In short: with δ = 0, one coin after the other, given all earlier ones and the output, is guessed rightly with
//! probability at most e^ε/(e^ε + 1), whatever the others are, so V is dominated by W. With δ the output is that of such
//! a mechanism but for extra correct guesses F with mean at most 2·m·δ; since P\[F ≥ i\] ≤ 2·m·δ/i, the worst F brings
//! the second term. The guesses may depend on the output in any way; r must be fixed before the output is seen.

use std::ops::Range;

use super::binomial::{Binomial, Rate};
pub use crate::documents::{Design, OneRun};

/// Lots of canaries that a design is tried on in a rehearsal.
const LOTS: usize = 16;

/// Probability with which an (ε, δ)-private mechanism lets `correct` or more of `guesses` be right, at most.
///
/// `correct` ≤ `guesses` ≤ `canaries`, `epsilon` ≥ 0, `delta` in \[0, 1\].
pub fn p_value(canaries: u64, guesses: u64, correct: u64, epsilon: f64, delta: f64) -> f64 {
    let w = Binomial::of_randomised_response(guesses, epsilon);
    let mut worst = 0.0f64;
    if delta > 0.0 && correct > 0 {
        // Far above the mean each point has next to no mass: it is counted at TINY, from above, and passed over.
        const TINY: f64 = 1e-25;
        let first = match (correct as f64) > w.mean() {
            true => w.last_with_mass(correct - 1, TINY),
            false => correct - 1,
        };
        let skipped = correct - 1 - first;
        let mut mass = skipped as f64 * TINY;
        worst = if skipped > 0 { TINY } else { 0.0 };
        for k in (0..=first).rev() {
            mass += w.mass(k);
            let i = (correct - k) as f64;
            worst = worst.max(mass / i);
            // The mass is at most 1: from here on no quotient is larger.
            if 1.0 / i < worst {
                break;
            }
        }
    }
    (w.at_least(correct) + 2.0 * canaries as f64 * delta * worst).min(1.0)
}

/// The largest ε found that is refuted at level `alpha`; 0 where none is. True ε is above it with confidence 1 − alpha.
///
/// Valid wherever the search ends: whoever refutes one ε refutes all smaller ones.
pub fn epsilon_lower(canaries: u64, guesses: u64, correct: u64, delta: f64, alpha: f64) -> f64 {
    let refuted = |epsilon| p_value(canaries, guesses, correct, epsilon, delta) < alpha;
    if !refuted(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while refuted(high) {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..40 {
        let mid = 0.5 * (low + high);
        if refuted(mid) { low = mid } else { high = mid }
    }
    low
}

/// What an attack saw: a score for each canary, and whether it was in. Scores are evidence for "in", 0 is none.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub scores: Vec<f64>,
    pub included: Vec<bool>,
}

impl Observed {
    /// The canaries of `range`, the furthest score from 0 first.
    fn ranked(&self, range: Range<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = range.collect();
        order.sort_unstable_by(|a, b| self.scores[*b].abs().total_cmp(&self.scores[*a].abs()).then(a.cmp(b)));
        order
    }

    fn is_right(&self, i: usize) -> bool {
        (self.scores[i] > 0.0) == self.included[i]
    }

    /// The bounds by `designs`, which share `alpha` among them: together they hold with confidence 1 − alpha.
    pub fn bounds(&self, designs: &[Design], delta: f64, alpha: f64) -> Vec<OneRun> {
        let alpha = alpha / designs.len() as f64;
        designs.iter().map(|d| self.bound(*d, delta, alpha)).collect()
    }

    fn bound(&self, design: Design, delta: f64, alpha: f64) -> OneRun {
        let ranked = self.ranked(0..design.canaries.min(self.scores.len()));
        let guessed = &ranked[..design.guesses.min(ranked.len())];
        let count = |of: &[usize], so: &dyn Fn(usize) -> bool| of.iter().filter(|i| so(**i)).count() as u64;
        let correct = count(guessed, &|i| self.is_right(i));
        let guessed_in = |included: bool| count(guessed, &|i| self.scores[i] > 0.0 && self.included[i] == included);
        let there = |included: bool| count(&ranked, &|i| self.included[i] == included);
        OneRun {
            canaries: design.canaries,
            guesses: design.guesses,
            correct,
            true_positives: Rate::new(guessed_in(true), there(true)),
            false_positives: Rate::new(guessed_in(false), there(false)),
            epsilon_lower: epsilon_lower(ranked.len() as u64, guessed.len() as u64, correct, delta, alpha),
            alpha,
        }
    }

    /// The design that would have served best here: for rehearsals, never for what is then audited by it.
    ///
    /// Each number of canaries is tried on as many separate lots of them as there are, up to [`LOTS`], and the mean of
    /// the bounds decides: what was lucky once is not chosen.
    pub fn best_design(&self, delta: f64, alpha: f64) -> Design {
        let all = self.scores.len();
        let none = Design {
            canaries: all,
            guesses: all,
        };
        let mut best = (-1.0, none);
        for canaries in powers_below(all, 4).take_while(|m| *m >= 64) {
            let lots: Vec<Vec<u64>> = (0..all / canaries)
                .take(LOTS)
                .map(|lot| self.right_guesses(lot * canaries..(lot + 1) * canaries))
                .collect();
            for guesses in powers_below(canaries, 2).take_while(|r| *r >= 8) {
                let bound =
                    |right: &Vec<u64>| epsilon_lower(canaries as u64, guesses as u64, right[guesses - 1], delta, alpha);
                let mean = lots.iter().map(bound).sum::<f64>() / lots.len() as f64;
                if mean > best.0 {
                    best = (mean, Design { canaries, guesses });
                }
            }
        }
        best.1
    }

    /// How many of the first 1, 2, … guesses at the canaries of `range` are right.
    fn right_guesses(&self, range: Range<usize>) -> Vec<u64> {
        let ranked = self.ranked(range);
        let right = ranked.iter().scan(0, |sum, i| {
            *sum += u64::from(self.is_right(*i));
            Some(*sum)
        });
        right.collect()
    }
}

/// n, n/base, n/base², …
fn powers_below(n: usize, base: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(n), move |m| Some(m / base)).take_while(|m| *m > 0)
}
