//! What synthetic records are like, beside real ones: each measure against independent numbers, and how it behaves.

use crate::support::device;
use std::cell::Cell;
use std::path::PathBuf;

use crate::common::Place;
use dpsynth::config::QualityConfig;
use dpsynth::error::Kind;
use dpsynth::evaluation::Example;
use dpsynth::evaluation::embed::SentenceEncoder;
use dpsynth::evaluation::encoder::EncoderFiles;
use dpsynth::evaluation::quality::disclosures::{Kind as Disclosed, disclosures};
use dpsynth::evaluation::quality::duplicates::near_duplicates;
use dpsynth::evaluation::quality::lengths::Lengths;
use dpsynth::evaluation::quality::mauve::{FEWEST, Mauve, area};
use dpsynth::evaluation::quality::memorisation::Spans;
use dpsynth::evaluation::quality::ngrams::{distinct, jensen_shannon};
use dpsynth::evaluation::quality::spans::SpanIndex;
use dpsynth::evaluation::quality::words::{Lexicon, Words, words};
use dpsynth::evaluation::quality::{Compared, Measurement, Memorisation, Quality, Sides, frechet, measure};
use dpsynth::progress::Silent;
use dpsynth::{Error, Result};
use serde_json::Value;

const MODEL: &str = concat!(
    "model.path=\"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/llama/model.gguf\""
);

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap().to_string())
        .collect()
}

fn vectors(value: &Value) -> Vec<Vec<f32>> {
    let row = |row: &Value| numbers(row).iter().map(|v| *v as f32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

#[track_caller]
fn close(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() < tolerance, "{ours} is not {theirs}");
}

/// Both sets of the fixture's texts, as words of one lexicon.
fn both(expected: &Value) -> [Vec<Words>; 2] {
    let mut lexicon = Lexicon::default();
    ["a", "b"].map(|set| {
        let texts = texts(&expected[set]);
        lexicon.read(texts.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// Texts of twelve to nineteen words out of 97 made-up ones that begin with `kind`; the label is told by a word of all
/// kinds. `seed` changes all else.
fn records(kind: &str, count: usize, seed: usize) -> Vec<Example> {
    let mut state = seed as u64 * 7_919 + 17;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..count)
        .map(|i| {
            let label = i % 2;
            let mut words: Vec<String> = (0..12 + next(8)).map(|_| format!("{kind}{}", next(97))).collect();
            words[next(12)] = ["awful", "great"][label].to_string();
            Example {
                text: words.join(" "),
                label,
            }
        })
        .collect()
}

fn encoder() -> SentenceEncoder {
    SentenceEncoder::open(&EncoderFiles::in_folder(&fixture("bert")), 24, &device()).unwrap()
}

fn no_encoder() -> Result<Option<SentenceEncoder>> {
    Ok(None)
}

/// All measures of four sets, or only those without an encoder.
fn measured(sides: [&[Example]; 4], with_encoder: bool) -> Quality {
    let [training, held_out, synthetic, zero_shot] = sides;
    let sides = Sides {
        training,
        held_out,
        synthetic,
        zero_shot,
    };
    let measurement = Measurement {
        sides,
        set_apart: &[],
        num_labels: 2,
        config: &QualityConfig::default(),
        encoder: &|| Ok(with_encoder.then(encoder)),
    };
    measure(&measurement, None, &mut |_| Ok(()), &|| false, &Silent).unwrap()
}

/// What memorisation says of `synthetic`, with training and held-out records that have little in common.
fn memorised(synthetic: Vec<Example>) -> Memorisation {
    let training = records("w", 300, 0);
    let held_out = records("w", 100, 1);
    measured([&training, &held_out, &synthetic, &held_out], false)
        .memorisation
        .unwrap()
}

// ---- sentence vectors

#[test]
fn a_sentence_vector_is_the_mean_of_pytorchs_hidden_states_at_length_1() {
    let expected = json("bert/expected.json");
    let texts: Vec<&str> = expected["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    let ours = encoder().embed(texts, &mut |_| Ok(())).unwrap();
    for (ours, states) in ours.iter().zip(expected["hidden_states"].as_array().unwrap()) {
        let states = states.as_array().unwrap();
        let mean: Vec<f64> = (0..encoder().width())
            .map(|j| states.iter().map(|s| s[j].as_f64().unwrap()).sum::<f64>() / states.len() as f64)
            .collect();
        let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (ours, mean) in ours.iter().zip(&mean) {
            assert!(
                (f64::from(*ours) - mean / length).abs() < 1e-4,
                "{ours} {}",
                mean / length
            );
        }
    }
}

#[test]
fn a_sentence_vector_does_not_depend_on_the_texts_beside_it() {
    let texts = ["the film was great", "", "it was not very good, and the story so bad!"];
    let encoder = encoder();
    let together = encoder.embed(texts, &mut |_| Ok(())).unwrap();
    for (text, together) in texts.into_iter().zip(&together) {
        let alone = &encoder.embed([text], &mut |_| Ok(())).unwrap()[0];
        assert!(alone.iter().zip(together).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

// ---- measures against independent numbers

#[test]
fn words_are_those_of_a_regular_expression() {
    let expected = json("quality.json");
    let theirs: Vec<Vec<String>> = expected["words"].as_array().unwrap().iter().map(texts).collect();
    let ours: Vec<Vec<String>> = texts(&expected["a"])
        .iter()
        .take(theirs.len())
        .map(|t| words(t))
        .collect();
    assert_eq!(ours, theirs);
    // A copied sentence stays one whatever is put between its letters that nobody sees.
    assert_eq!(words("so\u{AD}ft wo\u{200B}rd\u{FEFF}s"), ["soft", "words"]);
    // Where a script has no spaces a copied sentence must not look like one unknown word.
    assert_eq!(words("很好 film好a"), ["很", "好", "film", "好", "a"]);
    assert_eq!(words(" ,. "), Vec::<String>::new());
}

#[test]
fn lengths_and_their_distance_are_those_of_numpy_and_scipy() {
    let expected = json("quality.json");
    let [a, b] = both(&expected);
    let lengths = Lengths::between(&a, &b).unwrap();
    close(lengths.wasserstein, number(&expected["wasserstein"]), 1e-9);
    for (ours, theirs) in lengths.quantiles.iter().zip(numbers(&expected["quantiles"])) {
        close(*ours, theirs, 1e-9);
    }
}

#[test]
fn ngram_divergence_is_that_of_scipy() {
    let expected = json("quality.json");
    let [a, b] = both(&expected);
    for (n, theirs) in (1..).zip(numbers(&expected["divergence"])) {
        close(jensen_shannon(&a, &b, n).unwrap(), theirs, 1e-9);
        close(jensen_shannon(&b, &a, n).unwrap(), theirs, 1e-9);
    }
}

#[test]
fn distinct_ngrams_are_those_counted_in_python() {
    let expected = json("quality.json");
    let [_, b] = both(&expected);
    let words = expected["distinct_words"].as_u64().unwrap() as usize;
    for (n, theirs) in (1..).zip(numbers(&expected["distinct"])) {
        close(distinct(&b, n, words).unwrap(), theirs, 1e-12);
    }
}

#[test]
fn near_duplicates_are_those_of_all_pairs_compared() {
    let expected = json("quality.json");
    let [_, b] = both(&expected);
    let theirs: Vec<bool> = expected["near_duplicates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_bool().unwrap())
        .collect();
    assert_eq!(near_duplicates(&b), theirs);
}

#[test]
fn longest_common_spans_are_those_of_the_textbooks_table() {
    let expected = json("quality.json");
    let [a, b] = both(&expected);
    let index = SpanIndex::new(&a);
    for (record, theirs) in b.iter().zip(numbers(&expected["spans"])) {
        let span = index.longest(record);
        assert_eq!(span.words, theirs as usize);
        // It stands where it is said to stand.
        let words = &record[span.at..][..span.words];
        assert!(words.is_empty() || a[span.record].windows(words.len()).any(|w| w == words));
    }
}

#[test]
fn p_value_of_the_memorisation_check_is_that_of_fishers_exact_test() {
    let spans = |over_limit, records| Spans {
        records,
        quantiles: [0.0; 4],
        longest: 12,
        over_limit,
        exact_copies: 0,
    };
    for case in json("quality.json")["fisher"].as_array().unwrap() {
        let [a, n, b, m] = [0, 1, 2, 3].map(|i| case["counts"][i].as_u64().unwrap() as usize);
        let memorisation = Memorisation {
            limit: 10,
            spans: Compared {
                synthetic: spans(a, n),
                zero_shot: spans(0, n),
                reference: spans(b, m),
            },
            worst: Vec::new(),
        };
        let theirs = number(&case["p"]);
        close(memorisation.check().p_value / theirs, 1.0, 1e-6);
    }
}

#[test]
fn area_under_the_divergence_curve_is_that_of_the_authors() {
    for case in json("quality.json")["areas"].as_array().unwrap() {
        close(
            area(&numbers(&case["p"]), &numbers(&case["q"])),
            number(&case["area"]),
            1e-9,
        );
    }
}

#[test]
fn mauve_is_that_of_the_authors() {
    let clouds = &json("quality.json")["clouds"];
    // Where clusters lie apart there is one answer; else theirs depends on the seed of their k-means by some 0.06, and
    // ours is another one.
    for (name, tolerance) in [("apart", 1e-6), ("mixed", 0.02)] {
        let cloud = &clouds[name];
        let ours = Mauve::between(&vectors(&cloud["a"]), &vectors(&cloud["b"])).unwrap();
        for (ours, theirs) in [
            (ours.plain, &cloud["mauve"]["plain"]),
            (ours.smoothed, &cloud["mauve"]["smoothed"]),
        ] {
            let (low, high) = (number(&theirs[0]) - tolerance, number(&theirs[1]) + tolerance);
            assert!((low..=high).contains(&ours), "{name}: {ours} of {theirs}");
        }
    }
}

#[test]
fn frechet_distance_is_that_of_scipy() {
    for cloud in json("quality.json")["clouds"].as_object().unwrap().values() {
        let (a, b) = (vectors(&cloud["a"]), vectors(&cloud["b"]));
        close(frechet::distance(&a, &b).unwrap(), number(&cloud["frechet"]), 1e-6);
    }
}

// ---- how they behave

#[test]
fn the_same_records_on_all_sides_are_at_distance_0() {
    let same = records("w", 60, 0);
    let q = measured([&same; 4], true);
    let (lengths, divergence, meaning) = (q.lengths.unwrap(), q.divergence.unwrap(), q.meaning.unwrap());
    for ((l, d), m) in lengths.each().into_iter().zip(divergence.each()).zip(meaning.each()) {
        assert_eq!(l.wasserstein, 0.0);
        close(d.unigrams.unwrap() + d.bigrams.unwrap(), 0.0, 1e-12);
        close(m.mauve.unwrap().plain, 1.0, 1e-6);
        close(m.mauve.unwrap().smoothed, 1.0, 1e-6);
        close(m.frechet.unwrap(), 0.0, 1e-5);
    }
    let fidelity = q.label_fidelity.unwrap();
    assert_eq!(fidelity.synthetic, fidelity.reference);
    let spans = q.memorisation.unwrap().spans;
    assert_eq!((spans.synthetic.exact_copies, spans.synthetic.records), (60, 60));
}

#[test]
fn records_with_nothing_in_common_are_as_far_apart_as_can_be() {
    let real = records("w", 60, 0);
    let mut strange = records("v", 60, 0);
    strange
        .iter_mut()
        .for_each(|e| e.text = e.text.replace("great", "fine").replace("awful", "poor"));
    let q = measured([&real, &records("w", 60, 1), &strange, &strange], false);
    let divergence = q.divergence.unwrap().synthetic;
    close(divergence.unigrams.unwrap(), 1.0, 1e-12);
    close(divergence.bigrams.unwrap(), 1.0, 1e-12);
    assert_eq!(q.memorisation.unwrap().spans.synthetic.longest, 0);
    let corner = |x: f32| -> Vec<Vec<f32>> { (0..60).map(|i| vec![x, 1.0 - x, i as f32 * 1e-3]).collect() };
    let mauve = Mauve::between(&corner(0.0), &corner(1.0)).unwrap();
    assert!(mauve.plain < 0.01 && mauve.smoothed < 0.1, "{mauve:?}");
    assert!(frechet::distance(&corner(0.0), &corner(1.0)).unwrap() > 1.9);
}

#[test]
fn labels_that_have_come_apart_from_their_texts_show() {
    let (real, held_out) = (records("w", 200, 0), records("w", 100, 1));
    let synthetic = records("w", 100, 2);
    let mut swapped = synthetic.clone();
    swapped.iter_mut().for_each(|e| e.label = 1 - e.label);
    let fidelity = measured([&real, &held_out, &synthetic, &swapped], false)
        .label_fidelity
        .unwrap();
    assert!(
        fidelity.synthetic.agreement > 0.95 && fidelity.reference.agreement > 0.95,
        "{fidelity:?}"
    );
    close(fidelity.zero_shot.agreement, 1.0 - fidelity.synthetic.agreement, 1e-12);
}

#[test]
fn the_order_of_records_does_not_matter() {
    let [a, b] = ["a", "b"].map(|side| vectors(&json("quality.json")["clouds"]["mixed"][side]));
    let turned = |v: &[Vec<f32>]| v.iter().rev().cloned().collect::<Vec<_>>();
    assert_eq!(Mauve::between(&a, &b), Mauve::between(&turned(&a), &turned(&b)));
    assert_eq!(frechet::distance(&a, &b), frechet::distance(&turned(&a), &turned(&b)));
    let (real, held_out, synthetic) = (records("w", 50, 0), records("w", 50, 1), records("w", 50, 2));
    let reverse = |e: &[Example]| e.iter().rev().cloned().collect::<Vec<_>>();
    let one = measured([&real, &held_out, &synthetic, &held_out], false);
    let other = measured(
        [
            &reverse(&real),
            &reverse(&held_out),
            &reverse(&synthetic),
            &reverse(&held_out),
        ],
        false,
    );
    assert_eq!(one.lengths, other.lengths);
    let spans = |q: &Quality| q.memorisation.as_ref().unwrap().spans.synthetic.clone();
    assert_eq!(spans(&one), spans(&other));
    let divergence = |q: &Quality| q.divergence.as_ref().unwrap().synthetic.bigrams.unwrap();
    let near = |q: &Quality| q.variety.as_ref().unwrap().synthetic.near_duplicates;
    close(divergence(&one), divergence(&other), 1e-12);
    close(near(&one), near(&other), 1e-12);
}

#[test]
fn hardly_any_records_give_no_distances_rather_than_nonsense() {
    let blank = |count| -> Vec<Example> {
        (0..count)
            .map(|label| Example {
                text: " ".into(),
                label: label % 2,
            })
            .collect()
    };
    let none = measured([&records("w", 9, 0), &records("w", 9, 1), &[], &blank(3)], true);
    assert_eq!(
        none,
        Quality::default(),
        "without a synthetic record there is nothing to measure"
    );
    for few in [blank(1), blank(3), records("w", 1, 0), records("w", 2, 0)] {
        let q = measured([&few; 4], true);
        let text = serde_json::to_string(&q).unwrap();
        let back: Quality = serde_json::from_str(&text).expect("JSON has no NaN: null would not be read back");
        assert_eq!(back, q);
        let meaning = q.meaning.unwrap().synthetic;
        assert_eq!(meaning.mauve, None);
        assert_eq!(meaning.frechet.is_some(), few.len() >= 2);
        let has_words = few[0].text.len() > 1;
        assert_eq!(q.divergence.unwrap().synthetic.unigrams.is_some(), has_words);
    }
    let point = vec![vec![1.0f32, 0.0]; FEWEST];
    close(Mauve::between(&point, &point).unwrap().plain, 1.0, 1e-9);
    assert_eq!(Mauve::between(&point, &point[1..]), None);
    assert_eq!(frechet::distance(&point, &point), Some(0.0));
}

// ---- disclosures

/// What one real record alone has, planted in a synthetic one.
#[test]
fn a_number_a_name_and_an_address_of_one_training_record_are_disclosed() {
    let training = records("w", 300, 0);
    let held_out = records("w", 100, 1);
    let synthetic = records("w", 100, 2);
    let plant = |records: &[Example], at: usize, text: &str| {
        let mut out = records.to_vec();
        out[at].text = format!("{} {text}", out[at].text);
        out
    };
    let secret = "Call Ada Lovelace, 0171-555 8231, or ada@example.org about the zyzzyva.";
    let found = |training: &[Example], held_out: &[Example], synthetic: &[Example]| {
        let all = measured([training, held_out, synthetic, synthetic], false)
            .disclosures
            .unwrap();
        all.into_iter()
            .map(|of| (of.kind, of))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let theirs = plant(&training, 7, secret);
    let disclosed = found(&theirs, &held_out, &plant(&synthetic, 42, secret));
    for (kind, example) in [
        (Disclosed::Number, "8231"),
        (Disclosed::Name, "Call Ada Lovelace"),
        (Disclosed::Address, "ada@example.org"),
        (Disclosed::RareWord, "zyzzyva"),
    ] {
        let of = &disclosed[&kind];
        assert!(
            of.training.came_back > 0 && of.examples.iter().any(|e| e == example),
            "{of:?}"
        );
        assert_eq!(of.held_out.came_back, 0, "{of:?}");
    }
    // Of a held-out record it is a phantom; of two records it is nobody's alone.
    let phantom = found(&training, &plant(&held_out, 7, secret), &plant(&synthetic, 42, secret));
    assert!(
        phantom
            .values()
            .all(|of| of.training.came_back == 0 && of.examples.is_empty())
    );
    assert_eq!(phantom[&Disclosed::Address].held_out.came_back, 1);
    let twice = found(&plant(&theirs, 8, secret), &held_out, &plant(&synthetic, 42, secret));
    assert_eq!(twice[&Disclosed::Address].training.strings, 0);
    let none = found(&theirs, &held_out, &synthetic);
    assert!(none.values().all(|of| of.training.came_back == 0), "{none:?}");
}

/// Twenty disclosures are told from chance, which brings back as many of both sides.
#[test]
fn true_disclosures_are_told_from_phantoms() {
    let with = |records: &[Example], from: usize| -> Vec<Example> {
        let mut out = records.to_vec();
        for (i, record) in out.iter_mut().enumerate() {
            record.text = format!("{} {}", record.text, 100_000 + from + i);
        }
        out
    };
    let (training, held_out) = (with(&records("w", 200, 0), 0), with(&records("w", 200, 1), 1_000));
    let numbers = |synthetic: &[Example]| {
        let all = measured([&training, &held_out, synthetic, synthetic], false)
            .disclosures
            .unwrap();
        all.into_iter().find(|of| of.kind == Disclosed::Number).unwrap()
    };
    let told = numbers(&with(&records("w", 20, 2), 0));
    assert_eq!((told.training.came_back, told.held_out.came_back), (20, 0));
    assert!(told.p_value < 1e-4, "{told:?}");
    let chance: Vec<Example> = [with(&records("w", 20, 2), 0), with(&records("w", 20, 3), 1_000)].concat();
    let chance = numbers(&chance);
    assert_eq!((chance.training.came_back, chance.held_out.came_back), (20, 20));
    assert!(chance.p_value > 0.3, "{chance:?}");
    assert!(numbers(&records("w", 20, 2)).p_value == 1.0);
    // Records that chance set apart are the phantoms, where there are any.
    let (synthetic, none) = (records("w", 20, 2), records("w", 5, 4));
    let sides = Sides {
        training: training.as_slice(),
        held_out: held_out.as_slice(),
        synthetic: synthetic.as_slice(),
        zero_shot: synthetic.as_slice(),
    };
    let strings = |set_apart: &[Example]| {
        let all = disclosures(&sides, set_apart);
        all.into_iter()
            .find(|of| of.kind == Disclosed::Number)
            .unwrap()
            .held_out
            .strings
    };
    assert_eq!((strings(&[]), strings(&none), strings(&held_out[..7])), (200, 0, 7));
}

// ---- memorisation

#[test]
fn a_planted_copy_of_a_training_record_is_found() {
    let mut synthetic = records("w", 100, 2);
    assert_eq!(
        memorised(synthetic.clone()).check().exact_copies,
        0,
        "none before it is planted"
    );
    // Another case and other punctuation do not hide it.
    synthetic[42].text = records("w", 300, 0)[7].text.to_uppercase().replace(' ', ", ");
    let found = memorised(synthetic);
    let check = found.check();
    assert_eq!(
        (check.exact_copies, check.over_limit, check.held_out_over_limit),
        (1, 1, 0)
    );
    assert_eq!((found.worst[0].record, found.worst[0].training_record), (42, 7));
    assert_eq!(found.worst[0].words, check.longest);
    assert_eq!(
        found.worst[0].span.as_deref(),
        Some(records("w", 300, 0)[7].text.as_str())
    );
}

#[test]
fn a_planted_span_of_a_training_record_is_found_and_nothing_without_it() {
    let mut synthetic = records("w", 100, 2);
    let without = memorised(synthetic.clone());
    assert_eq!((without.check().over_limit, without.worst.len()), (0, 0));
    assert!(
        without.check().longest < 6 && without.check().p_value == 1.0,
        "{without:?}"
    );

    let training = records("w", 300, 0);
    let span: Vec<&str> = training[11].text.split(' ').take(12).collect();
    synthetic[3].text = format!("so {} and no more", span.join(" "));
    let found = memorised(synthetic.clone());
    assert_eq!(
        (
            found.check().over_limit,
            found.check().longest,
            found.check().exact_copies
        ),
        (1, 12, 0)
    );
    assert_eq!((found.worst[0].record, found.worst[0].training_record), (3, 11));
    assert_eq!(found.clone().without_texts().worst[0].span, None);

    // A model that copies often is told from chance by comparison with held-out records.
    for (i, record) in synthetic.iter_mut().enumerate().take(20) {
        record.text = format!("{} {i}", training[i].text);
    }
    let check = memorised(synthetic).check();
    assert!(check.over_limit == 20 && check.p_value < 1e-4, "{check:?}");
}

#[test]
fn long_held_out_records_do_not_excuse_what_short_synthetic_ones_repeat() {
    let training = records("w", 300, 0);
    let mut synthetic = records("w", 100, 2);
    for (record, copied) in synthetic.iter_mut().zip(&training).take(10) {
        record.text = copied.text.clone();
    }
    // Each quotes a whole training record, further down than any synthetic record reaches.
    let mut held_out = records("w", 100, 1);
    for (record, quoted) in held_out.iter_mut().zip(&training) {
        record.text = format!("{0} and {0} and {1}", record.text, quoted.text);
    }
    let found = measured([&training, &held_out, &synthetic, &synthetic], false)
        .memorisation
        .unwrap();
    let check = found.check();
    assert_eq!(
        (check.over_limit, check.held_out_over_limit, check.held_out_records),
        (10, 0, 100)
    );
    assert!(check.p_value < 0.001, "{check:?}");
}

#[test]
fn a_span_does_not_reach_from_one_training_record_into_the_next() {
    let training = [vec![1, 2, 3], vec![4, 5, 6], vec![1, 2, 3]];
    let index = SpanIndex::new(&training);
    assert_eq!(index.longest(&[2, 3, 4, 5]).words, 2);
    assert_eq!(index.copy_of(&[1, 2, 3]), Some(0));
    assert_eq!(index.copy_of(&[1, 2]), None);
    assert_eq!(index.longest(&[9]).words, 0);
    assert_eq!(SpanIndex::new(&[]).longest(&[1]).words, 0);
}

#[test]
fn spans_are_found_quickly_in_much_text() {
    // 230,000 words, looked up for as many. The textbook's table would take minutes.
    let mut lexicon = Lexicon::default();
    let mut read = |seed| {
        let records = records("w", 15_000, seed);
        lexicon.read(records.iter().map(|e| e.text.as_str()).collect::<Vec<_>>())
    };
    let (training, looked_up) = (read(0), read(1));
    let begun = std::time::Instant::now();
    let index = SpanIndex::new(&training);
    let longest = looked_up.iter().map(|r| index.longest(r).words).max();
    assert!(longest.unwrap() < 10);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

// ---- as part of a run

#[test]
fn an_interrupted_measurement_goes_on_where_it_was() {
    let (real, held_out) = (records("w", 80, 0), records("w", 40, 1));
    let sides = Sides {
        training: real.as_slice(),
        held_out: &held_out,
        synthetic: &held_out,
        zero_shot: &held_out,
    };
    let whole = measured([&real, &held_out, &held_out, &held_out], true);
    let measurement = Measurement {
        sides,
        set_apart: &[],
        num_labels: 2,
        config: &QualityConfig::default(),
        encoder: &|| Ok(Some(encoder())),
    };
    let (mut kept, mut times) = (None::<Quality>, 0);
    loop {
        // Each time it is stopped as soon as something new is kept.
        let news = Cell::new(false);
        let mut last = kept.clone();
        let mut keep = |q: &Quality| {
            news.set(true);
            last = Some(q.clone());
            Ok(())
        };
        let so_far = measure(&measurement, kept.clone(), &mut keep, &|| news.get(), &Silent);
        assert_ne!(last, kept, "it does not begin anew");
        kept = last;
        times += 1;
        match so_far {
            Ok(q) => break assert_eq!(q, whole),
            Err(e) => assert!(e.kind() == Kind::Interrupted && e.hint_text().is_some()),
        }
    }
    assert!(times >= 3, "stopped {times} times");
    let without_encoder = Measurement {
        encoder: &|| Err(Error::other("the encoder is not needed any more")),
        ..measurement
    };
    let mut nothing_new = |_: &Quality| Err(Error::other("there is nothing new to keep"));
    let again = measure(&without_encoder, kept, &mut nothing_new, &|| true, &Silent);
    assert_eq!(again.unwrap(), whole);
}

#[test]
fn measures_of_other_numbers_of_records_are_taken_anew() {
    let (real, held_out) = (records("w", 80, 0), records("w", 40, 1));
    let sides = Sides {
        training: real.as_slice(),
        held_out: &held_out,
        synthetic: &held_out,
        zero_shot: &held_out,
    };
    let take = |records, so_far| {
        let config = QualityConfig {
            records,
            ..QualityConfig::default()
        };
        let measurement = Measurement {
            sides,
            set_apart: &[],
            num_labels: 2,
            config: &config,
            encoder: &no_encoder,
        };
        measure(&measurement, so_far, &mut |_| Ok(()), &|| false, &Silent).unwrap()
    };
    assert_eq!(take(20, Some(take(30, None))), take(20, None));
    assert_eq!((take(20, None).records, take(1_000, None).records), (20, 40));
}

#[test]
fn a_run_measures_its_records_and_keeps_private_words_out_of_the_report() {
    let place = Place::new();
    // Held-out and training records of the same file: the held-out ones are copies, and say so.
    let said = place.done("run", &["--set", MODEL]);
    assert!(
        said.stdout.contains("label agreement") && said.stdout.contains("near duplicates"),
        "{}",
        said.stdout
    );
    let internal = place.json("runs/tiny-quick/internal/quality.json");
    let report = place.json("runs/tiny-quick/report.json");
    assert_eq!(report["quality"]["records"], internal["records"]);
    assert_eq!(report["quality"]["lengths"], internal["lengths"]);
    assert_eq!(report["quality"]["meaning"], Value::Null, "the encoder is off");
    let reference = &report["quality"]["memorisation"]["spans"]["reference"];
    assert_eq!(reference["records"], 60);
    assert_eq!(reference["exact_copies"], 60);

    let off = place.done("evaluate", &["--set", MODEL, "--set", "evaluate.quality.enabled=false"]);
    assert!(!off.stdout.contains("label agreement"), "{}", off.stdout);
    assert_eq!(place.json("runs/tiny-quick/report.json")["quality"], Value::Null);
    place
        .stage("evaluate", &["--set", MODEL, "--set", "evaluate.quality.records=0"])
        .refused(2, &["evaluate.quality.records", "at least 1"]);
}
