//! Runs side by side: what is shown of each, in which order, and what is said against comparing them.

use std::fs;

use crate::common::Place;
use serde_json::Value;

/// A tiny model: a whole run takes a second.
const MODEL: &str = concat!(
    "model.path=\"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/llama/model.gguf\""
);

fn go(place: &Place, last: &str, name: &str, more: &[&str]) {
    let name = format!("name={name}");
    let mut arguments = vec!["--set", MODEL, "--set", &name, "--set", "finetune.steps=1"];
    more.iter().for_each(|o| arguments.extend(["--set", o]));
    place.done(last, &arguments);
}

fn compared(place: &Place, runs: &[&str]) -> Value {
    let all = [&["compare", "--json"], runs].concat();
    serde_json::from_str(&place.ok(&all).stdout).expect("one JSON object")
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|v| v.as_str().expect("text")).collect()
}

#[test]
fn p10_runs_stand_in_order_of_epsilon_with_all_that_it_means() {
    let place = Place::new();
    go(&place, "run", "loose", &["finetune.epsilon=8"]);
    go(&place, "run", "tight", &["finetune.epsilon=2", "sample.guidance=0"]);
    go(&place, "run", "fixed", &["finetune.epsilon=2", "finetune.seed=1"]);
    go(&place, "prepare", "begun", &[]);
    let runs = [
        "runs/begun-quick",
        "runs/loose-quick",
        "runs/tight-quick",
        "runs/fixed-quick",
    ];

    let c = compared(&place, &runs);
    assert_eq!(c["classification"], "internal");
    let of = |key: &str| -> Vec<&Value> { c["runs"].as_array().expect("a list").iter().map(|r| &r[key]).collect() };
    assert_eq!(of("run"), ["fixed-quick", "tight-quick", "loose-quick", "begun-quick"]);
    assert_eq!(
        texts(&c["differing"]),
        ["finetune.epsilon", "finetune.seed", "sample.guidance"]
    );
    assert_eq!(c["runs"][0]["settings"]["finetune.seed"], 1);
    assert_eq!(c["runs"][1]["settings"]["finetune.seed"], Value::Null);
    assert_eq!(c["runs"][1]["settings"]["sample.guidance"], 0.0);
    assert_eq!(
        c["warnings"],
        Value::Array(Vec::new()),
        "the same records: {}",
        c["warnings"]
    );
    for run in ["tight", "loose"] {
        let report = place.json(&format!("runs/{run}-quick/report.json"));
        let shown = of("run")
            .iter()
            .position(|r| **r == format!("{run}-quick"))
            .expect("is there");
        let shown = &c["runs"][shown];
        for (ours, reported) in [
            ("/privacy", "/privacy"),
            ("/utility/rows", "/utility"),
            ("/config_hash", "/config_hash"),
        ] {
            assert_eq!(shown.pointer(ours), report.pointer(reported), "{run} {ours}");
        }
        let (rows, gap) = (&report["utility"], &shown["gaps"][0]);
        let mean = |row: usize| rows[row]["accuracy"]["mean"].as_f64().expect("a number");
        let gap = gap["accuracy"]["mean"].as_f64().expect("a number");
        assert_eq!(
            (&rows[0]["arm"], &rows[1]["arm"]),
            (&"real".into(), &"synthetic".into())
        );
        assert!((gap - (mean(0) - mean(1))).abs() < 1e-12);
    }

    // What is unfinished is read as far as it goes.
    assert_eq!(
        (texts(&c["runs"][3]["done"]), &c["runs"][3]["privacy"]),
        (vec!["prepare"], &Value::Null)
    );

    let said = place.ok(&[&["compare"], &runs[..]].concat()).stdout;
    for part in [
        "at delta 9.44e-4",
        "adjacency add-or-remove-one",
        "unit record",
        "sampler poisson",
        "accountant pld",
        "NOT PRIVATE",
        "caveat: fixed-quick: NOT PRIVATE",
        "not trained yet",
        "not evaluated; done: prepare",
        "real − synthetic",
        "finetune.epsilon",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let meanings = said.matches("accountant").count();
    assert_eq!(
        (said.matches("epsilon ").count(), meanings),
        (3 + 1, 3),
        "each with its meaning, and the setting:\n{said}"
    );
}

#[test]
fn runs_over_other_records_are_shown_with_a_warning() {
    let place = Place::new();
    go(&place, "run", "one", &[]);
    go(
        &place,
        "run",
        "fewer",
        &["prepare.max_test_records=30", "evaluate.records=4"],
    );
    let rows = place.text("train.csv").replace("the cast", "the crew");
    place.write("train.csv", rows);
    go(&place, "run", "other", &[]);

    let warnings = |runs: &[&str]| texts(&compared(&place, runs)["warnings"]).join("\n");
    let other = warnings(&["runs/one-quick", "runs/other-quick"]);
    assert!(
        other.contains("different private datasets") && !other.contains("test records"),
        "{other}"
    );
    let fewer = warnings(&["runs/one-quick", "runs/fewer-quick"]);
    assert!(
        fewer.contains("different test records") && fewer.contains("different numbers of records"),
        "{fewer}"
    );
    assert!(!fewer.contains("private datasets"), "{fewer}");
}

#[test]
fn scores_of_samples_that_are_gone_are_not_shown_and_nothing_is_written() {
    let place = Place::new();
    go(&place, "run", "one", &[]);
    go(&place, "sample", "one", &["sample.seed=9"]);
    let config = fs::metadata(place.path("runs/one-quick/config.toml"))
        .expect("is there")
        .modified()
        .expect("a time");
    // As a run that was killed while it sampled leaves it: the report is still of the samples before.
    let c = compared(&place, &["runs/one-quick"]);
    assert_eq!(c["runs"][0]["done"].as_array().map(Vec::len), Some(3));
    assert_eq!(c["runs"][0]["utility"]["rows"], Value::Array(Vec::new()));
    let after = fs::metadata(place.path("runs/one-quick/config.toml"))
        .expect("is there")
        .modified()
        .expect("a time");
    assert_eq!(config, after);
}

#[test]
fn what_is_no_run_is_refused_and_what_is_of_another_version_is_read() {
    let place = Place::new();
    go(&place, "run", "one", &[]);
    assert_eq!(place.call(&["compare"]).code, Some(2));
    place
        .call(&["compare", "runs"])
        .refused(2, &["runs is not the folder of a run"]);
    place
        .call(&["compare", "tiny.toml"])
        .refused(2, &["tiny.toml is not the folder of a run"]);
    let config = place.text("runs/one-quick/config.toml");
    place.write(
        "runs/one-quick/config.toml",
        config.replace("[finetune]", "[finetune]\nof_the_future = 3"),
    );
    let c = compared(&place, &["runs/one-quick"]);
    assert!(!c["runs"][0]["utility"]["rows"].as_array().expect("a list").is_empty());
    place.write("runs/one-quick/config.toml", "[finetune");
    place
        .call(&["compare", "runs/one-quick"])
        .refused(3, &["config.toml is damaged"]);
}

#[test]
fn scores_stand_beside_the_settings_that_made_them() {
    let place = Place::new();
    go(&place, "run", "changed", &["sample.guidance=1"]);
    let stages = || compared(&place, &["runs/changed-quick"])["runs"][0]["done"].clone();
    assert_eq!(texts(&stages()), ["prepare", "finetune", "sample", "evaluate"]);
    // Another command writes other settings into the folder and does not draw by them.
    go(&place, "prepare", "changed", &["sample.guidance=3"]);
    let c = compared(&place, &["runs/changed-quick"]);
    assert_eq!(texts(&stages()), ["prepare", "finetune"]);
    assert_eq!(c["runs"][0]["utility"]["rows"], Value::Array(Vec::new()));
}
