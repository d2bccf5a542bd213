//! `dpsynth bench account`.

use crate::cli::table::table;
use clap::Args;
use dpsynth::Result;
use dpsynth::bench::account::{Setting, measure};

use super::super::Ui;
use super::super::number::short;
use super::super::run::interrupts;

/// Times an epsilon, a delta and a calibration of the noise, by privacy loss distributions
///
/// The defaults are those of the quick profile on IMDb.
#[derive(Args)]
pub struct Account {
    /// Probability that a record is in a batch, in (0, 1]
    #[arg(long, value_name = "Q", default_value_t = 128.0 / 25_000.0, allow_negative_numbers = true)]
    sampling_rate: f64,
    /// Standard deviation of the noise over the clipping norm, above 0
    #[arg(long, value_name = "S", default_value_t = 0.3694, allow_negative_numbers = true)]
    noise_multiplier: f64,
    /// Number of optimizer steps
    #[arg(long, value_name = "T", default_value_t = 8)]
    steps: u64,
    /// Delta, in (0, 1)
    #[arg(long, value_name = "D", default_value_t = 3.95e-6, allow_negative_numbers = true)]
    delta: f64,
    /// At which delta is asked for, and which calibration aims at
    #[arg(long, value_name = "E", default_value_t = 8.0, allow_negative_numbers = true)]
    epsilon: f64,
    /// Times that each question is asked
    #[arg(long, value_name = "N", default_value_t = 15)]
    times: usize,
    /// Writes one JSON object
    #[arg(long)]
    json: bool,
}

impl Account {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let setting = Setting {
            sampling_rate: self.sampling_rate,
            noise_multiplier: self.noise_multiplier,
            steps: self.steps,
            delta: self.delta,
            epsilon: self.epsilon,
        };
        let found = measure(setting, self.times, interrupts()?)?;
        if self.json {
            return ui.print_json(&found);
        }
        let mut table = table(["accounting", "ms"], 1..);
        for (what, s) in [
            ("epsilon", found.epsilon_s),
            ("delta", found.delta_s),
            ("calibration", found.calibrate_s),
        ] {
            table.add_row([what.to_string(), format!("{:.2}", 1e3 * s)]);
        }
        ui.print(&format!(
            "sampling rate {}, noise multiplier {}, {} steps, delta {}\n{table}",
            short(self.sampling_rate),
            self.noise_multiplier,
            self.steps,
            short(self.delta)
        ))
    }
}
