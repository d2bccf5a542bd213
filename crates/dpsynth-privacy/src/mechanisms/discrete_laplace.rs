//! Counts with exact discrete Laplace noise.

use serde::{Deserialize, Serialize};

use super::{Charge, Charged, Describe, Says, Stated, Terms};
use crate::accountant::Phase;
use crate::keys::{Key, Purpose};
use crate::laplace::DiscreteLaplace;
#[cfg(mutants)]
use crate::mutation::{Mutation, current};
use crate::noise;
use crate::number::up;
use crate::unit::Unit;
use crate::{Error, Result, document};

/// What its uses are called.
const COUNTS: &str = "counts of the labels";

/// Noisy counts of the labels: (epsilon, 0)-private.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelCounts {
    /// Above 0.
    pub epsilon: f64,
}

impl Describe for LabelCounts {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::pure(self.epsilon, times)
    }

    fn describe(&self) -> String {
        format!("labels counted at epsilon {}", self.epsilon)
    }

    fn uses(&self) -> &'static str {
        COUNTS
    }

    fn admit(&self, unit: &Unit, target_epsilon: f64) -> Result<()> {
        match self.noise(unit.max_records()).is_some() && self.epsilon < target_epsilon {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "labels cannot be counted with epsilon {:?} of {target_epsilon}",
                self.epsilon
            ))
            .hint("it is taken from the run's epsilon; 0.1 is usual")),
        }
    }

    fn state(&self, _: u64, _: &noise::Mechanism) -> Stated {
        Stated::DiscreteLaplace(LabelCountsStated {
            label_histogram_epsilon: self.epsilon,
        })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LabelCountsStated {
        /// Its epsilon, which is part of the guarantee's.
        public label_histogram_epsilon: f64,
    }
}

impl Says for LabelCountsStated {
    fn uses(&self) -> u64 {
        1
    }

    fn uses_are(&self) -> &'static str {
        COUNTS
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        Phase::pure(self.label_histogram_epsilon, 1)
    }

    fn words(&self) -> String {
        format!(
            "labels counted at epsilon {} of it",
            up(self.label_histogram_epsilon, 3)
        )
    }

    fn terms(&self) -> Terms {
        let epsilon = self.label_histogram_epsilon;
        vec![("label counts", format!("epsilon {epsilon} of it, pure"))]
    }

    fn counted(&self) -> Option<&'static str> {
        Some("the label proportions")
    }
}

impl LabelCounts {
    /// Its noise, where one unit moves the counts by at most `sensitivity` in total.
    pub(crate) fn noise(&self, sensitivity: u64) -> Option<DiscreteLaplace> {
        DiscreteLaplace::new(self.epsilon, sensitivity)
    }
}

impl Charge for LabelCounts {
    type Use = ChargedCounts;

    fn hand_out(&self, at: Charged) -> Result<ChargedCounts> {
        let sensitivity = at.max_records;
        #[cfg(mutants)]
        let sensitivity = match current() {
            Some(Mutation::HistogramForgetsUnits) => 1,
            _ => sensitivity,
        };
        Ok(ChargedCounts {
            noise: self.noise(sensitivity).expect("the plan was made with it"),
            key: at.keys.key(at.release, at.index, Purpose::Histogram)?,
        })
    }
}

/// Counts that have been paid for: one draw of noise, which consumes it.
#[must_use = "the counts are charged whether they are used or not"]
pub struct ChargedCounts {
    noise: DiscreteLaplace,
    key: Key,
}

impl ChargedCounts {
    /// `counts` with exact discrete Laplace noise, negative ones raised to 0. One unit may add to them by at most its most
    /// records in total.
    pub fn privatize(self, counts: &[u64]) -> Vec<u64> {
        #[cfg(mutants)]
        if current() == Some(Mutation::HistogramWithoutNoise) {
            return counts.to_vec();
        }
        let mut rng = self.key.stream(0);
        let noisy = |count: &u64| (*count as i64).saturating_add(self.noise.draw(&mut rng)).max(0) as u64;
        counts.iter().map(noisy).collect()
    }
}

// Says nothing of the noise.
impl std::fmt::Debug for ChargedCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChargedCounts").finish_non_exhaustive()
    }
}
