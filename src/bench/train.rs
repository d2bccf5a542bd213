//! A private training step beside the same step without privacy, in turn in one process.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::Subject;
use super::clock::{go_on, median, within};
use super::flops::{self, Trained};
use super::memory::{self, Peak};
use crate::config::{FinetuneConfig, Method, Precision};
use crate::machine::ceiling;
use crate::machine::workers::Workers;
use crate::models::device;
use crate::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, PrivateRun, Unit};
use crate::progress::{self, Progress};
use crate::records::{Encoded, Units};
use crate::training::contribution::Contribution;
use crate::training::gradients::{Compute, Seconds, Trainee};
use crate::training::objective::Objective;
use crate::training::optimizer::Optimizer;
use crate::training::private;
use crate::training::trainable::{self, Trainable};
use crate::{Error, Result};

/// Fewer records have no plan.
pub const LEAST_RECORDS: usize = 3;

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
    /// The same model, records and optimizer; gradients are added up as they are, and no noise is.
    NonPrivate,
}

/// What was found. Times are medians over the steps.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub model: String,
    pub device: &'static str,
    pub dtype: Precision,
    pub workers: usize,
    pub method: Method,
    pub activation_checkpointing: bool,
    pub trained_parameters: usize,
    pub records: usize,
    /// Of a record, its prompt included: the mean.
    pub tokens_per_record: f64,
    pub micro_batch_size: usize,
    pub steps: usize,
    /// Ratio of the medians.
    pub private_over_non_private_time: f64,
    /// Of a process for each arm: resident memory on a CPU, the device's on a GPU. None where it was not measured.
    pub private_over_non_private_peak: Option<f64>,
    pub private_peak: Option<Peak>,
    pub non_private_peak: Option<Peak>,
    /// Of the private step.
    pub seconds: f64,
    pub non_private_seconds: f64,
    /// Of the private step, prompts included.
    pub tokens_per_second: f64,
    pub non_private_tokens_per_second: f64,
    /// Of the private step: [`flops::training`] over its time.
    pub flops_per_second: f64,
    /// With factors of this element type.
    pub matmul_ceiling_flops_per_second: f64,
    pub model_flop_utilisation: f64,
    pub non_private_model_flop_utilisation: f64,
    /// Of the private step.
    #[serde(flatten)]
    pub parts: Parts,
    pub non_private: Parts,
}

impl Measurement {
    /// With the peaks of a process for each arm.
    pub fn with_peaks(mut self, private: Peak, non_private: Peak) -> Self {
        let bytes = |peak: Peak| peak.device_bytes.unwrap_or(peak.rss_bytes) as f64;
        self.private_over_non_private_peak = Some(bytes(private) / bytes(non_private));
        (self.private_peak, self.non_private_peak) = (Some(private), Some(non_private));
        self
    }
}

/// Seconds of a step by its parts, each the median over the steps; those of one step add up to it. Workers side by side count by their mean. A GPU works ahead of
/// its host: what it is still busy with counts where the host first waits for it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Parts {
    pub forward_s: f64,
    pub backward_s: f64,
    /// Norms, clip factors and the sum they weigh; without privacy the sum.
    pub norms_s: f64,
    pub noise_s: f64,
    pub optimizer_s: f64,
    /// The charge, placing the weights, adding up micro-batches, waiting for the slower worker.
    pub other_s: f64,
}

/// A step that was taken.
struct Step {
    seconds: f64,
    parts: Parts,
}

impl Step {
    fn new(begun: Instant, gradients: Seconds, workers: usize, noise_s: f64, optimizer_s: f64) -> Self {
        let seconds = begun.elapsed().as_secs_f64();
        let each = |s: f64| s / workers as f64;
        let mut parts = Parts {
            forward_s: each(gradients.forward),
            backward_s: each(gradients.backward),
            norms_s: each(gradients.norms),
            noise_s,
            optimizer_s,
            other_s: 0.0,
        };
        let named = parts.forward_s + parts.backward_s + parts.norms_s + noise_s + optimizer_s;
        parts.other_s = (seconds - named).max(0.0);
        Step { seconds, parts }
    }
}

/// What an arm trains; each arm has its own, so that neither sees the other's noise.
struct Learner {
    trained: Box<dyn Trainable>,
    optimizer: Optimizer,
}

impl Learner {
    fn new(subject: &Subject, finetune: &FinetuneConfig) -> Self {
        let trained = trainable::initial(finetune, &subject.model);
        let optimizer = Optimizer::adamw(trained.values().len(), finetune.weight_decay as f32);
        Learner { trained, optimizer }
    }

    /// Seconds of the optimizer's step.
    fn step(&mut self, gradient: &[f32], learning_rate: f64) -> f64 {
        let begun = Instant::now();
        self.optimizer
            .step(self.trained.values_mut(), gradient, learning_rate as f32);
        begun.elapsed().as_secs_f64()
    }
}

/// What both arms share.
struct Bench<'a> {
    setting: &'a Setting,
    trainee: Trainee,
    workers: Workers,
    units: Units,
    run: PrivateRun,
    /// The ledger's; removed at the end.
    _ledgers: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    fn new(subject: &Subject, setting: &'a Setting) -> Result<Self> {
        let f = &setting.finetune;
        within("records", setting.records, LEAST_RECORDS, 1 << 20)?;
        within("steps", setting.steps, 1, 1 << 20)?;
        within("micro-batch-size", f.micro_batch_size, 1, 1 << 20)?;
        let widest = subject.model.shape().maps().flat_map(|(_, dims)| dims).max();
        within("rank", f.rank, 1, widest.unwrap_or(1))?;
        let units = Units::of_records(subject.records(setting.records, setting.tokens)?);
        let ledgers = tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
        Ok(Bench {
            trainee: Trainee::with(&subject.model, Compute::of(f), Objective::text()),
            workers: Workers::on(&subject.model.device()),
            setting,
            units,
            run: begin(setting, ledgers.path())?,
            _ledgers: ledgers,
        })
    }

    fn step(&mut self, arm: Arm, learner: &mut Learner) -> Result<Step> {
        match arm {
            Arm::Private => self.private(learner),
            Arm::NonPrivate => Ok(self.non_private(learner)),
        }
    }

    /// By the loop's own step, as on a CPU: on a GPU the trainer draws its noise beside the sum.
    fn private(&mut self, learner: &mut Learner) -> Result<Step> {
        let f = &self.setting.finetune;
        let begun = Instant::now();
        let contribution = Contribution::of(&self.trainee, &self.workers, f);
        let mut method = Learning {
            contribution: &contribution,
            units: &self.units,
            learner,
            learning_rate: f.learning_rate,
        };
        let taken = private::step(&mut method, &mut self.run)?;
        let count = self.workers.count();
        Ok(Step::new(
            begun,
            taken.seen,
            count,
            taken.noise_seconds,
            taken.apply_seconds,
        ))
    }

    /// The mean gradient and AdamW.
    fn non_private(&self, learner: &mut Learner) -> Step {
        let f = &self.setting.finetune;
        let begun = Instant::now();
        let records: Vec<&Encoded> = self.units.all().iter().collect();
        let micro_batches: Vec<&[&Encoded]> = records.chunks(f.micro_batch_size).collect();
        let placed = self.trainee.place(learner.trained.as_ref());
        let (mut gradient, mut seconds) = (vec![0f32; learner.trained.values().len()], Seconds::default());
        let share = 1.0 / records.len() as f32;
        let sum = |records: &&[&Encoded]| self.trainee.plain_sum(&placed, records);
        self.workers.each(&micro_batches, sum, |_, part| {
            part.add_to(&mut gradient, |g, v| *g += share * v);
            seconds += part.seconds;
        });
        drop(placed);
        let optimizer = learner.step(&gradient, f.learning_rate);
        Step::new(begun, seconds, self.workers.count(), 0.0, optimizer)
    }
}

/// A learner's part of a private step.
struct Learning<'a> {
    contribution: &'a Contribution<'a>,
    units: &'a Units,
    learner: &'a mut Learner,
    learning_rate: f64,
}

impl private::Method for Learning<'_> {
    /// Of all workers together.
    type Seen = Seconds;

    fn dimensions(&self) -> usize {
        self.learner.trained.values().len()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, Seconds)> {
        let batch = self
            .contribution
            .sum(self.learner.trained.as_ref(), self.units, members);
        Ok((batch.sum, batch.seconds))
    }

    fn apply(&mut self, noisy: &[f32]) {
        self.learner.step(noisy, self.learning_rate);
    }

    fn state(&self) -> Option<(&[f32], &Optimizer)> {
        None
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
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    };
    let plan = PrivacyPlan::calibrate(&request)?;
    let ledger = Ledger::open(ledgers, "bench", f.epsilon, plan.delta(), &Unit::Record)?;
    Ok(plan.begin(ledger, "bench", setting.records)?)
}

/// Times the steps of both arms in turn. Peaks of memory need a process each: see [`peak`].
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
    let mut learners =
        [Arm::Private, Arm::NonPrivate].map(|arm| (arm, Learner::new(subject, &setting.finetune), Vec::new()));
    let task = progress.begin("training", 2 * (setting.steps as u64 + 1), progress::Unit::Steps);
    for i in 0..=setting.steps {
        // Each goes first as often as the other.
        learners.reverse();
        for (k, (arm, learner, taken)) in learners.iter_mut().enumerate() {
            go_on(stop)?;
            let step = bench.step(*arm, learner)?;
            if i > 0 {
                taken.push(step);
            }
            task.set((2 * i + k + 1) as u64, "");
        }
    }
    drop(task);
    learners.sort_by_key(|(arm, ..)| *arm == Arm::NonPrivate);
    let [(_, learner, private), (_, _, non_private)] = learners;

    let f = &setting.finetune;
    let model = &subject.model;
    let trained = match f.method {
        Method::Lora | Method::Qlora | Method::LoraFa => Trained::Lora { rank: f.rank },
        // Next to nothing beside the passes.
        Method::Bitfit | Method::Ia3 | Method::SoftPrompt => Trained::Lora { rank: 0 },
        Method::Full => Trained::Full,
    };
    let records = bench.units.all();
    let flops: f64 = records
        .iter()
        .map(|r| flops::training(model.shape(), trained, r.prompt, r.tokens.len() - r.prompt))
        .sum();
    let tokens = records.iter().map(|r| r.tokens.len()).sum::<usize>() as f64;
    let dtype = trainable::dtype(f.precision);
    let ceiling = ceiling::matmul_flops_per_second(&model.device(), &bench.workers, dtype);
    let [seconds, non_private_seconds] =
        [&private, &non_private].map(|steps| median(&steps.iter().map(|s| s.seconds).collect::<Vec<_>>()));
    Ok(Measurement {
        model: subject.name.clone(),
        device: device::name(&model.device()),
        dtype: f.precision,
        workers: bench.workers.count(),
        method: f.method,
        activation_checkpointing: f.activation_checkpointing,
        trained_parameters: learner.trained.values().len(),
        records: records.len(),
        tokens_per_record: tokens / records.len() as f64,
        micro_batch_size: f.micro_batch_size,
        steps: setting.steps,
        private_over_non_private_time: seconds / non_private_seconds,
        private_over_non_private_peak: None,
        private_peak: None,
        non_private_peak: None,
        seconds,
        non_private_seconds,
        tokens_per_second: tokens / seconds,
        non_private_tokens_per_second: tokens / non_private_seconds,
        flops_per_second: flops / seconds,
        matmul_ceiling_flops_per_second: ceiling,
        model_flop_utilisation: flops / seconds / ceiling,
        non_private_model_flop_utilisation: flops / non_private_seconds / ceiling,
        parts: medians(&private),
        non_private: medians(&non_private),
    })
}

/// Tokens a second of private steps, prompts included; one step more goes before those that count.
///
/// # Errors
/// As [`measure`].
pub fn tokens_per_second(subject: &Subject, setting: &Setting, stop: &AtomicBool) -> Result<f64> {
    let mut bench = Bench::new(subject, setting)?;
    let mut learner = Learner::new(subject, &setting.finetune);
    let mut seconds = Vec::new();
    for _ in 0..=setting.steps {
        go_on(stop)?;
        seconds.push(bench.step(Arm::Private, &mut learner)?.seconds);
    }
    let tokens = bench.units.all().iter().map(|r| r.tokens.len()).sum::<usize>() as f64;
    Ok(tokens / median(&seconds[1..]))
}

fn medians(steps: &[Step]) -> Parts {
    let of = |part: fn(&Parts) -> f64| median(&steps.iter().map(|s| part(&s.parts)).collect::<Vec<_>>());
    Parts {
        forward_s: of(|p| p.forward_s),
        backward_s: of(|p| p.backward_s),
        norms_s: of(|p| p.norms_s),
        noise_s: of(|p| p.noise_s),
        optimizer_s: of(|p| p.optimizer_s),
        other_s: of(|p| p.other_s),
    }
}

/// The peak of memory of two steps of one arm, each of at most two micro-batches a worker: more add nothing.
///
/// For a process of its own: memory that another arm has freed may still be held by the allocator.
///
/// # Errors
/// As [`measure`].
pub fn peak(subject: &Subject, setting: &Setting, arm: Arm, stop: &AtomicBool) -> Result<Peak> {
    let enough = 2 * setting.finetune.micro_batch_size * Workers::on(&subject.model.device()).count();
    let setting = Setting {
        records: setting.records.min(enough.max(LEAST_RECORDS)),
        steps: 1,
        ..setting.clone()
    };
    let mut bench = Bench::new(subject, &setting)?;
    memory::restart();
    let mut learner = Learner::new(subject, &setting.finetune);
    for _ in 0..=setting.steps {
        go_on(stop)?;
        bench.step(arm, &mut learner)?;
    }
    Ok(memory::peak(&subject.model.device()))
}
