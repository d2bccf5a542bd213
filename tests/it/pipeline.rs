//! Whole runs, as processes that are killed, interrupted, refused and taken up again, with the real language model.
#![cfg(unix)]

use crate::common;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::common::{Place, Said, fetch, model};
use arrow::array::{Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// A folder of shards as another program reads it.
struct Shards {
    metadata: BTreeMap<String, String>,
    columns: Vec<(String, DataType)>,
    /// id, text, label as text.
    rows: Vec<(i64, String, String)>,
}

fn shards(folder: &Path) -> Shards {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder of shards")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort();
    let mut out = Shards {
        metadata: BTreeMap::new(),
        columns: Vec::new(),
        rows: Vec::new(),
    };
    for file in files {
        let file = fs::File::open(file).expect("opens");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        let metadata = reader
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .cloned()
            .unwrap_or_default();
        out.metadata
            .extend(metadata.into_iter().filter_map(|pair| Some((pair.key, pair.value?))));
        out.columns = reader
            .schema()
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone()))
            .collect();
        for batch in reader.build().expect("reads") {
            let batch = batch.expect("a batch");
            let ids = batch["id"].as_any().downcast_ref::<Int64Array>().expect("integers");
            let texts = batch["text"].as_any().downcast_ref::<StringArray>().expect("texts");
            let labels = &batch["label"];
            let label = |i: usize| match labels.as_any().downcast_ref::<Int64Array>() {
                Some(integers) => integers.value(i).to_string(),
                None => labels
                    .as_any()
                    .downcast_ref::<StringArray>()
                    .expect("texts")
                    .value(i)
                    .to_string(),
            };
            out.rows
                .extend((0..ids.len()).map(|i| (ids.value(i), texts.value(i).to_string(), label(i))));
        }
    }
    out
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).expect("is there").modified().expect("a time")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Whether IMDb is on this machine.
fn imdb_is_here(place: &Place) -> bool {
    let output = place
        .command(&["doctor", "--json"])
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .expect("starts");
    let findings: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let assets = findings["assets"].as_array().expect("a list");
    assets.iter().any(|a| a["name"] == "imdb" && !a["present"].is_null())
}

#[test]
fn the_whole_way_on_imdb_records() {
    model();
    let place = Place::new();
    let (pipeline, name) = match imdb_is_here(&place) {
        true => ("imdb.toml", "imdb-quick"),
        false => {
            println!("IMDb is not in the Hugging Face cache: movie-snippets in its stead");
            fetch("movie-snippets");
            ("movie-snippets.toml", "movie-snippets-quick")
        }
    };
    fetch("all-minilm-l6-v2");
    let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(pipeline);
    let pipeline = pipeline.to_str().expect("a plain path");
    let overrides = [
        "prepare.max_tokens=32",
        "prepare.max_test_records=200",
        "lexicon.encoder=none",
        "finetune.epsilon=3",
        "finetune.steps=2",
        "finetune.expected_batch_size=8",
        "finetune.rank=2",
        "sample.records=16",
        "sample.max_tokens=12",
        "sample.refine.rounds=8",
        "evaluate.seeds=2",
        "evaluate.encoder_max_tokens=16",
        "evaluate.encoder_epochs=1",
        "evaluate.encoder_test_records=24",
    ];
    let mut arguments = vec!["run", pipeline, "--profile", "quick", "--json"];
    overrides.iter().for_each(|o| arguments.extend(["--set", o]));
    let said = place.ok(&arguments);

    let report: Value = serde_json::from_str(&said.stdout).expect("the report and nothing else on standard output");
    let folder = place.path("runs").join(name);
    let on_disk: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("report.json")).expect("reads")).expect("JSON");
    assert_eq!(report, on_disk);

    let p = &report["privacy"];
    assert!(number(&p["epsilon"]) <= 3.0 && number(&p["epsilon_lower"]) > 0.0, "{p}");
    assert!(number(&p["epsilon_lower"]) <= number(&p["epsilon"]), "{p}");
    let size = if name == "imdb-quick" { 25_000.0_f64 } else { 8_300.0 };
    assert!(
        (number(&p["delta"]) * size * size.ln() - 1.0).abs() < 1e-9
            && (number(&p["sampling_rate"]) * size / 8.0 - 1.0).abs() < 1e-9
    );
    assert!(number(&p["noise_multiplier"]) > 0.0);
    for (key, value) in [
        ("adjacency", "add-or-remove-one"),
        ("unit", "record"),
        ("sampler", "poisson"),
        ("accountant", "pld"),
    ] {
        assert_eq!(p[key], value);
    }
    assert_eq!((&p["steps"], &p["private"]), (&2.into(), &true.into()));

    let utility = report["utility"].as_array().expect("a list");
    let rows: Vec<(&str, &str)> = utility
        .iter()
        .map(|r| {
            (
                r["arm"].as_str().expect("text"),
                r["classifier"].as_str().expect("text"),
            )
        })
        .collect();
    let all = ["real", "synthetic", "zero_shot"]
        .iter()
        .flat_map(|a| [(*a, "linear"), (*a, "encoder")]);
    assert_eq!(rows, all.collect::<Vec<_>>());
    for row in utility {
        assert_eq!(row["records"], utility[0]["records"], "arms are equally large");
        for score in [&row["accuracy"], &row["macro_f1"]] {
            let [low, mean, high] = ["low", "mean", "high"].map(|k| number(&score[k]));
            assert!((0.0..=mean).contains(&low) && (mean..=1.0).contains(&high), "{row}");
            assert_eq!(score["seeds"], 2);
        }
    }

    let train = &report["records"]["train"];
    let dropped: f64 = train["dropped"]
        .as_object()
        .expect("reasons")
        .values()
        .map(number)
        .sum();
    assert_eq!(number(&train["read"]), number(&train["kept"]) + dropped);
    assert!(number(&train["kept"]) >= size);
    assert_eq!(report["records"]["test_evaluated"], 200);
    for stage in ["prepare", "finetune", "sample", "evaluate"] {
        assert!(number(&report["timings_s"][stage]) > 0.0);
    }
    assert!(number(&report["peak_rss_bytes"]) > 1e8, "the model alone takes more");
    assert_eq!(report["config_hash"].as_str().map(str::len), Some(64));
    assert_eq!(report["program_version"], env!("CARGO_PKG_VERSION"));

    let synthetic = shards(&folder.join("synthetic"));
    let columns: Vec<(&str, &DataType)> = synthetic.columns.iter().map(|(n, t)| (n.as_str(), t)).collect();
    assert_eq!(
        columns,
        [
            ("id", &DataType::Int64),
            ("text", &DataType::Utf8),
            ("label", &DataType::Int64)
        ]
    );
    // Training is random, and so is whether every place finds a record that shows its label.
    let kept = |arm: &str| number(&report["sampling"][arm]["kept"]) as usize;
    assert!((12..=16).contains(&kept("synthetic")), "{}", report["sampling"]);
    assert_eq!(synthetic.rows.len(), kept("synthetic"));
    let smallest = kept("synthetic").min(kept("zero_shot"));
    assert_eq!(
        utility[0]["records"],
        (4 * smallest).div_ceil(5),
        "four fifths of the smallest arm: each seed takes others"
    );
    assert!(
        synthetic
            .rows
            .iter()
            .all(|(_, text, label)| !text.trim().is_empty() && (label == "0" || label == "1"))
    );
    let positive = &report["sampling"]["synthetic"]["labels"][1];
    assert_eq!(positive["wanted"], 8, "the prior is uniform");
    assert_eq!(synthetic.rows.iter().filter(|r| r.2 == "1").count(), positive["kept"]);
    for (key, value) in p.as_object().expect("a statement") {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        assert_eq!(synthetic.metadata.get(&format!("dp.{key}")), Some(&value), "dp.{key}");
    }
    let zero_shot = shards(&folder.join("zero_shot"));
    assert!(zero_shot.metadata["dp.mechanism"].starts_with("none") && !zero_shot.metadata.contains_key("dp.epsilon"));

    let ledger = place.ledger_shown();
    assert_eq!(
        (&ledger["runs"][0]["charged_steps"], &ledger["runs"][0]["ended"]),
        (&2.into(), &true.into())
    );
    assert_eq!(ledger["runs"].as_array().map(Vec::len), Some(1));
    assert!((number(&ledger["epsilon_charged"]) / number(&p["epsilon"]) - 1.0).abs() < 1e-3);
}

/// Charged steps of the only run; the ledger is verified on the way.
fn charged(place: &Place) -> u64 {
    let ledger = place.ledger_shown();
    assert_eq!(
        ledger["runs"].as_array().map(Vec::len),
        Some(1),
        "one run, however often it was begun: {ledger}"
    );
    ledger["runs"][0]["charged_steps"].as_u64().expect("a count")
}

#[test]
fn killed_in_training_it_goes_on_and_charges_at_least_what_it_applies() {
    model();
    let place = Place::new();
    let six = ["--set", "finetune.steps=6"];
    let log = "internal/training.jsonl";
    let applied = || place.lines(log).len() as u64;
    place.done("prepare", &six);
    let prepared = modified(&place.run("internal/stamps/prepare.json"));

    // Killed after a step, while another program is refused.
    let mut run = place.start("finetune", &six);
    run.until("the first step", || applied() >= 1);
    place
        .stage("sample", &six)
        .refused(1, &["another program is running in runs/tiny-quick"]);
    run.kill();
    let after_kill = charged(&place);
    assert!(after_kill >= applied() && after_kill < 6, "{after_kill} charged");

    // Ctrl-C after another.
    let mut run = place.start("finetune", &six);
    run.until("another step", || applied() > after_kill);
    run.interrupt().refused(
        130,
        &[
            "stopped after step",
            "of 6; the state is saved",
            "the same command goes on from here",
        ],
    );
    let after_interrupt = charged(&place);
    assert!(
        after_interrupt > after_kill && after_interrupt >= applied() && after_interrupt < 6,
        "{after_interrupt} charged"
    );

    // A full disk, in the middle of a step.
    let kept = place.path("kept.jsonl");
    fs::rename(place.run(log), &kept).expect("moves");
    symlink("/dev/full", place.run(log)).expect("links");
    place
        .stage("finetune", &six)
        .refused(1, &["internal/training.jsonl: No space left", "free some space"]);
    fs::rename(&kept, place.run(log)).expect("moves back");
    assert_eq!(
        charged(&place),
        after_interrupt + 1,
        "the step was paid for before it failed"
    );

    // And to the end.
    let said = place.done("finetune", &six);
    assert!(said.stderr.contains("training goes on: "), "{}", said.stderr);
    assert!(
        said.stderr
            .contains("charged steps were lost to interruptions; they stay charged"),
        "{}",
        said.stderr
    );
    assert_eq!(charged(&place), 6);
    assert!(applied() < 6);
    let charges: Vec<u64> = place
        .lines(log)
        .iter()
        .map(|l| {
            serde_json::from_str::<Value>(l).expect("JSON")["charge"]
                .as_u64()
                .expect("a count")
        })
        .collect();
    assert!(
        charges.windows(2).all(|w| w[0] < w[1]),
        "no charge pays for two steps: {charges:?}"
    );
    assert_eq!(
        place.json("runs/tiny-quick/report.json")["privacy"]["steps"],
        6,
        "lost steps are part of the guarantee"
    );
    assert_eq!(
        modified(&place.run("internal/stamps/prepare.json")),
        prepared,
        "preparing was not done again"
    );

    // Killed after the run was ended in the ledger, before the stage was stamped.
    let stamp = place.text("runs/tiny-quick/internal/stamps/finetune.json");
    let adapter = modified(&place.run("model/trained.safetensors"));
    place.write(
        "runs/tiny-quick/internal/stamps/finetune.json",
        stamp.replace("\"done\":true", "\"done\":false"),
    );
    place.done("finetune", &six);
    assert_eq!(
        (charged(&place), modified(&place.run("model/trained.safetensors"))),
        (6, adapter)
    );
}

#[test]
fn killed_in_sampling_or_evaluation_it_comes_to_the_same() {
    model();
    let place = Place::new();
    let encoder = format!(
        "evaluate.encoder_path={}/tests/fixtures/bert",
        env!("CARGO_MANIFEST_DIR")
    );
    let set = [
        "--set",
        "finetune.steps=1",
        "--set",
        "sample.records=12",
        "--set",
        "evaluate.encoder=true",
        "--set",
        "evaluate.encoder_epochs=60",
        "--set",
        "evaluate.encoder_max_tokens=8",
        "--set",
        "evaluate.all_synthetic=false",
        "--set",
        &encoder,
    ];
    place.done("prepare", &set);
    place.done("finetune", &set);
    place.done("sample", &set);
    let ledger = fs::read(place.ledger()).expect("reads");
    let texts = || ["synthetic", "zero_shot"].map(|arm| shards(&place.run(arm)).rows);
    let uninterrupted = texts();
    assert_eq!(uninterrupted.each_ref().map(Vec::len), [12, 12]);

    fs::remove_file(place.run("internal/stamps/sample.json")).expect("removes");
    for folder in ["synthetic", "zero_shot", "work"] {
        fs::remove_dir_all(place.run(folder)).expect("removes");
    }
    let journal = |arm: &str| place.lines(&format!("work/{arm}.jsonl"));
    let mut run = place.start("sample", &set);
    run.until("the first synthetic records", || !journal("synthetic").is_empty());
    run.kill();
    let first = journal("synthetic");
    assert!(
        first.len() < 12 && !place.run("synthetic").exists(),
        "no half of a result is ever seen"
    );
    // A line that the crash tore is drawn again.
    place.write(
        "runs/tiny-quick/work/synthetic.jsonl",
        first.join("\n") + "\n{\"id\":7,\"la",
    );

    let mut run = place.start("sample", &set);
    run.until("the first zero-shot records", || !journal("zero_shot").is_empty());
    run.interrupt().refused(130, &["of 12 records of `zero_shot`"]);
    assert!(journal("synthetic").starts_with(&first), "what was drawn is kept");
    place.done("sample", &set);
    assert_eq!(texts(), uninterrupted);
    assert_eq!(fs::read(place.ledger()).expect("reads"), ledger, "sampling is free");

    let scores = || place.lines("internal/scores.jsonl");
    let mut run = place.start("evaluate", &set);
    run.until("the first fits of an encoder", || scores().len() >= 3);
    run.kill();
    let first = scores();
    let mut run = place.start("evaluate", &set);
    run.until("another fit of an encoder", || scores().len() > first.len() + 2);
    run.interrupt().refused(130, &["finished fits are kept"]);
    let report: Value =
        serde_json::from_str(&place.done("evaluate", &[&set[..], &["--json"]].concat()).stdout).expect("JSON");
    assert_eq!(report["utility"].as_array().map(Vec::len), Some(6));
    assert!(scores().starts_with(&first), "what was fitted is kept");
    let fits: Vec<Value> = scores()
        .iter()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let different: BTreeSet<String> = fits
        .iter()
        .map(|f| format!("{} {} {}", f["arm"], f["classifier"], f["seed"]))
        .collect();
    assert_eq!((fits.len(), different.len()), (12, 12), "no fit is done twice");
}

#[test]
fn a_finished_run_is_kept_and_its_folder_belongs_to_it() {
    model();
    let place = Place::new();
    let said = place.done("run", &[]);
    assert!(
        said.stdout.contains("at delta 9.44e-4") && said.stdout.contains("zero-shot"),
        "{}",
        said.stdout
    );
    let ledger = fs::read(place.ledger()).expect("reads");
    let stamps = || {
        ["prepare", "finetune", "sample", "evaluate"]
            .map(|s| modified(&place.run(&format!("internal/stamps/{s}.json"))))
    };
    let texts = || shards(&place.run("synthetic")).rows;
    let (before, first) = (stamps(), texts());

    let again = place.done("run", &[]);
    assert_eq!(again.stdout, said.stdout);
    assert_eq!(again.stderr.matches("done before, kept").count(), 4, "{}", again.stderr);
    assert_eq!(stamps(), before);

    // Sampling is post-processing: another guidance draws again and charges nothing.
    let guided = place.done("run", &["--set", "sample.guidance=0"]);
    assert_eq!(
        guided.stderr.matches("done before, kept").count(),
        2,
        "{}",
        guided.stderr
    );
    assert_ne!(texts(), first);
    assert_eq!(fs::read(place.ledger()).expect("reads"), ledger);

    // Whatever was trained otherwise needs a folder of its own.
    place
        .stage("run", &["--set", "finetune.epsilon=3"])
        .refused(2, &["[finetune] differs", "--set name="]);
    place
        .stage("run", &["--set", "prepare.max_tokens=8"])
        .refused(2, &["[prepare] differs"]);
    assert_eq!(
        place.done("run", &["--set", "sample.guidance=0"]).stdout,
        guided.stdout,
        "what was refused changed nothing"
    );

    // A stamp of another version of the program: nothing that was paid for is thrown away and paid for again.
    let stamp = place.text("runs/tiny-quick/internal/stamps/finetune.json");
    let (_, key) = stamp.split_once("\"key\":\"").expect("a key");
    let other = stamp.replace(&key[..64], &"0".repeat(64));
    place.write("runs/tiny-quick/internal/stamps/finetune.json", other);
    place
        .stage("finetune", &[])
        .refused(2, &["another version of the program", "stays charged"]);
    assert!(place.run("model/trained.safetensors").exists());
    assert_eq!(fs::read(place.ledger()).expect("reads"), ledger);

    // The ledger remembers what the folder forgets: deleting a run refunds nothing.
    let spent = number(&place.ledger_shown()["epsilon_charged"]);
    fs::remove_dir_all(place.path("runs")).expect("removes");
    place.done("prepare", &[]);
    place.done("finetune", &[]);
    assert!(number(&place.ledger_shown()["epsilon_charged"]) > 1.05 * spent);
}

#[test]
fn p8_a_second_run_that_would_pass_the_budget_is_refused() {
    model();
    let place = Place::new();
    let train = |name: &str, more: &[&str]| -> Said {
        let set = [
            &[
                "--set",
                "dataset.total_epsilon=4.2",
                "--set",
                "finetune.steps=1",
                "--set",
                name,
            ][..],
            more,
        ]
        .concat();
        place.done("prepare", &set);
        place.stage("finetune", &set)
    };
    assert_eq!(train("name=first", &[]).code, Some(0));
    let refused = train("name=second", &[]);
    refused.refused(
        4,
        &[
            "the dataset's budget is epsilon 4.2 at delta",
            "spent or reserved 3.9",
            "this run asks 3.9",
            "together ",
        ],
    );
    assert!(
        !place.path("runs/second-quick/internal/training.jsonl").exists(),
        "not a step was taken"
    );
    assert_eq!(place.ledger_shown()["runs"].as_array().map(Vec::len), Some(1));

    // The same records in another order, with another budget in the configuration, are the same dataset.
    let text = place.text("train.csv");
    let (header, rows) = text.split_once('\n').expect("a header");
    let turned: String = rows.lines().rev().map(|l| format!("{l}\n")).collect();
    place.write("train.csv", format!("{header}\n{turned}"));
    train("name=third", &["--set", "dataset.total_epsilon=50"])
        .refused(4, &["the dataset's budget is epsilon 4.2 at delta"]);

    // The owner may decide otherwise, on record.
    let ledger = place.ledger();
    place.ok(&[
        "ledger",
        "set-budget",
        ledger.to_str().expect("a plain path"),
        "--epsilon",
        "20",
    ]);
    assert_eq!(train("name=second", &[]).code, Some(0));
}

#[test]
fn p4_a_run_with_a_seed_repeats_and_is_marked_not_private() {
    model();
    let place = Place::new();
    let adapters = ["name=one", "name=two"].map(|name| {
        let set = [
            "--set",
            name,
            "--set",
            "finetune.seed=42",
            "--set",
            "finetune.steps=1",
            "--set",
            "sample.records=4",
        ];
        place.done("prepare", &set);
        let said = place.done("finetune", &set);
        assert!(
            said.stdout.contains("NOT PRIVATE") && said.stderr.contains("NOT PRIVATE"),
            "{said:?}"
        );
        let run = name.replace("name=", "runs/") + "-quick";
        fs::read(place.path(&run).join("model/trained.safetensors")).expect("reads")
    });
    assert!(adapters[0] == adapters[1], "the same adapter, byte by byte");
    let set = [
        "--set",
        "name=one",
        "--set",
        "finetune.seed=42",
        "--set",
        "finetune.steps=1",
        "--set",
        "sample.records=4",
    ];
    assert!(place.done("sample", &set).stdout.contains("NOT PRIVATE"));
    assert_eq!(place.json("runs/one-quick/report.json")["privacy"]["private"], false);
    assert_eq!(place.json("runs/one-quick/model/privacy.json")["private"], false);
    assert_eq!(
        shards(&place.path("runs/one-quick/synthetic")).metadata["dp.private"],
        "false"
    );
    let ledger = place.ledger_shown();
    assert_eq!(
        (number(&ledger["epsilon_charged"]), &ledger["runs"][0]["private"]),
        (0.0, &false.into()),
        "nothing was guaranteed"
    );
}

#[test]
fn p7_what_a_trained_run_lost_is_made_again_from_its_checkpoint_and_nothing_is_paid_twice() {
    model();
    let place = Place::new();
    let train = format!("dataset.train={:?}", place.path("train.csv"));
    let set = ["--set", &train];
    let other = ["--set", &train, "--set", "sample.seed=7"];
    place.done("prepare", &set);
    place.done("finetune", &set);
    let ledger = fs::read(place.ledger()).expect("reads");
    let kept = ["model/trained.safetensors", "model/privacy.json"];
    let before = kept.map(|f| fs::read(place.run(f)).expect("reads"));

    // A lost adapter is rebuilt, though the ledger has closed the run.
    fs::remove_dir_all(place.run("model")).expect("removes");
    place.done("finetune", &set);
    assert!(
        kept.map(|f| fs::read(place.run(f)).expect("reads")) == before,
        "the same bytes"
    );
    assert_eq!(fs::read(place.ledger()).expect("reads"), ledger);

    // Private files may go away once they are read: what follows training does not need them.
    fs::rename(place.path("train.csv"), place.path("away.csv")).expect("moves");
    place.done("sample", &set);
    assert!(place.run("internal/train.parquet").exists());

    // A report never shows figures of an evaluation that is no longer of these records.
    place.done("evaluate", &set);
    let reported = || {
        place.json("runs/tiny-quick/report.json")["utility"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert!(reported() > 0);
    place.done("sample", &other);
    assert_eq!(reported(), 0);

    // A state with more steps than its run has charged is not this run's: the guarantee would count too few.
    fs::write(place.run("internal/run-id"), "tiny-quick-another").expect("writes");
    fs::remove_dir_all(place.run("model")).expect("removes");
    place
        .stage("finetune", &other)
        .refused(3, &["more steps applied than its run has charged"]);
    assert_eq!(fs::read(place.ledger()).expect("reads"), ledger);
}

/// 200 records where 190 are declared: the owner is told, and rate and guarantee follow the declaration.
#[test]
fn p2_a_count_that_differs_from_the_declared_one_is_for_the_owner_alone() {
    model();
    let place = Place::new();
    let settings = ["--set", "dataset.public_size=190"];
    let said = place.done("prepare", &settings);
    assert!(
        said.stderr.contains(
            "warning (internal): 200 training records, `dataset.public_size` declares 190; \
             the sampling rate follows the declaration"
        ),
        "{}",
        said.stderr
    );
    place.done("finetune", &settings);
    let guarantee = place.json("runs/tiny-quick/model/privacy.json");
    assert_eq!(number(&guarantee["sampling_rate"]), 4.0 / 190.0);
}

/// A person's records are protected together, and labels are drawn as often as their noisy counts say.
#[test]
fn p10_units_of_several_records_and_counted_labels_go_the_whole_way() {
    model();
    let place = Place::new();
    place.write("train.csv", common::records_by_viewer(10));
    let settings = [
        "--set",
        "dataset.unit={ column = \"who\", max_records = 3 }",
        "--set",
        "dataset.public_size=50",
        "--set",
        "finetune.label_histogram_epsilon=2.0",
        "--set",
        "finetune.max_batch_size=12",
        "--set",
        "sample.label_prior=noisy",
        "--set",
        "sample.records=20",
    ];
    let unit = "who (at most 3 records of each)";
    let said = place.done("prepare", &settings);
    assert!(
        !said.stderr.contains("warning"),
        "50 units were declared: {}",
        said.stderr
    );
    let said = place.done("finetune", &settings);
    assert!(
        said.stderr
            .contains(&format!("unit {unit}, sampler poisson truncated at 12")),
        "{}",
        said.stderr
    );
    place.done("sample", &settings);

    let guarantee = place.json("runs/tiny-quick/model/privacy.json");
    assert_eq!(
        (
            guarantee["unit"].as_str(),
            number(&guarantee["label_histogram_epsilon"])
        ),
        (Some(unit), 2.0)
    );
    assert!(number(&guarantee["epsilon"]) <= 4.0 && number(&guarantee["epsilon"]) > 3.99);
    let ledger = place.ledger_shown();
    assert_eq!(
        (ledger["unit"].as_str(), &ledger["runs"][0]["charged_histogram"]),
        (Some(unit), &Value::Bool(true))
    );

    // 150 records are used, 15 of them negative; noise of scale 3/2 for each label.
    let counts = place.json("runs/tiny-quick/model/label_counts.json");
    let (negative, positive) = (number(&counts[0]), number(&counts[1]));
    assert!(
        (negative - 15.0).abs() < 30.0 && (positive - 135.0).abs() < 30.0,
        "{counts}"
    );
    let drawn = shards(&place.run("synthetic"));
    let wanted = (20.0 * negative / (negative + positive)).round();
    let got = drawn.rows.iter().filter(|r| r.2 == "negative").count() as f64;
    assert!((got - wanted).abs() <= 1.0, "{got} of 20 negative, {counts}");

    // Another unit on the same records is another kind of account.
    place
        .stage(
            "finetune",
            &["--set", "name=other", "--set", "dataset.total_epsilon=100"],
        )
        .refused(2, &["is not done yet"]);
    place.done("prepare", &["--set", "name=other"]);
    place
        .stage("finetune", &["--set", "name=other"])
        .refused(2, &["protects the unit who", "this run record"]);
}

/// A row that one configuration leaves out is part of the dataset all the same: another label column opens no new account.
#[test]
fn p8_rows_that_are_left_out_still_belong_to_the_dataset() {
    let place = Place::new();
    let rows: String = (0..50)
        .map(|i| {
            let (mood, who) = (if i == 7 { "" } else { "negative" }, if i == 9 { "" } else { "ann" });
            format!("film {i},positive,{mood},{who}\n")
        })
        .collect();
    place.write("train.csv", format!("text,label,mood,who\n{rows}"));
    place.write("test.csv", format!("text,label,mood,who\n{rows}"));
    let hash = |name: &str, more: &[&str]| {
        let named = format!("name={name}");
        let model = concat!(
            "model.path=\"",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/llama/model.gguf\""
        );
        let all = [
            &["--set", &named, "--set", model, "--set", "dataset.public_size=50"],
            more,
        ]
        .concat();
        place.done("prepare", &all);
        place.json(&format!("runs/{name}-quick/internal/prepare.json"))["dataset_hash"].clone()
    };
    let plain = hash("plain", &[]);
    let labels = "dataset.labels=[{ column = \"mood\", names = [\"negative\", \"positive\"] }]";
    assert_eq!(
        hash("moods", &["--set", labels, "--set", "prompt.user=A {{ mood }} review."]),
        plain
    );
    assert_eq!(
        hash(
            "units",
            &["--set", "dataset.unit={ column = \"who\", max_records = 2 }"]
        ),
        plain
    );
}

#[test]
fn p9_a_warm_start_reads_no_record_and_training_goes_on_from_it() {
    let warm = [
        "--set",
        "finetune.warm_start.records=4",
        "--set",
        "finetune.warm_start.batch_size=2",
    ];
    model();
    let make = |rows: usize, more: &[&str]| {
        let place = Place::new();
        fs::write(place.path("train.csv"), common::records(rows)).expect("writes");
        place.done("prepare", more);
        place.done("finetune", more);
        place
    };
    let (some, others, cold) = (make(40, &warm), make(30, &warm), make(40, &[]));
    let start = |place: &Place| fs::read(place.run("model/warm_start.safetensors")).expect("a warm start");
    assert_eq!(
        start(&some),
        start(&others),
        "other private records, the same warm start"
    );
    assert!(!cold.run("model/warm_start.safetensors").exists());
    // What was trained stays near where it began: a few steps move each value by at most a few learning rates.
    let values = |place: &Place, file: &str| -> Vec<f32> {
        let bytes = fs::read(place.run(file)).expect("reads");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
        let mut named: Vec<_> = tensors.tensors();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        let floats = |data: &[u8]| -> Vec<f32> {
            data.chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
                .collect()
        };
        named.iter().flat_map(|(_, t)| floats(t.data())).collect()
    };
    let moved = |from: &[f32], to: &[f32]| from.iter().zip(to).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let (begun, trained) = (
        values(&some, "model/warm_start.safetensors"),
        values(&some, "model/trained.safetensors"),
    );
    let steps = some.ledger_shown()["runs"][0]["charged_steps"]
        .as_u64()
        .expect("a number") as f32;
    assert!(begun.iter().any(|v| *v != 0.0));
    assert!(moved(&begun, &trained) <= 1.1e-3 * steps, "{}", moved(&begun, &trained));
}

#[test]
fn a_warm_start_that_diverges_is_refused_before_anything_is_charged() {
    model();
    let place = Place::new();
    let wild = [
        "--set",
        "finetune.warm_start.records=4",
        "--set",
        "finetune.warm_start.learning_rate=1e30",
    ];
    place.done("prepare", &wild);
    place.stage("finetune", &wild).refused(2, &["warm start diverged"]);
    assert!(!place.path("ledgers").exists() || place.ledgers() == 0);
}
