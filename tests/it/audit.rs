//! The audit: its bounds are right, hold where the claim is true, and refute it where it is not.

use crate::{common, support};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::common::{Place, Said};
use dpsynth::audit::canaries::{Claimed, Designs, Dirac, observe};
use dpsynth::audit::contamination::contamination;
use dpsynth::audit::echo::Echoing;
use dpsynth::audit::membership::Texts;
use dpsynth::audit::one_run::{Design, Observed};
use dpsynth::audit::replay::{Probe, Replay, Replaying};
use dpsynth::audit::retrain::Retraining;
use dpsynth::audit::threshold::Sides;
use dpsynth::audit::{ALPHA, Stop};
use dpsynth::config::{Clipping, FinetuneConfig, Method, NoiseKind, Profile};
use dpsynth::documents::Rate;
use dpsynth::error::Kind;
use dpsynth::models::ModelFiles;
use dpsynth::models::lora::Adapter;
use dpsynth::privacy::accountant::tradeoff::{self, Curve};
use dpsynth::privacy::accountant::{Adjacency, Phase, pld};
use dpsynth::privacy::bounds::binomial::{lower_limit, upper_limit};
use dpsynth::privacy::bounds::family::Family;
use dpsynth::privacy::bounds::on_the_curve::refutes_guesses;
use dpsynth::privacy::bounds::one_run::{epsilon_lower, p_value};
use dpsynth::privacy::{Batches, PlanRequest, PrivacyPlan, Unit};
use dpsynth::progress::Silent;
use dpsynth::records::{Encoded, Units, Vocabulary};
use dpsynth::training::clip::Clip;
use dpsynth::training::objective::Objective;
use dpsynth::training::plain::{Passes, PlainTraining};
use dpsynth::training::trainable;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

static GO: AtomicBool = AtomicBool::new(false);

// ---------------------------------------------------------------------------------------------- the theorem

/// Rows of `fixtures/audit.csv` of one kind: five numbers and the value.
fn reference(kind: &str) -> Vec<[f64; 6]> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audit.csv")).unwrap();
    let row = |line: &str| {
        let (name, rest) = line.split_once(',').unwrap();
        let numbers: Vec<f64> = rest.split(',').map(|v| v.parse().unwrap_or(f64::NAN)).collect();
        (name == kind).then(|| numbers.try_into().unwrap())
    };
    let rows: Vec<[f64; 6]> = text.lines().filter_map(row).collect();
    assert!(!rows.is_empty());
    rows
}

/// The bound itself is the plan's.
fn clip(clipping: Clipping) -> Clip {
    Clip::new(clipping, 1.0)
}

#[test]
fn p_values_are_those_of_the_theorem() {
    for [m, r, v, epsilon, delta, wanted] in reference("p_value") {
        let got = p_value(m as u64, r as u64, v as u64, epsilon, delta);
        assert!(
            (got - wanted).abs() <= 1e-7 * wanted + 1e-18,
            "{m} {r} {v} {epsilon} {delta}: {got:e}, not {wanted:e}"
        );
    }
}

#[test]
fn epsilon_is_where_the_p_value_crosses_the_level() {
    for [m, r, v, delta, alpha, wanted] in reference("epsilon_lower") {
        let got = epsilon_lower(m as u64, r as u64, v as u64, delta, alpha);
        assert!(
            (got - wanted).abs() < 1e-6,
            "{m} {r} {v} {delta} {alpha}: {got}, not {wanted}"
        );
    }
}

/// Appendix D of the paper prints this number.
#[test]
fn the_papers_own_example_comes_out() {
    assert_eq!(format!("{:.3}", epsilon_lower(1000, 100, 75, 1e-4, 0.05)), "0.673");
}

#[test]
fn clopper_pearson_limits_are_those_of_the_beta_distribution() {
    for (kind, limit) in [
        ("lower_limit", lower_limit as fn(u64, u64, f64) -> f64),
        ("upper_limit", upper_limit),
    ] {
        for [k, n, alpha, _, _, wanted] in reference(kind) {
            let got = limit(k as u64, n as u64, alpha);
            assert!(
                (got - wanted).abs() <= 1e-8 * wanted + 1e-15,
                "{kind} {k}/{n} {alpha}: {got}, not {wanted}"
            );
        }
    }
    let nothing = Rate::new(0, 0);
    assert_eq!((nothing.low, nothing.high), (0.0, 1.0));
}

/// Canaries answered by randomised response with `epsilon`, but in the clear with probability `delta`.
fn randomised_response(epsilon: f64, delta: f64, canaries: usize, seed: u64) -> Observed {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let honest = 1.0 / (1.0 + (-epsilon).exp());
    let (scores, included) = (0..canaries)
        .map(|_| {
            let included = rng.random::<bool>();
            let leaked = rng.random::<f64>() < delta;
            let answer = if leaked || rng.random::<f64>() < honest {
                included
            } else {
                !included
            };
            // What leaked is known to be certain, and is guessed first.
            let sure = if leaked { 2.0 } else { 1.0 };
            (if answer { sure } else { -sure }, included)
        })
        .unzip();
    Observed { scores, included }
}

#[test]
fn one_run_bounds_of_randomised_response_stay_below_its_epsilon_and_come_near() {
    for (epsilon, delta) in [(0.5, 0.0), (1.0, 1e-3), (3.0, 0.0), (3.0, 1e-3), (5.0, 1e-4)] {
        let bound = |canaries: usize, guesses: usize, seed| {
            let seen = randomised_response(epsilon, delta, canaries, seed);
            seen.bounds(&[Design { canaries, guesses }], delta, ALPHA)[0].epsilon_lower
        };
        let wrong = (0..300).filter(|seed| bound(1000, 1000, *seed) > epsilon).count();
        // 15 are expected at most; 29 has probability 5e-4 at 5 %.
        assert!(wrong < 29, "epsilon {epsilon}: {wrong} of 300 bounds are above it");
        if delta == 0.0 {
            assert!(wrong > 0, "epsilon {epsilon}: the bound gives away more than its 5 %");
            let near = bound(200_000, 200_000, 7);
            assert!(near > 0.95 * epsilon, "{near} of {epsilon}");
        }
    }
}

#[test]
fn several_designs_share_the_error_they_are_allowed() {
    let seen = randomised_response(1.0, 0.0, 4000, 1);
    let design = Design {
        canaries: 4000,
        guesses: 2000,
    };
    let alone = seen.bounds(&[design], 0.0, ALPHA);
    let two = seen.bounds(&[design, design], 0.0, ALPHA);
    assert_eq!((alone[0].alpha, two[0].alpha), (0.05, 0.025));
    assert!(two[0].epsilon_lower < alone[0].epsilon_lower && alone[0].correct == two[0].correct);
}

#[test]
fn threshold_bounds_hold_for_a_gaussian_and_come_near() {
    // mu = 1: delta(1) = Φ(1/2 − 1) − e·Φ(−1/2 − 1) = 0.1269.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut normal =
        || (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * (std::f64::consts::TAU * rng.random::<f64>()).cos();
    let sides = Sides {
        members: (0..200_000).map(|_| normal() + 1.0).collect(),
        others: (0..200_000).map(|_| normal()).collect(),
    };
    let (fixing, measuring) = sides.halves();
    let delta = 0.1269;
    let (threshold, names) = fixing.best(delta, ALPHA);
    let bound = measuring.measure(threshold, names, delta, ALPHA).epsilon_lower;
    assert!(bound < 1.0 && bound > 0.9, "{bound}");
}

// ---------------------------------------------------------------------------------------------- Dirac canaries

/// All records in each of four steps.
fn request(epsilon: f64) -> PlanRequest {
    PlanRequest {
        target_epsilon: epsilon,
        delta: Some(1e-5),
        public_size: 1000,
        expected_batch_size: 1000,
        steps: 4,
        max_grad_norm: 0.5,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    }
}

/// All records in each of four steps: the audit knows most about such a plan.
fn full_batch(epsilon: f64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&request(epsilon)).unwrap()
}

/// The quick profile on 25,000 records.
fn quick(epsilon: f64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&PlanRequest {
        delta: None,
        public_size: 25_000,
        expected_batch_size: 128,
        steps: 8,
        max_grad_norm: 1.0,
        ..request(epsilon)
    })
    .unwrap()
}

/// The same with Laplace noise.
fn with_laplace_noise(epsilon: f64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&PlanRequest {
        expected_batch_size: 250,
        noise: NoiseKind::ExactLaplace,
        ..request(epsilon)
    })
    .unwrap()
}

/// Three turns of the first of three parts and two of the others, in each of which three tenths are drawn.
fn with_noise_together(epsilon: f64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&PlanRequest {
        expected_batch_size: 100,
        steps: 7,
        batches: Batches::Cyclic(3),
        ..request(epsilon)
    })
    .unwrap()
}

/// A round and a half of eight steps of random allocation.
fn allocated(epsilon: f64) -> PrivacyPlan {
    PrivacyPlan::calibrate(&PlanRequest {
        expected_batch_size: 125,
        steps: 12,
        batches: Batches::Allocated,
        ..request(epsilon)
    })
    .unwrap()
}

fn judged(plan: &PrivacyPlan, observed: &Observed) -> Dirac {
    let (claimed, family) = (Claimed::of(plan), plan.family().unwrap());
    let designs = Designs::new(claimed, observed.scores.len(), &family, ALPHA);
    Dirac::judge(claimed, observed, &designs, &family, ALPHA)
}

/// By the one-run theorem and by a threshold, against the whole curve.
fn on_the_curve(found: &Dirac) -> [f64; 2] {
    let bounds = found.on_the_curve.as_ref().unwrap();
    [bounds.one_run.epsilon_lower, bounds.threshold.epsilon_lower]
}

const CANARIES: usize = 300_000;

#[test]
fn audited_bounds_are_below_the_claim_and_above_three_tenths_of_it() {
    for epsilon in [1.0, 3.0, 8.0] {
        let plan = full_batch(epsilon);
        let observed = observe(&plan, clip(Clipping::Automatic), CANARIES, Stop(&GO), &Silent).unwrap();
        let found = judged(&plan, &observed);
        println!(
            "epsilon {epsilon}: one run {:.3} by {:?}, threshold {:.3}",
            found.one_run_epsilon(),
            found
                .one_run
                .iter()
                .map(|o| (o.canaries, o.guesses))
                .collect::<Vec<_>>(),
            found.threshold.epsilon_lower
        );
        assert!(found.one_run_epsilon() <= epsilon && found.threshold.epsilon_lower <= epsilon);
        // The threshold rests on rare events and scatters; the theorem's bound hardly does.
        assert!(
            found.one_run_epsilon() > 0.3 * epsilon,
            "epsilon {epsilon}: {}",
            found.one_run_epsilon()
        );
    }
}

#[test]
fn bounds_by_the_whole_curve_are_below_the_claim_and_above_seven_tenths_of_it() {
    for epsilon in [1.0, 3.0, 8.0] {
        let plan = full_batch(epsilon);
        let observed = observe(&plan, clip(Clipping::Automatic), 1_000_000, Stop(&GO), &Silent).unwrap();
        let found = on_the_curve(&judged(&plan, &observed));
        println!("epsilon {epsilon}: {:?}", found.map(|bound| bound / epsilon));
        // The theorem's bound is at seven tenths, more or less, and takes less for granted.
        for (bound, least) in found.into_iter().zip([0.6, 0.85]) {
            assert!(
                bound <= epsilon && bound > least * epsilon,
                "epsilon {epsilon}: {bound}"
            );
        }
    }
}

/// Losses beyond what an exponential holds, and corners that rounding makes one.
#[test]
fn a_curve_of_next_to_no_noise_stopped_the_audit() {
    for (rate, noise, steps) in [(0.02, 0.38, 2), (1.0, 0.05, 3)] {
        let phase = Phase::new(rate, noise, steps).unwrap();
        let family = Family::new(&[phase], 1e-5);
        for (canaries, guesses, correct) in [(1000, 1000, 1000), (1000, 8, 8), (1000, 500, 260), (64, 64, 10)] {
            let bound = family.epsilon_lower(|curve| refutes_guesses(curve, canaries, guesses, correct, 0.05));
            assert!(bound.is_finite() && bound >= 0.0, "{rate} {noise} {steps}: {bound}");
        }
        let curve = Curve::new(&[phase], Adjacency::AddOrRemoveOne).unwrap();
        let known = [0.0, 0.3, 1.0, 4.0].map(|epsilon: f64| {
            (
                epsilon,
                pld::delta(&[phase], Adjacency::AddOrRemoveOne, epsilon).unwrap(),
            )
        });
        for said in [tradeoff::Said::In, tradeoff::Said::Out] {
            let corners = curve.corners(said);
            assert_eq!((corners[0].0, corners[corners.len() - 1]), (0.0, (1.0, 1.0)));
            for pair in corners.windows(2) {
                assert!(pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1 + 1e-12, "{pair:?}");
            }
            for i in 0..=50 {
                let rate = f64::from(i) / 50.0;
                let most = curve.at_most(said, rate);
                assert!(most >= rate && most <= 1.0, "{rate}: {most}");
                for (epsilon, delta) in &known {
                    // δ is known at points: between two of them the line is a little above.
                    let bound = 1.02 * epsilon.exp() * rate + 1.02 * delta + 1e-9;
                    assert!(most <= bound, "{rate} {epsilon}: {most}");
                }
            }
        }
    }
}

/// As often as they are allowed to and no more.
#[test]
fn bounds_by_the_whole_curve_hold() {
    let plan = full_batch(2.0);
    let (claimed, family) = (Claimed::of(&plan), plan.family().unwrap());
    let designs = Designs::new(claimed, 2_000, &family, ALPHA);
    let judged = |seed| Dirac::judge(claimed, &claimed.simulate(1.0, 2_000, seed), &designs, &family, ALPHA);
    let found: Vec<[f64; 2]> = (0..300).map(|seed| on_the_curve(&judged(seed))).collect();
    for which in [0, 1] {
        let wrong = found.iter().filter(|bounds| bounds[which] > 2.0).count();
        println!("{which}: {wrong} of 300");
        // 15 are expected at most; 29 has probability 5e-4 at 5 %.
        assert!(wrong < 29, "{which}: {wrong} of 300 bounds are above the truth");
    }
}

/// A Gaussian mechanism lets so many guesses be right with a probability that a linear program finds.
#[test]
fn guesses_are_refuted_at_their_largest_probability() {
    for [mu, canaries, guesses, correct, _, likely] in reference("guesses") {
        let phase = Phase::new(1.0, 1.0 / mu, 1).unwrap();
        let curve = Curve::new(&[phase], Adjacency::AddOrRemoveOne).unwrap();
        let refuted = |alpha| refutes_guesses(&curve, canaries as u64, guesses as u64, correct as u64, alpha);
        println!("{mu} {canaries} {guesses} {correct}: {likely}");
        assert!(!refuted(0.99 * likely), "{mu} {canaries} {guesses} {correct}: {likely}");
        assert!(
            refuted(1.01 * likely + 1e-7),
            "{mu} {canaries} {guesses} {correct}: {likely}"
        );
    }
}

#[test]
fn a_subsampled_plan_is_audited_too() {
    let plan = quick(8.0);
    let observed = observe(&plan, clip(Clipping::Automatic), CANARIES, Stop(&GO), &Silent).unwrap();
    let found = judged(&plan, &observed);
    println!(
        "quick: one run {:.3}, threshold {:.3}",
        found.one_run_epsilon(),
        found.threshold.epsilon_lower
    );
    let curve = on_the_curve(&found);
    println!("by the whole curve: {curve:?}");
    assert!(curve.iter().all(|bound| *bound <= 8.0) && curve[1] > 4.0, "{curve:?}");
    let (one_run, threshold) = (found.one_run_epsilon(), found.threshold.epsilon_lower);
    assert!(
        one_run > 0.8 && one_run <= 8.0 && threshold <= 8.0,
        "{one_run} {threshold}"
    );
}

#[test]
fn too_little_noise_is_found_out() {
    for (name, plan, epsilon) in [
        ("full batch", full_batch(1.0), 1.0),
        ("full batch", full_batch(3.0), 3.0),
        ("full batch", full_batch(8.0), 8.0),
        ("quick", quick(8.0), 8.0),
    ] {
        let claimed = Claimed::of(&plan);
        // What is rare takes many canaries to see: a record is drawn at all with probability 0.04 in the quick plan.
        let canaries = if name == "quick" { 1_500_000 } else { CANARIES };
        let family = plan.family().unwrap();
        let designs = Designs::new(claimed, CANARIES, &family, ALPHA);
        for noise in [0.25, 0.0] {
            let found = Dirac::judge(claimed, &claimed.simulate(noise, canaries, 1), &designs, &family, ALPHA);
            println!(
                "{name}, epsilon {epsilon}, noise times {noise}: one run {:.3}, threshold {:.3}",
                found.one_run_epsilon(),
                found.threshold.epsilon_lower
            );
            assert!(
                found.threshold.epsilon_lower.max(found.one_run_epsilon()) > epsilon,
                "{name}, {epsilon}, {noise}"
            );
            if epsilon < 7.0 {
                assert!(found.one_run_epsilon() > epsilon, "{name}, {epsilon}, {noise}: one run");
            }
        }
    }
}

/// Canaries do not pass the claim of `plan`, epsilon 3, and come near it.
fn nearly_reaches_3(name: &str, plan: &PrivacyPlan) -> Claimed {
    let claimed = Claimed::of(plan);
    let kept = judged(plan, &claimed.simulate(1.0, 1_000_000, 5));
    println!("{name}: {:?} of 3", on_the_curve(&kept));
    let [one_run, threshold] = on_the_curve(&kept);
    assert!(
        one_run <= 3.0 && threshold <= 3.0 && threshold > 2.0,
        "{one_run} {threshold}"
    );
    claimed
}

/// What is claimed of random allocation stands, is nearly reached, and does not cover Poisson batches with its noise: there a
/// canary can be drawn more than once a round.
#[test]
fn random_allocation_keeps_its_claim_and_poisson_batches_with_its_noise_do_not() {
    let plan = allocated(3.0);
    let claimed = nearly_reaches_3("random allocation", &plan);
    let poisson = Claimed { slots: None, ..claimed };
    let broken = judged(&plan, &poisson.simulate(1.0, 3_000_000, 5));
    println!("poisson batches instead: {:?}", on_the_curve(&broken));
    assert!(on_the_curve(&broken)[1] > 3.0, "{:?}", on_the_curve(&broken));
}

/// Noise that goes together over steps keeps its claim, which is nearly reached by whoever takes it apart. Noise in which the
/// length of what a record moves was forgotten does not: 1/‖s‖ of it, 0.85 here.
#[test]
fn noise_that_goes_together_keeps_its_claim_and_as_if_a_record_moved_one_step_it_does_not() {
    let plan = with_noise_together(3.0);
    let claimed = nearly_reaches_3("noise together", &plan);
    let length = 1.0 / (1.0f64 + 0.25 + 0.375f64.powi(2)).sqrt();
    let broken = judged(&plan, &claimed.simulate(length, 1_000_000, 5));
    println!("as if a record moved one step: {:?}", on_the_curve(&broken));
    assert!(on_the_curve(&broken)[1] > 3.0, "{:?}", on_the_curve(&broken));
}

/// Coordinates are independent, and in each the noise is as exact as on one number.
#[test]
fn laplace_noise_keeps_its_claim_and_four_fifths_of_it_do_not() {
    let plan = with_laplace_noise(3.0);
    let claimed = nearly_reaches_3("laplace noise", &plan);
    let broken = judged(&plan, &claimed.simulate(0.8, 1_000_000, 5));
    println!("four fifths of it: {:?}", on_the_curve(&broken));
    assert!(on_the_curve(&broken)[1] > 3.0, "{:?}", on_the_curve(&broken));
}

#[test]
fn noise_that_is_a_tenth_short_is_found_out_by_the_whole_curve() {
    for epsilon in [1.0, 3.0, 8.0] {
        let plan = full_batch(epsilon);
        let found = judged(&plan, &Claimed::of(&plan).simulate(0.9, 1_000_000, 3));
        println!("epsilon {epsilon}: {:?}", on_the_curve(&found));
        assert!(
            on_the_curve(&found)[1] > epsilon,
            "{epsilon}: {:?}",
            on_the_curve(&found)
        );
    }
}

/// Rehearsals and broken mechanisms are simulated: the simulation must be of the real thing.
#[test]
fn the_simulated_mechanism_looks_like_the_real_one() {
    for plan in [
        full_batch(3.0),
        quick(8.0),
        allocated(3.0),
        with_laplace_noise(3.0),
        with_noise_together(3.0),
    ] {
        let real = observe(&plan, clip(Clipping::Flat), 100_000, Stop(&GO), &Silent).unwrap();
        let simulated = Claimed::of(&plan).simulate(1.0, 100_000, 2);
        let side = |seen: &Observed, included: bool| {
            let of = seen.scores.iter().zip(&seen.included).filter(|(_, i)| **i == included);
            let mut of: Vec<f64> = of.map(|(s, _)| *s).collect();
            of.sort_by(f64::total_cmp);
            of
        };
        for included in [true, false] {
            let (a, b) = (side(&real, included), side(&simulated, included));
            let share = |of: &[f64], upto: f64| of.partition_point(|s| *s <= upto) as f64 / of.len() as f64;
            let apart = a
                .iter()
                .map(|s| (share(&a, *s) - share(&b, *s)).abs())
                .fold(0.0, f64::max);
            // Kolmogorov and Smirnov: further apart with probability 1e-5.
            let n = a.len().min(b.len()) as f64;
            assert!(apart < 2.5 * (2.0 / n).sqrt(), "included {included}: {apart}");
        }
    }
}

#[test]
fn designs_come_from_public_numbers_and_repeat() {
    let claimed = Claimed::of(&full_batch(3.0));
    assert_eq!(claimed.designs(20_000, ALPHA), claimed.designs(20_000, ALPHA));
}

#[test]
fn an_audit_that_is_stopped_says_so() {
    let stopped = AtomicBool::new(true);
    let refused = observe(&full_batch(1.0), clip(Clipping::Flat), 100, Stop(&stopped), &Silent).unwrap_err();
    assert_eq!(refused.kind(), Kind::Interrupted);
}

// ---------------------------------------------------------------------------------------------- replay

fn made_up_records(count: usize, seed: u64) -> Vec<Encoded> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|i| Encoded {
            tokens: (0..rng.random_range(8..40)).map(|_| rng.random_range(3..300)).collect(),
            prompt: 1 + i % 4,
            label: 0,
        })
        .collect()
}

#[test]
fn p5_holds_in_replay_on_a_tiny_model() {
    let model = support::model();
    let config = FinetuneConfig {
        expected_batch_size: 64,
        micro_batch_size: 5,
        max_grad_norm: 0.3,
        rank: 2,
        alpha: 6.0,
        ..FinetuneConfig::default()
    };
    let initial = Adapter::new(model.shape(), 2, 6.0, 0);
    let found = Replaying {
        model: &model,
        states: &[("initial", &initial), ("trained", &support::adapter(&model))],
        units: &Units::of_records(made_up_records(200, 1)),
        config: &config,
        objective: &Objective::text(),
        seconds: 60.0,
    }
    .run(Stop(&GO), &Silent)
    .unwrap();
    println!("worst 1 {:+e} on batches of {}", found.worst_ratio - 1.0, found.batch);
    assert!(
        found.within_charge && found.within_p5 && found.worst_ratio > 0.9,
        "{found:?}"
    );
    assert_eq!((found.batch, found.probes.len()), (64, 10));
}

#[test]
fn a_record_that_moves_the_sum_too_far_is_found_out() {
    let of = |ratio| {
        let probe = |ratio| Probe {
            state: "trained".into(),
            record: "random".into(),
            tokens: 9,
            ratio,
            others: Some(0.0),
        };
        let found = Replay::of(vec![probe(ratio), probe(0.7)], 4, 2, 0.0);
        (found.within_p5, found.within_charge)
    };
    // One that is itself clipped far below C, and moves what others contribute.
    let hidden = Probe {
        state: "trained".into(),
        record: "random".into(),
        tokens: 9,
        ratio: 0.3,
        others: Some(0.2),
    };
    assert!(!Replay::of(vec![hidden], 4, 2, 0.0).within_charge);
    assert_eq!(of(1.0), (true, true));
    assert_eq!(of(1.0 + 1e-5), (false, true));
    assert_eq!(of(1.01), (false, false));
    assert_eq!(of(f64::NAN), (false, false));
}

// ---------------------------------------------------------------------------------------------- losses

fn retrained(epsilon: f64, learning_rate: f64) -> (f64, f64, f64) {
    let model = support::model();
    let config = FinetuneConfig {
        expected_batch_size: 100,
        learning_rate,
        rank: 8,
        alpha: 24.0,
        ..FinetuneConfig::default()
    };
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        target_epsilon: epsilon,
        delta: Some(1e-5),
        public_size: 100,
        expected_batch_size: 100,
        steps: 12,
        max_grad_norm: config.max_grad_norm,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    })
    .unwrap();
    let found = Retraining {
        model: &model,
        config: &config,
        plan: &plan,
        units: &Units::of_records(made_up_records(4, 2)),
        prompts: &[vec![5, 6, 7], vec![8, 9]],
        objective: &Objective::text(),
        warm_start: Path::new("none"),
        canaries: 200,
        echo: None,
    }
    .run(ALPHA, Stop(&GO), &Silent)
    .unwrap()
    .0;
    let bound = found.one_run.iter().map(|o| o.epsilon_lower).fold(0.0, f64::max);
    (bound, found.mean_drop_included, found.mean_drop_excluded)
}

#[test]
fn losses_of_canaries_tell_what_a_model_without_noise_has_read() {
    let (private, ..) = retrained(1.0, 0.01);
    assert!(private <= 1.0, "{private}");
    let (open, included, excluded) = retrained(90.0, 0.01);
    println!("losses: {open:.3} without privacy (drops {included:.4} and {excluded:.4}), {private:.3} with");
    assert!(open > 1.5, "a claim of 1 would be refuted: {open}");
    assert!(included > excluded);
}

// ---------------------------------------------------------------------------------------------- membership

/// Texts whose tokens follow each other by rules of their own.
fn texts(count: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |_| {
        let mut token = rng.random_range(0..3000);
        (0..20)
            .map(|_| {
                token = (token * 7 + rng.random_range(0..12)) % 3000;
                token
            })
            .collect()
    };
    (0..count).map(one).collect()
}

fn attacked(synthetic: Vec<Vec<u32>>) -> dpsynth::audit::membership::Membership {
    let texts = Texts {
        members: texts(1500, 1),
        others: texts(1200, 2),
        synthetic,
        zero_shot: texts(1500, 4),
        vocabulary: 3000,
    };
    texts.attack(1e-5, ALPHA, Stop(&GO)).unwrap().unwrap()
}

#[test]
fn synthetic_texts_that_copy_the_training_set_are_found_out() {
    let found = attacked(texts(1500, 1));
    assert!(found.auc.low > 0.98, "{:?}", found.auc);
    assert_eq!(found.records, 1200);
    assert!(found.epsilon_lower.unwrap() > 2.5, "{:?}", found.at);
    assert!(found.at[0].false_positives.rate < 0.05 && found.at[0].true_positives.rate > 0.9);
}

#[test]
fn synthetic_texts_of_the_same_kind_tell_nothing() {
    let found = attacked(texts(1500, 3));
    assert!(found.auc.low < 0.5 && found.auc.high > 0.5, "{:?}", found.auc);
    assert_eq!(found.epsilon_lower, Some(0.0));
}

/// Held-out texts of another kind are told apart by anyone: that proves nothing about the training.
#[test]
fn held_out_texts_from_elsewhere_void_the_bound() {
    let elsewhere = texts(1200, 2)
        .into_iter()
        .map(|t| t.iter().map(|token| token + 7).collect());
    let found = Texts {
        members: texts(1500, 1),
        others: elsewhere.collect(),
        synthetic: texts(1500, 3),
        zero_shot: texts(1500, 4),
        vocabulary: 3007,
    };
    let found = found.attack(1e-5, ALPHA, Stop(&GO)).unwrap().unwrap();
    assert!(found.blind_auc.low > 0.5, "{:?}", found.blind_auc);
    assert_eq!(found.epsilon_lower, None);
}

#[test]
fn texts_in_both_splits_and_repeated_ones_do_not_count() {
    let shared = texts(30, 9);
    let attack = |members, others| {
        Texts {
            members,
            others,
            synthetic: texts(5, 1),
            zero_shot: texts(5, 2),
            vocabulary: 3000,
        }
        .attack(1e-5, ALPHA, Stop(&GO))
        .unwrap()
    };
    assert!(attack([texts(40, 1), shared.clone()].concat(), shared.clone()).is_none());
    let found = attack(
        [texts(40, 1), texts(40, 1), shared.clone()].concat(),
        [texts(90, 2), shared].concat(),
    );
    assert_eq!(found.unwrap().records, 40);
}

#[test]
fn the_area_under_the_curve_and_its_interval_are_delongs() {
    let value = |kind: &str, members: usize, others: usize| {
        let row = reference(kind)
            .into_iter()
            .find(|r| (r[0], r[1]) == (members as f64, others as f64));
        row.unwrap()[5]
    };
    for (members, others) in [(101, 97), (30, 80)] {
        let auc = Sides {
            members: (0..members).map(|i| (37 * i % 101) as f64 / 101.0 + 0.2).collect(),
            others: (0..others).map(|i| (53 * i % 97) as f64 / 97.0).collect(),
        }
        .auc();
        for (got, kind) in [(auc.value, "auc"), (auc.low, "auc_low"), (auc.high, "auc_high")] {
            assert!((got - value(kind, members, others)).abs() < 1e-6, "{kind}: {got}");
        }
    }
}

// ---------------------------------------------------------------------------------------------- the command

/// A run of the tiny model on made-up reviews, all records in each step, so that canaries tell much.
fn place(more: &[&str]) -> (Place, Vec<String>) {
    let place = Place::new();
    // Drawn alike, and none in both.
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut films: Vec<usize> = (1000..9000).collect();
    films.shuffle(&mut rng);
    let mut reviews = |from: usize| {
        let row = |film: &usize| {
            let (label, what) =
                [("positive", "moves and surprises"), ("negative", "drags on and on")][rng.random_range(0..2)];
            let who = ["the cast", "the story", "the music"][rng.random_range(0..3)];
            format!("{who} of film {film} {what},{label}\n")
        };
        format!(
            "text,label\n{}",
            films[from..from + 200].iter().map(row).collect::<String>()
        )
    };
    place.write("train.csv", reviews(0));
    place.write("test.csv", reviews(200));
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let settings = [
        &model,
        "finetune.expected_batch_size=200",
        "finetune.delta=1e-5",
        "finetune.epsilon=3",
        "finetune.steps=4",
        "prepare.max_tokens=64",
    ];
    let set: Vec<String> = settings
        .iter()
        .chain(more)
        .flat_map(|s| ["--set".to_string(), s.to_string()])
        .collect();
    (place, set)
}

fn stages(place: &Place, set: &[String], stages: &[&str]) {
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    stages.iter().for_each(|s| {
        place.done(s, &set);
    });
}

/// One sampled run for the tests that change nothing in it but `model/privacy.json`, which each brings for itself.
fn audited(place: &Place, arguments: &[&str]) -> Said {
    let quick = ["--canaries", "50000", "--replay-seconds", "2"];
    place.call(&[&["audit"], arguments, &quick].concat())
}

fn findings(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

/// Makes the run that `set` describes and audits it, black box and all; it must pass.
fn made_and_audited(place: &Place, set: &[String], more: &[&str]) -> Value {
    stages(place, set, &["prepare", "finetune", "sample"]);
    let said = place.call(&[&["audit", "runs/tiny-quick", "--json", "--retrain=400"], more].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    findings(&said)
}

#[test]
fn a_finished_run_passes_and_its_findings_stay_internal() {
    let (place, set) = place(&[]);
    stages(&place, &set, &["prepare", "finetune", "sample"]);
    let ledger = std::fs::read(place.ledger()).unwrap();

    let said = audited(&place, &["runs/tiny-quick", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let found = findings(&said);
    assert_eq!(
        (&found["verdict"], &found["classification"]),
        (&"pass".into(), &"internal".into())
    );
    let claim = &found["claim"];
    for (key, value) in [
        ("adjacency", "add-or-remove-one"),
        ("unit", "record"),
        ("sampler", "poisson"),
        ("accountant", "pld"),
    ] {
        assert_eq!(claim[key], value, "epsilon is never without its {key}");
    }
    assert_eq!(claim["delta"].as_f64(), Some(1e-5));
    let bounds = found["lower_bounds"].as_array().unwrap();
    assert_eq!(bounds.len(), 5, "{bounds:?}");
    let epsilon = |i: usize| bounds[i]["epsilon_lower"].as_f64().unwrap();
    assert!(epsilon(0) > 0.5 && epsilon(0) <= 3.0 && epsilon(1) <= 3.0, "{bounds:?}");
    assert!(found["replay"]["within_p5"].as_bool().unwrap(), "{}", found["replay"]);
    assert_eq!(place.json("runs/tiny-quick/internal/audit.json")["verdict"], "pass");
    assert_eq!(
        std::fs::read(place.ledger()).unwrap(),
        ledger,
        "an audit charges nothing"
    );

    // By its pipeline, for a person: the same run, computed anew.
    let arguments: Vec<&str> = ["tiny.toml", "--profile", "quick"]
        .into_iter()
        .chain(set.iter().map(String::as_str))
        .collect();
    let said = audited(&place, &arguments);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "claimed: epsilon 3",
        "at delta 1.00e-5",
        "Dirac canaries, one run",
        "AUC",
        "verdict: pass",
    ] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }

    // The same run with a smaller claim beside it.
    let guarantee = place.json("runs/tiny-quick/model/privacy.json");
    let boast = place
        .text("runs/tiny-quick/model/privacy.json")
        .replace(&format!("\"epsilon\":{}", guarantee["epsilon"]), "\"epsilon\":0.5");
    place.write("runs/tiny-quick/model/privacy.json", boast);
    let said = audited(&place, &["runs/tiny-quick"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(
        said.stdout
            .contains("verdict: FAIL: Dirac canaries, one run: epsilon is at least"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("error: the claim of tiny-quick does not hold") && said.stderr.contains("hint: "));
    assert_eq!(place.json("runs/tiny-quick/internal/audit.json")["verdict"], "fail");
}

#[test]
fn what_a_run_does_not_have_is_left_out_and_said() {
    let (place, set) = place(&["finetune.seed=7"]);
    let arguments: Vec<&str> = ["tiny.toml", "--profile", "quick"]
        .into_iter()
        .chain(set.iter().map(String::as_str))
        .collect();
    audited(&place, &arguments).refused(2, &["there is no run in runs/tiny-quick"]);
    assert!(!place.path("runs/tiny-quick").exists(), "nothing is made by asking");
    audited(&place, &["ledgers-of-nothing"]).refused(2, &["ledgers-of-nothing"]);
    std::fs::create_dir(place.path("empty")).unwrap();
    audited(&place, &["empty"]).refused(2, &["is not the folder of a run"]);

    stages(&place, &set, &["prepare"]);
    audited(&place, &["runs/tiny-quick"]).refused(2, &["no trained model to audit"]);
    stages(&place, &set, &["finetune"]);
    audited(&place, &["runs/tiny-quick", "--set", "name=x"]).refused(2, &["go with a TOML file"]);
    let said = audited(&place, &["runs/tiny-quick", "--retrain=16"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "NOT PRIVATE",
        "membership inference was left out: nothing is sampled yet",
        "losses: 16 canary records",
    ] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    assert!(
        said.stderr.contains("training once more with 16 canary records: about"),
        "{}",
        said.stderr
    );
}

/// Units of several records are replayed whole, and truncated batches take no more canaries than are accounted for.
#[test]
fn units_and_truncated_batches_are_audited_as_they_are() {
    let (place, set) = place(&[
        "dataset.unit={ column = \"who\", max_records = 2 }",
        "dataset.public_size=50",
        "finetune.expected_batch_size=25",
        "finetune.max_batch_size=52",
        "sample.records=20",
    ]);
    place.write("train.csv", common::records_by_viewer(2));
    let found = made_and_audited(&place, &set, &["--replay-seconds=2"]);
    assert_eq!(found["claim"]["unit"], "who (at most 2 records of each)");
    assert_eq!(
        found["claim"]["sampler"],
        "poisson truncated at 52 (of at most 55 units)"
    );
    assert_eq!(found["canaries"]["canaries"], 55, "a tenth more than were declared");
    let probes = found["replay"]["probes"].as_array().unwrap();
    assert!(probes.iter().any(|p| p["record"] == "most records"), "{probes:?}");
    assert!(found["replay"]["within_p5"].as_bool().unwrap(), "{}", found["replay"]);
    // Five more units are accounted for than there are: too few canaries to retrain with.
    assert!(found["losses"].is_null());
    let notes = found["notes"].to_string();
    assert!(notes.contains("room for 5 canary records and not 400"), "{notes}");
    // Each viewer's first two records are members, the other two were never trained on.
    assert!(
        found["membership"]["records"].as_u64().unwrap() <= 100,
        "{}",
        found["membership"]
    );
}

/// A run at each claim, trained on the tiny model, audited with everything there is.
#[test]
#[ignore = "slow: make test-slow"]
fn slow_runs_of_a_small_model_at_epsilon_1_3_and_8_stand_up_to_their_audit() {
    for claimed in [1.0, 3.0, 8.0] {
        let epsilon = format!("finetune.epsilon={claimed}");
        let (place, set) = place(&[&epsilon, "sample.records=200"]);
        let found = made_and_audited(&place, &set, &["--canaries=1000000", "--replay-seconds=10"]);
        assert_eq!(found["verdict"], "pass");
        let bounds = found["lower_bounds"].as_array().unwrap();
        let bound = |b: &Value| b["epsilon_lower"].as_f64().unwrap();
        println!(
            "claim {}: {}",
            found["claim"]["epsilon"],
            bounds
                .iter()
                .map(|b| format!("{} {:.3}", b["attack"].as_str().unwrap(), bound(b)))
                .collect::<Vec<_>>()
                .join(", ")
        );
        println!("echo: {}", found["echo"]["at"]);
        assert_eq!(bounds.len(), 6, "{bounds:?}");
        assert!(bounds.iter().all(|b| bound(b) <= claimed), "{bounds:?}");
        assert!(bound(&bounds[0]) > 0.3 * claimed, "{}", bounds[0]);
        assert!(bound(&bounds[3]) > 0.7 * claimed, "{}", bounds[3]);
    }
}

// ---------------------------------------------------------------------------------------------- records set apart

/// IMDb's own split cannot serve: a blind attack tells its halves apart. Records that chance set apart can.
#[test]
fn p5_membership_is_measured_on_records_that_chance_set_apart() {
    let place = Place::new().with_tiny_model();
    // Held-out records from elsewhere: anyone tells them from those that trained.
    let elsewhere: String = (0..60)
        .map(|i| format!("quite another sort of text {i},positive\n"))
        .collect();
    place.write("test.csv", format!("text,label\n{elsewhere}"));
    let apart = ["--set", "audit.holdout=0.3"];
    let arguments = [&["run", "tiny.toml", "--profile", "quick"][..], &apart].concat();
    place.ok(&arguments);
    let texts = |file: &str| -> Vec<String> {
        let records = dpsynth::run::table::read_records(&place.run(&format!("internal/{file}.parquet"))).unwrap();
        records.into_iter().map(|record| record.text).collect()
    };
    let (trained, set_apart) = (texts("train"), texts("audit"));
    assert_eq!(trained.len() + set_apart.len(), 200);
    // 60 of 200, with 5 standard deviations.
    assert!((28..=92).contains(&set_apart.len()), "{}", set_apart.len());
    assert!(set_apart.iter().all(|text| !trained.contains(text)));
    assert_eq!(
        place.json("runs/tiny-quick/report.json")["records"]["train"]["kept"],
        trained.len()
    );
    // Another run draws others; the same run keeps its own.
    let again = [&arguments[..], &["--set", "name=again"]].concat();
    place.edit("epsilon = 4.0", "epsilon = 4.0\n# again");
    place.ok(&again);
    let others = dpsynth::run::table::read_records(&place.path("runs/again-quick/internal/audit.parquet")).unwrap();
    assert_ne!(
        others.iter().map(|record| &record.text).collect::<Vec<_>>(),
        set_apart.iter().collect::<Vec<_>>()
    );
    place.ok(&arguments);
    assert_eq!(texts("audit"), set_apart);

    let found = findings(&audited(&place, &["runs/tiny-quick", "--json"]));
    let membership = &found["membership"];
    let records = membership["records"].as_u64().expect("measured");
    assert!(records >= 20 && records as usize <= set_apart.len(), "{membership}");
    let blind = &membership["blind_auc"];
    // Against records from elsewhere it is 1; by chance, with 28 records on each side or more, it is 4 deviations up here.
    assert!(
        blind["value"].as_f64().unwrap() < 0.8,
        "a blind attack told them apart: {blind}"
    );
    let completed = &found["contamination"];
    assert!(completed["recited"] == 0 || completed.is_null(), "{completed}");
    // It is fixed once training has begun.
    place
        .call(&["run", "tiny.toml", "--profile", "quick", "--set", "audit.holdout=0.2"])
        .refused(2, &["[audit]"]);
    place
        .call(&[
            "run",
            "tiny.toml",
            "--profile",
            "quick",
            "--set",
            "audit.holdout=0.9",
            "--set",
            "name=x",
        ])
        .refused(2, &["audit.holdout"]);
}

/// A model that has read the very records recites them; one that has not does not.
#[test]
fn a_model_that_recites_held_out_records_is_told() {
    let model = support::model();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut texts = |count| -> Vec<Vec<u32>> {
        (0..count)
            .map(|_| (0..40).map(|_| rng.random_range(3..300)).collect())
            .collect()
    };
    let (read, unread) = (texts(6), texts(6));
    let config = FinetuneConfig {
        method: Method::Full,
        ..FinetuneConfig::default()
    };
    let mut trained = trainable::begun(&config, &model, Path::new("none")).unwrap();
    let records: Vec<Encoded> = (read.iter().cloned())
        .map(|tokens| Encoded {
            tokens,
            prompt: 1,
            label: 0,
        })
        .collect();
    let training = PlainTraining {
        model: &model,
        config: &config,
        objective: Objective::text(),
        stop: &GO,
        progress: &Silent,
        name: "reading",
    };
    let passes = Passes {
        epochs: 150,
        batch_size: 6,
        learning_rate: 1e-2,
        seed: 0,
    };
    let losses = training.train(trained.as_mut(), &records, passes).unwrap();
    assert!(losses[losses.len() - 1] < 0.2, "it learned them: {:?}", losses.last());
    let reader = trained.merged(&model);
    let found = |texts: &[Vec<u32>]| contamination(&reader, texts, Stop(&GO)).unwrap().unwrap();
    let (of_read, of_unread) = (found(&read), found(&unread));
    assert_eq!(
        (of_read.records, of_read.recited, of_unread.recited),
        (6, 6, 0),
        "{of_read:?} {of_unread:?}"
    );
    assert!(
        of_read.nats_a_token + 1.0 < of_read.nats_a_token_shuffled,
        "{of_read:?}"
    );
    let before = contamination(&model, &read, Stop(&GO)).unwrap().unwrap();
    assert_eq!(before.recited, 0, "{before:?}");
    assert!(contamination(&model, &read[..1], Stop(&GO)).unwrap().is_none());
    assert!(
        contamination(&model, &[vec![1; 20], vec![2; 31]], Stop(&GO))
            .unwrap()
            .is_none()
    );
}

// ---------------------------------------------------------------------------------------------- echoes

/// A model that recites its canaries gives them away by what it writes; one that never saw them does not.
#[test]
fn canaries_that_a_model_recites_are_found_in_its_text() {
    let place = Place::new().with_tiny_model();
    place.edit("records = 8", "records = 400");
    let config = dpsynth::config::load(&place.path("tiny.toml"), Profile::Quick, &[], Path::new("data")).unwrap();
    let files = ModelFiles::open(&support::fixture("model.gguf")).unwrap();
    let (model, vocabulary) = (support::model(), Vocabulary::of(&files).unwrap());
    let prompts = [vec![5, 6, 7], vec![8, 9]];
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut held_out = |label: usize| Encoded {
        tokens: prompts[label]
            .iter()
            .copied()
            .chain((0..6).map(|_| rng.random_range(3..300)))
            .collect(),
        prompt: prompts[label].len(),
        label,
    };
    let held_out: Vec<Encoded> = (0..40).map(|i| held_out(i % 2)).collect();
    let zero_shot: Vec<Vec<u32>> = held_out.iter().map(|r| r.tokens[r.prompt..].to_vec()).collect();
    let echoing = Echoing {
        model: &model,
        config: &config,
        vocabulary: &vocabulary,
        prompts: &prompts,
        steering: Default::default(),
        held_out: &held_out,
        zero_shot: &zero_shot,
        encoder: None,
    };
    let full = FinetuneConfig {
        method: Method::Full,
        ..FinetuneConfig::default()
    };
    let begun = || trainable::begun(&full, &model, Path::new("none")).unwrap();
    let planted = echoing.plant();
    let records: Vec<Encoded> = planted.records().collect();
    let mut reciter = begun();
    let training = PlainTraining {
        model: &model,
        config: &full,
        objective: Objective::text(),
        stop: &GO,
        progress: &Silent,
        name: "reading",
    };
    let passes = Passes {
        epochs: 12,
        batch_size: 16,
        learning_rate: 1e-2,
        seed: 0,
    };
    training.train(reciter.as_mut(), &records, passes).unwrap();
    let found = echoing.attack(&planted, reciter.as_ref(), Stop(&GO), &Silent).unwrap();
    println!("{found:?}");
    let often = found
        .at
        .iter()
        .find(|at| at.repetitions == 16)
        .expect("coins fell on both sides");
    assert_eq!(found.synthetic, 400);
    assert!(
        often.trigrams.value > 0.8 && often.auxiliary_model.value > 0.6,
        "{often:?}"
    );
    // Coins that nothing was trained on.
    let others: [_; 3] = std::array::from_fn(|_| {
        let coins = echoing.plant();
        echoing.attack(&coins, begun().as_ref(), Stop(&GO), &Silent).unwrap().at
    });
    // Intervals hold with 95 %: one of three may fail, and not the same one twice.
    for at in 0..others[0].len() {
        for by in 0..2 {
            let aucs = others
                .iter()
                .map(|of_coins| [of_coins[at].trigrams, of_coins[at].auxiliary_model][by]);
            let near = aucs.filter(|auc| auc.low < 0.6 && auc.high > 0.4);
            assert!(near.count() >= 2, "{others:?}");
        }
    }
}
