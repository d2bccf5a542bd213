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

use super::binomial::Binomial;

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
