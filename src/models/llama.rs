//! Llama (Touvron et al. 2023): RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied head.

use std::collections::HashSet;

use burn::tensor::{Int, Tensor};
use serde_json::{Value, json};

use super::fused::swiglu;
use super::language_model::{Architecture, Forward, Norm};
use super::load::gguf::Gguf;
use super::shape::{Attention, Kind, Shape, Slot, Stored};
use crate::{Error, Result};

/// No count of a model's shape is larger: one that is comes from a broken file.
const MAX_COUNT: usize = 1 << 20;

/// Counts of the model.
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

/// A weight of a block: its name in checkpoints, and in GGUF.
type Part = (&'static str, &'static str);

/// The weights of a block, in the order in which it applies them.
const PARTS: [Part; 9] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const ATTENTION_NORM: usize = 0;
const Q: usize = 1;
const K: usize = 2;
const V: usize = 3;
const O: usize = 4;
const MLP_NORM: usize = 5;
const GATE: usize = 6;
const UP: usize = 7;
const DOWN: usize = 8;

/// The model.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    shape: Shape,
}

impl LlamaConfig {
    /// Reads the counts off a GGUF's metadata.
    ///
    /// # Errors
    /// Counts that do not fit together.
    fn from_gguf(gguf: &Gguf) -> Result<Self> {
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

    /// What such a model declares.
    pub fn shape(&self) -> Shape {
        let kv = self.kv_heads * self.head_width();
        let part = |l: usize, (part, (name, _)): (usize, &Part)| {
            let map = |output, input| (Kind::Map(Stored::Linear), vec![output, input]);
            let (kind, shape) = match part {
                ATTENTION_NORM | MLP_NORM => (Kind::Gain, vec![self.width]),
                Q | O => map(self.width, self.width),
                K | V => map(kv, self.width),
                GATE | UP => map(self.hidden, self.width),
                _ => map(self.width, self.hidden),
            };
            slot(format!("model.layers.{l}.{name}.weight"), kind, shape)
        };
        let block = |l: usize| PARTS.iter().enumerate().map(move |p| part(l, p));
        let table = vec![self.vocabulary, self.width];
        let mut slots = vec![slot("model.embed_tokens.weight", Kind::Table, table)];
        slots.extend((0..self.layers).flat_map(block));
        slots.push(slot("model.norm.weight", Kind::Gain, vec![self.width]));
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_width: self.head_width(),
            rotary_base: Some(self.rope_base),
        };
        Shape {
            width: self.width,
            vocabulary: self.vocabulary,
            context: self.context,
            attention: vec![attention; self.layers],
            slots,
        }
    }
}

fn slot(name: impl Into<String>, kind: Kind, shape: Vec<usize>) -> Slot {
    Slot {
        name: name.into(),
        shape,
        kind,
    }
}

impl From<LlamaConfig> for Llama {
    fn from(config: LlamaConfig) -> Self {
        Llama {
            shape: config.shape(),
            config,
        }
    }
}

impl Llama {
    /// Name and shape of each tensor of a GGUF that holds such a model.
    pub fn gguf_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let slots = self.shape.slots.iter().enumerate();
        slots.map(|(i, slot)| (self.gguf_name(i), slot.shape.clone())).collect()
    }

    /// The model of a GGUF.
    ///
    /// # Errors
    /// Counts that do not fit, an untied head, a tensor that would be ignored.
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        if gguf.has("output.weight") {
            return Err(Error::data("the model has a head of its own (output.weight)")
                .hint("models with tied embeddings are supported, such as SmolLM2"));
        }
        let llama = Llama::from(LlamaConfig::from_gguf(gguf)?);
        let applied: HashSet<String> = llama.gguf_tensors().into_iter().map(|(name, _)| name).collect();
        match gguf.tensors().find(|name| !applied.contains(*name)) {
            None => Ok(llama),
            Some(name) => Err(Error::data(format!(
                "the model has a tensor that this program does not apply: {name}"
            ))
            .hint("models without biases and with plain rotary positions are supported, such as SmolLM2")),
        }
    }

    /// The layer of a slot and what it is there; none of the table and of the last norm.
    fn part(&self, slot: usize) -> Option<(usize, usize)> {
        let place = slot
            .checked_sub(1)
            .filter(|place| *place < self.config.layers * PARTS.len())?;
        Some((place / PARTS.len(), place % PARTS.len()))
    }

    fn gguf_name(&self, slot: usize) -> String {
        match self.part(slot) {
            Some((layer, part)) => format!("blk.{layer}.{}.weight", PARTS[part].1),
            None if slot == 0 => "token_embd.weight".into(),
            None => "output_norm.weight".into(),
        }
    }

    /// The values of a slot.
    ///
    /// # Errors
    /// A tensor that is missing, or has another shape.
    pub(super) fn read_gguf(&self, gguf: &Gguf, slot: usize) -> Result<Vec<f32>> {
        let shape = &self.shape.slots[slot].shape;
        let values = gguf.tensor(&self.gguf_name(slot), shape)?;
        Ok(match self.part(slot) {
            Some((_, Q | K)) => undo_interleaving(&values, self.config.head_width(), shape),
            _ => values,
        })
    }
}

impl Architecture for Llama {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn embed(&self, tokens: Tensor<1, Int>, f: &mut Forward) -> Tensor<2> {
        f.embed(0, tokens)
    }

    fn block(&self, layer: usize, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        let slot = |part: usize| 1 + layer * PARTS.len() + part;
        let norm = self.norm();
        let h = f.norm(slot(ATTENTION_NORM), norm, x.clone());
        let q = f.map(slot(Q), h.clone());
        let k = f.map(slot(K), h.clone());
        let v = f.map(slot(V), h);
        let mixed = f.attend(layer, q, k, v);
        let x = x + f.map(slot(O), mixed);
        let h = f.norm(slot(MLP_NORM), norm, x.clone());
        let gate = f.map(slot(GATE), h.clone());
        let up = f.map(slot(UP), h);
        x + f.map(slot(DOWN), swiglu(gate, up))
    }

    fn last(&self, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        f.norm(self.shape.slots.len() - 1, self.norm(), x)
    }

    fn config(&self) -> Value {
        let c = &self.config;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": false,
            "attention_dropout": 0.0,
            "head_dim": c.head_width(),
            "hidden_act": "silu",
            "hidden_size": c.width,
            "initializer_range": 0.02,
            "intermediate_size": c.hidden,
            "max_position_embeddings": c.context,
            "mlp_bias": false,
            "num_attention_heads": c.heads,
            "num_hidden_layers": c.layers,
            "num_key_value_heads": c.kv_heads,
            "rms_norm_eps": epsilon(c.norm_epsilon),
            // What transformers 4 and 5 name differently stands under both names.
            "rope_parameters": { "rope_type": "default", "rope_theta": c.rope_base },
            "rope_theta": c.rope_base,
            "tie_word_embeddings": true,
            "use_cache": true,
            "vocab_size": c.vocabulary,
        })
    }
}

impl Llama {
    fn norm(&self) -> Norm {
        Norm::Rms {
            epsilon: self.config.norm_epsilon,
        }
    }
}

/// GGUF holds it as f32: 1e-5 comes back as 9.999999747378752e-6, which is the same f32.
fn epsilon(value: f64) -> f64 {
    format!("{}", value as f32).parse().unwrap_or(value)
}

/// GGUF stores Q and K with each head's rows permuted for interleaved rotation: `[head_width / 2, 2]` becomes `[2, head_width / 2]`.
fn undo_interleaving(w: &[f32], head: usize, shape: &[usize]) -> Vec<f32> {
    let (heads, input) = (shape[0] / head, shape[1]);
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
