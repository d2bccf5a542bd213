//! The reference `dp_direct`: a record is bounded, a step is charged, the budget is a wall, and what is paid for is kept.

use crate::common;
use crate::support::device;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::common::Place;
use dpsynth::config::{Clipping, NoiseKind};
use dpsynth::evaluation::Example;
use dpsynth::evaluation::direct::features::{Features, Softmax};
use dpsynth::evaluation::direct::{Learner, Training};
use dpsynth::evaluation::embed::SentenceEncoder;
use dpsynth::evaluation::encoder::EncoderFiles;
use dpsynth::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, PrivateRun, TRAINING, Unit};
use dpsynth::progress::Silent;
use dpsynth::records::Units;
use dpsynth::training::checkpoint::Checkpoint;
use dpsynth::training::clip::Clip;
use dpsynth::training::optimizer::Optimizer;
use dpsynth::training::ways::Bounds;
use dpsynth::training::ways::gradient::Gradient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const WIDTH: usize = 8;

fn encoder() -> SentenceEncoder {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert");
    SentenceEncoder::open(&EncoderFiles::in_folder(&folder), 16, &device()).unwrap()
}

fn request() -> PlanRequest {
    PlanRequest {
        target_epsilon: 8.0,
        delta: None,
        public_size: 400,
        expected_batch_size: 40,
        steps: 30,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    }
}

fn begin(plan: &PrivacyPlan, dir: &Path, units: usize) -> PrivateRun {
    let ledger = Ledger::open(dir, "abc123", 100.0, 1e-5, &Unit::Record).unwrap();
    plan.begin(ledger, "direct", units).unwrap()
}

fn examples(count: usize) -> Vec<Example> {
    let words = ["bad", "good"];
    (0..count)
        .map(|i| Example {
            text: words[i % 2].into(),
            label: i % 2,
        })
        .collect()
}

fn optimizer() -> Optimizer {
    Optimizer::adamw(2 * (WIDTH + 1), 0.0)
}

fn train(
    units: &Units<Example>,
    run: &mut PrivateRun,
    dir: &Path,
    resume: Option<Checkpoint>,
    stop: bool,
) -> dpsynth::Result<Softmax> {
    let (features, stop) = (Features::new(encoder(), 2), AtomicBool::new(stop));
    let training = Training {
        units,
        learning_rate: 0.3,
        checkpoint: &dir.join("checkpoint.safetensors"),
        checkpoint_every: 1,
        stop: &stop,
        progress: &Silent,
    };
    let clip = Clip::new(Clipping::Automatic, 1.0);
    let way = Box::new(Gradient::new(features.initial().len(), clip));
    let values = training.train(&features, way, optimizer(), run, resume)?;
    Ok(Softmax::of(WIDTH, values))
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

/// Records' vectors and labels, unit by unit.
type Points = Vec<(Vec<f32>, usize)>;

fn bounded_sum(model: &Softmax, units: &[&Points], clip: Clip) -> Vec<f64> {
    let bounds = Bounds::whole(model.values().len(), clip);
    let mut sum = vec![0.0; bounds.len()];
    for unit in units {
        for (vector, label) in *unit {
            bounds.add(&model.gradient(vector, *label), 1.0 / unit.len() as f64, &mut sum);
        }
    }
    sum
}

#[test]
fn p5_a_unit_more_moves_the_sum_by_at_most_c() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut point = |scale: f32| {
        let vector: Vec<f32> = (0..WIDTH).map(|_| scale * rng.random_range(-1.0..1.0)).collect();
        (vector, rng.random_range(0..3))
    };
    let batch: Vec<Points> = (0..50).map(|_| vec![point(1.0)]).collect();
    let more = [
        vec![point(1.0)],
        vec![point(1e-6)],
        vec![point(1e18)],
        vec![point(1.0), point(30.0), point(0.1)],
    ];
    // Not all weights zero: a step on each side.
    let mut model = Softmax::zeros(3, WIDTH);
    for _ in 0..2 {
        for (clipping, c) in [(Clipping::Automatic, 1.0), (Clipping::Flat, 0.25)] {
            let clip = Clip::new(clipping, c);
            let all: Vec<&Points> = batch.iter().collect();
            let without = bounded_sum(&model, &all, clip);
            for x in &more {
                // Wherever it stands among the others.
                for place in [0, 20, 50] {
                    let mut with = all.clone();
                    with.insert(place, x);
                    let moved = norm(
                        bounded_sum(&model, &with, clip)
                            .iter()
                            .zip(&without)
                            .map(|(a, b)| a - b),
                    );
                    assert!(moved <= c * (1.0 + 1e-6), "{clipping:?}: {moved}");
                    assert!(moved > 0.01 * c, "it contributes: {moved}");
                }
            }
        }
        model = Softmax::of(WIDTH, (0..model.values().len()).map(|i| (i as f32).sin()).collect());
    }
}

#[test]
fn p5_a_gradient_that_is_not_finite_contributes_zero() {
    let clip = Clip::new(Clipping::Automatic, 1.0);
    for bad in [f32::NAN, f32::INFINITY] {
        let point = vec![(vec![bad; WIDTH], 1)];
        let sum = bounded_sum(&Softmax::zeros(2, WIDTH), &[&point], clip);
        assert!(sum.iter().all(|v| *v == 0.0), "{bad}: {sum:?}");
    }
}

#[test]
fn p6_empty_batches_are_charged_and_noised() {
    let dir = tempfile::tempdir().unwrap();
    let plan = PrivacyPlan::calibrate(&request()).unwrap();
    let nobody: Units<Example> = Units::of_records(Vec::new());
    let mut run = begin(&plan, dir.path(), 0);
    let model = train(&nobody, &mut run, dir.path(), None, false).unwrap();
    assert_eq!((run.charged_steps(), run.remaining_steps()), (30, 0));
    assert!(
        model.values().iter().all(|v| *v != 0.0 && v.is_finite()),
        "noise moved every value"
    );
    let saved = Checkpoint::load(&dir.path().join("checkpoint.safetensors"), optimizer()).unwrap();
    assert_eq!(saved.applied_steps, 30);
}

#[test]
fn it_learns_what_a_word_tells() {
    let dir = tempfile::tempdir().unwrap();
    let plan = PrivacyPlan::calibrate(&request()).unwrap();
    let units = Units::of_records(examples(400));
    let mut run = begin(&plan, dir.path(), units.len());
    let model = train(&units, &mut run, dir.path(), None, false).unwrap();
    let vectors = encoder().embed(["bad", "good"], &mut |_| Ok(())).unwrap();
    let likelier = |vector: &Vec<f32>| usize::from(model.probabilities(vector)[1] > 0.5);
    assert_eq!([likelier(&vectors[0]), likelier(&vectors[1])], [0, 1]);
}

#[test]
fn p7_stopped_it_goes_on_and_charges_each_step_once() {
    let dir = tempfile::tempdir().unwrap();
    let plan = PrivacyPlan::calibrate(&request()).unwrap();
    let units = Units::of_records(examples(400));
    let checkpoint = dir.path().join("checkpoint.safetensors");
    for charged in 1..=3 {
        let mut run = begin(&plan, dir.path(), units.len());
        let resume = (charged > 1).then(|| Checkpoint::load(&checkpoint, optimizer()).unwrap());
        let stopped = train(&units, &mut run, dir.path(), resume, true).unwrap_err();
        assert_eq!(stopped.exit_code(), 130);
        assert_eq!(run.charged_steps(), charged);
    }
    let saved = Checkpoint::load(&checkpoint, optimizer()).unwrap();
    assert_eq!(saved.applied_steps, 3);
    let mut run = begin(&plan, dir.path(), units.len());
    // A step that was charged and lost, as where a process was killed: it is not taken again.
    drop(run.charge(TRAINING).unwrap());
    train(&units, &mut run, dir.path(), Some(saved), false).unwrap();
    assert_eq!((run.charged_steps(), run.remaining_steps()), (30, 0));
    let saved = Checkpoint::load(&checkpoint, optimizer()).unwrap();
    assert_eq!(saved.applied_steps, 29);
}

// ---------------------------------------------------------------------------------------------- as a person runs it

const SETTINGS: [&str; 8] = [
    "--set",
    concat!(
        "model.path=\"",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/llama/model.gguf\""
    ),
    "--set",
    concat!(
        "evaluate.encoder_path=\"",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/bert\""
    ),
    "--set",
    "finetune.steps=1",
    "--set",
    "evaluate.dp_direct.steps=3",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = SETTINGS.to_vec();
    more.iter().for_each(|o| all.extend(["--set", o]));
    all
}

const ASKED: &str = "evaluate.arms=[\"dp_direct\"]";

#[test]
fn p8_dp_direct_is_a_second_run_in_the_ledger_and_refused_over_budget() {
    let place = Place::new();
    let tight = "dataset.total_epsilon=4.2";
    // Not asked for, nothing is spent.
    place.done("run", &with(&[tight]));
    let once = place.ledger_shown();
    assert_eq!(once["runs"].as_array().map(Vec::len), Some(1));
    assert!(!place.run("internal/dp_direct").exists());

    // The evaluation never spends.
    place
        .stage("evaluate", &with(&[tight, ASKED]))
        .refused(2, &["the stage `references` is not done yet", "`dpsynth references`"]);
    place.stage("references", &with(&[tight, ASKED])).refused(
        4,
        &[
            "the dataset's budget is epsilon 4.2 at delta",
            "this run asks 3.9",
            "together ",
        ],
    );
    assert_eq!(place.ledger_shown(), once, "not a step was charged");

    // The owner allows it, on record.
    let ledger = place.ledger();
    let ledger = ledger.to_str().expect("a plain path");
    place.ok(&["ledger", "set-budget", ledger, "--epsilon", "20"]);
    place.done("references", &with(&[tight, ASKED]));
    let said = place.done("evaluate", &with(&[tight, ASKED]));
    let twice = place.ledger_shown();
    let run = &twice["runs"][1];
    assert_eq!((&run["charged_steps"], &run["ended"]), (&3.into(), &true.into()));
    assert!(run["run"].as_str().expect("text").contains("-dp-direct-"));
    let epsilon = |v: &Value| v["epsilon_charged"].as_f64().expect("a number");
    assert!(epsilon(&twice) > 1.05 * epsilon(&once), "it is spent besides the run's");

    // P10: its epsilon stands beside its score, whole.
    let row = &place.json("runs/tiny-quick/report.json")["references"][0];
    assert_eq!((&row["name"], &row["test_records"]), (&"dp_direct".into(), &60.into()));
    for (key, value) in [
        ("adjacency", "add-or-remove-one"),
        ("unit", "record"),
        ("sampler", "poisson"),
        ("accountant", "pld"),
    ] {
        assert_eq!(row["privacy"][key], value);
    }
    assert!(row["privacy"]["epsilon"].as_f64().expect("a number") <= 4.0);
    let line = said
        .stdout
        .lines()
        .find(|l| l.starts_with("dp_direct: "))
        .expect("is shown");
    for part in [
        "its own budget, besides the run's: epsilon",
        "at delta",
        "adjacency",
        "accountant pld",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }

    // What is paid for is kept, also where the evaluation is done anew.
    let other = with(&[tight, ASKED, "evaluate.size_curve=[0.5]"]);
    place.done("evaluate", &other);
    assert_eq!(place.json("runs/tiny-quick/report.json")["references"][0], *row);
    assert_eq!(place.ledger_shown(), twice, "nothing was charged again");
    // A lost marker too: the ledger knows that the run is over.
    fs::remove_file(place.run("internal/dp_direct/privacy.json")).expect("removes");
    place.done("run", &other);
    assert_eq!(place.json("runs/tiny-quick/report.json")["references"][0], *row);
    assert_eq!(place.ledger_shown(), twice);

    // Other settings would be another charge: only where the person deletes what is there.
    place
        .stage(
            "references",
            &with(&[tight, ASKED, "evaluate.dp_direct.learning_rate=0.5"]),
        )
        .refused(2, &["dp_direct was trained with other settings", "stays charged"]);
    assert_eq!(place.ledger_shown(), twice);

    // No longer asked for, it stands in the way of nothing: the run is done without it, and may leave.
    place.done("run", &with(&[tight]));
    let said = place.ok(&["status", "runs/tiny-quick"]).stdout;
    assert!(!said.contains("stale") && !said.contains("references"), "{said}");
    place.audit();
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
}

#[test]
fn p4_with_a_seed_dp_direct_is_marked_not_private() {
    let place = Place::new();
    let said = place.done("run", &with(&["finetune.seed=3", ASKED]));
    let line = said
        .stdout
        .lines()
        .find(|l| l.starts_with("dp_direct: "))
        .expect("is shown");
    assert!(line.contains("besides the run's: NOT PRIVATE"), "{line}");
    assert_eq!(
        place.json("runs/tiny-quick/internal/dp_direct/privacy.json")["private"],
        false
    );
}

/// A person's records are drawn and bounded together here too.
#[test]
fn p10_dp_direct_protects_the_runs_own_unit() {
    let place = Place::new();
    place.write("train.csv", common::records_by_viewer(2));
    let said = place.done(
        "run",
        &with(&[
            "dataset.unit={ column = \"who\", max_records = 3 }",
            "dataset.public_size=50",
            ASKED,
        ]),
    );
    let line = said
        .stdout
        .lines()
        .find(|l| l.starts_with("dp_direct: "))
        .expect("is shown");
    assert!(line.contains("unit who (at most 3 records of each)"), "{line}");
}

// ---------------------------------------------------------------------------------------------- the other two

#[test]
fn p9_the_non_private_arm_stays_internal_and_is_marked() {
    let place = Place::new();
    let asked = "evaluate.arms=[\"non_private\"]";
    let set = with(&[
        asked,
        "evaluate.non_private.batch_size=100",
        "evaluate.size_curve=[0.5]",
    ]);
    let said = place.done("run", &set);
    assert!(
        said.stdout.contains("non-private (NOT PRIVATE: no epsilon)"),
        "{}",
        said.stdout
    );
    let report = place.json("runs/tiny-quick/report.json");
    let arms = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().expect("a list").iter();
        rows.filter(|r| r["classifier"] == "linear")
            .map(|r| r["arm"].to_string())
            .collect()
    };
    assert_eq!(
        arms(&report["utility"]),
        ["\"real\"", "\"synthetic\"", "\"zero_shot\"", "\"non_private\""]
    );
    assert_eq!(arms(&report["size_curve"]).len(), 4);
    assert_eq!(
        place.ledger_shown()["runs"].as_array().map(Vec::len),
        Some(1),
        "no budget"
    );

    // No file outside `internal/` knows of it.
    let mut outside = Vec::new();
    let mut folders = vec![place.path("runs/tiny-quick")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true if path.ends_with("internal") => {}
                true => folders.push(path),
                false => outside.push(path.display().to_string()),
            }
        }
    }
    assert!(
        !outside.is_empty() && outside.iter().all(|f| !f.contains("non_private")),
        "{outside:?}"
    );
    assert!(
        place
            .text("runs/tiny-quick/internal/non_private/NOT_PRIVATE.txt")
            .starts_with("NOT PRIVATE")
    );
    let weights = place.run("internal/non_private/NOT_PRIVATE-trained.safetensors");
    let trained = fs::metadata(&weights).expect("is there").modified().expect("a time");

    // Other samples, the same weights; other settings, other weights.
    let journal = || place.lines("internal/non_private/work/non_private.jsonl");
    let first = journal();
    place.done("run", &[&set[..], &["--set", "sample.seed=5"]].concat());
    assert_eq!(
        fs::metadata(&weights).expect("is there").modified().expect("a time"),
        trained
    );
    assert_ne!(journal(), first);
    place.done("run", &[&set[..], &["--set", "evaluate.non_private.epochs=2"]].concat());
    assert_ne!(
        fs::metadata(&weights).expect("is there").modified().expect("a time"),
        trained
    );
}

#[test]
fn the_language_model_itself_classifies_the_test_records() {
    let place = Place::new();
    let set = with(&[
        "evaluate.arms=[\"model_posterior\"]",
        "evaluate.encoder_test_records=40",
    ]);
    place.done("run", &set);
    let report = place.json("runs/tiny-quick/report.json");
    let names: Vec<&Value> = report["references"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| &r["name"])
        .collect();
    assert_eq!(names, ["model_posterior", "zero_shot_posterior"]);
    for reference in report["references"].as_array().expect("a list") {
        assert_eq!(
            (&reference["test_records"], &reference["privacy"]),
            (&40.into(), &Value::Null)
        );
        let name = reference["name"].as_str().expect("text");
        let lines = place.lines(&format!("internal/{name}.jsonl"));
        assert_eq!(lines.len(), 40);
        // The accuracy is that of the kept scores.
        let counts: u64 = reference["confusion"]
            .as_array()
            .expect("rows")
            .iter()
            .flat_map(|r| r.as_array().expect("a row"))
            .map(|c| c.as_u64().expect("a count"))
            .sum();
        assert_eq!(counts, 40);
    }
    assert_eq!(
        place.ledger_shown()["runs"].as_array().map(Vec::len),
        Some(1),
        "no budget"
    );
    // What was scored is not scored again.
    let journal = place.run("internal/model_posterior.jsonl");
    let kept = place.lines("internal/model_posterior.jsonl");
    fs::write(&journal, kept[..7].join("\n") + "\n{\"record\":9").expect("writes");
    fs::remove_file(place.run("internal/utility.json")).expect("removes");
    place.done("evaluate", &set);
    assert!(place.lines("internal/model_posterior.jsonl").starts_with(&kept[..7]));
    assert_eq!(
        place.json("runs/tiny-quick/report.json")["references"],
        report["references"]
    );
}

/// It was planned with its run; where it is not asked for any more, its part of the budget was once held for ever.
#[test]
fn p8_a_dp_direct_that_is_not_wanted_any_more_is_given_back() {
    let place = Place::new();
    let total = "dataset.total_epsilon=20";
    place.done("prepare", &with(&[total, ASKED]));
    place.done("finetune", &with(&[total, ASKED]));
    let planned = place.ledger_shown();
    assert_eq!(planned["runs"].as_array().map(Vec::len), Some(2));
    // Both plans were made before anything was charged.
    assert_eq!(planned["counted"]["rests_on"], "pld");
    let counted = |shown: &Value| shown["counted"]["epsilon"].as_f64().expect("a number");
    place.done("run", &with(&[total]));
    let without = place.ledger_shown();
    let direct = without["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .find(|run| run["run"].as_str().unwrap().contains("direct"));
    assert_eq!(direct.expect("is on record")["ended"], true);
    assert!(counted(&without) < counted(&planned), "{without}");
    // Asked for again, it is a run that was planned later.
    place.done("run", &with(&[total, ASKED]));
    let again = place.ledger_shown();
    assert_eq!(again["runs"].as_array().map(Vec::len), Some(3));
    assert_ne!(again["counted"]["rests_on"], "pld");
}
