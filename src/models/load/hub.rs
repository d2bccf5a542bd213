//! Reads the folder of a Hugging Face checkpoint: `config.json` and `model.safetensors`.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::models::shape::{Kind, Shape, Slot, Stored, transposed};
use crate::{Error, Result};

/// An open checkpoint, held in memory.
pub struct Checkpoint {
    folder: PathBuf,
    config: Value,
    weights: Vec<u8>,
}

/// A tensor's name without its first part: `h.0.ln_1.weight` of `transformer.h.0.ln_1.weight`. A name of two parts keeps
/// both: `weight` is anybody's.
fn without_first(name: &str) -> Option<&str> {
    name.split_once('.')
        .map(|(_, rest)| rest)
        .filter(|rest| rest.contains('.'))
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`.
    ///
    /// # Errors
    /// Data: a file is missing or broken.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|e| Error::io("read", &path, e))
        };
        let out = Checkpoint {
            config: serde_json::from_slice(&read("config.json")?).map_err(|e| {
                Error::data(format!("{} is damaged: {e}", folder.join("config.json").display()))
                    .hint("fetch the model again")
            })?,
            weights: read("model.safetensors")?,
            folder: folder.to_path_buf(),
        };
        out.tensors()?;
        Ok(out)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The family's name.
    ///
    /// # Errors
    /// Data: `config.json` names none.
    pub fn model_type(&self) -> Result<&str> {
        let named = self.config["model_type"].as_str();
        named.ok_or_else(|| self.wrong("names no `model_type` in its config.json"))
    }

    /// `config.json`, as a family reads it.
    ///
    /// # Errors
    /// Data: a key is missing, or of another type.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.config.clone()).map_err(|e| self.wrong(&format!("has another config.json: {e}")))
    }

    /// The values of a slot, as a forward has them.
    ///
    /// # Errors
    /// Data: the tensor is missing, has another shape, or numbers of a type that cannot be read.
    pub fn values(&self, slot: &Slot) -> Result<Vec<f32>> {
        let tensors = self.tensors()?;
        // The hub's own files may leave out the first part of each name.
        let short = without_first(&slot.name).unwrap_or_default();
        let view = tensors.tensor(&slot.name).or_else(|_| tensors.tensor(short));
        let view = view.map_err(|_| self.wrong(&format!("has no tensor `{}`", slot.name)))?;
        let (stored, turned) = match (slot.kind, &slot.shape[..]) {
            (Kind::Map(Stored::Conv1d), [out, input]) => (vec![*input, *out], true),
            _ => (slot.shape.clone(), false),
        };
        if view.shape() != stored {
            let found = view.shape();
            return Err(self.wrong(&format!("has `{}` of shape {found:?}, not {stored:?}", slot.name)));
        }
        let dtype = view.dtype();
        let values = floats(&view)
            .ok_or_else(|| self.wrong(&format!("has `{}` as {dtype:?}, which cannot be read", slot.name)))?;
        Ok(match turned {
            true => transposed(&values, stored[0], stored[1]),
            false => values,
        })
    }

    /// Refuses a tensor that is none of the model's slots, with or without `prefix`, and not `ignored` either.
    ///
    /// # Errors
    /// Data: there is one.
    pub fn require_no_more_than(&self, shape: &Shape, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let applied = |name: &str| {
            let known = |own: &str| own == name || without_first(own) == Some(name);
            shape.slots.iter().any(|slot| known(&slot.name))
        };
        match self
            .tensors()?
            .names()
            .into_iter()
            .find(|name| !applied(name) && !ignored(name))
        {
            Some(name) => Err(self.wrong(&format!("has a tensor that this program does not apply: {name}"))),
            None => Ok(()),
        }
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.weights)
            .map_err(|e| self.wrong(&format!("has a model.safetensors that is none: {e}")))
    }

    fn wrong(&self, what: &str) -> Error {
        Error::data(format!("the checkpoint {} {what}", self.folder.display()))
            .hint("check that config.json and model.safetensors belong together, and fetch them again")
    }
}

/// A tensor's numbers; none where they are of a type that cannot be read.
pub fn floats(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => (data.as_chunks().0.iter())
            .map(|b| f16::from_le_bytes(*b).to_f32())
            .collect(),
        Dtype::BF16 => (data.as_chunks().0.iter())
            .map(|b| bf16::from_le_bytes(*b).to_f32())
            .collect(),
        _ => return None,
    })
}
