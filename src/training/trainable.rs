//! What training changes: an adapter beside frozen weights, or the weights themselves.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device};

use crate::Result;
use crate::config::{FinetuneConfig, Method, Precision};
use crate::models::ia3::{self, Scales};
use crate::models::lora::{self, Adapter};
use crate::models::lora_fa::SecondFactors;
use crate::models::shape::Shape;
use crate::models::soft_prompt::SoftPrompt;
use crate::models::vectors::Vectors;
use crate::models::weights::Weights;
use crate::models::{LanguageModel, ModelFiles};

/// One flat vector, since that is what clipping, noise and the optimizer act on, and what it means to a model.
pub trait Trainable: std::fmt::Debug + Send + Sync {
    /// All values.
    fn values(&self) -> &[f32];

    /// The same, for the optimizer.
    fn values_mut(&mut self) -> &mut [f32];

    /// A copy.
    fn boxed(&self) -> Box<dyn Trainable>;

    /// A copy with other values.
    fn with(&self, values: &[f32]) -> Box<dyn Trainable> {
        let mut other = self.boxed();
        other.values_mut().copy_from_slice(values);
        other
    }

    /// On the device of `base`, ready for the passes of one step.
    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed;

    /// `base` with these values in it, for sampling.
    fn merged(&self, base: &LanguageModel) -> LanguageModel;

    /// Writes safetensors.
    fn save(&self, path: &Path) -> Result<()>;
}

/// A model as the passes of one step see it.
pub struct Placed {
    /// The weights of the forward; none is tracked.
    pub model: LanguageModel,
    pub trains: Trains,
    pub precision: Precision,
}

/// Which gradients are wanted.
pub enum Trains {
    /// Of LoRA's factors.
    Factors {
        /// By the slot of their map.
        factors: BTreeMap<usize, lora::Placed>,
        /// Whether the weights hold the factors' product already: then the forward is the plain model's.
        merged: bool,
        /// Whether the first of each pair stays as it is.
        second_alone: bool,
    },
    /// Of gains and of what is added.
    Vectors,
    /// Of what activations are multiplied by, which the weights do not hold.
    Scales(ia3::Placed),
    /// Of what is added to the embeddings of a row's first tokens.
    Beginning {
        /// How many.
        tokens: usize,
    },
    /// Of all weights.
    Weights,
}

/// How many values `config` trains in a model of this shape.
pub fn count(config: &FinetuneConfig, shape: &Shape) -> usize {
    match config.method {
        Method::Lora | Method::Qlora => config.rank * shape.over_maps(|input, output| input + output),
        Method::LoraFa => SecondFactors::count(shape, config.rank),
        Method::Bitfit => Vectors::count(shape),
        Method::Ia3 => Scales::count(shape),
        Method::SoftPrompt => SoftPrompt::count(shape, config.soft_tokens()),
        Method::Full => shape.parameters(),
    }
}

/// The model in `files` as `config` trains it or beside it.
///
/// # Errors
/// As [`ModelFiles::model`].
pub fn base(config: &FinetuneConfig, files: &ModelFiles, device: &Device) -> Result<LanguageModel> {
    match config.method {
        Method::Qlora => files.packed_model(device),
        Method::Lora | Method::LoraFa | Method::Bitfit | Method::Ia3 | Method::SoftPrompt | Method::Full => {
            files.model(device)
        }
    }
}

/// The public initial values of what `config` trains.
pub fn initial(config: &FinetuneConfig, base: &LanguageModel) -> Box<dyn Trainable> {
    let adapter = || Adapter::new(base.shape(), config.rank, config.alpha, 0);
    match config.method {
        Method::Lora | Method::Qlora => Box::new(adapter()),
        Method::LoraFa => Box::new(SecondFactors::of(adapter())),
        Method::Bitfit => Box::new(Vectors::of(base)),
        Method::Ia3 => Box::new(Scales::of(base)),
        Method::SoftPrompt => Box::new(SoftPrompt::new(base.shape(), config.soft_tokens())),
        Method::Full => Box::new(Weights::of(base)),
    }
}

/// The values that private training begins with; `path` holds those of a warm start that was made.
///
/// # Errors
/// Data: a warm start is configured and its file is missing or broken.
pub fn begun(config: &FinetuneConfig, model: &LanguageModel, path: &Path) -> Result<Box<dyn Trainable>> {
    match config.warm_start.records {
        0 => Ok(initial(config, model)),
        _ => load(config, model, path),
    }
}

/// What [`Trainable::save`] wrote.
///
/// # Errors
/// Data: the file is broken, or another model's.
pub fn load(config: &FinetuneConfig, base: &LanguageModel, path: &Path) -> Result<Box<dyn Trainable>> {
    let adapter = || Adapter::load(path, base.shape(), config.rank, config.alpha);
    Ok(match config.method {
        Method::Lora | Method::Qlora => Box::new(adapter()?),
        Method::LoraFa => Box::new(SecondFactors::of(adapter()?)),
        Method::Bitfit => Box::new(Vectors::load(path, base)?),
        Method::Ia3 => Box::new(Scales::load(path, base)?),
        Method::SoftPrompt => Box::new(SoftPrompt::load(path, base.shape(), config.soft_tokens())?),
        Method::Full => Box::new(Weights::load(path, base)?),
    })
}

/// What each set has under the same name.
macro_rules! of_its_own {
    () => {
        fn values(&self) -> &[f32] {
            self.values()
        }

        fn values_mut(&mut self) -> &mut [f32] {
            self.values_mut()
        }

        fn boxed(&self) -> Box<dyn Trainable> {
            Box::new(self.clone())
        }

        fn save(&self, path: &Path) -> Result<()> {
            self.save(path)
        }
    };
}

impl Trainable for Adapter {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        // In bf16 a merged weight would round the adapter away; packed ones have no room for it.
        let merged = precision == Precision::F32 && !base.is_packed();
        let model = match merged {
            true => Trainable::merged(self, base),
            false => base.maps_in(dtype(precision)),
        };
        Placed {
            model,
            trains: Trains::Factors {
                factors: self.placed(&base.device()),
                merged,
                second_alone: false,
            },
            precision,
        }
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        let device = base.device();
        base.merged(|slot| self.delta(slot, &device))
    }
}

impl Trainable for SecondFactors {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        let mut placed = self.adapter().place(base, precision);
        if let Trains::Factors { second_alone, .. } = &mut placed.trains {
            *second_alone = true;
        }
        placed
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        Trainable::merged(&self.adapter(), base)
    }
}

impl Trainable for Vectors {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        Placed {
            model: in_precision(self.merged(base), precision),
            trains: Trains::Vectors,
            precision,
        }
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        self.merged(base)
    }
}

impl Trainable for Scales {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        Placed {
            model: in_precision(base.clone(), precision),
            trains: Trains::Scales(self.placed(&base.device())),
            precision,
        }
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        self.merged(base)
    }
}

impl Trainable for SoftPrompt {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        Placed {
            model: in_precision(self.merged(base), precision),
            trains: Trains::Beginning { tokens: self.tokens() },
            precision,
        }
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        self.merged(base)
    }
}

impl Trainable for Weights {
    of_its_own!();

    fn place(&self, base: &LanguageModel, precision: Precision) -> Placed {
        Placed {
            model: self.merged(base).maps_in(dtype(precision)),
            trains: Trains::Weights,
            precision,
        }
    }

    fn merged(&self, base: &LanguageModel) -> LanguageModel {
        base.with_values(self.values())
    }
}

fn in_precision(model: LanguageModel, precision: Precision) -> LanguageModel {
    match precision {
        Precision::F32 => model,
        Precision::Bf16 => model.maps_in(dtype(precision)),
    }
}

/// Element type of the maps' products.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}
