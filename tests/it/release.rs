//! The bundle: what is in it, that it is the same each time, and that a change anywhere in it is found.

#[allow(unused)]
use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use crate::common::{Place, Said};
use parquet::file::reader::{FileReader, SerializedFileReader};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde_json::Value;

const RELEASE: &str = r#"
[release]
license = "cc-by-4.0"
language = ["en"]
pretty_name = "Tiny: film reviews"
deployer = "A | B Ltd"
deployer_type = "industry"
contact = "mail@example.org"
region = "Nowhere"
date = "2026-11-22"
"#;

/// A run of the tiny model, evaluated and audited; made once for all tests of a process.
fn released() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        place.write("tiny.toml", place.text("tiny.toml") + RELEASE);
        let model = format!("model.path={}", support::fixture("model.gguf").display());
        place.done("run", &["--set", &model, "--set", "sample.shard_records=3"]);
        place.audit();
        place
    })
}

/// Whose turn it is: a run's folder is locked while it is looked at.
static TURN: Mutex<()> = Mutex::new(());

/// `dpsynth release` with these arguments.
fn release(arguments: &[&str]) -> Said {
    let _turn = TURN.lock();
    released().call(&[&["release", "runs/tiny-quick"], arguments].concat())
}

/// The same, which must work.
fn release_ok(arguments: &[&str]) -> Said {
    let said = release(arguments);
    assert_eq!(said.code, Some(0), "{arguments:?}\n{said:?}");
    said
}

/// A bundle of it in a folder of its own.
fn bundle(name: &str) -> PathBuf {
    release_ok(&["--to", name]);
    released().path(name)
}

fn verify(folder: &Path) -> Said {
    released().call(&["verify", folder.to_str().expect("a plain path")])
}

/// Every file below a folder, by its path in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry")) {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type().expect("a type").is_dir() {
                true => walk(&entry.path(), &format!("{name}/"), out),
                false => drop(out.insert(name, fs::read(entry.path()).expect("reads"))),
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(folder, "", &mut out);
    out
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// A run by random allocation is audited, released and verified like any other, and nothing of who took part in which step
/// stays behind or leaves.
#[test]
fn a_run_by_random_allocation_goes_the_whole_way() {
    let place = Place::new();
    place.write("tiny.toml", place.text("tiny.toml") + RELEASE);
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    // A round has a whole number of steps, whatever the size of the batches.
    let set = [
        "--set",
        &model,
        "--set",
        "finetune.sampler=random-allocation",
        "--set",
        "finetune.expected_batch_size=6",
    ];
    let (parameters, words) = the_whole_way(&place, &set);
    assert_eq!(parameters["sampler"], "random allocation (one of every 33 steps)");
    assert!(
        words.contains("random allocation") && !words.contains("Poisson"),
        "{words}"
    );
}

/// So is a run whose noise goes together over steps.
#[test]
fn a_run_whose_noise_goes_together_goes_the_whole_way() {
    let place = Place::new();
    place.write("tiny.toml", place.text("tiny.toml") + RELEASE);
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let (parameters, words) = the_whole_way(
        &place,
        &[
            "--set",
            &model,
            "--set",
            "finetune.steps=7",
            "--set",
            "finetune.bands=3",
        ],
    );
    assert_eq!(parameters["sampler"], "poisson from one of 3 parts in turn");
    assert_eq!(parameters["bands"], 3);
    assert!(words.contains("one part of them, in turn"), "{words}");
    // A claim that leaves it out, or says another number of steps, is none of this program's.
    for other in [Value::Null, 2.into()] {
        let path = place.path("out/privacy.json");
        let mut claim = json(&fs::read(&path).expect("a claim"));
        match other.is_null() {
            true => drop(
                claim["guarantee"]["parameters"]
                    .as_object_mut()
                    .expect("an object")
                    .remove("bands"),
            ),
            false => claim["guarantee"]["parameters"]["bands"] = other,
        }
        fs::write(&path, claim.to_string()).expect("writes");
        assert_ne!(place.call(&["verify", "out"]).code, Some(0));
    }
}

/// The parameters that a run's bundle claims, and its card.
fn the_whole_way(place: &Place, set: &[&str]) -> (Value, String) {
    let said = place.done("run", set);
    assert!(!place.run("internal/round.json").exists());
    place.audit();
    let released = place.call(&["release", "runs/tiny-quick", "--to", "out"]);
    assert_eq!(released.code, Some(0), "{released:?}");
    let verified = place.call(&["verify", "out"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let claim = json(&fs::read(place.path("out/privacy.json")).expect("a claim"));
    let parameters = claim["guarantee"]["parameters"].clone();
    let sampler = parameters["sampler"].as_str().expect("a sampler");
    assert!(said.stderr.contains(&format!("sampler {sampler}")), "{}", said.stderr);
    (
        parameters,
        fs::read_to_string(place.path("out/README.md")).expect("a card"),
    )
}

#[test]
fn a_bundle_holds_records_and_everything_that_says_what_they_are() {
    let folder = bundle("whole");
    let files = files(&folder);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "SHA256SUMS",
            "croissant.json",
            "data/train-00000-of-00003.parquet",
            "data/train-00001-of-00003.parquet",
            "data/train-00002-of-00003.parquet",
            "deployment.yaml",
            "manifest.json",
            "privacy.json",
            "privacy.schema.json",
            "report.html",
        ]
    );

    // P10: wherever epsilon is, so is the rest.
    let privacy = json(&files["privacy.json"]);
    let parameters = &privacy["guarantee"]["parameters"];
    let run: Value = json(&fs::read(released().run("model/privacy.json")).expect("reads"));
    assert_eq!(parameters, &run);
    let sentence = privacy["guarantee"]["statement"].as_str().expect("a sentence");
    for word in ["epsilon", "delta", "adjacency", "unit", "sampler", "accountant"] {
        assert!(sentence.contains(word), "{sentence}");
    }
    let text = |name: &str| String::from_utf8(files[name].clone()).expect("text");
    for file in ["README.md", "croissant.json", "deployment.yaml", "manifest.json"] {
        assert!(text(file).contains(sentence), "{file} does not say {sentence}");
    }
    assert_eq!(privacy["guarantee"]["composition"]["runs"], 1);

    // The records are the run's, and nothing besides.
    let mut rows = 0;
    for name in names.iter().filter(|name| name.ends_with(".parquet")) {
        let reader = SerializedFileReader::new(File::open(folder.join(name)).expect("opens")).expect("Parquet");
        let metadata = reader.metadata().file_metadata();
        let columns: Vec<&str> = metadata.schema().get_fields().iter().map(|f| f.name()).collect();
        assert_eq!(columns, ["id", "text", "label"], "{name}");
        let pairs: BTreeMap<&str, &str> = metadata
            .key_value_metadata()
            .into_iter()
            .flatten()
            .map(|pair| (pair.key.as_str(), pair.value.as_deref().unwrap_or_default()))
            .collect();
        for (key, value) in parameters.as_object().expect("an object") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            assert_eq!(pairs[format!("dp.{key}").as_str()], value, "{name}");
        }
        assert_eq!((pairs["dp.run"], pairs["dp.base_model"]), ("tiny-quick", "local"));
        assert_eq!(pairs.len(), parameters.as_object().expect("an object").len() + 3);
        rows += metadata.num_rows();
    }
    assert_eq!(rows, 8);

    // What is written of the person's is written as it is.
    let card = text("README.md");
    assert!(
        card.starts_with("---\nlicense: cc-by-4.0\nlanguage:\n- en\npretty_name: \"Tiny: film reviews\"\n")
            || card.starts_with("---\nlicense: cc-by-4.0\nlanguage:\n- en\npretty_name: 'Tiny: film reviews'\n"),
        "{card}"
    );
    for part in [
        "Published by A | B Ltd (mail@example.org).",
        "| negative | 4 |",
        "| positive | 4 |",
        "load_dataset",
        "are withheld",
        "public benchmarks",
    ] {
        assert!(card.contains(part), "no {part:?} in {card}");
    }
    assert!(!card.contains("{{") && !card.contains("{%"), "{card}");
    assert!(
        text("deployment.yaml").contains("publication_date: \"2026-11-22\"")
            || text("deployment.yaml").contains("publication_date: '2026-11-22'")
    );
}

#[test]
fn p9_nothing_that_reads_private_records_is_in_a_bundle() {
    let folder = bundle("private");
    let place = released();
    let internal = place.json("runs/tiny-quick/internal/prepare.json");
    let salt = fs::read_to_string(place.run("internal/commitment-salt")).expect("a salt");
    let here = place.path("");
    let report = place.json("runs/tiny-quick/report.json");
    let mut secrets = vec![
        internal["dataset_hash"].as_str().expect("a hash").to_string(),
        salt.trim().to_string(),
        here.to_str().expect("a plain path").trim_end_matches('/').to_string(),
    ];
    // Scores, sizes that were counted, timings.
    for row in report["utility"].as_array().expect("rows") {
        secrets.push(row["accuracy"]["mean"].to_string());
    }
    secrets.extend(
        report["timings_s"]
            .as_object()
            .expect("timings")
            .values()
            .map(Value::to_string),
    );
    secrets.retain(|s| s.len() > 6);
    assert!(secrets.len() > 4, "{secrets:?}");
    for (name, bytes) in files(&folder) {
        let text = String::from_utf8_lossy(&bytes);
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} holds {secret}");
        }
    }
}

#[test]
fn the_same_run_makes_the_same_bytes() {
    let (one, other) = (bundle("one"), bundle("other"));
    assert_eq!(files(&one), files(&other));
}

#[test]
fn a_dry_run_lists_what_would_be_written_and_writes_nothing() {
    let place = released();
    let before: BTreeSet<_> = fs::read_dir(place.path(""))
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    let said = release_ok(&["--to", "dry/run", "--dry-run"]);
    for part in [
        "data/train-00000-of-00003.parquet",
        "post-processing",
        "public",
        "nothing was written",
        "epsilon",
        "delta",
    ] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    let list: Value =
        serde_json::from_str(&release_ok(&["--to", "dry/run", "--dry-run", "--json"]).stdout).expect("JSON");
    let after: BTreeSet<_> = fs::read_dir(place.path(""))
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    assert_eq!(before.difference(&after).count(), 0);
    assert!(!place.path("dry").exists());
    // It is what is written then.
    let written = files(&bundle("dried"));
    let listed = list["files"].as_array().expect("files");
    assert_eq!(list["written"], false);
    assert_eq!(listed.len(), written.len());
    for file in listed {
        let bytes = &written[file["path"].as_str().expect("a path")];
        assert_eq!(file["bytes"], bytes.len());
        assert!(["public", "charged", "post-processing"].contains(&file["class"].as_str().expect("a class")));
        assert!(!file["why"].as_str().expect("a reason").is_empty());
    }
}

#[test]
fn nothing_is_written_over() {
    let place = released();
    let kept = place.path("kept");
    fs::create_dir(&kept).expect("makes");
    release_ok(&["--to", "kept"]);
    let before = files(&kept);
    release(&["--to", "kept"]).refused(2, &["is not empty"]);
    place.write("a-file", "");
    release(&["--to", "a-file"]).refused(2, &["is there already"]);
    symlink(place.path("nowhere"), place.path("a-link")).expect("links");
    release(&["--to", "a-link"]).refused(2, &["is there already"]);
    assert_eq!(before, files(&kept));
    // Below a folder that is not there yet; below a file.
    assert_eq!(
        before,
        files(&{
            release_ok(&["--to", "a/b/c"]);
            place.path("a/b/c")
        })
    );
    release(&["--to", "a-file/b"]).refused(2, &["which is no folder"]);
    release(&["--to", "runs/tiny-quick/internal/bundle"]).refused(2, &["is in the run's own folder"]);
    // An internal page is not put among what is published.
    let report = |to: &str| place.call(&["report", "runs/tiny-quick", "--to", to]);
    report("kept/report.html").refused(2, &["holds a bundle"]);
    report("no/such/page.html").refused(2, &["there is no folder no/such"]);
    let left: Vec<_> = fs::read_dir(place.path(""))
        .expect("a folder")
        .filter(|e| {
            e.as_ref()
                .is_ok_and(|e| e.file_name().to_string_lossy().starts_with(".writing"))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_flipped_byte_anywhere_is_found() {
    let folder = bundle("flipped");
    let said = verify(&folder);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "11 files",
        "8 synthetic records",
        "claimed: epsilon",
        "not checked: who made",
        "the bundle is whole",
    ] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    let bad = || -> Vec<String> {
        let found = dpsynth::release::verify(&folder).expect("reads");
        found.failures.into_iter().map(|f| f.path).collect()
    };
    let mut random = ChaCha20Rng::seed_from_u64(7);
    for (name, bytes) in files(&folder) {
        let last = bytes.len() - 1;
        let drawn = [(); 8].map(|()| random.random_range(0..bytes.len()));
        for at in drawn.into_iter().chain([0, last]) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << random.random_range(0..8);
            fs::write(folder.join(&name), &changed).expect("writes");
            assert!(bad().contains(&name), "byte {at} of {name}: {:?}", bad());
        }
        fs::write(folder.join(&name), &bytes[..last]).expect("writes");
        assert!(bad().contains(&name), "{name}, cut");
        verify(&folder).refused(3, &["not what was released", &format!("- {name}: ")]);
        fs::remove_file(folder.join(&name)).expect("removes");
        verify(&folder).refused(3, &[&format!("- {name}: missing")]);
        fs::write(folder.join(&name), &bytes).expect("writes");
    }
    assert_eq!(verify(&folder).code, Some(0));
}

#[test]
fn what_is_no_part_of_a_bundle_is_found() {
    let folder = bundle("more");
    for extra in ["note.txt", "data/train-00003-of-00004.parquet", ".hidden"] {
        fs::write(folder.join(extra), "more").expect("writes");
        verify(&folder).refused(3, &[&format!("- {extra}: not part of the bundle")]);
        fs::remove_file(folder.join(extra)).expect("removes");
    }
    // What git and the hub add is no part of it, and said to be none.
    fs::create_dir(folder.join(".git")).expect("a folder");
    fs::write(folder.join(".git/HEAD"), "ref: refs/heads/main").expect("writes");
    let said = verify(&folder);
    assert!(
        said.code == Some(0) && said.stdout.contains("not part of it: .git\n"),
        "{said:?}"
    );
    // A link to the very same bytes is no file.
    let shard = folder.join("data/train-00001-of-00003.parquet");
    fs::rename(&shard, folder.with_extension("moved")).expect("moves");
    symlink(folder.with_extension("moved"), &shard).expect("links");
    verify(&folder).refused(3, &["data/train-00001-of-00003.parquet: a link"]);
    released()
        .call(&["verify", "nowhere"])
        .refused(2, &["there is no folder"]);
    released().call(&["verify", "runs"]).refused(2, &["holds no bundle"]);
}

/// Whoever changes a file and makes the hashes right again is found where files then say different things.
#[test]
fn p10_files_that_say_different_guarantees_are_found() {
    let than = "than privacy.json";
    for (i, (file, from, to, told)) in [
        ("privacy.json", "\"add-or-remove-one\"", "\"replace-one\"", than),
        (
            "README.md",
            "adjacency add-or-remove-one",
            "adjacency replace-one",
            than,
        ),
        ("manifest.json", "\"unit\": \"record\"", "\"unit\": \"person\"", than),
        ("deployment.yaml", "epsilon: ", "epsilon: 1", than),
        (
            "privacy.json",
            "\"accountant\": \"pld\"",
            "\"accountant\": \"\"",
            "epsilon without accountant (P10)",
        ),
        ("privacy.json", "\"private\": true", "\"private\": false", "NOT PRIVATE"),
        (
            "privacy.json",
            "\"steps\": 2,",
            "\"steps\": 2000,",
            "less than its own noise, sampling rate and steps give",
        ),
        (
            "privacy.json",
            "\"statement\": \"epsilon 4",
            "\"statement\": \"epsilon 1",
            "its statement is not",
        ),
        (
            "manifest.json",
            "\"statement\": \"epsilon 4",
            "\"statement\": \"epsilon 1",
            than,
        ),
        (
            "croissant.json",
            "\"sha256\": \"",
            "\"sha256\": \"0",
            "names other records",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = bundle(&format!("told-{i}"));
        let text = fs::read_to_string(folder.join(file)).expect("reads");
        assert!(text.contains(from), "no {from:?} in {file}");
        fs::write(folder.join(file), text.replace(from, to)).expect("writes");
        rehash(&folder, file);
        let said = verify(&folder);
        said.refused(3, &[told]);
        assert!(!said.stderr.contains("SHA-256"), "the hashes are right: {said:?}");
    }
}

/// A guarantee with a value that this program never writes, or with an epsilon that its own numbers do not give, is refused
/// whatever else agrees with it.
#[test]
fn p10_p11_a_guarantee_that_was_made_up_is_found() {
    type Forge = fn(&mut serde_json::Map<String, Value>);
    let forged: [(&str, Forge, &str); 14] = [
        (
            "counts-alone",
            |g| {
                for key in [
                    "mechanism",
                    "noise_multiplier",
                    "sampling_rate",
                    "steps",
                    "max_grad_norm",
                    "expected_batch_size",
                ] {
                    g.shift_remove(key);
                }
                g.insert("epsilon".into(), 0.1.into());
                g.insert("epsilon_lower".into(), 0.05.into());
                g.insert("label_histogram_epsilon".into(), 0.05.into());
            },
            "`steps`",
        ),
        (
            "research",
            |g| drop(g.insert("caveat".into(), "NOT A DP GUARANTEE: x".into())),
            "`caveat`",
        ),
        (
            "praise",
            |g| drop(g.insert("caveat".into(), "certified".into())),
            "`caveat`",
        ),
        ("text", |g| drop(g.insert("epsilon".into(), "0.1".into())), "`epsilon`"),
        (
            "above",
            |g| drop(g.insert("epsilon_lower".into(), 1e9.into())),
            "`epsilon_lower`",
        ),
        ("likely", |g| drop(g.insert("delta".into(), 0.99.into())), "`delta`"),
        (
            "neighbours",
            |g| drop(g.insert("adjacency".into(), "replace-one".into())),
            "`adjacency`",
        ),
        (
            "accountant",
            |g| drop(g.insert("accountant".into(), "rdp".into())),
            "`accountant`",
        ),
        (
            "silence",
            |g| drop(g.insert("mechanism".into(), "no noise at all".into())),
            "`mechanism`",
        ),
        (
            "unclipped",
            |g| drop(g.insert("max_grad_norm".into(), 0.0.into())),
            "`max_grad_norm`",
        ),
        (
            "prefix",
            |g| drop(g.insert("sampler".into(), "poisson truncated at ".into())),
            "`sampler`",
        ),
        (
            "truncated",
            |g| {
                g.insert(
                    "sampler".into(),
                    "poisson truncated at 30 (of at most 220 units)".into(),
                );
                g.insert("epsilon".into(), 0.1.into());
                g.insert("epsilon_lower".into(), 0.1.into());
            },
            "claims less than its own noise",
        ),
        (
            "more",
            |g| drop(g.insert("epsilon_for_each_person".into(), 0.001.into())),
            "`epsilon_for_each_person`",
        ),
        (
            "endless",
            |g| drop(g.insert("noise_multiplier".into(), 1e308.into())),
            "more than is accounted for",
        ),
    ];
    for (name, forge, told) in forged {
        let folder = bundle(&format!("made-up-{name}"));
        let path = folder.join("privacy.json");
        let mut said = json(&fs::read(&path).expect("reads"));
        let parameters = said["guarantee"]["parameters"].as_object_mut().expect("an object");
        forge(parameters);
        // Its words say the same.
        let parameters = Value::Object(parameters.clone());
        if let Ok(guarantee) = serde_json::from_value::<dpsynth::privacy::Guarantee>(parameters) {
            said["guarantee"]["statement"] = guarantee.to_string().into();
            said["guarantee"]["parameters"] = serde_json::to_value(guarantee).expect("JSON");
        }
        fs::write(&path, serde_json::to_string_pretty(&said).expect("JSON") + "\n").expect("writes");
        rehash(&folder, "privacy.json");
        verify(&folder).refused(3, &[told]);
    }
}

/// Values that this program gives, but not together; and words that no values give.
#[test]
fn p10_values_that_do_not_fit_each_other_are_found() {
    type Forge = fn(&mut Value);
    let forged: [(&str, Forge, &str); 26] = [
        (
            "galaxy",
            |c| c["guarantee"]["parameters"]["unit"] = "galaxy".into(),
            "`unit`",
        ),
        ("crowd", |c| c["guarantee"]["unit"]["max_records"] = 9.into(), "`unit`"),
        (
            "hidden",
            |c| c["run"] = "tiny\u{200b}-quick".into(),
            "characters in it that nobody sees",
        ),
        (
            "turned",
            |c| c["guarantee"]["plain"] = "\u{202e}safe".into(),
            "characters in it that nobody sees",
        ),
        (
            "rarer",
            |c| c["guarantee"]["parameters"]["sampling_rate"] = 0.001.into(),
            "`sampling_rate`",
        ),
        (
            "larger",
            |c| c["guarantee"]["parameters"]["sampler"] = "poisson truncated at 30 (of at most 999999 units)".into(),
            "`sampler`",
        ),
        (
            "allocated",
            |c| {
                c["guarantee"]["parameters"]["sampler"] = "random allocation (one of every 7 steps)".into();
                c["guarantee"]["parameters"]["sampling_rate"] = (1.0 / 7.0).into();
            },
            "`sampler`",
        ),
        (
            "shuffled",
            |c| c["guarantee"]["parameters"]["sampler"] = "shuffled".into(),
            "`sampler`",
        ),
        (
            "size",
            |c| c["guarantee"]["public_size"] = 250.into(),
            "`sampling_rate`",
        ),
        (
            "gate",
            |c| {
                c["deployment"]["copy_gate"] = serde_json::json!({
                    "epsilon": 0.1, "shared_words": 10, "noisy_matched_units": 0, "tolerated_units": 3
                })
            },
            "`copy_gate`",
        ),
        (
            "silent",
            |c| c["guarantee"]["attacks"]["at"] = serde_json::json!([]),
            "`attacks`",
        ),
        (
            "blank",
            |c| c["run"] = "tiny\u{2800}quick".into(),
            "characters in it that nobody sees",
        ),
        (
            "alone",
            |c| c["guarantee"]["composition"] = Value::Null,
            "`composition`",
        ),
        (
            "elsewhere",
            |c| {
                c["guarantee"]["composition"]["epsilon"] = 0.001.into();
                c["guarantee"]["composition"]["delta"] = 0.000_9.into();
            },
            "`composition`",
        ),
        (
            "people",
            |c| c["guarantee"]["composition"]["population"] = "people, with epsilon 0.1 for each".into(),
            "`composition`",
        ),
        (
            "somehow",
            |c| c["guarantee"]["composition"]["sampler"] = "very careful".into(),
            "`composition`",
        ),
        (
            "proof",
            |c| c["deployment"]["audit"][0]["rests_on"] = "a proof".into(),
            "`audit`",
        ),
        ("maker", |c| c["program"]["name"] = "certified".into(), "`program`"),
        (
            "blunt",
            |c| c["guarantee"]["attacks"]["at"][0]["true_positive_rate_at_most"] = 0.001.into(),
            "`attacks`",
        ),
        (
            "even",
            |c| c["guarantee"]["attacks"]["right_at_even_odds"] = 0.5.into(),
            "`attacks`",
        ),
        (
            "unaudited",
            |c| c["deployment"]["audit"] = serde_json::json!([]),
            "`audit`",
        ),
        (
            "acclaimed",
            |c| c["deployment"]["audit"][0]["attack"] = "every attack there is".into(),
            "`audit`",
        ),
        (
            "refuted",
            |c| c["deployment"]["audit"][0]["epsilon_lower"] = 1e9.into(),
            "`audit`",
        ),
        (
            "cheap",
            |c| {
                c["guarantee"]["composition"]["epsilon"] = 0.001.into();
                c["guarantee"]["composition"]["delta"] = c["guarantee"]["parameters"]["delta"].clone();
            },
            "`composition`",
        ),
        (
            "boast",
            |c| c["guarantee"]["plain"] = "Nobody learns anything about anyone.".into(),
            "`plain` is not what its values say",
        ),
        (
            "trust",
            |c| c["deployment"]["trust"] = "Nobody needs to be trusted.".into(),
            "`trust` is not what its values say",
        ),
    ];
    for (name, forge, told) in forged {
        let folder = bundle(&format!("unfit-{name}"));
        let path = folder.join("privacy.json");
        let mut said = json(&fs::read(&path).expect("reads"));
        forge(&mut said);
        let words = serde_json::from_value::<dpsynth::privacy::Guarantee>(said["guarantee"]["parameters"].clone());
        said["guarantee"]["statement"] = words.map(|g| g.to_string()).unwrap_or_default().into();
        fs::write(&path, serde_json::to_string_pretty(&said).expect("JSON") + "\n").expect("writes");
        rehash(&folder, "privacy.json");
        verify(&folder).refused(3, &[told]);
    }
    // A key that is there twice reads otherwise elsewhere.
    let folder = bundle("unfit-twice");
    let text = fs::read_to_string(folder.join("privacy.json")).expect("reads");
    fs::write(
        folder.join("privacy.json"),
        text.replacen("\"epsilon\":", "\"epsilon\": 0.1, \"epsilon\":", 1),
    )
    .expect("writes");
    rehash(&folder, "privacy.json");
    verify(&folder).refused(3, &["not written as this program writes it"]);
    let folder = bundle("unfit-entry");
    let text = fs::read_to_string(folder.join("deployment.yaml")).expect("reads");
    let block = text
        .find("    privacy_parameters:")
        .or(text.find("  privacy_parameters:"))
        .expect("a block");
    let indent: String = text[block..].chars().take_while(|c| *c == ' ').collect();
    let mut two = text.clone();
    two.insert_str(
        block,
        &format!("{indent}privacy_parameters:\n{indent}  epsilon: 0.1\n{indent}  delta: 1.0e-9\n"),
    );
    fs::write(folder.join("deployment.yaml"), two).expect("writes");
    rehash(&folder, "deployment.yaml");
    verify(&folder).refused(3, &["deployment.yaml: says another epsilon or delta"]);
    let folder = bundle("unfit-schema");
    fs::write(folder.join("privacy.schema.json"), "{}\n").expect("writes");
    rehash(&folder, "privacy.schema.json");
    verify(&folder).refused(3, &["privacy.schema.json: is not the schema"]);
    let folder = bundle("unfit-card");
    let card = fs::read_to_string(folder.join("README.md")).expect("reads");
    assert!(card.contains("someone for whom it was an even chance"), "{card}");
    fs::write(
        folder.join("README.md"),
        card.replace("someone for whom it was an even chance", "hardly anyone"),
    )
    .expect("writes");
    rehash(&folder, "README.md");
    verify(&folder).refused(3, &["README.md: does not say what privacy.json makes it say"]);
}

/// Makes manifest and sums right for a changed file.
fn rehash(folder: &Path, file: &str) {
    let hash = |path: &Path| dpsynth::hash::sha256_file(path).expect("reads").0;
    let manifest = folder.join("manifest.json");
    let mut statement = json(&fs::read(&manifest).expect("reads"));
    for subject in statement["subject"].as_array_mut().expect("subjects") {
        if subject["name"] == file {
            subject["digest"]["sha256"] = hash(&folder.join(file)).into();
        }
    }
    if file != "manifest.json" {
        fs::write(
            &manifest,
            serde_json::to_string_pretty(&statement).expect("JSON") + "\n",
        )
        .expect("writes");
    }
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("reads");
    let sums: String = sums
        .lines()
        .map(|line| line.split_once("  ").expect("a sum").1)
        .map(|path| format!("{}  {path}\n", hash(&folder.join(path))))
        .collect();
    fs::write(folder.join("SHA256SUMS"), sums).expect("writes");
}

#[test]
fn sums_are_read_by_sha256sum() {
    let folder = bundle("summed");
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&folder)
        .output();
    let checked = checked.expect("coreutils");
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn whoever_stops_a_release_finds_nothing_of_it() {
    let place = released();
    let places = dpsynth::run::Places {
        runs: place.path("runs"),
        ledgers: place.path("ledgers"),
        assets: dpsynth::assets::Locations::from_env(),
    };
    let _turn = TURN.lock();
    let examined = dpsynth::release::examine(&place.run(""), &places).expect("examined");
    let cleared = examined.clear().expect("cleared");
    let bundle = dpsynth::release::Bundle::of(&cleared).expect("a bundle");
    let (folder, stopped) = (tempfile::tempdir().expect("a folder"), true.into());
    let error = bundle
        .write(&folder.path().join("bundle"), &stopped)
        .expect_err("stopped");
    assert_eq!(error.exit_code(), 130);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn what_is_said_of_a_release_changes_no_stage() {
    let place = Place::new();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    place.done("run", &["--set", &model]);
    assert!(!place.text("runs/tiny-quick/config.toml").contains("[release]"));
    let again = place.done(
        "run",
        &[
            "--set",
            &model,
            "--set",
            "release.license=mit",
            "--set",
            "release.language=[\"de\"]",
        ],
    );
    assert_eq!(again.stderr.matches("done before, kept").count(), 4, "{again:?}");
    assert!(
        place
            .text("runs/tiny-quick/config.toml")
            .contains("[release]\nlicense = \"mit\"")
    );
    for (wrong, told) in [
        ("release.license=CC BY", "release.license"),
        ("release.language=[\"english\"]", "release.language"),
        ("release.date=2026-02-29", "release.date"),
        ("release.contact=\" \"", "release.contact"),
        ("release.licence=mit", "did you mean `license`?"),
    ] {
        place.stage("plan", &["--set", wrong]).refused(2, &[told]);
    }
}

/// The schema is written by hand, and was once behind what is written.
#[test]
fn the_schema_has_every_key_of_the_claim_and_no_other() {
    // What any plan may say whose run can leave, whether this bundle's does or not.
    let schema = json(include_bytes!("../../src/release/templates/privacy.schema.json"));
    let known = schema["$defs"]["parameters"]["properties"]
        .as_object()
        .expect("an object");
    for key in dpsynth::privacy::Guarantee::keys().filter(|key| !["toy", "laplace_mixture"].contains(key)) {
        assert!(known.contains_key(key), "the schema does not know `{key}`");
    }
    let folder = bundle("schema");
    let claim = json(&fs::read(folder.join("privacy.json")).expect("reads"));
    let schema = json(&fs::read(folder.join("privacy.schema.json")).expect("reads"));
    agree(&claim, &schema, "privacy.json");
}

/// Holds `value` against the part of a schema that is for an object like it.
fn agree(value: &Value, schema: &Value, place: &str) {
    let of_type = |schema: &Value| schema.get("properties").is_some() || schema.get("items").is_some();
    let schema = match schema["oneOf"].as_array() {
        Some(several) => several.iter().find(|one| of_type(one)).unwrap_or(schema),
        None => schema,
    };
    match value {
        Value::Object(values) => {
            let Some(properties) = schema["properties"].as_object() else {
                return;
            };
            for (key, value) in values {
                let at = format!("{place}: {key}");
                if schema["additionalProperties"] == false {
                    assert!(properties.contains_key(key), "the schema does not know {at}");
                }
                if let Some(of) = properties.get(key) {
                    agree(value, of, &at);
                }
            }
            for needed in schema["required"].as_array().into_iter().flatten() {
                let key = needed.as_str().expect("a key");
                assert!(values.contains_key(key), "the schema requires {place}: {key}");
            }
        }
        Value::Array(values) => values.iter().for_each(|value| agree(value, &schema["items"], place)),
        _ => {}
    }
}
