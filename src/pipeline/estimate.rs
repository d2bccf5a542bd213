//! What `dpsynth plan` says before any data is touched: the plan of a run, and what it will take here.

use burn::tensor::Device;
use serde::Serialize;

use super::checks;
use super::cost::{self, Basis, Cost, Reckoning};
use super::footprint::{self, Footprint};
use super::rates::Rates;
use crate::assets::{self, Known, Locations};
use crate::config::{FinetuneConfig, Method, Precision, RunConfig, Task};
use crate::machine::gpus::Gpu;
use crate::machine::workers::Workers;
use crate::models::shape::Shape;
use crate::models::{ModelFiles, declared, device};
use crate::privacy::planner::{Offer, Proposal};
use crate::privacy::{Guarantee, PrivacyPlan};
use crate::progress::Progress;
use crate::records::{LabelSpace, Vocabulary};
use crate::run::{direct_request, plan_request, privacy_plan};
use crate::{Result, machine};

/// What `dpsynth plan` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    pub privacy: Guarantee,
    pub device: &'static str,
    /// Needs the model, or its `config.json`.
    pub fits: Option<Fits>,
    /// The rest is of this machine.
    pub cost: Option<Cost>,
    /// What a person should know though it stops nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether the model is here, weights and all.
    #[serde(skip)]
    pub is_here: bool,
    /// What the cost was found from.
    #[serde(skip)]
    pub basis: Option<Basis>,
}

/// Which ways to train fit into a memory.
#[derive(Clone, Debug, Serialize)]
pub struct Fits {
    /// Whose memory: `here`, or a GPU's name.
    pub of: &'static str,
    pub memory_bytes: f64,
    /// What the configuration's own way takes.
    pub training_memory_bytes: f64,
    /// Whatever was trained, records are drawn from whole weights.
    pub sampling_memory_bytes: f64,
    pub ways: Vec<Fit>,
}

/// A way to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    pub method: Method,
    pub precision: Precision,
    /// With micro-batches of one record.
    pub least_bytes: f64,
    /// Records of a micro-batch, at most; 0 where it does not fit.
    pub micro_batch_size: usize,
}

impl Fits {
    /// Whether the configuration's own way to train does.
    pub fn trains(&self) -> bool {
        self.training_memory_bytes <= footprint::usable(self.memory_bytes)
    }

    /// Whether drawing does.
    pub fn draws(&self) -> bool {
        self.sampling_memory_bytes <= footprint::usable(self.memory_bytes)
    }

    /// None where a GPU computes whose memory is not known.
    fn new(
        config: &RunConfig,
        (shape, packed_file): (&Shape, Option<u64>),
        labels: usize,
        gpu: Option<Gpu>,
        device: &Device,
    ) -> Option<Self> {
        let (of, memory_bytes, workers) = match gpu {
            Some(gpu) => (gpu.name, gpu.bytes(), 1),
            None if *device != Device::flex() => return None,
            None => (
                "here",
                machine::memory().map_or(0.0, |(total, _)| total as f64),
                Workers::on(device).count(),
            ),
        };
        let own = Footprint {
            shape,
            finetune: &config.finetune,
            workers,
            tokens_per_record: cost::tokens_per_record(config, labels),
            packed_file,
        };
        let drawn = config.drawn_tokens() + cost::PROMPT_TOKENS;
        let fit = |(method, precision)| {
            let finetune = FinetuneConfig {
                method,
                precision,
                micro_batch_size: 1,
                ..config.finetune.clone()
            };
            let footprint = Footprint {
                finetune: &finetune,
                ..own
            };
            Fit {
                method,
                precision,
                least_bytes: footprint.bytes(),
                micro_batch_size: footprint.most_at_once(memory_bytes),
            }
        };
        let methods = [Method::Lora, Method::Qlora, Method::Full];
        let ways = methods
            .into_iter()
            .flat_map(|m| [(m, Precision::F32), (m, Precision::Bf16)]);
        Some(Fits {
            of,
            memory_bytes,
            training_memory_bytes: own.bytes(),
            sampling_memory_bytes: footprint::of_drawing(shape, &config.sample, labels, workers, drawn),
            ways: ways.map(fit).collect(),
        })
    }
}

/// The plan of `config` and what it will take here, at the speed that `rates` finds once it is needed; or whether it fits into
/// `gpu`. `longest_text` is that of [`Basis`].
///
/// # Errors
/// As [`privacy_plan`]; settings that cannot be run; a model that is broken; what `rates` says.
pub fn estimate(
    config: &RunConfig,
    locations: &Locations,
    longest_text: usize,
    gpu: Option<Gpu>,
    rates: impl FnOnce(&Device, &Known) -> Result<Rates>,
    progress: &dyn Progress,
) -> Result<Estimate> {
    let plan = match config.task {
        Task::Synthesise => privacy_plan(config)?,
        Task::Classify => PrivacyPlan::calibrate(&direct_request(config))?,
    };
    let warnings = checks::configuration(config)?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?;
    let device = device::choose(config.device)?;
    let known = match config.task {
        Task::Synthesise => assets::known_model(&config.model, locations, progress)?,
        Task::Classify => None,
    };
    let shape = match &known {
        Some(Known::Whole(path)) => {
            let files = ModelFiles::open(path)?;
            let shape = files.shape()?;
            checks::prompts(config, &labels, &shape, &Vocabulary::of(&files)?)?;
            Some(shape)
        }
        Some(Known::Declared(path)) => Some(declared(path)?.shape().clone()),
        None => None,
    };
    let packed_file = match &known {
        Some(Known::Whole(path)) if path.is_file() => path.metadata().ok().map(|file| file.len()),
        _ => None,
    };
    let fits = shape
        .as_ref()
        .and_then(|shape| Fits::new(config, (shape, packed_file), labels.len(), gpu, &device));
    let is_here = matches!(known, Some(Known::Whole(_)));
    let basis = match (gpu, shape, known) {
        // How fast another machine is, is not known.
        (None, Some(shape), Some(known)) => Some(Basis {
            shape,
            labels: labels.len(),
            device: device.clone(),
            rates: rates(&device, &known)?,
            longest_text,
            packed_file,
        }),
        _ => None,
    };
    Ok(Estimate {
        privacy: plan.statement(plan.steps()),
        device: device::name(&device),
        fits,
        cost: basis
            .as_ref()
            .map(|basis| Reckoning { config, basis }.cost(plan.steps())),
        warnings,
        is_here,
        basis,
    })
}

/// What the plan of `config` itself comes to, and, where they are enough to plan with, how its draws were spent best.
///
/// # Errors
/// As [`privacy_plan`].
pub fn respent(config: &RunConfig, trained_parameters: usize) -> Result<(Offer, Option<Proposal>)> {
    let request = plan_request(config);
    let own = Offer::of(&request, trained_parameters)?;
    Ok((own, Proposal::new(&request, trained_parameters, own.draws()).ok()))
}
