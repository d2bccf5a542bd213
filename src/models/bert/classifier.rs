//! An encoder that tells labels, and which of its weights are trained: all of them, or few beside frozen ones.
//!
//! What is trained is one flat vector, since that is what clipping, noise and the optimizer act on.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bert, BertConfig, Gates, Linear, Lora, ModelType, Prefix, TokenBatch};
use crate::Result;

/// Half the width of a fresh weight's range: a standard deviation of 0.02, as transformers begins heads.
const FRESH: f32 = 0.034_641;

/// Which weights are trained. The head is in any case: it begins from nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trained {
    /// Factors of low rank beside every linear map of the encoder (Hu et al. 2021).
    Lora { rank: usize, alpha: f64 },
    /// The same, but the first factor of each pair stays as it was drawn (LoRA-FA; Zhang et al. 2023, arXiv 2308.03303): half of
    /// the noise, and a loss that is linear in what is trained of a map.
    LoraFa { rank: usize, alpha: f64 },
    /// What keys, values and inner activations are multiplied by ((IA)³; Liu et al. 2022, arXiv 2205.05638).
    Ia3,
    /// All weights.
    Full,
    /// What is added after maps and norms (Bu et al. 2022; Ben Zaken et al. 2022).
    BitFit,
    /// The head alone.
    LastLayer,
    /// So many keys and values before those of the text, in each of these layers (Li and Liang 2021).
    Prefix { tokens: usize, layers: Layers },
}

/// Layers of an encoder, of the first 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers(u64);

impl Layers {
    /// Each that there is.
    pub const ALL: Layers = Layers(u64::MAX);

    /// Those of these numbers, from 0.
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        Layers(numbers.into_iter().fold(0, |all, layer| all | bit(layer)))
    }

    /// All but one.
    pub const fn without(self, layer: usize) -> Self {
        Layers(self.0 & !bit(layer))
    }

    /// Whether it is one of them.
    pub fn have(self, layer: usize) -> bool {
        self.0 & bit(layer) != 0
    }
}

const fn bit(layer: usize) -> u64 {
    match layer {
        0..64 => 1 << layer,
        _ => 0,
    }
}

impl Trained {
    /// Whether the weight at `path`, such as `bert.layers.0.query.bias`, is trained.
    fn takes(self, path: &[String]) -> bool {
        let has = |name: &str| path.iter().any(|part| part == name);
        let last = path.last().map(String::as_str);
        has("head")
            || match self {
                Trained::Lora { .. } => has("lora"),
                Trained::LoraFa { .. } => has("lora") && last == Some("b"),
                Trained::Ia3 => has("gates"),
                Trained::Full => true,
                Trained::BitFit => matches!(last, Some("bias" | "beta")),
                Trained::LastLayer => false,
                Trained::Prefix { .. } => has("prefix"),
            }
    }
}

/// Which of a text's states the head sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pooling {
    /// The first token's, as the heads of RoBERTa and DistilBERT do in transformers.
    #[default]
    First,
    /// The mean of all, as sentence encoders are made for.
    Mean,
}

/// A dense layer and the labels' scores.
#[derive(Module, Debug)]
struct Head {
    dense: Linear,
    out: Linear,
    #[module(skip)]
    pooling: Pooling,
}

/// An encoder with a head.
#[derive(Module, Debug)]
pub struct Classifier {
    bert: Bert,
    head: Head,
    /// Which weights are trained.
    #[module(skip)]
    trained: Vec<ParamId>,
}

impl Classifier {
    /// The encoder in `weights` with a fresh head for `labels`, and what `trained` adds to it. What is fresh is public: the
    /// same numbers each time.
    ///
    /// # Errors
    /// As [`Bert::load`].
    pub fn new(config: &BertConfig, weights: &Path, labels: usize, trained: Trained, device: &Device) -> Result<Self> {
        let mut bert = Bert::load(config, weights, device)?;
        let mut fresh = Fresh {
            rng: ChaCha8Rng::seed_from_u64(0),
            device,
        };
        let width = config.hidden_size;
        for (number, layer) in bert.layers.iter_mut().enumerate() {
            match trained {
                Trained::Lora { rank, alpha } | Trained::LoraFa { rank, alpha } => {
                    layer.maps().into_iter().for_each(|map| {
                        let [input, output] = map.weight.dims();
                        let lora = Lora {
                            a: fresh.uniform([input, rank], 1.0 / (input as f32).sqrt()),
                            b: fresh.uniform([rank, output], 0.0),
                            scale: alpha / rank as f64,
                        };
                        map.lora = Some(lora);
                    })
                }
                Trained::Prefix { tokens, layers } => {
                    // Drawn for each: what one layer begins with does not depend on the others.
                    let prefix = Prefix {
                        keys: fresh.uniform([tokens, width], FRESH),
                        values: fresh.uniform([tokens, width], FRESH),
                    };
                    layer.prefix = layers.have(number).then_some(prefix);
                }
                Trained::Ia3 => {
                    layer.gates = Some(Gates {
                        keys: fresh.ones(width),
                        values: fresh.ones(width),
                        inner: fresh.ones(config.intermediate_size),
                    });
                }
                Trained::Full | Trained::BitFit | Trained::LastLayer => {}
            }
        }
        let head = Head {
            dense: fresh.linear(width, width),
            out: fresh.linear(width, labels),
            pooling: match config.model_type {
                ModelType::Bert => Pooling::Mean,
                ModelType::DistilBert | ModelType::Roberta => Pooling::First,
            },
        };
        let mut out = Classifier {
            bert,
            head,
            trained: Vec::new(),
        };
        let mut choosing = Choosing {
            trained,
            path: Vec::new(),
            chosen: Vec::new(),
        };
        out.visit(&mut choosing);
        out.trained = choosing.chosen;
        Ok(out)
    }

    /// The scores of the labels before the softmax, `[rows, labels]`.
    pub fn logits(&self, batch: &TokenBatch) -> Tensor<2> {
        let hidden = self.bert.forward(batch);
        let [rows, _, width] = hidden.dims();
        let pooled = match self.head.pooling {
            Pooling::First => hidden.narrow(1, 0, 1).reshape([rows, width]),
            Pooling::Mean => batch.mean(hidden),
        };
        self.head.out.forward(self.head.dense.forward(pooled).tanh())
    }

    /// The values that are trained, in the order of the module.
    pub fn values(&self) -> Vec<f32> {
        let mut read = Reading {
            trained: &self.trained,
            out: Vec::new(),
        };
        self.visit(&mut read);
        read.out
    }

    /// The same with `values` in their place, alone tracked where `device` differentiates.
    ///
    /// # Panics
    /// There are fewer or more of them.
    pub fn with(self, values: &[f32], device: &Device) -> Self {
        let trained = self.trained.clone();
        let mut writing = Writing {
            trained: &trained,
            rest: values,
            device,
        };
        let out = self.map(&mut writing);
        assert!(writing.rest.is_empty(), "each value has a place");
        out
    }

    /// The gradient of what was taken backward by the values of [`Classifier::values`]; what the loss does not depend on has 0.
    pub fn gradient(&self, mut gradients: Gradients) -> Vec<f32> {
        let mut gathering = Gathering {
            trained: &self.trained,
            of: GradientsParams::from_module(&mut gradients, self),
            out: Vec::new(),
        };
        self.visit(&mut gathering);
        gathering.out
    }
}

/// Weights that no checkpoint has.
struct Fresh<'a> {
    rng: ChaCha8Rng,
    device: &'a Device,
}

impl Fresh<'_> {
    /// Uniform in ±`bound`.
    fn uniform(&mut self, shape: [usize; 2], bound: f32) -> Param<Tensor<2>> {
        let value = |_| match bound > 0.0 {
            true => self.rng.random_range(-bound..bound),
            false => 0.0,
        };
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Param::from_data(TensorData::new(values, shape), self.device)
    }

    fn ones(&self, width: usize) -> Param<Tensor<1>> {
        Param::from_data(TensorData::new(vec![1f32; width], [width]), self.device)
    }

    fn linear(&mut self, input: usize, output: usize) -> Linear {
        Linear {
            weight: self.uniform([input, output], FRESH),
            bias: Param::from_data(TensorData::new(vec![0f32; output], [output]), self.device),
            lora: None,
        }
    }
}

/// Finds the weights that are trained by where they stand.
struct Choosing {
    trained: Trained,
    path: Vec<String>,
    chosen: Vec<ParamId>,
}

impl ModuleVisitor for Choosing {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trained.takes(&self.path) {
            self.chosen.push(param.id);
        }
    }
}

struct Reading<'a> {
    trained: &'a [ParamId],
    out: Vec<f32>,
}

impl ModuleVisitor for Reading<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trained.contains(&param.id) {
            self.out.extend(crate::models::read(param.val()));
        }
    }
}

struct Gathering<'a> {
    trained: &'a [ParamId],
    of: GradientsParams,
    out: Vec<f32>,
}

impl ModuleVisitor for Gathering<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.trained.contains(&param.id) {
            return;
        }
        match self.of.get::<D>(param.id) {
            Some(gradient) => self.out.extend(crate::models::read(gradient)),
            None => self
                .out
                .extend(std::iter::repeat_n(0.0, param.val().shape().num_elements())),
        }
    }
}

struct Writing<'a> {
    trained: &'a [ParamId],
    rest: &'a [f32],
    device: &'a Device,
}

impl ModuleMapper for Writing<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.trained.contains(&param.id) {
            return param.set_require_grad(false);
        }
        let shape = param.val().dims();
        let (own, others) = self.rest.split_at(shape.iter().product());
        self.rest = others;
        let value = Tensor::from_data(TensorData::new(own.to_vec(), shape), self.device);
        Param::initialized(param.id, value).set_require_grad(true)
    }
}
