//! How fast this machine works: guessed from its products of matrices, or measured by a little of each kind of work.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::{DType, Device};

use super::cost;
use super::scorers::Encoder;
use crate::Result;
use crate::assets::{self, Locations};
use crate::bench::Subject;
use crate::bench::sample::{self, Setting as Drawing};
use crate::bench::train::{self, Setting as Training};
use crate::config::{Precision, RunConfig};
use crate::evaluation::encoder::EncoderFiles;
use crate::machine::ceiling;
use crate::machine::workers::Workers;
use crate::progress::{Progress, Silent, Unit};
use crate::sampling::choose::Choice;

/// Share of the speed of products that training, and drawing and reading, reach, measured once with SmolLM2-135M on two
/// cores (docs/results.md).
const TRAINING_SHARE: f64 = 0.75;
const SAMPLING_SHARE: f64 = 0.55;
/// Tokens of a record that is drawn to measure: short, so that it takes seconds.
const DRAWN: usize = 32;
/// Texts that are read to measure.
const READ: usize = 64;

/// FLOP/s that each kind of work reaches, of the operations that [`cost`] counts for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub training: f64,
    pub sampling: f64,
    /// Of the encoder.
    pub reading: f64,
    /// Of products of matrices alone.
    pub matmul: f64,
}

impl Rates {
    /// From products of matrices, which take a second.
    pub fn guessed(device: &Device) -> Self {
        let matmul = ceiling::matmul_flops_per_second(device, &Workers::on(device), DType::F32);
        Rates {
            training: TRAINING_SHARE * matmul,
            sampling: SAMPLING_SHARE * matmul,
            reading: SAMPLING_SHARE * matmul,
            matmul,
        }
    }

    /// From one private step of made-up records, one batch of drawn ones and, where an encoder is here, a few texts that it
    /// reads: half a minute on two cores. Reads no record.
    ///
    /// # Errors
    /// As [`Subject::of_config`] and [`train::measure`]; an encoder that is broken. Interrupted: `stop` was set.
    pub fn measured(
        config: &RunConfig,
        device: &Device,
        locations: &Locations,
        stop: &AtomicBool,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let guessed = Rates::guessed(device);
        let task = progress.begin("this machine's speed", 1, Unit::Steps);
        let subject = Subject::of_config(config, device, locations, progress)?;
        let forward = subject.model.shape().flops_per_token();
        let side_by_side = Workers::on(device).count();
        let training = Training {
            records: (side_by_side * config.finetune.micro_batch_size).max(train::LEAST_RECORDS),
            tokens: config.prepare.max_tokens,
            steps: 1,
            finetune: config.finetune.clone(),
        };
        let s = &config.sample;
        let drawing = Drawing {
            records: side_by_side * s.batch_size,
            tokens: DRAWN,
            batch_size: s.batch_size,
            choice: Choice {
                temperature: s.temperature,
                top_p: s.top_p,
                guidance: 0.0,
                plausibility: s.guidance_plausibility,
            },
            contrasts: 0,
            seed: s.seed,
            precision: Precision::F32,
        };
        let trained = train::tokens_per_second(&subject, &training, stop)?;
        let drawn = sample::measure(&subject, &drawing, stop, &Silent)?.tokens_per_second;
        drop(subject);
        let read = reading(config, locations, progress)?;
        task.set(1, "");
        Ok(Rates {
            training: cost::passes(config) * forward * trained,
            sampling: forward * drawn,
            reading: read.map_or(guessed.reading, |pieces| cost::OF_A_WORD_PIECE * pieces),
            matmul: guessed.matmul,
        })
    }
}

/// Word pieces a second of the lexicon's encoder; none where there is none, or it is not on this machine.
fn reading(config: &RunConfig, locations: &Locations, progress: &dyn Progress) -> Result<Option<f64>> {
    let Some(named) = config
        .lexicon
        .encoder()
        .filter(|named| assets::is_here(named, locations))
    else {
        return Ok(None);
    };
    let model = assets::encoder(named, locations, progress)?;
    let most = config.lexicon.encoder_max_tokens;
    let encoder = Encoder::open(&EncoderFiles::of(&model)?, most)?;
    let text = "so ".repeat(most);
    encoder.embed(vec![text.as_str(); READ / 8])?;
    let begun = Instant::now();
    encoder.embed(vec![text.as_str(); READ])?;
    Ok(Some((READ * most) as f64 / begun.elapsed().as_secs_f64()))
}
