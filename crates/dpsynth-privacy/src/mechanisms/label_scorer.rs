//! The scorer: gradient descent on all units at once, each step's sum with Gaussian noise.

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

/// A classifier of labels: a use is the whole descent, which takes seconds, and is charged before its first step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelScorer {
    /// Noise standard deviation over `max_norm`, of each step.
    pub noise_multiplier: f64,
    /// Steps of the descent.
    pub steps: u64,
    /// Largest norm of a unit's gradient.
    pub max_norm: f64,
}

impl LabelScorer {
    /// With the noise with which all steps of so many `scorers` together, alone, cost (`epsilon` above 0, `delta` in (0, 1)).
    pub fn costing(epsilon: f64, delta: f64, steps: u64, scorers: u64, max_norm: f64) -> Self {
        LabelScorer {
            noise_multiplier: gaussian_within(epsilon, delta, steps.saturating_mul(scorers)),
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
            "a scorer of labels, {} steps on all units, noise multiplier {}",
            self.steps,
            significant(self.noise_multiplier, 4)
        )
    }

    fn uses(&self) -> &'static str {
        SCORERS
    }

    fn repeats(&self) -> bool {
        true
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

    fn state(&self, uses: u64, _: &noise::Mechanism) -> Stated {
        Stated::LabelScorer(LabelScorerStated {
            scorers: uses,
            scorer_noise_multiplier: self.noise_multiplier,
            scorer_steps: self.steps,
        })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LabelScorerStated {
        /// How many there are.
        public scorers: u64,
        /// Noise standard deviation over the largest norm of a unit's gradient, of each step.
        public scorer_noise_multiplier: f64,
        /// Steps of each.
        public scorer_steps: u64,
    }
}

impl Says for LabelScorerStated {
    fn uses(&self) -> u64 {
        self.scorers
    }

    fn uses_are(&self) -> &'static str {
        SCORERS
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        let steps = self.scorer_steps.saturating_mul(self.scorers);
        Phase::new(1.0, self.scorer_noise_multiplier, steps)
    }

    fn words(&self) -> String {
        format!(
            "{} of labels in {} steps on all units with noise multiplier {:.4}",
            match self.scorers {
                1 => "a scorer".to_string(),
                scorers => format!("{scorers} scorers"),
            },
            self.scorer_steps,
            self.scorer_noise_multiplier
        )
    }

    fn terms(&self) -> Terms {
        vec![(
            "scorer",
            format!(
                "{} of {} steps on all units, noise multiplier {:.4}",
                self.scorers, self.scorer_steps, self.scorer_noise_multiplier
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
