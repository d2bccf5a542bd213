//! `dpsynth account`: epsilon, delta or a privacy curve of what is planned.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use dpsynth::privacy::accountant::{self, Direction, Phase, check_delta, edgeworth, estimate, gdp, pld, rdp};
use dpsynth::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;

use super::Ui;

/// Computes epsilon for DP-SGD: Poisson batches, clipped gradients, Gaussian noise.
#[derive(Args)]
#[command(after_help = "Examples:
  dpsynth account --sampling-rate 0.01 --noise-multiplier 1.1 --steps 1000 --delta 1e-5
  dpsynth account --phase 0.01,1.1,500 --phase 0.04,1.5,500 --curve")]
pub struct Account {
    /// Probability that a record is in a batch: expected batch size over number of records, in (0, 1].
    #[arg(long, value_name = "Q", required_unless_present_any = ["phase", "batch"])]
    sampling_rate: Option<f64>,
    /// Standard deviation of the noise over the clipping norm, above 0.
    #[arg(long, value_name = "S", required_unless_present_any = ["phase", "batch"])]
    noise_multiplier: Option<f64>,
    /// Number of optimizer steps.
    #[arg(long, value_name = "T", required_unless_present_any = ["phase", "batch"])]
    steps: Option<u64>,
    /// A part of a run with its own sampling rate, noise multiplier and steps; give it once for each part.
    #[arg(long, value_name = "Q,S,T", conflicts_with_all = ["sampling_rate", "noise_multiplier", "steps"])]
    phase: Vec<String>,
    /// Delta, in (0, 1); it should be well below one over the number of records. Several, with commas, make a curve.
    #[arg(long, value_name = "D", value_delimiter = ',', required_unless_present_any = ["epsilon", "curve", "batch"])]
    delta: Vec<f64>,
    /// Asks for delta at this epsilon instead. Several, with commas, make a curve.
    #[arg(long, value_name = "E", value_delimiter = ',', conflicts_with = "delta")]
    epsilon: Vec<f64>,
    /// The privacy curve: epsilon at deltas from 1e-3 to 1e-10, or at those given.
    #[arg(long)]
    curve: bool,
    /// Which analysis: pld is exact up to a bracket and is what runs are charged by, the others are for comparison.
    #[arg(long, value_enum, default_value_t = Accountant::Pld)]
    accountant: Accountant,
    /// Which datasets are neighbours.
    #[arg(long, value_enum, default_value_t = Adjacency::AddRemove)]
    adjacency: Adjacency,
    /// A CSV file with the columns q, sigma, T, delta (others are ignored): writes one JSON object a line, in order.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["sampling_rate", "noise_multiplier", "steps", "phase", "delta", "epsilon", "curve"])]
    batch: Option<PathBuf>,
    /// Writes one JSON object.
    #[arg(long)]
    json: bool,
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

/// Adjacency as scripts name it.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Adjacency {
    /// One record is added or removed.
    AddRemove,
    /// One record takes another's place.
    Replace,
}

impl Adjacency {
    /// As given on the command line.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Adjacency::AddRemove => "add-remove",
            Adjacency::Replace => "replace",
        }
    }

    /// As the library has it.
    pub(super) fn known(self) -> accountant::Adjacency {
        match self {
            Adjacency::AddRemove => accountant::Adjacency::AddOrRemoveOne,
            Adjacency::Replace => accountant::Adjacency::ReplaceOne,
        }
    }
}

/// What is given, of which the other is asked.
#[derive(Clone, Copy)]
enum Given {
    Delta(f64),
    Epsilon(f64),
}

/// A point of the privacy curve.
#[derive(Serialize)]
struct Point {
    epsilon: f64,
    /// From below; only pld has one, and only where delta is given.
    epsilon_lower: Option<f64>,
    delta: f64,
    /// Which neighbour decides; `both` where the bound is one for both.
    direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<f64>,
    /// Rényi accounting with exact moments at fractional orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon_exact_orders: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    orders: Option<Orders>,
    /// An epsilon that the first order and its error bound prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    finite_sample_bound: Option<Bound>,
}

/// What each Edgeworth order says of what is asked.
#[derive(Serialize)]
#[serde(untagged)]
enum Orders {
    Epsilon {
        epsilon_order1: f64,
        epsilon_order2: f64,
        epsilon_order3: f64,
    },
    Delta {
        delta_order1: f64,
        delta_order2: f64,
        delta_order3: f64,
    },
}

impl Orders {
    fn text(&self) -> String {
        match self {
            Orders::Epsilon {
                epsilon_order1: a,
                epsilon_order2: b,
                epsilon_order3: c,
            } => format!("{a:.6}, {b:.6}, {c:.6}"),
            Orders::Delta {
                delta_order1: a,
                delta_order2: b,
                delta_order3: c,
            } => format!("{a:.3e}, {b:.3e}, {c:.3e}"),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Bound {
    Proven(f64),
    Vacuous(&'static str),
}

impl Bound {
    fn text(&self) -> String {
        match self {
            Bound::Proven(epsilon) => format!("epsilon {}", up(*epsilon)),
            Bound::Vacuous(word) => word.to_string(),
        }
    }
}

/// What an epsilon means.
#[derive(Serialize)]
struct Context {
    accountant: &'static str,
    adjacency: &'static str,
    unit: &'static str,
    sampler: &'static str,
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

#[derive(Clone, Copy, Serialize)]
struct Part {
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u64,
}

impl Part {
    fn phase(self) -> Result<Phase> {
        Phase::new(self.sampling_rate, self.noise_multiplier, self.steps)
    }
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
            Setting::One(part) => vec![part.phase()?],
            Setting::Several { phases } => phases.iter().map(|p| p.phase()).collect::<Result<_>>()?,
        };
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
        match (self.curve || points.len() > 1, self.json) {
            (true, true) => ui.print_json(&Curve { context, curve: points }),
            (true, false) => ui.print(&self.table(&points)),
            (false, json) => {
                let point = points.remove(0);
                if json {
                    ui.print_json(&Single { point, context });
                } else {
                    ui.print(&self.sentence(&point));
                }
            }
        }
        Ok(())
    }

    /// Rows are computed a handful at a time and printed as they come.
    fn run_batch(&self, rows: &[(Part, f64)], ui: &Ui) -> Result<()> {
        for rows in rows.chunks(rayon::current_num_threads()) {
            let points: Vec<Point> = rows
                .par_iter()
                .map(|(part, delta)| self.point(&[part.phase()?], Given::Delta(*delta)))
                .collect::<Result<_>>()?;
            for (point, (part, _)) in points.into_iter().zip(rows) {
                let context = self.context(Setting::One(*part));
                ui.print_json(&Single { point, context });
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
            accountant: self.accountant.name(),
            adjacency: self.adjacency.flag(),
            unit: "record",
            sampler: "poisson",
            estimate: self.accountant.is_estimate().then_some(true),
            note: self.accountant.is_estimate().then_some(estimate::NOTE),
            setting,
        }
    }

    fn point(&self, phases: &[Phase], given: Given) -> Result<Point> {
        let adjacency = self.adjacency.known();
        let (epsilon, delta) = match given {
            Given::Delta(delta) => (f64::NAN, delta),
            Given::Epsilon(epsilon) => (epsilon, f64::NAN),
        };
        let blank = Point {
            epsilon,
            epsilon_lower: None,
            delta,
            direction: Direction::Both.name(),
            order: None,
            epsilon_exact_orders: None,
            orders: None,
            finite_sample_bound: None,
        };
        Ok(match (self.accountant, given) {
            (Accountant::Pld, Given::Delta(delta)) => {
                let bracket = pld::epsilon(phases, adjacency, delta)?;
                Point {
                    epsilon: bracket.epsilon,
                    epsilon_lower: Some(bracket.epsilon_lower),
                    direction: bracket.direction.name(),
                    ..blank
                }
            }
            (Accountant::Pld, Given::Epsilon(epsilon)) => Point {
                delta: pld::delta(phases, adjacency, epsilon)?,
                ..blank
            },
            (Accountant::Rdp, Given::Delta(delta)) => {
                let renyi = rdp::epsilon(phases, adjacency, delta)?;
                Point {
                    epsilon: renyi.epsilon,
                    order: Some(renyi.order),
                    epsilon_exact_orders: Some(rdp::epsilon_exact(phases, adjacency, delta)?.epsilon),
                    ..blank
                }
            }
            (Accountant::Rdp, Given::Epsilon(epsilon)) => {
                let (delta, order) = renyi_delta(phases, adjacency, epsilon)?;
                Point {
                    delta,
                    order: Some(order),
                    ..blank
                }
            }
            (Accountant::Gdp, Given::Delta(delta)) => Point {
                epsilon: gdp::epsilon(phases, adjacency, delta)?.value(),
                ..blank
            },
            (Accountant::Gdp, Given::Epsilon(epsilon)) => Point {
                delta: gdp::delta(phases, adjacency, epsilon)?.value(),
                ..blank
            },
            (Accountant::Edgeworth, Given::Delta(delta)) => {
                let [a, b, c] = edgeworth::epsilon(phases, adjacency, delta)?.map(|e| e.value());
                let proven = edgeworth::certified(phases, adjacency, delta)?.epsilon;
                Point {
                    epsilon: c,
                    direction: Direction::Remove.name(),
                    orders: Some(Orders::Epsilon {
                        epsilon_order1: a,
                        epsilon_order2: b,
                        epsilon_order3: c,
                    }),
                    finite_sample_bound: Some(proven.map_or(Bound::Vacuous("vacuous"), Bound::Proven)),
                    ..blank
                }
            }
            (Accountant::Edgeworth, Given::Epsilon(epsilon)) => {
                let [a, b, c] = edgeworth::delta(phases, adjacency, epsilon)?.map(|d| d.value());
                Point {
                    delta: c,
                    direction: Direction::Remove.name(),
                    orders: Some(Orders::Delta {
                        delta_order1: a,
                        delta_order2: b,
                        delta_order3: c,
                    }),
                    ..blank
                }
            }
        })
    }

    /// What holds for every epsilon that this call prints.
    fn meaning(&self) -> String {
        format!(
            "adjacency {}, unit record, sampler poisson, accountant {}",
            self.adjacency.known().name(),
            self.accountant.name()
        )
    }

    fn sentence(&self, point: &Point) -> String {
        let note = if self.accountant.is_estimate() {
            format!(" ({})", estimate::NOTE)
        } else {
            String::new()
        };
        let lower = point
            .epsilon_lower
            .map(|l| format!(" (at least {})", down(l)))
            .unwrap_or_default();
        let order = point.order.map(|o| format!(" at order {o}")).unwrap_or_default();
        let mut out = format!(
            "epsilon {}{lower} at delta {}{note}, {}{order}, direction {}",
            up(point.epsilon),
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
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY);
        let mut header = vec!["delta", "epsilon"];
        header.extend(match self.accountant {
            Accountant::Pld => Some("at least"),
            Accountant::Rdp => Some("order"),
            Accountant::Gdp => None,
            Accountant::Edgeworth => Some("orders 1 to 3"),
        });
        table.set_header(header);
        for point in points {
            let mut row = vec![short(point.delta), up(point.epsilon)];
            row.extend(match self.accountant {
                Accountant::Pld => Some(point.epsilon_lower.map(down).unwrap_or_default()),
                Accountant::Rdp => point.order.map(|o| o.to_string()),
                Accountant::Gdp => None,
                Accountant::Edgeworth => point.orders.as_ref().map(Orders::text),
            });
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let note = if self.accountant.is_estimate() {
            format!("\n{}", estimate::NOTE)
        } else {
            String::new()
        };
        format!("{}{note}\n{table}", self.meaning())
    }
}

/// Six decimals, rounded up, so that no printed epsilon claims more than was computed.
pub(super) fn up(epsilon: f64) -> String {
    format!("{:.6}", (epsilon * 1e6).ceil() / 1e6)
}

/// Six decimals, rounded down: for the lower end of the bracket.
pub(super) fn down(epsilon: f64) -> String {
    format!("{:.6}", (epsilon * 1e6).floor() / 1e6)
}

/// A delta as a person writes it, 1e-5 or 2.87e-7, rounded up.
fn short(delta: f64) -> String {
    let nearest = format!("{delta:.6e}");
    let text = if nearest.parse::<f64>().is_ok_and(|near| near < delta) {
        format!("{:.6e}", delta * (1.0 + 1e-6))
    } else {
        nearest
    };
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => text,
    }
}

/// The smallest delta at which Rényi accounting gives `epsilon`, from above to one in a million, and its order.
fn renyi_delta(phases: &[Phase], adjacency: accountant::Adjacency, epsilon: f64) -> Result<(f64, f64)> {
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(
            Error::usage(format!("epsilon must be 0 or more, not {epsilon}")).hint("values from 0.1 to 10 are usual")
        );
    }
    let (mut low, mut high) = (1e-300_f64.ln(), (1.0 - 1e-9_f64).ln());
    while high - low > 1e-6 {
        let middle = 0.5 * (low + high);
        if rdp::epsilon(phases, adjacency, middle.exp())?.epsilon > epsilon {
            low = middle
        } else {
            high = middle
        }
    }
    Ok((high.exp(), rdp::epsilon(phases, adjacency, high.exp())?.order))
}

/// A phase as it is typed: `0.01,1.1,1000`.
fn part(text: &str) -> Result<Part> {
    let refuse = || {
        Error::usage(format!(
            "`{text}` is not a phase: a sampling rate, a noise multiplier and a number of steps"
        ))
        .hint("write them with commas, such as --phase 0.01,1.1,1000")
    };
    let cells: Vec<&str> = text.split(',').map(str::trim).collect();
    let [q, sigma, steps] = cells[..] else {
        return Err(refuse());
    };
    let part = Part {
        sampling_rate: q.parse().map_err(|_| refuse())?,
        noise_multiplier: sigma.parse().map_err(|_| refuse())?,
        steps: steps.parse().map_err(|_| refuse())?,
    };
    part.phase()?;
    Ok(part)
}

/// The settings in a CSV file. Lines that are empty or begin with `#` are skipped; the first other line names columns.
fn read_batch(path: &Path) -> Result<Vec<(Part, f64)>> {
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
            let [sampling_rate, noise_multiplier, steps, delta] = values;
            if steps.fract() != 0.0 || !(0.0..=1e15).contains(&steps) {
                return Err(refuse(line, format!("{steps} is not a number of steps")));
            }
            let part = Part {
                sampling_rate,
                noise_multiplier,
                steps: steps as u64,
            };
            part.phase().map_err(|e| refuse(line, e.to_string()))?;
            check_delta(delta).map_err(|e| refuse(line, e.to_string()))?;
            Ok((part, delta))
        })
        .collect()
}
