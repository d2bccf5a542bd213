//! Noise that goes together over steps (banded DP-FTRL): who takes part, what it costs, and what is left once the noise of earlier
//! steps is taken off again.

use std::path::Path;

use dpsynth_privacy::accountant::{Adjacency, Phase, pld};
use dpsynth_privacy::{
    Batches, Ledger, NoiseKind, PlanRequest, PrivacyPlan, PrivateRun, TRAINING, Unit, band_deviation_of_sum,
    find_ledger,
};

const SIZE: u64 = 4_000;
const BATCH: u64 = 100;
/// binom(2i, i)/4ⁱ, by hand.
const ROOT: [f64; 6] = [1.0, 0.5, 0.375, 0.3125, 35.0 / 128.0, 63.0 / 256.0];

fn request(bands: u64, steps: u64) -> PlanRequest {
    PlanRequest {
        target_epsilon: 4.0,
        delta: None,
        public_size: SIZE,
        expected_batch_size: BATCH,
        steps,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: match bands {
            1 => Batches::Poisson,
            bands => Batches::Cyclic(bands),
        },
        beside: Vec::new(),
        seed: None,
    }
}

fn plan(request: &PlanRequest) -> PrivacyPlan {
    PrivacyPlan::calibrate(request).expect("a valid plan")
}

fn begin(plan: &PrivacyPlan, dir: &Path, run: &str) -> PrivateRun {
    let ledger = Ledger::open(dir, "abc123", 1000.0, 1e-5, &Unit::Record).expect("opens");
    plan.begin(ledger, run, SIZE as usize).expect("begins")
}

/// What `steps` steps release for sums of `d` zeros, in units of the norm.
fn released(run: &mut PrivateRun, steps: u64, d: usize) -> Vec<Vec<f64>> {
    let of = |step: dpsynth_privacy::ChargedStep, at: u64| match at.is_multiple_of(2) {
        true => step.privatize(&vec![0.0; d]).expect("finite"),
        false => step
            .draw_noise(d)
            .and_then(|noise| noise.privatize(&vec![0.0; d]))
            .expect("finite"),
    };
    (0..steps)
        .map(|at| {
            let step = run.charge(TRAINING).expect("charges");
            of(step, at).iter().map(|v| f64::from(*v) * BATCH as f64).collect()
        })
        .collect()
}

/// Σ sᵢ·r_{t−i}/‖s‖: each step's own noise again, if what was released is what is claimed.
fn taken_apart(bands: usize, released: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let s = &ROOT[..bands];
    let length = s.iter().map(|s| s * s).sum::<f64>().sqrt();
    let own =
        |t: usize, i: usize| -> f64 { (0..bands.min(t + 1)).map(|k| s[k] * released[t - k][i]).sum::<f64>() / length };
    (0..released.len())
        .map(|t| (0..released[t].len()).map(|i| own(t, i)).collect())
        .collect()
}

fn mean_of_products(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64
}

/// Of deviation `sigma`, and independent of each other.
fn assert_independent(noise: &[Vec<f64>], sigma: f64) {
    let (d, variance) = (noise[0].len() as f64, sigma * sigma);
    for (t, a) in noise.iter().enumerate() {
        // Relative deviations of a variance: √(2/d).
        let own = mean_of_products(a, a) / variance - 1.0;
        assert!(own.abs() < 6.0 * (2.0 / d).sqrt() + 4e-3, "step {t}: {own}");
        for (u, b) in noise[..t].iter().enumerate() {
            let shared = mean_of_products(a, b) / variance;
            assert!(shared.abs() < 6.0 / d.sqrt(), "steps {u} and {t}: {shared}");
        }
    }
}

/// Units take part in every b-th step at most, always the same ones, with b times the rate; and that is what is paid for.
#[test]
fn p1_p10_a_unit_takes_part_in_steps_that_are_a_cycle_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let (bands, steps) = (4, 42);
    let plan = plan(&request(bands, steps));
    let mut run = begin(&plan, dir.path(), "r");
    let mut taken = vec![Vec::new(); SIZE as usize];
    let mut sizes = Vec::new();
    for step in 0..steps {
        let charged = run.charge(TRAINING).expect("charges");
        assert!(charged.members().is_sorted());
        sizes.push(charged.members().len() as f64);
        charged.members().iter().for_each(|unit| taken[*unit].push(step));
    }
    let apart = |of: &Vec<u64>| of.windows(2).all(|w| (w[1] - w[0]).is_multiple_of(bands));
    assert!(taken.iter().all(apart));
    // 4,000 units, a quarter in each part, at a tenth: 100 a step, of deviation 9.5, and of the parts' sizes 2.7.
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    assert!(
        (mean - 100.0).abs() < 8.0 && sizes.iter().all(|n| (n - 100.0).abs() < 65.0),
        "{sizes:?}"
    );
    let parts = (0..bands).map(|part| {
        taken
            .iter()
            .filter(|of| of.first().is_some_and(|t| t % bands == part))
            .count()
    });
    assert!(parts.clone().all(|n| n > 500), "{:?}", parts.collect::<Vec<_>>());

    // Eleven turns of a tenth, of which the last reaches two steps of four: 1² + ½² of 1² + ½² + ⅜² + 5/16².
    let said = plan.statement(steps);
    let phase = Phase::banded(4, 0.1, plan.noise_multiplier(), 42).expect("valid");
    let last = plan.noise_multiplier() * ((1.25 + 0.375f64.powi(2) + 0.3125f64.powi(2)) / 1.25).sqrt();
    let by_hand =
        [(plan.noise_multiplier(), 10), (last, 1)].map(|(sigma, n)| Phase::new(0.1, sigma, n).expect("valid"));
    let by_hand = pld::epsilon(&by_hand, Adjacency::AddOrRemoveOne, plan.delta()).expect("valid");
    assert!(
        (by_hand.epsilon / said.epsilon - 1.0).abs() < 1e-6,
        "{by_hand:?} {said:?}"
    );
    let paid = pld::epsilon(&[phase], Adjacency::AddOrRemoveOne, plan.delta()).expect("valid");
    assert_eq!((said.epsilon, said.epsilon_lower), (paid.epsilon, paid.epsilon_lower));
    assert!(said.epsilon <= 4.0 && said.epsilon > 3.99);
    assert_eq!(said.sampler, "poisson from one of 4 parts in turn");
    assert!(said.to_string().contains("together over 4 steps"), "{said}");
    assert_eq!(said.phases().expect("accounted for"), [phase]);
    let view = find_ledger(dir.path(), "abc123").expect("reads").expect("is there").1;
    let (charged, at) = (view.charged_epsilon().expect("accounted for"), view.delta);
    let at_its_delta = pld::epsilon(&[phase], Adjacency::AddOrRemoveOne, at).expect("valid");
    assert!(
        (charged - at_its_delta.epsilon).abs() < 1e-3,
        "{charged} {at_its_delta:?}"
    );
}

/// The noise of earlier steps taken off, what is left is each step's own, of the deviation that is paid for. What a record moves
/// by its one step in a cycle is as long as in a step of independent noise.
#[test]
fn p3_p12_noise_that_goes_together_is_independent_noise_behind_the_square_root_of_sums() {
    let dir = tempfile::tempdir().expect("a folder");
    for (kind, bands) in [
        (NoiseKind::ExactGaussian, 3),
        (NoiseKind::Gaussian, 6),
        (NoiseKind::ExactGaussian, 2),
    ] {
        let plan = plan(&PlanRequest {
            noise: kind,
            ..request(bands, 14)
        });
        let mut run = begin(&plan, dir.path(), &format!("{kind:?} {bands}"));
        let noise = released(&mut run, 14, 40_000);
        // The exact kind pays for its grid, in part by the root of the bands.
        let sigma = plan.noise_multiplier() * (1.0 + 1e-3);
        assert_independent(&taken_apart(bands as usize, &noise), sigma);
        // As it is released it is not: the share that two steps have in common is negative.
        let shared = mean_of_products(&noise[8], &noise[7]) / sigma.powi(2);
        assert!(shared < -0.2, "{kind:?} {bands}: {shared}");
        let last = mean_of_products(&noise[13], &noise[13]).sqrt() / BATCH as f64;
        let declared = plan.gradient_noise_deviation();
        assert!((last / declared - 1.0).abs() < 0.02, "{last} {declared}");
    }
}

/// What it is for: of the sum of all steps, which is how far a model moves by gradient descent, there is less noise.
#[test]
fn noise_that_goes_together_cancels_in_the_sum_of_steps() {
    let dir = tempfile::tempdir().expect("a folder");
    let in_the_sum = |bands: u64| {
        let plan = plan(&request(bands, 120));
        let steps = released(&mut begin(&plan, dir.path(), &format!("of {bands}")), 120, 4_000);
        let sums = (0..4_000).map(|i| steps.iter().map(|step| step[i]).sum::<f64>().powi(2));
        (sums.sum::<f64>() / 4_000.0).sqrt()
    };
    let (alone, together) = (in_the_sum(1), in_the_sum(6));
    // By the plan's own numbers: less the more noise the higher rate asks for.
    let sigma = |bands| plan(&request(bands, 120)).noise_multiplier();
    let declared = band_deviation_of_sum(6, 120) * sigma(6) / sigma(1);
    assert!(
        (together / alone / declared - 1.0).abs() < 0.06,
        "{together} {alone} {declared}"
    );
    assert!(together < 0.8 * alone, "{together} {alone}");
}

/// A run that was killed goes on with the same parts, and its noise with that of the steps before, by the keys that it kept.
#[test]
fn p1_p3_p7_noise_goes_on_together_after_a_kill_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let (plan, file) = (plan(&request(3, 12)), dir.path().join("round.json"));
    let go_on = |name: &str| begin(&plan, dir.path(), name).keeping_secrets_in(file.clone());
    let d = 40_000;
    let mut noise = Vec::new();
    let mut taken = vec![Vec::new(); SIZE as usize];
    for steps in [4, 1, 3] {
        let mut run = go_on("kept");
        let begun = noise.len();
        noise.extend(released(&mut run, steps, d));
        assert_eq!(noise.len(), begun + steps as usize);
    }
    assert_independent(&taken_apart(3, &noise), plan.noise_multiplier() * (1.0 + 1e-3));
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("kept").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    // A step that was charged and never taken is one of the cycle all the same.
    for step in 8..12 {
        let charged = go_on("kept").charge(TRAINING).expect("charges");
        charged.members().iter().for_each(|unit| taken[*unit].push(step));
        if step == 9 {
            continue;
        }
        noise.push(
            charged
                .privatize(&vec![0.0; d])
                .expect("finite")
                .iter()
                .map(|v| f64::from(*v) * BATCH as f64)
                .collect(),
        );
    }
    // Steps 8, 10 and 11 of three bands: 8 is whole, and what 9 and 10 share is not known without 9.
    let again = taken_apart(3, &noise[..9]);
    assert_independent(&again[8..9], plan.noise_multiplier() * (1.0 + 1e-3));
    assert!(taken.iter().all(|of| of.windows(2).all(|w| w[1] == w[0] + 3)));
    drop(begin(&plan, dir.path(), "lost").charge(TRAINING).expect("charges"));
    for keeps in [false, true] {
        let mut run = match keeps {
            false => begin(&plan, dir.path(), "lost"),
            true => go_on("lost"),
        };
        let refused = run.charge(TRAINING).map(drop).expect_err("the keys are lost");
        assert_eq!(refused.exit_code(), 3);
        assert!(
            refused.told().message.contains("`lost` stands within a round"),
            "{refused}"
        );
    }
    // Keys from a step on are not those of the steps before it.
    drop(go_on("short").charge(TRAINING).expect("charges"));
    let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("kept")).expect("JSON");
    kept["noise"][0][0] = 1.into();
    std::fs::write(&file, kept.to_string()).expect("writes");
    assert!(go_on("short").charge(TRAINING).is_err());
    let view = find_ledger(dir.path(), "abc123").expect("reads").expect("is there").1;
    let charged = |name: &str| {
        view.runs
            .iter()
            .find(|run| run.run == name)
            .expect("entered")
            .uses_of("training")
    };
    assert_eq!((charged("kept"), charged("lost"), charged("short")), (12, 1, 1));
}

/// Keys that are older than the ledger's are refused, whoever went on in between: what was drawn with the keys that they have
/// not would be drawn anew, and noise taken off that nobody had added.
#[test]
fn p3_p7_noise_goes_on_with_the_latest_keys_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let (plan, file) = (plan(&request(3, 12)), dir.path().join("round.json"));
    let go_on = || begin(&plan, dir.path(), "r").keeping_secrets_in(file.clone());
    released(&mut go_on(), 2, 10);
    let older = std::fs::read(&file).expect("kept");
    released(&mut go_on(), 2, 10);
    let latest = std::fs::read(&file).expect("kept");
    std::fs::write(&file, &older).expect("writes");
    let refused = go_on().charge(TRAINING).map(drop).expect_err("the keys are old");
    assert_eq!(refused.exit_code(), 3);
    assert!(refused.told().message.contains("latest keys"), "{refused}");
    std::fs::write(&file, &latest).expect("writes");
    released(&mut go_on(), 1, 10);
    // Keys that were written and no use was charged with are none that anything rests on.
    let kept = std::fs::read(&file).expect("kept");
    let mut begun: serde_json::Value = serde_json::from_slice(&kept).expect("JSON");
    begun["noise"]
        .as_array_mut()
        .expect("keys")
        .push(serde_json::json!([5, vec![7; 32]]));
    std::fs::write(&file, begun.to_string()).expect("writes");
    released(&mut go_on(), 1, 10);
}

/// Who has a copy of a run's folder has the noise of the steps that were charged, and none of what comes after.
#[test]
fn p3_no_two_processes_draw_the_same_noise_from_one_folder() {
    let (plan, here) = (plan(&request(3, 12)), tempfile::tempdir().expect("a folder"));
    let there = tempfile::tempdir().expect("a folder");
    let go_on = |dir: &Path| begin(&plan, dir, "r").keeping_secrets_in(dir.join("round.json"));
    released(&mut go_on(here.path()), 5, 4_000);
    for file in std::fs::read_dir(here.path()).expect("lists") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), there.path().join(file.file_name())).expect("copies");
    }
    let [one, other] = [&here, &there].map(|dir| released(&mut go_on(dir.path()), 1, 4_000).remove(0));
    let apart: Vec<f64> = one.iter().zip(&other).map(|(a, b)| a - b).collect();
    let s: f64 = ROOT[..3].iter().map(|s| s * s).sum();
    let own = mean_of_products(&apart, &apart) / (2.0 * s * plan.noise_multiplier().powi(2));
    assert!((own - 1.0).abs() < 0.15, "{own}");
}

/// The same seed gives the same noise in one process and in three, whether its steps were used or not.
#[test]
fn p4_with_a_seed_noise_that_goes_together_repeats() {
    let dir = tempfile::tempdir().expect("a folder");
    let plan = plan(&PlanRequest {
        seed: Some(3),
        ..request(4, 9)
    });
    let whole = released(&mut begin(&plan, dir.path(), "whole"), 9, 50);
    drop({ begin(&plan, dir.path(), "parts") }.charge(TRAINING).expect("charges"));
    let mut rest = begin(&plan, dir.path(), "parts");
    (0..4).for_each(|_| drop(rest.charge(TRAINING).expect("charges")));
    drop(rest);
    assert_eq!(released(&mut begin(&plan, dir.path(), "parts"), 4, 50), whole[5..]);
}

#[test]
fn noise_goes_together_over_as_many_steps_as_there_are_and_as_records_allow() {
    for (bands, steps, fits) in [
        (1, 10, false),
        (2, 10, true),
        (11, 10, false),
        (32, 40, true),
        (33, 40, false),
    ] {
        let asked = PlanRequest {
            batches: Batches::Cyclic(bands),
            ..request(2, steps)
        };
        match PrivacyPlan::calibrate(&asked) {
            Ok(plan) => assert!(fits && plan.batches() == Batches::Cyclic(bands)),
            Err(refused) => assert!(!fits && refused.exit_code() == 2, "{bands} of {steps}: {refused}"),
        }
    }
    // A part holds a batch.
    let asked = PlanRequest {
        expected_batch_size: 1_001,
        ..request(4, 10)
    };
    assert!(PrivacyPlan::calibrate(&asked).is_err());
    let whole = PlanRequest {
        expected_batch_size: 1_000,
        ..request(4, 10)
    };
    assert_eq!(
        PrivacyPlan::calibrate(&whole)
            .expect("a part is a batch")
            .sampling_rate(),
        0.25
    );
    for noise in [NoiseKind::ExactLaplace, NoiseKind::LaplaceMixture] {
        let asked = PlanRequest {
            noise,
            ..request(4, 10)
        };
        assert_eq!(PrivacyPlan::calibrate(&asked).expect_err("not Gaussian").exit_code(), 2);
    }
}

/// Against matrices (`fixtures/bands.py`), and the account against another tool.
#[test]
fn p5_p10_noise_that_goes_together_is_as_long_and_costs_as_much_as_matrices_say() {
    let mut lines = include_str!("../fixtures/bands.csv").lines();
    assert!(
        lines
            .next()
            .is_some_and(|header| header.starts_with("bands,steps,batch"))
    );
    for line in lines {
        let row: Vec<f64> = line.split(',').map(|cell| cell.parse().expect("a number")).collect();
        let [bands, steps, batch, sigma, moved, last, in_sum, epsilon] = row[..] else {
            panic!("a full row: {line}")
        };
        // Columns of length 1 that share no row, as in the account.
        assert!((moved - 1.0).abs() < 1e-9);
        let asked = PlanRequest {
            expected_batch_size: batch as u64,
            target_epsilon: epsilon,
            delta: Some(1e-5),
            ..request(bands as u64, steps as u64)
        };
        let plan = plan(&asked);
        // What another tool calls this epsilon, from above by its grid.
        assert!(
            (plan.noise_multiplier() / sigma - 1.0).abs() < 1e-3,
            "{line}: {}",
            plan.noise_multiplier()
        );
        let declared = plan.gradient_noise_deviation() / plan.noise_multiplier() * batch;
        assert!((declared / last - 1.0).abs() < 1e-8, "{line}: {declared}");
        let sum = band_deviation_of_sum(bands as u64, steps as u64);
        assert!((sum / in_sum - 1.0).abs() < 1e-8, "{line}: {sum}");
    }
}
