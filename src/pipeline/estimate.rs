//! What a run will cost, before any data is touched: from public numbers, the model's shape and this machine's speed.

use burn::tensor::{DType, Device};
use serde::Serialize;

use super::checks;
use crate::assets::{Locations, Registry};
use crate::config::{Method, RunConfig, Strength};
use crate::machine::ceiling;
use crate::machine::workers::Workers;
use crate::models::ModelFiles;
use crate::models::device;
use crate::models::shape::Shape;
use crate::privacy::Guarantee;
use crate::privacy::planner::{Offer, Proposal};
use crate::records::{LabelSpace, Vocabulary};
use crate::run::{plan_request, privacy_plan};
use crate::sampling::guide;
use crate::training::trainable;
use crate::{Error, Result, models};

/// Tokens of the chat template and the request around a record: an estimate until the records are prepared.
const PROMPT_TOKENS: usize = 40;
/// Share of the measured speed of matrix products that training and sampling reach, measured once with SmolLM2-135M on
/// two cores (docs/results.md).
const TRAINING_SHARE: f64 = 0.75;
const SAMPLING_SHARE: f64 = 0.55;
/// Bytes held for a token in training, over the bytes of all linear maps' inputs and outputs; measured likewise.
const TAPE_FACTOR: f64 = 1.1;

/// What `dpsynth plan` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    pub privacy: Guarantee,
    pub device: &'static str,
    /// The rest needs the model's file on this machine.
    pub cost: Option<Cost>,
    /// What a person should know though it stops nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Upper estimates: every record at its longest.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub parameters: usize,
    pub trained_parameters: usize,
    pub training_memory_bytes: f64,
    pub sampling_memory_bytes: f64,
    pub finetune_s: f64,
    /// Units of privacy (records, where nothing else is declared) that training takes in a second, at least.
    pub units_per_second: f64,
    pub sample_s: f64,
    /// Of this machine, measured now.
    pub matmul_flops_per_second: f64,
}

/// The plan of `config` and what it will cost here.
pub fn estimate(config: &RunConfig, assets: &Locations) -> Result<Estimate> {
    let plan = privacy_plan(config)?;
    let warnings = checks::configuration(config)?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?;
    let device = device::choose(config.device)?;
    let file = match &config.model.path {
        Some(path) => Some(path.clone()),
        None => Registry::built_in()
            .status(assets)
            .into_iter()
            .find(|s| s.name == config.model.asset)
            .and_then(|s| s.present)
            .and_then(|p| gguf_in(&p.folder)),
    };
    let cost = match file {
        Some(path) => {
            let files = ModelFiles::open(&path)?;
            let shape = files.shape()?;
            checks::prompts(config, &labels, shape.context, &Vocabulary::of(&files)?)?;
            Some(cost(config, &shape, labels.len(), plan.steps(), &device))
        }
        None => None,
    };
    Ok(Estimate {
        privacy: plan.statement(plan.steps()),
        device: models::device::name(&device),
        cost,
        warnings,
    })
}

/// Time for training, in hours: a number above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hours(f64);

impl Hours {
    /// # Errors
    /// Usage: not a number above 0, or none at all.
    pub fn new(hours: f64) -> Result<Self> {
        match hours > 0.0 && hours.is_finite() {
            true => Ok(Hours(hours)),
            false => Err(
                Error::usage(format!("the hours for training must be a number above 0, not {hours}"))
                    .hint("--hours 0.5 is half an hour"),
            ),
        }
    }

    /// As given.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Units that pass in that time.
    fn draws(self, units_per_second: f64) -> u64 {
        (self.0 * 3600.0 * units_per_second) as u64
    }
}

/// How to train `config` for so long at this cost, of which its speed and the number of trained values count.
///
/// # Errors
/// As [`Proposal::new`].
pub fn propose(config: &RunConfig, cost: &Cost, hours: Hours) -> Result<Proposal> {
    let draws = hours.draws(cost.units_per_second);
    Ok(Proposal::new(&plan_request(config), cost.trained_parameters, draws)?)
}

/// What the plan of `config` itself comes to, and, where they are enough to plan with, how its draws were spent best.
///
/// # Errors
/// As [`privacy_plan`].
pub fn respent(config: &RunConfig, cost: &Cost) -> Result<(Offer, Option<Proposal>)> {
    let request = plan_request(config);
    let own = Offer::of(&request, cost.trained_parameters)?;
    Ok((own, Proposal::new(&request, cost.trained_parameters, own.draws()).ok()))
}

fn gguf_in(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path()));
    files.into_iter().find(|f| f.extension().is_some_and(|e| e == "gguf"))
}

/// Synthetic records of so many tokens that are drawn.
fn synthetic_records(c: &RunConfig, length: f64) -> usize {
    let fit = c.sample.tokens.map_or(0, |tokens| (tokens as f64 / length) as usize);
    fit.clamp(c.sample.records, c.sample.most_records())
}

/// How often a record passes through the model where so many are drawn of an arm, pilots among it; how many are drawn anew is
/// not known before.
fn passes_of(c: &RunConfig, labels: usize, records: usize, synthetic: bool) -> usize {
    let s = &c.sample;
    let pilots = 3 * guide::pilot_size(s.records, labels);
    // By the model each label is a pass; a lexicon's scorers take next to none.
    let scored = 1 + s.refine.labels.min(labels - 1);
    let judged = match s.refine.is_on() && !(synthetic && c.lexicon.has_scorer()) {
        true => scored,
        false => 0,
    };
    let by_lexicon = synthetic && c.lexicon.is_on() && s.lexicon_weight != Strength::Fixed(0.0);
    let is_found = |strength| matches!(strength, Strength::Found(_));
    // A guidance that is found is none where a lexicon steers.
    let contrasts = match by_lexicon && is_found(s.guidance) {
        true => 0,
        false => s.contrasts(labels),
    };
    let pilot = match (is_found(s.guidance), by_lexicon) {
        (true, false) => 1 + contrasts + scored,
        (_, true) if is_found(s.lexicon_weight) => 1 + contrasts,
        _ => 0,
    };
    let domain = match synthetic && c.lexicon.is_on() && s.domain_weight > 0.0 {
        true => guide::pilot_size(s.records, labels) * (1 + contrasts),
        false => 0,
    };
    records * (1 + contrasts + judged) + pilots * pilot + domain
}

/// What the vectors of all records take: an encoder of MiniLM's size is taken for granted, and texts of full length.
fn lexicon_flops(c: &RunConfig) -> f64 {
    const OF_A_WORD_PIECE: f64 = 21e6;
    let records = c.dataset.public_size as f64 * c.dataset.max_records_per_unit() as f64;
    match c.lexicon.encoder() {
        Some(_) => records * c.lexicon.encoder_max_tokens as f64 * OF_A_WORD_PIECE,
        None => 0.0,
    }
}

fn cost(c: &RunConfig, shape: &Shape, labels: usize, steps: u64, device: &Device) -> Cost {
    let side_by_side = Workers::on(device);
    let workers = side_by_side.count();
    let weights = shape.parameters();
    let tape = shape.over_maps(|input, output| input + output);
    let trained_parameters = trainable::count(&c.finetune, shape);
    let record = (PROMPT_TOKENS + c.prepare.max_tokens) as f64;
    let rows_per_record = c.finetune.objective.rows_per_record(labels);
    let at_once = (workers * c.finetune.micro_batch_size * rows_per_record) as f64 * record;
    // The base and what the forward sees of it; then values, two moments, the sum in f64, the noised one, and each
    // worker's own.
    let training = 8.0 * weights as f64
        + (24.0 + 4.0 * workers as f64) * trained_parameters as f64
        + at_once * 4.0 * tape as f64 * TAPE_FACTOR;

    let contrasts = c.sample.contrasts(labels);
    let rows = (workers * c.sample.batch_size * (1 + contrasts)) as f64;
    let length = c.sample.max_tokens.unwrap_or(c.prepare.max_tokens) as f64;
    let held = shape.held_per_token() as f64 * 4.0;
    // The base, the tuned model, and its copy by columns.
    let sampling =
        12.0 * weights as f64 + rows * (held * (length + PROMPT_TOKENS as f64) + 8.0 * shape.vocabulary as f64);

    // Forward, backward, and where all weights are trained their gradients and norms; frozen ones need neither.
    let passes = match c.finetune.method {
        Method::Lora => 2.0,
        Method::Full => 3.5,
    };
    let speed = ceiling::matmul_flops_per_second(device, &side_by_side, DType::F32);
    let forward = shape.flops_per_token();
    let unit = (c.dataset.max_records_per_unit() * rows_per_record) as f64 * record;
    let units_per_second = speed * TRAINING_SHARE / (passes * forward * unit);
    let warm_start = &c.finetune.warm_start;
    let learned = (warm_start.records * warm_start.epochs * rows_per_record) as f64 * record;
    let warm_start_s = forward * passes * learned / (speed * TRAINING_SHARE)
        + forward * (2 * warm_start.records) as f64 * length / (speed * SAMPLING_SHARE);
    let zero_shot = c.sample.zero_shot_records.unwrap_or(c.sample.records);
    let drawn = passes_of(c, labels, synthetic_records(c, length), true) + passes_of(c, labels, zero_shot, false);
    let lexicon_s = lexicon_flops(c) / (speed * SAMPLING_SHARE);
    Cost {
        parameters: weights,
        trained_parameters,
        training_memory_bytes: training,
        sampling_memory_bytes: sampling,
        finetune_s: (steps * c.finetune.expected_batch_size) as f64 / units_per_second + warm_start_s + lexicon_s,
        units_per_second,
        sample_s: forward * drawn as f64 * length / (speed * SAMPLING_SHARE),
        matmul_flops_per_second: speed,
    }
}
