//! The command line: one file a subcommand, no logic that a library user would miss.

mod doctor;
mod fetch;
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
    Doctor(doctor::Doctor),
    Fetch(fetch::Fetch),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self, ui: &Ui) -> Result<()> {
        match self.command {
            Command::Doctor(command) => command.run(ui),
            Command::Fetch(command) => command.run(ui),
        }
    }
}
