//! Guesses at which canaries were in, and how they are chosen: see [`crate::privacy::bounds`] for what follows from them.

use std::ops::Range;

pub use crate::documents::{Design, OneRun, Rate};
use crate::privacy::bounds::family::Family;
use crate::privacy::bounds::on_the_curve::refutes_guesses;
use crate::privacy::bounds::one_run::epsilon_lower;

/// Lots of canaries that a design is tried on in a rehearsal.
const LOTS: usize = 16;

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
        let bound = |canaries, guesses, correct| epsilon_lower(canaries, guesses, correct, delta, alpha);
        self.guessed(design, alpha, bound)
    }

    /// The bound by the curves of `family`, at level `alpha`.
    pub fn bound_on_the_curve(&self, design: Design, family: &Family, alpha: f64) -> OneRun {
        let bound = |canaries, guesses, correct| on_the_curve(family, canaries, guesses, correct, alpha);
        self.guessed(design, alpha, bound)
    }

    /// How many guesses, of powers of a half of all canaries, would have served best against the curves of `family`: for
    /// rehearsals.
    pub fn best_design_on_the_curve(&self, family: &Family, alpha: f64) -> Design {
        let canaries = self.scores.len();
        let right = self.right_guesses(0..canaries);
        let bound = |guesses: usize| on_the_curve(family, canaries as u64, guesses as u64, right[guesses - 1], alpha);
        let tried = powers_below(canaries, 2).take_while(|guesses| *guesses >= 8);
        let best = tried
            .map(|guesses| (bound(guesses), guesses))
            .reduce(|a, b| if b.0 > a.0 { b } else { a });
        Design {
            canaries,
            guesses: best.map_or(canaries, |best| best.1),
        }
    }

    fn guessed(&self, design: Design, alpha: f64, epsilon_lower: impl Fn(u64, u64, u64) -> f64) -> OneRun {
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
            epsilon_lower: epsilon_lower(ranked.len() as u64, guessed.len() as u64, correct),
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

fn on_the_curve(family: &Family, canaries: u64, guesses: u64, correct: u64, alpha: f64) -> f64 {
    family.epsilon_lower(|curve| refutes_guesses(curve, canaries, guesses, correct, alpha))
}

/// n, n/base, n/base², …
fn powers_below(n: usize, base: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(n), move |m| Some(m / base)).take_while(|m| *m > 0)
}
