//! Black-box canaries: made-up records, put into the training data or left out by a fair coin each; one private training
//! run with the run's own plan; then their losses. What an adversary sees who can query the trained model only.
//!
//! A canary is a prompt of a random label followed by random tokens, as long as the records' median: nothing but the
//! canary itself teaches the model to expect it. Score: how much its loss fell from the initial model to the trained
//! one, less the median of all canaries. The bound is the one-run theorem's.
//!
//! The model is thrown away and the charge goes to a ledger of its own, so nothing of the dataset's budget is spent.

use std::path::Path;

use rand::RngExt;

use super::Stop;
use super::echo::{Echo, Echoing};
use super::one_run::{Design, Observed};
use crate::config::FinetuneConfig;
pub use crate::documents::Losses;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::privacy::{Ledger, PrivacyPlan};
use crate::progress::{Progress, Unit};
use crate::records::{Encoded, Units};
use crate::training::gradients::{Compute, Trainee};
use crate::training::objective::Objective;
use crate::training::trainable;
use crate::training::trainable::Trainable;
use crate::training::trainer::Training;
use crate::{Error, Result};

/// What is trained, on what.
pub struct Retraining<'a> {
    pub model: &'a LanguageModel,
    pub config: &'a FinetuneConfig,
    pub plan: &'a PrivacyPlan,
    pub units: &'a Units,
    /// The prompt of each joint label.
    pub prompts: &'a [Vec<u32>],
    pub objective: &'a Objective,
    /// The run's warm start, where it has one.
    pub warm_start: &'a Path,
    pub canaries: usize,
    /// Canaries that are attacked through the text that the model draws; none where nothing is drawn yet.
    pub echo: Option<&'a Echoing<'a>>,
}

impl Retraining<'_> {
    /// Trains once, on the records and about half of the canaries, and looks at the losses of all canaries.
    ///
    /// # Errors
    /// As training's; [`Error::interrupted`].
    pub fn run(&self, alpha: f64, stop: Stop, progress: &dyn Progress) -> Result<(Losses, Option<Echo>)> {
        let (observed, echo) = self.observe(stop, progress)?;
        let mean = |included: bool| {
            let drops = observed.scores.iter().zip(&observed.included);
            let drops: Vec<f64> = drops.filter(|(_, i)| **i == included).map(|(d, _)| *d).collect();
            drops.iter().sum::<f64>() / drops.len().max(1) as f64
        };
        let (mean_drop_included, mean_drop_excluded) = (mean(true), mean(false));
        let losses = Losses {
            canaries: self.canaries,
            tokens: self.length(),
            mean_drop_included,
            mean_drop_excluded,
            one_run: centred(observed).bounds(&designs(self.canaries), self.plan.delta(), alpha),
        };
        Ok((losses, echo))
    }

    /// Scores are the drops of the losses.
    fn observe(&self, stop: Stop, progress: &dyn Progress) -> Result<(Observed, Option<Echo>)> {
        let canaries = self.made_up();
        let mut coins = rand::rng();
        let included: Vec<bool> = canaries.iter().map(|_| coins.random()).collect();
        let in_training = canaries
            .iter()
            .zip(&included)
            .filter(|(_, i)| **i)
            .map(|(c, _)| c.clone());
        let planted = self.echo.map(|echo| (echo, echo.plant()));
        let echoing = planted.iter().flat_map(|(_, planted)| planted.records());
        let units = self.units.with_records(in_training.chain(echoing));

        let initial = trainable::begun(self.config, self.model, self.warm_start)?;
        let before = losses(self.model, self.config, initial.as_ref(), &canaries, stop, progress)?;
        let scratch = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
        let total = self.plan.needed_epsilon();
        let ledger = Ledger::open(
            scratch.path(),
            "loss-canaries",
            total,
            self.plan.delta(),
            self.plan.unit(),
        )?;
        let mut run = self.plan.begin(ledger, "audit", units.len())?;
        let training = Training {
            model: self.model,
            config: self.config,
            objective: self.objective,
            checkpoint: &scratch.path().join("checkpoint.safetensors"),
            stop: stop.0,
            progress,
        };
        let (trained, _) = training.train(initial, &mut run, &units, None, |_| stop.check())?;
        let after = losses(self.model, self.config, trained.as_ref(), &canaries, stop, progress)?;
        let echo = planted.map(|(echo, planted)| echo.attack(&planted, trained.as_ref(), stop, progress));
        let observed = Observed {
            scores: drops(before, after),
            included,
        };
        Ok((observed, echo.transpose()?))
    }

    fn length(&self) -> usize {
        let mut lengths: Vec<usize> = self.units.all().iter().map(|r| r.tokens.len() - r.prompt).collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).copied().unwrap_or(1).max(2)
    }

    fn made_up(&self) -> Vec<Encoded> {
        let mut rng = rand::rng();
        let (vocabulary, length) = (self.model.shape().vocabulary as u32, self.length());
        let mut one = |_| {
            let label = rng.random_range(0..self.prompts.len());
            let mut tokens = self.prompts[label].clone();
            tokens.extend((0..length).map(|_| rng.random_range(0..vocabulary)));
            Encoded {
                tokens,
                prompt: self.prompts[label].len(),
                label,
            }
        };
        (0..self.canaries).map(&mut one).collect()
    }
}

/// Mean loss per token of each record, as `state` finds it.
///
/// # Errors
/// [`Error::interrupted`].
pub(super) fn losses(
    model: &LanguageModel,
    config: &FinetuneConfig,
    state: &dyn Trainable,
    records: &[Encoded],
    stop: Stop,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let trainee = Trainee::with(model, Compute::of(config), Objective::text());
    let (placed, workers) = (trainee.place(state), Workers::on(&model.device()));
    let task = progress.begin("losses", records.len() as u64, Unit::Records);
    let records: Vec<&Encoded> = records.iter().collect();
    let micro_batches: Vec<&[&Encoded]> = records.chunks(config.micro_batch_size).collect();
    let mut out = Vec::with_capacity(records.len());
    for wave in micro_batches.chunks(workers.count()) {
        stop.check()?;
        let done = workers.map(wave, |batch| trainee.losses(&placed, batch));
        out.extend(done.into_iter().flatten());
        task.set(out.len() as u64, "");
    }
    Ok(out)
}

/// By how much each loss fell; 0 where that is no number.
pub(super) fn drops(before: Vec<f64>, after: Vec<f64>) -> Vec<f64> {
    let drop = |(b, a): (f64, f64)| if (b - a).is_finite() { b - a } else { 0.0 };
    before.into_iter().zip(after).map(drop).collect()
}

/// Half of the guesses on either side.
fn centred(mut observed: Observed) -> Observed {
    let mut sorted = observed.scores.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    observed.scores.iter_mut().for_each(|s| *s -= median);
    observed
}

/// Fixed in advance: how losses are spread is not known before.
fn designs(canaries: usize) -> Vec<Design> {
    [32, 8, 2, 1]
        .map(|share| Design {
            canaries,
            guesses: (canaries / share).max(1),
        })
        .into()
}
