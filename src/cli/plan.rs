//! `dpsynth plan`: what a run will spend and cost, and what it might better be.

use clap::Args;
use dpsynth::assets::Locations;
use dpsynth::config::{Profile, RunConfig};
use dpsynth::pipeline::estimate::{Cost, Estimate, Hours, estimate, propose, respent};
use dpsynth::privacy::planner::{FEWEST_STEPS, Offer, Proposal, TIE};
use dpsynth::progress::Progress;
use dpsynth::{Error, Result};
use serde::Serialize;

use super::Ui;
use super::run::Which;
use super::table::table;

/// Prints steps, sampling rate, noise, epsilon, memory and time of a run, before any data is touched
///
/// With --hours it proposes the expected batch size and the steps for that time of training, by the signal-to-noise
/// ratio that the epsilon pays for: from public numbers alone, so nothing has to be tuned on private records.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    which: Which,
    /// Proposes how to spend this time of training, in hours; sampling and evaluation come on top
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    hours: Option<f64>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    estimate: Estimate,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<Proposed>,
}

#[derive(Serialize)]
struct Proposed {
    hours: f64,
    units_per_second: f64,
    proposed: Timed,
    /// What `--set` takes.
    set: [String; 2],
    offers: Vec<Timed>,
}

/// An offer and how long it trains.
#[derive(Clone, Copy, Serialize)]
struct Timed {
    #[serde(flatten)]
    offer: Offer,
    /// Worth over the largest of all offers.
    relative: f64,
    finetune_s: f64,
}

impl Proposed {
    fn new(proposal: &Proposal, units_per_second: f64, hours: Hours) -> Self {
        let timed = |offer: &Offer| Timed {
            offer: *offer,
            relative: proposal.relative(offer),
            finetune_s: offer.draws() as f64 / units_per_second,
        };
        let proposed = proposal.proposed();
        Proposed {
            hours: hours.get(),
            units_per_second,
            proposed: timed(proposed),
            set: [
                format!("finetune.expected_batch_size={}", proposed.expected_batch_size),
                format!("finetune.steps={}", proposed.steps),
            ],
            offers: proposal.offers().iter().map(timed).collect(),
        }
    }

    fn text(&self, profile: Profile) -> String {
        let header = ["steps", "batch", "noise", "signal-to-noise", "worth", "training", ""];
        let mut table = table(header, ..6);
        for timed in &self.offers {
            let offer = &timed.offer;
            table.add_row([
                offer.steps.to_string(),
                offer.expected_batch_size.to_string(),
                format!("{:.4}", offer.noise_multiplier),
                format!("{:.2}", offer.signal_to_noise),
                format!("{:.0} %", 100.0 * timed.relative),
                duration(timed.finetune_s),
                match *offer == self.proposed.offer {
                    true => "proposed".to_string(),
                    false => String::new(),
                },
            ]);
        }
        let set = self.set.each_ref().map(|s| format!("--set {s}"));
        let Offer {
            steps,
            expected_batch_size,
            ..
        } = self.proposed.offer;
        format!(
            "\nin {} of training, the most steps that are worth at least {:.0} % of the best split:\n{table}\n\
             to use it: {}, or in the TOML:\n[profile.{}.finetune]\nexpected_batch_size = {expected_batch_size}\nsteps = {steps}",
            duration(self.hours * 3600.0),
            100.0 * TIE,
            set.join(" "),
            profile.name(),
        )
    }
}

impl Plan {
    /// Shows the estimate, and the proposal where one is asked for.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let hours = self.hours.map(Hours::new).transpose()?;
        let (config, profile) = self.which.load()?;
        let e = estimate(&config, &Locations::from_env())?;
        let proposal = match hours {
            Some(hours) => {
                let cost = e.cost.as_ref().ok_or_else(|| {
                    Error::usage("how much can be trained in a time is known once the model is here")
                        .hint(format!("dpsynth fetch {}", config.model.asset))
                })?;
                let proposal = propose(&config, cost, hours)?;
                Some(Proposed::new(&proposal, cost.units_per_second, hours))
            }
            None => None,
        };
        if self.json {
            return ui.print_json(&Answer { estimate: e, proposal });
        }
        e.warnings
            .iter()
            .for_each(|warning| ui.note(&format!("warning: {warning}")));
        let p = &e.privacy;
        let mut out = vec![
            format!("run               {}-{} on {}", config.name, profile.name(), e.device),
            format!("privacy           {p}"),
            format!("steps             {}", p.number("steps")),
            format!(
                "sampling rate     {:.6}  ({} of {})",
                p.number("sampling_rate"),
                p.number("expected_batch_size"),
                config.dataset.public_size
            ),
            format!("noise multiplier  {:.4}", p.number("noise_multiplier")),
        ];
        match &e.cost {
            Some(c) => {
                out.push(cost(c));
                out.push(match &proposal {
                    Some(proposal) => proposal.text(profile),
                    None => format!("planner           {}", advice(&config, c)?),
                });
            }
            None => out.push(format!(
                "memory and time   known once the model is here: dpsynth fetch {}",
                config.model.asset
            )),
        }
        ui.print(&out.join("\n"))
    }
}

fn cost(c: &Cost) -> String {
    let (million, gigabytes) = (|n: usize| n as f64 / 1e6, |b: f64| b / 1e9);
    format!(
        "model             {:.1} M parameters, {:.2} M trained\n\
         memory, at most   {:.1} GB training, {:.1} GB sampling\n\
         time, at most     {} training, {} sampling  (estimated from {:.0} GFLOP/s measured now; evaluation comes on top)",
        million(c.parameters),
        million(c.trained_parameters),
        gigabytes(c.training_memory_bytes),
        gigabytes(c.sampling_memory_bytes),
        duration(c.finetune_s),
        duration(c.sample_s),
        c.matmul_flops_per_second / 1e9
    )
}

/// What the planner says of the configuration as it stands, in one line.
fn advice(config: &RunConfig, cost: &Cost) -> Result<String> {
    let (own, respent) = respent(config, cost)?;
    let Some(best) = respent.as_ref().map(Proposal::proposed) else {
        let draws = own.draws();
        return Ok(format!(
            "{draws} draws are too few to plan with; --hours 0.5 plans for half an hour"
        ));
    };
    let times = best.worth / own.worth;
    let other = format!("{} steps of {} take as long", best.steps, best.expected_batch_size);
    let judged = if own.steps < FEWEST_STEPS {
        format!("fewer than {FEWEST_STEPS} steps leave Adam little to average: {other}")
    } else if TIE * times <= 1.0 {
        "no other split of this time is worth much more".to_string()
    } else {
        format!("{other} and are worth {times:.2} times as much")
    };
    Ok(format!("{judged}; --hours 0.5 plans for half an hour"))
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
