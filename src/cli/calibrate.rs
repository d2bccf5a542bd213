//! `dpsynth calibrate`: the noise for an epsilon, the steps for a noise, or the batch size for a budget.

use clap::Args;
use dpsynth::privacy::accountant::{MAX_STEPS, MIN_NOISE_MULTIPLIER, pld};
use dpsynth::privacy::calibrate::{BatchChoice, BatchPlan, Compared, Length, Target};
use dpsynth::{Error, Result};
use serde::Serialize;

use super::Ui;
use super::meaning::{Adjacency, Meaning, Sampler, phase};
use super::number::{down, short, up};
use super::table::table;

/// Finds the noise, the steps or the batch size that an epsilon allows
#[derive(Args)]
#[command(after_help = "Examples, each with --epsilon 8 --delta 1e-5:
  --sampling-rate 0.01 --steps 1000             the smallest noise multiplier
  --sampling-rate 0.01 --noise-multiplier 1.1   the most steps
  --records 25000 --steps 500                   what each batch size makes of the budget")]
pub struct Calibrate {
    /// Target epsilon, above 0; the answer never goes above it.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    epsilon: f64,
    /// Delta, in (0, 1); it should be well below one over the number of records.
    #[arg(long, value_name = "D", allow_negative_numbers = true)]
    delta: f64,
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(
        long,
        value_name = "Q",
        allow_negative_numbers = true,
        required_unless_present = "records"
    )]
    sampling_rate: Option<f64>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T", allow_negative_numbers = true, required_unless_present_any = ["noise_multiplier", "epochs"])]
    steps: Option<u64>,
    /// Asks for the most steps with this noise multiplier.
    #[arg(
        long,
        value_name = "S",
        allow_negative_numbers = true,
        conflicts_with = "steps",
        requires = "sampling_rate"
    )]
    noise_multiplier: Option<f64>,
    /// Compares batch sizes for this many records.
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with_all = ["sampling_rate", "noise_multiplier"])]
    records: Option<u64>,
    /// Batch sizes to compare, with commas [default: powers of two from 32 up, and all records].
    #[arg(long, value_name = "B", value_delimiter = ',', allow_negative_numbers = true, requires = "records", conflicts_with_all = ["sampling_rate", "noise_multiplier"])]
    batch_sizes: Vec<u64>,
    /// Holds the compute instead of the steps: how often each record is drawn on average.
    #[arg(long, value_name = "K", allow_negative_numbers = true, requires = "records", conflicts_with_all = ["steps", "sampling_rate", "noise_multiplier"])]
    epochs: Option<f64>,
    /// Says the noise multiplier by the other accountants too.
    #[arg(long, requires = "steps", conflicts_with = "records")]
    compare: bool,
    /// How batches are drawn.
    #[arg(long, value_enum, default_value_t = Sampler::Poisson)]
    sampler: Sampler,
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
    #[serde(flatten)]
    meaning: Meaning,
    sampling_rate: f64,
    steps: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    /// The noise multiplier by accountants that spend no budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

/// Where the search ended before the answer did.
const MOST_STEPS: &str = "steps is the most that is tried: more may do";
const LEAST_NOISE: &str = "noise_multiplier is the least that is tried: less may do";

fn least_noise(noise_multiplier: f64) -> Option<&'static str> {
    (noise_multiplier <= MIN_NOISE_MULTIPLIER).then_some(LEAST_NOISE)
}

#[derive(Serialize)]
struct PlanAnswer {
    target_epsilon: f64,
    delta: f64,
    #[serde(flatten)]
    meaning: Meaning,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
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
        if self.sampler != Sampler::Poisson
            && (self.noise_multiplier.is_some() || self.records.is_some() || self.compare)
        {
            return Err(Error::usage(
                "the noise of random allocation is found for a sampling rate and a number of steps alone",
            )
            .hint("leave out --noise-multiplier, --records and --compare"));
        }
        let target = Target::new(self.epsilon, self.delta)?.with_adjacency(self.adjacency.known());
        if let Some(records) = self.records {
            return self.plan_batch(&target, records, ui);
        }
        let missing = || {
            Error::usage("a sampling rate is needed, and steps or a noise multiplier")
                .hint("`dpsynth calibrate --help` shows them")
        };
        let sampling_rate = self.sampling_rate.ok_or_else(missing)?;
        let slots = self.sampler.slots(sampling_rate)?;
        let (noise_multiplier, steps) = match (self.noise_multiplier, self.steps) {
            (Some(sigma), _) => (sigma, target.steps(sampling_rate, sigma)?),
            (None, Some(steps)) => {
                let at = |sigma: f64| phase(slots, sampling_rate, sigma, steps);
                (target.noise_multiplier_of(sampling_rate, at)?, steps)
            }
            (None, None) => return Err(missing()),
        };
        let phase = phase(slots, sampling_rate, noise_multiplier, steps)?;
        let bracket = pld::epsilon(&[phase], self.adjacency.known(), self.delta)?;
        let answer = Answer {
            noise_multiplier,
            epsilon: bracket.epsilon,
            epsilon_lower: bracket.epsilon_lower,
            target_epsilon: self.epsilon,
            delta: self.delta,
            meaning: self.meaning(),
            sampling_rate,
            steps,
            limit: match self.noise_multiplier {
                Some(_) => (steps == MAX_STEPS).then_some(MOST_STEPS),
                None => least_noise(noise_multiplier),
            },
            compared: (self.compare)
                .then(|| target.compared(sampling_rate, steps))
                .transpose()?,
        };
        if self.json {
            ui.print_json(&answer)
        } else {
            let found = match (self.noise_multiplier, answer.limit) {
                (Some(sigma), None) => format!("{steps} steps with noise multiplier {sigma} give"),
                (Some(sigma), Some(_)) => {
                    format!("at least {steps} steps (the most that is tried) with noise multiplier {sigma}: these give")
                }
                (None, None) => format!("noise multiplier {} gives", up(noise_multiplier, 6)),
                (None, Some(_)) => format!("noise multiplier {noise_multiplier} (the least that is tried) gives"),
            };
            let beside = answer.compared.map(|of| {
                let more = |sigma: f64| 100.0 * (sigma / noise_multiplier - 1.0);
                let edgeworth = of.edgeworth.map_or("none at so few steps".to_string(), |sigma| {
                    format!("{sigma:.6} ({:+.1} %)", more(sigma))
                });
                format!(
                    "\nby Rényi moments {} ({:+.1} %); estimates, which prove nothing: Edgeworth {edgeworth}, central limit {:.6} ({:+.1} %)",
                    up(of.rdp, 6),
                    more(of.rdp),
                    of.gdp,
                    more(of.gdp)
                )
            });
            ui.print(&format!(
                "{found} epsilon {} (at least {}) at delta {}, {}{}",
                up(answer.epsilon, 6),
                down(answer.epsilon_lower, 6),
                short(answer.delta),
                self.meaning(),
                beside.unwrap_or_default()
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
        if records == 0 {
            return Err(Error::usage("the number of records must be at least 1, not 0").hint("give --records"));
        }
        let batch_sizes = if self.batch_sizes.is_empty() {
            let least = if records > 32 { 32 } else { 1 };
            let powers = (0..63).map(|p| 1 << p).filter(|b| (least..records).contains(b));
            powers.chain([records]).collect()
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
                limit: least_noise(choice.noise_multiplier),
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
            meaning: self.meaning(),
            records,
            knee: plan.knee().map(|c| c.batch_size),
            best_signal_to_noise_total: plan.best_signal_to_noise_total(),
            choices: rows,
            note: shown.map(simulation),
        })
    }

    fn meaning(&self) -> Meaning {
        Meaning::new("pld", self.adjacency, self.sampler)
    }

    fn table(&self, plan: &BatchPlan, rows: &[Row]) -> String {
        let header = [
            "batch size",
            "steps",
            "epochs",
            "noise multiplier",
            "noise / batch size",
            "signal to noise",
            "to simulate",
        ];
        let mut table = table(header, ..);
        for row in rows {
            let choice = &row.choice;
            table.add_row([
                choice.batch_size.to_string(),
                choice.steps.to_string(),
                format!("{:.2}", choice.epochs),
                up(choice.noise_multiplier, 4),
                format!("{:.3e}", choice.noise_per_record),
                format!("{:.4}", choice.signal_to_noise_total),
                row.simulation_noise_multiplier
                    .map(|s| format!("{s:.4}"))
                    .unwrap_or_default(),
            ]);
        }
        let most = plan.best_signal_to_noise_total();
        let full = |choice: &BatchChoice| choice.sampling_rate >= 1.0;
        let knee = match plan.knee() {
            Some(knee) if !full(knee) => format!(
                "From batch size {} on, more hardly pays: its signal to noise is within 7 % of the most, {most:.4}.",
                knee.batch_size
            ),
            None if !plan.choices().last().is_some_and(full) => {
                format!("Larger batches than these still pay: the most signal to noise is {most:.4}.")
            }
            _ => format!("No batch is larger than all records: the most signal to noise is {most:.4}."),
        };
        let limit = match rows.iter().any(|row| row.limit.is_some()) {
            true => format!("{MIN_NOISE_MULTIPLIER} is the least noise multiplier that is tried: less may do.\n"),
            false => String::new(),
        };
        format!(
            "each within epsilon {} at delta {}, {}\n{table}\n{limit}{knee}",
            self.epsilon,
            short(self.delta),
            self.meaning()
        )
    }
}
