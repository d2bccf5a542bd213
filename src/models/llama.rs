//! Llama (Touvron et al. 2023) and the families that differ from it by a bias, a norm or a head of its own: RMSNorm, rotary
//! positions, grouped-query attention, SwiGLU. SmolLM2, Mistral, Qwen2.5 and Qwen3.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fused::swiglu;
use super::language_model::{Architecture, Forward, Norm};
use super::load::Held;
use super::load::gguf::Gguf;
use super::load::hub::{self, Checkpoint};
use super::rotation::{self, Rope};
use super::shape::{self, Attention, Gain, Kind, MAX_COUNT, MAX_HEAD, MAX_LAYERS, Shape, Slot, Stored};
use crate::{Error, Result};

/// What decides what is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    pub layers: usize,
    pub width: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    pub vocabulary: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// By layer: a token sees so many, itself among them; none: all before it. Layers without an entry see all.
    pub windows: Vec<Option<usize>>,
    pub rope_base: f64,
    /// Positions in which each pair of a head turns by a radian: those of `rope_base`, or scaled.
    pub rotation: Arc<[f64]>,
    pub norm_epsilon: f64,
    /// Something is added to queries, keys and values.
    pub qkv_bias: bool,
    /// Something is added to what attention gives.
    pub o_bias: bool,
    /// Queries and keys are normed, head by head.
    pub head_norms: bool,
    /// The table of tokens is the head too.
    pub tied: bool,
}

/// `config.json`, as far as it decides what is computed.
#[derive(Clone, Debug, Deserialize)]
struct Declared {
    model_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

impl Declared {
    /// What each layer looks through: of Mistral and Qwen alone, with the defaults of transformers.
    fn windows(&self, checkpoint: &Checkpoint) -> Result<Vec<Option<usize>>> {
        const OF_MISTRAL: usize = 4096;
        const BEFORE_WINDOWS_OF_QWEN: usize = 28;
        let qwen = self.model_type.starts_with("qwen");
        let window = match self.model_type.as_str() {
            "mistral" if checkpoint.json().get("sliding_window").is_none() => Some(OF_MISTRAL),
            "mistral" => self.sliding_window,
            _ if qwen && self.use_sliding_window == Some(true) => self.sliding_window,
            _ => None,
        };
        let before = if qwen {
            self.max_window_layers.unwrap_or(BEFORE_WINDOWS_OF_QWEN)
        } else {
            0
        };
        let all = match &self.layer_types {
            None => (0..self.num_hidden_layers).map(|layer| layer < before).collect(),
            Some(kinds) => shape::look_at_all(kinds, self.num_hidden_layers)?,
        };
        Ok(all.into_iter().map(|all| window.filter(|_| !all)).collect())
    }
}

fn silu() -> String {
    "silu".into()
}

/// `model_type` of the checkpoints that are read here.
pub const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// `general.architecture` of the GGUFs that are read here: Mistral's is Llama's.
pub const GGUF_FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// A weight of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    AttentionNorm,
    Q,
    QBias,
    K,
    KBias,
    V,
    VBias,
    QNorm,
    KNorm,
    O,
    OBias,
    MlpNorm,
    Gate,
    Up,
    Down,
}

impl Part {
    /// Its name in checkpoints, and in GGUF.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Part::AttentionNorm => ("input_layernorm.weight", "attn_norm.weight"),
            Part::Q => ("self_attn.q_proj.weight", "attn_q.weight"),
            Part::QBias => ("self_attn.q_proj.bias", "attn_q.bias"),
            Part::K => ("self_attn.k_proj.weight", "attn_k.weight"),
            Part::KBias => ("self_attn.k_proj.bias", "attn_k.bias"),
            Part::V => ("self_attn.v_proj.weight", "attn_v.weight"),
            Part::VBias => ("self_attn.v_proj.bias", "attn_v.bias"),
            Part::QNorm => ("self_attn.q_norm.weight", "attn_q_norm.weight"),
            Part::KNorm => ("self_attn.k_norm.weight", "attn_k_norm.weight"),
            Part::O => ("self_attn.o_proj.weight", "attn_output.weight"),
            Part::OBias => ("self_attn.o_proj.bias", "attn_output.bias"),
            Part::MlpNorm => ("post_attention_layernorm.weight", "ffn_norm.weight"),
            Part::Gate => ("mlp.gate_proj.weight", "ffn_gate.weight"),
            Part::Up => ("mlp.up_proj.weight", "ffn_up.weight"),
            Part::Down => ("mlp.down_proj.weight", "ffn_down.weight"),
        }
    }
}

/// The model.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    /// The weights of a block, in the order in which it applies them.
    parts: Vec<Part>,
    shape: Shape,
    /// `config.json` of transformers.
    json: Value,
}

impl LlamaConfig {
    /// Reads what a GGUF's metadata declares.
    fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let family = gguf.text("general.architecture")?;
        let key = |name: &str| format!("{family}.{name}");
        let count = |name: &str| gguf.count(&key(name));
        let (width, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let head_width = match count("attention.key_length") {
            Ok(declared) => declared,
            Err(_) => divided(width, heads),
        };
        let partial = count("rope.dimension_count").is_ok_and(|d| d != head_width);
        let scaled = gguf.text(&key("rope.scaling.type")).is_ok_and(|t| t != "none")
            || gguf
                .number(&key("rope.scaling.factor"))
                .is_ok_and(|factor| factor != 1.0);
        if partial || scaled {
            return Err(
                Error::data("the model rotates only a part of each head, or scales its positions")
                    .hint("models with plain rotary positions, or Llama 3's, are supported"),
            );
        }
        let config = LlamaConfig {
            layers: count("block_count")?,
            width,
            hidden: count("feed_forward_length")?,
            heads,
            kv_heads: count("attention.head_count_kv").unwrap_or(heads),
            head_width,
            vocabulary: gguf.texts("tokenizer.ggml.tokens")?.len(),
            context: shape::usable(count("context_length")?),
            windows: Vec::new(),
            rope_base: gguf.number(&key("rope.freq_base")).unwrap_or(10_000.0),
            rotation: Arc::new([]),
            norm_epsilon: gguf.number(&key("attention.layer_norm_rms_epsilon"))?,
            qkv_bias: gguf.has("blk.0.attn_q.bias"),
            o_bias: gguf.has("blk.0.attn_output.bias"),
            head_norms: gguf.has("blk.0.attn_q_norm.weight"),
            tied: !gguf.has("output.weight"),
        };
        config.check()?;
        // What transformers' classes have, so that an export is the same model there.
        let own = match family {
            "qwen2" => config.qkv_bias && !config.o_bias && !config.head_norms,
            "qwen3" => config.head_norms && config.qkv_bias == config.o_bias,
            _ => !config.head_norms && config.qkv_bias == config.o_bias,
        };
        if !own {
            return Err(
                Error::data(format!("the model has biases or norms that a {family} has not"))
                    .hint("use the model's Hugging Face files in the place of its GGUF"),
            );
        }
        let mut rotation = rotation::periods(config.rope_base, head_width);
        // Llama 3's scaling is worked out in the file.
        if gguf.has(FREQUENCIES) {
            let factors = gguf.tensor(FREQUENCIES, &[head_width / 2])?.numbers();
            rotation
                .iter_mut()
                .zip(factors)
                .for_each(|(period, f)| *period *= f64::from(f));
        }
        Ok(LlamaConfig {
            rotation: rotation.into(),
            ..config
        })
    }

    /// Reads what a checkpoint's `config.json` declares.
    fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let d: Declared = checkpoint.config()?;
        let (qwen2, qwen3) = (d.model_type == "qwen2", d.model_type == "qwen3");
        if d.hidden_act != "silu" || d.mlp_bias {
            return Err(Error::data(format!(
                "the model's activation is `{}`{}, which a {} of this program has not",
                d.hidden_act,
                if d.mlp_bias { " with biases" } else { "" },
                d.model_type
            ))
            .hint("docs/guide/models.md says which models can be read"));
        }
        let config = LlamaConfig {
            layers: d.num_hidden_layers,
            width: d.hidden_size,
            hidden: d.intermediate_size,
            heads: d.num_attention_heads,
            kv_heads: d.num_key_value_heads.unwrap_or(d.num_attention_heads),
            head_width: d
                .head_dim
                .unwrap_or_else(|| divided(d.hidden_size, d.num_attention_heads)),
            vocabulary: d.vocab_size,
            context: shape::usable(d.max_position_embeddings),
            windows: Vec::new(),
            rope_base: d.rope_theta.unwrap_or(10_000.0),
            rotation: Arc::new([]),
            norm_epsilon: d.rms_norm_eps,
            qkv_bias: qwen2 || d.attention_bias,
            o_bias: !qwen2 && d.attention_bias,
            head_norms: qwen3,
            tied: (d.tie_word_embeddings).unwrap_or_else(|| checkpoint.has_weights() && !checkpoint.has(HEAD)),
        };
        config.check()?;
        let windows = d.windows(checkpoint)?;
        let rope = d.rope_parameters.or(d.rope_scaling).unwrap_or_default();
        Ok(LlamaConfig {
            rotation: rope.periods(config.rope_base, config.head_width)?,
            windows,
            ..config
        })
    }

    fn check(&self) -> Result<()> {
        let counts = [
            self.layers,
            self.width,
            self.hidden,
            self.heads,
            self.kv_heads,
            self.head_width,
            self.vocabulary,
            self.context,
        ];
        let fits = counts.iter().all(|n| (1..=MAX_COUNT).contains(n))
            && self.layers <= MAX_LAYERS
            && self.head_width <= MAX_HEAD
            && [self.rope_base, self.norm_epsilon]
                .iter()
                .all(|n| *n > 0.0 && n.is_finite())
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_width.is_multiple_of(2)
            && self.heads * self.head_width <= MAX_COUNT;
        match fits {
            true => Ok(()),
            false => Err(shape::wrong_counts(self)),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let all = [
            (Part::AttentionNorm, true),
            (Part::Q, true),
            (Part::QBias, self.qkv_bias),
            (Part::K, true),
            (Part::KBias, self.qkv_bias),
            (Part::V, true),
            (Part::VBias, self.qkv_bias),
            (Part::QNorm, self.head_norms),
            (Part::KNorm, self.head_norms),
            (Part::O, true),
            (Part::OBias, self.o_bias),
            (Part::MlpNorm, true),
            (Part::Gate, true),
            (Part::Up, true),
            (Part::Down, true),
        ];
        all.into_iter()
            .filter(|(_, there)| *there)
            .map(|(part, _)| part)
            .collect()
    }

    /// What such a model declares.
    pub fn shape(&self) -> Shape {
        let (q, kv) = (self.heads * self.head_width, self.kv_heads * self.head_width);
        let of_part = |part: Part| {
            let map = |output, input| (Kind::Map(Stored::Linear), vec![output, input]);
            let gain = |width| (Kind::Gain(Gain::Whole), vec![width]);
            match part {
                Part::AttentionNorm | Part::MlpNorm => gain(self.width),
                Part::QNorm | Part::KNorm => gain(self.head_width),
                Part::Q => map(q, self.width),
                Part::K | Part::V => map(kv, self.width),
                Part::O => map(self.width, q),
                Part::Gate | Part::Up => map(self.hidden, self.width),
                Part::Down => map(self.width, self.hidden),
                Part::QBias => (Kind::Shift, vec![q]),
                Part::KBias | Part::VBias => (Kind::Shift, vec![kv]),
                Part::OBias => (Kind::Shift, vec![self.width]),
            }
        };
        let parts = self.parts();
        let slot_of = |layer: usize, part: Part| {
            let (kind, shape) = of_part(part);
            Slot::new(format!("model.layers.{layer}.{}", part.names().0), kind, shape)
        };
        let table = vec![self.vocabulary, self.width];
        let mut slots = vec![Slot::new("model.embed_tokens.weight", Kind::Table, table.clone())];
        slots.extend((0..self.layers).flat_map(|layer| parts.iter().map(move |part| slot_of(layer, *part))));
        slots.push(Slot::new(
            "model.norm.weight",
            Kind::Gain(Gain::Whole),
            vec![self.width],
        ));
        slots.extend((!self.tied).then(|| Slot::new(HEAD, Kind::Head, table)));
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_width: self.head_width,
            rotation: Some(self.rotation.clone()),
            window: None,
        };
        let of_layer = |layer: usize| Attention {
            window: self.windows.get(layer).copied().flatten(),
            ..attention.clone()
        };
        Shape {
            width: self.width,
            vocabulary: self.vocabulary,
            context: self.context,
            attention: (0..self.layers).map(of_layer).collect(),
            slots,
        }
    }
}

/// A head of its own, in checkpoints.
const HEAD: &str = "lm_head.weight";

/// What each pair's period is multiplied with, in a GGUF of Llama 3.
const FREQUENCIES: &str = "rope_freqs.weight";

/// `width / heads`, or 0 where that is no count: [`LlamaConfig::check`] refuses it.
fn divided(width: usize, heads: usize) -> usize {
    match heads > 0 && width.is_multiple_of(heads) {
        true => width / heads,
        false => 0,
    }
}

impl Llama {
    /// A model of these counts, whose `config.json` is `json`.
    pub fn new(config: LlamaConfig, json: Value) -> Self {
        Llama {
            shape: config.shape(),
            parts: config.parts(),
            json,
            config,
        }
    }

    /// The model of a checkpoint.
    ///
    /// # Errors
    /// Data: counts that do not fit, another activation, positions that are scaled in a way that is not known.
    pub(super) fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let config = LlamaConfig::from_checkpoint(checkpoint)?;
        let mut json = hub::exported(checkpoint.json());
        // Where it is not said, the tensors say it.
        json["tie_word_embeddings"] = config.tied.into();
        Ok(Llama::new(config, json))
    }

    /// Name and shape of each tensor of a GGUF that holds such a model.
    pub fn gguf_tensors(&self) -> Vec<(String, Vec<usize>)> {
        let slots = self.shape.slots.iter().enumerate();
        slots.map(|(i, slot)| (self.gguf_name(i), slot.shape.clone())).collect()
    }

    /// The model of a GGUF.
    ///
    /// # Errors
    /// Counts that do not fit, a tensor that would be ignored.
    pub(super) fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let config = LlamaConfig::from_gguf(gguf)?;
        let json = config.json(gguf.text("general.architecture")?, gguf.has(FREQUENCIES))?;
        let llama = Llama::new(config, json);
        gguf.require_exactly(&llama.gguf_tensors(), &[FREQUENCIES])?;
        Ok(llama)
    }

    /// The layer of a slot and what it is there; none of the table, of the last norm and of the head.
    fn part(&self, slot: usize) -> Option<(usize, Part)> {
        let of_all = self.parts.len();
        let place = slot
            .checked_sub(1)
            .filter(|place| *place < self.config.layers * of_all)?;
        Some((place / of_all, self.parts[place % of_all]))
    }

    fn gguf_name(&self, slot: usize) -> String {
        match (self.part(slot), self.shape.slots[slot].kind) {
            (Some((layer, part)), _) => format!("blk.{layer}.{}", part.names().1),
            (None, Kind::Table) => "token_embd.weight".into(),
            (None, Kind::Head) => "output.weight".into(),
            (None, _) => "output_norm.weight".into(),
        }
    }

    /// What the file holds of a slot.
    ///
    /// # Errors
    /// A tensor that is missing, or has another shape.
    pub(super) fn read_gguf(&self, gguf: &Gguf, slot: usize) -> Result<Held> {
        let shape = &self.shape.slots[slot].shape;
        let held = gguf.tensor(&self.gguf_name(slot), shape)?;
        let interleaved = gguf.text("general.architecture")? == "llama";
        let rows = shape[0];
        let from = |row: usize| interleaved_row(row, self.config.head_width);
        Ok(match self.part(slot) {
            Some((_, Part::Q | Part::K)) if interleaved => Held::Blocks(held.reordered(rows, from)),
            // Blocks of a vector are no rows.
            Some((_, Part::QBias | Part::KBias)) if interleaved => {
                let numbers = held.numbers();
                Held::Numbers((0..rows).map(|row| numbers[from(row)]).collect())
            }
            _ => Held::Blocks(held),
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
        let slot = |part: Part| {
            let place = self.parts.iter().position(|own| *own == part);
            1 + layer * self.parts.len() + place.expect("the block has this part")
        };
        let norm = self.norm();
        let h = f.norm(slot(Part::AttentionNorm), norm, x.clone());
        let mut q = f.map(slot(Part::Q), h.clone());
        let mut k = f.map(slot(Part::K), h.clone());
        let v = f.map(slot(Part::V), h);
        if self.config.head_norms {
            q = f.norm_heads(slot(Part::QNorm), norm, q);
            k = f.norm_heads(slot(Part::KNorm), norm, k);
        }
        let mixed = f.attend(layer, q, k, v);
        let x = x + f.map(slot(Part::O), mixed);
        let h = f.norm(slot(Part::MlpNorm), norm, x.clone());
        let gate = f.map(slot(Part::Gate), h.clone());
        let up = f.map(slot(Part::Up), h);
        x + f.map(slot(Part::Down), swiglu(gate, up))
    }

    fn last(&self, x: Tensor<2>, f: &mut Forward) -> Tensor<2> {
        f.norm(1 + self.config.layers * self.parts.len(), self.norm(), x)
    }

    fn config(&self) -> Value {
        self.json.clone()
    }

    fn ignores(&self, name: &str) -> bool {
        // The table again, where it is the head, and what older ones hold of rotary
        // positions.
        (self.config.tied && name == HEAD) || name.ends_with("rotary_emb.inv_freq")
    }
}

impl Llama {
    fn norm(&self) -> Norm {
        Norm::Rms {
            epsilon: self.config.norm_epsilon,
        }
    }
}

impl LlamaConfig {
    /// `config.json` of a model that came as a GGUF of `family`, whose rotary positions are `scaled` or not.
    ///
    /// # Errors
    /// Data: positions are scaled by numbers that are not Llama 3's.
    fn json(&self, family: &str, scaled: bool) -> Result<Value> {
        let class = match family {
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        let rope = match scaled {
            false => json!({ "rope_type": "default", "rope_theta": self.rope_base }),
            true => self.llama3()?,
        };
        let mut out = json!({
            "architectures": [class],
            "model_type": family,
            "attention_bias": self.o_bias,
            "attention_dropout": 0.0,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "hidden_size": self.width,
            "initializer_range": 0.02,
            "intermediate_size": self.hidden,
            "max_position_embeddings": self.context,
            "mlp_bias": false,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": epsilon(self.norm_epsilon),
            // What transformers 4 and 5 name differently stands under both names.
            "rope_parameters": rope,
            "rope_theta": self.rope_base,
            "tie_word_embeddings": self.tied,
            "use_cache": true,
            "vocab_size": self.vocabulary,
        });
        if scaled {
            out["rope_scaling"] = out["rope_parameters"].clone();
        }
        Ok(out)
    }

    /// The scaling of Llama 3 that makes this rotation: a GGUF has what came of it alone. It is found among those of the usual
    /// bounds, whose slowest pair says the factor.
    fn llama3(&self) -> Result<Value> {
        let base = self.rope_base;
        let plain = rotation::periods(base, self.head_width);
        let factor = plain
            .last()
            .zip(self.rotation.last())
            .map_or(1.0, |(plain, own)| own / plain);
        let of = |original: u32| {
            json!({
                "rope_type": "llama3", "rope_theta": base, "factor": (factor * 1e3).round() / 1e3, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": original,
            })
        };
        let is_it = |declared: &Value| {
            let rope: Rope = serde_json::from_value(declared.clone()).expect("it is whole");
            let periods = rope.periods(base, self.head_width);
            let near = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 1e-4;
            periods.is_ok_and(|periods| periods.iter().zip(self.rotation.iter()).all(near))
        };
        (4..20).rev().map(|power| of(1 << power)).find(is_it).ok_or_else(|| {
            Error::data("the model scales its positions in a way that is not Llama 3's")
                .hint("use the model's Hugging Face files in the place of its GGUF")
        })
    }
}

/// GGUF holds it as f32: 1e-5 comes back as 9.999999747378752e-6, which is the same f32.
pub(super) fn epsilon(value: f64) -> f64 {
    format!("{}", value as f32).parse().unwrap_or(value)
}

/// Where a row of Q or K stands in a GGUF, whose heads are permuted for interleaved rotation: `[2, head_width / 2]` became
/// `[head_width / 2, 2]`.
fn interleaved_row(row: usize, head: usize) -> usize {
    let (start, within) = (row / head * head, row % head);
    let (part, pair) = (within / (head / 2), within % (head / 2));
    start + pair * 2 + part
}
