//! Checks of the private step against its rules. Each says what is wrong, or nothing.

use std::sync::atomic::AtomicBool;

use dpsynth::audit::Stop;
use dpsynth::audit::steps::Stepping;
use dpsynth::config::{Clipping, FinetuneConfig, NoiseKind};
use dpsynth::machine::workers::Workers;
use dpsynth::models::LanguageModel;
use dpsynth::models::lora::Adapter;
use dpsynth::privacy::{
    Batches, COPY_GATE, LABELS, LEXICON, LabelCounts, LabelTokens, Ledger, PlanRequest, PrivacyPlan, PrivateRun,
    TRAINING, Unit, UnitCount,
};
use dpsynth::progress::Silent;
use dpsynth::records::{Encoded, Units};
use dpsynth::training::clip::Clip;
use dpsynth::training::contribution::Contribution;
use dpsynth::training::gradients::Trainee;
use dpsynth::training::memory::AtOnce;
use dpsynth::training::objective::Objective;
use dpsynth::training::trainable;
use dpsynth::training::trainer::Training;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::support;

pub type Check = fn() -> Result<(), String>;

/// C.
const MAX_GRAD_NORM: f64 = 0.8;

fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(wrong()) }
}

/// The tiny model, an adapter whose gradients are not zero, and records of all lengths.
struct Bench {
    model: LanguageModel,
    adapter: Adapter,
    units: Units,
    trainee: Trainee,
    /// The caller's thread: a mistake is switched on for one thread.
    workers: Workers,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(records: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let record = |_| {
            let len = rng.random_range(4..28);
            Encoded {
                tokens: (0..len).map(|_| rng.random_range(3..300)).collect(),
                prompt: 2,
                label: 0,
            }
        };
        let records: Vec<Encoded> = (0..records).map(record).collect();
        let model = support::model();
        Bench {
            adapter: support::adapter(&model),
            trainee: Trainee::new(&model),
            units: Units::of_records(records),
            workers: Workers::with(1),
            folder: tempfile::tempdir().expect("a temporary folder"),
            model,
        }
    }

    fn contribution(&self, clipping: Clipping, micro_batch_size: usize) -> Contribution<'_> {
        Contribution {
            trainee: &self.trainee,
            workers: &self.workers,
            clip: Clip::new(clipping, MAX_GRAD_NORM),
            micro_batch_size: AtOnce::new(micro_batch_size),
        }
    }

    fn begin(&self, plan: &PrivacyPlan, run: &str) -> PrivateRun {
        let ledger = Ledger::open(self.folder.path(), "d5", 1000.0, plan.delta(), &Unit::Record).expect("a ledger");
        plan.begin(ledger, run, self.units.len()).expect("within the budget")
    }
}

fn plan(steps: u64, expected_batch_size: u64, public_size: u64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&request(steps, expected_batch_size, public_size)).expect("a plan")
}

fn request(steps: u64, expected_batch_size: u64, public_size: u64) -> PlanRequest {
    PlanRequest {
        target_epsilon: 8.0,
        delta: None,
        public_size,
        expected_batch_size,
        steps,
        max_grad_norm: MAX_GRAD_NORM,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    }
}

/// Mean square of (gradient × expected batch size − clipped sum) over (σ·C)², and how many values it is over.
fn noise_power(
    bench: &Bench,
    plan: &PrivacyPlan,
    run: &mut PrivateRun,
    micro_batch_size: usize,
) -> Result<(f64, f64), String> {
    let contribution = bench.contribution(Clipping::Automatic, micro_batch_size);
    let step = run.charge(TRAINING).map_err(|e| e.to_string())?;
    let batch = contribution.sum(&bench.adapter, &bench.units, step.members());
    let gradient = step.privatize(&batch.sum).map_err(|e| e.to_string())?;
    let deviation = plan.noise_multiplier() * MAX_GRAD_NORM;
    let residual = |(g, s): (&f32, &f64)| (f64::from(*g) * plan.expected_batch_size() as f64 - s) / deviation;
    let squares = gradient.iter().zip(&batch.sum).map(|pair| residual(pair).powi(2));
    Ok((squares.sum::<f64>(), gradient.len() as f64))
}

/// The sum of so many squared normals is within six deviations of its mean; 0.5 % is for the declared slack in σ.
fn noise_is_whole(squares: f64, values: f64, when: &str) -> Result<(), String> {
    let power = squares / values;
    ensure((power - 1.0).abs() < 0.005 + 6.0 * (2.0 / values).sqrt(), || {
        format!("{when}: the noise has {power:.4} times the variance that was charged")
    })
}

/// P3: whatever the number of micro-batches, one draw of noise of the charged size.
pub fn p3_noise_is_drawn_once_at_its_full_size() -> Result<(), String> {
    let (bench, plan) = (Bench::new(24), plan(12, 8, 24));
    let mut run = bench.begin(&plan, "noise");
    for micro_batch_size in [1, 2, 8] {
        let (mut squares, mut values) = (0.0, 0.0);
        for _ in 0..4 {
            let (s, v) = noise_power(&bench, &plan, &mut run, micro_batch_size)?;
            (squares, values) = (squares + s, values + v);
        }
        noise_is_whole(squares, values, &format!("micro-batches of {micro_batch_size}"))?;
    }
    Ok(())
}

/// P2: what comes out, times the expected size, is the sum and noise of the charged size, however many were drawn.
pub fn p2_the_divisor_is_the_expected_size() -> Result<(), String> {
    // A third of the records that were declared are there: batches are a third of the expected size.
    let (bench, plan) = (Bench::new(24), plan(6, 24, 72));
    let mut run = bench.begin(&plan, "divisor");
    for _ in 0..6 {
        let (squares, values) = noise_power(&bench, &plan, &mut run, 8)?;
        noise_is_whole(squares, values, "a batch far from its expected size")?;
    }
    Ok(())
}

/// P5: with any record taken away the clipped sum moves by at most C.
pub fn p5_one_record_moves_the_sum_by_at_most_c() -> Result<(), String> {
    let bench = Bench::new(9);
    let all: Vec<usize> = (0..9).collect();
    for clipping in [Clipping::Automatic, Clipping::Flat] {
        for micro_batch_size in [1, 4, 16] {
            let contribution = bench.contribution(clipping, micro_batch_size);
            let whole = contribution.sum(&bench.adapter, &bench.units, &all).sum;
            for left_out in 0..9 {
                let others: Vec<usize> = all.iter().copied().filter(|i| *i != left_out).collect();
                let without = contribution.sum(&bench.adapter, &bench.units, &others).sum;
                let moved = support::distance(&whole, &without);
                ensure(moved <= MAX_GRAD_NORM * (1.0 + 1e-6), || {
                    format!(
                        "record {left_out} moved the sum by {:.4} C ({clipping:?}, micro-batches of {micro_batch_size})",
                        moved / MAX_GRAD_NORM
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// P1: batch sizes vary as coin flips do, and who is drawn in one step says nothing about the next.
pub fn p1_batches_are_poisson() -> Result<(), String> {
    let (bench, steps) = (Bench::new(60), 300);
    let plan = plan(steps, 12, 60);
    let mut run = bench.begin(&plan, "batches");
    let (mut sizes, mut repeats, mut last) = (Vec::new(), 0.0, Vec::new());
    for _ in 0..steps {
        let step = run.charge(TRAINING).map_err(|e| e.to_string())?;
        let members = step.members().to_vec();
        sizes.push(members.len() as f64);
        repeats += members.iter().filter(|m| last.contains(*m)).count() as f64;
        last = members;
    }
    // 60 coins of probability 0.2: variance 9.6, whose estimate over 300 draws is good to 8 %.
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let variance = sizes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (sizes.len() - 1) as f64;
    ensure((variance / 9.6 - 1.0).abs() < 0.5, || {
        format!("batch sizes have variance {variance:.2}, independent coins give 9.60")
    })?;
    // Drawn twice running: 60 · 0.04 a step, deviation 1.5 a step.
    let repeated = repeats / (steps - 1) as f64;
    ensure((repeated - 2.4).abs() < 0.6, || {
        format!("{repeated:.2} records a step were drawn twice running, independent coins give 2.40")
    })
}

/// P7: a process that takes up a run draws noise that no earlier one drew.
pub fn p7_a_resumed_run_draws_new_noise() -> Result<(), String> {
    let (bench, plan) = (Bench::new(9), plan(4, 3, 9));
    let zeros = vec![0.0; 64];
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for process in 0..2 {
        let mut run = bench.begin(&plan, "resumed");
        for _ in 0..2 {
            let step = run.charge(TRAINING).map_err(|e| e.to_string())?;
            let noise = step.privatize(&zeros).map_err(|e| e.to_string())?;
            ensure(!seen.contains(&noise), || {
                format!("process {process} drew the noise of an earlier step")
            })?;
            seen.push(noise);
        }
    }
    Ok(())
}

/// P6: nobody drawn, and the step is charged, noised and taken.
pub fn p6_an_empty_batch_is_a_step_like_any_other() -> Result<(), String> {
    let (bench, plan) = (Bench::new(5), plan(3, 1, 10_000_000));
    let config = FinetuneConfig {
        rank: 2,
        alpha: 6.0,
        max_grad_norm: MAX_GRAD_NORM,
        ..FinetuneConfig::default()
    };
    let training = Training {
        model: &bench.model,
        config: &config,
        objective: &Objective::text(),
        checkpoint: &bench.folder.path().join("checkpoint.safetensors"),
        stop: &AtomicBool::new(false),
        progress: &Silent,
    };
    let mut run = bench.begin(&plan, "empty");
    let trained = training.train(
        trainable::initial(&config, &bench.model),
        &mut run,
        &bench.units,
        None,
        |_| Ok(()),
    );
    let (adapter, applied) = trained.map_err(|e| e.to_string())?;
    let charged = run.charged_steps();
    ensure(applied == charged, || {
        format!("{charged} steps were charged and {applied} taken")
    })?;
    let start = Adapter::new(bench.model.shape(), 2, 6.0, 0);
    ensure(adapter.values() != start.values(), || {
        "the steps changed nothing".to_string()
    })
}

/// P5: with any unit taken away, of one record or of several, the clipped sum moves by at most C.
pub fn p5_one_unit_of_many_records_moves_the_sum_by_at_most_c() -> Result<(), String> {
    let bench = Bench::new(9);
    let units = Units::of_groups(bench.units.all().to_vec(), &[0, 0, 0, 1, 2, 2, 2, 2, 3], 3);
    let contribution = bench.contribution(Clipping::Automatic, 2);
    let whole = contribution.sum(&bench.adapter, &units, &[0, 1, 2, 3]).sum;
    for left_out in 0..4 {
        let others: Vec<usize> = (0..4).filter(|u| *u != left_out).collect();
        let without = contribution.sum(&bench.adapter, &units, &others).sum;
        let moved = support::distance(&whole, &without) / MAX_GRAD_NORM;
        ensure(moved <= 1.0 + 1e-6, || {
            format!("unit {left_out} moved the sum by {moved:.4} C")
        })?;
    }
    Ok(())
}

/// P1: who stands first in the data is in a truncated batch no more often than who stands last.
pub fn p1_truncation_keeps_everyone_equally_often() -> Result<(), String> {
    let (bench, steps) = (Bench::new(40), 800);
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        batches: Batches::AtMost(20),
        ..request(steps, 20, 40)
    });
    let plan = plan.map_err(|e| e.to_string())?;
    let mut run = bench.begin(&plan, "truncated");
    let (mut first, mut last) = (0.0, 0.0);
    for _ in 0..steps {
        let step = run.charge(TRAINING).map_err(|e| e.to_string())?;
        first += step.members().iter().filter(|m| **m < 20).count() as f64;
        last += step.members().iter().filter(|m| **m >= 20).count() as f64;
    }
    // A step's two halves differ with variance 10 at most: the sums with deviation 89.
    ensure((first - last).abs() < 6.0 * 89.0, || {
        format!("the first half was drawn {first} times, the last half {last} times")
    })
}

/// P3: what the trainer steps by is what the mechanism released, to the bit, and its learning rate is no private number.
pub fn p3_the_trainer_steps_by_what_was_released() -> Result<(), String> {
    let bench = Bench::new(24);
    let config = FinetuneConfig {
        rank: 2,
        alpha: 6.0,
        max_grad_norm: MAX_GRAD_NORM,
        ..FinetuneConfig::default()
    };
    let stepping = Stepping {
        model: &bench.model,
        config: &config,
        request: request(12, 8, 24),
        units: &bench.units,
        objective: &Objective::text(),
    };
    let begun = || Ok(trainable::initial(&config, &bench.model));
    let found = stepping
        .run(begun, Stop(&AtomicBool::new(false)))
        .map_err(|e| e.to_string())?;
    ensure(found.same, || {
        format!(
            "after {} steps a value differs by {:e}",
            found.steps, found.largest_difference
        )
    })
}

/// P4: two runs that are begun in the same second draw other noise.
pub fn p4_no_two_runs_share_a_key() -> Result<(), String> {
    let (bench, plan) = (Bench::new(9), plan(1, 3, 9));
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for run in ["a", "b", "c", "d"] {
        let step = bench.begin(&plan, run).charge(TRAINING).map_err(|e| e.to_string())?;
        let noise = step.privatize(&[0.0; 64]).map_err(|e| e.to_string())?;
        ensure(!seen.contains(&noise), || {
            format!("run {run} drew the noise of another")
        })?;
        seen.push(noise);
    }
    Ok(())
}

/// P1: units are drawn as often as is accounted for.
pub fn p1_units_are_drawn_at_the_planned_rate() -> Result<(), String> {
    let (steps, units) = (4, 1_000_000);
    let plan = PrivacyPlan::calibrate(&request(steps, 100_000, units)).map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let ledger = Ledger::open(folder.path(), "d7", 1000.0, plan.delta(), &Unit::Record).map_err(|e| e.to_string())?;
    let mut run = plan.begin(ledger, "drawn", units as usize).map_err(|e| e.to_string())?;
    let mut drawn = 0.0;
    for _ in 0..steps {
        drawn += run.charge(TRAINING).map_err(|e| e.to_string())?.members().len() as f64;
    }
    // Four million coins of probability 0.1: deviation 600.
    ensure((drawn - 400_000.0).abs() < 6.0 * 600.0, || {
        format!("{drawn} units were drawn, 400000 are accounted for")
    })
}

/// P12: the noise is no per cent short.
pub fn p12_the_noise_is_as_wide_as_charged() -> Result<(), String> {
    let (bench, plan) = (Bench::new(9), plan(1, 3, 9));
    let step = bench.begin(&plan, "wide").charge(TRAINING).map_err(|e| e.to_string())?;
    let zeros = vec![0.0; 1_000_000];
    let noise = step.privatize(&zeros).map_err(|e| e.to_string())?;
    let deviation = plan.noise_multiplier() * MAX_GRAD_NORM / plan.expected_batch_size() as f64;
    let squares = noise.iter().map(|n| (f64::from(*n) / deviation).powi(2)).sum();
    noise_is_whole(squares, 1e6, "a million values")
}

/// P3: what a record contributes does not depend on who shares its micro-batch.
pub fn p3_a_record_contributes_the_same_in_any_micro_batch() -> Result<(), String> {
    let bench = Bench::new(8);
    let all: Vec<usize> = (0..8).collect();
    let sum = |size: usize| {
        let contribution = bench.contribution(Clipping::Automatic, size);
        contribution.sum(&bench.adapter, &bench.units, &all).sum
    };
    let one = sum(1);
    for size in [3, 8] {
        let moved = support::distance(&one, &sum(size));
        ensure(moved < 1e-4 * MAX_GRAD_NORM, || {
            format!("micro-batches of {size} move the sum by {:.4} C", moved / MAX_GRAD_NORM)
        })?;
    }
    Ok(())
}

/// P8: a count of units is not what was counted.
pub fn p8_counts_of_units_have_noise() -> Result<(), String> {
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        beside: vec![COPY_GATE.planned(UnitCount { epsilon: 1e-5 }, 1)],
        ..request(1, 8, 24)
    });
    let plan = plan.map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let ledger = Ledger::open(folder.path(), "d6", 1000.0, plan.delta(), &Unit::Record).map_err(|e| e.to_string())?;
    let mut run = plan.begin(ledger, "gated", 24).map_err(|e| e.to_string())?;
    let noisy = run.charge(COPY_GATE).map_err(|e| e.to_string())?.privatize(7);
    // Discrete Laplace noise of scale 100,000 is 0 once in 200,000.
    ensure(noisy != 7, || "the count went out as it was".to_string())
}

/// P3: a sum over all units is not what was summed.
pub fn p3_sums_over_all_units_have_noise() -> Result<(), String> {
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        beside: vec![LEXICON.planned(LabelTokens::costing(0.1, 1e-5, 4.0), 1)],
        ..request(1, 8, 24)
    });
    let plan = plan.map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let ledger = Ledger::open(folder.path(), "d7", 1000.0, plan.delta(), &Unit::Record).map_err(|e| e.to_string())?;
    let mut run = plan.begin(ledger, "lexicon", 24).map_err(|e| e.to_string())?;
    let mut sums = run.charge(LEXICON).map_err(|e| e.to_string())?;
    let noisy = sums.privatize(&[7.0; 4]).map_err(|e| e.to_string())?;
    ensure(noisy.iter().all(|v| *v != 7.0), || {
        "the sum went out as it was".to_string()
    })
}

/// P5: counts that a unit moves by up to four have noise for four.
pub fn p5_histograms_have_the_noise_of_their_unit() -> Result<(), String> {
    let unit = Unit::Group {
        column: "author".into(),
        max_records: 4,
    };
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        unit: unit.clone(),
        beside: vec![LABELS.planned(LabelCounts { epsilon: 1.0 }, 1)],
        ..request(1, 8, 24)
    });
    let plan = plan.map_err(|e| e.to_string())?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let ledger = Ledger::open(folder.path(), "d5", 1000.0, plan.delta(), &unit).map_err(|e| e.to_string())?;
    let mut run = plan.begin(ledger, "counted", 24).map_err(|e| e.to_string())?;
    let noisy = run
        .charge(LABELS)
        .map_err(|e| e.to_string())?
        .privatize(&[1_000_000; 4000]);
    let size = noisy.iter().map(|n| n.abs_diff(1_000_000) as f64).sum::<f64>() / 4000.0;
    // Mean size of discrete Laplace noise: 2e^(−γ)/(1 − e^(−2γ)), γ = 1/4; its deviation over 4,000 draws is 0.06.
    ensure((size - 3.958).abs() < 0.4, || {
        format!("noise has mean size {size:.2}, 3.96 was charged")
    })
}
