//! The planner's proposals: within the budget, the best by their own measure, and the same each time.

use std::path::Path;

use crate::common::Place;
use burn::tensor::Device;
use dpsynth::bench::model_shape;
use dpsynth::config::{self, Method, NoiseKind, Profile, RunConfig};
use dpsynth::pipeline::cost::{Basis, Reckoning};
use dpsynth::pipeline::estimate::respent;
use dpsynth::pipeline::hours::{Hours, Spent, spend};
use dpsynth::pipeline::rates::Rates;
use dpsynth::privacy::planner::{FEWEST_STEPS, MOST_STEPS, Offer, Proposal, TIE};
use dpsynth::privacy::{Batches, LABELS, LabelCounts, PlanRequest, PrivacyPlan, Unit};
use dpsynth::records::LabelSpace;
use dpsynth::run::{plan_request, privacy_plan};
use dpsynth::sampling::prior;

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
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    }
}

/// Values of an adapter of rank 16 for SmolLM2-135M.
const ADAPTER: usize = 4_884_480;

fn proposal(request: &PlanRequest, draws: u64) -> Proposal {
    Proposal::new(request, ADAPTER, draws).expect("enough to plan with")
}

fn largest(proposal: &Proposal) -> f64 {
    proposal.offers().iter().map(|o| o.worth).fold(0.0, f64::max)
}

/// IMDb's numbers, and draws for half an hour on two cores, half a day there, an hour on a GPU.
fn settings() -> [(PlanRequest, u64); 3] {
    let histogram = PlanRequest {
        beside: vec![LABELS.planned(LabelCounts { epsilon: 0.5 }, 1)],
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
        assert!(proposed.worth >= TIE * best);
        for offer in proposal.offers().iter().filter(|o| o.steps > proposed.steps) {
            assert!(offer.worth < TIE * best, "{offer:?} ties and has more steps");
        }
        // The worth by its definition: how far T steps of length 1 go along the true direction, over what they go across
        // it, where none of their direction is true.
        let (t, b) = (proposed.steps as f64, proposed.expected_batch_size as f64);
        let noise = proposed.noise_multiplier * (ADAPTER as f64).sqrt() / b;
        let cosine = 1.0 / (1.0 + noise * noise).sqrt();
        let worth = t * cosine / t.sqrt();
        assert!((worth / proposed.worth - 1.0).abs() < 1e-12, "{worth} {proposed:?}");
    }
}

#[test]
fn short_of_time_few_steps_win_and_with_plenty_more() {
    let steps = |draws| proposal(&request(8.0), draws).proposed().steps;
    let short: Vec<u64> = [1_000, 12_600, 125_000, 2_000_000].map(steps).to_vec();
    assert_eq!(short[0], FEWEST_STEPS);
    assert!(
        short.is_sorted() && short[2] > 4 * FEWEST_STEPS && short[3] > 2 * short[2],
        "{short:?}"
    );
    // A noise of many more dimensions drowns each step: fewer and larger ones.
    let full = Proposal::new(&request(8.0), 134_515_008, 125_000).expect("enough");
    assert!(full.proposed().steps < short[2]);
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
        batches: Batches::AtMost(600),
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
    let error = Proposal::new(&request(8.0), ADAPTER, FEWEST_STEPS - 1).expect_err("too few");
    assert!(error.to_string().contains("time for 9 draws"), "{error}");
    assert_eq!(proposal(&request(8.0), FEWEST_STEPS).proposed().expected_batch_size, 1);
}

fn pipeline(name: &str, profile: Profile, overrides: &[&str]) -> RunConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    config::load(&path, profile, &overrides, Path::new("data")).expect("it is valid")
}

fn config(overrides: &[&str]) -> RunConfig {
    pipeline("imdb.toml", Profile::Quick, overrides)
}

/// Gains and biases are trained where a step draws a sixteenth of the records, unless a file says how to train.
#[test]
fn few_records_are_trained_in_few_values() {
    let method = |profile: Profile, overrides: &[&str]| {
        let f = pipeline("imdb.toml", profile, overrides).finetune;
        (f.method, f.learning_rate)
    };
    let (few, many) = ("dataset.public_size=4096", "dataset.public_size=4097");
    assert_eq!(method(Profile::Quick, &[few]), (Method::Bitfit, 1e-2));
    // Of very few a batch is half.
    assert_eq!(
        method(Profile::Quick, &["dataset.public_size=100"]),
        (Method::Bitfit, 1e-2)
    );
    let lora = (Method::Lora, 1e-3);
    assert_eq!(method(Profile::Quick, &[many]), lora);
    assert_eq!(method(Profile::Quick, &[few, "finetune.expected_batch_size=255"]), lora);
    assert_eq!(method(Profile::Overnight, &[few]), lora);
    assert_eq!(method(Profile::Quick, &[few, "finetune.method=lora"]), lora);
    assert_eq!(method(Profile::Quick, &[few, "finetune.rank=4"]), lora);
    assert_eq!(
        method(Profile::Quick, &[few, "finetune.learning_rate=0.5"]),
        (Method::Lora, 0.5)
    );
}

/// A machine of two cores that trains and draws some hundred tokens a second, with the model that is built in.
fn two_cores() -> Basis {
    Basis {
        shape: model_shape().shape(),
        labels: 2,
        device: Device::flex(),
        rates: Rates {
            training: 160e9,
            sampling: 160e9,
            reading: 100e9,
            matmul: 200e9,
        },
        longest_text: 300,
        packed_file: None,
    }
}

fn spent(hours: f64, profile: Profile, overrides: &[&str]) -> Spent {
    let config = pipeline("imdb.toml", profile, overrides);
    spend(&config, &two_cores(), Hours::new(hours).expect("above 0")).expect("enough")
}

#[test]
fn hours_are_kept_and_more_of_them_make_more_of_everything() {
    let plans = [1.0, 2.0, 4.0, 8.0, 40.0].map(|hours| {
        let spent = spent(hours, Profile::Quick, &[]);
        assert!(
            spent.spending.total_s() <= hours * 3600.0 * 1.001,
            "{hours} h: {:?}",
            spent.spending
        );
        assert!(
            spent.spending.total_s() > 0.8 * hours * 3600.0 || hours == 40.0,
            "{hours} h are not used: {:?}",
            spent.spending
        );
        spent
    });
    let rises = |of: &dyn Fn(&Spent) -> usize| {
        let found: Vec<usize> = plans.iter().map(of).collect();
        assert!(found.is_sorted() && found[4] > found[0], "{found:?}");
    };
    rises(&|s| s.config.prepare.max_tokens);
    rises(&|s| s.training.proposed().draws() as usize * s.config.prepare.max_tokens);
    rises(&|s| s.config.sample.tokens.expect("by tokens"));
    assert_eq!(plans[4].records, 25_000, "as many as there are real ones");
    for plan in &plans {
        assert!(plan.records >= 2000 || plan.config.prepare.max_tokens == 64);
        let s = &plan.config.sample;
        assert_eq!(
            s.tokens.expect("by tokens"),
            plan.records * s.max_tokens.expect("a length")
        );
    }
}

#[test]
fn short_texts_stay_short_and_are_never_more_than_real_ones() {
    let config = pipeline("movie-snippets.toml", Profile::Overnight, &[]);
    let basis = Basis {
        longest_text: 64,
        ..two_cores()
    };
    let spent = spend(&config, &basis, Hours::new(8.0).expect("above 0")).expect("enough");
    let c = &spent.config;
    assert_eq!((c.prepare.max_tokens, c.sample.max_tokens), (64, Some(64)));
    assert_eq!(spent.records, 8_300);
    assert!(
        (8_300 - 8..=8_304).contains(&c.sample.most_records()),
        "{} at most, however short they are",
        c.sample.most_records()
    );
}

#[test]
fn without_a_pilot_records_are_counted_and_not_their_tokens() {
    let spent = spent(4.0, Profile::Quick, &["lexicon.share=0", "sample.guidance=0"]);
    let s = &spent.config.sample;
    assert_eq!((s.records, s.tokens), (spent.records, None));
    assert!(s.records > 2000, "{}", s.records);
}

#[test]
fn what_is_proposed_can_be_run_as_it_is_set() {
    let spent = spent(4.0, Profile::Overnight, &[]);
    let set: Vec<String> = spent
        .set()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let config = pipeline("imdb.toml", Profile::Overnight, &set);
    assert_eq!(config, spent.config);
    let (plan, offer) = (privacy_plan(&config).expect("a plan"), spent.training.proposed());
    assert_eq!(
        (plan.steps(), plan.noise_multiplier()),
        (offer.steps, offer.noise_multiplier)
    );
    let basis = two_cores();
    let reckoned = Reckoning {
        config: &config,
        basis: &basis,
    };
    let cost = reckoned.cost(plan.steps());
    let total = cost.finetune_s + cost.sample_s + cost.evaluate_s;
    assert!(
        (total / spent.spending.total_s() - 1.0).abs() < 1e-2,
        "{total} {:?}",
        spent.spending
    );
}

#[test]
fn the_lexicon_gets_what_training_can_spare() {
    let worth = |overrides: &[String]| {
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let request = plan_request(&config(&overrides));
        Offer::of(&request, ADAPTER).expect("a plan").worth
    };
    for epsilon in ["8", "1"] {
        let spent = spent(2.0, Profile::Quick, &[&format!("finetune.epsilon={epsilon}")]);
        let (l, offer) = (&spent.config.lexicon, spent.training.proposed());
        let with = |total: f64| {
            worth(&[
                format!("finetune.epsilon={epsilon}"),
                format!("finetune.steps={}", offer.steps),
                format!("finetune.expected_batch_size={}", offer.expected_batch_size),
                format!("lexicon.share={}", total * l.share),
                format!("lexicon.scorer_share={}", total * l.scorer_share),
            ])
        };
        assert!(with(1.0) >= 0.87 * with(0.0), "{l:?} leaves training too little");
        let total = l.share + l.scorer_share;
        let more = [0.2, 0.4, 0.6, 0.8, 0.9, 0.95]
            .into_iter()
            .find(|rung| *rung > total + 0.01);
        if let Some(more) = more {
            assert!(with(more / total) < 0.88 * with(0.0), "{l:?} could be more");
        }
    }
    // Counts of labels take half of epsilon here, so that the largest share cannot be paid at all.
    let half = [
        "finetune.label_histogram_epsilon=4",
        "lexicon.share=0.1",
        "lexicon.scorer_share=0.2",
    ];
    let l = spent(2.0, Profile::Quick, &half).config.lexicon;
    assert!(l.is_on() && l.share + l.scorer_share < 0.5, "{l:?}");
    let none = spent(2.0, Profile::Quick, &["lexicon.share=0"]);
    assert!(!none.config.lexicon.is_on() && !none.set().iter().any(|(key, _)| key.starts_with("lexicon")));
}

#[test]
fn a_time_that_does_not_hold_what_every_run_does_is_refused() {
    let config = config(&[]);
    let error = spend(&config, &two_cores(), Hours::new(0.01).expect("above 0")).expect_err("too few");
    assert!(
        error
            .to_string()
            .contains("are too few to train and to draw 128 records"),
        "{error}"
    );
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Hours::new(wrong).expect_err("refused").to_string().contains("above 0"));
    }
}

#[test]
fn a_configuration_is_held_against_its_own_draws() {
    let own = |batch: &str, steps: &str| respent(&config(&[batch, steps]), ADAPTER).expect("a plan");
    let (given, best) = own("finetune.expected_batch_size=100", "finetune.steps=100");
    let best = best.expect("10,000 draws are enough");
    assert_eq!((given.draws(), best.proposed().draws()), (10_000, 10_000));
    assert!(best.proposed().worth > 1.5 * given.worth);
    let (given, none) = own("finetune.expected_batch_size=4", "finetune.steps=2");
    assert_eq!((given.draws(), none), (8, None));
}

#[test]
fn every_pipeline_makes_a_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder)
        .expect("pipelines")
        .map(|e| e.expect("an entry").path());
    let names = files.filter_map(|f| Some(f.file_name()?.to_str()?.to_string()));
    for name in names.filter(|n| n.ends_with(".toml") && n != "assets.toml") {
        for profile in Profile::ALL {
            let config = pipeline(&name, profile, &[]);
            let plan = privacy_plan(&config).expect("within a budget");
            assert!(plan.epsilon_after(plan.steps()).expect("all steps") <= 8.0, "{name}");
            assert_eq!(
                format!("{}.toml", config.name),
                name,
                "runs are found by their pipeline's name"
            );
        }
    }
}

#[test]
fn no_review_is_drawn_that_is_negative_with_many_stars_or_positive_with_few() {
    let config = pipeline("imdb-rating.toml", Profile::Quick, &[]);
    let labels = LabelSpace::from_config(&config.dataset.labels).expect("labels");
    let counts = prior::counts(&config.sample.label_prior, None, labels.len(), 800).expect("a weight for each pair");
    for (pair, count) in counts.into_iter().enumerate() {
        let parts = labels.parts(pair);
        let [(_, sentiment), (_, stars)] = parts[..] else {
            panic!("two columns: {parts:?}")
        };
        let occurs = (sentiment == "positive") == (stars.parse::<u32>().expect("a number") > 5);
        assert_eq!(count, if occurs { 100 } else { 0 }, "{parts:?}");
    }
}

/// What `plan` says of a model of which nothing but its `config.json` is here.
#[test]
fn a_model_is_planned_by_its_config_alone() {
    let place = Place::new();
    let folder = place.path("7b");
    std::fs::create_dir(&folder).expect("a folder");
    let config = r#"{"model_type":"llama","hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,
        "num_attention_heads":32,"vocab_size":32000,"max_position_embeddings":4096,"rms_norm_eps":1e-5}"#;
    std::fs::write(folder.join("config.json"), config).expect("writes");
    let plan = ["plan", "tiny.toml", "--profile", "quick", "--set", "model=./7b"];
    let json = |more: &[&str]| -> serde_json::Value {
        let said = place.ok(&[&plan[..], &["--json"], more].concat());
        serde_json::from_str(&said.stdout).expect("JSON")
    };
    let of = |found: &serde_json::Value, method: &str, precision: &str, key: &str| {
        let ways = found["fits"]["ways"].as_array().expect("ways").clone();
        let way = ways
            .iter()
            .find(|way| way["method"] == method && way["precision"] == precision);
        way.expect("a way")[key].as_f64().expect("a number")
    };
    let h200 = json(&["--gpu", "h200"]);
    assert_eq!(h200["fits"]["of"], "h200");
    assert!(h200["cost"].is_null(), "how fast another machine is, is not known");
    // 6.7 billion weights: 3.5 GB in NF4, 27 in f32; all of them in training six times that and more.
    let [packed, whole, all] = ["qlora", "lora", "full"].map(|method| of(&h200, method, "f32", "least_bytes") / 1e9);
    assert!(
        (5.0..9.0).contains(&packed) && (50.0..60.0).contains(&whole) && all > 200.0,
        "{packed} {whole} {all}"
    );
    assert!(of(&h200, "lora", "bf16", "least_bytes") < 1e9 * whole);
    let fits = |gpu: &str, method: &str| of(&json(&["--gpu", gpu]), method, "f32", "micro_batch_size");
    assert!(fits("h200", "lora") > 0.0 && fits("rtx-4090", "qlora") > 0.0 && fits("t4", "qlora") > 0.0);
    assert_eq!((fits("rtx-4090", "lora"), fits("h200", "full")), (0.0, 0.0));
    let said = place.ok(&[&plan[..], &["--gpu", "rtx-4090"]].concat()).stdout;
    assert!(
        said.contains("rtx-4090") && said.contains("at once") && said.contains("too large"),
        "{said}"
    );
    let here = json(&[]);
    assert_eq!(here["fits"]["of"], "here");
    assert!(
        here["cost"]["parameters"].as_u64() == Some(6_738_415_616),
        "{}",
        here["cost"]
    );
    let refused = place.call(&[&plan[..], &["--hours", "1"]].concat());
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let refused = place.call(&["plan", "tiny.toml", "--gpu", "abacus"]);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("h100"),
        "{}",
        refused.stderr
    );
}
