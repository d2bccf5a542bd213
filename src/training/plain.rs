//! Training without privacy, NOT PRIVATE: for public text, and for the comparison with what privacy costs.
//!
//! Shuffled passes and batches of one size, as anyone trains. Nothing here can be noised or charged (rule P1), and what it
//! makes of private records stays internal (rule P9).

use std::sync::atomic::{AtomicBool, Ordering};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::gradients::{Compute, Trainee};
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::trainable::Trainable;
use crate::config::FinetuneConfig;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::progress::{Progress, Unit};
use crate::records::Encoded;
use crate::{Error, Result};

/// How long, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// Passes over the records.
    pub epochs: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
    /// Of the order of the records.
    pub seed: u64,
}

/// What is trained on besides records.
pub struct PlainTraining<'a> {
    pub model: &'a LanguageModel,
    /// Precision, micro-batches and weight decay.
    pub config: &'a FinetuneConfig,
    pub objective: Objective,
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
    /// What a person sees it called.
    pub name: &'a str,
}

impl PlainTraining<'_> {
    /// Trains `trained` on `records` and returns the mean loss per token of each step.
    ///
    /// # Errors
    /// [`Error::interrupted`] when asked to stop; what was learned until then is lost.
    pub fn train(&self, trained: &mut dyn Trainable, records: &[Encoded], passes: Passes) -> Result<Vec<f64>> {
        let trainee = Trainee::with(self.model, Compute::of(self.config), self.objective.clone());
        let workers = Workers::on(&self.model.device());
        let mut optimizer = Optimizer::adamw(trained.values().len(), self.config.weight_decay as f32);
        let mut order: Vec<&Encoded> = records.iter().collect();
        let mut rng = ChaCha8Rng::seed_from_u64(passes.seed);
        let steps = passes.epochs * records.len().div_ceil(passes.batch_size);
        let task = self.progress.begin(self.name, steps as u64, Unit::Steps);
        let mut losses = Vec::with_capacity(steps);
        for _ in 0..passes.epochs {
            order.shuffle(&mut rng);
            for batch in order.chunks_mut(passes.batch_size) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::interrupted(format!("stopped in the {}", self.name))
                        .hint("the same command begins it anew"));
                }
                batch.sort_by_key(|r| r.tokens.len());
                let placed = trainee.place(trained);
                let micro_batches: Vec<&[&Encoded]> = batch.chunks(self.config.micro_batch_size).collect();
                let mut mean = vec![0f32; trained.values().len()];
                let mut loss = 0.0;
                let share = 1.0 / batch.len() as f32;
                let sum = |records: &&[&Encoded]| trainee.plain_sum(&placed, records);
                workers.each(&micro_batches, sum, |_, part| {
                    part.add_to(&mut mean, |m, v| *m += share * v);
                    loss += part.losses.iter().sum::<f64>();
                });
                optimizer.step(trained.values_mut(), &mean, passes.learning_rate as f32);
                losses.push(loss / batch.len() as f64);
                task.set(losses.len() as u64, "");
            }
        }
        Ok(losses)
    }
}
