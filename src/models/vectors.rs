//! A model's vectors: what its norms multiply by, and what is added after maps and norms. All of them are a thousandth of a model,
//! and that is how little of the noise they get (BitFit: Ben Zaken et al. 2022; Bu et al. 2022, arXiv 2210.00036).

use std::collections::BTreeMap;
use std::path::Path;

use super::shape::{Shape, Slot};
use super::{LanguageModel, weights};
use crate::Result;

/// The vectors of a model, one after the other, in the order of [`Shape::slots`].
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    slots: Vec<(usize, Slot)>,
    values: Vec<f32>,
}

impl Vectors {
    /// Those of `model`.
    pub fn of(model: &LanguageModel) -> Self {
        let slots: Vec<(usize, Slot)> = model.shape().vectors().map(|(i, slot)| (i, slot.clone())).collect();
        let values = slots.iter().flat_map(|(i, _)| model.vector_values(*i)).collect();
        Vectors { slots, values }
    }

    /// How many values there are.
    pub fn count(shape: &Shape) -> usize {
        shape.vectors().map(|(_, slot)| slot.len()).sum()
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// `base` with these vectors.
    pub fn merged(&self, base: &LanguageModel) -> LanguageModel {
        let by_slot: BTreeMap<usize, &[f32]> = self.by_slot().map(|(slot, _, values)| (slot, values)).collect();
        base.with_vectors(&by_slot)
    }

    fn by_slot(&self) -> impl Iterator<Item = (usize, &Slot, &[f32])> {
        let mut rest = self.values.as_slice();
        self.slots.iter().map(move |(i, slot)| {
            let (own, others) = rest.split_at(slot.len());
            rest = others;
            (*i, slot, own)
        })
    }

    /// Writes safetensors with the names of Hugging Face checkpoints.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::write(path, self.by_slot().map(|(_, slot, values)| (slot, values)))
    }

    /// Reads what [`Vectors::save`] wrote, for a model like `base`.
    ///
    /// # Errors
    /// Data: the file is broken, or another model's.
    pub fn load(path: &Path, base: &LanguageModel) -> Result<Self> {
        let slots: Vec<(usize, Slot)> = base.shape().vectors().map(|(i, slot)| (i, slot.clone())).collect();
        let values = weights::read(path, slots.iter().map(|(_, slot)| slot), "vectors")?;
        Ok(Vectors { slots, values })
    }
}
