//! A mechanism without a proof, for the tests of rule P11.

use serde::{Deserialize, Serialize};

use super::{Describe, Says, Stated, Terms};
use crate::accountant::Phase;
use crate::noise;
use crate::unit::Unit;
use crate::{Result, document};

/// It would be (1, 0)-private, if anybody had shown it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unproven {}

impl Describe for Unproven {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::pure(1.0, times)
    }

    fn describe(&self) -> String {
        "for research".into()
    }

    fn uses(&self) -> &'static str {
        "tries"
    }

    fn repeats(&self) -> bool {
        true
    }

    fn admit(&self, _: &Unit, _: f64) -> Result<()> {
        Ok(())
    }

    fn state(&self, uses: u64, _: &noise::Mechanism) -> Stated {
        Stated::Unproven(UnprovenStated { toy_tries: uses })
    }
}

document! {
    /// What a guarantee says of it.
    #[derive(Clone, Debug, PartialEq)]
    pub struct UnprovenStated {
        public toy_tries: u64,
    }
}

impl Says for UnprovenStated {
    fn uses(&self) -> u64 {
        self.toy_tries
    }

    fn uses_are(&self) -> &'static str {
        "tries"
    }

    fn phase(&self, _: &str) -> Result<Phase> {
        Phase::pure(1.0, self.toy_tries)
    }

    fn words(&self) -> String {
        format!("{} tries", self.toy_tries)
    }

    fn terms(&self) -> Terms {
        vec![("tries", self.toy_tries.to_string())]
    }
}
