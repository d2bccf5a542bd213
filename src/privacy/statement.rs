//! Epsilon and everything without which it means nothing (rule P10).

use std::fmt;

use serde::Serialize;

/// What a run guarantees. Its display never prints epsilon alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrivacyStatement {
    /// Pessimistic: the guarantee.
    pub epsilon: f64,
    /// Optimistic: no analysis of this mechanism can give less than this.
    pub epsilon_lower: f64,
    /// Probability beside epsilon.
    pub delta: f64,
    /// Which datasets are neighbours.
    pub adjacency: &'static str,
    /// What is added or removed.
    pub unit: String,
    /// How batches are drawn.
    pub sampler: String,
    /// What computed epsilon.
    pub accountant: &'static str,
    /// Which noise, and what it leaves out.
    pub mechanism: &'static str,
    /// Noise standard deviation over sensitivity.
    pub noise_multiplier: f64,
    /// Probability that a record is drawn in a step.
    pub sampling_rate: f64,
    /// Steps that were charged.
    pub steps: u64,
    /// Largest norm of a record's contribution.
    pub max_grad_norm: f64,
    /// What the noisy sum is divided by.
    pub expected_batch_size: u64,
    /// Epsilon of the noisy histogram of the labels, which is part of `epsilon`; none where labels were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_histogram_epsilon: Option<f64>,
    /// False where the randomness came from a fixed seed: then nothing above is guaranteed.
    pub private: bool,
}

impl fmt::Display for PrivacyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.private {
            write!(f, "NOT PRIVATE (fixed seed); with secure randomness it would be ")?;
        }
        // Rounded away from what would claim too much.
        write!(
            f,
            "epsilon {} (at least {}) at delta {:.3e}, adjacency {}, unit {}, sampler {}, accountant {}; {}, noise multiplier {:.4}, sampling rate {:.6}, {} steps",
            (self.epsilon * 1e4).ceil() / 1e4,
            (self.epsilon_lower * 1e4).floor() / 1e4,
            self.delta,
            self.adjacency,
            self.unit,
            self.sampler,
            self.accountant,
            self.mechanism,
            self.noise_multiplier,
            self.sampling_rate,
            self.steps
        )?;
        match self.label_histogram_epsilon {
            Some(epsilon) => write!(f, "; labels counted at epsilon {epsilon} of it"),
            None => Ok(()),
        }
    }
}
