//! Numbers that are not bounds are of a type of their own, so that no budget can be spent by them.

use super::{Adjacency, Mechanism, Phase, check_phases};
use crate::{Error, Result};

/// What stands beside every [`Estimate`] that is shown.
pub const NOTE: &str = "estimate, can be too low";

/// An epsilon or a delta without a proof: the true value may be larger.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Estimate(f64);

impl Estimate {
    pub(super) fn new(value: f64) -> Self {
        Estimate(value)
    }

    /// The number, for showing beside [`NOTE`].
    pub fn value(self) -> f64 {
        self.0
    }
}

/// (q, σ, T) of each phase, where all are Poisson-subsampled Gaussians and a record is added or removed.
pub(super) fn gaussians(accountant: &str, phases: &[Phase], adjacency: Adjacency) -> Result<Vec<(f64, f64, f64)>> {
    check_phases(phases)?;
    if adjacency != Adjacency::AddOrRemoveOne {
        return Err(Error::usage(format!(
            "the {accountant} accountant knows only add-or-remove-one adjacency"
        ))
        .hint("the pld accountant knows replace-one too"));
    }
    phases
        .iter()
        .map(|phase| match phase.mechanism() {
            Mechanism::Gaussian {
                sampling_rate,
                noise_multiplier,
            } => Ok((sampling_rate, noise_multiplier, phase.steps() as f64)),
            _ => Err(Error::usage(format!(
                "the {accountant} accountant knows only the Poisson-subsampled Gaussian"
            ))
            .hint("the pld accountant knows every mechanism")),
        })
        .collect()
}
