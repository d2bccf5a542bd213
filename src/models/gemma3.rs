//! Gemma 3 (Gemma Team 2025), text alone: RMSNorm before and after attention and MLP, normed queries and keys, GeGLU, layers that
//! look through a window between layers that look at everything, each kind with rotary positions of its own, scaled embeddings,
//! tied head.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fused::geglu;
use super::language_model::{Architecture, Forward, Norm};
use super::llama;
use super::load::Held;
use super::load::gguf::Gguf;
use super::load::hub::{self, Checkpoint};
use super::rotation::{self, Rope};
use super::shape::{self, Attention, Gain, Kind, MAX_COUNT, MAX_HEAD, MAX_LAYERS, Shape, Slot, Stored};
use crate::{Error, Result};

/// Each sixth layer looks at everything, where no pattern is given.
const PATTERN: usize = 6;

/// Base of the rotary positions of layers with a window, where none is given.
const LOCAL_BASE: f64 = 10_000.0;

/// Base of the others', where none is given.
const GLOBAL_BASE: f64 = 1_000_000.0;

/// What decides what is computed.
#[derive(Clone, Debug, PartialEq)]
struct Gemma3Config {
    width: usize,
    hidden: usize,
    vocabulary: usize,
    /// Longest sequence in tokens.
    context: usize,
    norm_epsilon: f64,
    /// Scores are products over its root.
    query_scalar: f64,
    /// By layer.
    attention: Vec<Attention>,
}

/// `config.json`, as far as it decides what is computed.
#[derive(Clone, Debug, Deserialize)]
struct Declared {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Ropes>,
    #[serde(default = "gelu")]
    hidden_activation: String,
    #[serde(default)]
    attention_bias: bool,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    #[serde(default)]
    use_bidirectional_attention: bool,
    tie_word_embeddings: Option<bool>,
}

/// The rotary positions of both kinds of layers, in transformers 5.
#[derive(Clone, Debug, Deserialize)]
struct Ropes {
    full_attention: Rope,
    sliding_attention: Rope,
}

fn gelu() -> String {
    "gelu_pytorch_tanh".into()
}

/// A weight of a block: its name in checkpoints, and in GGUF.
type Part = (&'static str, &'static str);

/// The weights of a block, in the order in which it applies them.
const PARTS: [Part; 13] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const ATTENTION_NORM: usize = 0;
const Q: usize = 1;
const K: usize = 2;
const V: usize = 3;
const Q_NORM: usize = 4;
const K_NORM: usize = 5;
const O: usize = 6;
const AFTER_ATTENTION: usize = 7;
const MLP_NORM: usize = 8;
const GATE: usize = 9;
const UP: usize = 10;
const DOWN: usize = 11;
const AFTER_MLP: usize = 12;

/// The model.
#[derive(Debug)]
pub struct Gemma3 {
    config: Gemma3Config,
    shape: Shape,
    /// `config.json` of transformers.
    json: Value,
}

impl Gemma3Config {
    fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let d: Declared = checkpoint.config()?;
        let plain = d.hidden_activation == "gelu_pytorch_tanh"
            && !d.attention_bias
            && !d.use_bidirectional_attention
            && d.tie_word_embeddings != Some(false)
            && d.attn_logit_softcapping.is_none()
            && d.final_logit_softcapping.is_none();
        if !plain {
            return Err(
                Error::data("the model's activation, attention or head is not Gemma 3's own")
                    .hint("checkpoints such as google/gemma-3-270m are supported"),
            );
        }
        let counts = Counts {
            layers: d.num_hidden_layers,
            heads: d.num_attention_heads,
            kv_heads: d.num_key_value_heads,
            head_width: d.head_dim,
            window: d.sliding_window,
        };
        counts.check()?;
        let pattern = d.sliding_window_pattern.unwrap_or(PATTERN).max(1);
        let global = match d.layer_types {
            None => (1..=d.num_hidden_layers)
                .map(|layer| layer.is_multiple_of(pattern))
                .collect(),
            Some(kinds) => shape::look_at_all(&kinds, d.num_hidden_layers)?,
        };
        let [of_global, of_local] = match d.rope_parameters {
            Some(ropes) => [ropes.full_attention, ropes.sliding_attention],
            None => [d.rope_scaling.unwrap_or_default(), Rope::default()],
        };
        Gemma3Config {
            width: d.hidden_size,
            hidden: d.intermediate_size,
            vocabulary: d.vocab_size,
            context: shape::usable(d.max_position_embeddings),
            norm_epsilon: d.rms_norm_eps,
            query_scalar: d.query_pre_attn_scalar,
            attention: counts.attention(
                &global,
                of_global.periods(d.rope_theta.unwrap_or(GLOBAL_BASE), d.head_dim)?,
                of_local.periods(d.rope_local_base_freq.unwrap_or(LOCAL_BASE), d.head_dim)?,
            ),
        }
        .checked()
    }

    fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let key = |name: &str| format!("gemma3.{name}");
        let count = |name: &str| gguf.count(&key(name));
        let counts = Counts {
            layers: count("block_count")?,
            heads: count("attention.head_count")?,
            kv_heads: count("attention.head_count_kv")?,
            head_width: count("attention.key_length")?,
            window: count("attention.sliding_window")?,
        };
        counts.check()?;
        let global: Vec<bool> = (1..=counts.layers).map(|layer| layer.is_multiple_of(PATTERN)).collect();
        let factor = gguf.number(&key("rope.scaling.factor")).unwrap_or(1.0);
        let slowed = match gguf.text(&key("rope.scaling.type")) {
            Ok("none") => 1.0,
            // As llama.cpp has it, a factor without a type is linear.
            Err(_) | Ok("linear") => factor,
            Ok(other) => {
                return Err(Error::data(format!(
                    "the model scales its positions by `{other}`, which is not known"
                ))
                .hint("`linear` is Gemma 3's own"));
            }
        };
        let periods = rotation::periods(
            gguf.number(&key("rope.freq_base")).unwrap_or(GLOBAL_BASE),
            counts.head_width,
        );
        Gemma3Config {
            width: count("embedding_length")?,
            hidden: count("feed_forward_length")?,
            vocabulary: gguf.texts("tokenizer.ggml.tokens")?.len(),
            context: shape::usable(count("context_length")?),
            norm_epsilon: gguf.number(&key("attention.layer_norm_rms_epsilon"))?,
            // A GGUF does not say it. Gemma 3 of 27 billion weights, whose layers are 62, has another than the others.
            query_scalar: match counts.layers {
                62 => count("embedding_length")? as f64 / counts.heads as f64,
                _ => counts.head_width as f64,
            },
            attention: counts.attention(
                &global,
                periods.into_iter().map(|period| period * slowed).collect(),
                rotation::periods(LOCAL_BASE, counts.head_width).into(),
            ),
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let counts = [self.width, self.hidden, self.vocabulary, self.context];
        let fits = counts.iter().all(|n| (1..=MAX_COUNT).contains(n))
            && [self.query_scalar, self.norm_epsilon]
                .iter()
                .all(|n| *n > 0.0 && n.is_finite())
            && self
                .attention
                .iter()
                .flat_map(|a| a.rotation.iter())
                .flat_map(|r| r.iter())
                .all(|p| *p > 0.0 && p.is_finite());
        match fits {
            true => Ok(self),
            false => Err(shape::wrong_counts(&self)),
        }
    }

    fn shape(&self) -> Shape {
        let part = |l: usize, (part, (name, _)): (usize, &Part)| {
            let a = &self.attention[l];
            let (q, kv) = (a.heads * a.head_width, a.kv_heads * a.head_width);
            let map = |output, input| (Kind::Map(Stored::Linear), vec![output, input]);
            let gain = |width| (Kind::Gain(Gain::LessOne), vec![width]);
            let (kind, shape) = match part {
                Q_NORM | K_NORM => gain(a.head_width),
                Q => map(q, self.width),
                K | V => map(kv, self.width),
                O => map(self.width, q),
                GATE | UP => map(self.hidden, self.width),
                DOWN => map(self.width, self.hidden),
                _ => gain(self.width),
            };
            Slot::new(format!("model.layers.{l}.{name}.weight"), kind, shape)
        };
        let block = |l: usize| PARTS.iter().enumerate().map(move |p| part(l, p));
        let table = vec![self.vocabulary, self.width];
        let mut slots = vec![Slot::new("model.embed_tokens.weight", Kind::Table, table)];
        slots.extend((0..self.attention.len()).flat_map(block));
        slots.push(Slot::new(
            "model.norm.weight",
            Kind::Gain(Gain::LessOne),
            vec![self.width],
        ));
        Shape {
            width: self.width,
            vocabulary: self.vocabulary,
            context: self.context,
            attention: self.attention.clone(),
            slots,
        }
    }
}

/// Of all layers.
#[derive(Debug)]
struct Counts {
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    window: usize,
}

impl Counts {
    fn check(&self) -> Result<()> {
        let counts = [self.layers, self.heads, self.kv_heads, self.head_width, self.window];
        let fits = counts.iter().all(|n| (1..=MAX_COUNT).contains(n))
            && self.heads * self.head_width <= MAX_COUNT
            && self.layers <= MAX_LAYERS
            && self.head_width <= MAX_HEAD;
        match fits {
            true => Ok(()),
            false => Err(shape::wrong_counts(self)),
        }
    }

    /// Of each layer; `global` says which look at everything.
    fn attention(&self, global: &[bool], of_global: Arc<[f64]>, of_local: Arc<[f64]>) -> Vec<Attention> {
        let of_layer = |layer: usize| {
            let global = global.get(layer).copied().unwrap_or_default();
            Attention {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_width: self.head_width,
                rotation: Some(if global { of_global.clone() } else { of_local.clone() }),
                window: (!global).then_some(self.window),
            }
        };
        (0..self.layers).map(of_layer).collect()
    }
}

impl Gemma3 {
    fn new(config: Gemma3Config, json: Value) -> Self {
        Gemma3 {
            shape: config.shape(),
            config,
            json,
        }
    }

    /// The model of a checkpoint.
    ///
    /// # Errors
    /// Data: counts that do not fit, another activation, positions that are scaled in a way that is not known.
    pub(super) fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        Ok(Gemma3::new(
            Gemma3Config::from_checkpoint(checkpoint)?,
            hub::exported(checkpoint.json()),
        ))
    }

    /// The model of a GGUF.
    ///
    /// # Errors
    /// Counts that do not fit, a tensor that would be ignored.
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let config = Gemma3Config::from_gguf(gguf)?;
        let json = config.json(gguf);
        let gemma = Gemma3::new(config, json);
        let slots = gemma.shape.slots.iter().enumerate();
        let tensors: Vec<_> = slots
            .map(|(i, slot)| (gemma.gguf_name(i), slot.shape.clone()))
            .collect();
        gguf.require_exactly(&tensors, &[])?;
        Ok(gemma)
    }

    fn gguf_name(&self, slot: usize) -> String {
        match slot.checked_sub(1) {
            None => "token_embd.weight".into(),
            Some(place) if place < self.config.attention.len() * PARTS.len() => {
                format!("blk.{}.{}.weight", place / PARTS.len(), PARTS[place % PARTS.len()].1)
            }
            Some(_) => "output_norm.weight".into(),
        }
    }

    /// The values of a slot: a GGUF holds gains whole.
    ///
    /// # Errors
    /// A tensor that is missing, or has another shape.
    pub(super) fn read_gguf(&self, gguf: &Gguf, slot: usize) -> Result<Held> {
        let held = gguf.tensor(&self.gguf_name(slot), &self.shape.slots[slot].shape)?;
        Ok(Held::Blocks(held))
    }

    fn norm(&self) -> Norm {
        Norm::Rms {
            epsilon: self.config.norm_epsilon,
        }
    }
}

impl Architecture for Gemma3 {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn embed(&self, tokens: Tensor<1, Int>, f: &mut Forward) -> Tensor<2> {
        f.embed(0, tokens) * (self.config.width as f64).sqrt()
    }

    fn block(&self, layer: usize, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        let slot = |part: usize| 1 + layer * PARTS.len() + part;
        let norm = self.norm();
        let h = f.norm(slot(ATTENTION_NORM), norm, x.clone());
        let q = f.map(slot(Q), h.clone());
        let k = f.map(slot(K), h.clone());
        let v = f.map(slot(V), h);
        // Attention itself divides by the root of the head's width.
        let scale = (self.config.attention[layer].head_width as f64 / self.config.query_scalar).sqrt();
        let q = f.norm_heads(slot(Q_NORM), norm, q) * scale;
        let k = f.norm_heads(slot(K_NORM), norm, k);
        let mixed = f.attend(layer, q, k, v);
        let mixed = f.map(slot(O), mixed);
        let x = x + f.norm(slot(AFTER_ATTENTION), norm, mixed);
        let h = f.norm(slot(MLP_NORM), norm, x.clone());
        let gate = f.map(slot(GATE), h.clone());
        let up = f.map(slot(UP), h);
        let down = f.map(slot(DOWN), geglu(gate, up));
        x + f.norm(slot(AFTER_MLP), norm, down)
    }

    fn last(&self, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        f.norm(self.shape.slots.len() - 1, self.norm(), x)
    }

    fn config(&self) -> Value {
        self.json.clone()
    }

    fn ignores(&self, name: &str) -> bool {
        // The table again, which is the head.
        name == "lm_head.weight"
    }
}

impl Gemma3Config {
    /// `config.json` of a model that came as a GGUF.
    fn json(&self, gguf: &Gguf) -> Value {
        let a = &self.attention[0];
        let kinds = self.attention.iter().map(|a| match a.window {
            None => "full_attention",
            Some(_) => "sliding_attention",
        });
        let kinds: Vec<&str> = kinds.collect();
        let base = gguf.number("gemma3.rope.freq_base").unwrap_or(GLOBAL_BASE);
        // As it was computed: the fastest pair turns once a position, or a factor slower.
        let first = |a: &Attention| a.rotation.as_ref().and_then(|r| r.first().copied());
        let factor = self
            .attention
            .iter()
            .find(|a| a.window.is_none())
            .and_then(first)
            .unwrap_or(1.0);
        let global = match factor == 1.0 {
            false => json!({ "rope_type": "linear", "factor": factor, "rope_theta": base }),
            true => json!({ "rope_type": "default", "rope_theta": base }),
        };
        json!({
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "attention_bias": false,
            "attention_dropout": 0.0,
            "head_dim": a.head_width,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": self.width,
            "initializer_range": 0.02,
            "intermediate_size": self.hidden,
            "layer_types": kinds,
            "max_position_embeddings": self.context,
            "num_attention_heads": a.heads,
            "num_hidden_layers": self.attention.len(),
            "num_key_value_heads": a.kv_heads,
            "query_pre_attn_scalar": self.query_scalar,
            "rms_norm_eps": llama::epsilon(self.norm_epsilon),
            // What transformers 4 and 5 name differently stands under both names.
            "rope_parameters": {
                "full_attention": global,
                "sliding_attention": { "rope_type": "default", "rope_theta": LOCAL_BASE },
            },
            "rope_local_base_freq": LOCAL_BASE,
            "rope_theta": base,
            "sliding_window": self.attention.iter().find_map(|a| a.window),
            "tie_word_embeddings": true,
            "use_cache": true,
            "vocab_size": self.vocabulary,
        })
    }
}
