//! A private training step beside the same step without privacy, in turn in one process.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::DType;
use serde::Serialize;

use super::clock::{go_on, median, seconds};
use super::flops::{self, Trained};
use super::memory::{self, Peak};
use super::{Subject, ceiling};
use crate::config::FinetuneConfig;
use crate::models::device;
use crate::models::lora::Adapter;
use crate::privacy::{Ledger, PlanRequest, PrivacyPlan, PrivateRun, Unit};
use crate::progress::{self, Progress};
use crate::records::Units;
use crate::training::contribution::Contribution;
use crate::training::gradients::{Clip, Trainee};
use crate::training::optimizer::AdamW;
use crate::training::workers::Workers;
use crate::{Error, Result};

/// Fewer records have no plan.
const LEAST_RECORDS: usize = 3;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Records of a logical batch.
    pub records: usize,
    /// Tokens of a record behind its prompt.
    pub tokens: usize,
    /// Steps of each arm that count; one more of each warms up.
    pub steps: usize,
    /// Everything else that training is told.
    pub finetune: FinetuneConfig,
}

/// One of the two ways to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    Private,
    NonPrivate,
}

/// What was found. Times are medians over the steps.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub model: String,
    pub device: &'static str,
    pub dtype: &'static str,
    pub workers: usize,
    pub trained_parameters: usize,
    pub records: usize,
    /// Of a record, its prompt included: the mean.
    pub tokens_per_record: f64,
    pub micro_batch_size: usize,
    pub steps: usize,
    /// Ratio of the medians.
    pub private_over_non_private_time: Option<f64>,
    /// Of a process for each arm, resident memory on a CPU, the device's on a GPU.
    pub private_over_non_private_peak: Option<f64>,
    pub private_peak: Option<Peak>,
    pub non_private_peak: Option<Peak>,
    /// Of the private step.
    pub seconds: f64,
    pub non_private_seconds: Option<f64>,
    pub tokens_per_second: f64,
    pub non_private_tokens_per_second: Option<f64>,
    /// By [`flops::training`], over the private step's time.
    pub flops_per_second: f64,
    pub matmul_ceiling_flops_per_second: f64,
    pub model_flop_utilisation: f64,
    /// Of the private step, as the parts below; they add up to it.
    pub gradients_s: f64,
    pub noise_s: f64,
    pub optimizer_s: f64,
    /// The charge, and whatever is in no other part.
    pub other_s: f64,
}

/// Seconds of a step and its parts.
struct Step {
    total: f64,
    gradients: f64,
    noise: f64,
    optimizer: f64,
}

/// Both arms, ready to step. Each has an adapter and an optimizer of its own.
struct Bench<'a> {
    trainee: Trainee,
    workers: Workers,
    clip: Clip,
    setting: &'a Setting,
    units: Units,
    adapter: Adapter,
    optimizer: AdamW,
    run: PrivateRun,
    /// The ledger's; removed at the end.
    _ledgers: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    fn new(subject: &Subject, setting: &'a Setting) -> Result<Self> {
        let f = &setting.finetune;
        for (flag, value, least) in [
            ("records", setting.records, LEAST_RECORDS),
            ("steps", setting.steps, 1),
            ("micro-batch-size", f.micro_batch_size, 1),
            ("rank", f.rank, 1),
        ] {
            if value < least {
                return Err(Error::usage(format!("--{flag} must be at least {least}, not {value}"))
                    .hint("leave it out for the configuration's value"));
            }
        }
        let units = Units::of_records(subject.records(setting.records, setting.tokens)?);
        let ledgers = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
        let adapter = Adapter::new(subject.model.config(), f.rank, f.alpha, 0);
        Ok(Bench {
            trainee: Trainee::new(&subject.model),
            workers: Workers::new(&subject.model),
            clip: Clip {
                clipping: f.clipping,
                max_grad_norm: f.max_grad_norm,
            },
            setting,
            units,
            optimizer: AdamW::new(adapter.len(), f.weight_decay as f32),
            adapter,
            run: begin(setting, ledgers.path())?,
            _ledgers: ledgers,
        })
    }

    /// As [`crate::training::trainer::Training::train`] does it, without logs and checkpoints.
    fn private_step(&mut self) -> Result<Step> {
        let begun = Instant::now();
        let step = self.run.charge()?;
        let contribution = Contribution {
            trainee: &self.trainee,
            workers: &self.workers,
            clip: self.clip,
            micro_batch_size: self.setting.finetune.micro_batch_size,
        };
        let at = Instant::now();
        let batch = contribution.sum(&self.adapter, &self.units, step.members());
        let gradients = at.elapsed().as_secs_f64();
        let at = Instant::now();
        let gradient = step.privatize(&batch.sum)?;
        let noise = at.elapsed().as_secs_f64();
        let learning_rate = self.setting.finetune.learning_rate as f32;
        let optimizer = seconds(|| self.optimizer.step(self.adapter.values_mut(), &gradient, learning_rate));
        Ok(Step {
            total: begun.elapsed().as_secs_f64(),
            gradients,
            noise,
            optimizer,
        })
    }
}

/// A run whose every batch is all the records: sampling rate 1, so that each step is the same work.
fn begin(setting: &Setting, ledgers: &std::path::Path) -> Result<PrivateRun> {
    let (f, records) = (&setting.finetune, setting.records as u64);
    let request = PlanRequest {
        target_epsilon: f.epsilon,
        delta: None,
        public_size: records,
        expected_batch_size: records,
        steps: setting.steps as u64 + 1,
        max_grad_norm: f.max_grad_norm,
        noise: f.noise,
        unit: Unit::Record,
        max_batch_size: None,
        label_histogram_epsilon: None,
        seed: None,
    };
    let plan = PrivacyPlan::calibrate(&request)?;
    let ledger = Ledger::open(ledgers, "bench", f.epsilon, plan.delta(), &Unit::Record)?;
    plan.begin(ledger, "bench", setting.records)
}

/// Times the steps of both arms in turn.
///
/// # Errors
/// Usage: a count of nothing, records beyond the context. Interrupted: `stop` was set. Other: no temporary folder.
pub fn measure(
    subject: &Subject,
    setting: &Setting,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Measurement> {
    let mut bench = Bench::new(subject, setting)?;
    let task = progress.begin("training", setting.steps as u64 + 1, progress::Unit::Steps);
    let mut steps = Vec::new();
    for i in 0..=setting.steps {
        go_on(stop)?;
        let step = bench.private_step()?;
        if i > 0 {
            steps.push(step);
        }
        task.set(i as u64 + 1, "");
    }
    drop(task);
    let model = &subject.model;
    let trained = Trained::Lora {
        rank: setting.finetune.rank,
    };
    let records = bench.units.all();
    let work =
        |r: &crate::records::Encoded| flops::training(model.config(), trained, r.prompt, r.tokens.len() - r.prompt);
    let flops: f64 = records.iter().map(work).sum();
    let tokens: usize = records.iter().map(|r| r.tokens.len()).sum();
    let ceiling = ceiling::matmul_flops_per_second(&model.device(), &bench.workers, DType::F32);
    let of = |part: fn(&Step) -> f64| median(&steps.iter().map(part).collect::<Vec<_>>());
    let total = of(|s| s.total);
    Ok(Measurement {
        model: subject.name.clone(),
        device: device::name(&model.device()),
        dtype: "f32",
        workers: bench.workers.count(),
        trained_parameters: bench.adapter.len(),
        records: records.len(),
        tokens_per_record: tokens as f64 / records.len() as f64,
        micro_batch_size: setting.finetune.micro_batch_size,
        steps: setting.steps,
        private_over_non_private_time: None,
        private_over_non_private_peak: None,
        private_peak: None,
        non_private_peak: None,
        seconds: total,
        non_private_seconds: None,
        tokens_per_second: tokens as f64 / total,
        non_private_tokens_per_second: None,
        flops_per_second: flops / total,
        matmul_ceiling_flops_per_second: ceiling,
        model_flop_utilisation: flops / total / ceiling,
        gradients_s: of(|s| s.gradients),
        noise_s: of(|s| s.noise),
        optimizer_s: of(|s| s.optimizer),
        other_s: of(|s| s.total - s.gradients - s.noise - s.optimizer),
    })
}

/// The peak of memory of one arm's steps. For a process of its own: memory that another arm has freed may still be held.
///
/// # Errors
/// As [`measure`].
pub fn peak(subject: &Subject, setting: &Setting, arm: Arm, stop: &AtomicBool) -> Result<Peak> {
    let mut bench = Bench::new(subject, setting)?;
    memory::restart();
    for _ in 0..=setting.steps {
        go_on(stop)?;
        match arm {
            Arm::Private => bench.private_step()?,
            Arm::NonPrivate => bench.private_step()?,
        };
    }
    Ok(memory::peak(&subject.model.device()))
}
