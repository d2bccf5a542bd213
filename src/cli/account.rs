//! `dpsynth account`: epsilon of a sampling rate, noise multiplier and number of steps.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dpsynth::privacy::accountant::{Adjacency as Neighbours, Mechanism, Phase, check_delta, pld, rdp};
use dpsynth::{Error, Result};
use serde::Serialize;

use super::Ui;

/// Computes epsilon for DP-SGD: Poisson batches, clipped gradients, Gaussian noise.
#[derive(Args)]
pub struct Account {
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(long, value_name = "Q", required_unless_present = "batch")]
    sampling_rate: Option<f64>,
    /// Standard deviation of the noise over the clipping norm, above 0.
    #[arg(long, value_name = "S", required_unless_present = "batch")]
    noise_multiplier: Option<f64>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T", required_unless_present = "batch")]
    steps: Option<u64>,
    /// Delta, in (0, 1); it should be well below one over the number of records.
    #[arg(long, value_name = "D", required_unless_present = "batch")]
    delta: Option<f64>,
    /// Which analysis: pld is exact up to a bracket and is what runs are charged by, rdp is for comparison.
    #[arg(long, value_enum, default_value_t = Accountant::Pld)]
    accountant: Accountant,
    /// Which datasets are neighbours.
    #[arg(long, value_enum, default_value_t = Adjacency::AddRemove)]
    adjacency: Adjacency,
    /// A CSV file with the columns q, sigma, T, delta (others are ignored): writes one JSON object a line, in order.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["sampling_rate", "noise_multiplier", "steps", "delta"])]
    batch: Option<PathBuf>,
    /// Writes one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Accountant {
    /// Privacy loss distributions, by connect-the-dots and FFT.
    Pld,
    /// Rényi differential privacy.
    Rdp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Adjacency {
    /// One record is added or removed.
    AddRemove,
}

#[derive(Serialize)]
struct Answer {
    epsilon: f64,
    /// From below; for rdp there is none.
    epsilon_lower: Option<f64>,
    delta: f64,
    accountant: &'static str,
    adjacency: &'static str,
    unit: &'static str,
    sampler: &'static str,
    /// Which neighbour decides; rdp bounds both at once.
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<f64>,
    /// The same with exact moments at fractional orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon_exact_orders: Option<f64>,
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u64,
}

impl Account {
    /// Prints one answer, or one a line.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let Adjacency::AddRemove = self.adjacency;
        if let Some(path) = &self.batch {
            for (phase, delta) in read_batch(path)? {
                ui.print_json(&answer(self.accountant, phase, delta)?);
            }
            return Ok(());
        }
        let (Some(q), Some(sigma), Some(steps), Some(delta)) =
            (self.sampling_rate, self.noise_multiplier, self.steps, self.delta)
        else {
            return Err(
                Error::usage("the sampling rate, noise multiplier, steps and delta are all needed")
                    .hint("`dpsynth account --help` shows them"),
            );
        };
        let answer = answer(self.accountant, Phase::new(q, sigma, steps)?, delta)?;
        if self.json {
            ui.print_json(&answer);
        } else {
            let lower = answer
                .epsilon_lower
                .map(|l| format!(" (at least {l:.6})"))
                .unwrap_or_default();
            let order = answer.order.map(|o| format!(" at order {o}")).unwrap_or_default();
            ui.print(&format!(
                "epsilon {:.6}{lower} at delta {:e}, adjacency {}, unit {}, sampler {}, accountant {}{order}, direction {}",
                answer.epsilon, answer.delta, answer.adjacency, answer.unit, answer.sampler, answer.accountant, answer.direction
            ));
        }
        Ok(())
    }
}

fn answer(accountant: Accountant, phase: Phase, delta: f64) -> Result<Answer> {
    check_delta(delta)?;
    let Mechanism::Gaussian {
        sampling_rate,
        noise_multiplier,
    } = phase.mechanism()
    else {
        return Err(Error::other("only the subsampled Gaussian is accounted for here"));
    };
    let blank = Answer {
        epsilon: 0.0,
        epsilon_lower: None,
        delta,
        accountant: "pld",
        adjacency: "add-or-remove-one",
        unit: "record",
        sampler: "poisson",
        direction: "both",
        order: None,
        epsilon_exact_orders: None,
        sampling_rate,
        noise_multiplier,
        steps: phase.steps(),
    };
    match accountant {
        Accountant::Pld => {
            let bracket = pld::epsilon(&[phase], Neighbours::AddOrRemoveOne, delta)?;
            Ok(Answer {
                epsilon: bracket.epsilon,
                epsilon_lower: Some(bracket.epsilon_lower),
                direction: bracket.direction.name(),
                ..blank
            })
        }
        Accountant::Rdp => {
            let renyi = rdp::epsilon(&[phase], delta)?;
            Ok(Answer {
                epsilon: renyi.epsilon,
                accountant: "rdp",
                order: Some(renyi.order),
                epsilon_exact_orders: Some(rdp::epsilon_exact(&[phase], delta)?.epsilon),
                ..blank
            })
        }
    }
}

/// The settings in a CSV file. Lines that are empty or begin with `#` are skipped; the first other line names columns.
fn read_batch(path: &std::path::Path) -> Result<Vec<(Phase, f64)>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|(i, l)| (i + 1, l));
    let refuse = |line: usize, what: String| {
        Error::usage(format!("line {line} of {}: {what}", path.display())).hint("the columns are q, sigma, T, delta")
    };
    let (first, names) = lines.next().ok_or_else(|| refuse(1, "the file is empty".into()))?;
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let column = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .ok_or_else(|| refuse(first, format!("there is no column `{name}`")))
    };
    let columns = [column("q")?, column("sigma")?, column("T")?, column("delta")?];
    lines
        .map(|(line, text)| {
            let cells: Vec<&str> = text.split(',').map(str::trim).collect();
            let mut values = [0.0_f64; 4];
            for (value, c) in values.iter_mut().zip(columns) {
                let cell = cells.get(c).copied().unwrap_or("");
                *value = cell
                    .parse()
                    .map_err(|_| refuse(line, format!("`{cell}` is not a number")))?;
            }
            let [q, sigma, steps, delta] = values;
            if steps.fract() != 0.0 || !(0.0..=1e15).contains(&steps) {
                return Err(refuse(line, format!("{steps} is not a number of steps")));
            }
            let phase = Phase::new(q, sigma, steps as u64).map_err(|e| refuse(line, e.to_string()))?;
            check_delta(delta).map_err(|e| refuse(line, e.to_string()))?;
            Ok((phase, delta))
        })
        .collect()
}
