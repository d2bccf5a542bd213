//! All weights of a model in one flat vector: what full fine-tuning trains.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::LanguageModel;
use super::shape::Slot;
use crate::files::{Values, write_tensors};
use crate::{Error, Result};

/// A model's weights on the host, in the order of [`Shape::slots`](super::shape::Shape::slots).
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    slots: Vec<Slot>,
    values: Vec<f32>,
}

impl Weights {
    /// The weights of `model`.
    pub fn of(model: &LanguageModel) -> Self {
        Weights {
            slots: model.shape().slots.clone(),
            values: model.values(),
        }
    }

    /// What each weight is, in the order of the values.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Each weight's values.
    pub fn by_slot(&self) -> impl Iterator<Item = (&Slot, &[f32])> {
        let mut rest = self.values.as_slice();
        self.slots.iter().map(move |slot| {
            let (own, others) = rest.split_at(slot.len());
            rest = others;
            (slot, own)
        })
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Writes safetensors with the names of Hugging Face checkpoints.
    pub fn save(&self, path: &Path) -> Result<()> {
        write(path, self.by_slot())
    }

    /// Reads what [`Weights::save`] wrote, for a model of the shape of `base`.
    ///
    /// # Errors
    /// Data: the file is broken, or another model's.
    pub fn load(path: &Path, base: &LanguageModel) -> Result<Self> {
        let slots = base.shape().slots.clone();
        let values = read(path, slots.iter(), "weights")?;
        Ok(Weights { slots, values })
    }
}

/// Writes the values of slots as safetensors with the names of Hugging Face checkpoints.
pub(super) fn write<'a>(path: &Path, slots: impl Iterator<Item = (&'a Slot, &'a [f32])>) -> Result<()> {
    let tensors = slots.map(|(slot, values)| Values {
        name: &slot.name,
        shape: slot.shape.clone(),
        values: values.into(),
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(path, tensors.collect(), metadata)
}

/// Reads the values of `slots`, one after the other, from what [`write`] wrote; `what` they are of a model, for a person.
///
/// # Errors
/// Data: the file is broken, or another model's.
pub(super) fn read<'a>(path: &Path, slots: impl Iterator<Item = &'a Slot> + Clone, what: &str) -> Result<Vec<f32>> {
    let file = std::fs::read(path).map_err(|e| Error::io(&format!("read the {what}"), path, e))?;
    let broken = |why: String| {
        Error::data(format!("{} does not hold the model's {what}: {why}", path.display()))
            .hint("delete it and run the same command again: it is rebuilt from the checkpoint")
    };
    let tensors = SafeTensors::deserialize(&file).map_err(|e| broken(e.to_string()))?;
    let mut values = Vec::with_capacity(slots.clone().map(Slot::len).sum());
    for Slot { name, shape, .. } in slots {
        let view = tensors.tensor(name).map_err(|e| broken(format!("{name}: {e}")))?;
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            return Err(broken(format!("{name} has shape {:?}, not {shape:?}", view.shape())));
        }
        let floats = view.data().chunks_exact(4);
        values.extend(floats.map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four"))));
    }
    Ok(values)
}
