//! `dpsynth bench`: what it says, what it refuses, and that it leaves nothing behind. No test here asserts a speed.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use crate::common::{Place, Running, Said};
use serde_json::Value;

/// A model that is loaded and trained in no time.
const SMALL: [&str; 14] = [
    "--layers",
    "2",
    "--width",
    "32",
    "--hidden",
    "64",
    "--heads",
    "4",
    "--kv-heads",
    "2",
    "--vocabulary",
    "300",
    "--prompt-tokens",
    "5",
];

/// The tiny Llama that the other tests use, in place of the configuration's model.
fn fixture() -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama/model.gguf");
    format!("model.path={}", model.display())
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).expect("one JSON object")
}

#[track_caller]
fn positive(found: &Value, key: &str) -> f64 {
    let value = found[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {key} in {found}"));
    assert!(value > 0.0 && value.is_finite(), "{key} is {value}");
    value
}

fn train(place: &Place, more: &[&str]) -> Value {
    let sizes = [
        "--records",
        "6",
        "--tokens",
        "7",
        "--micro-batch-size",
        "2",
        "--steps",
        "2",
        "--json",
    ];
    json(&place.ok(&[&["bench", "train"][..], more, &sizes].concat()))
}

/// What every answer about training holds.
#[track_caller]
fn is_a_training_measurement(found: &Value) {
    for key in [
        "private_over_non_private_time",
        "private_over_non_private_peak",
        "tokens_per_second",
        "non_private_tokens_per_second",
        "flops_per_second",
        "matmul_ceiling_flops_per_second",
        "model_flop_utilisation",
        "seconds",
        "forward_s",
        "backward_s",
        "norms_s",
        "noise_s",
        "optimizer_s",
    ] {
        positive(found, key);
    }
    let parts = ["forward_s", "backward_s", "norms_s", "noise_s", "optimizer_s"];
    let parts: f64 = parts.iter().map(|key| positive(found, key)).sum();
    assert!(
        parts <= 1.5 * positive(found, "seconds"),
        "the parts are more than the whole: {found}"
    );
    assert_eq!(found["non_private"]["noise_s"], 0.0, "{found}");
    assert!(positive(found, "private_over_non_private_peak") > 0.2, "{found}");
    let ratio = positive(found, "seconds") / positive(found, "non_private_seconds");
    assert!((ratio - positive(found, "private_over_non_private_time")).abs() < 1e-9 * ratio);
}

#[test]
fn training_of_a_synthetic_shape_is_measured_in_both_ways() {
    let place = Place::new();
    let found = train(&place, &SMALL);
    is_a_training_measurement(&found);
    assert_eq!(found["method"], "lora");
    assert_eq!(found["tokens_per_record"], 12.0);
    let full = train(&place, &[&SMALL[..], &["--full"]].concat());
    is_a_training_measurement(&full);
    assert_eq!(full["method"], "full");
    // Embedding, and in two layers: maps q, k, v, o, gate, up, down and two norms; and the last norm.
    let layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64 + 2 * 32;
    assert_eq!(full["trained_parameters"], 300 * 32 + 2 * layer + 32);
}

#[test]
fn training_of_a_configuration_takes_its_model_prompts_and_settings() {
    let place = Place::new();
    let model = fixture();
    let found = train(&place, &["tiny.toml", "--profile", "quick", "--set", &model]);
    is_a_training_measurement(&found);
    assert!(
        found["model"].as_str().expect("a name").ends_with("model.gguf"),
        "{found}"
    );
    assert!(
        positive(&found, "tokens_per_record") > 8.0,
        "records have a prompt: {found}"
    );
    let said = place.ok(&[
        "bench",
        "train",
        "tiny.toml",
        "--profile",
        "quick",
        "--set",
        &model,
        "--records",
        "4",
    ]);
    for word in ["private", "non-private", "norms", "noise", "peak memory", "ceiling"] {
        assert!(said.stdout.contains(word), "{}", said.stdout);
    }
}

#[test]
fn sampling_is_measured_in_tokens_rows_and_bytes() {
    let place = Place::new();
    let model = fixture();
    let sizes = ["--records", "10", "--tokens", "9", "--batch-size", "4", "--json"];
    let config = ["tiny.toml", "--profile", "quick", "--set", &model];
    for subject in [&SMALL[..], &config] {
        let found = json(&place.ok(&[&["bench", "sample"][..], subject, &sizes].concat()));
        for key in [
            "tokens_per_second",
            "rows_per_second",
            "bytes_per_second",
            "copy_bandwidth_bytes_per_second",
            "bytes_over_bandwidth",
        ] {
            positive(&found, key);
        }
        let tokens = positive(&found, "tokens");
        assert!(
            (10.0..=90.0).contains(&tokens),
            "each record has 1 to 9 tokens: {tokens}"
        );
        assert_eq!(found["prompts"].as_array().expect("prompts").len(), 2);
    }
}

#[test]
fn accounting_is_measured() {
    let place = Place::new();
    let found = json(&place.ok(&["bench", "account", "--times", "1", "--json"]));
    for key in ["epsilon_s", "delta_s", "calibrate_s"] {
        positive(&found, key);
    }
    assert!(
        place
            .ok(&["bench", "account", "--times", "1"])
            .stdout
            .contains("calibration")
    );
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let place = Place::new();
    let small = |command: &'static str, more: &[&'static str]| [&["bench", command][..], &SMALL, more].concat();
    for (arguments, part) in [
        (small("train", &["--tokens", "0"]), "--tokens"),
        (small("train", &["--tokens", "9000"]), "not 9000"),
        (small("train", &["--records", "2"]), "--records"),
        (small("train", &["--steps", "0"]), "--steps"),
        (small("train", &["--micro-batch-size", "0"]), "--micro-batch-size"),
        (small("train", &["--rank", "0"]), "--rank"),
        (small("sample", &["--tokens", "0"]), "--tokens"),
        (small("sample", &["--tokens", "9000"]), "not 9000"),
        (small("sample", &["--batch-size", "0"]), "--batch-size"),
        (small("sample", &["--records", "0"]), "--records"),
        (small("sample", &["--guidance", "nan"]), "--guidance"),
        (small("sample", &["--guidance", "-1"]), "--guidance"),
        (small("train", &["--records", "18446744073709551615"]), "--records"),
        (small("train", &["--rank", "100000000"]), "--rank"),
        (small("sample", &["--records", "18446744073709551615"]), "--records"),
        (vec!["bench", "train", "--heads", "7"], "7 heads"),
        (
            vec!["bench", "sample", "--heads", "9", "--kv-heads", "2"],
            "heads of keys",
        ),
        (vec!["bench", "train", "--layers", "0"], "--layers"),
        (vec!["bench", "sample", "--vocabulary", "99999999999"], "--vocabulary"),
        (vec!["bench", "train", "--prompt-tokens", "0"], "prompt"),
        (vec!["bench", "account", "--times", "0"], "--times"),
        (vec!["bench", "account", "--times", "18446744073709551615"], "--times"),
        (
            vec![
                "bench",
                "train",
                "--layers",
                "1024",
                "--width",
                "65536",
                "--heads",
                "512",
                "--kv-heads",
                "512",
            ],
            "GB of weights",
        ),
        (vec!["bench", "account", "--delta", "2"], "delta"),
        (vec!["bench", "train", "nowhere.toml"], "nowhere.toml"),
    ] {
        let said = place.call(&arguments);
        said.refused(2, &[part]);
    }
    // What clap refuses has no hint of ours.
    for arguments in [
        &["bench", "train", "--full", "--rank", "4"][..],
        &["bench", "train", "tiny.toml", "--layers", "2"],
        &["bench", "train", "--profile", "quick"],
        &["bench", "train", "--records", "-1"],
        &["bench", "sample", "--dtype", "f64"],
        &["bench"],
    ] {
        assert_eq!(place.call(arguments).code, Some(2), "{arguments:?}");
    }
    place
        .call(&[
            "bench",
            "sample",
            "tiny.toml",
            "--profile",
            "quick",
            "--set",
            "model.path=missing.gguf",
        ])
        .refused(1, &["missing.gguf"]);
    #[cfg(not(feature = "cuda-plain"))]
    place
        .call(&[&["bench", "train"][..], &SMALL, &["--device", "cuda"]].concat())
        .refused(2, &["CUDA"]);
}

/// Names and contents below a folder. What a program at work removes meanwhile is not there.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => out.extend(everything(&path)),
            false => out.extend(fs::read(&path).map(|content| (path.display().to_string(), content))),
        }
    }
    out.sort();
    out
}

#[test]
fn nothing_is_left_behind_and_no_ledger_is_touched() {
    let place = Place::new();
    fs::create_dir(place.path("ledgers")).expect("makes");
    place.write("ledgers/mine.jsonl", "not to be read, and not to be written\n");
    fs::create_dir(place.path("temporary")).expect("makes");
    let before = everything(&place.path(""));
    let model = fixture();
    let train = [
        "bench",
        "train",
        "tiny.toml",
        "--profile",
        "quick",
        "--set",
        &model,
        "--records",
        "4",
    ];
    let sample = [
        "bench",
        "sample",
        "tiny.toml",
        "--profile",
        "quick",
        "--set",
        &model,
        "--records",
        "4",
    ];
    for arguments in [&train[..], &sample, &["bench", "account", "--times", "1"]] {
        let mut command = place.command(arguments);
        let output = command.env("TMPDIR", place.path("temporary")).output().expect("starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(everything(&place.path("")), before);
    assert_eq!(everything(&place.path("temporary")), []);
}

#[test]
fn ctrl_c_ends_it_with_nothing_left_behind() {
    let place = Place::new();
    fs::create_dir(place.path("temporary")).expect("makes");
    let temporary = place.path("temporary");
    let mut command = place.command(&[&["bench", "train"][..], &SMALL, &["--steps", "20000"]].concat());
    let mut running = Running::of(command.env("TMPDIR", &temporary));
    running.until("its ledger", || {
        everything(&temporary)
            .iter()
            .any(|(_, bytes)| bytes.split(|b| *b == b'\n').count() > 4)
    });
    let said = running.interrupt();
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(said.stderr.contains("hint: ") && said.stdout.is_empty(), "{said:?}");
    assert_eq!(everything(&place.path("temporary")), []);
}
