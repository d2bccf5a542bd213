//! Texts as points: a pretrained encoder as it came, mean pooling, length 1.

use burn::tensor::Device;

use super::encoder::{EncoderFiles, TextEncoder, vectors};
use crate::Result;
use crate::machine::workers::Workers;
use crate::models::bert::{Bert, BertConfig, TokenBatch};

/// A frozen sentence encoder (Reimers and Gurevych 2019): the mean of the last hidden states, scaled to length 1, as
/// all-MiniLM-L6-v2 is meant to be used. It has learned from no record of a run.
pub struct SentenceEncoder {
    text: TextEncoder,
    bert: Bert,
    width: usize,
    device: Device,
}

impl SentenceEncoder {
    /// Reads an encoder; texts are cut to `max_tokens` word pieces, special ones included. `device` is a plain one.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub fn open(files: &EncoderFiles, max_tokens: usize, device: &Device) -> Result<Self> {
        let sizes = BertConfig::read(&files.config)?;
        Ok(SentenceEncoder {
            text: TextEncoder::open(&files.tokenizer, &sizes, max_tokens)?,
            bert: Bert::load(&sizes, &files.weights, device)?,
            width: sizes.hidden_size,
            device: device.clone(),
        })
    }

    /// Numbers of a text's vector: 384 of all-MiniLM-L6-v2.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vector of each text, [`width`](Self::width) numbers of length 1 together; an empty text has one too.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, and whatever `each_batch` returns; it hears the number of texts done.
    pub fn embed<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let rows = self.text.encode(texts)?;
        let pooled = |tokens: &TokenBatch| tokens.mean(self.bert.forward(tokens));
        // The caller's threads: who embeds text by text has workers of its own.
        let mut all = vectors(&rows, &self.device, &Workers::with(1), pooled, each_batch)?;
        all.iter_mut().for_each(|v| scale_to_length_1(v));
        Ok(all)
    }
}

fn scale_to_length_1(vector: &mut [f32]) {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v /= length);
    }
}
