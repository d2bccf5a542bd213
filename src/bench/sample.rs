//! Sampling: records, tokens and bytes a second.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::Subject;
use super::clock::{go_on, within};
use super::memory::{self, Peak};
use crate::config::Precision;
use crate::machine::ceiling;
use crate::machine::workers::Workers;
use crate::models::device;
use crate::progress::{Progress, Unit};
use crate::sampling::choose::Choice;
use crate::sampling::decode::{DecodeStats, Decoder, Decoding, Request};
use crate::sampling::queue::Queue;
use crate::training::trainable;
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
    /// Records side by side of each worker.
    pub batch_size: usize,
    pub max_tokens: usize,
    pub guidance: f64,
    /// Drawn, each record's end token included.
    pub tokens: u64,
    /// Forward passes of a batch.
    pub steps: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    pub records_per_second: f64,
    /// Rows of the model a second: guided tokens take several.
    pub rows_per_second: f64,
    /// Weights once for each step, and the keys and values that its rows saw.
    pub bytes_per_second: f64,
    pub copy_bandwidth_bytes_per_second: f64,
    pub bytes_over_bandwidth: f64,
    pub peak: Peak,
    /// The prompts in tokens and the end token: what another program needs for the same work.
    pub prompts: Vec<Vec<u32>>,
    pub end: u32,
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
    within("records", setting.records, 1, 1 << 24)?;
    within("batch-size", setting.batch_size, 1, 1 << 16)?;
    let guidance = setting.choice.guidance;
    if !(guidance >= 0.0 && guidance.is_finite()) {
        return Err(Error::usage(format!("--guidance must be 0 or more, not {guidance}"))
            .hint("0 is plain sampling, 1 doubles the weight of the label"));
    }
    subject.room_for(setting.tokens)?;
    let model = &subject.model.maps_in(trainable::dtype(setting.precision));
    let workers = Workers::on(&model.device());
    let settings = Decoding {
        choice: setting.choice,
        contrasts: setting.contrasts,
        guidance_end: None,
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
    // The last of them are shared out too, as in the pipeline.
    let side_by_side = setting.batch_size.min(setting.records.div_ceil(workers.count()));
    decoder.decode(&requests[..2.min(requests.len())], 2);

    memory::restart();
    let task = progress.begin("sampling", setting.records as u64, Unit::Records);
    let shown = Mutex::new((task, 0));
    let queue = Queue::new(requests).until(stop);
    let done = |_, _| {
        let (task, drawn) = &mut *shown.lock().expect("showing progress does not panic");
        *drawn += 1;
        task.set(*drawn, "");
        Ok(None)
    };
    let begun = Instant::now();
    let ends = decoder.run_on(&workers, &queue, side_by_side, done);
    let seconds = begun.elapsed().as_secs_f64();
    go_on(stop)?;
    let mut stats = DecodeStats::default();
    for end in ends {
        stats += end?;
    }
    let peak = memory::peak(&model.device());
    let bytes = (stats.weight_bytes + stats.cache_bytes) as f64;
    let bandwidth = ceiling::copy_bytes_per_second(&model.device(), &workers);
    Ok(Measurement {
        model: subject.name.clone(),
        device: device::name(&model.device()),
        dtype: setting.precision,
        workers: workers.count(),
        records: setting.records,
        batch_size: side_by_side,
        max_tokens: setting.tokens,
        guidance: setting.choice.guidance,
        tokens: stats.tokens,
        steps: stats.steps,
        seconds,
        tokens_per_second: stats.tokens as f64 / seconds,
        records_per_second: setting.records as f64 / seconds,
        rows_per_second: stats.rows as f64 / seconds,
        bytes_per_second: bytes / seconds,
        copy_bandwidth_bytes_per_second: bandwidth,
        bytes_over_bandwidth: bytes / seconds / bandwidth,
        peak,
        prompts: subject.prompts.clone(),
        end: subject.end,
    })
}
