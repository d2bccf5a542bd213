//! A model's vectors: what its norms multiply by, and what is added after maps and norms. All of them are a thousandth of a model,
//! and that is how little of the noise they get (BitFit: Ben Zaken et al. 2022; Bu et al. 2022, arXiv 2210.00036).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::LanguageModel;
use super::shape::{Shape, Slot};
use crate::files::{Values, write_tensors};
use crate::{Error, Result};

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
        let tensors = self.by_slot().map(|(_, slot, values)| Values {
            name: &slot.name,
            shape: slot.shape.clone(),
            values: values.into(),
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        write_tensors(path, tensors.collect(), metadata)
    }

    /// Reads what [`Vectors::save`] wrote, for a model like `base`.
    ///
    /// # Errors
    /// Data: the file is broken, or another model's.
    pub fn load(path: &Path, base: &LanguageModel) -> Result<Self> {
        let file = std::fs::read(path).map_err(|e| Error::io("read the vectors", path, e))?;
        let broken = |what: String| {
            Error::data(format!("{} does not hold the model's vectors: {what}", path.display()))
                .hint("delete it and run the same command again: it is rebuilt from the checkpoint")
        };
        let tensors = SafeTensors::deserialize(&file).map_err(|e| broken(e.to_string()))?;
        let slots: Vec<(usize, Slot)> = base.shape().vectors().map(|(i, slot)| (i, slot.clone())).collect();
        let mut values = Vec::with_capacity(Vectors::count(base.shape()));
        for (_, Slot { name, shape, .. }) in &slots {
            let view = tensors.tensor(name).map_err(|e| broken(format!("{name}: {e}")))?;
            if view.shape() != shape || view.dtype() != Dtype::F32 {
                return Err(broken(format!("{name} has shape {:?}, not {shape:?}", view.shape())));
            }
            let floats = view.data().chunks_exact(4);
            values.extend(floats.map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four"))));
        }
        Ok(Vectors { slots, values })
    }
}
