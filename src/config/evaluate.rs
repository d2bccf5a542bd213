//! `[evaluate]`: measuring what the synthetic records are worth.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::QualityConfig;
use super::rules::{self, refuse};
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

/// Softmax regression on frozen sentence vectors, trained by the same private step as the language model: epsilon, delta,
/// unit, clipping and noise are those of `finetune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { steps = 40 }")]
pub struct DpDirectConfig {
    /// Mean size of a Poisson batch; default: that of `finetune`.
    pub expected_batch_size: Option<u64>,
    /// Number of steps; default: that of `finetune`.
    pub steps: Option<u64>,
    /// AdamW's step size.
    pub learning_rate: f64,
}

impl Default for DpDirectConfig {
    fn default() -> Self {
        DpDirectConfig {
            expected_batch_size: None,
            steps: None,
            learning_rate: 0.1,
        }
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
    /// Trains an encoder besides the linear classifier.
    pub encoder: bool,
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
            encoder: true,
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
            ("evaluate.dp_direct.learning_rate", self.dp_direct.learning_rate),
            ("evaluate.non_private.learning_rate", self.non_private.learning_rate),
        ])?;
        rules::at_least_one(&[
            ("evaluate.encoder_batch_size", self.encoder_batch_size),
            ("evaluate.encoder_epochs", self.encoder_epochs),
            ("evaluate.non_private.epochs", self.non_private.epochs),
            ("evaluate.non_private.batch_size", self.non_private.batch_size),
        ])?;
        self.quality.check()?;
        // Found here rather than hours later, in the stage that uses them.
        let steps = |n: Option<u64>| n.map(|n| n as usize);
        rules::at_least_one_if_given(&[
            ("evaluate.records", self.records),
            ("evaluate.encoder_test_records", self.encoder_test_records),
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
