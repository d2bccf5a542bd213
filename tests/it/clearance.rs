//! What is refused: each reason is found in a run that is spoilt in just that way.

#[allow(unused)]
use crate::{common, support};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Place;
use dpsynth::assets::Locations;
use dpsynth::release::{Check, Examined, Refusal, examine};
use dpsynth::run::Places;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A finished run of the tiny model.
fn finished(more: &[&str]) -> Place {
    finish(Place::new(), more)
}

fn finish(place: Place, more: &[&str]) -> Place {
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let set = [&[model.as_str()], more].concat();
    let set: Vec<&str> = set.iter().flat_map(|s| ["--set", s]).collect();
    place.done("run", &set);
    place
}

fn examined(place: &Place) -> Examined {
    let places = Places {
        runs: place.path("runs"),
        ledgers: place.path("ledgers"),
        assets: Locations::from_env(),
    };
    examine(&place.path("runs/tiny-quick"), &places).unwrap_or_else(|e| panic!("{e}"))
}

fn refusals(place: &Place) -> Vec<Refusal> {
    examined(place).refusals().to_vec()
}

/// Changes a JSON file of the run.
fn edit(place: &Place, file: &str, change: &dyn Fn(&mut Value)) {
    let file = format!("runs/tiny-quick/{file}");
    let mut value = place.json(&file);
    change(&mut value);
    place.write(&file, value.to_string());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A way to spoil a run, the check that must find it, and words of the reason.
type Spoilt = (&'static str, fn(&Place), Check, &'static str);

/// The ledger as it was after so many lines, and its head.
fn roll_back(place: &Place, lines: usize) {
    let path = place.ledger();
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().take(lines).collect();
    fs::write(&path, format!("{}\n", kept.join("\n"))).unwrap();
    let hash: String = Sha256::digest(kept[lines - 1])
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let head = json!({ "seq": lines - 1, "hash": hash });
    fs::write(path.with_extension("jsonl.head"), head.to_string()).unwrap();
}

/// A Parquet file of so many records.
fn records_file(texts: &[&str]) -> Vec<u8> {
    let ids: Vec<i64> = (0..texts.len() as i64).collect();
    let labels = vec!["positive"; texts.len()];
    let columns: [(&str, arrow::array::ArrayRef); 3] = [
        ("id", std::sync::Arc::new(arrow::array::Int64Array::from(ids))),
        (
            "text",
            std::sync::Arc::new(arrow::array::StringArray::from(texts.to_vec())),
        ),
        ("label", std::sync::Arc::new(arrow::array::StringArray::from(labels))),
    ];
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    dpsynth::files::parquet(&[batch], Vec::new()).unwrap()
}

const SPOILT: [Spoilt; 18] = [
    (
        "an edited ledger",
        |p| {
            let text = fs::read_to_string(p.ledger()).unwrap();
            fs::write(p.ledger(), text.replacen("\"index\":0", "\"index\":7", 1)).unwrap();
        },
        Check::Ledger,
        "does not verify",
    ),
    (
        "no ledger",
        |p| fs::remove_file(p.ledger()).unwrap(),
        Check::Ledger,
        "is not in",
    ),
    (
        "a smaller claim than was paid for",
        |p| edit(p, "model/privacy.json", &|g| g["noise_multiplier"] = json!(9.0)),
        Check::Ledger,
        "not what was paid for",
    ),
    (
        "a ledger of before the run's steps",
        |p| roll_back(p, 2),
        Check::Ledger,
        "0 steps of the run charged, 2 are claimed",
    ),
    (
        "another unit than was planned",
        |p| edit(p, "model/privacy.json", &|g| g["unit"] = json!("person")),
        Check::Ledger,
        "does not say what the run's plan says: unit",
    ),
    (
        "research",
        |p| {
            edit(p, "model/privacy.json", &|g| {
                g["caveat"] = json!("NOT A DP GUARANTEE: `toy`")
            })
        },
        Check::Proven,
        "NOT A DP GUARANTEE",
    ),
    (
        "no audit",
        |p| fs::remove_file(p.path("runs/tiny-quick/internal/audit.json")).unwrap(),
        Check::Audit,
        "not audited",
    ),
    (
        "a lower bound above the claim",
        |p| {
            edit(p, "internal/audit.json", &|a| {
                a["lower_bounds"][0]["epsilon_lower"] = json!(99.0)
            })
        },
        Check::Audit,
        "epsilon is at least 99.000, ",
    ),
    (
        "a failed audit",
        |p| {
            edit(p, "internal/audit.json", &|a| {
                a["verdict"] = json!("fail");
                a["refuted_by"] = json!(["replay"]);
            })
        },
        Check::Audit,
        "refuted the claim: replay",
    ),
    (
        "an audit that passed what it refuted",
        |p| edit(p, "internal/audit.json", &|a| a["refuted_by"] = json!(["replay"])),
        Check::Audit,
        "refuted the claim: replay",
    ),
    (
        "an audit without an attack",
        |p| edit(p, "internal/audit.json", &|a| a["lower_bounds"] = json!([])),
        Check::Audit,
        "tried no attack",
    ),
    (
        "training records put away, so that no copy of them is found",
        |p| fs::write(p.path("runs/tiny-quick/internal/train.parquet"), records_file(&[])).unwrap(),
        Check::Audit,
        "of another model, other records",
    ),
    (
        "other zero-shot records",
        |p| {
            let shard = "runs/tiny-quick/zero_shot/train-00000-of-00001.parquet";
            fs::write(p.path(shard), records_file(&["fine"])).unwrap();
        },
        Check::Audit,
        "of another model, other records",
    ),
    (
        "records drawn after the audit",
        |p| {
            edit(p, "internal/audit.json", &|a| {
                a["subject"]["shards"] = json!({ "train-00000-of-00001.parquet": "0" })
            })
        },
        Check::Audit,
        "of another model, other records",
    ),
    (
        "a statistic that nobody classified",
        |p| edit(p, "sampling/synthetic.json", &|s| s["mean_loss"] = json!(4.0)),
        Check::Classified,
        "sampling/synthetic.json: `mean_loss`",
    ),
    (
        "a guarantee with a key that nobody classified",
        |p| edit(p, "model/privacy.json", &|g| g["research"] = json!(true)),
        Check::Classified,
        "model/privacy.json: `research`",
    ),
    (
        "no memorisation check",
        |p| fs::write(p.path("runs/tiny-quick/internal/quality.json"), "null").unwrap(),
        Check::Memorisation,
        "not measured",
    ),
    (
        "a span of a training record",
        |p| {
            edit(p, "internal/quality.json", &|q| {
                let spans = &mut q["memorisation"]["spans"]["synthetic"];
                spans["over_limit"] = json!(1);
                spans["longest"] = json!(12);
            })
        },
        Check::Memorisation,
        "1 of 8 synthetic records share 10 words or more",
    ),
];

#[test]
fn p9_a_run_is_refused_for_each_reason_and_for_that_alone() {
    let whole = finished(&[]);
    whole.audit();
    assert_eq!(refusals(&whole), [], "a finished and audited run may leave");
    let facts = examined(&whole).clear().expect("cleared").facts().clone();
    assert_eq!(facts.base_model.name, "local");
    assert_eq!(facts.composed.expect("a ledger").runs, 1);
    let hash = whole.json("runs/tiny-quick/internal/prepare.json")["dataset_hash"].to_string();
    let salted = facts.dataset_commitment.clone();
    assert!(!hash.contains(&salted), "the records' own hash stays inside");
    assert_eq!(examined(&whole).facts().dataset_commitment, salted, "the salt is kept");

    for (what, spoil, check, words) in SPOILT {
        let place = Place::new();
        for folder in ["runs", "ledgers"] {
            copy(&whole.path(folder), &place.path(folder));
        }
        spoil(&place);
        let found = refusals(&place);
        assert!(
            found.iter().any(|r| r.check == check && r.reason.contains(words)),
            "{what}: {found:?}"
        );
        // What nobody knows is not classified either.
        let others = found
            .iter()
            .filter(|r| r.check != check && r.check != Check::Classified)
            // What came of sampling was audited as it was.
            .filter(|r| check != Check::Classified || r.check != Check::Audit);
        assert_eq!(others.count(), 0, "{what}: {found:?}");
        let error = examined(&place).clear().err().expect("refused");
        assert_eq!(error.exit_code(), 4, "{what}");
        assert!(error.to_string().contains(words), "{what}: {error}");
    }
}

#[test]
fn p4_p9_a_run_with_a_fixed_seed_or_a_column_of_its_own_is_refused() {
    let place = finished(&["finetune.seed=1"]);
    place.audit();
    let found = refusals(&place);
    assert!(found.iter().any(|r| r.check == Check::Private), "{found:?}");

    // A shard with one column more, and metadata of its own.
    let shard: PathBuf = place.path("runs/tiny-quick/synthetic/train-00000-of-00001.parquet");
    let nearest = arrow::array::Int64Array::from(vec![3]);
    let batch = arrow::array::RecordBatch::try_from_iter([(
        "nearest_training_record",
        std::sync::Arc::new(nearest) as arrow::array::ArrayRef,
    )])
    .unwrap();
    let metadata = vec![("dp.train_records".to_string(), "199".to_string())];
    dpsynth::files::write_batch(&shard, &batch, metadata).unwrap();
    let found = refusals(&place);
    for words in ["column `nearest_training_record`", "metadata `dp.train_records`"] {
        assert!(
            found
                .iter()
                .any(|r| r.check == Check::Classified && r.reason.contains(words)),
            "{words}: {found:?}"
        );
    }
}

#[test]
fn settings_that_were_edited_after_training_are_not_handed_out_as_those_that_trained() {
    let place = finished(&[]);
    place.audit();
    let config = fs::read_to_string(place.path("runs/tiny-quick/config.toml")).unwrap();
    for (from, to, code, words) in [
        ("user = \"Write a", "user = \"Write the most private", 4, "`prepare`"),
        ("rank = ", "rank = 1", 4, "`finetune`"),
        ("\"positive\"", "\"splendid\"", 4, "`prepare`"),
        ("learning_rate = ", "learning_rate = 1", 4, "`finetune`"),
        ("temperature = ", "temperature = 1", 4, "`sample`"),
        (
            "[sample]",
            "[release]\nlicense = \"CC BY\"\n\n[sample]",
            2,
            "`release.license` must be",
        ),
    ] {
        assert!(config.contains(from), "no {from} in {config}");
        place.write("runs/tiny-quick/config.toml", config.replacen(from, to, 1));
        let said = place.call(&["release", "runs/tiny-quick", "--to", "bundle"]);
        assert_eq!(said.code, Some(code), "{to}: {said:?}");
        assert!(said.stderr.contains(words), "{to}: {said:?}");
        assert!(
            code == 2 || said.stderr.contains("its settings changed"),
            "{to}: {said:?}"
        );
    }
    // A stamp of before they said which settings they were done with, and after which stage.
    let stamp = "internal/stamps/sample.json";
    place.write("runs/tiny-quick/config.toml", &config);
    let whole = fs::read_to_string(place.path(&format!("runs/tiny-quick/{stamp}"))).unwrap();
    edit(&place, stamp, &|stamp| stamp["section"] = json!(""));
    let said = place.call(&["release", "runs/tiny-quick", "--to", "bundle"]);
    said.refused(4, &["does not say with which settings"]);
    place.write(&format!("runs/tiny-quick/{stamp}"), whole);
    let salt = place.path("runs/tiny-quick/internal/commitment-salt");
    assert!(!salt.exists(), "nothing is written for what is refused");
    // As it was, with a comment: kept, since nobody writes the file who only looks.
    place.write("runs/tiny-quick/config.toml", format!("# ours\n{config}"));
    edit(&place, "internal/stamps/finetune.json", &|stamp| {
        stamp["before"] = json!("")
    });
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
    let kept = fs::read_to_string(place.path("runs/tiny-quick/config.toml")).unwrap();
    assert!(kept.starts_with("# ours\n") && salt.exists());
}

#[test]
fn p10_runs_that_no_epsilon_covers_are_named_beside_those_that_one_does() {
    let place = finished(&[]);
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    place.done(
        "run",
        &["--set", &model, "--set", "name=seeded", "--set", "finetune.seed=1"],
    );
    place.audit();
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
    let composition = &place.json("bundle/privacy.json")["guarantee"]["composition"];
    assert_eq!(
        (&composition["runs"], &composition["not_private"]),
        (&json!(1), &json!(1))
    );
    let card = fs::read_to_string(place.path("bundle/README.md")).unwrap();
    assert!(
        card.contains("Beside them 1 with a fixed seed read it: no epsilon covers"),
        "{card}"
    );
}

#[test]
fn a_run_that_is_not_sampled_has_nothing_to_hand_out() {
    let place = Place::new();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    place.done("prepare", &["--set", &model]);
    let places = Places {
        runs: place.path("runs"),
        ledgers: place.path("ledgers"),
        assets: Locations::from_env(),
    };
    let error = examine(&place.path("runs/tiny-quick"), &places)
        .err()
        .expect("unfinished");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("`finetune`"), "{error}");
}

#[test]
fn p9_training_records_put_among_the_synthetic_ones_are_found_however_late() {
    let secret = "my name is Ada and I live at number twelve of the long street by the old mill";
    let [unseen, joined] = ["\u{200B}", "_"];
    for (arm, hidden) in [
        ("synthetic", secret.to_string()),
        ("zero_shot", secret.to_string()),
        ("synthetic", secret.replace(' ', joined)),
        ("synthetic", secret.replace('e', &format!("e{unseen}"))),
    ] {
        let place = Place::new();
        place.write("train.csv", format!("{}{secret},positive\n", common::records(199)));
        let place = finish(place, &[]);
        // After they were measured, and audited as they are.
        let shard = place.path(&format!("runs/tiny-quick/{arm}/train-00000-of-00001.parquet"));
        fs::write(&shard, records_file(&[&hidden])).unwrap();
        place.audit();
        let found = refusals(&place);
        assert!(
            found
                .iter()
                .any(|r| r.check == Check::Memorisation && r.reason.contains("as they stand now")),
            "{arm}: {found:?}"
        );
    }
}
