//! The command line: one file a subcommand, no logic that a library user would miss.

mod account;
mod calibrate;
mod ledger;
mod ui;

pub use ui::Ui;

use clap::{Parser, Subcommand};
use dpsynth::Result;

/// Turns a labelled private text dataset into a synthetic one under differential privacy.
#[derive(Parser)]
#[command(name = "dpsynth", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Epsilon of a sampling rate, a noise multiplier and a number of steps.
    Account(account::Account),
    /// The smallest noise multiplier for a target epsilon.
    Calibrate(calibrate::Calibrate),
    /// What was spent on a dataset: show, verify, set-budget.
    Ledger(ledger::Ledger),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self, ui: &Ui) -> Result<()> {
        match self.command {
            Command::Account(command) => command.run(ui),
            Command::Calibrate(command) => command.run(ui),
            Command::Ledger(command) => command.run(ui),
        }
    }
}
