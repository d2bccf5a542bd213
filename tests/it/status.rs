//! `dpsynth status`: what is shown of a run at each stage, at work, stopped, damaged and old; and that looking changes nothing.
#![cfg(unix)]

use crate::common;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::common::{Place, Running};
use serde_json::Value;

/// A tiny model: a whole run takes a second.
const MODEL: &str = concat!(
    "model.path=\"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/llama/model.gguf\""
);

const RUN: &str = "runs/tiny-quick";

fn go(place: &Place, last: &str, more: &[&str]) {
    let mut arguments = vec!["--set", MODEL];
    more.iter().for_each(|o| arguments.extend(["--set", o]));
    place.done(last, &arguments);
}

fn status(place: &Place, run: &str) -> Value {
    serde_json::from_str(&place.ok(&["status", run, "--json"]).stdout).expect("one JSON object")
}

fn states(status: &Value) -> Vec<&str> {
    let stages = status["stages"].as_array().expect("a list").iter();
    stages.map(|s| s["state"].as_str().expect("a state")).collect()
}

/// Every file below `folder`: its bytes and when they were written.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
    {
        if entry.is_dir() {
            out.extend(files(&entry));
        } else {
            let at = fs::metadata(&entry).expect("is there").modified().expect("a time");
            out.insert(entry.clone(), (fs::read(&entry).expect("reads"), at));
        }
    }
    out
}

/// Does what `dpsynth status` says comes next.
fn follow(place: &Place, status: &Value) {
    let command = status["next"]["command"].as_str().expect("a command").to_string();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "dpsynth");
    place.ok(&words[1..]);
}

#[test]
fn p10_what_comes_next_leads_from_the_first_stage_to_a_release() {
    let place = Place::new();
    go(&place, "prepare", &[]);
    let begun = status(&place, RUN);
    assert_eq!(states(&begun), ["done", "not-begun", "not-begun", "not-begun"]);
    assert_eq!((&begun["privacy"], &begun["charged"]), (&Value::Null, &Value::Null));
    assert_eq!(begun["next"]["what"], "go on: finetune, sample, evaluate");
    follow(&place, &begun);

    let run = status(&place, RUN);
    assert_eq!(states(&run), ["done"; 4]);
    assert_eq!(run["privacy"], place.json(&format!("{RUN}/model/privacy.json")));
    assert_eq!(
        (&run["audit"], &run["at_work"], &run["problems"]),
        (&Value::Null, &false.into(), &Value::Array(vec![]))
    );
    for stage in run["stages"].as_array().expect("a list") {
        let name = stage["stage"].as_str().expect("a name");
        let stamp = place.json(&format!("{RUN}/internal/stamps/{name}.json"));
        for key in ["key", "seconds", "peak_rss_bytes"] {
            assert_eq!(stage["stamp"][key], stamp[key], "{name} {key}");
        }
    }
    let said = place.ok(&["status", RUN]).stdout;
    let key = &run["stages"][1]["stamp"]["key"].as_str().expect("a key")[..12];
    for part in [
        "finetune   done; ",
        key,
        "guarantee  epsilon 4.000 (at least ",
        "at delta 9.44e-4; adjacency add-or-remove-one, unit record, sampler poisson, accountant pld",
        "audit      not audited",
        "next       try to break the run's own claim: dpsynth audit runs/tiny-quick",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(!said.contains("problem"), "{said}");

    place.audit();
    let audited = status(&place, RUN);
    assert_eq!(
        (&audited["audit"]["verdict"], &audited["audit"]["current"]),
        (&"pass".into(), &true.into())
    );
    assert_eq!(
        audited["next"]["command"],
        "dpsynth release runs/tiny-quick --to DIR --dry-run"
    );

    // Other records than the audit's, and an evaluation of records that are gone.
    go(&place, "sample", &["sample.seed=7"]);
    let again = status(&place, RUN);
    assert_eq!(states(&again), ["done", "done", "done", "stale"]);
    assert_eq!(again["stages"][3]["why"], "the stage before it was done anew");
    assert_eq!(again["audit"]["current"], false);
    follow(&place, &again);
    assert_eq!(status(&place, RUN)["next"]["command"], "dpsynth audit runs/tiny-quick");
}

#[test]
fn p10_a_run_at_work_shows_what_its_training_has_charged_and_is_not_disturbed() {
    let place = Place::new();
    // The real model: its steps take long enough to be seen.
    common::model();
    let mut running = place.start("run", &["--set", "finetune.steps=400"]);
    running.until("two steps", || place.lines("internal/training.jsonl").len() >= 2);
    let at_work = status(&place, RUN);
    assert_eq!(states(&at_work), ["done", "begun", "not-begun", "not-begun"]);
    assert_eq!(at_work["at_work"], true);
    assert_eq!(at_work["next"]["command"], Value::Null);
    let c = &at_work["charged"];
    assert!(c["steps"].as_u64().expect("a count") >= 2, "{c}");
    assert_eq!((&c["planned_steps"], &c["planned_epsilon"]), (&400.into(), &4.0.into()));
    let epsilon = c["epsilon"].as_f64().expect("a number");
    assert!(epsilon > 0.0 && epsilon < 4.0, "{epsilon}");
    for (key, value) in [
        ("adjacency", "add-or-remove-one"),
        ("unit", "record"),
        ("sampler", "poisson"),
        ("accountant", "pld"),
    ] {
        assert_eq!(c[key], value);
    }
    let said = place.ok(&["status", RUN]).stdout;
    for part in [
        "finetune   running",
        " of 400 steps; epsilon ",
        " of 4 so far at delta 9.44e-4; adjacency ",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let line = place.ok(&["status"]).stdout;
    assert!(line.contains("finetune running") && line.contains("so far"), "{line}");
    assert!(!running.ended(), "nobody disturbed it");
    running.kill();

    let before = files(&place.path(""));
    let stopped = status(&place, RUN);
    place.ok(&["status"]);
    assert_eq!(files(&place.path("")), before, "who looks changes nothing");
    assert_eq!((&stopped["at_work"], states(&stopped)[1]), (&false.into(), "begun"));
    assert!(stopped["charged"]["steps"].as_u64() >= c["steps"].as_u64());
    assert_eq!(stopped["next"]["what"], "go on: finetune, sample, evaluate");
}

#[test]
fn who_looks_all_the_time_keeps_no_run_from_starting() {
    let place = Place::new();
    go(&place, "prepare", &[]);
    let mut looking: Vec<Running> = Vec::new();
    for _ in 0..20 {
        looking.push(Running::of(&mut place.command(&["status", RUN])));
    }
    go(&place, "finetune", &[]);
    assert!(
        looking
            .iter_mut()
            .all(|r| r.kill_or_end().is_some_and(|said| said.code == Some(0)))
    );
}

#[test]
fn what_is_damaged_or_old_is_shown_as_far_as_it_goes() {
    let place = Place::new();
    go(&place, "run", &[]);
    let run = |file: &str| format!("{RUN}/{file}");
    let problems = || -> Vec<String> {
        let status = status(&place, RUN);
        let problems = status["problems"].as_array().expect("a list").iter();
        problems.map(|p| p.as_str().expect("text").to_string()).collect()
    };
    assert!(problems().is_empty());
    place.write(&run("internal/audit.json"), "{");
    assert!(problems()[0].contains("audit.json is damaged"));
    place.write(&run("model/privacy.json"), "[");
    assert!(problems()[0].contains("privacy.json is damaged"));
    place.write(&run("internal/stamps/sample.json"), "");
    assert!(problems().iter().any(|p| p.contains("sample.json is damaged")));
    assert_eq!(states(&status(&place, RUN)), ["done", "done", "not-begun", "stale"]);

    // Of a version that wrote neither what came before nor the settings, and knew other keys.
    for stage in ["prepare", "finetune"] {
        let file = run(&format!("internal/stamps/{stage}.json"));
        let mut stamp = place.json(&file);
        let stamp = stamp.as_object_mut().expect("an object");
        stamp.remove("before");
        stamp.remove("section");
        place.write(&file, serde_json::to_string(stamp).expect("JSON"));
    }
    place.write(
        &run("config.toml"),
        place.text(&run("config.toml")) + "\n[of_another_version]\nkey = 1\n",
    );
    let old = status(&place, RUN);
    assert_eq!(states(&old)[..2], ["done", "done"]);
    assert!(problems()[0].contains("another version of the program"));
    assert_eq!(old["next"]["command"], Value::Null);

    place.write(&run("config.toml"), "name = [");
    assert!(problems()[0].contains("config.toml is damaged"));
    fs::remove_file(place.run("config.toml")).expect("removes");
    place.ok(&["status", RUN]);
    fs::remove_dir_all(place.run("internal")).expect("removes");
    place.call(&["status", RUN]).refused(2, &["is not the folder of a run"]);
    place
        .call(&["status", "nowhere"])
        .refused(2, &["nowhere is not the folder of a run"]);
}

#[test]
fn without_a_run_there_is_a_line_for_each() {
    let place = Place::new();
    assert!(
        place
            .ok(&["status"])
            .stdout
            .starts_with("no runs in runs yet: `dpsynth run ")
    );
    assert_eq!(place.ok(&["status", "--json"]).stdout, "[]\n");
    go(&place, "run", &["finetune.seed=1", "name=fixed"]);
    go(&place, "prepare", &["name=begun"]);
    fs::create_dir(place.path("runs/something-else")).expect("makes");
    let said = place.ok(&["status"]).stdout;
    let of = |name: &str| -> Vec<&str> {
        let mut lines = said.lines().filter(|l| l.contains(name));
        let line = lines.next().unwrap_or_else(|| panic!("no {name} in\n{said}"));
        assert_eq!(lines.next(), None, "one line each");
        line.split_whitespace().collect()
    };
    assert_eq!(of("begun-quick"), ["begun-quick", "finetune", "not", "begun"]);
    assert_eq!(
        of("fixed-quick"),
        [
            "fixed-quick",
            "all",
            "done",
            "NOT",
            "PRIVATE",
            "4.000",
            "9.44e-4",
            "add-or-remove-one",
            "record",
            "poisson",
            "pld"
        ]
    );
    assert!(!said.contains("something-else"));
    let json: Value = serde_json::from_str(&place.ok(&["status", "--json"]).stdout).expect("JSON");
    assert_eq!(
        (json[0]["run"].as_str(), json[1]["run"].as_str()),
        (Some("begun-quick"), Some("fixed-quick"))
    );
    assert_eq!(json[1]["next"]["what"], "nothing may leave: NOT PRIVATE");
}
