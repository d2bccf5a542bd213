//! `dpsynth calibrate`: the noise for an epsilon.

use clap::Args;
use dpsynth::Result;
use dpsynth::privacy::accountant::{Adjacency, Phase, pld};
use dpsynth::privacy::calibrate;
use serde::Serialize;

use super::Ui;

/// Finds the smallest noise multiplier that keeps a run within epsilon.
#[derive(Args)]
pub struct Calibrate {
    /// Target epsilon, above 0; the answer never goes above it.
    #[arg(long, value_name = "E")]
    epsilon: f64,
    /// Delta, in (0, 1); it should be well below one over the number of records.
    #[arg(long, value_name = "D")]
    delta: f64,
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(long, value_name = "Q")]
    sampling_rate: f64,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T")]
    steps: u64,
    /// Writes one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    noise_multiplier: f64,
    epsilon: f64,
    epsilon_lower: f64,
    target_epsilon: f64,
    delta: f64,
    accountant: &'static str,
    adjacency: &'static str,
    unit: &'static str,
    sampler: &'static str,
    sampling_rate: f64,
    steps: u64,
}

impl Calibrate {
    /// Prints the noise multiplier and the epsilon it gives.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let sigma = calibrate::noise_multiplier(self.epsilon, self.delta, self.sampling_rate, self.steps)?;
        let bracket = pld::epsilon(
            &[Phase::new(self.sampling_rate, sigma, self.steps)?],
            Adjacency::AddOrRemoveOne,
            self.delta,
        )?;
        let answer = Answer {
            noise_multiplier: sigma,
            epsilon: bracket.epsilon,
            epsilon_lower: bracket.epsilon_lower,
            target_epsilon: self.epsilon,
            delta: self.delta,
            accountant: "pld",
            adjacency: "add-or-remove-one",
            unit: "record",
            sampler: "poisson",
            sampling_rate: self.sampling_rate,
            steps: self.steps,
        };
        if self.json {
            ui.print_json(&answer);
        } else {
            ui.print(&format!(
                "noise multiplier {:.6} gives epsilon {:.6} (at least {:.6}) at delta {:e}, adjacency {}, unit {}, sampler {}, accountant {}",
                sigma, answer.epsilon, answer.epsilon_lower, answer.delta, answer.adjacency, answer.unit, answer.sampler, answer.accountant
            ));
        }
        Ok(())
    }
}
