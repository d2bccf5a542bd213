//! `[finetune]`: private training.

use serde::{Deserialize, Serialize};

use super::risk::Risk;
use super::rules::{self, is_default, refuse};
use super::update::Update;
use crate::privacy::NoiseKind;
use crate::{Error, Result};

/// How per-example gradients are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clipping {
    /// AUTO-S (Bu et al. 2023) and DP-NSGD (Yang et al. 2022): g · C / (‖g‖ + r) with `clipping_regularizer` r.
    Automatic,
    /// Abadi et al. 2016: g · min(1, C / ‖g‖).
    Flat,
}

/// What training changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Factors of low rank beside every linear map (Hu et al. 2021).
    Lora,
    /// The same beside weights that stay in a few bits each (Dettmers et al. 2023): as a GGUF packs them, else in NF4.
    Qlora,
    /// The second factor of each such pair alone (Zhang et al. 2023).
    #[serde(rename = "lora-fa")]
    LoraFa,
    /// What norms multiply by, and what is added after maps and norms (Bu et al. 2022).
    Bitfit,
    /// What keys, values and inner activations are multiplied by (Liu et al. 2022).
    Ia3,
    /// Vectors at the beginning of every prompt (Lester et al. 2021).
    #[serde(rename = "soft-prompt")]
    SoftPrompt,
    /// All weights.
    Full,
}

impl Method {
    /// Whether factors of low rank are trained.
    pub fn is_low_rank(self) -> bool {
        matches!(self, Method::Lora | Method::Qlora | Method::LoraFa)
    }
}

/// Element type of the linear maps' products in training. Norms, sums and the optimizer are f32 or wider in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    /// For GPUs; on a CPU it is slower.
    Bf16,
}

/// How noised gradients become steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    #[default]
    /// Loshchilov and Hutter 2019.
    Adamw,
    /// AdamW whose second moment is corrected for the noise (Tang et al. 2024).
    AdamBc,
    /// Gradient descent, with `momentum` (Polyak 1964).
    Sgd,
    /// Gradient descent from a random mixture of the last two iterates (Xiao et al. 2022). What the paper wins by the mixing is not
    /// taken off epsilon.
    ModelMix,
}

/// What a record's loss rewards besides its text; each term costs a pass more for each other label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { contrast = 4.0 }")]
pub struct ObjectiveConfig {
    /// Weight of −log p(label | text) a token, with p(label | text) ∝ p(text | label): the text tells its label.
    pub contrast: f64,
    /// Weight of the loss behind other labels' prompts, which is to grow (Mattern et al. 2022).
    pub mismatch: f64,
    /// At most this many other labels beside a record's own.
    pub labels: usize,
    /// Weight of −log p(label's words | text), a token, behind `prompt.question`: the model also learns to name the label.
    #[serde(skip_serializing_if = "is_default")]
    pub label_words: f64,
}

impl ObjectiveConfig {
    /// How many rows of a batch a record takes, where there are so many labels.
    pub fn rows_per_record(&self, labels: usize) -> usize {
        1 + self.other_labels(labels) + usize::from(self.label_words > 0.0)
    }

    /// How many other labels a record's text is put behind, where there are so many labels.
    pub fn other_labels(&self, labels: usize) -> usize {
        match self.contrast > 0.0 || self.mismatch > 0.0 {
            true => self.labels.min(labels.saturating_sub(1)),
            false => 0,
        }
    }
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        ObjectiveConfig {
            contrast: 0.0,
            mismatch: 0.0,
            labels: 1,
            label_words: 0.0,
        }
    }
}

/// How batches are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batching {
    /// Every unit is in or out of each batch by a coin of its own.
    #[default]
    Poisson,
    /// Steps come in rounds of N/B: every unit is in one of each round, all equally likely. Takes less noise where there are
    /// whole rounds.
    RandomAllocation,
}

/// Training on what the model itself writes when it is guided by label, before the first private step. It reads nothing
/// private: free of privacy cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { records = 512 }")]
pub struct WarmStartConfig {
    /// Records that are drawn and learned from; 0 leaves the warm start out.
    pub records: usize,
    /// γ of label guidance.
    pub guidance: f64,
    /// Passes over them.
    pub epochs: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
}

impl Default for WarmStartConfig {
    fn default() -> Self {
        WarmStartConfig {
            records: 0,
            guidance: 1.0,
            epochs: 1,
            batch_size: 32,
            learning_rate: 1e-3,
        }
    }
}

/// Private training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FinetuneConfig {
    /// `"lora"`, `"qlora"`, `"lora-fa"`, `"bitfit"`, `"ia3"`, `"soft-prompt"` or `"full"`.
    pub method: Method,
    /// `"f32"` or `"bf16"`.
    pub precision: Precision,
    /// Target epsilon, above 0.
    pub epsilon: f64,
    /// A bound on attacks: epsilon is the largest, up to the one above, that keeps it.
    #[serde(skip_serializing_if = "is_default")]
    pub risk: Option<Risk>,
    /// Target delta; default 1/(N·ln N) with N = `dataset.public_size`. At least 1/N is refused.
    pub delta: Option<f64>,
    /// Mean size of a batch; the sampling rate is this over `dataset.public_size`.
    pub expected_batch_size: u64,
    /// `"poisson"` or `"random-allocation"`.
    #[serde(skip_serializing_if = "is_default")]
    pub sampler: Batching,
    /// Steps whose noise goes together, so that much of it cancels in their sum (DP-FTRL by banded matrix factorisation). Units are
    /// shared out among as many parts, from which steps draw in turn. From 2 up; default: each step has its own noise.
    #[serde(skip_serializing_if = "is_default")]
    pub bands: Option<u64>,
    /// Batches of more than this many units are cut to it (truncated Poisson), so that a step's time and memory have a
    /// bound. Its price is accounted for: next to nothing at 1.1·B + 6·√(1.1·B) for an expected batch size B, much below.
    /// Default: no bound.
    pub max_batch_size: Option<u64>,
    /// Passes over the data: steps = ceil(epochs · N / expected_batch_size), unless `steps` is given.
    pub epochs: f64,
    /// Number of optimizer steps.
    pub steps: Option<u64>,
    /// Records that go through the model at once; memory grows with it, nothing else does.
    pub micro_batch_size: usize,
    /// Keeps of each block its input alone and computes the rest anew: less memory, more time.
    pub activation_checkpointing: bool,
    /// `"adamw"`, `"adam-bc"`, `"sgd"` or `"model-mix"`.
    #[serde(skip_serializing_if = "is_default")]
    pub optimizer: Optimizer,
    /// Share of the last direction that `"sgd"` keeps, from 0 to below 1.
    #[serde(skip_serializing_if = "is_default")]
    pub momentum: f64,
    /// The optimizer's step size.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly to its value.
    pub warmup_steps: u64,
    /// How per-example gradients are bounded.
    pub clipping: Clipping,
    /// r of `"automatic"`, above 0; default: 0.01.
    #[serde(skip_serializing_if = "is_default")]
    pub clipping_regularizer: Option<f64>,
    /// C: the largest norm of a record's contribution.
    pub max_grad_norm: f64,
    /// Which noise is added.
    pub noise: NoiseKind,
    /// Epsilon of one noisy count of the labels, taken from `epsilon`; `sample.label_prior = "noisy"` draws by it.
    pub label_histogram_epsilon: Option<f64>,
    /// LoRA rank.
    pub rank: usize,
    /// First tokens of a prompt that `"soft-prompt"` trains, 8 by default; no prompt may be shorter.
    #[serde(skip_serializing_if = "is_default")]
    pub prompt_tokens: Option<usize>,
    /// LoRA scale: the adapter's output is multiplied by alpha / rank.
    pub alpha: f64,
    /// A checkpoint each this many steps.
    pub checkpoint_every: u64,
    /// How a step is taken; default: by the gradient.
    #[serde(skip_serializing_if = "is_default")]
    pub update: Update,
    /// What a record's loss rewards besides its text.
    #[serde(skip_serializing_if = "is_default")]
    pub objective: ObjectiveConfig,
    /// Public training before the first private step.
    #[serde(skip_serializing_if = "is_default")]
    pub warm_start: WarmStartConfig,
    /// Fixes all randomness, for debugging: the run is then marked NOT PRIVATE (rule P4).
    pub seed: Option<u64>,
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        FinetuneConfig {
            method: Method::Lora,
            precision: Precision::F32,
            epsilon: 8.0,
            risk: None,
            delta: None,
            expected_batch_size: 1024,
            sampler: Batching::Poisson,
            bands: None,
            max_batch_size: None,
            epochs: 5.0,
            steps: None,
            micro_batch_size: 8,
            activation_checkpointing: false,
            optimizer: Optimizer::default(),
            momentum: 0.0,
            learning_rate: 1e-3,
            weight_decay: 0.0,
            warmup_steps: 0,
            clipping: Clipping::Automatic,
            clipping_regularizer: None,
            max_grad_norm: 1.0,
            noise: NoiseKind::ExactGaussian,
            label_histogram_epsilon: None,
            rank: 16,
            prompt_tokens: None,
            alpha: 32.0,
            checkpoint_every: 5,
            update: Update::default(),
            objective: ObjectiveConfig::default(),
            warm_start: WarmStartConfig::default(),
            seed: None,
        }
    }
}

impl FinetuneConfig {
    /// First tokens of a prompt that a soft prompt is added to.
    pub fn soft_tokens(&self) -> usize {
        self.prompt_tokens.unwrap_or(8)
    }

    /// Refuses ways of taking steps that a language model has not.
    fn check_update(&self) -> Result<()> {
        let of_classifiers = match self.update {
            Update::Gradient {} | Update::Flat { .. } | Update::ZerothOrder { .. } => false,
            Update::Projection { .. } | Update::Candidates { .. } | Update::NormalEquations {} => true,
        };
        if of_classifiers {
            return refuse(
                "finetune.update",
                "of kind \"gradient\", \"flat\" or \"zeroth-order\": the others are of classifiers, evaluate.dp_direct.update",
                self.update.kind(),
            );
        }
        let zeroth_order = matches!(self.update, Update::ZerothOrder { .. });
        if zeroth_order && self.objective != ObjectiveConfig::default() {
            return Err(Error::usage("steps of zeroth order look at the loss of the text alone")
                .hint("leave out finetune.objective"));
        }
        if zeroth_order && self.precision == Precision::Bf16 {
            return Err(Error::usage(
                "steps of zeroth order are differences of losses, which bf16 rounds away: one record's rounding could move another's",
            )
            .hint("finetune.precision = \"f32\""));
        }
        self.update.check("finetune.update")
    }

    /// Refuses noise that goes together where no account is known, or nothing would cancel.
    fn check_bands(&self) -> Result<()> {
        if self.bands.is_none() {
            return Ok(());
        }
        let other = match () {
            () if self.sampler != Batching::Poisson => "finetune.sampler",
            () if self.max_batch_size.is_some() => "finetune.max_batch_size",
            () if !matches!(self.noise, NoiseKind::ExactGaussian | NoiseKind::Gaussian) => "finetune.noise",
            // Each step's directions are others.
            () if matches!(self.update, Update::ZerothOrder { .. }) => "finetune.update",
            () => return Ok(()),
        };
        Err(Error::usage(format!(
            "`finetune.bands` is for Gaussian noise on gradients of Poisson batches of any size, which `{other}` says otherwise of"
        ))
        .hint("leave out one of them"))
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        rules::above_zero(&[
            ("finetune.epsilon", self.epsilon),
            ("finetune.learning_rate", self.learning_rate),
            ("finetune.max_grad_norm", self.max_grad_norm),
            ("finetune.alpha", self.alpha),
            ("finetune.epochs", self.epochs),
            (
                "finetune.clipping_regularizer",
                self.clipping_regularizer.unwrap_or(1.0),
            ),
            ("finetune.warm_start.learning_rate", self.warm_start.learning_rate),
        ])?;
        rules::at_least_one(&[
            ("finetune.expected_batch_size", self.expected_batch_size as usize),
            ("finetune.micro_batch_size", self.micro_batch_size),
            ("finetune.rank", self.rank),
            ("finetune.prompt_tokens", self.soft_tokens()),
            ("finetune.objective.labels", self.objective.labels),
            ("finetune.warm_start.epochs", self.warm_start.epochs),
            ("finetune.warm_start.batch_size", self.warm_start.batch_size),
            ("finetune.checkpoint_every", self.checkpoint_every as usize),
        ])?;
        if let Some(risk) = &self.risk {
            risk.check()?;
        }
        if self.sampler == Batching::RandomAllocation && self.max_batch_size.is_some() {
            return Err(
                Error::usage("`finetune.max_batch_size` cuts Poisson batches, not those of random allocation")
                    .hint("leave one of them out"),
            );
        }
        self.check_bands()?;
        if self.momentum > 0.0 && self.optimizer != Optimizer::Sgd {
            return Err(Error::usage("`finetune.momentum` is of gradient descent").hint("finetune.optimizer = \"sgd\""));
        }
        match self.clipping_regularizer {
            Some(_) if self.clipping == Clipping::Flat => {
                return Err(Error::usage("`finetune.clipping_regularizer` is of automatic clipping")
                    .hint("finetune.clipping = \"automatic\""));
            }
            // Factors are f32: below, that of a gradient of 0 would be none.
            Some(r) if r < 1e-6 => return refuse("finetune.clipping_regularizer", "1e-6 or more", r),
            _ => {}
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return refuse("finetune.momentum", "a share from 0 to below 1", self.momentum);
        }
        self.check_update()?;
        let o = &self.objective;
        // Where all weights are trained, a norm is a sum over pairs of positions, in f32: it must not be what little is left
        // of rows that cancel, or a record could pass its bound (P5). Below this the norm is right to 1e-5.
        let rows = 1.0 + o.contrast + o.mismatch + o.label_words;
        if self.method == Method::Full && rows > 20.0 * (1.0 - o.mismatch) {
            return refuse(
                "finetune.objective",
                "such that (1 + contrast + mismatch + label_words) / (1 − mismatch) is at most 20 where all weights are trained",
                format!(
                    "contrast {}, mismatch {} and label_words {}",
                    o.contrast, o.mismatch, o.label_words
                ),
            );
        }
        rules::zero_or_more(&[
            ("finetune.weight_decay", self.weight_decay),
            ("finetune.objective.contrast", o.contrast),
            ("finetune.objective.mismatch", o.mismatch),
            ("finetune.objective.label_words", o.label_words),
            ("finetune.warm_start.guidance", self.warm_start.guidance),
        ])
    }
}
