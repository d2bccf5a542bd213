//! Rule P5 replayed on the run's own model and data: how far one record moves the clipped sum.
//!
//! For a batch D of real records and a record x, S(D) and S(D ∪ {x}) are computed as the trainer computes them: sorted
//! by length, cut into micro-batches, added up in f64. Sampling is the batch, and noise is added after: both are fixed.
//! The bound is ‖S(D ∪ {x}) − S(D)‖ ≤ C exactly; a record that is clipped far below C can hide that it moves others, so
//! ‖S(D ∪ {x}) − S(D) − S({x})‖, by which the others' contributions moved, is measured beside it: floating point may exceed it by what the accountant is paid for.

use std::time::Instant;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Stop;
use crate::Result;
use crate::config::FinetuneConfig;
pub use crate::documents::{Probe, Replay};
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::privacy::FLOAT_ALLOWANCE;
use crate::progress::{Progress, Unit};
use crate::records::{Encoded, Units};
use crate::training::clip::Norm;
use crate::training::contribution::Contribution;
use crate::training::drawn::Batch;
use crate::training::gradients::{Compute, Trainee};
use crate::training::objective::Objective;
use crate::training::optimizer::Optimizer;
use crate::training::trainable::Trainable;
use crate::training::trainer;
use crate::training::ways::At;

/// What rule P5 asks of a sound implementation.
pub const P5_ALLOWANCE: f64 = 1e-6;

impl Replay {
    /// Judges `probes` on batches of `batch` records.
    pub fn of(probes: Vec<Probe>, batch: usize, micro_batch_size: usize, seconds: f64) -> Self {
        // f64::max would pass over a NaN; a distance that is no number is the worst there is.
        let worst = |a: f64, p: &Probe| {
            if p.ratio.is_nan() {
                f64::INFINITY
            } else {
                a.max(p.ratio)
            }
        };
        let worst_ratio = probes.iter().fold(0.0, worst);
        let others = |a: f64, moved: f64| if moved.is_nan() { f64::INFINITY } else { a.max(moved) };
        let worst_others = probes.iter().filter_map(|p| p.others).fold(0.0, others);
        Replay {
            batch,
            micro_batch_size,
            probes,
            worst_ratio,
            worst_others: Some(worst_others),
            charged_allowance: FLOAT_ALLOWANCE,
            within_charge: worst_ratio <= 1.0 + FLOAT_ALLOWANCE && worst_others <= FLOAT_ALLOWANCE,
            within_p5: worst_ratio <= 1.0 + P5_ALLOWANCE,
            seconds,
        }
    }
}

/// What is replayed, on what.
pub struct Replaying<'a> {
    pub model: &'a LanguageModel,
    /// With their names.
    pub states: &'a [(&'static str, &'a dyn Trainable)],
    /// The training records.
    pub units: &'a Units,
    pub config: &'a FinetuneConfig,
    pub objective: &'a Objective,
    /// About how long it may take; decides the size of D, up to the expected batch size.
    pub seconds: f64,
}

impl Replaying<'_> {
    /// Replays each state with each kind of record.
    ///
    /// # Errors
    /// [`crate::Error::interrupted`].
    pub fn run(&self, stop: Stop, progress: &dyn Progress) -> Result<Replay> {
        let begun = Instant::now();
        let xs = self.extremes();
        let evaluations = self.states.len() * (xs.len() + 1);
        let task = progress.begin("replay", evaluations as u64, Unit::Steps);
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.shuffle(&mut rand::rng());
        let size = self.affordable(&order, evaluations).min(order.len());
        let batch: Vec<&[Encoded]> = order[..size].iter().map(|i| self.units.records(*i)).collect();

        let mut probes = Vec::new();
        let mut done = 0;
        for (name, state) in self.states {
            let without = self.sum(*state, &batch);
            for (record, x) in &xs {
                stop.check()?;
                let with = self.sum(*state, &[&batch[..], &[x.as_slice()]].concat());
                let alone = self.sum(*state, &[x.as_slice()]);
                let others: Vec<f64> = with.iter().zip(&alone).map(|(with, alone)| with - alone).collect();
                probes.push(Probe {
                    state: (*name).into(),
                    record: (*record).into(),
                    tokens: x.iter().map(|r| r.tokens.len()).sum(),
                    ratio: self.distance(&with, &without) / self.config.max_grad_norm,
                    others: Some(self.distance(&others, &without) / self.config.max_grad_norm),
                });
                done += 1;
                task.set(done, &format!("batches of {size}"));
            }
            done += 1;
        }
        task.set(evaluations as u64, "");
        Ok(Replay::of(
            probes,
            size,
            self.config.micro_batch_size,
            begun.elapsed().as_secs_f64(),
        ))
    }

    /// In the norm that the noise hides.
    fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        Norm::under(self.config.noise).length(a.iter().zip(b).map(|(x, y)| x - y))
    }

    /// The units that are added: real ones and made-up ones, from the longest form that training admits.
    fn extremes(&self) -> Vec<(&'static str, Vec<Encoded>)> {
        let mut rng = rand::rng();
        let by_length = |r: &&Encoded| r.tokens.len();
        let (Some(longest), Some(shortest)) = (
            self.units.all().iter().max_by_key(by_length),
            self.units.all().iter().min_by_key(by_length),
        ) else {
            return Vec::new();
        };
        let vocabulary = self.model.shape().vocabulary as u32;
        let with_tokens = |token: &mut dyn FnMut() -> u32| {
            let mut made = longest.clone();
            made.tokens[longest.prompt..].iter_mut().for_each(|t| *t = token());
            vec![made]
        };
        let one = rng.random_range(0..vocabulary);
        let random = self.units.records(rng.random_range(0..self.units.len())).to_vec();
        let mut out = vec![
            ("longest", vec![longest.clone()]),
            ("shortest", vec![shortest.clone()]),
            ("random", random),
            ("one token repeated", with_tokens(&mut || one)),
            ("random tokens", with_tokens(&mut || rng.random_range(0..vocabulary))),
        ];
        let largest = (0..self.units.len())
            .map(|u| self.units.records(u))
            .max_by_key(|r| r.len());
        out.extend(largest.filter(|r| r.len() > 1).map(|r| ("most records", r.to_vec())));
        out
    }

    /// Units for which all evaluations fit into the time, measured on one micro-batch for each worker.
    fn affordable(&self, order: &[usize], evaluations: usize) -> usize {
        let at_once = self.config.micro_batch_size * Workers::on(&self.model.device()).count();
        let some: Vec<&[Encoded]> = order.iter().take(at_once).map(|i| self.units.records(*i)).collect();
        let state = self.states[0].1;
        // The first pass also warms up; the second is timed.
        self.sum(state, &some);
        let begun = Instant::now();
        self.sum(state, &some);
        let each = begun.elapsed().as_secs_f64() / some.len().max(1) as f64;
        let affordable = self.seconds / (each * evaluations as f64);
        (affordable as usize).clamp(at_once + 1, (self.config.expected_batch_size as usize).max(at_once + 1))
    }

    /// S, as the trainer takes it.
    fn sum(&self, state: &dyn Trainable, batch: &[&[Encoded]]) -> Vec<f64> {
        let trainee = Trainee::with(self.model, Compute::of(self.config), self.objective.clone());
        let workers = Workers::on(&self.model.device());
        let contribution = Contribution::of(&trainee, &workers, self.config);
        let unit_of: Vec<u32> = (0u32..)
            .zip(batch)
            .flat_map(|(i, unit)| unit.iter().map(move |_| i))
            .collect();
        let units = Units::of_groups(batch.concat(), &unit_of, usize::MAX);
        let len = state.values().len();
        let mut optimizer = Optimizer::of(self.config, 0.0, len);
        // As in the middle of training, for a step that goes up along earlier ones: any direction that is not 0.
        optimizer.first.copy_from_slice(state.values());
        let at = At {
            values: state.values(),
            optimizer: &optimizer,
        };
        trainer::way(self.config, len).ask(&Batch::new(&contribution, state, &units), at)
    }
}
