//! What a run writes is read back as it was written, and nothing that nobody classified is read at all (P9).

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Place;
use dpsynth::documents::{self, Findings, Report, Sampled};
use dpsynth::privacy::{Document, Guarantee};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A run with everything that has a document.
fn audited() -> Place {
    let place = Place::new();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let more = [
        "finetune.label_histogram_epsilon=0.5",
        "sample.guidance=auto",
        "evaluate.arms=[\"model_posterior\"]",
    ];
    let mut arguments = vec!["--set", &model];
    more.iter().for_each(|o| arguments.extend(["--set", o]));
    place.done("run", &arguments);
    place.audit();
    place
}

fn same<T: Document + DeserializeOwned + Serialize>(path: &Path) {
    let read: T = documents::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let written: Value = serde_json::from_slice(&fs::read(path).expect("reads")).expect("JSON");
    let again = serde_json::to_value(&read).expect("serialises");
    assert_eq!(again, written, "{}", path.display());
}

#[test]
fn every_document_is_read_back_as_it_was_written() {
    let place = audited();
    let run = |file: &str| -> PathBuf { place.path(&format!("runs/tiny-quick/{file}")) };
    same::<Guarantee>(&run("model/privacy.json"));
    same::<Sampled>(&run("sampling/synthetic.json"));
    same::<Sampled>(&run("sampling/zero_shot.json"));
    same::<Report>(&run("report.json"));
    same::<Findings>(&run("internal/audit.json"));
}

#[test]
fn p9_a_key_that_nobody_classified_is_refused_however_deep_it_lies() {
    let place = audited();
    type Read = fn(&Path) -> dpsynth::Result<()>;
    let cases: [(&str, &str, Read); 5] = [
        ("model/privacy.json", "", |p| documents::read::<Guarantee>(p).map(drop)),
        ("sampling/synthetic.json", "/labels/0", |p| {
            documents::read::<Sampled>(p).map(drop)
        }),
        ("sampling/synthetic.json", "/guidance/tried/0", |p| {
            documents::read::<Sampled>(p).map(drop)
        }),
        ("report.json", "/records/train", |p| {
            documents::read::<Report>(p).map(drop)
        }),
        ("internal/audit.json", "/canaries/threshold/true_positives", |p| {
            documents::read::<Findings>(p).map(drop)
        }),
    ];
    for (file, pointer, read) in cases {
        let path = place.path(&format!("runs/tiny-quick/{file}"));
        let whole = fs::read(&path).expect("reads");
        let mut value: Value = serde_json::from_slice(&whole).expect("JSON");
        let object = value.pointer_mut(pointer).expect("it is there");
        object["nearest_record"] = json!("Ada");
        fs::write(&path, value.to_string()).expect("writes");
        let error = read(&path).expect_err("an unknown key");
        assert!(
            error.to_string().contains("nearest_record") && !error.to_string().contains("Ada"),
            "{error}"
        );
        fs::write(&path, whole).expect("writes");
    }
}

/// `tests/fixtures/first_run` was made by a build before documents were types, with a model and records that are made up:
/// `run` of `tests/fixtures/first_run.toml`, then `audit`.
#[test]
fn a_run_of_an_earlier_version_is_read() {
    let place = Place::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first_run");
    copy(&from, &place.path(""));
    let run = |file: &str| -> PathBuf { place.path(&format!("runs/tiny-quick/{file}")) };
    same::<Guarantee>(&run("model/privacy.json"));
    same::<Sampled>(&run("sampling/synthetic.json"));
    same::<Report>(&run("report.json"));
    let said = place.ok(&["status", "runs/tiny-quick"]);
    assert!(
        said.stdout.contains("epsilon 4.000 (at least 3.999)") && said.stdout.contains("pass"),
        "{said:?}"
    );
    // Its audit did not draw records again, which a release asks for now.
    place
        .call(&["release", "runs/tiny-quick", "--to", "bundle"])
        .refused(4, &["an earlier version of the program made it", "dpsynth audit"]);
    let compared = place.ok(&["compare", "runs/tiny-quick"]);
    assert!(compared.stdout.contains("synthetic"), "{compared:?}");
    place.ok(&["report", "runs/tiny-quick"]);
    let page = fs::read_to_string(run("report.html")).expect("a page");
    assert!(page.contains("adjacency add-or-remove-one"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a kind").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copies")),
        }
    }
}
