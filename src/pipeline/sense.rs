//! The scorer of whole texts: a frozen sentence encoder, and weights on its vectors that were learned privately.

use super::Pipeline;
use crate::assets::Registry;
use crate::documents::{self, Lexicon};
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::models::device;
use crate::{Error, Result};

/// What vectors are scaled to, of length 1 before: as long as a record's tokens are to their scorer.
const LENGTH: f32 = 4.0;

/// Judges texts by what they mean.
pub struct Sense {
    encoder: Encoder,
    /// Of each joint label, a weight for each number of a vector, and a bias.
    weights: Vec<Vec<f32>>,
}

/// A frozen encoder.
pub struct Encoder(SentenceEncoder);

impl Encoder {
    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.0.width()
    }

    /// The vectors of texts, as the scorer sees them; `each_batch` hears how many are done.
    ///
    /// # Errors
    /// What `each_batch` says.
    pub fn embed<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut vectors = self.0.embed(texts, each_batch)?;
        vectors.iter_mut().flatten().for_each(|v| *v *= LENGTH);
        Ok(vectors)
    }
}

impl Sense {
    /// The encoder that the configuration names.
    ///
    /// # Errors
    /// Usage: it names none. Other: it cannot be fetched or read.
    pub fn encoder(p: &Pipeline) -> Result<Encoder> {
        let l = &p.config.lexicon;
        let name = l
            .encoder
            .as_deref()
            .ok_or_else(|| Error::usage("`lexicon.encoder` names no encoder"))?;
        let model = Registry::built_in().fetch_model(name, &p.places.assets, p.progress)?;
        let device = device::choose(p.config.device)?;
        let encoder = SentenceEncoder::open(&EncoderFiles::of(&model)?, l.encoder_max_tokens, &device)?;
        Ok(Encoder(encoder))
    }

    /// What the run learned; none where it learned none.
    ///
    /// # Errors
    /// Data: it is damaged. Other: the encoder cannot be fetched or read.
    pub fn of(p: &Pipeline) -> Result<Option<Self>> {
        let lexicon: Option<Lexicon> = documents::read_if_there(&p.folder.lexicon())?;
        let Some(weights) = lexicon.and_then(|lexicon| lexicon.sense) else {
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
    pub fn scores<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f64>>> {
        let vectors = self.encoder.embed(texts, each_batch)?;
        let score = |vector: &Vec<f32>, row: &Vec<f32>| vector.iter().zip(row).map(|(x, w)| f64::from(x * w)).sum();
        let of = |vector: &Vec<f32>| self.weights.iter().map(|row| score(vector, row)).collect();
        Ok(vectors.iter().map(of).collect())
    }
}
