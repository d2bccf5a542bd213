//! `dpsynth account`: epsilon, delta or a privacy curve of what is planned.

mod attacks;
mod input;
mod point;

use crate::cli::table::table;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dpsynth::facts::attacks::Attacks;
use dpsynth::privacy::accountant::{Phase, estimate};
use dpsynth::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;

use super::Ui;
use super::meaning::{Adjacency, Meaning, Sampler};
use super::number::{down, short, up};
use input::{Part, part, read_batch};
use point::{Given, Orders, Point};

/// Computes epsilon, delta or the privacy curve of a sampling rate, a noise multiplier and a number of steps
///
/// For DP-SGD: batches drawn in secret, clipped gradients, Gaussian noise.
#[derive(Args)]
#[command(after_help = "Examples:
  dpsynth account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 1000 --delta 1e-5
  dpsynth account --phase 0.01,1.1,500 --phase 0.04,1.5,500 --curve")]
pub struct Account {
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(long, value_name = "Q", allow_negative_numbers = true, required_unless_present_any = ["phase", "batch"])]
    sampling_rate: Option<f64>,
    /// Standard deviation of the noise over the clipping norm, above 0.
    #[arg(long, value_name = "S", allow_negative_numbers = true, required_unless_present_any = ["phase", "batch"])]
    noise_multiplier: Option<f64>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T", allow_negative_numbers = true, required_unless_present_any = ["phase", "batch"])]
    steps: Option<u64>,
    /// A part of a run with its own sampling rate, noise multiplier and steps; give it once for each part.
    #[arg(long, value_name = "Q,S,T", allow_hyphen_values = true, conflicts_with_all = ["sampling_rate", "noise_multiplier", "steps"])]
    phase: Vec<String>,
    /// Delta, in (0, 1); it should be well below one over the number of records. Several, with commas, make a curve.
    #[arg(long, value_name = "D", allow_negative_numbers = true, value_delimiter = ',', required_unless_present_any = ["epsilon", "curve", "batch"])]
    delta: Vec<f64>,
    /// Asks for delta at this epsilon instead. Several, with commas, make a curve.
    #[arg(
        long,
        value_name = "E",
        allow_negative_numbers = true,
        value_delimiter = ',',
        conflicts_with = "delta"
    )]
    epsilon: Vec<f64>,
    /// A whole curve: epsilon at deltas from 1e-3 to 1e-10, or at those given; or what attacks on membership can do.
    #[arg(long, value_enum, value_name = "OF", num_args = 0..=1, require_equals = false, default_missing_value = "epsilon")]
    curve: Option<CurveOf>,
    /// Which analysis: pld is exact up to a bracket and is what runs are charged by, the others are for comparison.
    #[arg(long, value_enum, default_value_t = Accountant::Pld)]
    accountant: Accountant,
    /// How batches are drawn.
    #[arg(long, value_enum, default_value_t = Sampler::Poisson)]
    sampler: Sampler,
    /// Which datasets are neighbours.
    #[arg(long, value_enum, default_value_t = Adjacency::AddRemove)]
    adjacency: Adjacency,
    /// A CSV file, or - for standard input, with the columns q, sigma, T, delta (others are ignored): writes one JSON object a line, in order.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["sampling_rate", "noise_multiplier", "steps", "phase", "delta", "epsilon", "curve"])]
    batch: Option<PathBuf>,
    /// Writes one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum CurveOf {
    /// Epsilon at each delta.
    Epsilon,
    /// The best attack's true-positive rate at each false-positive rate, by privacy loss distributions.
    Tradeoff,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Accountant {
    /// Privacy loss distributions, by connect-the-dots and FFT.
    Pld,
    /// Rényi differential privacy.
    Rdp,
    /// Gaussian differential privacy by the central limit theorem: an estimate, can be too low.
    Gdp,
    /// Edgeworth expansions of the privacy loss, orders 1 to 3: an estimate, can be too low.
    Edgeworth,
}

impl Accountant {
    fn name(self) -> &'static str {
        match self {
            Accountant::Pld => "pld",
            Accountant::Rdp => "rdp",
            Accountant::Gdp => "gdp",
            Accountant::Edgeworth => "edgeworth",
        }
    }

    fn is_estimate(self) -> bool {
        matches!(self, Accountant::Gdp | Accountant::Edgeworth)
    }
}

/// What a point of the curve says beside its numbers.
#[derive(Serialize)]
struct Context {
    #[serde(flatten)]
    meaning: Meaning,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(flatten)]
    setting: Setting,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Setting {
    One(Part),
    Several { phases: Vec<Part> },
}

#[derive(Serialize)]
struct Single {
    #[serde(flatten)]
    point: Point,
    #[serde(flatten)]
    context: Context,
}

#[derive(Serialize)]
struct Curve {
    #[serde(flatten)]
    context: Context,
    curve: Vec<Point>,
}

impl Account {
    /// Prints one answer, a curve, or one answer a line.
    pub fn run(self, ui: &Ui) -> Result<()> {
        if let Some(path) = &self.batch {
            return self.run_batch(&read_batch(path)?, ui);
        }
        let setting = self.setting()?;
        let phases = match &setting {
            Setting::One(part) => vec![part.phase(self.sampler)?],
            Setting::Several { phases } => phases.iter().map(|p| p.phase(self.sampler)).collect::<Result<_>>()?,
        };
        if self.curve == Some(CurveOf::Tradeoff) {
            return self.attacks(&phases, setting, ui);
        }
        let given: Vec<Given> = if !self.epsilon.is_empty() {
            self.epsilon.iter().map(|e| Given::Epsilon(*e)).collect()
        } else if !self.delta.is_empty() {
            self.delta.iter().map(|d| Given::Delta(*d)).collect()
        } else {
            [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10]
                .map(Given::Delta)
                .to_vec()
        };
        let mut points: Vec<Point> = given
            .par_iter()
            .map(|given| self.point(&phases, *given))
            .collect::<Result<_>>()?;
        let context = self.context(setting);
        match (self.curve.is_some() || points.len() > 1, self.json) {
            (true, true) => ui.print_json(&Curve { context, curve: points }),
            (true, false) => ui.print(&self.table(&points)),
            (false, json) => {
                let point = points.remove(0);
                if json {
                    ui.print_json(&Single { point, context })
                } else {
                    ui.print(&self.sentence(&point))
                }
            }
        }
    }

    fn attacks(&self, phases: &[Phase], setting: Setting, ui: &Ui) -> Result<()> {
        if self.accountant != Accountant::Pld || !self.delta.is_empty() || !self.epsilon.is_empty() {
            return Err(
                Error::usage("what attacks can do has no delta and no epsilon, and only pld knows it")
                    .hint("leave out --delta, --epsilon and --accountant"),
            );
        }
        let attacks = Attacks::of(phases, self.adjacency.known())?;
        match self.json {
            true => ui.print_json(&attacks::WithContext {
                attacks: &attacks,
                context: self.context(setting),
            }),
            false => ui.print(&attacks::text(&attacks, &self.meaning())),
        }
    }

    /// Rows are computed a handful at a time and printed as they come.
    fn run_batch(&self, rows: &[(Part, f64)], ui: &Ui) -> Result<()> {
        for rows in rows.chunks(rayon::current_num_threads()) {
            let points: Vec<Result<Point>> = rows
                .par_iter()
                .map(|(part, delta)| self.point(&[part.phase(self.sampler)?], Given::Delta(*delta)))
                .collect();
            for (point, (part, _)) in points.into_iter().zip(rows) {
                let (point, context) = (point?, self.context(Setting::One(*part)));
                ui.print_json(&Single { point, context })?;
            }
            if ui.is_deserted() {
                break;
            }
        }
        Ok(())
    }

    fn setting(&self) -> Result<Setting> {
        if let (Some(sampling_rate), Some(noise_multiplier), Some(steps)) =
            (self.sampling_rate, self.noise_multiplier, self.steps)
        {
            return Ok(Setting::One(Part {
                sampling_rate,
                noise_multiplier,
                steps,
            }));
        }
        let phases = self.phase.iter().map(|text| part(text)).collect::<Result<_>>()?;
        Ok(Setting::Several { phases })
    }

    fn context(&self, setting: Setting) -> Context {
        Context {
            meaning: self.meaning(),
            estimate: self.accountant.is_estimate().then_some(true),
            note: self.accountant.is_estimate().then_some(estimate::NOTE),
            setting,
        }
    }

    fn point(&self, phases: &[Phase], given: Given) -> Result<Point> {
        Point::of(self.accountant, phases, self.adjacency.known(), given)
    }

    /// What holds for every epsilon that this call prints.
    fn meaning(&self) -> Meaning {
        Meaning::new(self.accountant.name(), self.adjacency, self.sampler)
    }

    fn sentence(&self, point: &Point) -> String {
        let note = if self.accountant.is_estimate() {
            format!(" ({})", estimate::NOTE)
        } else {
            String::new()
        };
        let lower = point
            .epsilon_lower
            .map(|l| format!(" (at least {})", down(l, 6)))
            .unwrap_or_default();
        let order = point.order.map(|o| format!(" at order {o}")).unwrap_or_default();
        let mut out = format!(
            "epsilon {}{lower} at delta {}{note}, {}{order}, direction {}",
            up(point.epsilon, 6),
            short(point.delta),
            self.meaning(),
            point.direction
        );
        if let Some(orders) = &point.orders {
            out.push_str(&format!("\norders 1 to 3: {}", orders.text()));
        }
        if let Some(bound) = &point.finite_sample_bound {
            out.push_str(&format!("; finite-sample bound: {}", bound.text()));
        }
        out
    }

    fn table(&self, points: &[Point]) -> String {
        let mut header = vec!["delta", "epsilon"];
        header.extend(match self.accountant {
            Accountant::Pld => Some("at least"),
            Accountant::Rdp => Some("order"),
            Accountant::Gdp => None,
            Accountant::Edgeworth => Some("orders 1 to 3"),
        });
        let mut table = table(header, ..);
        for point in points {
            let mut row = vec![short(point.delta), up(point.epsilon, 6)];
            row.extend(match self.accountant {
                Accountant::Pld => Some(point.epsilon_lower.map(|l| down(l, 6)).unwrap_or_default()),
                Accountant::Rdp => point.order.map(|o| o.to_string()),
                Accountant::Gdp => None,
                Accountant::Edgeworth => point.orders.as_ref().map(Orders::text),
            });
            table.add_row(row);
        }
        let note = if self.accountant.is_estimate() {
            format!("\n{}", estimate::NOTE)
        } else {
            String::new()
        };
        format!("{}{note}\n{table}", self.meaning())
    }
}
