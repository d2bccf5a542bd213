//! What a run costs, as the ledger writes it down.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::privacy::accountant::Phase;

/// What a run's cost depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunParameters {
    /// Probability that a unit is drawn in a step.
    pub sampling_rate: f64,
    /// Noise standard deviation over sensitivity.
    pub noise_multiplier: f64,
    /// Steps planned.
    pub steps: u64,
    /// The run's own delta.
    pub delta: f64,
    /// False for a run with a fixed seed: recorded, not counted.
    pub private: bool,
    /// Where batches have a largest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
    /// Epsilon of a noisy histogram of the labels, where one is planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_histogram_epsilon: Option<f64>,
}

/// Batches of a largest size (truncated Poisson).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncation {
    /// Most units in a batch.
    pub max_batch_size: u64,
    /// Most units that the dataset may have for the account to hold.
    pub most_units: u64,
}

/// What was used, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Training steps.
    pub steps: u64,
    /// Whether the labels were counted.
    pub histogram: bool,
}

impl RunParameters {
    /// How batches are drawn, as written in output.
    pub fn sampler(&self) -> String {
        match self.truncation {
            None => "poisson".to_string(),
            Some(t) => format!(
                "poisson truncated at {} (of at most {} units)",
                t.max_batch_size, t.most_units
            ),
        }
    }

    /// All that the run plans.
    pub fn planned(&self) -> Usage {
        Usage {
            steps: self.steps,
            histogram: self.label_histogram_epsilon.is_some(),
        }
    }

    /// What `usage` is to the accountant; empty where nothing was used.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    pub fn phases(&self, usage: Usage) -> Result<Vec<Phase>> {
        let mut phases = Vec::new();
        if usage.steps > 0 {
            phases.push(self.training(self.noise_multiplier, usage.steps)?);
        }
        if let Some(epsilon) = self.label_histogram_epsilon.filter(|_| usage.histogram) {
            phases.push(Phase::pure(epsilon, 1)?);
        }
        Ok(phases)
    }

    /// `steps` training steps with another noise multiplier.
    ///
    /// # Errors
    /// As [`RunParameters::phases`].
    pub fn training(&self, noise_multiplier: f64, steps: u64) -> Result<Phase> {
        match self.truncation {
            None => Phase::new(self.sampling_rate, noise_multiplier, steps),
            Some(t) => Phase::truncated(
                self.sampling_rate,
                noise_multiplier,
                steps,
                t.max_batch_size,
                t.most_units,
            ),
        }
    }
}
