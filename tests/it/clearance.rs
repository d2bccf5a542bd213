//! What is refused: each reason is found in a run that is spoilt in just that way.

#[allow(unused)]
use crate::{common, support};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Place, QUICK_AUDIT};
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

/// A column of a Parquet file, as text.
fn column(path: &Path, name: &str) -> Vec<String> {
    let file = fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut out = Vec::new();
    for batch in reader.build().unwrap().map(Result::unwrap) {
        let column = batch.column_by_name(name).expect("the column");
        let text = |row| arrow::util::display::array_value_to_string(column, row).unwrap();
        out.extend((0..batch.num_rows()).map(text));
    }
    out
}

fn sha256(path: &Path) -> String {
    let hash = Sha256::digest(fs::read(path).unwrap());
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// A Parquet file of so many records.
fn records_file(texts: &[&str]) -> Vec<u8> {
    labelled_file(texts, &vec!["positive".to_string(); texts.len()])
}

fn labelled_file(texts: &[&str], labels: &[String]) -> Vec<u8> {
    let ids: Vec<i64> = (0..texts.len() as i64).collect();
    let columns: [(&str, arrow::array::ArrayRef); 3] = [
        ("id", std::sync::Arc::new(arrow::array::Int64Array::from(ids))),
        (
            "text",
            std::sync::Arc::new(arrow::array::StringArray::from(texts.to_vec())),
        ),
        (
            "label",
            std::sync::Arc::new(arrow::array::StringArray::from(labels.to_vec())),
        ),
    ];
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    dpsynth::files::parquet(&[batch], Vec::new()).unwrap()
}

const SPOILT: [Spoilt; 16] = [
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
                a["replay"]["within_charge"] = json!(false);
            })
        },
        Check::Audit,
        "refuted the claim: a replay moved",
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
        "did not try what a release depends on",
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
            .filter(|r| r.check != check && r.check != Check::Classified && r.check != Check::Files)
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
        card.contains("Beside them 1 with a fixed seed read the private texts: no epsilon covers"),
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

/// An audit that shows what it found, and fails.
fn failed(said: &common::Said, words: &str) {
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(
        said.stdout.contains("verdict: FAIL") && said.stderr.contains(words),
        "{said:?}"
    );
}

/// The first text of an arm's shard.
fn first_text(place: &Place, arm: &str) -> String {
    let shard = place.path(&format!("runs/tiny-quick/{arm}/train-00000-of-00001.parquet"));
    column(&shard, "text")[0].clone()
}

/// Zero-shot records are a function of public settings. A record with such a text in it must not turn a release into a
/// refusal: that outcome would have probability 0 without it, and 1 with it.
#[test]
fn p9_a_record_that_is_a_zero_shot_text_changes_no_decision() {
    let without = finished(&[]);
    without.audit();
    assert_eq!(refusals(&without), []);
    let text = first_text(&without, "zero_shot").replace('"', "\"\"");
    let with = Place::new();
    with.write("train.csv", format!("{}\"{text}\",positive\n", common::records(200)));
    let with = finish(with, &[]);
    with.audit();
    assert_eq!(first_text(&with, "zero_shot"), first_text(&without, "zero_shot"));
    assert_eq!(refusals(&with), []);
    for place in [&without, &with] {
        place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
        for file in ["privacy.json", "README.md", "deployment.yaml", "report.html"] {
            let said = place.text(&format!("bundle/{file}"));
            assert!(!said.contains("in a row") && !said.contains("memorisation"), "{file}");
        }
    }
}

/// What an attack on real members says is for the owner: it errs although the claim is true, and when depends on them.
#[test]
fn p9_a_failed_membership_attack_is_advice() {
    let place = finished(&[]);
    place.audit();
    edit(&place, "internal/audit.json", &|a| {
        a["verdict"] = json!("advice");
        a["advice"] = json!(["n-grams of the synthetic texts: epsilon is at least 99"]);
        let bounds = a["lower_bounds"].as_array_mut().expect("bounds");
        bounds.push(json!({
            "attack": "n-grams of the synthetic texts", "epsilon_lower": 99.0, "rests_on": "luck", "decides": false
        }));
    });
    assert_eq!(refusals(&place), []);
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
    let audit = place.json("bundle/privacy.json")["deployment"]["audit"].clone();
    let attacks: Vec<&str> = (audit.as_array().expect("bounds").iter())
        .filter_map(|bound| bound["attack"].as_str())
        .collect();
    assert_eq!(attacks, dpsynth::audit::CANARIES.map(|(attack, _)| attack));
}

#[test]
fn p9_records_that_no_stage_wrote_are_refused_however_late() {
    let place = finished(&[]);
    let shard = "synthetic/train-00000-of-00001.parquet";
    let path = place.path(&format!("runs/tiny-quick/{shard}"));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, records_file(&["my name is Ada and I live by the old mill"])).unwrap();
    place
        .call(&QUICK_AUDIT)
        .refused(3, &["is not what the stage `sample` wrote"]);
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    place
        .call(&["evaluate", "tiny.toml", "--profile", "quick", "--set", &model])
        .refused(3, &["is not what the stage `sample` wrote"]);
    let found = refusals(&place);
    assert!(found.iter().any(|r| r.check == Check::Files), "{found:?}");

    // Whoever mends the stamp has drawn nothing all the same.
    edit(&place, "internal/stamps/sample.json", &|stamp| {
        stamp["written"][shard] = json!(sha256(&path));
    });
    failed(&place.call(&QUICK_AUDIT), "stand in no journal");

    // Nor who writes the journal: the model draws something else.
    fs::write(&path, &whole).unwrap();
    let journal = place.path("runs/tiny-quick/work/synthetic.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let first = first_text(&place, "synthetic");
    let (from, to) = (json!(first).to_string(), json!("what a lovely film").to_string());
    assert!(text.contains(&from));
    fs::write(&journal, text.replace(&from, &to)).unwrap();
    let texts: Vec<String> = column(&path, "text");
    let texts: Vec<&str> = texts
        .iter()
        .map(|t| if *t == first { "what a lovely film" } else { t })
        .collect();
    let labels = column(&path, "label");
    fs::write(&path, labelled_file(&texts, &labels)).unwrap();
    edit(&place, "internal/stamps/sample.json", &|stamp| {
        stamp["written"][shard] = json!(sha256(&path));
    });
    failed(&place.call(&QUICK_AUDIT), "that were drawn again");
}

/// Where records may bear another label than they were drawn for, no more may than the run says.
#[test]
fn p9_labels_that_nothing_gave_are_refused_though_records_may_be_relabelled() {
    let place = Place::new();
    place.edit("min_posterior = 0.0", "min_posterior = 0.0\naction = \"relabel\"");
    let place = finish(place, &[]);
    let shard = "synthetic/train-00000-of-00001.parquet";
    let path = place.path(&format!("runs/tiny-quick/{shard}"));
    let (texts, mut labels) = (column(&path, "text"), column(&path, "label"));
    labels.rotate_left(1);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    fs::write(&path, labelled_file(&texts, &labels)).unwrap();
    edit(&place, "internal/stamps/sample.json", &|stamp| {
        stamp["written"][shard] = json!(sha256(&path));
    });
    failed(&place.call(&QUICK_AUDIT), "stand in no journal");
}

#[test]
fn p9_a_model_that_was_not_charged_is_refused() {
    let place = finished(&[]);
    place.audit();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let other = ["--set", &model, "--set", "name=other", "--set", "finetune.seed=1"];
    place.done("prepare", &other);
    place.done("finetune", &other);
    let trained = "model/trained.safetensors";
    let own = place.path(&format!("runs/tiny-quick/{trained}"));
    fs::copy(place.path(&format!("runs/other-quick/{trained}")), &own).unwrap();
    let found = refusals(&place);
    assert!(found.iter().any(|r| r.check == Check::Files), "{found:?}");
    edit(&place, "internal/stamps/finetune.json", &|stamp| {
        stamp["written"][trained] = json!(sha256(&own));
    });
    let said = place.call(&QUICK_AUDIT);
    failed(&said, "is not what the ledger says was trained");
    // The stage after it has read something else.
    let said = place.call(&["release", "runs/tiny-quick", "--to", "bundle"]);
    said.refused(4, &["may not be handed out"]);
}

#[test]
fn p8_p9_a_copy_gate_is_charged_and_decides_by_a_noisy_count() {
    let place = finished(&["release.copy_gate={ epsilon = 1.0, tolerated_units = 1000 }"]);
    place.audit();
    let count = |place: &Place| {
        let runs = place.ledger_shown()["runs"].clone();
        let releases = runs[0]["releases"].as_array().expect("releases").clone();
        let gate = releases.iter().find(|r| r["name"] == "copy-gate").expect("a gate");
        gate["charged"].clone()
    };
    assert_eq!(count(&place), json!(0), "nothing is counted before a release");
    let guarantee = place.json("runs/tiny-quick/model/privacy.json");
    assert_eq!(guarantee["copy_gate_epsilon"], json!(1.0));
    for looked in [
        ["release", "runs/tiny-quick", "--to", "bundle", "--dry-run"],
        ["export", "runs/tiny-quick", "--to", "bundle", "--dry-run"],
    ] {
        let said = place.ok(&looked).stdout;
        assert!(said.contains("the copy gate has not counted yet"), "{said}");
    }
    assert_eq!(count(&place), json!(0), "looking spends nothing");
    place.ok(&["release", "runs/tiny-quick", "--to", "bundle"]);
    place.ok(&["verify", "bundle"]);
    assert_eq!(count(&place), json!(1));
    let gate = place.json("bundle/privacy.json")["deployment"]["copy_gate"].clone();
    assert_eq!(
        (&gate["epsilon"], &gate["tolerated_units"]),
        (&json!(1.0), &json!(1000))
    );
    place.ok(&["release", "runs/tiny-quick", "--to", "again"]);
    let again = place.json("again/privacy.json")["deployment"]["copy_gate"].clone();
    assert_eq!((again, count(&place)), (gate, json!(1)), "counted once");

    // What it counted cannot be put otherwise: the ledger has its SHA-256.
    let counted = "sampling/copy_gate.json";
    let whole = place.text(&format!("runs/tiny-quick/{counted}"));
    let only = |place: &Place| {
        let [refusal] = &refusals(place)[..] else {
            panic!("one reason")
        };
        assert_eq!(refusal.check, Check::CopyGate);
        refusal.reason.clone()
    };
    edit(&place, counted, &|gate| gate["noisy_matched_units"] = json!(-7));
    assert!(only(&place).contains("is not what was counted"));
    // Had it counted too many, the run would stay.
    edit(&place, counted, &|gate| gate["noisy_matched_units"] = json!(1001));
    let forged = sha256(&place.run(counted));
    let before = common::sha256(whole.as_bytes());
    place.forge_ledger(|line| {
        if line["sha256"] == before.as_str() {
            line["sha256"] = forged.as_str().into();
        }
        true
    });
    assert!(only(&place).contains("1001 training units, with noise"));
    fs::remove_file(place.run(counted)).unwrap();
    assert!(only(&place).contains("its count is not there any more"));
    // One that was written by hand, before anything was charged.
    place.write(&format!("runs/tiny-quick/{counted}"), &whole);
    place.forge_ledger(|line| line["release"] != "copy-gate");
    assert!(only(&place).contains("the ledger does not know"));
}

/// A unit counts once, whatever it holds; a copy is found behind underscores.
#[test]
fn p5_a_unit_moves_the_copy_gate_by_one() {
    let record = |text: &str, unit: u32| dpsynth::records::Record {
        text: text.into(),
        label: 0,
        unit,
    };
    let leaving = [
        record("one two three four five", 0),
        record("six seven eight nine ten", 0),
    ];
    let mut training = vec![
        record("zero one two three four", 7),
        record("six_seven_eight_nine_ten", 7),
        record("one two three", 8),
    ];
    let count = |training: &[_]| dpsynth::release::matched_units(training, &leaving, 4);
    assert_eq!(count(&training), 1);
    training.extend((0..50).map(|_| record("ONE, two. Three four five", 9)));
    assert_eq!(count(&training), 2);
}
