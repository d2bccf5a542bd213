//! Calibration: the answers are on the right side of the target, and next to it.

use dpsynth_privacy::accountant::{Adjacency::AddOrRemoveOne, MAX_STEPS, Phase, pld};
use dpsynth_privacy::calibrate::{BatchPlan, Length, Target};

fn epsilon(q: f64, sigma: f64, steps: u64, delta: f64) -> f64 {
    let phase = Phase::new(q, sigma, steps).expect("valid");
    pld::epsilon_above(&[phase], AddOrRemoveOne, delta).expect("valid")
}

#[test]
fn the_noise_never_falls_short_and_is_the_smallest() {
    for (q, steps, delta, target) in [
        (0.01024, 98, 1e-5, 0.3),
        (0.04096, 123, 1e-5, 8.0),
        (0.16384, 31, 1e-7, 3.0),
        (1.0, 10, 1e-5, 1.0),
        (0.004, 1000, 1e-6, 1.0),
        (0.5, 1, 1e-10, 20.0),
    ] {
        let sigma = Target::new(target, delta)
            .and_then(|t| t.noise_multiplier(q, steps))
            .expect("a noise multiplier");
        assert!(epsilon(q, sigma, steps, delta) <= target, "{q} {steps}: {sigma}");
        assert!(
            epsilon(q, sigma * (1.0 - 1e-3), steps, delta) > target,
            "{q} {steps}: {sigma} is not the smallest"
        );
    }
}

#[test]
fn the_steps_are_the_most_that_fit() {
    for (q, sigma, delta, target) in [
        (0.01024, 1.0, 1e-5, 1.0),
        (0.04096, 0.6, 1e-5, 8.0),
        (0.2, 4.0, 1e-6, 3.0),
        (1.0, 10.0, 1e-5, 2.0),
        (0.004, 1.0, 1e-7, 0.5),
    ] {
        let steps = Target::new(target, delta)
            .and_then(|t| t.steps(q, sigma))
            .expect("steps");
        assert!(epsilon(q, sigma, steps, delta) <= target, "{q} {sigma}: {steps}");
        assert!(
            epsilon(q, sigma, steps + 1, delta) > target,
            "{q} {sigma}: {steps} is not the most"
        );
    }
    let little = Target::new(0.01, 1e-5).expect("valid");
    assert_eq!(little.steps(1.0, 1.0).expect_err("not one step fits").exit_code(), 2);
    let much = Target::new(100.0, 0.1).expect("valid");
    assert_eq!(much.steps(1e-6, 1000.0).expect("all fit"), MAX_STEPS);
}

#[test]
fn what_is_beside_is_paid_from_the_same_target() {
    let beside = Phase::new(0.05, 1.0, 40).expect("valid");
    let alone = Target::new(3.0, 1e-5).expect("valid");
    let shared = alone.clone().beside(&[beside]);
    let sigma = shared.noise_multiplier(0.02, 300).expect("a noise multiplier");
    let both = [beside, Phase::new(0.02, sigma, 300).expect("valid")];
    assert!(pld::epsilon_above(&both, AddOrRemoveOne, 1e-5).expect("valid") <= 3.0);
    assert!(sigma > alone.noise_multiplier(0.02, 300).expect("a noise multiplier"));
    let steps = shared.steps(0.02, 1.0).expect("steps");
    assert!(steps < alone.steps(0.02, 1.0).expect("steps"));
}

#[test]
fn larger_batches_pay_until_the_knee() {
    let (records, delta, target) = (50_000, 1e-6, 4.0);
    let sizes = [64, 256, 1024, 4096, 50_000];
    let plan = Target::new(target, delta)
        .and_then(|t| t.batch_plan(records, Length::Steps(1000), &sizes))
        .expect("a plan");
    let choices = plan.choices();
    assert_eq!(choices.len(), sizes.len());
    for choice in choices {
        assert!(epsilon(choice.sampling_rate, choice.noise_multiplier, choice.steps, delta) <= target);
        assert_eq!(
            choice.noise_per_record,
            choice.noise_multiplier / choice.batch_size as f64
        );
    }
    for pair in choices.windows(2) {
        assert!(pair[1].noise_per_record < pair[0].noise_per_record * 1.001);
        assert!(pair[1].epochs > pair[0].epochs);
    }
    // The full batch is the best there is; the knee is near it, at a noise multiplier of about 2, and what is smaller is not.
    let best = plan.best_signal_to_noise_total();
    assert!((choices[4].signal_to_noise_total / best - 1.0).abs() < 1e-3);
    let knee = plan.knee().expect("the full batch is always near the best");
    assert!(knee.signal_to_noise_total > best / 1.07 && knee.noise_multiplier > 1.5);
    let before = choices.iter().filter(|c| c.batch_size < knee.batch_size);
    for choice in before {
        assert!(choice.signal_to_noise_total < best / 1.07);
        // A simulation holds σ/B.
        let sigma = BatchPlan::simulate(knee, choice.batch_size);
        assert!((sigma / choice.batch_size as f64 / knee.noise_per_record - 1.0).abs() < 1e-12);
        assert!(sigma < choice.noise_multiplier);
    }
}

#[test]
fn with_epochs_held_the_steps_fall() {
    let plan = Target::new(4.0, 1e-6)
        .and_then(|t| t.batch_plan(50_000, Length::Epochs(4.0), &[256, 2048, 256]))
        .expect("a plan");
    let choices = plan.choices();
    assert_eq!(choices.len(), 2);
    assert_eq!((choices[0].steps, choices[1].steps), (782, 98));
    assert!(choices[1].signal_to_noise_total > choices[0].signal_to_noise_total);
}
