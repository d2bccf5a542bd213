//! Which model and which shapes are measured.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use dpsynth::Result;
use dpsynth::assets::Locations;
use dpsynth::bench::{Subject, model_shape, of_counts};
use dpsynth::config::{DeviceChoice, Precision, RunConfig};
use dpsynth::models::llama::LlamaConfig;
use dpsynth::models::{Architecture, declared, device, rotation};
use dpsynth::progress::Progress;

use super::super::Ui;
use super::super::run::{self, ProfileName};

/// A configuration's model, or one of a given shape with random weights.
#[derive(Args)]
pub struct Which {
    /// A TOML file, such as pipelines/imdb.toml: its model, prompts and settings [default: a model of random weights]
    config: Option<PathBuf>,
    /// How much work: `quick` takes minutes on two CPU cores, `overnight` hours, `full` is for a GPU [default: full with a GPU, else quick]
    #[arg(long, value_enum, requires = "config")]
    profile: Option<ProfileName>,
    /// Overrides a value of the configuration, such as `model.path=model.gguf`; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Folder of local datasets
    #[arg(long, value_name = "DIR", env = "DPSYNTH_DATA", default_value = "data", hide = true)]
    data_dir: PathBuf,
    /// Where to compute [default: the configuration's]
    #[arg(long, value_enum)]
    device: Option<DeviceName>,
    #[command(flatten)]
    shape: Shape,
    /// Writes one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Heading of the help.
const SHAPE: &str = "Shape of the model, without a configuration";

/// Without a configuration: the model's shape, SmolLM2-135M's where nothing is given.
#[derive(Args)]
#[group(id = "shape", multiple = true, conflicts_with = "config")]
struct Shape {
    /// Blocks
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    layers: Option<usize>,
    /// Width of the activations
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    width: Option<usize>,
    /// Width inside the gated maps
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    hidden: Option<usize>,
    /// Heads of attention
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    heads: Option<usize>,
    /// Heads of keys and values
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    kv_heads: Option<usize>,
    /// Tokens there are
    #[arg(long, value_name = "N", help_heading = SHAPE)]
    vocabulary: Option<usize>,
    /// A config.json, or its folder, whose shape is taken in the place of all these
    #[arg(long, value_name = "FILE", help_heading = SHAPE, conflicts_with_all = ["layers", "width", "hidden", "heads", "kv_heads", "vocabulary"])]
    shape_of: Option<PathBuf>,
    /// Tokens before each record
    #[arg(long, value_name = "N", help_heading = SHAPE, default_value_t = 40)]
    prompt_tokens: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
}

/// Element type of the linear maps' products.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum DtypeName {
    F32,
    Bf16,
}

impl DtypeName {
    pub fn precision(self) -> Precision {
        match self {
            DtypeName::F32 => Precision::F32,
            DtypeName::Bf16 => Precision::Bf16,
        }
    }
}

impl Which {
    /// The configuration, where one is given, as it is measured.
    pub fn config(&self) -> Result<Option<RunConfig>> {
        let Some(config) = self.config.clone() else {
            return Ok(None);
        };
        let which = run::Which {
            config,
            profile: self.profile,
            disjoint: false,
            research: false,
            overrides: self.overrides.clone(),
            data_dir: self.data_dir.clone(),
        };
        Ok(Some(which.load()?.0))
    }

    /// The model, loaded.
    ///
    /// `packed`: without a configuration, whether its maps lie in NF4.
    pub fn subject(&self, config: Option<&RunConfig>, packed: bool, ui: &Ui) -> Result<Subject> {
        let choice = match self.device {
            Some(DeviceName::Auto) => DeviceChoice::Auto,
            Some(DeviceName::Cpu) => DeviceChoice::Cpu,
            Some(DeviceName::Cuda) => DeviceChoice::Cuda,
            None => config.map_or(DeviceChoice::Auto, |c| c.device),
        };
        let device = device::choose(choice)?;
        if let Some(note) = device::fallback(choice) {
            ui.note(&note);
        }
        match config {
            Some(config) => Subject::of_config(config, &device, &Locations::from_env(), ui),
            None => Subject::synthetic(self.shape.architecture()?, packed, self.shape.prompt_tokens, &device),
        }
    }
}

impl Shape {
    fn architecture(&self) -> Result<Arc<dyn Architecture>> {
        match &self.shape_of {
            None => of_counts(self.config()),
            Some(folder) if folder.is_dir() => declared(&folder.join("config.json")),
            Some(file) => declared(file),
        }
    }

    fn config(&self) -> LlamaConfig {
        let base = model_shape();
        let (width, heads) = (self.width.unwrap_or(base.width), self.heads.unwrap_or(base.heads));
        // What does not divide is refused before it is used.
        let head_width = width / heads.max(1);
        LlamaConfig {
            head_width,
            rotation: rotation::periods(base.rope_base, head_width).into(),
            layers: self.layers.unwrap_or(base.layers),
            width,
            hidden: self.hidden.unwrap_or(base.hidden),
            heads,
            kv_heads: self.kv_heads.unwrap_or(base.kv_heads),
            vocabulary: self.vocabulary.unwrap_or(base.vocabulary),
            ..base
        }
    }
}
