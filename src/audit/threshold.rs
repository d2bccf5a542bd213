//! The lower bound on epsilon from a threshold test: (ε, δ)-privacy says TPR ≤ e^ε·FPR + δ, and the same of the
//! complements (Kairouz, Oh and Viswanath 2015; audits since Jagielski, Ullman and Oprea 2020).
//!
//! The rates are known to Clopper–Pearson limits, which want trials that are independent of each other. Which threshold
//! is used is decided on other trials than those that measure it.

use super::binomial::{Rate, lower_limit, upper_limit};
pub use crate::documents::{Measured, Names};

/// Scores of those that were in and of those that were out.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    pub members: Vec<f64>,
    pub others: Vec<f64>,
}

impl Sides {
    /// Both sides cut in two, the first half and the rest, in the order in which they stand.
    pub fn halves(&self) -> (Sides, Sides) {
        let (m, o) = (
            self.members.split_at(self.members.len() / 2),
            self.others.split_at(self.others.len() / 2),
        );
        let sides = |members: &[f64], others: &[f64]| Sides {
            members: members.to_vec(),
            others: others.to_vec(),
        };
        (sides(m.0, o.0), sides(m.1, o.1))
    }

    /// Measures the test and bounds ε at level `alpha`, half of it for each rate.
    pub fn measure(&self, threshold: f64, names: Names, delta: f64, alpha: f64) -> Measured {
        let above = |scores: &[f64]| scores.iter().filter(|s| **s >= threshold).count();
        let of = |scores: &[f64]| match names {
            Names::Members => (above(scores) as u64, scores.len() as u64),
            Names::Others => ((scores.len() - above(scores)) as u64, scores.len() as u64),
        };
        let (right, wrong) = match names {
            Names::Members => (of(&self.members), of(&self.others)),
            Names::Others => (of(&self.others), of(&self.members)),
        };
        Measured {
            threshold,
            names,
            true_positives: Rate::new(right.0, right.1),
            false_positives: Rate::new(wrong.0, wrong.1),
            epsilon_lower: epsilon_lower(right, wrong, delta, alpha),
            alpha,
        }
    }

    /// The test that serves best here; it is then measured elsewhere.
    ///
    /// Of a hundred candidates the luckiest would win, which elsewhere does no better than the rest: so the choice is made
    /// by much wider limits than the measurement.
    pub fn best(&self, delta: f64, alpha: f64) -> (f64, Names) {
        let alpha = alpha / 200.0;
        let sorted = |scores: &[f64]| {
            let mut out = scores.to_vec();
            out.sort_by(f64::total_cmp);
            out
        };
        let (members, others) = (sorted(&self.members), sorted(&self.others));
        let mut best = (-1.0, (0.0, Names::Members));
        for names in [Names::Members, Names::Others] {
            let (right, wrong) = match names {
                Names::Members => (&members, &others),
                Names::Others => (&others, &members),
            };
            // Rare events decide: the candidates, told by how many are wrongly named, lie densest where that is few.
            let counts = std::iter::successors(Some(0usize), |i| Some((i + 1).max(i * 5 / 4)));
            for i in counts.take_while(|i| *i < wrong.len()) {
                let (threshold, named) = match names {
                    Names::Members => {
                        let threshold = wrong[wrong.len() - 1 - i].next_up();
                        (threshold, right.len() - right.partition_point(|s| *s < threshold))
                    }
                    Names::Others => (wrong[i], right.partition_point(|s| *s < wrong[i])),
                };
                let sizes = (right.len() as u64, wrong.len() as u64);
                let found = epsilon_lower((named as u64, sizes.0), (i as u64, sizes.1), delta, alpha);
                if found > best.0 {
                    best = (found, (threshold, names));
                }
            }
        }
        best.1
    }
}

fn epsilon_lower(right: (u64, u64), wrong: (u64, u64), delta: f64, alpha: f64) -> f64 {
    let least = lower_limit(right.0, right.1, alpha / 2.0) - delta;
    let most = upper_limit(wrong.0, wrong.1, alpha / 2.0);
    if least > 0.0 { (least / most).ln().max(0.0) } else { 0.0 }
}
