//! The one way in: a model's files, recognised, and the families that they may hold.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use super::gemma3::Gemma3;
use super::gpt2::Gpt2;
use super::language_model::{Architecture, LanguageModel};
use super::llama::{self, Llama};
use super::load::gguf::Gguf;
use super::load::hub::Checkpoint;
use super::shape::Shape;
use crate::{Error, Result};

/// A model's files: what it is can be asked before its weights are read.
pub enum ModelFiles {
    /// One file of llama.cpp.
    Gguf(Gguf),
    /// The folder of a Hugging Face checkpoint.
    Checkpoint(Checkpoint),
}

/// A model that was recognised, and how its files give the values of each slot.
struct Recognised<'a> {
    architecture: Arc<dyn Architecture>,
    values: Box<dyn Fn(usize) -> Result<Vec<f32>> + 'a>,
}

/// Families by their names in a kind of file.
type Families<F> = (&'static [&'static str], for<'a> fn(&'a F) -> Result<Recognised<'a>>);

/// By `general.architecture`.
const OF_GGUF: &[Families<Gguf>] = &[
    (&llama::GGUF_FAMILIES, |gguf| {
        let llama = Arc::new(Llama::from_gguf(gguf)?);
        Ok(Recognised {
            architecture: llama.clone(),
            values: Box::new(move |slot| llama.read_gguf(gguf, slot)),
        })
    }),
    (&["gemma3"], |gguf| {
        let gemma = Arc::new(Gemma3::from_gguf(gguf)?);
        Ok(Recognised {
            architecture: gemma.clone(),
            values: Box::new(move |slot| gemma.read_gguf(gguf, slot)),
        })
    }),
];

/// By `model_type`.
const OF_CHECKPOINTS: &[Families<Checkpoint>] = &[
    (&["gpt2"], |c| {
        under_its_names(c, Gpt2::from_checkpoint(c)?, Gpt2::is_ignored)
    }),
    (&["gemma3_text"], |c| {
        under_its_names(c, Gemma3::from_checkpoint(c)?, Gemma3::is_ignored)
    }),
    (&llama::FAMILIES, |c| {
        under_its_names(c, Llama::from_checkpoint(c)?, Llama::is_ignored)
    }),
];

/// A checkpoint whose tensors have the names of the slots, with the first part or without it, and no other tensors but those
/// that `ignored` says compute nothing.
fn under_its_names<A: Architecture + 'static>(
    checkpoint: &Checkpoint,
    architecture: A,
    ignored: fn(&A, &str) -> bool,
) -> Result<Recognised<'_>> {
    checkpoint.require(architecture.shape())?;
    checkpoint.require_no_more_than(architecture.shape(), |name| ignored(&architecture, name))?;
    let architecture = Arc::new(architecture);
    Ok(Recognised {
        architecture: architecture.clone(),
        values: Box::new(move |slot| checkpoint.values(&architecture.shape().slots[slot])),
    })
}

impl ModelFiles {
    /// Opens a GGUF, or the folder of a checkpoint.
    ///
    /// # Errors
    /// Data: a file is missing or broken.
    pub fn open(path: &Path) -> Result<Self> {
        match path.is_dir() {
            true => Ok(ModelFiles::Checkpoint(Checkpoint::open(path)?)),
            false => Ok(ModelFiles::Gguf(Gguf::open(path)?)),
        }
    }

    /// What the model declares.
    ///
    /// # Errors
    /// Data: another family, or counts that do not fit together.
    pub fn shape(&self) -> Result<Shape> {
        let shape = self.recognised()?.architecture.shape().clone();
        shape.check()?;
        Ok(shape)
    }

    /// The model, its weights on `device`.
    ///
    /// # Errors
    /// As [`ModelFiles::shape`]; a tensor that is missing or does not fit.
    pub fn model(&self, device: &Device) -> Result<LanguageModel> {
        let Recognised { architecture, values } = self.recognised()?;
        LanguageModel::new(architecture, values, device)
    }

    fn recognised(&self) -> Result<Recognised<'_>> {
        match self {
            ModelFiles::Gguf(gguf) => family(OF_GGUF, gguf.text("general.architecture")?)?(gguf),
            ModelFiles::Checkpoint(checkpoint) => family(OF_CHECKPOINTS, checkpoint.model_type()?)?(checkpoint),
        }
    }
}

fn family<F>(known: &[Families<F>], name: &str) -> Result<for<'a> fn(&'a F) -> Result<Recognised<'a>>> {
    let names: Vec<&str> = known.iter().flat_map(|(names, _)| *names).copied().collect();
    known
        .iter()
        .find(|(own, _)| own.contains(&name))
        .map(|(_, open)| *open)
        .ok_or_else(|| {
            Error::data(format!(
                "the model's architecture is `{name}`, not `{}`",
                names.join("` or `")
            ))
            .hint("docs/guide/models.md says which models can be read; SmolLM2-135M-Instruct is one")
        })
}

impl LanguageModel {
    /// The model of a file: a GGUF, or the folder of a Hugging Face checkpoint.
    ///
    /// # Errors
    /// Data: an architecture that is not known, a missing tensor, one that does not fit or would be ignored.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        ModelFiles::open(path)?.model(device)
    }
}
