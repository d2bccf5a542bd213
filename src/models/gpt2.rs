//! GPT-2 (Radford et al. 2019): LayerNorm, learned positions, one map for queries, keys and values, GELU.

use burn::tensor::{Int, Tensor, activation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::language_model::{Architecture, Forward, Norm};
use super::load::hub::Checkpoint;
use super::shape::{self, Attention, Gain, Kind, MAX_LAYERS, Shape, Slot, Stored};
use crate::{Error, Result};

/// `config.json`, as far as it decides what is computed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gpt2Config {
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    /// Longest sequence in tokens.
    n_positions: usize,
    /// Width of the map between; four times `n_embd` unless given.
    n_inner: Option<usize>,
    vocab_size: usize,
    layer_norm_epsilon: f64,
    #[serde(default = "gelu_new")]
    activation_function: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
}

fn gelu_new() -> String {
    "gelu_new".into()
}

fn yes() -> bool {
    true
}

/// The weights of a block, in the order in which it applies them.
const PARTS: [&str; 12] = [
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
];
const LN_1: usize = 0;
const QKV: usize = 2;
const PROJECTION: usize = 4;
const LN_2: usize = 6;
const UP: usize = 8;
const DOWN: usize = 10;

/// The model.
#[derive(Debug)]
pub struct Gpt2 {
    config: Gpt2Config,
    shape: Shape,
}

impl Gpt2Config {
    fn check(&self) -> Result<()> {
        let counts = [
            self.n_layer,
            self.n_embd,
            self.n_head,
            self.n_positions,
            self.vocab_size,
        ];
        let fits = counts.iter().all(|n| (1..=1 << 20).contains(n))
            && self.n_embd.is_multiple_of(2 * self.n_head)
            && (1..=1 << 20).contains(&self.hidden())
            && self.n_layer <= MAX_LAYERS
            && self.layer_norm_epsilon > 0.0
            && self.layer_norm_epsilon.is_finite();
        if !fits {
            return Err(Error::data(format!("the model's counts do not fit together: {self:?}"))
                .hint("check that config.json is the model's own"));
        }
        let plain =
            self.activation_function == "gelu_new" && self.scale_attn_weights && !self.scale_attn_by_inverse_layer_idx;
        match plain {
            true => Ok(()),
            false => Err(Error::data("the model's activation or attention is not GPT-2's own")
                .hint("checkpoints such as openai-community/gpt2 are supported")),
        }
    }

    fn hidden(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    fn shape(&self) -> Shape {
        let (width, hidden) = (self.n_embd, self.hidden());
        let part = |l: usize, (part, name): (usize, &&str)| {
            let map = |output, input| (Kind::Map(Stored::Conv1d), vec![output, input]);
            let (kind, shape) = match part {
                LN_1 | LN_2 => (Kind::Gain(Gain::Whole), vec![width]),
                QKV => map(3 * width, width),
                PROJECTION => map(width, width),
                UP => map(hidden, width),
                DOWN => map(width, hidden),
                _ if part == QKV + 1 => (Kind::Shift, vec![3 * width]),
                _ if part == UP + 1 => (Kind::Shift, vec![hidden]),
                _ => (Kind::Shift, vec![width]),
            };
            slot(&format!("h.{l}.{name}"), kind, shape)
        };
        let mut slots = vec![
            slot("wte.weight", Kind::Table, vec![self.vocab_size, width]),
            slot("wpe.weight", Kind::Positions, vec![self.n_positions, width]),
        ];
        slots.extend((0..self.n_layer).flat_map(|l| PARTS.iter().enumerate().map(move |p| part(l, p))));
        slots.push(slot("ln_f.weight", Kind::Gain(Gain::Whole), vec![width]));
        slots.push(slot("ln_f.bias", Kind::Shift, vec![width]));
        let head = || Slot::new(HEAD, Kind::Head, vec![self.vocab_size, width]);
        slots.extend((!self.tie_word_embeddings).then(head));
        let attention = Attention {
            heads: self.n_head,
            kv_heads: self.n_head,
            head_width: width / self.n_head,
            rotation: None,
            window: None,
        };
        Shape {
            width,
            vocabulary: self.vocab_size,
            context: shape::usable(self.n_positions),
            attention: vec![attention; self.n_layer],
            slots,
        }
    }
}

/// A head of its own.
const HEAD: &str = "lm_head.weight";

fn slot(name: &str, kind: Kind, shape: Vec<usize>) -> Slot {
    Slot::new(format!("transformer.{name}"), kind, shape)
}

impl Gpt2 {
    /// The model of a checkpoint.
    ///
    /// # Errors
    /// Data: counts that do not fit, another activation.
    pub(super) fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let config: Gpt2Config = checkpoint.config()?;
        config.check()?;
        let gpt2 = Gpt2 {
            shape: config.shape(),
            config,
        };
        Ok(gpt2)
    }

    fn norm(&self) -> Norm {
        Norm::Layer {
            epsilon: self.config.layer_norm_epsilon,
        }
    }
}

impl Architecture for Gpt2 {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn embed(&self, tokens: Tensor<1, Int>, f: &mut Forward) -> Tensor<2> {
        let x = f.embed(0, tokens);
        x + f.positions(1)
    }

    fn block(&self, layer: usize, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        let slot = |part: usize| 2 + layer * PARTS.len() + part;
        let (norm, width) = (self.norm(), self.config.n_embd);
        let h = f.norm(slot(LN_1), norm, x.clone());
        let qkv = f.map(slot(QKV), h);
        let part = |i: usize| qkv.clone().narrow(1, i * width, width);
        let mixed = f.attend(layer, part(0), part(1), part(2));
        let x = x + f.map(slot(PROJECTION), mixed);
        let h = f.norm(slot(LN_2), norm, x.clone());
        let up = f.map(slot(UP), h);
        x + f.map(slot(DOWN), activation::gelu_approximate(up))
    }

    fn last(&self, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        f.norm(2 + self.config.n_layer * PARTS.len(), self.norm(), x)
    }

    fn config(&self) -> Value {
        let c = &self.config;
        json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "activation_function": c.activation_function,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "initializer_range": 0.02,
            "layer_norm_epsilon": c.layer_norm_epsilon,
            "n_embd": c.n_embd,
            "n_head": c.n_head,
            "n_inner": c.n_inner,
            "n_layer": c.n_layer,
            "n_positions": c.n_positions,
            "resid_pdrop": 0.0,
            "scale_attn_weights": true,
            "tie_word_embeddings": c.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": c.vocab_size,
        })
    }

    fn ignores(&self, name: &str) -> bool {
        // The hub's own files hold the causal mask too, and some the table again,
        // where it is the head.
        let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
        mask || (self.config.tie_word_embeddings && name == HEAD)
    }
}
