//! `task = "classify"`: an encoder trained privately on the real records, charged once, and nothing else.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use dpsynth::config::{self, DatasetConfig, LabelConfig, PrepareConfig, Profile, Task};
use dpsynth::pipeline::checks;
use dpsynth::privacy::PrivacyPlan;
use dpsynth::records::{LabelSpace, PAIR, read};
use dpsynth::run::direct_request;

use crate::common::Place;

pub const ENCODER: &str = concat!(
    "evaluate.dp_direct.encoder=",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/bert_roberta"
);

fn with(method: &str, more: &[&str]) -> Vec<String> {
    let own = [
        "task=classify",
        ENCODER,
        "evaluate.arms=[\"dp_direct\"]",
        "evaluate.dp_direct.steps=3",
        &format!("evaluate.dp_direct.method={method}"),
    ]
    .map(String::from);
    let all = own.into_iter().chain(more.iter().map(|s| s.to_string()));
    all.flat_map(|setting| ["--set".to_string(), setting]).collect()
}

pub fn strings(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn p8_a_classifier_is_charged_once_and_no_language_model_is_needed() {
    let place = Place::new();
    // A model that is nowhere: nothing asks for it.
    let set = with("lora", &["model=./nowhere.gguf"]);
    let set = strings(&set);
    let planned = place.ok(&[&["plan", "tiny.toml", "--profile", "quick"][..], &set].concat());
    assert!(planned.stdout.contains("3 steps"), "{}", planned.stdout);
    let said = place.done("run", &set);
    assert!(said.stdout.contains("dp_direct: "), "{}", said.stdout);
    assert!(
        said.stdout.contains("at delta") && said.stdout.contains("internal/dp_direct"),
        "{}",
        said.stdout
    );
    let ledger = place.ledger_shown();
    let runs = ledger["runs"].as_array().expect("runs");
    assert_eq!(
        (runs.len(), &runs[0]["charged_steps"], &runs[0]["ended"]),
        (1, &3.into(), &true.into())
    );
    let report = place.json("runs/tiny-quick/report.json");
    assert_eq!(report["references"][0]["test_records"], 60);
    assert_eq!(report["privacy"], report["references"][0]["privacy"]);
    assert!(report["privacy"]["epsilon"].as_f64().expect("a number") <= 4.0);
    for none in [
        "model/trained.safetensors",
        "synthetic",
        "internal/tokens.arrow",
        "report.html",
    ] {
        assert!(!place.run(none).exists(), "{none}");
    }

    // Nothing is charged twice, and it is not trained anew with other settings.
    place.done("run", &set);
    assert_eq!(place.ledger_shown(), ledger);
    let status = place.ok(&["status", "runs/tiny-quick"]).stdout;
    let said = ["a classifier is trained", "guarantee", "epsilon", "accountant pld"];
    assert!(said.iter().all(|part| status.contains(part)), "{status}");
    assert!(!status.contains("NOT PRIVATE") && !status.contains("audit"), "{status}");
    let compared = place.ok(&["compare", "runs/tiny-quick"]).stdout;
    assert!(
        compared.contains("a classifier: below") && compared.contains("the run's own budget: "),
        "{compared}"
    );
    for command in [
        &["audit", "runs/tiny-quick"][..],
        &["release", "runs/tiny-quick", "--to", "out"],
    ] {
        let refused = place.call(command);
        assert!(
            refused.code == Some(2) || refused.code == Some(3),
            "{command:?}: {}",
            refused.stderr
        );
        assert!(refused.stderr.contains("classif"), "{command:?}: {}", refused.stderr);
    }

    let other = with("bitfit", &["model=./nowhere.gguf"]);
    place
        .stage("run", &strings(&other))
        .refused(2, &["other settings", "charged again"]);
    assert_eq!(place.ledger_shown(), ledger);
}

/// What was paid for is neither tested nor trained as if it were something else.
#[test]
fn p8_a_classifier_stays_with_its_records_its_encoder_and_its_task() {
    let place = Place::new();
    let folder = place.path("encoder");
    fs::create_dir(&folder).expect("a folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert_roberta");
        fs::copy(format!("{own}/{file}"), folder.join(file)).expect("copies");
    }
    // A folder's name alone is a folder.
    let own = ["evaluate.dp_direct.encoder=encoder", "model=./nowhere.gguf"];
    let set = with("lora", &own);
    place.done("run", &strings(&set));
    let ledger = place.ledger_shown();

    let weights = folder.join("model.safetensors");
    let kept = fs::read(&weights).expect("reads");
    let mut other = kept.clone();
    let last = other.len() - 1;
    other[last] ^= 0x80;
    fs::write(&weights, other).expect("writes");
    let again = with("lora", &[&own[..], &["evaluate.seeds=4"]].concat());
    place
        .stage("evaluate", &strings(&again))
        .refused(2, &["another encoder"]);
    fs::write(&weights, kept).expect("writes");
    place.done("run", &strings(&set));

    let records = place.text("train.csv");
    place.write("train.csv", format!("{records}a record more,positive\n"));
    place.stage("run", &strings(&set)).refused(2, &["other records"]);
    place.write("train.csv", records);
    place.done("run", &strings(&set));

    let model = format!("model.path={}", crate::support::fixture("model.gguf").display());
    place
        .stage("run", &["--set", &model])
        .refused(2, &["task", "another configuration"]);
    assert_eq!(place.ledger_shown(), ledger, "nothing was charged again");
}

/// Columns of a Parquet file of predictions: numbers of rows, labels, probabilities.
fn predictions(path: &Path) -> Vec<(i64, Option<String>, Option<f32>)> {
    use arrow::array::{Array, Float32Array, Int64Array, StringArray};
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path).expect("opens"));
    let mut out = Vec::new();
    for batch in reader.expect("Parquet").build().expect("reads") {
        let batch = batch.expect("a batch");
        let names: Vec<&str> = batch.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["row", "label", "probability"]);
        let rows = batch.column(0).as_any().downcast_ref::<Int64Array>().expect("numbers");
        let labels = batch.column(1).as_any().downcast_ref::<StringArray>().expect("labels");
        let probabilities = batch
            .column(2)
            .as_any()
            .downcast_ref::<Float32Array>()
            .expect("numbers");
        for i in 0..batch.num_rows() {
            let label = labels.is_valid(i).then(|| labels.value(i).to_string());
            let probability = probabilities.is_valid(i).then(|| probabilities.value(i));
            out.push((rows.value(i), label, probability));
        }
    }
    out
}

/// What it says of the test file is what its score was made of; rows without text have no label; nothing is charged.
#[test]
fn a_classifier_labels_other_texts_as_it_was_tested() {
    for method in ["features", "lora"] {
        let place = Place::new();
        let set = with(method, &["model=./nowhere.gguf"]);
        place
            .call(&["predict", "runs/none", "none.csv", "--to", "labels.parquet"])
            .refused(2, &["not the folder of a run"]);
        place.done("prepare", &strings(&set));
        let predict = |file: &str, to: &str, more: &[&str]| {
            place.call(&[&["predict", "runs/tiny-quick", file, "--to", to][..], more].concat())
        };
        predict("test.csv", "labels.parquet", &[]).refused(2, &["no trained classifier"]);
        place.done("run", &strings(&set));
        let ledger = place.ledger_shown();
        let said = predict("test.csv", "labels.parquet", &[]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert!(
            said.stdout.contains("at delta") && said.stdout.contains("60 rows, 60 labelled"),
            "{}",
            said.stdout
        );
        let own = place.text("test.csv");
        let labels: Vec<&str> = own
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().expect("a label"))
            .collect();
        let found = predictions(&place.path("labels.parquet"));
        assert_eq!(found.len(), labels.len());
        let right = found
            .iter()
            .zip(&labels)
            .filter(|((_, said, _), label)| said.as_deref() == Some(**label))
            .count();
        let report = place.json("runs/tiny-quick/report.json");
        let accuracy = report["references"][0]["accuracy"].as_f64().expect("a number");
        assert!(
            (right as f64 / labels.len() as f64 - accuracy).abs() < 1e-9,
            "{method}: {right}, {accuracy}"
        );
        assert!(found.iter().enumerate().all(|(i, (row, ..))| *row == i as i64));
        assert!(
            found.iter().all(|(.., p)| p.is_some_and(|p| (0.5..=1.0).contains(&p))),
            "of two labels the likelier"
        );

        // Another file: without labels, its text elsewhere, a row without one.
        place.write(
            "others.jsonl",
            "{\"body\": \"a fine film\"}\n{\"body\": \" \"}\n{\"body\": null}\n{\"body\": \"dull\"}\n",
        );
        predict("others.jsonl", "others.parquet", &[]).refused(3, &["text"]);
        let said = predict("others.jsonl", "others.parquet", &["--text", "body", "--json"]);
        let said: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!((&said["rows"], &said["labelled"]), (&4.into(), &2.into()));
        let others = predictions(&place.path("others.parquet"));
        let known: Vec<bool> = others
            .iter()
            .map(|(_, label, p)| label.is_some() && p.is_some())
            .collect();
        assert_eq!(known, [true, false, false, true]);
        predict("others.jsonl", "others.parquet", &["--text", "body"]).refused(2, &["already"]);
        predict("others.jsonl", "nowhere/others.parquet", &[]).refused(2, &["not a folder"]);
        predict("others.jsonl", "others.csv", &[]).refused(2, &["ends in .parquet"]);
        assert_eq!(place.ledger_shown(), ledger, "nothing was charged");
    }
}

/// Values of one layer's prefix say nothing in another layer.
#[test]
fn a_classifier_keeps_to_the_layers_that_it_was_trained_in() {
    let place = Place::new();
    let mut public = String::from("text,label\n");
    (0..12).for_each(|i| public += &format!("a public text number {i},{}\n", ["negative", "positive"][i % 2]));
    place.write("public.csv", public);
    let more = [
        "model=./nowhere.gguf",
        "evaluate.dp_direct.prefix_layers=1",
        "evaluate.dp_direct.public=public.csv",
    ];
    let set = with("prefix", &more);
    // Stopped before it began, and begun with another choice.
    place.done("prepare", &strings(&set));
    let layers = "runs/tiny-quick/internal/dp_direct/layers.json";
    fs::create_dir_all(place.path("runs/tiny-quick/internal/dp_direct")).expect("a folder");
    place.write(layers, "{\"layers\":[0,1]}");
    place.done("run", &strings(&set));
    let chosen = place.json(layers)["layers"].as_array().expect("layers").clone();
    assert_eq!(chosen.len(), 1);
    let predict = |to: &str| place.call(&["predict", "runs/tiny-quick", "test.csv", "--to", to]);
    assert_eq!(predict("labels.parquet").code, Some(0));
    let other = 1 - chosen[0].as_u64().expect("a number");
    for wrong in [
        format!("{{\"layers\":[{other}]}}"),
        "{\"layers\":[]}".into(),
        "{\"layers\":[7]}".into(),
    ] {
        place.write(layers, wrong);
        predict("others.parquet").refused(2, &["other settings"]);
        place
            .stage(
                "evaluate",
                &[&strings(&set)[..], &["--set", "evaluate.seeds=4"]].concat(),
            )
            .refused(2, &["other settings"]);
    }
    fs::remove_file(place.path(layers)).expect("is there");
    predict("others.parquet").refused(2, &["other settings"]);
    place.write(layers, format!("{{\"layers\":[{}]}}", chosen[0]));
    assert_eq!(predict("others.parquet").code, Some(0));
}

#[test]
fn p4_a_seeded_classifier_is_marked_not_private() {
    let place = Place::new();
    let set = with("lora", &["finetune.seed=1", "model=./nowhere.gguf"]);
    let said = place.done("run", &strings(&set));
    assert!(said.stdout.contains("NOT PRIVATE"), "{}", said.stdout);
    let status = place.ok(&["status", "runs/tiny-quick"]).stdout;
    assert!(status.contains("nothing may leave: NOT PRIVATE"), "{status}");
}

/// Before a step size could be left open, 0.1 was written.
#[test]
fn a_classifier_on_features_that_was_trained_before_is_kept() {
    let place = Place::new();
    let written = with(
        "features",
        &["evaluate.dp_direct.learning_rate=0.1", "model=./nowhere.gguf"],
    );
    place.done("run", &strings(&written));
    let ledger = place.ledger_shown();
    let open = with("features", &["model=./nowhere.gguf"]);
    let said = place.done("run", &strings(&open));
    assert!(said.stderr.contains("references: done before, kept"), "{}", said.stderr);
    assert_eq!(place.ledger_shown(), ledger);
}

#[test]
fn each_method_trains() {
    for method in ["features", "full", "bitfit", "last-layer", "prefix"] {
        let place = Place::new();
        let set = with(method, &["model=./nowhere.gguf"]);
        place.done("run", &strings(&set));
        assert_eq!(place.ledger_shown()["runs"][0]["charged_steps"], 3, "{method}");
    }
}

#[test]
fn a_classifier_goes_on_where_it_was_stopped() {
    let place = Place::new();
    let set = with(
        "lora",
        &[
            "model=./nowhere.gguf",
            "evaluate.dp_direct.steps=60",
            "finetune.checkpoint_every=1",
        ],
    );
    let set = strings(&set);
    let mut running = place.start("run", &set);
    let checkpoint = place.run("internal/dp_direct/checkpoint.safetensors");
    running.until("a checkpoint", || checkpoint.exists());
    running.kill();
    let before = place.ledger_shown()["runs"][0]["charged_steps"]
        .as_u64()
        .expect("a count");
    assert!((1..60).contains(&before), "{before}");
    place.done("run", &set);
    assert_eq!(place.ledger_shown()["runs"][0]["charged_steps"], 60);
}

#[test]
fn what_a_classifier_cannot_be_is_refused() {
    let place = Place::new();
    for (setting, part) in [
        ("evaluate.arms=[]", "evaluate.arms"),
        ("evaluate.arms=[\"dp_direct\",\"non_private\"]", "evaluate.arms"),
        ("evaluate.dp_direct.rank=0", "rank"),
        ("evaluate.dp_direct.prefix_tokens=0", "prefix_tokens"),
        ("evaluate.dp_direct.learning_rate=0", "learning_rate"),
        ("evaluate.dp_direct.encoder=./nowhere", "nowhere"),
        ("evaluate.dp_direct.encoder=no-such-encoder", "no-such-encoder"),
        ("audit.holdout=0.1", "audit.holdout"),
        ("task=guess", "task"),
    ] {
        let set = with("lora", &[setting]);
        place.stage("run", &strings(&set)).refused(2, &[part]);
    }
    assert!(!place.path("ledgers").exists());
}

#[test]
fn the_pipelines_of_classifiers_load_and_have_a_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for name in ["sst2", "qnli", "mnli", "qqp"] {
        for profile in Profile::ALL {
            let path = folder.join(format!("{name}-direct.toml"));
            let config = config::load(&path, profile, &[], Path::new("data")).expect("loads");
            assert_eq!(
                (config.name.as_str(), config.task),
                (format!("{name}-direct").as_str(), Task::Classify)
            );
            assert_eq!(config.dataset.second_text.is_some(), name != "sst2");
            // The names of SST-2's labels are beside its files.
            if name != "sst2" {
                checks::configuration(&config).expect("nothing is refused");
            }
            let plan = PrivacyPlan::calibrate(&direct_request(&config)).expect("a plan");
            assert!(plan.statement(plan.steps()).number("epsilon") <= 8.0);
        }
    }
}

#[derive(serde::Deserialize)]
struct Labels {
    labels: Vec<LabelConfig>,
}

#[test]
fn a_pair_is_two_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pairs.csv");
    fs::write(
        &path,
        "premise,hypothesis,label\nA dog runs.,It moves.,yes\nA cat,,no\n,Nothing,no\nRain.,Sun.,no\n",
    )
    .expect("writes");
    let dataset = DatasetConfig {
        text: toml::Value::from("premise").try_into().expect("a column"),
        second_text: Some("hypothesis".into()),
        labels: toml::from_str::<Labels>("labels = [{ column = \"label\", names = [\"yes\", \"no\"] }]")
            .expect("labels")
            .labels,
        public_size: 10,
        ..DatasetConfig::default()
    };
    let labels = LabelSpace::from_config(&dataset.labels).expect("labels");
    let (records, report) = read(&path, &dataset, &labels, &PrepareConfig::default()).expect("reads");
    let texts: Vec<&str> = records.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        [format!("A dog runs.{PAIR}It moves."), format!("Rain.{PAIR}Sun.")]
    );
    // A half is no pair.
    assert_eq!((report.read, report.kept, report.dropped["no text"]), (4, 2, 2));
    let twice = DatasetConfig {
        second_text: Some("premise".into()),
        ..dataset
    };
    let error = read(&path, &twice, &labels, &PrepareConfig::default()).expect_err("one column is no pair");
    assert_eq!(error.exit_code(), 2);
}
