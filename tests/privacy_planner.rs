//! The planner's proposals: within the budget, the best by their own measure, and the same each time.

use std::path::Path;

use dpsynth::config::{self, NoiseKind, Profile, RunConfig};
use dpsynth::pipeline::estimate::{Hours, propose, respent};
use dpsynth::privacy::planner::{FEWEST_STEPS, MOST_STEPS, Offer, Proposal, TIE};
use dpsynth::privacy::{PlanRequest, PrivacyPlan, Unit};

fn request(target_epsilon: f64) -> PlanRequest {
    PlanRequest {
        target_epsilon,
        delta: None,
        public_size: 25_000,
        expected_batch_size: 1024,
        steps: 100,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        max_batch_size: None,
        label_histogram_epsilon: None,
        seed: None,
    }
}

fn proposal(request: &PlanRequest, draws: u64) -> Proposal {
    Proposal::new(request, draws).expect("enough to plan with")
}

fn largest(proposal: &Proposal) -> f64 {
    let ratios = proposal.offers().iter().map(|o| o.signal_to_noise_total);
    ratios.fold(0.0, f64::max)
}

/// IMDb's numbers, and draws for half an hour on two cores, half a day there, an hour on a GPU.
fn settings() -> [(PlanRequest, u64); 3] {
    let histogram = PlanRequest {
        label_histogram_epsilon: Some(0.5),
        ..request(3.0)
    };
    [(request(8.0), 12_600), (histogram, 250_000), (request(1.0), 2_000_000)]
}

#[test]
fn a_proposal_stays_within_epsilon_and_time() {
    for (request, draws) in settings() {
        let proposal = proposal(&request, draws);
        for offer in proposal.offers() {
            assert!(offer.epsilon <= request.target_epsilon, "{offer:?}");
            assert!(offer.draws() <= draws, "{offer:?} takes more than {draws}");
            assert!((FEWEST_STEPS..=MOST_STEPS).contains(&offer.steps));
            assert!(2 * offer.expected_batch_size <= request.public_size);
        }
        let offer = proposal.proposed();
        let plan = PrivacyPlan::calibrate(&PlanRequest {
            steps: offer.steps,
            expected_batch_size: offer.expected_batch_size,
            ..request.clone()
        })
        .expect("what is offered can be run");
        let epsilon = plan.epsilon_after(offer.steps).expect("all steps");
        assert_eq!(
            (epsilon, plan.noise_multiplier()),
            (offer.epsilon, offer.noise_multiplier)
        );
    }
}

#[test]
fn no_alternative_is_better_by_more_than_a_tie() {
    for (request, draws) in settings() {
        let proposal = proposal(&request, draws);
        let (proposed, best) = (proposal.proposed(), largest(&proposal));
        assert!(proposed.signal_to_noise_total >= TIE * best);
        for offer in proposal.offers().iter().filter(|o| o.steps > proposed.steps) {
            assert!(
                offer.signal_to_noise_total < TIE * best,
                "{offer:?} ties and has more steps"
            );
        }
        // η in the words of its definition.
        let o = proposed;
        let eta = (o.steps as f64).sqrt() * o.expected_batch_size as f64 / o.noise_multiplier;
        let scaled = o.signal_to_noise_total * request.public_size as f64 * 2f64.sqrt();
        assert!((eta / scaled - 1.0).abs() < 1e-12, "{eta} {scaled}");
    }
}

#[test]
fn short_of_time_few_steps_win_and_with_plenty_more() {
    let steps = |draws| proposal(&request(8.0), draws).proposed().steps;
    assert_eq!(steps(12_600), FEWEST_STEPS);
    assert!(steps(2_000_000) > 4 * FEWEST_STEPS);
}

#[test]
fn more_time_or_more_epsilon_is_never_worse() {
    let best = |epsilon, draws| largest(&proposal(&request(epsilon), draws));
    let rises = |ratios: [f64; 3]| assert!(ratios.is_sorted(), "{ratios:?}");
    rises([6_000, 12_600, 500_000].map(|draws| best(8.0, draws)));
    rises([1.0, 3.0, 8.0].map(|epsilon| best(epsilon, 500_000)));
}

#[test]
fn a_bound_on_batches_is_kept_and_hardly_costs() {
    let bounded = PlanRequest {
        max_batch_size: Some(600),
        ..request(8.0)
    };
    let (free, bound) = (proposal(&request(8.0), 3_000), proposal(&bounded, 3_000));
    let batch = |p: &Proposal| p.offers()[0].expected_batch_size;
    assert_eq!(batch(&free), 296);
    assert_eq!(batch(&bound), 296, "a batch of 600 is seldom");
    assert!(bound.offers()[0].noise_multiplier < 1.02 * free.offers()[0].noise_multiplier);
    let tight = proposal(&bounded, 60_000);
    assert!(tight.offers().iter().all(|o| o.expected_batch_size < 450), "{tight:?}");
}

#[test]
fn too_little_time_is_refused() {
    let error = Proposal::new(&request(8.0), FEWEST_STEPS - 1).expect_err("too few");
    assert!(error.to_string().contains("time for 9 draws"), "{error}");
    assert_eq!(proposal(&request(8.0), FEWEST_STEPS).proposed().expected_batch_size, 1);
}

fn config(overrides: &[&str]) -> RunConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/imdb.toml");
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    config::load(&path, Profile::Quick, &overrides, Path::new("data")).expect("it is valid")
}

#[test]
fn hours_are_draws_at_the_speed_that_is_given() {
    let hours = |h| Hours::new(h).expect("above 0");
    let half = propose(&config(&[]), 7.0, hours(0.5)).expect("enough");
    assert_eq!(half, proposal(&request(8.0), 12_600));
    assert_eq!(half, propose(&config(&[]), 3.5, hours(1.0)).expect("the same draws"));
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Hours::new(wrong).expect_err("refused").to_string().contains("above 0"));
    }
}

#[test]
fn a_configuration_is_held_against_its_own_draws() {
    let (own, best) = respent(&config(&["finetune.expected_batch_size=100", "finetune.steps=100"])).expect("a plan");
    let best = best.expect("10,000 draws are enough");
    assert_eq!((own.draws(), best.proposed().draws()), (10_000, 10_000));
    assert!(best.proposed().signal_to_noise_total > 1.5 * own.signal_to_noise_total);
    let (own, none): (Offer, _) =
        respent(&config(&["finetune.expected_batch_size=4", "finetune.steps=2"])).expect("a plan");
    assert_eq!((own.draws(), none), (8, None));
}
