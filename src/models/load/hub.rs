//! Reads the folder of a Hugging Face checkpoint: `config.json`, and the tensors of `model.safetensors` or of the shards that
//! `model.safetensors.index.json` names. One tensor at a time is held in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::shard::Shard;
use crate::models::shape::{Gain, Kind, Shape, Slot, Stored, transposed};
use crate::{Error, Result};

/// An open checkpoint.
pub struct Checkpoint {
    folder: PathBuf,
    config: Value,
    shards: Vec<Shard>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// All tensors in one file.
pub const WHOLE: &str = "model.safetensors";
/// Names the file of each tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// The files of weights in `folder`: the whole, or the shards that an index names.
///
/// # Errors
/// Data: an index that is damaged, or that names a file elsewhere.
pub fn weight_files(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join(INDEX);
    if folder.join(WHOLE).exists() || !index.exists() {
        return Ok(vec![WHOLE.into()]);
    }
    let text = std::fs::read(&index).map_err(|e| Error::io("read", &index, e))?;
    let damaged =
        |what: String| Error::data(format!("{} is damaged: {what}", index.display())).hint("fetch the model again");
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    if names.is_empty() {
        return Err(damaged("it names no file".into()));
    }
    let elsewhere = |name: &&String| Path::new(name).file_name().is_none_or(|own| own != name.as_str());
    if let Some(name) = names.iter().find(elsewhere) {
        return Err(damaged(format!("it names `{name}`, which is no file beside it")));
    }
    match names.iter().find(|name| !folder.join(name).exists()) {
        Some(missing) => Err(
            Error::data(format!("{} lacks `{missing}`, which its index names", folder.display()))
                .hint("fetch all of the model's files"),
        ),
        None => Ok(names.into_iter().collect()),
    }
}

/// `config.json` as it goes into an export: without what says how the base was stored or which tokens have a role, which an
/// export says itself.
pub fn exported(config: &Value) -> Value {
    const OF_THE_FILES: [&str; 9] = [
        "_name_or_path",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "pad_token_id",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
    ];
    let mut out = config.as_object().cloned().unwrap_or_default();
    out.retain(|key, _| !OF_THE_FILES.contains(&key.as_str()));
    Value::Object(out)
}

/// A tensor's name without its first part: `h.0.ln_1.weight` of `transformer.h.0.ln_1.weight`. A name of two parts keeps
/// both: `weight` is anybody's.
fn without_first(name: &str) -> Option<&str> {
    name.split_once('.')
        .map(|(_, rest)| rest)
        .filter(|rest| rest.contains('.'))
}

fn read_config(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::data(format!("{} is damaged: {e}", path.display())).hint("fetch the model again"))
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`.
    ///
    /// # Errors
    /// Data: a file is missing or broken.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = read_config(&folder.join("config.json"))?;
        let shards = weight_files(folder)?
            .into_iter()
            .map(|name| Shard::open(folder.join(name)));
        Ok(Checkpoint {
            config,
            shards: shards.collect::<Result<_>>()?,
            folder: folder.to_path_buf(),
        })
    }

    /// The `config.json` at `path` alone, without weights.
    ///
    /// # Errors
    /// Data: it is missing or broken.
    pub fn declared(path: &Path) -> Result<Self> {
        Ok(Checkpoint {
            config: read_config(path)?,
            shards: Vec::new(),
            folder: path.parent().unwrap_or(Path::new("")).to_path_buf(),
        })
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

    /// Refuses a checkpoint that lacks one of these slots, or has it in another shape. No values are read.
    ///
    /// # Errors
    /// Data: the first of them.
    pub fn require(&self, shape: &Shape) -> Result<()> {
        shape.slots.iter().try_for_each(|slot| self.tensor(slot).map(drop))
    }

    /// Where a slot's tensor is, and its shape as it is stored.
    fn tensor(&self, slot: &Slot) -> Result<(&Shard, &TensorInfo)> {
        // The hub's own files may leave out the first part of each name.
        let short = without_first(&slot.name).unwrap_or_default();
        let held = |name: &'_ str| self.shards.iter().find_map(|shard| Some((shard, shard.tensor(name)?)));
        let found = held(&slot.name).or_else(|| held(short));
        let (shard, tensor) = found.ok_or_else(|| self.wrong(&format!("has no tensor `{}`", slot.name)))?;
        let stored = match (slot.kind, &slot.shape[..]) {
            (Kind::Map(Stored::Conv1d), [out, input]) => vec![*input, *out],
            _ => slot.shape.clone(),
        };
        match tensor.shape == stored {
            true => Ok((shard, tensor)),
            false => Err(self.wrong(&format!(
                "has `{}` of shape {:?}, not {stored:?}",
                slot.name, tensor.shape
            ))),
        }
    }

    /// The values of a slot, as a forward has them.
    ///
    /// # Errors
    /// Data: the tensor is missing, has another shape, or numbers of a type that cannot be read.
    pub fn values(&self, slot: &Slot) -> Result<Vec<f32>> {
        let (shard, tensor) = self.tensor(slot)?;
        let dtype = tensor.dtype;
        let mut values = floats(dtype, &shard.read(tensor)?)
            .ok_or_else(|| self.wrong(&format!("has `{}` as {dtype:?}, which cannot be read", slot.name)))?;
        if slot.kind == Kind::Gain(Gain::LessOne) {
            values.iter_mut().for_each(|gain| *gain += 1.0);
        }
        Ok(match slot.kind {
            Kind::Map(Stored::Conv1d) => transposed(&values, tensor.shape[0], tensor.shape[1]),
            _ => values,
        })
    }

    /// Whether it holds the tensor under this very name.
    pub fn has(&self, name: &str) -> bool {
        self.shards.iter().any(|shard| shard.tensor(name).is_some())
    }

    /// Whether its weights are here.
    pub fn has_weights(&self) -> bool {
        !self.shards.is_empty()
    }

    /// All of `config.json`.
    pub fn json(&self) -> &Value {
        &self.config
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
        let mut names = self.shards.iter().flat_map(Shard::names);
        match names.find(|name| !applied(name) && !ignored(name)) {
            Some(name) => Err(self.wrong(&format!("has a tensor that this program does not apply: {name}"))),
            None => Ok(()),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::data(format!("the checkpoint {} {what}", self.folder.display()))
            .hint("check that its files belong together, and fetch them again")
    }
}

/// A tensor's numbers; none where they are of a type that cannot be read.
pub fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
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
