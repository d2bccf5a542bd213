//! `dpsynth bench`: what this machine makes of a run's work.

mod account;
mod prepare;
mod sample;
mod train;
mod which;

use clap::{Args, Subcommand};
use dpsynth::Result;

use super::Ui;

/// Times preparing, training, sampling and accounting on this machine, with made-up records
///
/// Reads no record, writes no run and no ledger of yours.
#[derive(Args)]
#[command(after_help = "Examples:
  dpsynth bench train pipelines/imdb.toml --profile quick
  dpsynth bench train --records 16 --tokens 64 --micro-batch-size 8 --json
  dpsynth bench prepare --large
  dpsynth bench sample pipelines/imdb.toml --batch-size 256 --records 256")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Prepare(prepare::Prepare),
    Train(train::Train),
    Sample(sample::Sample),
    Account(account::Account),
}

impl Bench {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        match self.what {
            What::Prepare(prepare) => prepare.run(ui),
            What::Train(train) => train.run(ui),
            What::Sample(sample) => sample.run(ui),
            What::Account(account) => account.run(ui),
        }
    }
}
