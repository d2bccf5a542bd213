//! From (sampling rate, noise multiplier, steps) to epsilon, for the Poisson-subsampled Gaussian mechanism.
//!
//! Everywhere: add-or-remove-one adjacency, L2 sensitivity 1, noise standard deviation `noise_multiplier`.
//! [`pld`] is what spends budget; [`rdp`] stands beside it for comparison.

mod cells;
mod compose;
mod gaussian;
pub mod pld;
pub mod rdp;

use serde::Serialize;

use crate::{Error, Result};

/// Below this the loss of one record is hundreds of nats and no number here means anything.
pub const MIN_NOISE_MULTIPLIER: f64 = 0.05;

/// More steps than this would need too much memory to compose finely.
pub const MAX_STEPS: u64 = 100_000_000;

/// `steps` steps of one mechanism: each record is drawn with probability `sampling_rate`, the sum of the drawn
/// records' contributions (norm at most 1) gets Gaussian noise of standard deviation `noise_multiplier`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u64,
}

impl Phase {
    /// Checks the ranges: sampling rate in (0, 1], noise multiplier at least [`MIN_NOISE_MULTIPLIER`], steps ≥ 1.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn new(sampling_rate: f64, noise_multiplier: f64, steps: u64) -> Result<Self> {
        if !(sampling_rate > 0.0 && sampling_rate <= 1.0) {
            return Err(Error::usage(format!(
                "the sampling rate must be above 0 and at most 1, not {sampling_rate}"
            ))
            .hint("it is the expected batch size over the number of records"));
        }
        if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
            return Err(Error::usage(format!(
                "the noise multiplier must be a number above 0, not {noise_multiplier}"
            ))
            .hint("it is the noise's standard deviation over the clipping norm, often 0.4 to 4"));
        }
        if noise_multiplier < MIN_NOISE_MULTIPLIER {
            return Err(Error::usage(format!(
                "a noise multiplier of {noise_multiplier} gives no privacy worth a number; {MIN_NOISE_MULTIPLIER} is the least"
            ))
            .hint("it is the noise's standard deviation over the clipping norm, often 0.4 to 4"));
        }
        if steps == 0 {
            return Err(
                Error::usage("the number of steps must be at least 1, not 0").hint("nothing is spent before a step")
            );
        }
        if steps > MAX_STEPS {
            return Err(Error::usage(format!(
                "{steps} steps are more than the accountant composes ({MAX_STEPS})"
            ))
            .hint("steps are optimizer steps, not records"));
        }
        Ok(Phase {
            sampling_rate,
            noise_multiplier,
            steps,
        })
    }

    /// q: the probability that a record is drawn in a step.
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    /// σ: the noise's standard deviation over the sensitivity.
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// T: how often it is done.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

/// Which neighbour is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The record was there and is taken away.
    Remove,
    /// The record was not there and is added.
    Add,
}

impl Direction {
    /// As written in output.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Remove => "remove",
            Direction::Add => "add",
        }
    }
}

/// Epsilon between two certain values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bracket {
    /// Pessimistic: the mechanism is (epsilon, delta)-private.
    pub epsilon: f64,
    /// Optimistic: it is not private with less than this.
    pub epsilon_lower: f64,
    /// The neighbour that decides.
    pub direction: Direction,
}

/// Refuses a delta outside (0, 1).
///
/// # Errors
/// Usage, naming the value.
pub fn check_delta(delta: f64) -> Result<()> {
    if delta > 0.0 && delta < 1.0 {
        return Ok(());
    }
    Err(Error::usage(format!("delta must be above 0 and below 1, not {delta}"))
        .hint("it should be well below one over the number of records"))
}

fn check_phases(phases: &[Phase]) -> Result<()> {
    if phases.is_empty() {
        return Err(Error::usage("nothing to account for: no steps were given"));
    }
    Ok(())
}

/// Phases of the same mechanism become one, so that a second run like the first costs what more steps would.
fn merge(phases: &[Phase]) -> Vec<Phase> {
    let mut merged: Vec<Phase> = Vec::new();
    for phase in phases {
        let same =
            |m: &&mut Phase| m.sampling_rate == phase.sampling_rate && m.noise_multiplier == phase.noise_multiplier;
        match merged.iter_mut().find(same) {
            Some(m) => m.steps = m.steps.saturating_add(phase.steps),
            None => merged.push(*phase),
        }
    }
    merged
}
