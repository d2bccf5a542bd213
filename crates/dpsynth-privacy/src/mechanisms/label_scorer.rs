//! The scorer: sums over all units, each with Gaussian noise, by which scorers of labels are learned and weighed.

use serde::{Deserialize, Serialize};

use super::whole_sums::{ChargedSums, gaussian_within};
use super::{Charge, Charged, Describe, Says, Stated, Terms};
use crate::accountant::Phase;
use crate::noise;
use crate::number::significant;
use crate::unit::Unit;
use crate::{Error, Result, document};

/// What its uses are called.
const SCORERS: &str = "scorers of labels";

/// Classifiers of labels: the one use is all that is learned, which takes seconds, and is charged before its first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelScorer {
    /// Noise standard deviation over `max_norm`, of each step.
    pub noise_multiplier: f64,
    /// Sums over all units that are taken.
    pub steps: u64,
    /// Largest norm of a unit's gradient.
    pub max_norm: f64,
}

impl LabelScorer {
    /// With the noise with which all `steps` together, alone, cost (`epsilon` above 0, `delta` in (0, 1)).
    pub fn costing(epsilon: f64, delta: f64, steps: u64, max_norm: f64) -> Self {
        LabelScorer {
            noise_multiplier: gaussian_within(epsilon, delta, steps),
            steps,
            max_norm,
        }
    }
}

impl Describe for LabelScorer {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::new(1.0, self.noise_multiplier, self.steps.saturating_mul(times))
    }

    fn describe(&self) -> String {
        format!(
            "scorers of labels, {} steps on all units, noise multiplier {}",
            self.steps,
            significant(self.noise_multiplier, 4)
        )
    }

    fn uses(&self) -> &'static str {
        SCORERS
    }

    fn admit(&self, _: &Unit, _: f64) -> Result<()> {
        match self.max_norm > 0.0 && self.max_norm.is_finite() {
            true => self.phase(1).map(drop),
            false => Err(Error::usage(format!(
                "a scorer cannot learn where a unit's gradient has norm {} at most",
                self.max_norm
            ))
            .hint("1 is usual")),
        }
    }

    fn state(&self, _: u64, _: &noise::Mechanism) -> Stated {
        Stated::LabelScorer(LabelScorerStated {
            scorer_noise_multiplier: self.noise_multiplier,
            scorer_steps: self.steps,
        })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LabelScorerStated {
        /// Noise standard deviation over the largest norm of a unit's gradient, of each step.
        public scorer_noise_multiplier: f64,
        /// Steps of all of them.
        public scorer_steps: u64,
    }
}

impl Says for LabelScorerStated {
    fn uses(&self) -> u64 {
        1
    }

    fn uses_are(&self) -> &'static str {
        SCORERS
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        Phase::new(1.0, self.scorer_noise_multiplier, self.scorer_steps)
    }

    fn words(&self) -> String {
        format!(
            "scorers of labels in {} steps on all units with noise multiplier {:.4}",
            self.scorer_steps, self.scorer_noise_multiplier
        )
    }

    fn terms(&self) -> Terms {
        vec![(
            "scorers",
            format!(
                "{} steps on all units, noise multiplier {:.4}",
                self.scorer_steps, self.scorer_noise_multiplier
            ),
        )]
    }
}

impl Charge for LabelScorer {
    type Use = ChargedSums;

    fn hand_out(&self, at: Charged) -> Result<ChargedSums> {
        ChargedSums::of(&at, self.noise_multiplier, self.max_norm, self.steps)
    }
}
