//! Llama (Touvron et al. 2023): RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied head.
//!
//! One forward serves training, prefill and decoding. Activations are `[rows · tokens, width]` wherever attention
//! does not need more; how a linear map is applied is left to [`Apply`], so that this file knows no LoRA.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use rayon::prelude::*;

use super::cache::Past;
use super::fused::{Heads, Rotary, causal_attention, rms_norm, swiglu};
use super::load::gguf::Gguf;
use super::read;
use crate::{Error, Result};

/// No count of a model's shape is larger: one that is comes from a broken file.
const MAX_COUNT: usize = 1 << 20;

/// Shape of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub layers: usize,
    pub width: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    pub rope_base: f64,
    pub norm_epsilon: f64,
}

impl LlamaConfig {
    /// Reads the shape off a GGUF's metadata.
    ///
    /// # Errors
    /// Another architecture, or counts that do not fit together.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.text("general.architecture")?;
        if architecture != "llama" {
            return Err(
                Error::data(format!("the model's architecture is `{architecture}`, not `llama`"))
                    .hint("use a Llama-family GGUF such as SmolLM2-135M-Instruct"),
            );
        }
        let vocabulary = gguf.texts("tokenizer.ggml.tokens")?.len();
        let config = LlamaConfig {
            layers: gguf.count("llama.block_count")?,
            width: gguf.count("llama.embedding_length")?,
            hidden: gguf.count("llama.feed_forward_length")?,
            heads: gguf.count("llama.attention.head_count")?,
            kv_heads: gguf.count("llama.attention.head_count_kv")?,
            vocabulary,
            context: gguf.count("llama.context_length")?,
            rope_base: gguf.number("llama.rope.freq_base")?,
            norm_epsilon: gguf.number("llama.attention.layer_norm_rms_epsilon")?,
        };
        let c = &config;
        let counts = [
            c.layers,
            c.width,
            c.hidden,
            c.heads,
            c.kv_heads,
            c.vocabulary,
            c.context,
        ];
        // Short-circuits: without heads there is no head width.
        let fits = counts.iter().all(|n| (1..=MAX_COUNT).contains(n))
            && c.width == c.head_width() * c.heads
            && c.heads.is_multiple_of(c.kv_heads)
            && c.head_width().is_multiple_of(2);
        if !fits {
            return Err(
                Error::data(format!("the model's counts do not fit together: {config:?}"))
                    .hint("use a Llama-family GGUF such as SmolLM2-135M-Instruct"),
            );
        }
        let partial = gguf
            .count("llama.rope.dimension_count")
            .is_ok_and(|d| d != config.head_width());
        let scaled = gguf.text("llama.rope.scaling.type").is_ok_and(|t| t != "none");
        if partial || scaled {
            return Err(
                Error::data("the model rotates only a part of each head, or scales its positions")
                    .hint("models with plain rotary positions are supported, such as SmolLM2"),
            );
        }
        Ok(config)
    }

    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// `[in, out]` of a linear map.
    pub fn shape(&self, map: Map) -> [usize; 2] {
        let kv = self.kv_heads * self.head_width();
        match map {
            Map::Q | Map::O => [self.width, self.width],
            Map::K | Map::V => [self.width, kv],
            Map::Gate | Map::Up => [self.width, self.hidden],
            Map::Down => [self.hidden, self.width],
        }
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        let maps: usize = Map::ALL.iter().map(|m| self.shape(*m)).map(|[i, o]| i * o).sum();
        self.vocabulary * self.width + self.layers * (maps + 2 * self.width) + self.width
    }

    /// Floating-point operations of a forward pass for one token, attention scores left out.
    pub fn flops_per_token(&self) -> f64 {
        let maps: usize = Map::ALL.iter().map(|m| self.shape(*m)).map(|[i, o]| i * o).sum();
        2.0 * (self.layers * maps + self.vocabulary * self.width) as f64
    }
}

/// The linear maps of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Map {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Map {
    /// In the order in which a block applies them.
    pub const ALL: [Map; 7] = [Map::Q, Map::K, Map::V, Map::O, Map::Gate, Map::Up, Map::Down];

    /// Name in Hugging Face checkpoints.
    pub fn hub_name(self) -> &'static str {
        match self {
            Map::Q => "self_attn.q_proj",
            Map::K => "self_attn.k_proj",
            Map::V => "self_attn.v_proj",
            Map::O => "self_attn.o_proj",
            Map::Gate => "mlp.gate_proj",
            Map::Up => "mlp.up_proj",
            Map::Down => "mlp.down_proj",
        }
    }

    fn gguf_name(self) -> &'static str {
        match self {
            Map::Q => "attn_q",
            Map::K => "attn_k",
            Map::V => "attn_v",
            Map::O => "attn_output",
            Map::Gate => "ffn_gate",
            Map::Up => "ffn_up",
            Map::Down => "ffn_down",
        }
    }
}

/// How the parts with weights are applied: plainly when sampling; when training, so that their gradients are seen.
///
/// A forward calls these in the order in which the model's weights are counted ([`Llama::values`]).
pub trait Apply {
    /// `x [n, in]` through `weight [out, in]` of `layer`, giving `[n, out]`.
    fn linear(&mut self, layer: usize, map: Map, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2>;

    /// Rows `ids [n]` of `table [vocabulary, width]`.
    fn embed(&mut self, table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        table.clone().select(0, ids)
    }

    /// RMSNorm of `x [n, width]` with `gain [width]`.
    fn norm(&mut self, gain: &Tensor<1>, x: Tensor<2>, epsilon: f64) -> Tensor<2> {
        rms_norm(x, gain, epsilon)
    }
}

/// x·Wᵀ and nothing else.
pub struct Plain;

impl Apply for Plain {
    fn linear(&mut self, _: usize, _: Map, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        x.matmul(weight.clone().transpose())
    }
}

#[derive(Clone)]
struct Layer {
    attention_norm: Tensor<1>,
    mlp_norm: Tensor<1>,
    /// In the order of [`Map::ALL`], each `[out, in]`.
    maps: Vec<Tensor<2>>,
}

enum Weight<'a> {
    Gain(&'a mut Tensor<1>),
    Map(&'a mut Tensor<2>),
}

/// The model's weights on a device.
#[derive(Clone)]
pub struct Llama {
    config: LlamaConfig,
    /// `[vocabulary, width]`, embedding and head.
    embedding: Tensor<2>,
    layers: Vec<Layer>,
    norm: Tensor<1>,
    /// `[context, head_width / 2]` each.
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Llama {
    /// Dequantises a GGUF onto `device`.
    ///
    /// # Errors
    /// Another architecture, a missing tensor, a shape that does not fit, an untied head, a tensor that would be ignored.
    pub fn from_gguf(gguf: &Gguf, device: &Device) -> Result<Self> {
        if gguf.has("output.weight") {
            return Err(Error::data("the model has a head of its own (output.weight)")
                .hint("models with tied embeddings are supported, such as SmolLM2"));
        }
        let config = LlamaConfig::from_gguf(gguf)?;
        if let Some(name) = gguf.tensors().find(|name| !is_applied(name, config.layers)) {
            return Err(Error::data(format!(
                "the model has a tensor that this program does not apply: {name}"
            ))
            .hint("models without biases and with plain rotary positions are supported, such as SmolLM2"));
        }
        let head = config.head_width();
        let two = |name: &str, [rows, columns]: [usize; 2]| -> Result<Vec<f32>> { gguf.tensor(name, &[rows, columns]) };
        let one = |name: &str| -> Result<Tensor<1>> {
            Ok(Tensor::from_data(
                TensorData::new(gguf.tensor(name, &[config.width])?, [config.width]),
                device,
            ))
        };
        let mut layers = Vec::new();
        for l in 0..config.layers {
            let mut maps = Vec::new();
            for map in Map::ALL {
                let [input, output] = config.shape(map);
                let mut w = two(&format!("blk.{l}.{}.weight", map.gguf_name()), [output, input])?;
                if matches!(map, Map::Q | Map::K) {
                    w = undo_interleaving(&w, output / head, head, input);
                }
                maps.push(Tensor::from_data(TensorData::new(w, [output, input]), device));
            }
            layers.push(Layer {
                attention_norm: one(&format!("blk.{l}.attn_norm.weight"))?,
                mlp_norm: one(&format!("blk.{l}.ffn_norm.weight"))?,
                maps,
            });
        }
        let table = two("token_embd.weight", [config.vocabulary, config.width])?;
        let embedding = Tensor::from_data(TensorData::new(table, [config.vocabulary, config.width]), device);
        let norm = one("output_norm.weight")?;
        let (cos, sin) = rotary_tables(&config, device);
        Ok(Llama {
            config,
            embedding,
            layers,
            norm,
            cos,
            sin,
        })
    }

    /// All weights, one after the other, in the order of [`Llama::names`].
    pub fn values(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.config.parameters());
        for weight in self.clone().weights() {
            out.extend(match weight {
                Weight::Gain(w) => read(w.clone()),
                Weight::Map(w) => read(w.clone()),
            });
        }
        out
    }

    /// The same model with other weights, in the order of [`Llama::names`].
    pub fn with_values(&self, values: &[f32]) -> Self {
        assert_eq!(values.len(), self.config.parameters(), "a value for each weight");
        let (device, mut out, mut rest) = (self.device(), self.clone(), values);
        let mut next = |shape: &[usize]| {
            let (own, others) = rest.split_at(shape.iter().product());
            rest = others;
            TensorData::new(own.to_vec(), shape)
        };
        for weight in out.weights() {
            match weight {
                Weight::Gain(w) => *w = Tensor::from_data(next(&w.dims()), &device),
                Weight::Map(w) => *w = Tensor::from_data(next(&w.dims()), &device),
            }
        }
        out
    }

    /// Name in Hugging Face checkpoints and shape of each weight, in the order in which a forward meets them: embedding;
    /// of each layer the attention's norm, Q, K, V, O, the gate's norm, gate, up, down; the last norm. Maps are `[out, in]`.
    pub fn names(&self) -> Vec<(String, Vec<usize>)> {
        let c = &self.config;
        let of_layer = |l: usize| {
            let gain = move |name: &str| (format!("model.layers.{l}.{name}.weight"), vec![c.width]);
            let map = move |m: &Map| {
                let [input, output] = c.shape(*m);
                (format!("model.layers.{l}.{}.weight", m.hub_name()), vec![output, input])
            };
            let (attention, gate) = Map::ALL.split_at(Map::Gate as usize);
            std::iter::once(gain("input_layernorm"))
                .chain(attention.iter().map(map))
                .chain([gain("post_attention_layernorm")])
                .chain(gate.iter().map(map))
                .collect::<Vec<_>>()
        };
        std::iter::once(("model.embed_tokens.weight".to_string(), vec![c.vocabulary, c.width]))
            .chain((0..c.layers).flat_map(of_layer))
            .chain([("model.norm.weight".to_string(), vec![c.width])])
            .collect()
    }

    /// In the order of [`Llama::names`].
    fn weights(&mut self) -> Vec<Weight<'_>> {
        let mut out = vec![Weight::Map(&mut self.embedding)];
        for layer in &mut self.layers {
            let (attention, gate) = layer.maps.split_at_mut(Map::Gate as usize);
            out.push(Weight::Gain(&mut layer.attention_norm));
            out.extend(attention.iter_mut().map(Weight::Map));
            out.push(Weight::Gain(&mut layer.mlp_norm));
            out.extend(gate.iter_mut().map(Weight::Map));
        }
        out.push(Weight::Gain(&mut self.norm));
        out
    }

    /// Shape of the model.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// The same weights with `delta(layer, map)` (`[out, in]`) added to each linear map, for sampling without LoRA's cost.
    pub fn merged(&self, delta: impl Fn(usize, Map) -> Tensor<2> + Sync) -> Self {
        self.with_maps(|l, map, w| w + delta(l, map))
    }

    /// The same model with `change(layer, map, weight)` (`[out, in]`) in the place of each linear map's weight.
    pub fn with_maps(&self, change: impl Fn(usize, Map, Tensor<2>) -> Tensor<2> + Sync) -> Self {
        let mut out = self.clone();
        let change_layer = |(l, layer): (usize, &mut Layer)| {
            for (map, w) in Map::ALL.into_iter().zip(&mut layer.maps) {
                *w = change(l, map, w.clone());
            }
        };
        match self.device() == Device::flex() {
            // Most operations there use one core.
            true => out.layers.par_iter_mut().enumerate().for_each(change_layer),
            false => out.layers.iter_mut().enumerate().for_each(change_layer),
        }
        out
    }

    /// The last hidden states `[rows · tokens, width]` of `tokens [rows, tokens]`, normed for the head.
    ///
    /// Without a `past` each token looks at itself and at those before it in its row. With one, it is the past that says
    /// where in their rows the tokens stand and what they look at, and that keeps their keys and values.
    pub fn hidden(&self, tokens: Tensor<2, Int>, mut past: Option<&mut dyn Past>, apply: &mut dyn Apply) -> Tensor<2> {
        let [rows, len] = tokens.dims();
        let heads = self.heads(rows, len);
        let rotary = match &past {
            None => self.rotary(len),
            Some(past) => self.rotary_at(past.positions()),
        };
        let mut x = self.embed(tokens, apply);
        for l in 0..self.config.layers {
            // Lent anew for each block: `as_deref_mut` would keep it for as long as the option lives.
            let past = past.as_mut().map(|past| &mut **past as &mut dyn Past);
            x = self.block(l, x, heads, &rotary, past, apply);
        }
        if let Some(past) = past {
            past.advance();
        }
        self.last(x, apply)
    }

    /// Embeddings `[rows · tokens, width]` of `tokens [rows, tokens]`.
    pub(crate) fn embed(&self, tokens: Tensor<2, Int>, apply: &mut dyn Apply) -> Tensor<2> {
        let [rows, len] = tokens.dims();
        apply.embed(&self.embedding, tokens.reshape([rows * len]))
    }

    /// The last block's output, normed for the head.
    pub(crate) fn last(&self, x: Tensor<2>, apply: &mut dyn Apply) -> Tensor<2> {
        apply.norm(&self.norm, x, self.config.norm_epsilon)
    }

    /// One block: `x [rows · tokens, width]` plus attention, plus the gated map.
    pub(crate) fn block(
        &self,
        layer: usize,
        x: Tensor<2>,
        heads: Heads,
        rotary: &Rotary,
        past: Option<&mut dyn Past>,
        apply: &mut dyn Apply,
    ) -> Tensor<2> {
        let (own, epsilon) = (&self.layers[layer], self.config.norm_epsilon);
        let map = |apply: &mut dyn Apply, m: Map, x: Tensor<2>| apply.linear(layer, m, &own.maps[m as usize], x);
        let h = apply.norm(&own.attention_norm, x.clone(), epsilon);
        let q = map(apply, Map::Q, h.clone());
        let k = map(apply, Map::K, h.clone());
        let v = map(apply, Map::V, h);
        let mixed = match past {
            None => causal_attention(q, k, v, heads, rotary),
            Some(past) => past.attend(layer, q, k, v, heads, rotary),
        };
        let x = x + map(apply, Map::O, mixed);
        let h = apply.norm(&own.mlp_norm, x.clone(), epsilon);
        let gate = map(apply, Map::Gate, h.clone());
        let up = map(apply, Map::Up, h);
        x + map(apply, Map::Down, swiglu(gate, up))
    }

    /// How the activations of `rows` rows of `tokens` tokens split into heads.
    pub(crate) fn heads(&self, rows: usize, tokens: usize) -> Heads {
        Heads {
            rows,
            tokens,
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_width: self.config.head_width(),
        }
    }

    /// Angles of the first `len` positions.
    pub(crate) fn rotary(&self, len: usize) -> Rotary {
        let first = |table: &Tensor<2>| table.clone().narrow(0, 0, len);
        Rotary {
            cos: first(&self.cos),
            sin: first(&self.sin),
        }
    }

    /// Angles of given positions.
    fn rotary_at(&self, positions: Tensor<1, Int>) -> Rotary {
        let chosen = |table: &Tensor<2>| table.clone().select(0, positions.clone());
        Rotary {
            cos: chosen(&self.cos),
            sin: chosen(&self.sin),
        }
    }

    /// The same model with its maps in another element type, for products of that type.
    pub fn maps_in(&self, dtype: DType) -> Self {
        let mut out = self.clone();
        for w in out.layers.iter_mut().flat_map(|l| &mut l.maps) {
            *w = w.clone().cast(dtype);
        }
        out
    }

    /// Bytes of the weights that a forward pass reads: all maps and the head.
    pub fn bytes_read(&self) -> usize {
        let bytes = |w: &Tensor<2>| w.shape().num_elements() * w.dtype().size();
        bytes(&self.embedding) + self.layers.iter().flat_map(|l| &l.maps).map(bytes).sum::<usize>()
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, width]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.embedding.clone().transpose())
    }

    /// The head's weights `[vocabulary, width]`, for losses that never build all logits.
    pub fn head(&self) -> Tensor<2> {
        self.embedding.clone()
    }
}

/// Whether the forward uses the GGUF's tensor `name`.
fn is_applied(name: &str, layers: usize) -> bool {
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return matches!(name, "token_embd.weight" | "output_norm.weight");
    };
    let norm = matches!(part, "attn_norm.weight" | "ffn_norm.weight");
    let map = || {
        part.strip_suffix(".weight")
            .is_some_and(|part| Map::ALL.iter().any(|m| m.gguf_name() == part))
    };
    layer.parse().is_ok_and(|l: usize| l < layers) && (norm || map())
}

fn rotary_tables(c: &LlamaConfig, device: &Device) -> (Tensor<2>, Tensor<2>) {
    let half = c.head_width() / 2;
    let angle = |i: usize| {
        let (position, pair) = (i / half, i % half);
        position as f64 / c.rope_base.powf(2.0 * pair as f64 / c.head_width() as f64)
    };
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f32> = (0..c.context * half).map(|i| f(angle(i)) as f32).collect();
        Tensor::from_data(TensorData::new(values, [c.context, half]), device)
    };
    (table(f64::cos), table(f64::sin))
}

/// GGUF stores Q and K with each head's rows permuted for interleaved rotation: `[head_width / 2, 2]` becomes `[2, head_width / 2]`.
fn undo_interleaving(w: &[f32], heads: usize, head: usize, input: usize) -> Vec<f32> {
    let mut out = vec![0f32; w.len()];
    for h in 0..heads {
        for pair in 0..head / 2 {
            for part in 0..2 {
                let from = (h * head + pair * 2 + part) * input;
                let to = (h * head + part * (head / 2) + pair) * input;
                out[to..to + input].copy_from_slice(&w[from..from + input]);
            }
        }
    }
    out
}
