//! What synthetic records are worth: classifiers, their scores, and the comparison of arms.

use crate::support::device;
use std::cell::Cell;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use dpsynth::Error;
use dpsynth::config::{AllReal, EvaluateConfig};
use dpsynth::error::Kind;
use dpsynth::evaluation::encoder::{EncoderClassifier, EncoderFiles};
use dpsynth::evaluation::groups::{self, Group};
use dpsynth::evaluation::linear::LinearClassifier;
use dpsynth::evaluation::metrics::{Confusion, Interval};
use dpsynth::evaluation::{Arm, ArmName, Classifier, Comparison, Example, Finished, Utility, UtilityRow, tstr};
use dpsynth::models::bert::{Bert, BertConfig, TokenBatch};
use dpsynth::progress::{Progress, Silent, Task, Unit};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<usize> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as usize)
        .collect()
}

/// Short texts of the fixtures' words. The label is told by one word; `seed` changes all else.
fn reviews(count: usize, seed: usize) -> Vec<Example> {
    let filler = [
        "the film",
        "a plot",
        "the actor",
        "it",
        "the story",
        "and a film",
        "but the plot",
    ];
    let telling = [["bad", "dull"], ["good", "great"]];
    (0..count)
        .map(|i| {
            let n = (i * 7919 + seed * 104_729) / 3;
            let label = i % 2;
            let (start, end) = (filler[n % 7], filler[(n / 7) % 7]);
            let text = format!("{start} is {} and {end} was so so", telling[label][(n / 49) % 2]);
            Example { text, label }
        })
        .collect()
}

/// The same texts, with labels that have nothing to do with them.
fn mislabelled(mut examples: Vec<Example>) -> Vec<Example> {
    examples.iter_mut().enumerate().for_each(|(i, e)| e.label = (i / 2) % 2);
    examples
}

fn accuracy(predicted: &[usize], test: &[Example], num_labels: usize) -> f64 {
    Confusion::new(test.iter().map(|e| e.label), predicted, num_labels).accuracy()
}

fn encoder_config() -> EvaluateConfig {
    EvaluateConfig {
        seeds: 2,
        encoder_epochs: 20,
        encoder_batch_size: 8,
        encoder_learning_rate: 1e-2,
        ..Default::default()
    }
}

fn fit_encoder(examples: &[Example], seed: u64) -> EncoderClassifier {
    let files = EncoderFiles::in_folder(&fixture("bert"));
    EncoderClassifier::fit(&files, examples, 2, &encoder_config(), seed, &device(), &mut |_| Ok(())).unwrap()
}

// ---- scores

#[test]
fn scores_are_those_of_scikit_learn() {
    let expected = json("bert_metrics.json");
    let (truth, predicted) = (numbers(&expected["truth"]), numbers(&expected["predicted"]));
    let num_labels = expected["num_labels"].as_u64().unwrap() as usize;
    let confusion = Confusion::new(truth, &predicted, num_labels);
    for (t, row) in expected["confusion"].as_array().unwrap().iter().enumerate() {
        let ours: Vec<usize> = (0..num_labels).map(|p| confusion.count(t, p) as usize).collect();
        assert_eq!(ours, numbers(row));
    }
    assert!((confusion.accuracy() - expected["accuracy"].as_f64().unwrap()).abs() < 1e-12);
    assert!((confusion.macro_f1() - expected["macro_f1"].as_f64().unwrap()).abs() < 1e-12);
}

#[test]
fn interval_is_the_one_computed_by_hand() {
    // Mean 0.72, s = 0.02, t(0.975, 2) = 4.302653: half width 4.302653 · 0.02 / √3 = 0.049683.
    let interval = Interval::over_seeds(&[0.70, 0.72, 0.74]).unwrap();
    assert!((interval.mean - 0.72).abs() < 1e-12);
    assert!((interval.low - 0.670317).abs() < 1e-6);
    assert!((interval.high - 0.769683).abs() < 1e-6);
    assert_eq!(interval.seeds, 3);
}

#[test]
fn interval_stays_between_0_and_1() {
    let interval = Interval::over_seeds(&[0.1, 0.9]).unwrap();
    assert_eq!((interval.low, interval.high), (0.0, 1.0));
}

#[test]
fn interval_of_a_single_seed_does_not_exist() {
    assert_eq!(Interval::over_seeds(&[0.5]), None);
    assert_eq!(Interval::over_seeds(&[]), None);
}

/// 800 of 1,000 right: √(0.8 · 0.2 / 1000) · 1.96 = 0.0248.
#[test]
fn interval_of_one_fit_is_over_the_test_records() {
    let truth = (0..1000).map(|i| i % 2);
    let predicted: Vec<usize> = (0..1000).map(|i| if i < 800 { i % 2 } else { 1 - i % 2 }).collect();
    let fit = Confusion::new(truth, &predicted, 2);
    let interval = Interval::of_one(&fit, Confusion::accuracy);
    assert_eq!((interval.mean, interval.seeds), (0.8, 1));
    for half in [interval.mean - interval.low, interval.high - interval.mean] {
        assert!((half - 0.0248).abs() < 0.004, "{interval:?}");
    }
    assert_eq!(Interval::of_one(&fit, Confusion::accuracy), interval);
    assert_eq!(Confusion::of_rows(&fit.rows()), fit);
    let nothing = Interval::of_one(&Confusion::new([], &[], 2), Confusion::accuracy);
    assert_eq!((nothing.low, nothing.high), (0.0, 0.0));
}

// ---- linear classifier

#[test]
fn linear_separates_what_a_word_tells_apart() {
    let (train, test) = (reviews(200, 0), reviews(100, 1));
    let model = LinearClassifier::fit(&train, 2, 0);
    assert_eq!(accuracy(&model.predict(&test), &test, 2), 1.0);
}

#[test]
fn linear_is_at_chance_on_labels_that_mean_nothing() {
    let (train, test) = (mislabelled(reviews(400, 0)), reviews(400, 1));
    let score = accuracy(&LinearClassifier::fit(&train, 2, 0).predict(&test), &test, 2);
    assert!((0.35..0.65).contains(&score), "{score}");
}

#[test]
fn linear_needs_the_order_of_words_only_as_far_as_pairs() {
    let texts = [("good not bad", 0), ("bad not good", 1)];
    let examples: Vec<Example> = texts.map(|(t, label)| Example { text: t.into(), label }).into();
    assert_eq!(LinearClassifier::fit(&examples, 2, 0).predict(&examples), [0, 1]);
}

#[test]
fn linear_tells_77_labels_apart() {
    let example = |label: usize, extra: &str| Example {
        text: format!("please help with topic{label} {extra}"),
        label,
    };
    let train: Vec<Example> = (0..77)
        .flat_map(|l| ["today", "now", "soon"].map(|e| example(l, e)))
        .collect();
    let test: Vec<Example> = (0..77).map(|l| example(l, "thanks")).collect();
    assert_eq!(
        accuracy(&LinearClassifier::fit(&train, 77, 0).predict(&test), &test, 77),
        1.0
    );
}

#[test]
fn linear_survives_empty_texts_and_one_label() {
    let empty = |label| Example {
        text: String::new(),
        label,
    };
    assert_eq!(LinearClassifier::fit(&[empty(1)], 2, 0).predict(&[empty(0)]), [1]);
    assert_eq!(LinearClassifier::fit(&[], 2, 0).predict(&[empty(0)]), [0]);
}

// ---- encoder

/// Hidden states of each text, as many rows as it has tokens.
fn hidden_states(bert: &Bert, rows: &[&[u32]], device: &Device) -> Vec<Vec<f32>> {
    let hidden: Tensor<3> = bert.forward(&TokenBatch::new(rows, device));
    let [_, tokens, width] = hidden.dims();
    let values: Vec<f32> = hidden.try_into_vec_as().unwrap();
    let states = values.chunks(tokens * width).zip(rows);
    states.map(|(v, row)| v[..row.len() * width].to_vec()).collect()
}

fn assert_close(ours: &[f32], expected: &[f32]) {
    assert_eq!(ours.len(), expected.len());
    let worst = ours
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 1e-4, "off by {worst}");
}

fn assert_agrees_with_pytorch(name: &str) {
    let expected = json(&format!("{name}/expected.json"));
    let files = EncoderFiles::in_folder(&fixture(name));
    let device = device();
    let bert = Bert::load(&BertConfig::read(&files.config).unwrap(), &files.weights, &device).unwrap();
    let rows: Vec<Vec<u32>> = expected["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| numbers(r).iter().map(|&i| i as u32).collect())
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let states = hidden_states(&bert, &rows, &device);
    for (ours, expected) in states.iter().zip(expected["hidden_states"].as_array().unwrap()) {
        let values = expected.as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap());
        assert_close(ours, &values.map(|v| v.as_f64().unwrap() as f32).collect::<Vec<_>>());
    }
}

#[test]
fn bert_agrees_with_pytorch() {
    assert_agrees_with_pytorch("bert");
}

#[test]
fn distilbert_in_half_precision_agrees_with_pytorch() {
    assert_agrees_with_pytorch("bert_distil");
}

#[test]
fn roberta_agrees_with_pytorch() {
    assert_agrees_with_pytorch("bert_roberta");
}

#[test]
fn padding_changes_no_hidden_state_and_no_mean() {
    let files = EncoderFiles::in_folder(&fixture("bert"));
    let device = device();
    let bert = Bert::load(&BertConfig::read(&files.config).unwrap(), &files.weights, &device).unwrap();
    let (short, long): (&[u32], &[u32]) = (&[2, 5, 6, 3], &[2, 5, 6, 9, 15, 7, 8, 11, 3]);
    assert_close(
        &hidden_states(&bert, &[short, long], &device)[0],
        &hidden_states(&bert, &[short], &device)[0],
    );
    let mean = |rows: &[&[u32]]| -> Vec<f32> {
        let batch = TokenBatch::new(rows, &device);
        batch.mean(bert.forward(&batch)).try_into_vec_as().unwrap()
    };
    assert_close(&mean(&[short, long])[..8], &mean(&[short]));
}

#[test]
fn checkpoint_of_other_sizes_is_a_data_error() {
    let files = EncoderFiles::in_folder(&fixture("bert"));
    let mut config = BertConfig::read(&files.config).unwrap();
    config.intermediate_size = 32;
    let error = Bert::load(&config, &files.weights, &device()).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("intermediate.dense.weight"), "{error}");
}

#[test]
fn encoder_learns_16_examples_by_heart() {
    let train = mislabelled(reviews(16, 0));
    let distinct: std::collections::BTreeMap<_, _> = train.iter().map(|e| (&e.text, e.label)).collect();
    let train: Vec<Example> = distinct
        .into_iter()
        .map(|(t, label)| Example { text: t.clone(), label })
        .collect();
    let config = EvaluateConfig {
        encoder_epochs: 150,
        ..encoder_config()
    };
    let files = EncoderFiles::in_folder(&fixture("bert"));
    let model = EncoderClassifier::fit(&files, &train, 2, &config, 0, &device(), &mut |_| Ok(())).unwrap();
    assert_eq!(
        accuracy(&model.predict(&train, &mut |_| Ok(())).unwrap(), &train, 2),
        1.0
    );
}

#[test]
fn encoder_does_the_same_for_the_same_seed() {
    let (train, test) = (reviews(32, 0), mislabelled(reviews(64, 1)));
    let scores = |seed| fit_encoder(&train, seed).scores(&test, &mut |_| Ok(())).unwrap();
    assert_eq!(scores(3), scores(3));
    assert_ne!(scores(3), scores(4));
}

#[test]
fn encoder_with_a_foreign_tokenizer_is_a_data_error() {
    let files = EncoderFiles {
        tokenizer: fixture("bert/config.json"),
        ..EncoderFiles::in_folder(&fixture("bert"))
    };
    let fit = EncoderClassifier::fit(&files, &reviews(4, 0), 2, &encoder_config(), 0, &device(), &mut |_| {
        Ok(())
    });
    assert_eq!(fit.err().map(|e| e.kind()), Some(Kind::Data));
}

// ---- comparison

struct World {
    real: Vec<Example>,
    synthetic: Vec<Example>,
    test: Vec<Example>,
    config: EvaluateConfig,
    files: EncoderFiles,
    device: Device,
}

impl World {
    fn new() -> Self {
        World {
            real: reviews(120, 0),
            synthetic: mislabelled(reviews(60, 2)),
            test: reviews(100, 1),
            config: EvaluateConfig {
                encoder_test_records: Some(30),
                encoder_epochs: 1,
                all_synthetic: false,
                all_real: AllReal::None,
                ..encoder_config()
            },
            files: EncoderFiles::in_folder(&fixture("bert")),
            device: device(),
        }
    }

    /// Runs the comparison of both arms and returns its result and the fits that were done.
    fn compare(&self, finished: &[Finished], stop_after: usize) -> (dpsynth::Result<Utility>, Vec<Finished>) {
        self.compare_watched(finished, stop_after, &Silent)
    }

    fn compare_watched(
        &self,
        finished: &[Finished],
        stop_after: usize,
        progress: &dyn Progress,
    ) -> (dpsynth::Result<Utility>, Vec<Finished>) {
        let arms = [(ArmName::Real, &self.real), (ArmName::Synthetic, &self.synthetic)];
        let arms = arms.map(|(name, examples)| Arm { name, examples });
        let comparison = Comparison {
            arms: &arms,
            test: &self.test,
            num_labels: 2,
            config: &self.config,
            encoder: Some(&self.files),
            device: &self.device,
        };
        let (count, mut fits) = (Cell::new(0), Vec::new());
        let mut done = |fit: &Finished| {
            count.set(count.get() + 1);
            fits.push(fit.clone());
            Ok(())
        };
        let utility = tstr(
            &comparison,
            finished,
            &mut done,
            &|| count.get() >= stop_after,
            progress,
        );
        (utility, fits)
    }
}

#[test]
fn arms_are_compared_at_four_fifths_of_the_smallest() {
    let (utility, fits) = World::new().compare(&[], usize::MAX);
    let Utility {
        rows,
        all_synthetic,
        size_curve,
        ..
    } = utility.unwrap();
    assert_eq!((fits.len(), all_synthetic.len(), size_curve.len()), (8, 0, 0));
    assert!(rows.iter().all(|r| r.records == 48 && r.accuracy.seeds == 2));
    let linear = |arm| {
        rows.iter()
            .find(|r| r.arm == arm && r.classifier == Classifier::Linear)
            .unwrap()
    };
    assert_eq!(linear(ArmName::Real).accuracy.mean, 1.0);
    assert!(linear(ArmName::Synthetic).accuracy.mean < 0.8);
    assert!(
        rows.iter()
            .all(|r| r.test_records == if r.classifier == Classifier::Encoder { 30 } else { 100 })
    );
}

#[test]
fn stopped_comparison_goes_on_where_it_was() {
    let world = World::new();
    let (all, _) = world.compare(&[], usize::MAX);
    let (stopped, first) = world.compare(&[], 3);
    assert_eq!(stopped.unwrap_err().kind(), Kind::Interrupted);
    assert_eq!(first.len(), 3);
    // As a caller keeps them.
    let kept: Vec<Finished> = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    let (rows, rest) = world.compare(&kept, usize::MAX);
    assert_eq!(rest.len(), 5);
    assert_eq!(rows.unwrap(), all.unwrap());
}

#[test]
fn fits_of_another_size_are_done_again() {
    let mut world = World::new();
    let (_, fits) = world.compare(&[], usize::MAX);
    world.config.records = Some(40);
    let (rows, again) = world.compare(&fits, usize::MAX);
    assert_eq!(again.len(), 8);
    assert!(rows.unwrap().rows.iter().all(|r| r.records == 40));
}

/// Tasks that were begun, with the steps or records that they were announced with.
#[derive(Default)]
struct Watched(std::sync::Mutex<Vec<(String, u64)>>);

struct Nothing;

impl Task for Nothing {
    fn set(&self, _: u64, _: &str) {}
}

impl Progress for Watched {
    fn begin(&self, what: &str, total: u64, _: Unit) -> Box<dyn Task> {
        self.0.lock().unwrap().push((what.into(), total));
        Box::new(Nothing)
    }

    fn note(&self, _: &str) {}
}

#[test]
fn every_arm_takes_equally_many_steps_on_equally_many_records() {
    let (world, watched) = (World::new(), Watched::default());
    let rows = world.compare_watched(&[], usize::MAX, &watched).0.unwrap().rows;
    for classifier in [Classifier::Linear, Classifier::Encoder] {
        let of: Vec<&UtilityRow> = rows.iter().filter(|r| r.classifier == classifier).collect();
        assert_eq!(of.len(), 2);
        assert!(of.iter().all(|r| (r.steps, r.records) == (of[0].steps, of[0].records)));
    }
    // 48 records in batches of 8, once.
    assert!(rows.iter().all(|r| r.steps
        == if r.classifier == Classifier::Encoder {
            6
        } else {
            40 * 48
        }));
    let begun = watched.0.into_inner().unwrap();
    let encoders = begun.iter().filter(|(what, _)| what.starts_with("encoder"));
    let steps: Vec<u64> = encoders.map(|(_, total)| *total).collect();
    assert_eq!(steps, [6; 4], "two arms, two seeds: {begun:?}");
}

/// Right by chance on the short texts, always on the long ones: each part has its own score.
#[test]
fn parts_of_the_test_records_have_scores_of_their_own() {
    let example = |label: usize, words: usize| Example {
        text: vec!["word"; words].join(" "),
        label,
    };
    // Two of label 1, both long; texts from 1 to 8 words.
    let test: Vec<Example> = (0..8).map(|i| example(usize::from(i > 5), i + 1)).collect();
    let predicted = [1, 0, 0, 0, 0, 0, 1, 1];
    let of: Vec<(Group, usize, f64)> = groups::scores(&test, &predicted, 3)
        .into_iter()
        .map(|s| (s.group, s.records, s.accuracy))
        .collect();
    assert_eq!(
        of,
        [
            (Group::SmallestLabel, 2, 1.0),
            (Group::ShortestQuarter, 2, 0.5),
            (Group::LongestQuarter, 2, 1.0)
        ]
    );
    assert!(
        groups::scores(&test[..3], &predicted, 3).is_empty(),
        "too few to have parts"
    );

    let (utility, _) = World::new().compare(&[], usize::MAX);
    let rows = utility.unwrap().groups;
    assert_eq!(rows.len(), 2 * 2 * 3, "two arms, two classifiers: {rows:?}");
    assert!(rows.iter().all(|r| r.accuracy.seeds == 2));
}

#[test]
fn all_synthetic_records_and_other_sizes_stand_beside_the_equal_ones() {
    let mut world = World::new();
    // 60 synthetic records: 15 and all of them, 48 (the equal size), 100 (which only the real arm has).
    world.config.size_curve = vec![100.0, 0.25, 1.0, 48.0, 15.0];
    world.config.all_synthetic = true;
    world.config.all_real = AllReal::Linear;
    let (utility, fits) = world.compare(&[], usize::MAX);
    let utility = utility.unwrap();
    assert!(utility.rows.iter().all(|r| r.records == 48));
    let all: Vec<_> = utility
        .all_synthetic
        .iter()
        .map(|r| (r.arm, r.classifier, r.records))
        .collect();
    assert_eq!(
        all,
        [
            (ArmName::Synthetic, Classifier::Linear, 60),
            (ArmName::Synthetic, Classifier::Encoder, 60)
        ]
    );
    let all: Vec<_> = utility
        .all_real
        .iter()
        .map(|r| (r.arm, r.classifier, r.records))
        .collect();
    assert_eq!(all, [(ArmName::Real, Classifier::Linear, 120)]);
    let curve: Vec<_> = utility.size_curve.iter().map(|r| (r.records, r.arm)).collect();
    let (real, synthetic) = (ArmName::Real, ArmName::Synthetic);
    assert_eq!(
        curve,
        [
            (15, real),
            (15, synthetic),
            (48, real),
            (48, synthetic),
            (60, real),
            (60, synthetic),
            (100, real)
        ]
    );
    assert!(
        utility
            .size_curve
            .iter()
            .all(|r| r.classifier == Classifier::Linear && r.accuracy.seeds == 2)
    );
    // 8 at equal sizes, 2 and 1 on all, and of the curve what is new: 2 · (15, 15, 60, 60, 100) less the one on all synthetic.
    assert_eq!(fits.len(), 8 + 2 + 1 + 10 - 1);
    let once = utility.all_synthetic.iter().chain(&utility.all_real);
    assert!(
        once.map(|r| r.accuracy)
            .all(|i| i.seeds == 1 && i.low <= i.mean && i.mean <= i.high)
    );
    let at_48 = utility
        .size_curve
        .iter()
        .find(|r| (r.records, r.arm) == (48, synthetic))
        .unwrap();
    let equal = utility
        .rows
        .iter()
        .find(|r| (r.arm, r.classifier) == (synthetic, Classifier::Linear))
        .unwrap();
    assert_eq!(at_48, equal);

    // What was fitted is not fitted again, whichever part it was for.
    let (again, none) = world.compare(&fits, usize::MAX);
    assert_eq!((again.unwrap(), none.len()), (utility, 0));
}

#[test]
fn confusions_are_the_mean_over_seeds_and_say_the_accuracy() {
    let utility = World::new().compare(&[], usize::MAX).0.unwrap();
    assert_eq!(utility.confusions.len(), utility.rows.len());
    for (row, confusion) in utility.rows.iter().zip(&utility.confusions) {
        assert_eq!((row.arm, row.classifier), (confusion.arm, confusion.classifier));
        let total: f64 = confusion.counts.iter().flatten().sum();
        assert!((total - row.test_records as f64).abs() < 1e-9);
        let right = confusion.counts[0][0] + confusion.counts[1][1];
        assert!((right / total - row.accuracy.mean).abs() < 1e-9);
        // Half of the test records have label 1.
        assert!((confusion.counts[1].iter().sum::<f64>() - total / 2.0).abs() < 1e-9);
    }
}

#[test]
fn an_evaluation_of_an_earlier_version_is_read() {
    let row = r#"{"arm":"real","classifier":"linear","records":5,"test_records":9,
        "accuracy":{"mean":0.5,"low":0.4,"high":0.6,"seeds":3},"macro_f1":{"mean":0.5,"low":0.4,"high":0.6,"seeds":3}}"#;
    let utility: Utility = serde_json::from_str(&format!(r#"{{"rows":[{row}]}}"#)).unwrap();
    assert_eq!((utility.rows.len(), utility.rows[0].steps), (1, 0));
    assert!(utility.all_synthetic.is_empty() && utility.size_curve.is_empty() && utility.confusions.is_empty());
}

#[test]
fn a_difference_of_intervals_is_as_wide_as_both_together() {
    let at = |mean: f64, half: f64| Interval {
        mean,
        low: mean - half,
        high: (mean + half).min(1.0),
        seeds: 3,
    };
    let gap = at(0.98, 0.03).minus(&at(0.90, 0.04));
    assert!((gap.mean - 0.08).abs() < 1e-12);
    assert!(
        (gap.low - 0.03).abs() < 1e-12 && (gap.high - 0.13).abs() < 1e-12,
        "{gap:?}"
    );
}

#[test]
fn comparison_refuses_what_cannot_be_compared() {
    let refusal = |change: fn(&mut World)| -> Error {
        let mut world = World::new();
        change(&mut world);
        world.compare(&[], usize::MAX).0.unwrap_err()
    };
    assert_eq!(refusal(|w| w.synthetic.clear()).kind(), Kind::Data);
    assert_eq!(refusal(|w| w.test.clear()).kind(), Kind::Data);
    assert_eq!(refusal(|w| w.test[7].label = 2).kind(), Kind::Data);
    assert_eq!(refusal(|w| w.config.seeds = 1).kind(), Kind::Usage);
}

#[test]
fn names_are_written_in_snake_case() {
    let names = [ArmName::Real, ArmName::Synthetic, ArmName::ZeroShot].map(|n| serde_json::to_value(n).unwrap());
    assert_eq!(names, ["real", "synthetic", "zero_shot"]);
    assert_eq!(serde_json::to_value(Classifier::Encoder).unwrap(), "encoder");
}
