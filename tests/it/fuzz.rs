//! Files of models that a stranger made: whatever is in them, a reader gives a model or an error. It neither panics nor takes
//! long, and takes no memory by what a file declares.
//!
//! Valid files are changed at random: bits, bytes, numbers, pieces cut out and put in. `make fuzz` does that for an hour for
//! each kind of file; here a second of each is part of the suite.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use dpsynth::evaluation::embed::SentenceEncoder;
use dpsynth::evaluation::encoder::EncoderFiles;
use dpsynth::models::ModelFiles;
use dpsynth::models::load::gguf::Gguf;
use dpsynth::records::Vocabulary;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// No file of these tests takes longer to read, changed or not.
const LONGEST: Duration = Duration::from_secs(20);
/// No larger model is made of a changed file: that it may be made is not what is tested.
const LARGEST: usize = 4_000_000;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Numbers that readers stumble over.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e308",
    "-1e308",
    "0.5",
    "4294967296",
    "18446744073709551615",
    "9223372036854775807",
    "1e-320",
    "null",
    "[]",
    "\"\"",
];

/// `bytes`, changed in one to eight places.
fn changed(bytes: &[u8], is_text: bool, rng: &mut StdRng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    // Headers are at the front: half of all changes are made there.
    let place = |out: &[u8], rng: &mut StdRng| match rng.random_bool(0.5) {
        true => rng.random_range(0..out.len().min(4096)),
        false => rng.random_range(0..out.len()),
    };
    for _ in 0..rng.random_range(1..=8) {
        if out.is_empty() {
            return out;
        }
        let at = place(&out, rng);
        match rng.random_range(0..8) {
            0 => out[at] ^= 1 << rng.random_range(0..8),
            1 => out[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).expect("there are some"),
            2 => out.truncate(at),
            3 => {
                let end = (at + rng.random_range(1..64)).min(out.len());
                out.drain(at..end);
            }
            4 => {
                let end = (at + rng.random_range(1..64)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = rng.random_range(0..=out.len());
                out.splice(to..to, piece);
            }
            5 => {
                let value: u64 = match rng.random_range(0..3) {
                    0 => u64::MAX >> rng.random_range(0..64),
                    1 => rng.random(),
                    _ => rng.random_range(0..1000),
                };
                let bytes = value.to_le_bytes();
                let end = (at + 8).min(out.len());
                out[at..end].copy_from_slice(&bytes[..end - at]);
            }
            _ if is_text => {
                // A number or a word of JSON in the place of another.
                let is_value = |b: &u8| b.is_ascii_alphanumeric() || b"+-._".contains(b);
                let Some(start) = (at..out.len()).find(|i| is_value(&out[*i])) else {
                    continue;
                };
                let end = (start..out.len()).find(|i| !is_value(&out[*i])).unwrap_or(out.len());
                let other = NUMBERS.choose(rng).expect("there are some").bytes();
                out.splice(start..end, other);
            }
            _ => {
                let last = out.len() - 1;
                out.swap(at, last);
            }
        }
    }
    out
}

/// Reads changed files for a while; what a reader does with one is its business, as long as it comes back.
fn fuzz(kind: &str, files: &[(PathBuf, bool)], read: impl Fn(&Path, &[u8])) {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1.0);
    let seed = match std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed,
        None if seconds > 1.0 => rand::rng().random(),
        // The suite is the same each time.
        None => 0,
    };
    let originals: Vec<Vec<u8>> = files
        .iter()
        .map(|(path, _)| std::fs::read(path).expect("reads"))
        .collect();
    let begun = Instant::now();
    let mut round: u64 = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        let mut rng = StdRng::seed_from_u64(seed + round);
        let which = rng.random_range(0..files.len());
        let bytes = changed(&originals[which], files[which].1, &mut rng);
        let took = Instant::now();
        let name = files[which].0.display();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&files[which].0, &bytes)));
        assert!(
            outcome.is_ok(),
            "{kind}: {name} changed by FUZZ_SEED={} panics a reader",
            seed + round
        );
        assert!(
            took.elapsed() < LONGEST,
            "{kind}: {name} changed by FUZZ_SEED={} takes {:?}",
            seed + round,
            took.elapsed()
        );
        round += 1;
    }
    println!("{kind}: {round} changed files, from seed {seed}");
}

/// All that is asked of a model's files before a run reads a record, and the model itself.
fn open(files: &ModelFiles) {
    if let Ok(shape) = files.shape()
        && shape.parameters() < LARGEST
        && shape.context < 4096
    {
        let _ = files.model(&Device::flex());
        let _ = files.packed_model(&Device::flex());
    }
    if let Ok(vocabulary) = Vocabulary::of(files) {
        let _ = vocabulary.prompt("Write a film review.");
        let _ = vocabulary.chat_template();
    }
}

#[test]
fn a_strangers_gguf_gives_a_model_or_an_error() {
    let named = ["llama3.gguf", "qwen2.gguf", "qwen3.gguf", "gemma3.gguf", "pieces.gguf"];
    let mut files: Vec<(PathBuf, bool)> = named.map(|name| (tests().join("parity").join(name), false)).to_vec();
    files.push((tests().join("fixtures/llama/model.gguf"), false));
    let copy = tempfile::tempdir().expect("a folder");
    fuzz("gguf", &files, |_, bytes| {
        if let Ok(gguf) = Gguf::parse("changed.gguf", bytes.to_vec()) {
            open(&ModelFiles::Gguf(gguf));
        }
        // Read where it lies, as large files are.
        let path = copy.path().join("changed.gguf");
        std::fs::write(&path, bytes).expect("writes");
        if let Ok(files) = ModelFiles::open(&path) {
            let _ = files.shape();
        }
    });
}

/// The files of `folder`, and a copy of it in which one of them is exchanged before each read.
fn fuzz_folder(kind: &str, folder: &Path, is_meant: impl Fn(&str) -> bool, read: impl Fn(&Path)) {
    let copy = tempfile::tempdir().expect("a folder");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        std::fs::copy(&path, copy.path().join(&name)).expect("copies");
        if is_meant(&name) {
            files.push((path, name.ends_with(".json")));
        }
    }
    fuzz(kind, &files, |path, bytes| {
        let own = copy.path().join(path.file_name().expect("a name"));
        std::fs::write(&own, bytes).expect("writes");
        read(copy.path());
        std::fs::copy(path, own).expect("copies");
    });
}

#[test]
fn a_strangers_checkpoint_gives_a_model_or_an_error() {
    for name in ["qwen3", "gemma3", "llama3"] {
        let folder = tests().join("parity").join(name);
        let meant = |name: &str| name == "config.json" || name.contains("model");
        fuzz_folder("safetensors", &folder, meant, |folder| {
            if let Ok(files) = ModelFiles::open(folder) {
                open(&files);
            }
            let _ = dpsynth::models::declared(&folder.join("config.json"));
        });
    }
}

#[test]
fn a_strangers_tokenizer_gives_tokens_or_an_error() {
    let folder = tests().join("fixtures/gpt2");
    let meant = |name: &str| name.contains("token");
    fuzz_folder("tokenizer", &folder, meant, |folder| {
        if let Ok(files) = ModelFiles::open(folder) {
            open(&files);
        }
    });
    for name in ["bert", "bert_distil", "bert_roberta"] {
        let folder = tests().join("fixtures").join(name);
        let meant = |name: &str| name != "expected.json";
        fuzz_folder("encoder", &folder, meant, |folder| {
            if let Ok(encoder) = SentenceEncoder::open(&EncoderFiles::in_folder(folder), 16, &Device::flex()) {
                let _ = encoder.embed(["a fine film", ""], &mut |_| Ok(()));
            }
        });
    }
}
