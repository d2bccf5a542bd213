//! The command line: one file a subcommand, no logic that a library user would miss.

mod account;
mod audit;
mod bench;
mod calibrate;
mod compare;
mod completions;
mod doctor;
mod export;
mod fetch;
mod inspect;
mod ledger;
mod man;
mod meaning;
mod methods;
mod plan;
mod predict;
mod quality;
mod release;
mod report;
mod run;
mod show;
mod status;
mod table;
mod ui;
mod verify;

pub use ui::Ui;

use clap::{Parser, Subcommand};
use dpsynth::models::device;
use dpsynth::run::Stage;
use dpsynth::{Result, number};

/// Turns a labelled private text dataset into a synthetic one under differential privacy.
///
/// Begin with `dpsynth plan pipelines/imdb.toml`, then `dpsynth run pipelines/imdb.toml`.
#[derive(Parser)]
#[command(name = "dpsynth", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Inspect),
    Init(inspect::Init),
    Plan(plan::Plan),
    Run(run::Run),
    /// Reads, cleans and tokenises the records
    ///
    /// The first stage of a run.
    Prepare(run::OneStage),
    /// Trains the model privately, charging the dataset's ledger step by step
    ///
    /// The second stage of a run.
    Finetune(run::OneStage),
    /// Draws synthetic records by label, and zero-shot ones for comparison
    ///
    /// The third stage of a run. Free of privacy cost: draw as often as you like.
    Sample(run::OneStage),
    /// Trains on the real records what the synthetic ones are compared with, where `evaluate.arms` asks for it
    ///
    /// An optional stage between sample and evaluate: for `dp_direct` or `non_private` in `evaluate.arms`. `dp_direct`
    /// charges the dataset's ledger a second time.
    References(run::OneStage),
    /// Trains classifiers on real, synthetic and zero-shot records and tests them on real ones
    ///
    /// The last stage of a run. It measures, and never charges a ledger.
    Evaluate(run::OneStage),
    Status(status::StatusOf),
    Compare(compare::Compare),
    Report(report::MakeReport),
    Predict(predict::Predict),
    Audit(audit::Audit),
    Release(release::Release),
    Verify(verify::Verify),
    Export(export::ExportOf),
    Bench(bench::Bench),
    Fetch(fetch::Fetch),
    Doctor(doctor::Doctor),
    Account(account::Account),
    Calibrate(calibrate::Calibrate),
    Methods(methods::Methods),
    Ledger(ledger::Ledger),
    Completions(completions::Completions),
    Man(man::Manual),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self, ui: &Ui) -> Result<()> {
        device::reported(|| self.command.run(ui))
    }
}

impl Command {
    fn run(self, ui: &Ui) -> Result<()> {
        match self {
            Command::Inspect(command) => command.run(ui),
            Command::Init(command) => command.run(ui),
            Command::Run(command) => command.run(ui),
            Command::Plan(command) => command.run(ui),
            Command::Prepare(command) => command.run(Stage::Prepare, ui),
            Command::Finetune(command) => command.run(Stage::Finetune, ui),
            Command::Sample(command) => command.run(Stage::Sample, ui),
            Command::References(command) => command.run(Stage::References, ui),
            Command::Evaluate(command) => command.run(Stage::Evaluate, ui),
            Command::Status(command) => command.run(ui),
            Command::Compare(command) => command.run(ui),
            Command::Report(command) => command.run(ui),
            Command::Predict(command) => command.run(ui),
            Command::Audit(command) => command.run(ui),
            Command::Release(command) => command.run(ui),
            Command::Verify(command) => command.run(ui),
            Command::Export(command) => command.run(ui),
            Command::Bench(command) => command.run(ui),
            Command::Fetch(command) => command.run(ui),
            Command::Doctor(command) => command.run(ui),
            Command::Account(command) => command.run(ui),
            Command::Calibrate(command) => command.run(ui),
            Command::Methods(command) => command.run(ui),
            Command::Ledger(command) => command.run(ui),
            Command::Completions(command) => command.run(ui),
            Command::Man(command) => command.run(ui),
        }
    }
}
