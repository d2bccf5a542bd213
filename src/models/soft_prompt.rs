//! Prompt tuning (Lester et al. 2021, arXiv 2104.08691): vectors at the beginning of every prompt, and nothing else. They begin as
//! the prompt's own first tokens, and what is trained is what is added to those: a prompt keeps its length and its words.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};

use super::shape::{Kind, Shape, Slot};
use super::{LanguageModel, weights};
use crate::Result;

/// What is added to the embeddings of a row's first tokens: `tokens` times the model's width.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftPrompt {
    slot: Slot,
    values: Vec<f32>,
}

impl SoftPrompt {
    /// For the first `tokens` tokens of a row, changing nothing yet.
    pub fn new(shape: &Shape, tokens: usize) -> Self {
        SoftPrompt {
            slot: slot(shape, tokens),
            values: vec![0.0; SoftPrompt::count(shape, tokens)],
        }
    }

    /// How many values there are.
    pub fn count(shape: &Shape, tokens: usize) -> usize {
        tokens * shape.width
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// How many tokens it is added to.
    pub fn tokens(&self) -> usize {
        self.slot.shape[0]
    }

    /// `base` with it at the beginning of every row.
    pub fn merged(&self, base: &LanguageModel) -> LanguageModel {
        let [tokens, width] = [self.slot.shape[0], self.slot.shape[1]];
        let values = TensorData::new(self.values.clone(), [tokens, width]);
        base.beginning_with(Tensor::from_data(values, &base.device()))
    }

    /// Writes safetensors.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::write(path, std::iter::once((&self.slot, self.values.as_slice())))
    }

    /// Reads what [`SoftPrompt::save`] wrote, for a model of `shape`.
    ///
    /// # Errors
    /// Data: the file is broken, or another model's.
    pub fn load(path: &Path, shape: &Shape, tokens: usize) -> Result<Self> {
        let slot = slot(shape, tokens);
        let values = weights::read(path, std::iter::once(&slot), "soft prompt")?;
        Ok(SoftPrompt { slot, values })
    }
}

fn slot(shape: &Shape, tokens: usize) -> Slot {
    Slot::new("soft_prompt", Kind::Positions, vec![tokens, shape.width])
}
