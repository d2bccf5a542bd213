//! Sampling: records, tokens and bytes a second.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::clock::go_on;
use super::memory::{self, Peak};
use super::{Subject, ceiling};
use crate::config::Precision;
use crate::models::device;
use crate::models::llama::LlamaConfig;
use crate::progress::{Progress, Unit};
use crate::sampling::choose::Choice;
use crate::sampling::decode::{Decoder, Decoding, Request};
use crate::training::{trainable, workers::Workers};
use crate::{Error, Result};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    pub records: usize,
    /// Longest record in tokens, its end included.
    pub tokens: usize,
    /// Records drawn side by side by each worker.
    pub batch_size: usize,
    pub choice: Choice,
    /// Other labels in the contrast, at most.
    pub contrasts: usize,
    pub seed: u64,
    /// Element type of the maps' products.
    pub precision: Precision,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub model: String,
    pub device: &'static str,
    pub dtype: Precision,
    pub workers: usize,
    pub records: usize,
    pub batch_size: usize,
    pub max_tokens: usize,
    pub guidance: f64,
    /// Drawn, each record's end token included.
    pub tokens: usize,
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// Records a second.
    pub rows_per_second: f64,
    /// By [`bytes`].
    pub bytes_per_second: f64,
    pub copy_bandwidth_bytes_per_second: f64,
    pub bytes_over_bandwidth: f64,
    pub peak: Peak,
    /// The prompts in tokens and the end token: what another program needs for the same work.
    pub prompts: Vec<Vec<u32>>,
    pub end: u32,
}

/// Bytes that drawing records of `lengths` tokens behind `prompt` tokens must move at least: all weights once for each
/// `batch_size` tokens, a record's keys and values (in f32) read once for each of its tokens, and written once.
pub fn bytes(c: &LlamaConfig, precision: Precision, prompt: usize, lengths: &[usize], batch_size: usize) -> f64 {
    let head = c.vocabulary * c.width;
    // A map's operations are two for each of its weights, and the head's likewise; the head stays in f32.
    let maps = c.flops_per_token() / 2.0 - head as f64;
    let weights = trainable::dtype(precision).size() as f64 * maps + 4.0 * head as f64;
    let cell = 4.0 * (2 * c.layers * c.kv_heads * c.head_width()) as f64;
    let tokens: usize = lengths.iter().sum();
    let read = |length: &usize| (prompt * length) as f64 + (length * (length + 1)) as f64 / 2.0;
    weights * tokens as f64 / batch_size as f64 + cell * (lengths.iter().map(read).sum::<f64>() + tokens as f64)
}

/// Draws the records once, after a batch that is not counted.
///
/// # Errors
/// Usage: a count of nothing, records beyond the context. Interrupted: `stop` was set.
pub fn measure(
    subject: &Subject,
    setting: &Setting,
    stop: &AtomicBool,
    progress: &dyn Progress,
) -> Result<Measurement> {
    for (flag, value) in [("records", setting.records), ("batch-size", setting.batch_size)] {
        if value == 0 {
            return Err(Error::usage(format!("--{flag} must be at least 1, not 0"))
                .hint("leave it out for the configuration's value"));
        }
    }
    let model = &subject.model.maps_in(trainable::dtype(setting.precision));
    let workers = Workers::new(model);
    let settings = Decoding {
        choice: setting.choice,
        contrasts: setting.contrasts,
        max_tokens: setting.tokens,
        end: subject.end,
        seed: setting.seed,
    };
    let decoder = Decoder::new(model, &subject.prompts, settings)?;
    let request = |id: usize| Request {
        id: id as u64,
        attempt: 0,
        label: id % subject.prompts.len(),
    };
    let requests: Vec<Request> = (0..setting.records).map(request).collect();
    let batches: Vec<&[Request]> = requests.chunks(setting.batch_size).collect();
    decoder.decode(&requests[..setting.batch_size.min(2).min(requests.len())]);

    memory::restart();
    let task = progress.begin("sampling", setting.records as u64, Unit::Records);
    let begun = Instant::now();
    let mut lengths = Vec::with_capacity(setting.records);
    for wave in batches.chunks(workers.count()) {
        go_on(stop)?;
        let done = workers.map(wave, |batch| decoder.decode(batch));
        // A record that came to an end by itself has one token more: its end.
        let length = |ids: &Vec<u32>| (ids.len() + 1).min(setting.tokens);
        lengths.extend(done.iter().flatten().map(length));
        task.set(lengths.len() as u64, "");
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(task);
    let peak = memory::peak(&model.device());
    let tokens: usize = lengths.iter().sum();
    let prompt = subject.prompts.iter().map(Vec::len).max().unwrap_or(0);
    let bytes = bytes(
        model.config(),
        setting.precision,
        prompt,
        &lengths,
        setting.batch_size.min(setting.records),
    );
    let bandwidth = ceiling::copy_bytes_per_second(&model.device(), &workers);
    Ok(Measurement {
        model: subject.name.clone(),
        device: device::name(&model.device()),
        dtype: setting.precision,
        workers: workers.count(),
        records: setting.records,
        batch_size: setting.batch_size,
        max_tokens: setting.tokens,
        guidance: setting.choice.guidance,
        tokens,
        seconds,
        tokens_per_second: tokens as f64 / seconds,
        rows_per_second: setting.records as f64 / seconds,
        bytes_per_second: bytes / seconds,
        copy_bandwidth_bytes_per_second: bandwidth,
        bytes_over_bandwidth: bytes / seconds / bandwidth,
        peak,
        prompts: subject.prompts.clone(),
        end: subject.end,
    })
}
