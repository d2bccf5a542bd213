//! Real steps of the real training loop, under a fixed key, beside the same steps taken apart: what the optimizer was given
//! must be what the mechanism released, bit for bit, and its learning rate a public number.
//!
//! The loop trains on the run's own records; the parts are charged by a plan of the same seed, so that both draw the same
//! batches and the same noise. What comes out is thrown away, and the charges go to ledgers in a temporary folder.

use super::Stop;
use crate::config::FinetuneConfig;
pub use crate::documents::TrainerSteps;
use crate::machine::workers::Workers;
use crate::models::{LanguageModel, device};
use crate::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, PrivateRun, TRAINING};
use crate::progress::Silent;
use crate::records::{Drawable, Units};
use crate::training::contribution::Contribution;
use crate::training::drawn::Batch;
use crate::training::gradients::{Compute, Trainee};
use crate::training::objective::Objective;
use crate::training::optimizer::Optimizer;
use crate::training::trainable::Trainable;
use crate::training::trainer::{self, Training};
use crate::training::ways::At;
use crate::{Error, Result};

/// Steps that are taken.
const STEPS: u64 = 3;
/// Units that a step draws, about.
const DRAWN: u64 = 4;
/// On a GPU sums are added in another order each time: by how much of a step values may differ there.
const ON_A_GPU: f64 = 1e-3;

/// What is stepped, on what.
pub struct Stepping<'a> {
    pub model: &'a LanguageModel,
    pub config: &'a FinetuneConfig,
    /// What the run's plan was asked for.
    pub request: PlanRequest,
    pub units: &'a Units,
    pub objective: &'a Objective,
}

impl Stepping<'_> {
    /// Takes [`STEPS`] steps both ways; `begun` makes what training begins with.
    ///
    /// # Errors
    /// As training's; [`Error::interrupted`].
    pub fn run(&self, begun: impl Fn() -> Result<Box<dyn Trainable>>, stop: Stop) -> Result<TrainerSteps> {
        let plan = PrivacyPlan::calibrate(&PlanRequest {
            expected_batch_size: DRAWN.min(self.request.expected_batch_size),
            steps: STEPS,
            batches: match self.request.batches {
                // As many as go together in so few steps.
                Batches::Cyclic(bands) => Batches::Cyclic(bands.min(STEPS)),
                _ => Batches::Poisson,
            },
            beside: Vec::new(),
            seed: Some(0x5749_5445_5350),
            ..self.request.clone()
        })?;
        let scratch = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
        let run = |name: &str| -> Result<PrivateRun> {
            let ledger = Ledger::open(scratch.path(), name, plan.needed_epsilon(), plan.delta(), plan.unit())?;
            Ok(plan.begin(ledger, "audit", self.units.len())?)
        };
        let training = Training {
            model: self.model,
            config: self.config,
            objective: self.objective,
            checkpoint: &scratch.path().join("checkpoint.safetensors"),
            stop: stop.0,
            progress: &Silent,
        };
        let (trained, _) = training.train(begun()?, &mut run("trainer")?, self.units, None, |_| stop.check())?;
        let (apart, drawn) = self.apart(begun()?, run("apart")?, plan.gradient_noise_deviation(), stop)?;
        let differ = (trained.values().iter().zip(apart.values()))
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(
                0.0,
                |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) },
            );
        let allowed = match device::name(&self.model.device()) {
            "cpu" => 0.0,
            _ => ON_A_GPU * self.config.learning_rate,
        };
        Ok(TrainerSteps {
            steps: STEPS,
            drawn,
            largest_difference: differ,
            same: differ <= allowed,
        })
    }

    /// The steps by their parts, and how many units they drew.
    fn apart(
        &self,
        begun: Box<dyn Trainable>,
        mut run: PrivateRun,
        noise_deviation: f64,
        stop: Stop,
    ) -> Result<(Box<dyn Trainable>, usize)> {
        let c = self.config;
        let trainee = Trainee::with(self.model, Compute::of(c), self.objective.clone());
        let workers = Workers::on(&self.model.device());
        let contribution = Contribution::of(&trainee, &workers, c);
        let (mut trained, mut drawn) = (begun, 0);
        let mut optimizer = Optimizer::of(c, noise_deviation, trained.values().len());
        let mut way = trainer::way(c, trained.values().len());
        for index in 0..STEPS {
            stop.check()?;
            let step = run.charge(TRAINING)?;
            drawn += step.members().len();
            let units = self.units.drawn(step.members())?;
            let at = At {
                values: trained.values(),
                optimizer: &optimizer,
            };
            let sum = way.ask(&Batch::new(&contribution, trained.as_ref(), &units), at);
            let released = step.privatize(&sum)?;
            let rate = learning_rate(c, index);
            way.step(&released, trained.values_mut(), &mut optimizer, rate as f32);
        }
        Ok((trained, drawn))
    }
}

/// Of the step `index`, from 0: of the configuration alone.
fn learning_rate(c: &FinetuneConfig, index: u64) -> f64 {
    let warmup = (index + 1) as f64 / (c.warmup_steps + 1) as f64;
    c.learning_rate * warmup.min(1.0)
}
