//! Threshold tests on scores: which threshold serves, and what it does; see [`crate::privacy::bounds`] for what follows.

pub use crate::documents::{Measured, Names};
use statrs::distribution::{ContinuousCDF, Normal};

use crate::documents::Rate;
use crate::privacy::accountant::tradeoff::Said;
use crate::privacy::bounds::family::Family;
use crate::privacy::bounds::on_the_curve::refutes_rates;
use crate::privacy::bounds::threshold::{Count, epsilon_lower, limits};

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
        let bound = |right, wrong| epsilon_lower(right, wrong, delta, alpha);
        self.measured(threshold, names, alpha, bound)
    }

    /// The same by the curves of `family`.
    pub fn measure_on_the_curve(&self, threshold: f64, names: Names, family: &Family, alpha: f64) -> Measured {
        let said = match names {
            Names::Members => Said::In,
            Names::Others => Said::Out,
        };
        let bound = |right, wrong| {
            let limits = limits(right, wrong, alpha);
            family.epsilon_lower(|curve| refutes_rates(curve, said, limits))
        };
        self.measured(threshold, names, alpha, bound)
    }

    fn measured(
        &self,
        threshold: f64,
        names: Names,
        alpha: f64,
        epsilon_lower: impl Fn(Count, Count) -> f64,
    ) -> Measured {
        let of = |scores: &[f64]| {
            let above = scores.iter().filter(|s| **s >= threshold).count();
            let times = match names {
                Names::Members => above,
                Names::Others => scores.len() - above,
            };
            Count {
                times: times as u64,
                of: scores.len() as u64,
            }
        };
        let (right, wrong) = match names {
            Names::Members => (of(&self.members), of(&self.others)),
            Names::Others => (of(&self.others), of(&self.members)),
        };
        Measured {
            threshold,
            names,
            true_positives: Rate::new(right.times, right.of),
            false_positives: Rate::new(wrong.times, wrong.of),
            epsilon_lower: epsilon_lower(right, wrong),
            alpha,
        }
    }

    /// The test that serves best here against (ε, `delta`); it is then measured elsewhere.
    ///
    /// Of a hundred candidates the luckiest would win, which elsewhere does no better than the rest: so the choice is made
    /// by much wider limits than the measurement.
    pub fn best(&self, delta: f64, alpha: f64) -> (f64, Names) {
        self.best_by(|right, wrong| epsilon_lower(right, wrong, delta, alpha / 200.0))
    }

    /// The test that tells both sides apart best, in standard deviations of scores that were Gaussian: for curves.
    pub fn furthest(&self, alpha: f64) -> (f64, Names) {
        let normal = Normal::standard();
        self.best_by(|right, wrong| {
            let limits = limits(right, wrong, alpha / 200.0);
            normal.inverse_cdf(limits.right) - normal.inverse_cdf(limits.wrong)
        })
    }

    fn best_by(&self, worth: impl Fn(Count, Count) -> f64) -> (f64, Names) {
        let sorted = |scores: &[f64]| {
            let mut out = scores.to_vec();
            out.sort_by(f64::total_cmp);
            out
        };
        let (members, others) = (sorted(&self.members), sorted(&self.others));
        let mut best = (f64::NEG_INFINITY, (0.0, Names::Members));
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
                let count = |times: usize, of: &[f64]| Count {
                    times: times as u64,
                    of: of.len() as u64,
                };
                let found = worth(count(named, right), count(i, wrong));
                if found > best.0 {
                    best = (found, (threshold, names));
                }
            }
        }
        best.1
    }
}
