//! The lexicon: what a unit adds to its counts and to the scorer's gradients, and how decoding is lifted by it.

use dpsynth::evaluation::encoder::EncoderFiles;
use dpsynth::models::cache::Way;
use dpsynth::pipeline::scorers::Encoder;
use dpsynth::privacy::{Batches, ChargedSums, LabelScorer, Ledger, NoiseKind, PlanRequest, PrivacyPlan, SCORER, Unit};
use dpsynth::records::Units;
use dpsynth::sampling::choose::Choice;
use dpsynth::sampling::decode::{Decoder, Decoding, Request};
use dpsynth::sampling::evidence::{Evidence, Weights};
use dpsynth::sampling::lexicon::Lexicon;
use dpsynth::training::lexicon::{Seen, counts, places, seen};
use dpsynth::training::scorer::{self, Labelled, Scored};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use crate::common::{Place, QUICK_AUDIT};
use crate::support::*;

const VOCABULARY: usize = 40;

fn record(rng: &mut ChaCha8Rng) -> Seen {
    let length = rng.random_range(0..30);
    let tokens = (0..length).map(|_| rng.random_range(0..VOCABULARY as u32)).collect();
    seen(rng.random_range(0..3), tokens)
}

fn norm(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Units of one to three records, and the same with one more.
fn neighbours(rng: &mut ChaCha8Rng, records: usize) -> (Units<Seen>, Units<Seen>) {
    let (mut without, mut with) = (Units::empty(), Units::empty());
    for unit in 0..20 {
        let own: Vec<Seen> = (0..rng.random_range(1..=records)).map(|_| record(rng)).collect();
        if unit != 7 {
            without.push(own.clone());
        }
        with.push(own);
    }
    (without, with)
}

/// What a scorer gives a record for three labels: anything, up to some hundreds of nats.
fn scores(record: &Seen, scorer: usize) -> Vec<f32> {
    let of = |label: usize, t: u32| ((t as usize + 7) * (label + 2) * (scorer + 3) % 23) as f32 - 11.0;
    let sum = |label| record.features.iter().map(|t| of(label, *t)).sum();
    (0..3).map(sum).collect()
}

#[test]
fn p5_no_unit_moves_the_counts_by_more_than_the_norm() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (records, max_norm) in [(1, 2.0), (1, 100.0), (3, 2.0), (3, 0.1)] {
        let mut largest = 0f64;
        for _ in 0..50 {
            let (without, with) = neighbours(&mut rng, records);
            let of = |units: &Units<Seen>| counts(units, 3, VOCABULARY, max_norm);
            largest = largest.max(norm(&of(&with), &of(&without)));
        }
        assert!(largest <= max_norm * (1.0 + 1e-9), "{records} {max_norm}: {largest}");
        // The bound is met, where records are longer than it.
        assert!(
            max_norm > 50.0 || records > 1 || largest > 0.999 * max_norm,
            "{largest}"
        );
    }
}

/// A plan whose scorers have so many sums, with next to no noise.
fn request(steps: u64, max_norm: f64) -> PlanRequest {
    PlanRequest {
        target_epsilon: 1e4,
        delta: Some(1e-6),
        public_size: 100,
        expected_batch_size: 1,
        steps: 1,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: vec![SCORER.planned(
            LabelScorer {
                noise_multiplier: 0.06,
                steps,
                max_norm,
            },
            1,
        )],
        seed: Some(5),
    }
}

/// One step with next to no noise shows the sum of bounded gradients.
#[test]
fn p5_no_unit_moves_a_scorers_gradient_by_more_than_the_norm() {
    let folder = tempfile::tempdir().unwrap();
    let max_norm = 0.5;
    let begin = [vec![0.1; VOCABULARY], vec![-0.2; VOCABULARY], vec![0.0; VOCABULARY]];
    let tokens: Vec<u32> = (0..VOCABULARY as u32).collect();
    let name = Cell::new(0);
    let after = |units: usize, learn: &dyn Fn(ChargedSums) -> Vec<Vec<f32>>| -> Vec<f64> {
        name.set(name.get() + 1);
        let name = name.get();
        let plan = PrivacyPlan::calibrate(&request(1, max_norm)).expect("a plan");
        let ledger = Ledger::open(folder.path(), &format!("d{name}"), 1e6, 1e-6, &Unit::Record).expect("opens");
        // One name and one seed: both draw the same noise.
        let mut run = plan.begin(ledger, "run", units).expect("begins");
        let weights = learn(run.charge(SCORER).expect("charged"));
        weights.concat().iter().map(|w| f64::from(*w)).collect()
    };
    let by_tokens = |units: &Units<Seen>| {
        let features = places(units, &tokens);
        after(units.len(), &|mut sums| {
            scorer::learn(&features, &begin, 100, &mut sums, 1).expect("learns")
        })
    };
    // The same records as vectors of any length.
    let by_vectors = |units: &Units<Seen>| {
        let mut points = Units::empty();
        for unit in 0..units.len() {
            let point = |record: &Seen| {
                let mut features = vec![0f32; VOCABULARY];
                let own = record.features.iter();
                own.for_each(|t| features[*t as usize] = 0.3 * (*t as f32 - 20.0));
                Labelled {
                    label: record.label,
                    features,
                }
            };
            points.push(units.records(unit).iter().map(point).collect());
        }
        after(units.len(), &|mut sums| {
            scorer::learn(&points, &begin, 100, &mut sums, 1).expect("learns")
        })
    };
    // What two scorers say of them, of any size.
    let scored = |units: &Units<Seen>| {
        let mut out: Units<Scored> = Units::empty();
        for unit in 0..units.len() {
            let of = |record: &Seen| Labelled {
                label: record.label,
                features: (0..2).map(|k| scores(record, k)).collect(),
            };
            out.push(units.records(unit).iter().map(of).collect());
        }
        out
    };
    let by_weights = |units: &Units<Seen>| {
        let scored = scored(units);
        after(units.len(), &|mut sums| {
            vec![scorer::weigh(&scored, 2, 100, &mut sums, 1).expect("weighs")]
        })
    };
    let by_looking = |units: &Units<Seen>| {
        let scored = scored(units);
        after(units.len(), &|mut sums| {
            let shown = scorer::shown(&scored, 0.1, &[0.1, 0.05], 12, &mut sums).expect("looks");
            vec![vec![shown.all as f32]]
        })
    };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    // A step moves values by 5 · sum / public size.
    let a_unit = 5.0 * max_norm / 100.0;
    for records in [1, 3] {
        let mut largest = [0f64; 2];
        let mut weighed = [0f64; 2];
        for _ in 0..20 {
            let (without, with) = neighbours(&mut rng, records);
            largest[0] = largest[0].max(norm(&by_tokens(&with), &by_tokens(&without)));
            largest[1] = largest[1].max(norm(&by_vectors(&with), &by_vectors(&without)));
            weighed[0] = weighed[0].max(norm(&by_weights(&with), &by_weights(&without)));
            weighed[1] = weighed[1].max(norm(&by_looking(&with), &by_looking(&without)));
        }
        // Weights move by 1 · sum / public size; what is looked at by sum / public size.
        for (moved, most) in weighed.into_iter().zip([max_norm / 100.0, 1.0 / 12.0]) {
            assert!(moved <= most * 1.001, "{records}: {moved} of {most}");
            assert!(records > 1 || moved > 0.8 * most, "{moved} of {most}");
        }
        for largest in largest {
            assert!(largest <= a_unit * 1.001, "{records}: {largest} of {a_unit}");
            assert!(records > 1 || largest > 0.8 * a_unit, "{largest} of {a_unit}");
        }
    }
}

/// The second scorer says the opposite of every label: it is left out, not believed the other way round.
#[test]
fn a_scorer_that_errs_is_not_trusted() {
    let scored = (0..100).map(|i| {
        let own = |label: usize| if label == i % 2 { 1.0 } else { -1.0 };
        Scored {
            label: i % 2,
            features: vec![vec![own(0), own(1)], vec![-own(0), -own(1)]],
        }
    });
    let units = Units::of_records(scored.collect());
    let folder = tempfile::tempdir().unwrap();
    let plan = PrivacyPlan::calibrate(&request(31, 0.5)).expect("a plan");
    let ledger = Ledger::open(folder.path(), "d", 1e6, 1e-6, &Unit::Record).expect("opens");
    let mut run = plan.begin(ledger, "run", 100).expect("begins");
    let mut sums = run.charge(SCORER).expect("charged");
    let trusts = scorer::weigh(&units, 2, 100, &mut sums, 30).expect("weighs");
    assert!(trusts[0] > 0.5 && trusts[1] == 0.0, "{trusts:?}");

    let shown = scorer::shown(&units, 9.0, &[9.0, 0.0], 100, &mut sums).expect("looks");
    assert!(shown.clear_share > 0.9, "{shown:?}");
}

/// In few records of many labels noise leaves little to learn, and then the model judges.
#[test]
fn scorers_that_rarely_find_a_label_judge_nothing() {
    let mut lexicon = Lexicon::of(&[400.0; 40], 2, 3.0, &|token| Some(token.to_string()));
    assert!(!lexicon.judges(), "there are no scorers");
    lexicon.trust = vec![1.0];
    assert!(lexicon.judges(), "a lexicon of an earlier version");
    lexicon.clear_share = Some(0.6);
    assert!(lexicon.judges());
    lexicon.clear_share = Some(0.1);
    assert!(!lexicon.judges());
}

/// Two labels with words of their own: the lexicon finds them, and the scorer tells records apart.
#[test]
fn a_lexicon_knows_the_words_of_its_labels() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let records: Vec<Seen> = (0..4000)
        .map(|i| {
            let label = i % 2;
            let own = [1, 2, 3].map(|word| word + 10 * label as u32);
            let mut tokens: Vec<u32> = (0..6).map(|_| rng.random_range(20..VOCABULARY as u32)).collect();
            tokens.push(own[rng.random_range(0..3)]);
            seen(label, tokens)
        })
        .collect();
    let units = Units::of_records(records);
    let sums = counts(&units, 2, VOCABULARY, 10.0);
    let noisy: Vec<f32> = sums.iter().map(|v| (v + rng.random_range(-5.0..5.0)) as f32).collect();
    let lexicon = Lexicon::of(&noisy, 2, 3.0, &|token| (token != 20).then(|| token.to_string()));
    let mut telling = lexicon.tokens[..6].to_vec();
    telling.sort_unstable();
    assert_eq!(telling, [1, 2, 3, 11, 12, 13]);
    assert!(!lexicon.tokens.contains(&20), "a token that is none of a record's");
    assert!(!lexicon.tokens.contains(&0), "a token that no record has");
    let evidence = Evidence::new(lexicon.evidence());
    assert!(evidence.score(&[2, 30, 31], 0) > 1.0 && evidence.score(&[12, 30, 31], 0) < -1.0);
}

// ---------------------------------------------------------------------------------------------- decoding

const END: u32 = 2;

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 50, 60, 70], vec![1, 80], vec![1, 90, 100, 110, 120]]
}

fn decoding(guidance: f64) -> Decoding {
    Decoding {
        choice: Choice {
            guidance,
            ..Choice::PLAIN
        },
        guidance_end: None,
        contrasts: 2,
        max_tokens: 24,
        end: END,
        seed: 11,
    }
}

fn requests() -> Vec<Request> {
    let of = |id| Request {
        id,
        attempt: 0,
        label: id as usize % 3,
    };
    (0..18).map(of).collect()
}

/// Every third token speaks for a label.
fn evidence(vocabulary: usize) -> Evidence {
    let tokens: Vec<u32> = (3..vocabulary as u32).step_by(3).collect();
    let of = |label: u32| {
        tokens
            .iter()
            .map(|t| if t % 9 / 3 == label { 2.0 } else { -0.5 })
            .collect()
    };
    Evidence::new(Weights {
        of_labels: (0..3).map(of).collect(),
        tokens,
    })
}

#[test]
fn without_weight_a_lexicon_changes_no_bit() {
    let model = model();
    let evidence = evidence(model.shape().vocabulary);
    for guidance in [0.0, 1.0] {
        let plain = Decoder::new(&model, &prompts(), decoding(guidance)).unwrap();
        let without = Decoder::new(&model, &prompts(), decoding(guidance)).unwrap();
        let without = without.lifted(evidence.clone(), 0.0);
        assert_eq!(plain.decode(&requests(), 6), without.decode(&requests(), 6));
        let with = Decoder::new(&model, &prompts(), decoding(guidance)).unwrap();
        let with = with.lifted(evidence.clone(), 1.0).decode(&requests(), 6);
        assert_ne!(plain.decode(&requests(), 6), with);
        // What it says of the labels shows.
        let shown = |records: &[Vec<u32>]| -> f64 {
            let of = |(request, tokens): (&Request, &Vec<u32>)| evidence.score(tokens, request.label);
            requests().iter().zip(records).map(of).sum::<f64>() / 18.0
        };
        assert!(shown(&with) > shown(&plain.decode(&requests(), 6)) + 2.0);
    }
}

/// Tokens that are lifted whatever the label, one of them beside the evidence's: they occur more often, once a record.
#[test]
fn tokens_of_the_domain_are_lifted_whatever_the_label() {
    let model = model();
    let evidence = evidence(model.shape().vocabulary);
    let tokens = [evidence.tokens()[0], 11];
    let by = |way, beta, value: f32| {
        let lifted = evidence.clone().beside(&tokens, vec![value; 2].into_iter());
        let decoder = Decoder::by(way, &model, &prompts(), decoding(0.0)).unwrap();
        decoder.lifted(lifted, beta).decode(&requests(), 6)
    };
    let with = |records: &[Vec<u32>]| {
        let has = |record: &&Vec<u32>| tokens.iter().any(|token| record.contains(token));
        records.iter().filter(has).count()
    };
    let plain = Decoder::new(&model, &prompts(), decoding(0.0)).unwrap();
    assert_eq!(plain.decode(&requests(), 6), by(Way::Memory, 0.0, 0.0));
    let (more, fewer) = (by(Way::Memory, 0.0, 6.0), by(Way::Memory, 0.0, -25.0));
    assert_eq!((with(&more), with(&fewer)), (requests().len(), 0));
    assert_eq!(by(Way::Memory, 1.0, 2.0), by(Way::Tensors, 1.0, 2.0));

    // What is lifted for any label says nothing of one.
    let lifted = evidence.clone().beside(&tokens, vec![6.0; 2].into_iter());
    assert_eq!(evidence.scores(&more[0]), lifted.scores(&more[0]));
}

#[test]
fn a_lifted_record_does_not_depend_on_its_batch_or_on_the_kind_of_device() {
    let model = model();
    let evidence = evidence(model.shape().vocabulary);
    for guidance in [0.0, 1.0] {
        let by = |way| Decoder::by(way, &model, &prompts(), decoding(guidance)).unwrap();
        let memory = by(Way::Memory).lifted(evidence.clone(), 1.5);
        let tensors = by(Way::Tensors).lifted(evidence.clone(), 1.5);
        let together = memory.decode(&requests(), 18);
        let alone: Vec<Vec<u32>> = requests().iter().flat_map(|r| memory.decode(&[*r], 1)).collect();
        assert_eq!(together, alone);
        assert_eq!(together, tensors.decode(&requests(), 5));
    }
}

// -------------------------------------------------------------------------------------------- a whole run

/// A tiny encoder, whose vectors say little.
fn encoder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert")
}

fn settings(more: &[&str]) -> Vec<String> {
    let own = [
        format!("model.path={}", fixture("model.gguf").display()),
        format!("lexicon.encoder={}", encoder().display()),
        "finetune.epsilon=300".into(),
        "dataset.total_epsilon=1000".into(),
        "lexicon.share=0.2".into(),
        "lexicon.scorer_share=0.2".into(),
        "sample.records=30".into(),
        "sample.tokens=500".into(),
        "sample.refine.min_posterior=0.01".into(),
        "release.license=cc-by-4.0".into(),
    ];
    let all = own.into_iter().chain(more.iter().map(|s| s.to_string()));
    all.flat_map(|setting| ["--set".to_string(), setting]).collect()
}

fn stages(place: &Place, names: &[&str], settings: &[String]) {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    names.iter().for_each(|stage| drop(place.done(stage, &settings)));
}

/// Uses of a release in the ledger.
fn charged(place: &Place, release: &str) -> usize {
    let text = std::fs::read_to_string(place.ledger()).expect("reads");
    let used = text.lines().filter(|line| line.contains("\"kind\":\"use\""));
    used.filter(|line| line.contains(&format!("\"{release}\""))).count()
}

/// Counted, learned, drawn by, shown, audited and released; and what was counted is the ledger's.
#[test]
fn a_run_with_a_lexicon_goes_the_whole_way() {
    let place = Place::new();
    stages(&place, &["prepare", "finetune", "sample"], &settings(&[]));
    let lexicon = place.json("runs/tiny-quick/model/lexicon.json");
    let words = lexicon["words"].as_array().expect("words");
    assert!(!words.is_empty() && words.len() == lexicon["tokens"].as_array().expect("tokens").len());
    for scorer in ["scorer", "sense"] {
        assert!(lexicon[scorer].as_array().is_some_and(|s| s.len() == 2), "{lexicon}");
    }
    let guarantee = place.json("runs/tiny-quick/model/privacy.json");
    let epsilon = guarantee["epsilon"].as_f64().expect("epsilon");
    assert!(epsilon <= 300.0 && guarantee["scorer_steps"] == 101, "{guarantee}");
    assert_eq!((charged(&place, "lexicon"), charged(&place, "scorer")), (1, 1));

    // How much it lifts was found, and what it was found by is kept.
    let found = &place.json("runs/tiny-quick/sampling/synthetic.json")["lexicon_weight"];
    assert_eq!(found["target"], lexicon["shown_clear"], "{found}");
    assert!(
        found["tried"].as_array().is_some_and(|tried| !tried.is_empty()),
        "{found}"
    );

    // So is what the domain's tokens were lifted by: a figure for each token of the lexicon.
    let domain = &place.json("runs/tiny-quick/sampling/domain.json")["log_ratios"];
    assert_eq!(
        domain.as_array().map(Vec::len),
        lexicon["tokens"].as_array().map(Vec::len)
    );

    // Records are short, and there are tokens for more of them.
    let kept = place.json("runs/tiny-quick/sampling/synthetic.json")["kept"].as_u64();
    assert!(kept.is_some_and(|kept| kept > 30 && kept <= 240), "{kept:?}");

    // Drawn again by the same lexicon.
    place.audit();
    let page = place.text("runs/tiny-quick/report.html");
    assert!(page.contains("What the lexicon knows"), "the report shows it");
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
    place.ok(&["verify", "bundle"]);
    let card = place.text("bundle/README.md");
    assert!(
        card.contains("trained privately as a part of the guarantee, scored its records"),
        "{card}"
    );
    assert!(card.contains("more often than the model writes them"), "{card}");

    // Other counts are none of the run's.
    let path = place.run("model/lexicon.json");
    let own = std::fs::read(&path).expect("reads");
    let other = String::from_utf8_lossy(&own).replacen("\"noise\":", "\"noise\":1", 1);
    std::fs::write(&path, other).expect("writes");
    let said = place.call(&QUICK_AUDIT);
    assert_ne!(said.code, Some(0), "{said:?}");
}

/// What was paid for and lost stays charged, all of it, and the run can still be released.
#[test]
fn p7_a_lexicon_lost_between_charge_and_file_stopped_every_release() {
    let place = Place::new();
    stages(&place, &["prepare", "finetune"], &settings(&[]));
    // As if it had been killed once the counts were charged.
    for file in [
        "model/lexicon.json",
        "model/trained.safetensors",
        "model/privacy.json",
        "internal/checkpoint.safetensors",
    ] {
        std::fs::remove_file(place.run(file)).expect("removes");
    }
    let stamp = "runs/tiny-quick/internal/stamps/finetune.json";
    place.write(stamp, place.text(stamp).replace("\"done\":true", "\"done\":false"));
    let mut lived = true;
    place.forge_ledger(|line| {
        let keep = lived;
        lived &= line["release"] != "lexicon" || line["kind"] != "use";
        keep
    });
    assert_eq!((charged(&place, "lexicon"), charged(&place, "scorer")), (1, 0));
    let settings = settings(&[]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let said = place.done("finetune", &settings);
    assert!(said.stderr.contains("paid for and lost"), "{}", said.stderr);
    assert_eq!((charged(&place, "lexicon"), charged(&place, "scorer")), (1, 1));
    place.done("sample", &settings);
    place.audit();
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
}

/// A file that is there by chance, or was put there, lifts nothing where none is planned.
#[test]
fn a_lexicon_that_was_not_planned_is_not_used() {
    let place = Place::new();
    let plain = settings(&["lexicon.share=0"]);
    stages(&place, &["prepare", "finetune"], &plain);
    std::fs::write(place.run("model/lexicon.json"), "{}").expect("writes");
    stages(&place, &["sample"], &plain);
}

#[test]
fn settings_of_a_lexicon_that_mean_nothing_are_refused() {
    let place = Place::new();
    for set in [
        &["lexicon.share=1"][..],
        &["lexicon.share=0.6", "lexicon.scorer_share=0.5"],
        &["lexicon.encoder=nobody-knows-it"],
    ] {
        let all = settings(set);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let said = place.stage("prepare", &all);
        assert_eq!(said.code, Some(2), "{set:?}: {said:?}");
    }
}

/// The vectors that a scorer learns from: a record more or less changes no bit of another's.
#[test]
fn p5_a_records_vector_does_not_depend_on_the_others() {
    let files = EncoderFiles::in_folder(&encoder());
    let encoder = Encoder::open(&files, 32).expect("opens");
    let texts = [
        "a",
        "a longer text than the first, of many words",
        "bad",
        "good film",
        "x y z w v u t s r q",
    ];
    let together = encoder.embed(texts).expect("embeds");
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(encoder.embed([*text]).expect("embeds")[0], together[i], "{text}");
        let others = texts
            .iter()
            .copied()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(_, t)| t);
        let without = encoder.embed(others).expect("embeds");
        let mut expected = together.clone();
        expected.remove(i);
        assert_eq!(without, expected);
    }
}
