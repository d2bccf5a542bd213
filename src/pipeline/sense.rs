//! The scorer of whole texts: a frozen sentence encoder, and weights on its vectors that were learned privately.

use super::Pipeline;
use crate::config::DeviceChoice;
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::machine::workers::Workers;
use crate::models::device;
use crate::run::lexicon_of;
use crate::{Error, Result, assets};

/// What vectors are scaled to, of length 1 before: as long as a record's tokens are to their scorer.
const LENGTH: f32 = 4.0;

/// Judges texts by what they mean.
pub struct Sense {
    encoder: Encoder,
    /// Of each joint label, a weight for each number of a vector, and a bias.
    weights: Vec<Vec<f32>>,
}

/// A frozen encoder. Each text goes through it by itself, without padding, on a CPU: a record more or less changes no other
/// record's vector (P5).
pub struct Encoder {
    sentences: SentenceEncoder,
    workers: Workers,
}

impl Encoder {
    /// The encoder of `files`, which reads a text's first `max_tokens` word pieces.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub fn open(files: &EncoderFiles, max_tokens: usize) -> Result<Self> {
        let device = device::choose(DeviceChoice::Cpu)?;
        Ok(Encoder {
            sentences: SentenceEncoder::open(files, max_tokens, &device)?,
            workers: Workers::on(&device),
        })
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.sentences.width()
    }

    /// The vectors of texts, as the scorer sees them.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn embed<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let of = |text: &&str| -> Result<Vec<f32>> {
            let mut vectors = self.sentences.embed([*text], &mut |_| Ok(()))?;
            let mut vector = vectors.pop().unwrap_or_default();
            vector.iter_mut().for_each(|v| *v *= LENGTH);
            Ok(vector)
        };
        self.workers.map(&texts, of).into_iter().collect()
    }
}

impl Sense {
    /// The encoder that the configuration names.
    ///
    /// # Errors
    /// Usage: it names none. Other: it cannot be fetched or read.
    pub fn encoder(p: &Pipeline) -> Result<Encoder> {
        let l = &p.config.lexicon;
        let named = l.encoder.as_deref();
        let named = named.ok_or_else(|| Error::usage("`lexicon.encoder` names no encoder"))?;
        let model = assets::sentence_encoder(named, &p.places.assets, p.progress)?;
        Encoder::open(&EncoderFiles::of(&model)?, l.encoder_max_tokens)
    }

    /// What the run learned; none where it learned none.
    ///
    /// # Errors
    /// Data: it is damaged. Other: the encoder cannot be fetched or read.
    pub fn of(p: &Pipeline) -> Result<Option<Self>> {
        let Some(weights) = lexicon_of(&p.folder, &p.config)?.and_then(|lexicon| lexicon.sense) else {
            return Ok(None);
        };
        let encoder = Sense::encoder(p)?;
        if weights.iter().any(|row| row.len() != encoder.width() + 1) {
            return Err(Error::data(format!(
                "{} has weights for another encoder",
                p.folder.lexicon().display()
            ))
            .hint("put it back as it was"));
        }
        Ok(Some(Sense { encoder, weights }))
    }

    /// The log-odds of each label, but for a constant, for each text. How often a label occurs is left out.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn scores<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Vec<f64>>> {
        let vectors = self.encoder.embed(texts)?;
        let score = |vector: &Vec<f32>, row: &Vec<f32>| vector.iter().zip(row).map(|(x, w)| f64::from(x * w)).sum();
        let of = |vector: &Vec<f32>| self.weights.iter().map(|row| score(vector, row)).collect();
        Ok(vectors.iter().map(of).collect())
    }
}
