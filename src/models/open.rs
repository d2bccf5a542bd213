//! The one way in: a model's files, recognised, and the families that they may hold.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

use super::gemma3::Gemma3;
use super::gpt2::Gpt2;
use super::language_model::{Architecture, LanguageModel};
use super::llama::{self, Llama};
use super::load::Held;
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
    held: Box<dyn Fn(usize) -> Result<Held> + 'a>,
}

/// Families by their names in a kind of file, and what is made of it.
type Families<F, T> = (&'static [&'static str], fn(&F) -> Result<T>);

type OfSlot = dyn Fn(&Gguf, usize) -> Result<Held>;

/// A model of a GGUF, and how it gives the numbers of a slot.
struct OfGguf {
    architecture: Arc<dyn Architecture>,
    held: Box<OfSlot>,
}

/// By `general.architecture`.
const OF_GGUF: &[Families<Gguf, OfGguf>] = &[
    (&llama::GGUF_FAMILIES, |gguf| {
        let llama = Arc::new(Llama::from_gguf(gguf)?);
        Ok(OfGguf {
            architecture: llama.clone(),
            held: Box::new(move |gguf, slot| llama.read_gguf(gguf, slot)),
        })
    }),
    (&["gemma3"], |gguf| {
        let gemma = Arc::new(Gemma3::from_gguf(gguf)?);
        Ok(OfGguf {
            architecture: gemma.clone(),
            held: Box::new(move |gguf, slot| gemma.read_gguf(gguf, slot)),
        })
    }),
];

/// By `model_type`: what its `config.json` declares.
const OF_CHECKPOINTS: &[Families<Checkpoint, Arc<dyn Architecture>>] = &[
    (&["gpt2"], |c| Ok(Arc::new(Gpt2::from_checkpoint(c)?))),
    (&["gemma3_text"], |c| Ok(Arc::new(Gemma3::from_checkpoint(c)?))),
    (&llama::FAMILIES, |c| Ok(Arc::new(Llama::from_checkpoint(c)?))),
];

/// A checkpoint whose tensors have the names of the slots, with the first part or without it, and no other tensors but those
/// that compute nothing.
fn under_its_names(checkpoint: &Checkpoint) -> Result<Recognised<'_>> {
    let architecture = family(OF_CHECKPOINTS, checkpoint.model_type()?)?(checkpoint)?;
    checkpoint.require(architecture.shape())?;
    checkpoint.require_no_more_than(architecture.shape(), |name| architecture.ignores(name))?;
    Ok(Recognised {
        architecture: architecture.clone(),
        held: Box::new(move |slot| Ok(Held::Numbers(checkpoint.values(&architecture.shape().slots[slot])?))),
    })
}

/// What the `config.json` at `path` declares; no weight is looked for.
///
/// # Errors
/// Data: it is missing or broken, of another family, or its counts do not fit together.
pub fn declared(path: &Path) -> Result<Arc<dyn Architecture>> {
    let checkpoint = Checkpoint::declared(path)?;
    let architecture = family(OF_CHECKPOINTS, checkpoint.model_type()?)?(&checkpoint)?;
    architecture.shape().check()?;
    Ok(architecture)
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
        let Recognised { architecture, held } = self.recognised()?;
        LanguageModel::new(architecture, held, device)
    }

    /// The same with its linear maps in a few bits a weight: as their file packs them, else in NF4.
    ///
    /// # Errors
    /// As [`ModelFiles::model`].
    pub fn packed_model(&self, device: &Device) -> Result<LanguageModel> {
        let Recognised { architecture, held } = self.recognised()?;
        LanguageModel::packed(architecture, held, device)
    }

    fn recognised(&self) -> Result<Recognised<'_>> {
        match self {
            ModelFiles::Gguf(gguf) => {
                let OfGguf { architecture, held } = family(OF_GGUF, gguf.text("general.architecture")?)?(gguf)?;
                Ok(Recognised {
                    architecture,
                    held: Box::new(move |slot| held(gguf, slot)),
                })
            }
            ModelFiles::Checkpoint(checkpoint) => under_its_names(checkpoint),
        }
    }
}

fn family<F, T>(known: &[Families<F, T>], name: &str) -> Result<fn(&F) -> Result<T>> {
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
