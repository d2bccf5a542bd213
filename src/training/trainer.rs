//! The loop: charge, draw, sum, noise once, step, checkpoint.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;

use super::checkpoint::Checkpoint;
use super::contribution::Contribution;
use super::gradients::{Clip, Compute, Trainee};
use super::memory::AtOnce;
use super::objective::Objective;
use super::optimizer::AdamW;
use super::trainable::Trainable;
use super::workers::Workers;
use crate::config::{FinetuneConfig, Optimizer};
use crate::models::llama::Llama;
use crate::privacy::{PrivateRun, TRAINING};
use crate::progress::{Progress, Unit};
use crate::records::Drawable;
use crate::{Error, Result};

/// What a step looked like. Private: it stays under `internal/` (P9).
#[derive(Clone, Debug, serde::Serialize)]
pub struct StepLog {
    /// Index of the charge that paid for it.
    pub charge: u64,
    /// Units drawn.
    pub drawn: usize,
    /// Mean over the drawn records of their loss per token; none for an empty draw.
    pub mean_loss: Option<f64>,
    /// Mean norm before clipping.
    pub mean_norm: Option<f64>,
    /// Tokens that went through the model.
    pub tokens: usize,
    pub seconds: f64,
}

/// Where training stands and what it needs besides records.
pub struct Training<'a> {
    pub model: &'a Llama,
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
        let mut optimizer = AdamW::new(trained.values().len(), c.weight_decay as f32);
        let noise_variance = match c.optimizer {
            Optimizer::Adamw => 0.0,
            Optimizer::AdamBc => run.plan().gradient_noise_deviation().powi(2),
        };
        let mut applied = 0;
        if let Some(saved) = resume {
            trained.values_mut().copy_from_slice(&saved.values);
            (optimizer, applied) = (saved.optimizer, saved.applied_steps);
            let charged = run.charged_steps();
            self.progress
                .note(&format!("training goes on: {applied} steps applied, {charged} charged"));
        }
        let trainee = Trainee::with(self.model, Compute::of(c), self.objective.clone());
        let workers = Workers::new(self.model);
        let contribution = Contribution {
            trainee: &trainee,
            workers: &workers,
            clip: Clip {
                clipping: c.clipping,
                max_grad_norm: c.max_grad_norm,
            },
            micro_batch_size: AtOnce::new(c.micro_batch_size),
        };
        let on_cpu = self.model.device() == Device::flex();
        let total = run.charged_steps() + run.remaining_steps();
        let target = run.plan().epsilon_after(total)?;
        let task = self.progress.begin("training", total, Unit::Steps);
        task.set(run.charged_steps(), "");
        while run.remaining_steps() > 0 {
            let begun = Instant::now();
            let step = run.charge(TRAINING)?;
            #[cfg(test)]
            if step.members().is_empty() && crate::mutation::is(crate::mutation::Mutation::SkipEmptyBatches) {
                continue;
            }
            let (charge, drawn) = (step.index(), step.members().len());
            let batch_units = units.drawn(step.members())?;
            let members: Vec<usize> = (0..drawn).collect();
            let at_once = contribution.micro_batch_size.size();
            let sum = || contribution.sum(trained.as_ref(), &batch_units, &members);
            let (batch, gradient) = match on_cpu {
                // The noise waits: it needs the cores that the sum is taken on.
                true => {
                    let batch = sum();
                    let gradient = step.privatize(&batch.sum)?;
                    (batch, gradient)
                }
                false => std::thread::scope(|scope| {
                    let drawing = scope.spawn(|| step.draw_noise(trained.values().len()));
                    let batch = sum();
                    let noise = drawing.join().expect("drawing noise does not panic")?;
                    let gradient = noise.privatize(&batch.sum)?;
                    Ok::<_, Error>((batch, gradient))
                })?,
            };
            let fits = contribution.micro_batch_size.size();
            if fits < at_once {
                let note = format!("out of memory: micro-batches of {fits} records from here on");
                self.progress.note(&note);
            }
            let warmup = (optimizer.steps + 1) as f64 / (c.warmup_steps + 1) as f64;
            let learning_rate = c.learning_rate * warmup.min(1.0);
            optimizer.step(
                trained.values_mut(),
                &gradient,
                learning_rate as f32,
                noise_variance as f32,
            );
            applied += 1;

            let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
            let seconds = begun.elapsed().as_secs_f64();
            log(&StepLog {
                charge,
                drawn,
                mean_loss: mean(&batch.losses),
                mean_norm: mean(&batch.norms),
                tokens: batch.tokens,
                seconds,
            })?;
            let charged = run.charged_steps();
            let epsilon = run.plan().epsilon_after(charged)?;
            let detail = format!(
                "{:.0} tokens/s, epsilon {:.2} of {target:.2}",
                batch.tokens as f64 / seconds,
                // Up: a progress line says no less than was spent.
                (epsilon * 100.0).ceil() / 100.0
            );
            task.set(charged, &detail);

            let stopping = self.stop.load(Ordering::Relaxed);
            if stopping || run.remaining_steps() == 0 || applied % c.checkpoint_every == 0 {
                let saved = Checkpoint {
                    values: trained.values().to_vec(),
                    optimizer: optimizer.clone(),
                    applied_steps: applied,
                    ledger: run.ledger_head(),
                };
                saved.save(self.checkpoint)?;
            }
            if stopping && run.remaining_steps() > 0 {
                return Err(
                    Error::interrupted(format!("stopped after step {charged} of {total}; the state is saved"))
                        .hint("the same command goes on from here"),
                );
            }
        }
        Ok((trained, applied))
    }
}
