//! The one private loop: charge, draw, sum, noise once, apply, save (rules P2, P3, P6, P7).
//!
//! What is trained is a [`Method`]: it turns drawn units into one bounded vector, and the noised vector into its next state. It
//! sees its batch through [`Method::query`] alone, and what it keeps of it is what [`Method::apply`] is given.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::Checkpoint;
use super::optimizer::Optimizer;
use crate::privacy::{PrivateRun, TRAINING};
use crate::progress::{Progress, Unit};
use crate::{Error, Result};

/// What private steps are taken with.
pub trait Method {
    /// What was seen of a batch on the way to its sum. Private: internal use only (P9).
    type Seen;

    /// Length d of the vector that a step releases.
    fn dimensions(&self) -> usize;

    /// The sum over the units `members` of vectors [d] of norm at most C, zeros for none (P5, P6).
    ///
    /// # Errors
    /// The records cannot be read: the step stays charged.
    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, Self::Seen)>;

    /// Takes what the mechanism released: (sum + noise) / expected batch size.
    fn apply(&mut self, noisy: &[f32]);

    /// What a run goes on from: values and the optimizer's state; none where there is nothing to save.
    fn state(&self) -> Option<(&[f32], &Optimizer)>;

    /// Whether the sum is taken elsewhere than on the cores that draw noise, so that both may go on at once.
    fn computes_elsewhere(&self) -> bool {
        false
    }
}

/// A step that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken<S> {
    /// Index of the charge that paid for it.
    pub charge: u64,
    /// Units drawn.
    pub drawn: usize,
    pub seen: S,
    /// Of the sum, where noise is not drawn beside it.
    pub query_seconds: f64,
    /// Of the noise that the sum did not hide.
    pub noise_seconds: f64,
    pub apply_seconds: f64,
}

/// Charges a step of `run` and takes it (P7: the charge is on disk before anything is drawn).
///
/// # Errors
/// A refused charge; what [`Method::query`] says; a sum that is not finite.
pub fn step<M: Method>(method: &mut M, run: &mut PrivateRun) -> Result<Taken<M::Seen>> {
    let step = run.charge(TRAINING)?;
    let (charge, members) = (step.index(), step.members().to_vec());
    let begun = Instant::now();
    #[cfg(mutants)]
    let mut clean = Vec::new();
    let (noisy, seen, queried) = match method.computes_elsewhere() {
        // The noise waits: it needs the cores that the sum is taken on.
        false => {
            let (sum, seen) = method.query(&members)?;
            let queried = begun.elapsed().as_secs_f64();
            #[cfg(mutants)]
            clean.clone_from(&sum);
            (step.privatize(&sum)?, seen, queried)
        }
        true => std::thread::scope(|scope| {
            let d = method.dimensions();
            let drawing = scope.spawn(move || step.draw_noise(d));
            let (sum, seen) = method.query(&members)?;
            let queried = begun.elapsed().as_secs_f64();
            let noise = drawing.join().expect("drawing noise does not panic")?;
            Ok::<_, Error>((noise.privatize(&sum)?, seen, queried))
        })?,
    };
    let noised = begun.elapsed().as_secs_f64();
    #[cfg(mutants)]
    let noisy = mistaken(noisy, clean, run.plan().expected_batch_size());
    #[cfg(mutants)]
    let skipped = skips(members.len());
    #[cfg(not(mutants))]
    let skipped = false;
    if !skipped {
        method.apply(&noisy);
    }
    Ok(Taken {
        charge,
        drawn: members.len(),
        seen,
        query_seconds: queried,
        noise_seconds: noised - queried,
        apply_seconds: begun.elapsed().as_secs_f64() - noised,
    })
}

/// The mistakes that the loop could make with what the mechanism released (P3).
#[cfg(mutants)]
fn mistaken(mut noisy: Vec<f32>, clean: Vec<f64>, expected_batch_size: u64) -> Vec<f32> {
    use dpsynth_privacy::mutation::{Mutation, current};
    for (noisy, clean) in noisy.iter_mut().zip(clean) {
        let mean = (clean / expected_batch_size as f64) as f32;
        match current() {
            Some(Mutation::CleanMeanAdded) => *noisy += 0.5 * mean,
            Some(Mutation::CleanMeanInstead) => *noisy = mean,
            _ => {}
        }
    }
    noisy
}

/// The mistake that rule P6 is about.
#[cfg(mutants)]
fn skips(drawn: usize) -> bool {
    drawn == 0 && dpsynth_privacy::mutation::is(dpsynth_privacy::mutation::Mutation::SkipEmptyBatches)
}

/// Where a loop stands and whom it tells.
pub struct Loop<'a> {
    /// What is trained, for the bar.
    pub task: &'a str,
    /// The same in a message: empty, or " of dp_direct".
    pub of: &'a str,
    /// Where the state is saved, and after how many steps.
    pub checkpoint: Option<(&'a Path, u64)>,
    /// Steps that an earlier process applied.
    pub applied: u64,
    /// Whether one of those was taken on a GPU.
    pub on_gpu: bool,
    /// Set when the person asks to stop.
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl Loop<'_> {
    /// Takes all steps that `run` has left; `each` is told of every one, and says what stands beside the bar. The steps
    /// applied, earlier ones among them.
    ///
    /// # Errors
    /// As [`step`]; a full disk; what `each` says; [`Error::interrupted`] after a checkpoint when asked to stop.
    pub fn train<M: Method>(
        &self,
        method: &mut M,
        run: &mut PrivateRun,
        mut each: impl FnMut(&Taken<M::Seen>) -> Result<String>,
    ) -> Result<u64> {
        let total = run.charged_steps() + run.remaining_steps();
        let task = self.progress.begin(self.task, total, Unit::Steps);
        task.set(run.charged_steps(), "");
        let mut applied = self.applied;
        while run.remaining_steps() > 0 {
            let taken = step(method, run)?;
            #[cfg(mutants)]
            if skips(taken.drawn) {
                continue;
            }
            applied += 1;
            let detail = each(&taken)?;
            let charged = run.charged_steps();
            task.set(charged, &detail);
            let stopping = self.stop.load(Ordering::Relaxed);
            let (Some((path, every)), Some((values, optimizer))) = (self.checkpoint, method.state()) else {
                continue;
            };
            if stopping || run.remaining_steps() == 0 || applied.is_multiple_of(every) {
                let saved = Checkpoint {
                    values: values.to_vec(),
                    optimizer: optimizer.clone(),
                    applied_steps: applied,
                    on_gpu: self.on_gpu || method.computes_elsewhere(),
                    ledger: run.ledger_head(),
                };
                run.state(&saved.sha256())?;
                saved.save(path)?;
            }
            if stopping && run.remaining_steps() > 0 {
                return Err(Error::interrupted(format!(
                    "stopped after step {charged} of {total}{}; the state is saved",
                    self.of
                ))
                .hint("the same command goes on from here"));
            }
        }
        Ok(applied)
    }
}
