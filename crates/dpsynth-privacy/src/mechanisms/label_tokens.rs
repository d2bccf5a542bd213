//! The lexicon: in how many records of each label a token is, with Gaussian noise.

use serde::{Deserialize, Serialize};

use super::whole_sums::{ChargedSums, gaussian_within};
use super::{Charge, Charged, Describe, Says, Stated, Terms};
use crate::accountant::Phase;
use crate::noise;
use crate::number::significant;
use crate::unit::Unit;
use crate::{Error, Result, document};

/// What its uses are called.
const COUNTS: &str = "counts of tokens by label";

/// One sum over all units of a vector that says which tokens they have under which label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelTokens {
    /// Noise standard deviation over `max_norm`.
    pub noise_multiplier: f64,
    /// Largest norm of a unit's vector.
    pub max_norm: f64,
}

impl LabelTokens {
    /// With the noise that alone costs (`epsilon` above 0, `delta` in (0, 1)).
    pub fn costing(epsilon: f64, delta: f64, max_norm: f64) -> Self {
        LabelTokens {
            noise_multiplier: gaussian_within(epsilon, delta, 1),
            max_norm,
        }
    }
}

impl Describe for LabelTokens {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::new(1.0, self.noise_multiplier, times)
    }

    fn describe(&self) -> String {
        format!(
            "tokens counted by label, noise multiplier {}",
            significant(self.noise_multiplier, 4)
        )
    }

    fn uses(&self) -> &'static str {
        COUNTS
    }

    fn admit(&self, _: &Unit, _: f64) -> Result<()> {
        match self.max_norm > 0.0 && self.max_norm.is_finite() {
            true => self.phase(1).map(drop),
            false => Err(Error::usage(format!(
                "tokens cannot be counted where a unit's vector has norm {} at most",
                self.max_norm
            ))
            .hint("4 is usual")),
        }
    }

    fn state(&self, _: u64, _: &noise::Mechanism) -> Stated {
        Stated::LabelTokens(LabelTokensStated {
            lexicon_noise_multiplier: self.noise_multiplier,
        })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LabelTokensStated {
        /// Noise standard deviation over the largest norm of a unit's vector.
        public lexicon_noise_multiplier: f64,
    }
}

impl Says for LabelTokensStated {
    fn uses(&self) -> u64 {
        1
    }

    fn uses_are(&self) -> &'static str {
        COUNTS
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        Phase::new(1.0, self.lexicon_noise_multiplier, 1)
    }

    fn words(&self) -> String {
        format!(
            "tokens counted by label on all units with noise multiplier {:.4}",
            self.lexicon_noise_multiplier
        )
    }

    fn terms(&self) -> Terms {
        vec![(
            "lexicon",
            format!("all units, noise multiplier {:.4}", self.lexicon_noise_multiplier),
        )]
    }
}

impl Charge for LabelTokens {
    type Use = ChargedSums;

    fn hand_out(&self, at: Charged) -> Result<ChargedSums> {
        ChargedSums::of(&at, self.noise_multiplier, self.max_norm, 1)
    }
}
