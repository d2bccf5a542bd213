//! `[evaluate]`: measuring what the synthetic records are worth.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::QualityConfig;
use super::dataset::Files;
use super::rules::{self, is_default, refuse};
use super::update::{Toward, Update};
use crate::Result;

/// What an evaluation may compare with besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtraArm {
    /// A classifier trained privately on the real records, without synthetic ones. It SPENDS BUDGET of its own: as much
    /// epsilon again as the run, from the same ledger, and is refused where `dataset.total_epsilon` does not allow it.
    DpDirect,
    /// The same language model trained without privacy on the same records, and sampled with the same settings. NOT
    /// PRIVATE: it stays under `internal/non_private/`.
    NonPrivate,
    /// The language model itself as a classifier, p(label | text) ∝ p(text | label), trained and as it came: free of
    /// privacy cost, a pass a label over the first `encoder_test_records` test records.
    ModelPosterior,
}

/// Which classifiers are trained on all real records: an encoder takes long over many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllReal {
    None,
    Linear,
    Both,
}

/// Whether an encoder judges besides the linear classifier, and which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false, or an encoder's name, `./folder` or repository")]
pub enum Judge {
    /// The one that `encoder_path` or `encoder_asset` names, or none.
    Switch(bool),
    /// By its name: an asset, `./folder`, or `ORG/NAME` on the hub.
    Named(String),
}

impl Judge {
    /// Whether one judges.
    pub fn is_on(&self) -> bool {
        *self != Judge::Switch(false)
    }
}

/// How the arm `non_private` is trained, besides what `finetune` says of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { epochs = 1 }")]
pub struct NonPrivateConfig {
    /// Passes over the records.
    pub epochs: usize,
    pub batch_size: usize,
    /// AdamW's step size.
    pub learning_rate: f64,
}

impl Default for NonPrivateConfig {
    fn default() -> Self {
        NonPrivateConfig {
            epochs: 1,
            batch_size: 32,
            learning_rate: 5e-4,
        }
    }
}

/// What of an encoder `dp_direct` trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectMethod {
    /// Nothing: softmax regression on its frozen sentence vectors.
    #[default]
    Features,
    /// Factors of low rank beside every linear map, and a head.
    Lora,
    /// The second factor of each such pair alone, and a head (LoRA-FA; Zhang et al. 2023).
    LoraFa,
    /// What keys, values and inner activations are multiplied by, and a head ((IA)³; Liu et al. 2022).
    #[serde(rename = "ia3")]
    Ia3,
    /// All weights, and a head.
    Full,
    /// What is added after maps and norms, and a head (Ben Zaken et al. 2022).
    Bitfit,
    /// A head of two layers alone.
    LastLayer,
    /// Keys and values before those of the text, in each layer, and a head (Li and Liang 2021).
    Prefix,
}

impl DirectMethod {
    /// AdamW's step size where none is given: larger where little is trained.
    fn learning_rate(self) -> f64 {
        match self {
            DirectMethod::Features => 0.1,
            DirectMethod::Lora | DirectMethod::LoraFa => 1e-3,
            DirectMethod::Full => 5e-4,
            DirectMethod::Bitfit | DirectMethod::LastLayer | DirectMethod::Ia3 => 5e-3,
            DirectMethod::Prefix => 1e-2,
        }
    }
}

/// A classifier, trained by the same private step as the language model: epsilon, delta, unit, clipping and noise are those of
/// `finetune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { steps = 40 }")]
pub struct DpDirectConfig {
    /// Mean size of a Poisson batch; default: that of `finetune`.
    pub expected_batch_size: Option<u64>,
    /// Number of steps; default: that of `finetune`.
    pub steps: Option<u64>,
    /// The optimizer's step size; default, as AdamW takes it: 0.1 on frozen vectors, 1e-3 of LoRA, 5e-4 of all weights, 5e-3 of
    /// `"bitfit"`, `"ia3"` and `"last-layer"`, 1e-2 of `"prefix"`.
    pub learning_rate: Option<f64>,
    /// `"features"`, `"lora"`, `"lora-fa"`, `"ia3"`, `"full"`, `"bitfit"`, `"last-layer"` or `"prefix"`.
    #[serde(skip_serializing_if = "is_default")]
    pub method: DirectMethod,
    /// The encoder, named as `evaluate.encoder` is; default: that one.
    #[serde(skip_serializing_if = "is_default")]
    pub encoder: Option<String>,
    /// LoRA rank, and its scale: the factors' output is multiplied by alpha / rank.
    #[serde(skip_serializing_if = "is_default")]
    pub rank: Option<usize>,
    /// See `rank`; default: the rank.
    #[serde(skip_serializing_if = "is_default")]
    pub alpha: Option<f64>,
    /// Keys and values before the text's, of `"prefix"`; default: 8.
    #[serde(skip_serializing_if = "is_default")]
    pub prefix_tokens: Option<usize>,
    /// Layers with a prefix, chosen on public records (DP-Flat across layers); default: all.
    #[serde(skip_serializing_if = "is_default")]
    pub prefix_layers: Option<usize>,
    /// How a step is taken; default: by the gradient.
    #[serde(skip_serializing_if = "is_default")]
    pub update: Update,
    /// Public values that each step is drawn toward; none by default.
    #[serde(skip_serializing_if = "is_default")]
    pub toward: Option<Toward>,
    /// A file of PUBLIC records with the dataset's columns, for the ways of `update` that need some, `toward` and `prefix_layers`.
    #[serde(skip_serializing_if = "is_default")]
    pub public: Option<Files>,
}

impl DpDirectConfig {
    /// Whether public records are looked at.
    pub fn needs_public(&self) -> bool {
        self.update.needs_public()
            || self.prefix_layers.is_some()
            || self.toward.is_some_and(|toward| toward.needs_public())
    }

    /// With the step size that is taken.
    pub fn resolved(&self) -> Self {
        DpDirectConfig {
            learning_rate: Some(self.learning_rate()),
            ..self.clone()
        }
    }

    /// AdamW's step size.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or_else(|| self.method.learning_rate())
    }

    /// LoRA's rank.
    pub fn rank(&self) -> usize {
        self.rank.unwrap_or(16)
    }

    /// LoRA's scale, times the rank.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank() as f64)
    }

    /// Keys and values before the text's.
    pub fn prefix_tokens(&self) -> usize {
        self.prefix_tokens.unwrap_or(8)
    }
}

/// Measuring what the synthetic records are worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Records each arm trains on, the same number for all, so that all take equally many steps; default: four fifths of
    /// the smallest arm, so that every seed takes others.
    pub records: Option<usize>,
    /// Also trains on all synthetic records: they cost no privacy, so their number is not the real data's. Shown beside
    /// the equal sizes, never in their place.
    pub all_synthetic: bool,
    /// Trains on all real records too, by which classifiers: what there is to lose.
    pub all_real: AllReal,
    /// Sizes at which the linear classifier is trained besides, on every arm that has so many records: up to 1 a share of
    /// the synthetic records, above it a number of records.
    pub size_curve: Vec<f64>,
    /// Arms and references besides real, synthetic and zero-shot records.
    pub arms: Vec<ExtraArm>,
    /// How the reference `dp_direct` is trained.
    pub dp_direct: DpDirectConfig,
    /// How the arm `non_private` is trained.
    pub non_private: NonPrivateConfig,
    /// Number of seeds behind each interval.
    pub seeds: usize,
    /// Trains an encoder besides the linear classifier: `true`, or the one that is named, such as
    /// `"distilbert-base-uncased"`.
    pub encoder: Judge,
    /// Name of the encoder in `pipelines/assets.toml`.
    pub encoder_asset: String,
    /// A local folder with `config.json`, `model.safetensors` and `tokenizer.json`, used instead.
    pub encoder_path: Option<PathBuf>,
    /// Longest text in word pieces.
    pub encoder_max_tokens: usize,
    /// Passes of the encoder over an arm.
    pub encoder_epochs: usize,
    /// Batch size of the encoder.
    pub encoder_batch_size: usize,
    /// Step size of the encoder.
    pub encoder_learning_rate: f64,
    /// Held-out records that the encoder and whatever else takes long is tested on; default: all that were kept.
    pub encoder_test_records: Option<usize>,
    /// What the records are like, beside real ones.
    pub quality: QualityConfig,
}

impl EvaluateConfig {
    /// Whether an arm is asked for.
    pub fn asks(&self, arm: ExtraArm) -> bool {
        self.arms.contains(&arm)
    }

    /// What names the encoder, whether it judges or only reads.
    pub fn encoder_name(&self) -> String {
        match (&self.encoder, &self.encoder_path) {
            (Judge::Named(named), _) => named.clone(),
            (Judge::Switch(_), Some(path)) => path.display().to_string(),
            (Judge::Switch(_), None) => self.encoder_asset.clone(),
        }
    }

    /// What names the encoder of `dp_direct`.
    pub fn direct_encoder(&self) -> String {
        self.dp_direct.encoder.clone().unwrap_or_else(|| self.encoder_name())
    }

    /// Whether models are trained on the real records beside the run's own.
    pub fn trains_references(&self) -> bool {
        self.asks(ExtraArm::DpDirect) || self.asks(ExtraArm::NonPrivate)
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        EvaluateConfig {
            records: None,
            all_synthetic: true,
            all_real: AllReal::Both,
            size_curve: Vec::new(),
            arms: Vec::new(),
            dp_direct: DpDirectConfig::default(),
            non_private: NonPrivateConfig::default(),
            seeds: 3,
            encoder: Judge::Switch(true),
            encoder_asset: "all-minilm-l6-v2".into(),
            encoder_path: None,
            encoder_max_tokens: 256,
            encoder_epochs: 3,
            encoder_batch_size: 32,
            encoder_learning_rate: 5e-5,
            encoder_test_records: None,
            quality: QualityConfig::default(),
        }
    }
}

impl EvaluateConfig {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        rules::above_zero(&[
            ("evaluate.encoder_learning_rate", self.encoder_learning_rate),
            ("evaluate.dp_direct.learning_rate", self.dp_direct.learning_rate()),
            ("evaluate.dp_direct.alpha", self.dp_direct.alpha.unwrap_or(1.0)),
            ("evaluate.non_private.learning_rate", self.non_private.learning_rate),
        ])?;
        rules::at_least_one(&[
            ("evaluate.encoder_batch_size", self.encoder_batch_size),
            ("evaluate.encoder_epochs", self.encoder_epochs),
            ("evaluate.non_private.epochs", self.non_private.epochs),
            ("evaluate.non_private.batch_size", self.non_private.batch_size),
        ])?;
        let direct = &self.dp_direct;
        direct.update.check("evaluate.dp_direct.update")?;
        if let Some(toward) = &direct.toward {
            toward.check("evaluate.dp_direct.toward")?;
        }
        if direct.needs_public() && direct.public.is_none() {
            let key = match (direct.update.needs_public(), direct.prefix_layers) {
                (true, _) => "evaluate.dp_direct.update",
                (false, Some(_)) => "evaluate.dp_direct.prefix_layers",
                (false, None) => "evaluate.dp_direct.toward",
            };
            return refuse(
                key,
                "given `evaluate.dp_direct.public`, a file of public records",
                "alone",
            );
        }
        if direct.prefix_layers.is_some() && direct.method != DirectMethod::Prefix {
            return refuse(
                "evaluate.dp_direct.prefix_layers",
                "given with `evaluate.dp_direct.method = \"prefix\"`",
                "with another method",
            );
        }
        self.quality.check()?;
        // Found here rather than hours later, in the stage that uses them.
        let steps = |n: Option<u64>| n.map(|n| n as usize);
        rules::at_least_one_if_given(&[
            ("evaluate.records", self.records),
            ("evaluate.encoder_test_records", self.encoder_test_records),
            ("evaluate.dp_direct.rank", self.dp_direct.rank),
            ("evaluate.dp_direct.prefix_tokens", self.dp_direct.prefix_tokens),
            ("evaluate.dp_direct.prefix_layers", self.dp_direct.prefix_layers),
            ("evaluate.dp_direct.steps", steps(self.dp_direct.steps)),
            (
                "evaluate.dp_direct.expected_batch_size",
                steps(self.dp_direct.expected_batch_size),
            ),
        ])?;
        if self.seeds < 2 {
            return refuse(
                "evaluate.seeds",
                "at least 2 (an interval needs them)",
                self.seeds.to_string(),
            );
        }
        let meaningless = |size: &&f64| !(size.is_finite() && **size > 0.0 && (**size <= 1.0 || size.fract() == 0.0));
        match self.size_curve.iter().find(meaningless) {
            Some(size) => refuse(
                "evaluate.size_curve",
                "shares above 0 and up to 1, or whole numbers of records",
                size.to_string(),
            ),
            None => Ok(()),
        }
    }
}
