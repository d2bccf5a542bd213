//! The fine-tuned model as Hugging Face files, which transformers, PEFT and vLLM load.
//!
//! The merged model stands at the top of the folder, since that is where `from_pretrained` and vLLM look when they are
//! given a folder or a repository of the hub, whose page shows the README there. The adapter alone stands in `adapter/`:
//! were its `adapter_config.json` at the top too, `from_pretrained` would take the folder for an adapter and look for its
//! base elsewhere. `base/`, on request, is the base model as it was fine-tuned: its 4-bit weights, dequantised.
//!
//! Weights are made on the CPU in f32: the same run gives the same bytes.

mod card;
mod hub;
mod weights;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::claim::{Claim, SCHEMA};
use super::clearance::Cleared;
use super::folder;
use crate::assets::{self, Locations};
use crate::config::Method;
use crate::facts::Facts;
use crate::models::device;
use crate::models::ia3::Scales;
use crate::models::lora::Adapter;
use crate::models::vectors::Vectors;
use crate::models::weights::Weights;
use crate::models::{LanguageModel, ModelFiles};
use crate::privacy::Class;
use crate::progress::{Progress, Unit};
use crate::records::Vocabulary;
use crate::training::trainable::{self, Trainable};
use crate::{Error, Result};
pub use weights::Dtype;
use weights::Tensors;

/// Metadata of the weights, as `save_pretrained` writes it.
const TORCH: (&str, &str) = ("format", "pt");

/// What is exported, besides the model and its adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Element type of the merged model's and the base's weights; the adapter stays in f32.
    pub dtype: Dtype,
    /// The base model too.
    pub with_base: bool,
}

/// A file of an export, and why it may leave.
#[derive(Debug, Serialize)]
pub struct Part {
    /// In the folder, with `/`.
    pub path: String,
    /// How many; of weights without their header of some kilobytes.
    pub bytes: u64,
    /// The least public thing that is in it.
    pub class: Class,
    /// Why it may leave.
    pub why: &'static str,
    #[serde(skip)]
    content: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    Weights(Tensors),
}

/// All files of an export, made of a cleared run alone (P9).
#[derive(Debug)]
pub struct Export {
    parts: Vec<Part>,
    sentence: String,
}

/// What the files are made of besides weights.
struct Sources<'a> {
    facts: &'a Facts,
    model: &'a LanguageModel,
    vocabulary: &'a Vocabulary,
    /// File name of the base model.
    file: Option<&'a str>,
    options: Options,
}

impl Export {
    /// Of a run that may leave. The base model is read, and fetched where it is not on this machine any more.
    ///
    /// # Errors
    /// Data: the base model is another one now, or a file of the run is damaged; a weight is beyond [`Options::dtype`].
    pub fn of(cleared: &Cleared, options: Options, locations: &Locations, progress: &dyn Progress) -> Result<Self> {
        let facts = cleared.facts();
        let (config, f) = (&facts.config, &facts.config.finetune);
        let file = assets::language_model(&config.model, locations, progress)?;
        let file = file.language_model()?;
        file.require(&facts.base_model.sha256)?;
        let files = ModelFiles::open(&file.path)?;
        let vocabulary = Vocabulary::of(&files)?;
        // As it was trained beside: what it was packed to is what was trained.
        let base = trainable::base(f, &files, &device::choose(crate::config::DeviceChoice::Cpu)?)?.unpacked();
        let own = file.path.file_name().unwrap_or_default().to_string_lossy();
        let sources = Sources {
            facts,
            model: &base,
            vocabulary: &vocabulary,
            file: match (file.path.is_dir(), &facts.base_model.repo) {
                (true, _) => None,
                (false, Some(_)) => Some(&own),
                // A local file's name is the machine's.
                (false, None) => Some("the base model.gguf"),
            },
            options,
        };
        let mut parts = sources.described()?;
        let (merged, adapter) = match f.method {
            Method::Full => (Weights::load(&facts.trained, &base)?, None),
            Method::Bitfit => {
                let vectors = Vectors::load(&facts.trained, &base)?;
                (Weights::of(&vectors.merged(&base)), None)
            }
            Method::Ia3 => {
                let scales = Scales::load(&facts.trained, &base)?;
                (Weights::of(&scales.merged(&base)), None)
            }
            Method::SoftPrompt => {
                return Err(Error::usage(
                    "a soft prompt is no weight of the model, and no other program adds it: there is nothing to export",
                )
                .hint("`dpsynth release` hands out the records; finetune.method = \"bitfit\" trains few weights that are the model's"));
            }
            Method::Lora | Method::Qlora | Method::LoraFa => {
                let adapter = Adapter::load(&facts.trained, base.shape(), f.rank, f.alpha)?;
                (Weights::of(&adapter.merged(&base)), Some(adapter))
            }
        };
        parts.extend(sources.model("", &merged, Class::Charged, TRAINED)?);
        if let Some(adapter) = adapter {
            parts.extend(sources.adapter(&adapter)?);
        }
        if options.with_base {
            parts.extend(sources.model("base/", &Weights::of(&base), Class::Public, UNTRAINED)?);
        }
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Export {
            parts,
            sentence: facts.guarantee.to_string(),
        })
    }

    /// The files, by path.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The guarantee whole (P10), in a line.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Writes the folder `to`: all of it, on disk, or nothing.
    ///
    /// # Errors
    /// Usage: there is something at `to`. Interrupted: `stop` was set. Other: it cannot be written.
    pub fn write(&self, to: &Path, stop: &AtomicBool, progress: &dyn Progress) -> Result<()> {
        let task = progress.begin("export", self.parts.iter().map(|p| p.bytes).sum(), Unit::Bytes);
        folder::write(to, |inside| {
            let mut written = 0;
            for part in &self.parts {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::interrupted("stopped; nothing was written").hint("the same command begins anew"));
                }
                let path = inside.join(&part.path);
                match &part.content {
                    Content::Bytes(bytes) => folder::write_file(&path, bytes)?,
                    Content::Weights(tensors) => tensors.write(&path)?,
                }
                written += part.bytes;
                task.set(written, &part.path);
            }
            Ok(())
        })
    }
}

const TRAINED: &str = "what private training paid for";
const UNTRAINED: &str = "the base model as it is published, in another element type where it was stored in one";
const OF_THE_BASE: &str = "the base model's own, and settings of the run";

impl Sources<'_> {
    /// What says what the model is.
    fn described(&self) -> Result<Vec<Part>> {
        let why = "settings and the plan's guarantee";
        let claim = Claim::of(self.facts)?;
        Ok(vec![
            Part::text("README.md", card::render(self)?, Class::PostProcessing, why),
            Part::json("privacy.json", &claim, Class::PostProcessing, why),
            Part::text(
                "privacy.schema.json",
                SCHEMA.into(),
                Class::Public,
                "the same for every run",
            ),
        ])
    }

    /// A model with its tokenizer, below `folder`.
    fn model(&self, folder: &str, weights: &Weights, class: Class, why: &'static str) -> Result<Vec<Part>> {
        let (shape, template) = (self.model.shape(), &self.vocabulary.chat_template().text);
        let special = self.vocabulary.special();
        let public =
            |name: &str, value: &Value| Part::json(&format!("{folder}{name}"), value, Class::Public, OF_THE_BASE);
        let tokenizer = self.vocabulary.to_json()?;
        Ok(vec![
            public(
                "config.json",
                &hub::config(self.model.architecture(), special, self.options.dtype),
            ),
            public("generation_config.json", &hub::generation(&self.facts.config, special)),
            Part::text(
                &format!("{folder}tokenizer.json"),
                tokenizer,
                Class::Public,
                OF_THE_BASE,
            ),
            public("tokenizer_config.json", &hub::tokenizer(shape, special, template)),
            public("special_tokens_map.json", &hub::special_tokens(special)),
            Part {
                path: format!("{folder}model.safetensors"),
                ..Part::weights(Tensors::of(weights, self.options.dtype)?, class, why)
            },
        ])
    }

    fn adapter(&self, adapter: &Adapter) -> Result<Vec<Part>> {
        let (f, base) = (&self.facts.config.finetune, &self.facts.base_model);
        let config = hub::adapter(self.model.shape(), f.rank, f.alpha, base);
        Ok(vec![
            Part::json("adapter/adapter_config.json", &config, Class::Public, OF_THE_BASE),
            Part {
                path: "adapter/adapter_model.safetensors".into(),
                ..Part::weights(Tensors::of_adapter(adapter)?, Class::Charged, TRAINED)
            },
        ])
    }
}

impl Part {
    fn text(path: &str, text: String, class: Class, why: &'static str) -> Self {
        Part {
            path: path.into(),
            bytes: text.len() as u64,
            class,
            why,
            content: Content::Bytes(text.into_bytes()),
        }
    }

    fn json(path: &str, value: &impl Serialize, class: Class, why: &'static str) -> Self {
        let text = serde_json::to_string_pretty(value).expect("a value serialises");
        Part::text(path, text + "\n", class, why)
    }

    fn weights(tensors: Tensors, class: Class, why: &'static str) -> Self {
        Part {
            path: String::new(),
            bytes: tensors.bytes(),
            class,
            why,
            content: Content::Weights(tensors),
        }
    }
}
