//! The command line: one file a subcommand, no logic that a library user would miss.

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
enum Command {}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self, _ui: &Ui) -> Result<()> {
        match self.command {}
    }
}
