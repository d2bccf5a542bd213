//! A mechanism without a proof, for the tests of rule P11.

use serde::{Deserialize, Serialize};

use super::{Describe, Proof, Stated};
use crate::Result;
use crate::accountant::Phase;
use crate::noise;

/// It would be (1, 0)-private, if anybody had shown it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unproven {}

impl Describe for Unproven {
    fn phase(&self, times: u64) -> Result<Phase> {
        Phase::pure(1.0, times)
    }

    fn sampler(&self) -> Option<String> {
        None
    }

    fn describe(&self) -> String {
        "for research".into()
    }

    fn uses(&self) -> &'static str {
        "tries"
    }

    fn proof(&self) -> Proof {
        Proof::Research("nobody")
    }

    fn state(&self, _: u64, _: &noise::Mechanism) -> Option<Stated> {
        None
    }
}
