//! The BERT encoder (Devlin et al. 2019), DistilBERT (Sanh et al. 2019) and RoBERTa (Liu et al. 2019), read from Hugging Face
//! checkpoints.
//!
//! No dropout, no pooler: [`Bert::forward`] gives the last hidden states. Hidden states travel as
//! `[batch · tokens, hidden]`, so that every linear map is one 2-D product.

pub mod classifier;
mod gelu;

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation, module};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::load::hub::floats;
use super::product::{linear, matmul};
use crate::{Error, Result};

/// The sizes of an encoder as `config.json` has them; DistilBERT's names are read too.
#[derive(Clone, Debug, Deserialize)]
pub struct BertConfig {
    /// `bert`, `distilbert` or `roberta`.
    pub model_type: ModelType,
    /// Number of word pieces.
    pub vocab_size: usize,
    /// Width of a hidden state.
    #[serde(alias = "dim")]
    pub hidden_size: usize,
    /// Number of transformer layers.
    #[serde(alias = "n_layers")]
    pub num_hidden_layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    #[serde(alias = "n_heads")]
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    #[serde(alias = "hidden_dim")]
    pub intermediate_size: usize,
    /// Rows of the table of positions.
    pub max_position_embeddings: usize,
    /// RoBERTa's first position comes behind this number.
    #[serde(default)]
    pub pad_token_id: Option<usize>,
    /// Added to the variance in layer normalisation.
    #[serde(default = "default_epsilon")]
    pub layer_norm_eps: f64,
    /// Between the two feed-forward maps.
    #[serde(alias = "activation", default)]
    pub hidden_act: Activation,
    /// Only `absolute` can be read.
    #[serde(default)]
    pub position_embedding_type: PositionEmbedding,
}

fn default_epsilon() -> f64 {
    1e-12
}

/// Which family's tensor names the checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    Bert,
    DistilBert,
    #[serde(alias = "xlm-roberta")]
    Roberta,
}

/// The feed-forward layer's nonlinearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·Φ(x).
    #[default]
    Gelu,
    /// The tanh approximation of `Gelu`.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    Relu,
}

/// How a token's place enters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionEmbedding {
    /// A learned vector for each place.
    #[default]
    Absolute,
}

impl BertConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, or that describes another kind of model.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let config: BertConfig = serde_json::from_str(&text).map_err(|e| {
            Error::data(format!("{} does not describe a BERT encoder: {e}", path.display()))
                .hint("encoders of type `bert`, `distilbert` and `roberta` in Hugging Face layout can be used")
        })?;
        if config.longest() == 0 {
            return Err(Error::data(format!("{}: there are no positions", path.display()))
                .hint("check that the file belongs to the checkpoint"));
        }
        if config.num_attention_heads == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(Error::data(format!(
                "{}: {} attention heads do not divide a hidden size of {}",
                path.display(),
                config.num_attention_heads,
                config.hidden_size
            ))
            .hint("check that the file belongs to the checkpoint"));
        }
        Ok(config)
    }

    /// Longest text in word pieces.
    pub fn longest(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }

    /// The row of the table of positions that the first word piece has.
    fn first_position(&self) -> usize {
        match self.model_type {
            ModelType::Bert | ModelType::DistilBert => 0,
            ModelType::Roberta => self.pad_token_id.unwrap_or(1).saturating_add(1),
        }
    }
}

/// Texts as rows of token ids, padded to the longest.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[batch, tokens]`; padding is id 0, but any id would do, since it is masked.
    pub ids: Tensor<2, Int>,
    /// `[batch, tokens]`, true where a row is padded; `None` where no row is.
    pub padding: Option<Tensor<2, Bool>>,
    /// `[batch, tokens, 1]`, 1 in the second text of a pair; `None` where no row is a pair.
    pub second: Option<Tensor<3>>,
}

impl TokenBatch {
    /// Rows of at least one token each.
    pub fn new(rows: &[&[u32]], device: &Device) -> Self {
        let (batch, longest) = (rows.len(), rows.iter().map(|r| r.len()).max().unwrap_or(0));
        let mut ids = vec![0i32; batch * longest];
        let mut padding = vec![true; batch * longest];
        for (i, row) in rows.iter().enumerate() {
            for (j, &id) in row.iter().enumerate() {
                ids[i * longest + j] = id as i32;
                padding[i * longest + j] = false;
            }
        }
        TokenBatch {
            padding: padding
                .contains(&true)
                .then(|| Tensor::from_data(TensorData::new(padding, [batch, longest]), device)),
            ids: Tensor::from_data(TensorData::new(ids, [batch, longest]), device),
            second: None,
        }
    }

    /// The same rows, of which each is a second text from its `starts` on.
    pub fn with_second(self, starts: &[usize]) -> Self {
        let [batch, tokens] = self.ids.dims();
        if starts.iter().all(|start| *start >= tokens) {
            return self;
        }
        let is_second = |i: usize| f32::from(u8::from(i % tokens >= starts[i / tokens]));
        let values: Vec<f32> = (0..batch * tokens).map(is_second).collect();
        let second = Tensor::from_data(TensorData::new(values, [batch, tokens, 1]), &self.ids.device());
        TokenBatch {
            second: Some(second),
            ..self
        }
    }

    /// Means over the tokens that are no padding: `[batch, tokens, hidden]` → `[batch, hidden]`.
    pub fn mean(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [batch, tokens, width] = hidden.dims();
        match &self.padding {
            None => hidden.sum_dim(1).reshape([batch, width]) / tokens as f64,
            Some(padding) => {
                let real = padding.clone().bool_not().float();
                let counts = real.clone().sum_dim(1);
                (hidden * real.reshape([batch, tokens, 1]))
                    .sum_dim(1)
                    .reshape([batch, width])
                    / counts
            }
        }
    }
}

/// A BERT encoder.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl Bert {
    /// Reads a checkpoint (float32, float16 or bfloat16) into float32 on `device`.
    ///
    /// # Errors
    /// A file that is no safetensors checkpoint, or lacks a tensor, or has one of another shape than `config` says.
    pub fn load(config: &BertConfig, weights: &Path, device: &Device) -> Result<Self> {
        let bytes = std::fs::read(weights).map_err(|e| Error::io("read", weights, e))?;
        let checkpoint = Checkpoint::open(&bytes, weights, device)?;
        let names = match config.model_type {
            ModelType::Bert | ModelType::Roberta => &BERT,
            ModelType::DistilBert => &DISTILBERT,
        };
        Ok(Bert {
            embeddings: Embeddings::load(config, &checkpoint)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(config, names, &format!("{}.{i}", names.layers), &checkpoint))
                .collect::<Result<_>>()?,
        })
    }

    /// Keeps the embedding tables as they are in training: they are half of a small encoder's parameters, and a
    /// few hundred texts touch few of their rows.
    pub fn freeze_embeddings(mut self) -> Self {
        self.embeddings = self.embeddings.freeze();
        self
    }

    /// The last hidden states, `[batch, tokens, hidden]`; those at padded places mean nothing.
    pub fn forward(&self, batch: &TokenBatch) -> Tensor<3> {
        let [rows, tokens] = batch.ids.dims();
        // Added to attention scores: padded keys get no weight.
        let bias = batch
            .padding
            .clone()
            .map(|p| p.float().mul_scalar(-1e9).reshape([rows, 1, 1, tokens]));
        let mut x = self.embeddings.forward(batch);
        for layer in &self.layers {
            x = layer.forward(x, [rows, tokens], bias.as_ref());
        }
        let [_, hidden] = x.dims();
        x.reshape([rows, tokens, hidden])
    }
}

#[derive(Module, Debug)]
struct Embeddings {
    /// `[vocabulary, hidden]`.
    words: Param<Tensor<2>>,
    /// `[positions, hidden]`, with the first segment's vector added.
    positions: Param<Tensor<2>>,
    /// `[1, hidden]`: the second segment's vector less the first's; none where segments have none.
    second: Option<Param<Tensor<2>>>,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(config: &BertConfig, checkpoint: &Checkpoint) -> Result<Self> {
        let width = config.hidden_size;
        let mut positions = checkpoint.values(
            "embeddings.position_embeddings.weight",
            &[config.max_position_embeddings, width],
        )?;
        positions.drain(..config.first_position() * width);
        let mut second = None;
        if let Some(segments) = checkpoint.optional("embeddings.token_type_embeddings.weight")? {
            if let Some(of_second) = segments.get(width..2 * width) {
                let less = of_second.iter().zip(&segments).map(|(second, first)| second - first);
                second = Some(checkpoint.parameter(less.collect(), [1, width]));
            }
            for row in positions.chunks_exact_mut(width) {
                for (p, s) in row.iter_mut().zip(&segments) {
                    *p += s;
                }
            }
        }
        let words = [config.vocab_size, width];
        Ok(Embeddings {
            words: checkpoint.parameter(checkpoint.values("embeddings.word_embeddings.weight", &words)?, words),
            positions: checkpoint.parameter(positions, [config.longest(), width]),
            second,
            norm: LayerNorm::load(config, "embeddings.LayerNorm", checkpoint)?,
        })
    }

    /// `[batch · tokens, hidden]`.
    fn forward(&self, batch: &TokenBatch) -> Tensor<2> {
        let [rows, tokens] = batch.ids.dims();
        let mut words = module::embedding(self.words.val(), batch.ids.clone());
        if let (Some(is_second), Some(second)) = (&batch.second, &self.second) {
            words = words + is_second.clone() * second.val().unsqueeze::<3>();
        }
        let [_, _, width] = words.dims();
        let positions = self.positions.val().slice([0..tokens, 0..width]).unsqueeze::<3>();
        self.norm.forward((words + positions).reshape([rows * tokens, width]))
    }
}

/// Attention and feed-forward, each with its residual, normalised after the sum (post-norm).
#[derive(Module, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
    /// Where a classifier trains one.
    prefix: Option<Prefix>,
    /// Where a classifier trains them.
    gates: Option<Gates>,
    heads: usize,
    #[module(skip)]
    activation: Activation,
}

/// Keys and values, `[tokens, hidden]` each, that every token of every text sees before the text's own.
#[derive(Module, Debug)]
struct Prefix {
    keys: Param<Tensor<2>>,
    values: Param<Tensor<2>>,
}

/// (IA)³ (Liu et al. 2022): what keys, values `[hidden]` and inner activations `[intermediate]` are multiplied by.
#[derive(Module, Debug)]
struct Gates {
    keys: Param<Tensor<1>>,
    values: Param<Tensor<1>>,
    inner: Param<Tensor<1>>,
}

impl Layer {
    fn load(config: &BertConfig, names: &Names, layer: &str, checkpoint: &Checkpoint) -> Result<Self> {
        let (width, wide) = (config.hidden_size, config.intermediate_size);
        let linear = |name: &str, input, output| Linear::load(&format!("{layer}.{name}"), [input, output], checkpoint);
        let norm = |name: &str| LayerNorm::load(config, &format!("{layer}.{name}"), checkpoint);
        Ok(Layer {
            query: linear(names.query, width, width)?,
            key: linear(names.key, width, width)?,
            value: linear(names.value, width, width)?,
            attention_output: linear(names.attention_output, width, width)?,
            attention_norm: norm(names.attention_norm)?,
            up: linear(names.up, width, wide)?,
            down: linear(names.down, wide, width)?,
            output_norm: norm(names.output_norm)?,
            prefix: None,
            gates: None,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// All linear maps.
    fn maps(&mut self) -> [&mut Linear; 6] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attention_output,
            &mut self.up,
            &mut self.down,
        ]
    }

    /// `[batch · tokens, hidden]` to the same shape; `bias` is `[batch, 1, 1, tokens]`.
    fn forward(&self, x: Tensor<2>, shape: [usize; 2], bias: Option<&Tensor<4>>) -> Tensor<2> {
        let attended = self.attention_output.forward(self.attend(x.clone(), shape, bias));
        let x = self.attention_norm.forward(x + attended);
        let h = self.up.forward(x.clone());
        let h = match self.activation {
            Activation::Gelu => gelu::gelu(h),
            Activation::GeluNew => activation::gelu_approximate(h),
            Activation::Relu => activation::relu(h),
        };
        let h = self.gated(h, |gates| &gates.inner);
        self.output_norm.forward(x + self.down.forward(h))
    }

    fn gated(&self, x: Tensor<2>, of: impl Fn(&Gates) -> &Param<Tensor<1>>) -> Tensor<2> {
        match &self.gates {
            Some(gates) => x * of(gates).val().unsqueeze(),
            None => x,
        }
    }

    fn attend(&self, x: Tensor<2>, [rows, tokens]: [usize; 2], bias: Option<&Tensor<4>>) -> Tensor<2> {
        let [_, width] = x.dims();
        let head = width / self.heads;
        let split = |y: Tensor<2>| y.reshape([rows, tokens, self.heads, head]).swap_dims(1, 2);
        let query = split(self.query.forward(x.clone())) / (head as f64).sqrt();
        let key = split(self.gated(self.key.forward(x.clone()), |gates| &gates.keys));
        let mut value = split(self.gated(self.value.forward(x), |gates| &gates.values));
        let seen = |key: Tensor<4>| matmul(query.clone(), key.swap_dims(2, 3));
        let mut scores = match bias {
            Some(bias) => seen(key) + bias.clone(),
            None => seen(key),
        };
        if let Some(prefix) = &self.prefix {
            // No row's padding hides it.
            let of_rows = |p: &Param<Tensor<2>>| {
                let [tokens, _] = p.dims();
                let heads = p.val().reshape([1, tokens, self.heads, head]).swap_dims(1, 2);
                heads.repeat_dim(0, rows)
            };
            scores = Tensor::cat(vec![seen(of_rows(&prefix.keys)), scores], 3);
            value = Tensor::cat(vec![of_rows(&prefix.values), value], 2);
        }
        matmul(activation::softmax(scores, 3), value)
            .swap_dims(1, 2)
            .reshape([rows * tokens, width])
    }
}

/// y = xW + b with W of shape `[input, output]`.
#[derive(Module, Debug)]
struct Linear {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    /// Where a classifier trains factors beside it.
    lora: Option<Lora>,
}

/// What a map gains: scale · (x·A)·B, of A `[input, rank]` and B `[rank, output]`.
#[derive(Module, Debug)]
struct Lora {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    scale: f64,
}

impl Linear {
    /// The checkpoint has W as `[output, input]`.
    fn load(name: &str, [input, output]: [usize; 2], checkpoint: &Checkpoint) -> Result<Self> {
        let stored = checkpoint.values(&format!("{name}.weight"), &[output, input])?;
        let weight = (0..input * output)
            .map(|k| stored[k % output * input + k / output])
            .collect();
        let bias = checkpoint.values(&format!("{name}.bias"), &[output])?;
        Ok(Linear {
            weight: checkpoint.parameter(weight, [input, output]),
            bias: checkpoint.parameter(bias, [output]),
            lora: None,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = linear(x.clone(), self.weight.val(), self.bias.val());
        match &self.lora {
            Some(lora) => y + matmul(matmul(x, lora.a.val()), lora.b.val()) * lora.scale,
            None => y,
        }
    }
}

#[derive(Module, Debug)]
struct LayerNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    fn load(config: &BertConfig, name: &str, checkpoint: &Checkpoint) -> Result<Self> {
        let size = [config.hidden_size];
        let read = |name| -> Result<_> { Ok(checkpoint.parameter(checkpoint.values(name, &size)?, size)) };
        Ok(LayerNorm {
            gamma: read(&format!("{name}.weight"))?,
            beta: read(&format!("{name}.bias"))?,
            epsilon: config.layer_norm_eps,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        module::layer_norm(x, self.gamma.val(), Some(self.beta.val()), self.epsilon)
    }
}

/// What a family calls the parts of a layer.
struct Names {
    layers: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attention_output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    output_norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
};

/// An open checkpoint; tensors are asked for by their name without the model's prefix, in today's spelling.
struct Checkpoint<'a> {
    tensors: SafeTensors<'a>,
    /// Short name → name in the file.
    names: HashMap<String, String>,
    path: &'a Path,
    device: &'a Device,
}

impl<'a> Checkpoint<'a> {
    fn open(bytes: &'a [u8], path: &'a Path, device: &'a Device) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
            Error::data(format!("{} is not a safetensors file: {e}", path.display()))
                .hint("an interrupted download leaves such a file; fetch it again")
        })?;
        let names = tensors
            .names()
            .into_iter()
            .map(|full| {
                let short = full
                    .strip_prefix("bert.")
                    .or_else(|| full.strip_prefix("distilbert."))
                    .or_else(|| full.strip_prefix("roberta."))
                    .unwrap_or(full);
                // Checkpoints that were made from TensorFlow ones keep its names of the layer norm.
                let short = short
                    .replace("LayerNorm.gamma", "LayerNorm.weight")
                    .replace("LayerNorm.beta", "LayerNorm.bias");
                (short, full.to_string())
            })
            .collect();
        Ok(Checkpoint {
            tensors,
            names,
            path,
            device,
        })
    }

    /// The values of a tensor that must be there with this shape.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let missing = || self.wrong(format!("has no tensor `{name}`"));
        let full = self.names.get(name).ok_or_else(missing)?;
        let view = self.tensors.tensor(full).map_err(|_| missing())?;
        if view.shape() != shape {
            return Err(self.wrong(format!("has `{name}` of shape {:?}, not {shape:?}", view.shape())));
        }
        self.decode(name, view.dtype(), view.data())
    }

    /// The values of a tensor that may be absent.
    fn optional(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.names.get(name).and_then(|full| self.tensors.tensor(full).ok()) else {
            return Ok(None);
        };
        self.decode(name, view.dtype(), view.data()).map(Some)
    }

    fn decode(&self, name: &str, dtype: Dtype, data: &[u8]) -> Result<Vec<f32>> {
        floats(dtype, data).ok_or_else(|| self.wrong(format!("has `{name}` as {dtype:?}, which cannot be read")))
    }

    fn parameter<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_data(TensorData::new(values, shape), self.device)
    }

    fn wrong(&self, what: String) -> Error {
        Error::data(format!("the checkpoint {} {what}", self.path.display()))
            .hint("check that config.json and model.safetensors belong together")
    }
}
