//! One count of units with exact discrete Laplace noise: a unit moves it by at most 1.

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
const COUNTS: &str = "counts of matched units";

/// How many units fulfil a condition: (epsilon, 0)-private.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitCount {
    /// Above 0.
    pub epsilon: f64,
}

impl UnitCount {
    fn noise(&self) -> Option<DiscreteLaplace> {
        DiscreteLaplace::new(self.epsilon, 1)
    }
}

impl Describe for UnitCount {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::pure(self.epsilon, times)
    }

    fn describe(&self) -> String {
        format!("matched units counted at epsilon {}", self.epsilon)
    }

    fn uses(&self) -> &'static str {
        COUNTS
    }

    fn admit(&self, _: &Unit, target_epsilon: f64) -> Result<()> {
        match self.noise().is_some() && self.epsilon < target_epsilon {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "matched units cannot be counted with epsilon {:?} of {target_epsilon}",
                self.epsilon
            ))
            .hint("it is taken from the run's epsilon; 0.1 is usual")),
        }
    }

    fn state(&self, _: u64, _: &noise::Mechanism) -> Stated {
        Stated::UnitCount(UnitCountStated {
            copy_gate_epsilon: self.epsilon,
        })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct UnitCountStated {
        /// Its epsilon, which is part of the guarantee's.
        public copy_gate_epsilon: f64,
    }
}

impl Says for UnitCountStated {
    fn uses(&self) -> u64 {
        1
    }

    fn uses_are(&self) -> &'static str {
        COUNTS
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        Phase::pure(self.copy_gate_epsilon, 1)
    }

    fn words(&self) -> String {
        format!(
            "records that share phrases counted at epsilon {} of it",
            up(self.copy_gate_epsilon, 3)
        )
    }

    fn terms(&self) -> Terms {
        let epsilon = self.copy_gate_epsilon;
        vec![("copy gate", format!("epsilon {epsilon} of it, pure"))]
    }
}

impl Charge for UnitCount {
    type Use = ChargedCount;

    fn hand_out(&self, at: Charged) -> Result<ChargedCount> {
        Ok(ChargedCount {
            noise: self.noise().expect("the plan was made with it"),
            key: at.keys.key(at.release, at.index, Purpose::Histogram)?,
        })
    }
}

/// A count that has been paid for: one draw of noise, which consumes it.
#[must_use = "the count is charged whether it is used or not"]
pub struct ChargedCount {
    noise: DiscreteLaplace,
    key: Key,
}

impl ChargedCount {
    /// `units` with exact discrete Laplace noise, below 0 too. Adding or removing one unit may change `units` by at most 1.
    pub fn privatize(self, units: u64) -> i64 {
        #[cfg(mutants)]
        if current() == Some(Mutation::CountWithoutNoise) {
            return units as i64;
        }
        (units as i64).saturating_add(self.noise.draw(&mut self.key.stream(0)))
    }
}

// Says nothing of the noise.
impl std::fmt::Debug for ChargedCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChargedCount").finish_non_exhaustive()
    }
}
