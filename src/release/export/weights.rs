//! Weights as safetensors in the element type that is asked for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::View;

use super::TORCH;
use crate::files::write_views;
use crate::models::lora::Adapter;
use crate::models::weights::Weights;
use crate::{Error, Result};

/// Element type of weights on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// As they are: nothing is rounded.
    #[default]
    F32,
    /// Half the size, the range of f32, 8 bits of precision.
    Bf16,
    /// Half the size, 11 bits of precision, up to 65,504.
    F16,
}

impl Dtype {
    /// PyTorch's name.
    pub fn torch(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }

    fn safetensors(self) -> safetensors::Dtype {
        match self {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F16 => safetensors::Dtype::F16,
        }
    }

    fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        }
    }

    fn holds(self, value: f32) -> bool {
        match self {
            Dtype::F32 => value.is_finite(),
            Dtype::Bf16 => bf16::from_f32(value).is_finite(),
            Dtype::F16 => f16::from_f32(value).is_finite(),
        }
    }
}

/// Named tensors, all of one type.
#[derive(Debug)]
pub struct Tensors {
    /// In the order of the values.
    names: Vec<(String, Vec<usize>)>,
    values: Vec<f32>,
    dtype: Dtype,
}

impl Tensors {
    /// A model's, under the names of Hugging Face checkpoints; the head is the embedding and not written twice.
    ///
    /// # Errors
    /// Data: a value is not finite in `dtype`.
    pub fn of(weights: &Weights, dtype: Dtype) -> Result<Self> {
        let (mut names, mut values) = (Vec::new(), Vec::with_capacity(weights.values().len()));
        for (slot, own) in weights.by_slot() {
            let (shape, stored) = slot.stored(own);
            names.push((slot.name.clone(), shape));
            values.extend_from_slice(&stored);
        }
        Tensors::new(names, values, dtype)
    }

    /// An adapter's, under PEFT's names, in f32.
    ///
    /// # Errors
    /// Data: a value is not finite.
    pub fn of_adapter(adapter: &Adapter) -> Result<Self> {
        let (mut names, mut values) = (Vec::new(), Vec::with_capacity(adapter.len()));
        for (name, shape, own) in adapter.by_name() {
            names.push((name, shape.to_vec()));
            values.extend(own);
        }
        Tensors::new(names, values, Dtype::F32)
    }

    fn new(names: Vec<(String, Vec<usize>)>, values: Vec<f32>, dtype: Dtype) -> Result<Self> {
        if let Some(value) = values.iter().find(|v| !dtype.holds(**v)) {
            return Err(
                Error::data(format!("a weight is {value}, which {} cannot hold", dtype.torch())).hint(match dtype {
                    Dtype::F32 => "the run's model is broken: train it anew under another name",
                    Dtype::Bf16 | Dtype::F16 => "--dtype f32 holds all that training made",
                }),
            );
        }
        Ok(Tensors { names, values, dtype })
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> u64 {
        (self.values.len() * self.dtype.size()) as u64
    }

    /// Writes `path`; no more than one tensor's bytes are in memory besides the values.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut rest = self.values.as_slice();
        let mut views = Vec::with_capacity(self.names.len());
        for (name, shape) in &self.names {
            let (values, others) = rest.split_at(shape.iter().product());
            rest = others;
            let dtype = self.dtype;
            views.push((name.as_str(), Stored { shape, values, dtype }));
        }
        let (key, value) = TORCH;
        write_views(path, views, HashMap::from([(key.to_string(), value.to_string())]))
    }
}

struct Stored<'a> {
    shape: &'a [usize],
    values: &'a [f32],
    dtype: Dtype,
}

impl View for Stored<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.dtype.safetensors()
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.dtype.bytes(self.values).into()
    }

    fn data_len(&self) -> usize {
        self.values.len() * self.dtype.size()
    }
}
