//! How fast records are prepared, in how much memory, and how fast a batch of them is drawn from disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::memory;
use crate::assets::{self, Locations};
use crate::config::{self, Profile};
use crate::machine::peak_rss_bytes;
use crate::models::load::gguf::Gguf;
use crate::pipeline::Pipeline;
use crate::progress::{Progress, Silent};
use crate::records::Drawable;
use crate::run::{Places, Stage, table};
use crate::{Error, Result};

/// Words of a made-up record.
pub const WORDS: usize = 50;

/// Units that are drawn at once, to time it.
const DRAWN: usize = 1024;

/// What `prepare` took for a number of rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Prepared {
    pub rows: usize,
    /// Of text, before it is compressed.
    pub text_bytes: u64,
    pub seconds: f64,
    pub rows_per_second: f64,
    pub text_bytes_per_second: f64,
    /// Of the whole process, while it prepared.
    pub peak_rss_bytes: u64,
    /// To read 1,024 units, drawn at random, from disk.
    pub draw_seconds: f64,
}

/// Prepares made-up records of 50 words in a folder of its own below `scratch`, which is removed afterwards.
///
/// # Errors
/// Other: the model's tokenizer cannot be had, or the disk is full. Interrupted: `stop` is set.
pub fn measure(rows: usize, scratch: &Path, stop: &AtomicBool, progress: &dyn Progress) -> Result<Prepared> {
    let folder = tempfile::Builder::new().prefix("dpsynth-bench-").tempdir_in(scratch);
    let folder = folder.map_err(|e| Error::io("make a folder in", scratch, e))?;
    let at = |file: &str| folder.path().join(file);
    let model = assets::language_model(&config::ModelConfig::default(), &Locations::from_env(), progress)?;
    let words = words(&model.language_model()?.path)?;
    let text_bytes = write(&at("train.parquet"), rows, &words)?;
    write(&at("test.parquet"), 1000, &words)?;
    let toml = format!(
        "name = \"bench\"\n[dataset]\ntrain = \"train.parquet\"\ntest = \"test.parquet\"\n\
         labels = [{{ column = \"label\", names = [\"one\", \"other\"] }}]\npublic_size = {rows}\n\
         [prompt]\nuser = \"Write a {{{{ label }}}} note.\"\n[finetune]\nexpected_batch_size = 1\nsteps = 1\n"
    );
    std::fs::write(at("bench.toml"), toml).map_err(|e| Error::io("write", &at("bench.toml"), e))?;
    let config = config::load(&at("bench.toml"), Profile::Quick, &[], &at("data"))?;
    let places = Places {
        runs: at("runs"),
        ledgers: at("ledgers"),
        assets: Locations::from_env(),
    };
    drop(words);

    memory::restart();
    let begun = Instant::now();
    let pipeline = Pipeline::open(config, Profile::Quick, &places, stop, &Silent)?;
    pipeline.run_until(Stage::Prepare)?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak_rss_bytes = peak_rss_bytes();

    let units = table::units(pipeline.folder(), 1)?;
    let mut rng = StdRng::seed_from_u64(1);
    let members: Vec<usize> = (0..DRAWN).map(|_| rng.random_range(0..units.units())).collect();
    let begun = Instant::now();
    units.drawn(&members)?;
    Ok(Prepared {
        rows,
        text_bytes,
        seconds,
        rows_per_second: rows as f64 / seconds,
        text_bytes_per_second: text_bytes as f64 / seconds,
        peak_rss_bytes,
        draw_seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Words that the tokenizer knows, and that begin after a blank.
fn words(model: &Path) -> Result<Vec<String>> {
    let gguf = Gguf::open(model)?;
    let tokens = gguf.texts("tokenizer.ggml.tokens")?.iter();
    let plain = |t: &&str| t.len() > 1 && t.chars().all(|c| c.is_ascii_lowercase());
    Ok(tokens
        .filter_map(|t| t.strip_prefix('Ġ'))
        .filter(plain)
        .map(String::from)
        .collect())
}

/// Bytes of text.
fn write(path: &Path, rows: usize, words: &[String]) -> Result<u64> {
    let failed = |e: parquet::errors::ParquetError| {
        Error::other(format!("cannot write {}: {e}", path.display())).hint("--scratch names a folder with more room")
    };
    let file = std::fs::File::create(path).map_err(|e| Error::io("write", path, e))?;
    let mut rng = StdRng::seed_from_u64(rows as u64);
    let mut batch = |rows: std::ops::Range<usize>| {
        let text = |_| {
            let words: Vec<&str> = (0..WORDS)
                .map(|_| words.choose(&mut rng).expect("there are words").as_str())
                .collect();
            words.join(" ")
        };
        let labels = Int64Array::from_iter_values(rows.clone().map(|row| row as i64 % 2));
        let texts: Vec<String> = rows.map(text).collect();
        let bytes = texts.iter().map(|text| text.len() as u64).sum::<u64>();
        let texts = StringArray::from(texts);
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as _), ("label", Arc::new(labels) as _)]);
        (batch.expect("columns are equally long"), bytes)
    };
    let mut writer = ArrowWriter::try_new(file, batch(0..0).0.schema(), None).map_err(failed)?;
    let (mut row, mut bytes) = (0, 0);
    while row < rows {
        let end = rows.min(row + 10_000);
        let (batch, of_batch) = batch(row..end);
        writer.write(&batch).map_err(failed)?;
        writer.flush().map_err(failed)?;
        (row, bytes) = (end, bytes + of_batch);
    }
    writer.close().map_err(failed)?;
    Ok(bytes)
}
