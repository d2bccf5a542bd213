//! Whether what was seen refutes a mechanism by its whole trade-off function, at level `alpha`.
//!
//! For guesses at the coins of one run (Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-Differential Privacy in One
//! Run"): m canaries are in or out by fair coins, r of them are guessed, V of the guesses are right. Write p_n for
//! P\[V = n\], R_j for Σ n/m·p_n and W_j for Σ (r − n)/m·p_n, both over n ≥ j. Canary i is guessed rightly, and j or more of
//! the others, with probability a/2 where it is in and a′/2 where it is out; guessed wrongly, and as many of the others,
//! with b/2 and b′/2. The attack that says "in" has the rates (b, a), the one that says "out" has (b′, a′): each is below
//! its curve. Summed over the canaries, since the curves are concave, and since V ≥ j + 1 in the first case and V ≥ j in the
//! second,
//!
//! R_{j+1} ≤ F(W_j),  F(w) = max over b + b′ = 2w of (in(b) + out(b′))/2.
//!
//! Were P\[V ≥ v\] = alpha, R_v would be at least alpha·v/m. From there downwards W_j is at least F⁻¹(R_{j+1}), and what W
//! grows by, R grows by in the proportion j : r − j. Where R_0 + W_0 would pass r/m, which it is since probabilities add up
//! to 1, there is no such mechanism: P\[V ≥ v\] < alpha.

use crate::accountant::tradeoff::{Curve, Said};

use super::threshold::Limits;

/// Whether a test with these rates does better than any attack on a mechanism with this curve.
pub fn refutes_rates(curve: &Curve, said: Said, limits: Limits) -> bool {
    limits.right > curve.at_most(said, limits.wrong)
}

/// Whether `correct` or more right ones of `guesses` at `canaries` coins have a probability below `alpha`.
///
/// `correct` ≤ `guesses` ≤ `canaries`.
pub fn refutes_guesses(curve: &Curve, canaries: u64, guesses: u64, correct: u64, alpha: f64) -> bool {
    if correct == 0 {
        return false;
    }
    let least = Inverse::of(curve.corners(Said::In), curve.corners(Said::Out));
    let (m, r) = (canaries as f64, guesses as f64);
    let all = r / m;
    let mut right = alpha * correct as f64 / m;
    let mut wrong = alpha * (r - correct as f64) / m;
    for j in (0..correct).rev() {
        let Some(needed) = least.at(right) else { return true };
        if needed > wrong {
            right += j as f64 / (r - j as f64) * (needed - wrong);
            wrong = needed;
        }
        if right + wrong > all * (1.0 + 1e-12) {
            return true;
        }
    }
    false
}

/// F⁻¹: the least share of wrong guesses with a share of right ones.
struct Inverse {
    /// (wrong, right), both rising.
    corners: Vec<(f64, f64)>,
}

impl Inverse {
    /// The steepest parts of both curves come first.
    fn of(said_in: &[(f64, f64)], said_out: &[(f64, f64)]) -> Self {
        let steps = |corners: &[(f64, f64)]| -> Vec<(f64, f64)> {
            // Rounding may let two corners that are one be out of order.
            let step = |c: &[(f64, f64)]| ((c[1].0 - c[0].0).max(0.0), (c[1].1 - c[0].1).max(0.0));
            corners
                .windows(2)
                .map(step)
                .filter(|step| *step != (0.0, 0.0))
                .collect()
        };
        let mut steps = [steps(said_in), steps(said_out)].concat();
        steps.sort_by(|a, b| (b.1 / b.0).total_cmp(&(a.1 / a.0)));
        let begin = |corners: &[(f64, f64)]| corners.first().map_or(0.0, |c| c.1);
        let mut at = (0.0, (begin(said_in) + begin(said_out)) / 2.0);
        let mut corners = vec![at];
        for (wrong, right) in steps {
            at = (at.0 + wrong / 2.0, at.1 + right / 2.0);
            corners.push(at);
        }
        Inverse { corners }
    }

    /// None where no share of wrong guesses allows as many right ones.
    fn at(&self, right: f64) -> Option<f64> {
        let after = self.corners.partition_point(|corner| corner.1 < right);
        let Some(before) = after.checked_sub(1).map(|i| self.corners[i]) else {
            return Some(0.0);
        };
        let next = *self.corners.get(after)?;
        Some(before.0 + (right - before.1) / (next.1 - before.1) * (next.0 - before.0))
    }
}
