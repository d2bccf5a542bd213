//! Private training of the language model.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use super::checkpoint::Checkpoint;
use super::clip::Clip;
use super::contribution::{BatchSum, Contribution};
use super::drawn::Batch;
use super::gradients::{Compute, Trainee};
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::private::{Loop, Method};
use super::trainable::Trainable;
use super::ways::{self, At, Way};
use crate::Result;
use crate::config::FinetuneConfig;
use crate::document;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::privacy::PrivateRun;
use crate::progress::Progress;
use crate::records::Drawable;

document! {
    /// What a step looked like: a line of `internal/training.jsonl`.
    #[derive(Clone, Debug)]
    pub struct StepLog {
        /// Index of the charge that paid for it.
        public charge: u64,
        /// Units drawn.
        internal drawn: usize,
        /// Mean over the drawn records of their loss per token; none for an empty draw.
        internal mean_loss: Option<f64>,
        /// Mean norm before clipping.
        internal mean_norm: Option<f64>,
        /// Tokens that went through the model.
        internal tokens: usize,
        internal seconds: f64,
    }
}

impl StepLog {
    /// The lines in `path`, without a last one that was cut off; nothing where there is no file.
    pub fn lines(path: &Path) -> Vec<StepLog> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }
}

/// Where training stands and what it needs besides records.
pub struct Training<'a> {
    pub model: &'a LanguageModel,
    pub config: &'a FinetuneConfig,
    pub objective: &'a Objective,
    /// Where checkpoints are written.
    pub checkpoint: &'a Path,
    /// Set when the person asks to stop.
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl Training<'_> {
    /// Trains `initial`, which is public, or goes on from `resume`, until `run` has no step left; returns what was
    /// trained and the number of steps applied to it.
    ///
    /// Rules: P2 and P3 by [`crate::privacy::ChargedStep::privatize`], P6 (an empty draw goes the same way),
    /// P7 (the charge is on disk before anything is drawn).
    ///
    /// # Errors
    /// A refused charge, a full disk, or [`Error::interrupted`] after a checkpoint when asked to stop.
    pub fn train(
        &self,
        initial: Box<dyn Trainable>,
        run: &mut PrivateRun,
        units: &dyn Drawable,
        resume: Option<Checkpoint>,
        mut log: impl FnMut(&StepLog) -> Result<()>,
    ) -> Result<(Box<dyn Trainable>, u64)> {
        let c = self.config;
        let mut trained = initial;
        let noise_deviation = run.plan().gradient_noise_deviation();
        let mut optimizer = Optimizer::of(c, noise_deviation, trained.values().len());
        let (mut applied, mut on_gpu) = (0, false);
        if let Some(saved) = resume {
            on_gpu = saved.on_gpu;
            trained.values_mut().copy_from_slice(&saved.values);
            (optimizer, applied) = (saved.optimizer, saved.applied_steps);
            let charged = run.charged_steps();
            self.progress
                .note(&format!("training goes on: {applied} steps applied, {charged} charged"));
        }
        let trainee = Trainee::with(self.model, Compute::of(c), self.objective.clone());
        let workers = Workers::on(&self.model.device());
        let contribution = Contribution::of(&trainee, &workers, c);
        let mut method = Finetuning {
            way: way(c, trained.values().len()),
            trained,
            optimizer,
            contribution: &contribution,
            units,
            config: c,
            #[cfg(mutants)]
            loss: 0.0,
            on_cpu: self.model.device() == Device::flex(),
            progress: self.progress,
        };
        let plan = run.plan().clone();
        let target = plan.epsilon_after(plan.steps())?;
        let way = Loop {
            task: "training",
            of: "",
            checkpoint: Some((self.checkpoint, c.checkpoint_every)),
            applied,
            on_gpu,
            stop: self.stop,
            progress: self.progress,
        };
        let applied = way.train(&mut method, run, |taken| {
            let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
            let batch = &taken.seen;
            let seconds = taken.query_seconds + taken.noise_seconds + taken.apply_seconds;
            log(&StepLog {
                charge: taken.charge,
                drawn: taken.drawn,
                mean_loss: mean(&batch.losses),
                mean_norm: mean(&batch.norms),
                tokens: batch.tokens,
                seconds,
            })?;
            let epsilon = plan.epsilon_after(taken.charge + 1)?;
            Ok(format!(
                "{:.0} tokens/s, epsilon {:.2} of {target:.2}",
                batch.tokens as f64 / seconds,
                // Up: a progress line says no less than was spent.
                (epsilon * 100.0).ceil() / 100.0
            ))
        })?;
        Ok((method.trained, applied))
    }
}

/// How `config` takes steps of `len` trained values.
pub fn way(config: &FinetuneConfig, len: usize) -> Box<dyn Way> {
    // Ways that take public gradients are of classifiers.
    ways::of(config.update, len, Clip::of(config), Box::new(|_| Vec::new()))
}

/// The language model's part of a private step.
struct Finetuning<'a> {
    way: Box<dyn Way>,
    trained: Box<dyn Trainable>,
    optimizer: Optimizer,
    contribution: &'a Contribution<'a>,
    units: &'a dyn Drawable,
    config: &'a FinetuneConfig,
    /// For the mistake that [`Finetuning::apply`] could make.
    #[cfg(mutants)]
    loss: f64,
    on_cpu: bool,
    progress: &'a dyn Progress,
}

impl Method for Finetuning<'_> {
    type Seen = BatchSum;

    fn dimensions(&self) -> usize {
        self.way.dimensions()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, BatchSum)> {
        let drawn = self.units.drawn(members)?;
        let at_once = self.contribution.micro_batch_size.size();
        let batch = Batch::new(self.contribution, self.trained.as_ref(), &drawn);
        let at = At {
            values: self.trained.values(),
            optimizer: &self.optimizer,
        };
        let sum = self.way.ask(&batch, at);
        let batch = batch.seen();
        #[cfg(mutants)]
        {
            self.loss = batch.losses.iter().sum::<f64>() / batch.losses.len().max(1) as f64;
        }
        let fits = self.contribution.micro_batch_size.size();
        if fits < at_once {
            let note = format!("out of memory: micro-batches of {fits} records from here on");
            self.progress.note(&note);
        }
        Ok((sum, batch))
    }

    fn apply(&mut self, noisy: &[f32]) {
        let c = self.config;
        let warmup = (self.optimizer.steps + 1) as f64 / (c.warmup_steps + 1) as f64;
        let learning_rate = c.learning_rate * warmup.min(1.0);
        #[cfg(mutants)]
        let learning_rate = match dpsynth_privacy::mutation::current() {
            Some(dpsynth_privacy::mutation::Mutation::LearningRateFromLoss) => learning_rate * (1.0 + self.loss),
            _ => learning_rate,
        };
        self.way.step(
            noisy,
            self.trained.values_mut(),
            &mut self.optimizer,
            learning_rate as f32,
        );
    }

    fn state(&self) -> Option<(&[f32], &Optimizer)> {
        Some((self.trained.values(), &self.optimizer))
    }

    fn computes_elsewhere(&self) -> bool {
        !self.on_cpu
    }
}
