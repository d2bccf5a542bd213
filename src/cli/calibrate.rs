//! `dpsynth calibrate`: the noise for an epsilon, the steps for a noise, or the batch size for a budget.

use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use dpsynth::privacy::accountant::{Phase, pld};
use dpsynth::privacy::calibrate::{BatchChoice, BatchPlan, Length, Target};
use dpsynth::{Error, Result};
use serde::Serialize;

use super::Ui;
use super::account::{Adjacency, down, up};

/// Finds the smallest noise multiplier that keeps a run within epsilon.
#[derive(Args)]
#[command(after_help = "Examples, each with --epsilon 8 --delta 1e-5:
  --sampling-rate 0.01 --steps 1000             the smallest noise multiplier
  --sampling-rate 0.01 --noise-multiplier 1.1   the most steps
  --records 25000 --steps 500                   what each batch size makes of the budget")]
pub struct Calibrate {
    /// Target epsilon, above 0; the answer never goes above it.
    #[arg(long, value_name = "E")]
    epsilon: f64,
    /// Delta, in (0, 1); it should be well below one over the number of records.
    #[arg(long, value_name = "D")]
    delta: f64,
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(long, value_name = "Q", required_unless_present = "records")]
    sampling_rate: Option<f64>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T", required_unless_present_any = ["noise_multiplier", "epochs"])]
    steps: Option<u64>,
    /// Asks for the most steps with this noise multiplier.
    #[arg(long, value_name = "S", conflicts_with = "steps", requires = "sampling_rate")]
    noise_multiplier: Option<f64>,
    /// Compares batch sizes for this many records.
    #[arg(long, value_name = "N", conflicts_with_all = ["sampling_rate", "noise_multiplier"])]
    records: Option<u64>,
    /// Batch sizes to compare, with commas [default: powers of two from 32 up].
    #[arg(long, value_name = "B", value_delimiter = ',', requires = "records")]
    batch_sizes: Vec<u64>,
    /// Holds the compute instead of the steps: how often each record is drawn on average.
    #[arg(long, value_name = "K", conflicts_with = "steps", requires = "records")]
    epochs: Option<f64>,
    /// Which datasets are neighbours.
    #[arg(long, value_enum, default_value_t = Adjacency::AddRemove)]
    adjacency: Adjacency,
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

#[derive(Serialize)]
struct PlanAnswer {
    target_epsilon: f64,
    delta: f64,
    accountant: &'static str,
    adjacency: &'static str,
    unit: &'static str,
    sampler: &'static str,
    records: u64,
    /// The smallest batch size from which more hardly pays.
    knee: Option<u64>,
    best_signal_to_noise_total: f64,
    choices: Vec<Row>,
    note: Option<String>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    choice: BatchChoice,
    /// For a cheap search at this batch size: not private.
    simulation_noise_multiplier: Option<f64>,
}

/// What the simulation noise multipliers are for.
fn simulation(of: &BatchChoice) -> String {
    format!(
        "NOT PRIVATE: with the simulation noise multiplier, {} steps of a small batch train much as batch size {} does; for a cheap search on data that may be seen",
        of.steps, of.batch_size
    )
}

impl Calibrate {
    /// Prints the noise multiplier or the steps and the epsilon they give, or a table of batch sizes.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let target = Target::new(self.epsilon, self.delta)?.with_adjacency(self.adjacency.known());
        if let Some(records) = self.records {
            return self.plan_batch(&target, records, ui);
        }
        let missing = || {
            Error::usage("a sampling rate is needed, and steps or a noise multiplier")
                .hint("`dpsynth calibrate --help` shows them")
        };
        let sampling_rate = self.sampling_rate.ok_or_else(missing)?;
        let (noise_multiplier, steps) = match (self.noise_multiplier, self.steps) {
            (Some(sigma), _) => (sigma, target.steps(sampling_rate, sigma)?),
            (None, Some(steps)) => (target.noise_multiplier(sampling_rate, steps)?, steps),
            (None, None) => return Err(missing()),
        };
        let phase = Phase::new(sampling_rate, noise_multiplier, steps)?;
        let bracket = pld::epsilon(&[phase], self.adjacency.known(), self.delta)?;
        let answer = Answer {
            noise_multiplier,
            epsilon: bracket.epsilon,
            epsilon_lower: bracket.epsilon_lower,
            target_epsilon: self.epsilon,
            delta: self.delta,
            accountant: "pld",
            adjacency: self.adjacency.flag(),
            unit: "record",
            sampler: "poisson",
            sampling_rate,
            steps,
        };
        if self.json {
            ui.print_json(&answer)
        } else {
            let found = match self.noise_multiplier {
                Some(sigma) => format!("{steps} steps with noise multiplier {sigma} give"),
                None => format!("noise multiplier {} gives", up(noise_multiplier)),
            };
            ui.print(&format!(
                "{found} epsilon {} (at least {}) at delta {:e}, {}",
                up(answer.epsilon),
                down(answer.epsilon_lower),
                answer.delta,
                self.meaning()
            ))
        }
    }

    fn plan_batch(&self, target: &Target, records: u64, ui: &Ui) -> Result<()> {
        let length = match (self.steps, self.epochs) {
            (_, Some(epochs)) => Length::Epochs(epochs),
            (Some(steps), None) => Length::Steps(steps),
            (None, None) => {
                return Err(Error::usage("the number of steps or epochs is needed").hint("add --steps or --epochs"));
            }
        };
        let batch_sizes = if self.batch_sizes.is_empty() {
            (0..63)
                .map(|p| 1 << p)
                .filter(|b| (32.min(records)..=records).contains(b))
                .collect()
        } else {
            self.batch_sizes.clone()
        };
        let plan = target.batch_plan(records, length, &batch_sizes)?;
        let shown = plan.knee().or(plan.choices().last());
        let rows: Vec<Row> = plan
            .choices()
            .iter()
            .map(|choice| Row {
                choice: *choice,
                simulation_noise_multiplier: shown
                    .filter(|knee| choice.batch_size < knee.batch_size)
                    .map(|knee| BatchPlan::simulate(knee, choice.batch_size)),
            })
            .collect();
        if !self.json {
            let note = shown.map(|of| format!("\n{}", simulation(of))).unwrap_or_default();
            return ui.print(&format!("{}{note}", self.table(&plan, &rows)));
        }
        ui.print_json(&PlanAnswer {
            target_epsilon: self.epsilon,
            delta: self.delta,
            accountant: "pld",
            adjacency: self.adjacency.flag(),
            unit: "record",
            sampler: "poisson",
            records,
            knee: plan.knee().map(|c| c.batch_size),
            best_signal_to_noise_total: plan.best_signal_to_noise_total(),
            choices: rows,
            note: shown.map(simulation),
        })
    }

    fn meaning(&self) -> String {
        format!(
            "adjacency {}, unit record, sampler poisson, accountant pld",
            self.adjacency.known().name()
        )
    }

    fn table(&self, plan: &BatchPlan, rows: &[Row]) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "batch size",
            "steps",
            "epochs",
            "noise multiplier",
            "noise / batch size",
            "signal to noise",
            "to simulate",
        ]);
        for row in rows {
            let choice = &row.choice;
            table.add_row([
                choice.batch_size.to_string(),
                choice.steps.to_string(),
                format!("{:.2}", choice.epochs),
                format!("{:.4}", choice.noise_multiplier),
                format!("{:.3e}", choice.noise_per_record),
                format!("{:.4}", choice.signal_to_noise_total),
                row.simulation_noise_multiplier
                    .map(|s| format!("{s:.4}"))
                    .unwrap_or_default(),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let knee = match plan.knee() {
            Some(knee) => format!(
                "From batch size {} on, more hardly pays: its signal to noise is within 7 % of the most, {:.4}.",
                knee.batch_size,
                plan.best_signal_to_noise_total()
            ),
            None => format!(
                "Larger batches than these still pay: the most signal to noise is {:.4}.",
                plan.best_signal_to_noise_total()
            ),
        };
        format!(
            "each within epsilon {} at delta {:e}, {}\n{table}\n{knee}",
            self.epsilon,
            self.delta,
            self.meaning()
        )
    }
}
