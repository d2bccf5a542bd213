//! `dpsynth plan`: what a run will spend and cost, and what it might better be.

use burn::tensor::Device;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dpsynth::assets::{Known, Locations, Registry};
use dpsynth::config::{Method, Precision, Profile, RunConfig, Task};
use dpsynth::machine::gpus::{self, Gpu};
use dpsynth::pipeline::checks;
use dpsynth::pipeline::cost::{Cost, Spending};
use dpsynth::pipeline::estimate::{Estimate, Fits, estimate, respent};
use dpsynth::pipeline::hours::{Hours, Spent, spend};
use dpsynth::pipeline::rates::Rates;
use dpsynth::privacy::band_deviation_of_sum;
use dpsynth::privacy::planner::{FEWEST_STEPS, Offer, Proposal, TIE};
use dpsynth::progress::Progress;
use dpsynth::{Error, Result};
use serde::Serialize;

use super::Ui;
use super::run::{Which, interrupts};
use super::table::table;

/// Prints steps, sampling rate, noise, epsilon, memory and time of a run, before any data is touched
///
/// With --hours it says how to spend that time: on training in which steps and batches, on drawing how many records of
/// which length, and how epsilon is best split between training and the lexicon. It follows from public numbers and from
/// half a minute of work that measures this machine, so nothing has to be tuned on private records.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    which: Which,
    /// Says how to spend this time on a whole run, in hours, evaluation included
    #[arg(long, value_name = "H", allow_negative_numbers = true)]
    hours: Option<f64>,
    /// Says whether the model fits into this GPU's memory, in the place of this machine's
    #[arg(long, value_name = "NAME", conflicts_with = "hours", value_parser = gpu())]
    gpu: Option<Gpu>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// By its name.
fn gpu() -> impl TypedValueParser<Value = Gpu> {
    PossibleValuesParser::new(gpus::GPUS.map(|gpu| gpu.name))
        .map(|name| gpus::named(&name).expect("it has a name here"))
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
    /// Seconds of the run's parts, where no record is drawn anew.
    spending: Spending,
    proposed: Timed,
    /// What `--set` takes.
    set: Vec<String>,
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
    fn new(spent: &Spent, hours: Hours) -> Self {
        let timed = |offer: &Offer| Timed {
            offer: *offer,
            relative: spent.training.relative(offer),
            finetune_s: offer.draws() as f64 / spent.units_per_second,
        };
        Proposed {
            hours: hours.get(),
            units_per_second: spent.units_per_second,
            spending: spent.spending,
            proposed: timed(spent.training.proposed()),
            set: spent
                .set()
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            offers: spent.training.offers().iter().map(timed).collect(),
        }
    }

    fn text(&self, spent: &Spent, profile: Profile) -> String {
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
        let (s, c) = (&self.spending, &spent.config);
        let length = c.drawn_tokens();
        format!(
            "\n{} of {}, about:\n  \
             {:>8}  before training: vectors for the lexicon, a public warm-up\n  \
             {:>8}  training, on records of {} tokens\n  \
             {:>8}  {} synthetic records of {length} tokens, more where they are shorter\n  \
             {:>8}  {} records of the untouched model, to compare with\n  \
             {:>8}  evaluation{}\n\
             steps and batches, the most steps that are worth at least {:.0} % of the best split:\n{table}\n\
             to use it: --profile {} and these, each behind --set or in the TOML under [profile.{}]:\n{}",
            duration(s.total_s()),
            duration(self.hours * 3600.0),
            duration(s.before_training_s),
            duration(s.training_s),
            c.prepare.max_tokens,
            duration(s.synthetic_s),
            spent.records,
            duration(s.zero_shot_s),
            c.sample.zero_shot(),
            duration(s.evaluate_s),
            match c.evaluate.arms.is_empty() {
                true => "",
                false => "; `evaluate.arms` come on top",
            },
            100.0 * TIE,
            profile.name(),
            profile.name(),
            self.set
                .iter()
                .map(|set| format!("  {set}"))
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }
}

impl Plan {
    /// Shows the estimate, and the proposal where one is asked for.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let hours = self.hours.map(Hours::new).transpose()?;
        let (config, profile) = self.which.load()?;
        let (places, longest) = (Locations::from_env(), self.which.longest_text()?);
        if config.task == Task::Classify && (hours.is_some() || self.gpu.is_some()) {
            return Err(
                Error::usage("--hours and --gpu plan for a language model, and this run trains a classifier")
                    .hint("leave them out: its steps and batches are evaluate.dp_direct's"),
            );
        }
        let not_here = || {
            let hint = match &config.model.path {
                Some(path) => format!("put the model's weights into {}", path.display()),
                None => format!("dpsynth fetch {}", config.model.name()),
            };
            Error::usage("how much can be done in a time is known once the model is here").hint(hint)
        };
        let rates = |device: &Device, known: &Known| match (hours, known) {
            (None, _) => Ok(Rates::guessed(device)),
            (Some(_), Known::Whole(_)) => Rates::measured(&config, device, &places, interrupts()?, ui),
            (Some(_), Known::Declared(_)) => Err(not_here()),
        };
        let e = estimate(&config, &places, longest, self.gpu, rates, ui)?;
        let spent = match (hours, &e.basis) {
            (None, _) => None,
            (Some(hours), Some(basis)) => Some((spend(&config, basis, hours)?, hours)),
            (Some(_), None) => return Err(not_here()),
        };
        let warnings = match &spent {
            None => e.warnings.clone(),
            Some((spent, _)) => checks::configuration(&spent.config)?,
        };
        let proposal = spent.map(|(spent, hours)| (Proposed::new(&spent, hours), spent));
        if self.json {
            let proposal = proposal.map(|(proposed, _)| proposed);
            return ui.print_json(&Answer { estimate: e, proposal });
        }
        warnings
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
        out.extend(p.training().and_then(|t| Some((t.bands?, t.steps))).map(|(bands, steps)| {
            format!(
                "noise together    over {bands} steps: in the sum of all {steps} {:.3} of what independent noise of that multiplier leaves",
                band_deviation_of_sum(bands, steps)
            )
        }));
        match (&e.cost, &e.fits) {
            (Some(c), _) => {
                out.push(cost(c, hours.is_some()));
                out.push(match &proposal {
                    Some((proposal, spent)) => proposal.text(spent, profile),
                    None => format!("planner           {}", advice(&config, c)?),
                });
            }
            (None, Some(fits)) => out.push(format!(
                "memory, at most   {:.1} GB training, {:.1} GB sampling",
                fits.training_memory_bytes / 1e9,
                fits.sampling_memory_bytes / 1e9
            )),
            (None, None) if config.task == Task::Classify => {
                out.push("memory and time   are not estimated for a classifier".to_string());
            }
            (None, None) => out.push(format!(
                "memory and time   known once the model is here: dpsynth fetch {}",
                config.model.name()
            )),
        }
        out.extend(choice(&config));
        // What is here and fits needs no table of what else would.
        if let Some(fits) = e
            .fits
            .as_ref()
            .filter(|fits| self.gpu.is_some() || !e.is_here || !fits.trains())
        {
            out.push(ways(fits));
        }
        if let Some(fits) = e.fits.as_ref().filter(|fits| !fits.draws()) {
            out.push(format!(
                "records cannot be drawn there: whole weights take {:.1} GB, however few bits they were trained beside",
                fits.sampling_memory_bytes / 1e9
            ));
        }
        ui.print(&out.join("\n"))
    }
}

/// What there is to choose from, where the model is one of those that were measured (docs/guide/models.md).
fn choice(config: &RunConfig) -> Vec<String> {
    let (registry, own) = (Registry::built_in(), config.model.name());
    let (chosen, others): (Vec<_>, Vec<_>) = registry.measured().partition(|(name, ..)| *name == own);
    if chosen.is_empty() || config.task == Task::Classify {
        return Vec::new();
    }
    let all = chosen.iter().map(|of| ("which model       ", of));
    all.chain(others.iter().map(|of| ("                  --set model=", of)))
        .map(|(before, (name, license, measured))| format!("{before}{name} ({license}): {measured}"))
        .collect()
}

/// Which ways to train fit.
fn ways(fits: &Fits) -> String {
    let cell = |method: Method, precision: Precision| {
        let way = fits
            .ways
            .iter()
            .find(|way| (way.method, way.precision) == (method, precision));
        way.map_or(String::new(), |way| match way.micro_batch_size {
            0 => format!("too large: {:.1} GB", way.least_bytes / 1e9),
            most => format!("{most} at once"),
        })
    };
    let mut table = table(["training", "f32", "bf16"], 1..);
    for (name, method) in [("lora", Method::Lora), ("qlora", Method::Qlora), ("full", Method::Full)] {
        let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| cell(method, precision));
        table.add_row([name.to_string(), f32, bf16]);
    }
    format!(
        "records that fit into {:.1} GB {}, by finetune.method and finetune.precision:\n{table}",
        fits.memory_bytes / 1e9,
        match fits.of {
            "here" => "of memory here".to_string(),
            gpu => format!("of a GPU ({gpu})"),
        }
    )
}

fn cost(c: &Cost, measured: bool) -> String {
    let (million, gigabytes) = (|n: usize| n as f64 / 1e6, |b: f64| b / 1e9);
    let trained = match c.trained_parameters {
        few if few < 100_000 => few.to_string(),
        many => format!("{:.2} M", million(many)),
    };
    let found = match measured {
        true => "by a little of each, done now".to_string(),
        false => format!(
            "estimated from {:.0} GFLOP/s measured now",
            c.matmul_flops_per_second / 1e9
        ),
    };
    format!(
        "model             {:.1} M parameters, {trained} trained\n\
         memory, at most   {:.1} GB training, {:.1} GB sampling\n\
         time, about       {} training, {} sampling, {} evaluation  ({found})",
        million(c.parameters),
        gigabytes(c.training_memory_bytes),
        gigabytes(c.sampling_memory_bytes),
        duration(c.finetune_s),
        duration(c.sample_s),
        duration(c.evaluate_s),
    )
}

/// What the planner says of the configuration as it stands, in one line.
fn advice(config: &RunConfig, cost: &Cost) -> Result<String> {
    let (own, respent) = respent(config, cost.trained_parameters)?;
    let Some(best) = respent.as_ref().map(Proposal::proposed) else {
        let draws = own.draws();
        return Ok(format!(
            "{draws} draws are too few to plan with; --hours 1 plans for an hour"
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
    Ok(format!("{judged}; --hours 1 plans for an hour"))
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
