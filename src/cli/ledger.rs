//! `dpsynth ledger`: what was spent on a dataset.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dpsynth::Result;
use dpsynth::privacy::{self, Counted, LedgerView, RestsOn};
use serde::Serialize;

use super::Ui;
use super::number::{short, up};

/// Shows, checks and bounds what was spent on a dataset
#[derive(Args)]
pub struct Ledger {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Prints the runs, their charged steps and the epsilon they come to together.
    Show {
        /// The ledger: <dataset hash>.jsonl.
        file: PathBuf,
        /// Writes one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Checks that no line was edited, removed or cut off; says which, if one was.
    Verify {
        /// The ledgers.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Writes one JSON object a file.
        #[arg(long)]
        json: bool,
    },
    /// Sets the epsilon that all runs on the dataset may spend together; the change is recorded in the ledger.
    SetBudget {
        /// The ledger: <dataset hash>.jsonl.
        file: PathBuf,
        /// The new total epsilon, above 0, at the ledger's delta.
        #[arg(long, value_name = "E", allow_negative_numbers = true)]
        epsilon: f64,
        /// Writes one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    view: LedgerView,
    /// Of all charged steps of private runs.
    epsilon_charged: f64,
    /// The same where later runs were chosen after seeing what earlier ones gave; none where there are not two.
    epsilon_if_adaptive: Option<f64>,
    /// With open runs counted at their planned steps.
    epsilon_reserved: f64,
    /// What is held against the total, and how it was added up.
    counted: Counted,
    /// The Rényi order of one of both filters; none before a private run.
    filter_order: Option<f64>,
    accountant: &'static str,
    adjacency: &'static str,
    sampler: String,
}

impl Ledger {
    /// Does the one thing asked.
    pub fn run(self, ui: &Ui) -> Result<()> {
        match self.action {
            Action::Show { file, json } => print(&shown(privacy::verify(&file)?)?, json, ui),
            Action::Verify { files, json } => {
                for file in files {
                    let view = privacy::verify(&file)?;
                    if json {
                        ui.print_json(&serde_json::json!({ "file": file, "lines": view.lines, "intact": true }))?;
                    } else {
                        ui.print(&format!("{}: {} lines, intact", file.display(), view.lines))?;
                    }
                }
                Ok(())
            }
            Action::SetBudget { file, epsilon, json } => {
                let mut ledger = privacy::Ledger::open_file(&file)?;
                ledger.set_budget(epsilon)?;
                print(&shown(ledger.view())?, json, ui)
            }
        }
    }
}

fn print(shown: &Shown, json: bool, ui: &Ui) -> Result<()> {
    match json {
        true => ui.print_json(shown),
        false => ui.print(&text(shown)),
    }
}

fn shown(view: LedgerView) -> Result<Shown> {
    Ok(Shown {
        epsilon_charged: view.charged_epsilon()?,
        epsilon_if_adaptive: view.epsilon_if_adaptive()?,
        epsilon_reserved: view.reserved_epsilon()?,
        counted: view.counted()?,
        filter_order: view.filter_order()?,
        sampler: view.sampler(),
        view,
        accountant: "pld",
        adjacency: "add-or-remove-one",
    })
}

fn text(s: &Shown) -> String {
    let mut out = format!("dataset {}, {} lines\n", s.view.dataset, s.view.lines);
    for record in &s.view.runs {
        let state = match (record.ended, record.is_complete()) {
            (true, _) => "ended",
            (false, true) => "complete",
            (false, false) => "open",
        };
        let p = &record.parameters;
        let mark = if p.private {
            ""
        } else {
            ", NOT PRIVATE (fixed seed): not counted"
        };
        let research = match p.unproven() {
            Some(_) => ", NOT A DP GUARANTEE (for research)",
            None => "",
        };
        let releases = || p.releases.iter().zip(&record.uses);
        let charged: Vec<String> = releases()
            .map(|(release, charged)| format!("{charged} of {} {} charged", release.times, release.mechanism.uses()))
            .collect();
        let numbers: Vec<String> = releases().map(|(release, _)| release.mechanism.describe()).collect();
        let whose = match (&record.from, record.disjoint) {
            (Some(from), _) => format!(", on dataset {from}, which shares rows with this one"),
            (None, true) => ", declared to share nobody with other datasets".into(),
            (None, false) => String::new(),
        };
        out += &format!(
            "run {}{whose}: {}, {state}, {}{mark}{research}\n",
            record.run,
            charged.join(" and "),
            numbers.join(", ")
        );
    }
    for dataset in &s.view.apart {
        out += &format!(
            "dataset {dataset} shares rows with this one and was declared to share nobody: its runs are not here\n"
        );
    }
    if let Some((release, reference)) = s.view.unproven() {
        out += &format!("NOT A DP GUARANTEE: `{release}` has no proof ({reference})\n");
    }
    out += &format!(
        "charged epsilon {}, with open runs as planned {}, of {:?} at delta {}, adjacency {}, unit {}, sampler {}, accountant {}",
        up(s.epsilon_charged, 4),
        up(s.epsilon_reserved, 4),
        s.view.total_epsilon,
        short(s.view.delta),
        s.adjacency,
        s.view.unit,
        s.sampler,
        s.accountant
    );
    if let Some(adaptive) = s.epsilon_if_adaptive {
        out += &format!(
            "\nwhere later runs were chosen after seeing what earlier ones gave: {}, by a filter, which holds either way",
            up(adaptive, 4)
        );
    }
    out += &match s.counted.rests_on {
        RestsOn::Pld => {
            "\nheld against the total: the second, since all plans were made before anything was charged".to_string()
        }
        filter => format!(
            "\nheld against the total: {}, open runs as planned (accountant {})",
            up(s.counted.epsilon, 4),
            filter.name()
        ),
    };
    out
}
