//! What is measured: a model on a device, and the public prompts before its records.

use std::sync::Arc;

use burn::tensor::Device;

use super::synthetic;
use crate::assets::{self, Locations};
use crate::config::RunConfig;
use crate::models::llama::{Llama, LlamaConfig};
use crate::models::{Architecture, LanguageModel, ModelFiles, nf4, rotation};
use crate::progress::Progress;
use crate::records::{Encoded, LabelSpace, Vocabulary, prompt};
use crate::training::trainable;
use crate::{Error, Result};

/// The end token of a model that has no vocabulary of its own.
const SYNTHETIC_END: u32 = 2;

/// Random weights of no more bytes are made.
const MOST_BYTES: usize = 16_000_000_000;

/// The shape of SmolLM2-135M.
pub fn model_shape() -> LlamaConfig {
    LlamaConfig {
        layers: 30,
        width: 576,
        hidden: 1536,
        heads: 9,
        kv_heads: 3,
        vocabulary: 49_152,
        context: 8192,
        windows: Vec::new(),
        head_width: 64,
        rope_base: 100_000.0,
        rotation: rotation::periods(100_000.0, 64).into(),
        norm_epsilon: 1e-5,
        qkv_bias: false,
        o_bias: false,
        head_norms: false,
        tied: true,
    }
}

/// A model and what its records begin with.
pub struct Subject {
    /// What it is, for people.
    pub name: String,
    pub model: LanguageModel,
    /// The prompt of each label, in tokens.
    pub prompts: Vec<Vec<u32>>,
    /// The token that ends a record.
    pub end: u32,
}

impl Subject {
    /// The model and the prompts of `config`. Reads no record.
    ///
    /// # Errors
    /// As a run's: a model that is nowhere or broken, prompts that do not render.
    pub fn of_config(
        config: &RunConfig,
        device: &Device,
        locations: &Locations,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let files = assets::language_model(&config.model, locations, progress)?;
        let files = ModelFiles::open(&files.language_model()?.path)?;
        let vocabulary = Vocabulary::of(&files)?;
        let labels = LabelSpace::from_config(&config.dataset.labels)?;
        let texts = prompt::prompts(&config.prompt, &labels, vocabulary.chat_template())?;
        Ok(Subject {
            name: config.model.name(),
            model: trainable::base(&config.finetune, &files, device)?,
            prompts: texts.iter().map(|t| vocabulary.prompt(t)).collect::<Result<_>>()?,
            end: vocabulary.end(),
        })
    }

    /// A model of random weights, its maps `packed` or not, and two prompts of `prompt_tokens` made-up tokens.
    ///
    /// # Errors
    /// Usage: counts that do not fit together, no token, or more than the context; too many weights.
    pub fn synthetic(
        architecture: Arc<dyn Architecture>,
        packed: bool,
        prompt_tokens: usize,
        device: &Device,
    ) -> Result<Self> {
        let shape = architecture.shape().clone();
        let in_maps = shape.over_maps(|input, output| input * output);
        let bytes = match packed {
            true => 4 * (shape.parameters() - in_maps) + nf4::Nf4::bytes(in_maps),
            false => 4 * shape.parameters(),
        };
        if bytes > MOST_BYTES {
            return Err(refused(format!(
                "{:.1} GB of weights are more than the {:.0} that are made up here",
                bytes as f64 / 1e9,
                MOST_BYTES as f64 / 1e9
            )));
        }
        if !(1..shape.context).contains(&prompt_tokens) {
            return Err(refused(format!(
                "a prompt of {prompt_tokens} tokens leaves no room in a context of {}",
                shape.context
            )));
        }
        let prompt = |label: usize| made_up(label, prompt_tokens, shape.vocabulary);
        Ok(Subject {
            name: "synthetic".into(),
            model: synthetic::model(architecture, packed, device)?,
            prompts: (0..2).map(prompt).collect(),
            end: SYNTHETIC_END.min(shape.vocabulary as u32 - 1),
        })
    }

    /// Refuses records of no token, or of more than the model's context has room for.
    ///
    /// # Errors
    /// Usage.
    pub fn room_for(&self, tokens: usize) -> Result<()> {
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = self.model.shape().context.saturating_sub(longest);
        match (1..=room).contains(&tokens) {
            true => Ok(()),
            false => Err(
                Error::usage(format!("--tokens must be from 1 to {room}, not {tokens}")).hint(format!(
                    "the model's context leaves {room} tokens behind a prompt of {longest}"
                )),
            ),
        }
    }

    /// `count` records of `tokens` made-up tokens behind the prompts, label by label in turn.
    ///
    /// # Errors
    /// Usage: no token, or more than the model's context has room for.
    pub fn records(&self, count: usize, tokens: usize) -> Result<Vec<Encoded>> {
        self.room_for(tokens)?;
        let record = |i: usize| {
            let label = i % self.prompts.len();
            let prompt = &self.prompts[label];
            let text = made_up(self.prompts.len() + i, tokens, self.model.shape().vocabulary);
            Encoded {
                tokens: prompt.iter().copied().chain(text).collect(),
                prompt: prompt.len(),
                label,
            }
        };
        Ok((0..count).map(record).collect())
    }
}

/// Token ids that look like no language and repeat now and then.
fn made_up(seed: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count)
        .map(|t| ((7919 * seed + 104_729 * t + 31 * t * t) % vocabulary) as u32)
        .collect()
}

/// The family of these counts, which a person chose.
///
/// # Errors
/// Usage: counts that do not fit together.
pub fn of_counts(counts: LlamaConfig) -> Result<Arc<dyn Architecture>> {
    check(&counts)?;
    Ok(Arc::new(Llama::new(counts, serde_json::Value::Null)))
}

fn check(c: &LlamaConfig) -> Result<()> {
    let counts = [
        ("layers", c.layers, 1024),
        ("width", c.width, 1 << 16),
        ("hidden", c.hidden, 1 << 18),
        ("heads", c.heads, 1024),
        ("kv-heads", c.kv_heads, 1024),
        ("vocabulary", c.vocabulary, 1 << 20),
    ];
    for (flag, value, most) in counts {
        if !(1..=most).contains(&value) {
            return Err(refused(format!("--{flag} must be from 1 to {most}, not {value}")));
        }
    }
    let (width, heads, kv_heads) = (c.width, c.heads, c.kv_heads);
    if !width.is_multiple_of(2 * heads) {
        return Err(refused(format!(
            "{heads} heads do not divide a width of {width} into heads of an even width"
        )));
    }
    if !heads.is_multiple_of(kv_heads) {
        return Err(refused(format!("{kv_heads} heads of keys do not divide {heads} heads")));
    }
    Ok(())
}

fn refused(message: String) -> Error {
    Error::usage(message).hint("without these flags the shape is SmolLM2-135M's: width 576, 9 heads, 3 of keys")
}
