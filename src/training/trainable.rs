//! What training changes: an adapter beside frozen weights, or the weights themselves.

use std::path::Path;

use burn::tensor::{DType, Tensor};

use crate::Result;
use crate::config::{FinetuneConfig, Method, Precision};
use crate::models::llama::{Llama, LlamaConfig, Map};
use crate::models::lora::Adapter;
use crate::models::weights::Weights;

/// One flat vector, since that is what clipping, noise and the optimizer act on, and what it means to a model.
pub trait Trainable: std::fmt::Debug + Send + Sync {
    /// All values.
    fn values(&self) -> &[f32];

    /// The same, for the optimizer.
    fn values_mut(&mut self) -> &mut [f32];

    /// On the device of `base`, ready for the passes of one step.
    fn place(&self, base: &Llama, precision: Precision) -> Placed;

    /// `base` with these values in it, for sampling.
    fn merged(&self, base: &Llama) -> Llama;

    /// Writes safetensors.
    fn save(&self, path: &Path) -> Result<()>;
}

/// A model as the passes of one step see it.
pub struct Placed {
    /// The weights of the forward; none is tracked.
    pub model: Llama,
    pub trains: Trains,
    pub precision: Precision,
}

/// Which gradients are wanted.
pub enum Trains {
    /// Of LoRA's factors, in order of layers and [`Map::ALL`].
    Factors {
        /// A `[in, rank]` and B `[rank, out]`.
        factors: Vec<(Tensor<2>, Tensor<2>)>,
        /// alpha / rank.
        scale: f64,
        /// Whether the weights hold the factors' product already: then the forward is the plain model's.
        merged: bool,
    },
    /// Of all weights.
    Weights,
}

/// How many values `config` trains in a model of this shape.
pub fn count(config: &FinetuneConfig, shape: &LlamaConfig) -> usize {
    match config.method {
        Method::Lora => {
            let maps: usize = Map::ALL.iter().flat_map(|m| shape.shape(*m)).sum();
            config.rank * shape.layers * maps
        }
        Method::Full => shape.parameters(),
    }
}

/// The public initial values of what `config` trains.
pub fn initial(config: &FinetuneConfig, base: &Llama) -> Box<dyn Trainable> {
    match config.method {
        Method::Lora => Box::new(Adapter::new(base.config(), config.rank, config.alpha, 0)),
        Method::Full => Box::new(Weights::of(base)),
    }
}

/// What [`Trainable::save`] wrote.
///
/// # Errors
/// Data: the file is broken, or another model's.
pub fn load(config: &FinetuneConfig, base: &Llama, path: &Path) -> Result<Box<dyn Trainable>> {
    Ok(match config.method {
        Method::Lora => Box::new(Adapter::load(path, base.config(), config.rank, config.alpha)?),
        Method::Full => Box::new(Weights::load(path, base)?),
    })
}

impl Trainable for Adapter {
    fn values(&self) -> &[f32] {
        self.values()
    }

    fn values_mut(&mut self) -> &mut [f32] {
        self.values_mut()
    }

    fn place(&self, base: &Llama, precision: Precision) -> Placed {
        // In bf16 a merged weight would round the adapter away.
        let merged = precision == Precision::F32;
        let model = match merged {
            true => Trainable::merged(self, base),
            false => base.maps_in(dtype(precision)),
        };
        Placed {
            model,
            trains: Trains::Factors {
                factors: self.tensors(&base.device()),
                scale: self.scale(),
                merged,
            },
            precision,
        }
    }

    fn merged(&self, base: &Llama) -> Llama {
        let device = base.device();
        base.merged(|layer: usize, map: Map| self.delta(layer, map, &device))
    }

    fn save(&self, path: &Path) -> Result<()> {
        self.save(path)
    }
}

impl Trainable for Weights {
    fn values(&self) -> &[f32] {
        self.values()
    }

    fn values_mut(&mut self) -> &mut [f32] {
        self.values_mut()
    }

    fn place(&self, base: &Llama, precision: Precision) -> Placed {
        Placed {
            model: self.merged(base).maps_in(dtype(precision)),
            trains: Trains::Weights,
            precision,
        }
    }

    fn merged(&self, base: &Llama) -> Llama {
        base.with_values(self.values())
    }

    fn save(&self, path: &Path) -> Result<()> {
        self.save(path)
    }
}

/// Element type of the maps' products.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}
