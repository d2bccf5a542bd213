//! What a run is told: typed, with strict keys, profiles and dotted overrides.

mod dataset;
mod draft;
mod load;
mod quality;
mod release;
pub mod turn;

pub use crate::models::device::DeviceChoice;
pub use crate::privacy::NoiseKind;
pub use crate::tables::Escape;
pub use dataset::{ColumnKind, DatasetConfig, Files, HeldOut, LabelConfig, TextColumn, UnitConfig};
pub use draft::draft;
pub use load::{Profile, load, resolved};
pub use quality::QualityConfig;
pub use release::{DeployerType, ReleaseConfig};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything a run depends on. A run's folder holds the resolved value as `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run; its folder is `<runs_dir>/<name>-<profile>`.
    pub name: String,
    /// Where the models compute.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Which records, and what they look like.
    pub dataset: DatasetConfig,
    /// Which language model is fine-tuned.
    #[serde(default)]
    pub model: ModelConfig,
    /// How a label becomes a request to the model.
    pub prompt: PromptConfig,
    /// Reading, cleaning and tokenising.
    #[serde(default)]
    pub prepare: PrepareConfig,
    /// Private training.
    #[serde(default)]
    pub finetune: FinetuneConfig,
    /// Drawing synthetic records.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Measuring what they are worth.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// What is said of what is published; part of no stage.
    #[serde(default, skip_serializing_if = "is_default")]
    pub release: ReleaseConfig,
}

/// Which language model is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Name of a model in `pipelines/assets.toml`.
    pub asset: String,
    /// A local file that is used instead; its sha256 is recorded, not checked.
    pub path: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            asset: "smollm2-135m-instruct".into(),
            path: None,
        }
    }
}

/// How a label becomes a request to the model, through the model's own chat template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// System turn; default: the one the chat template brings.
    #[serde(default)]
    pub system: Option<String>,
    /// User turn, a template over the label columns: "Write a movie review that is {{ label }}."
    pub user: String,
    /// The same turn without any label, "Write a movie review.": what `sample.guidance_contrast = "marginal"` contrasts
    /// with. Only sampling uses it, so that it may change after training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marginal: Option<String>,
    /// The user turn that asks for a text's label, with `{{ text }}` where it goes: what `finetune.objective.label_words`
    /// trains the answer to; default: "{{ text }}", a blank line, "What is the label of this text?".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

impl PromptConfig {
    /// [`PromptConfig::question`], or its default.
    pub fn question(&self) -> &str {
        self.question
            .as_deref()
            .unwrap_or("{{ text }}\n\nWhat is the label of this text?")
    }

    /// The prompts that training sees.
    pub fn of_labels(&self) -> Self {
        PromptConfig {
            marginal: None,
            ..self.clone()
        }
    }
}

/// Reading, cleaning and tokenising.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareConfig {
    /// Replaces `<br />` by a line break.
    pub replace_html_breaks: bool,
    /// Longest record in tokens, its end token included; the rest is cut off.
    pub max_tokens: usize,
    /// Keeps only the first this many held-out records (after a fixed shuffle); default: all.
    pub max_test_records: Option<usize>,
}

impl Default for PrepareConfig {
    fn default() -> Self {
        PrepareConfig {
            replace_html_breaks: true,
            max_tokens: 300,
            max_test_records: None,
        }
    }
}

/// How per-example gradients are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clipping {
    /// AUTO-S (Bu et al. 2023): g · C / (‖g‖ + 0.01).
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
    /// All weights.
    Full,
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
    /// `"lora"` or `"full"`.
    pub method: Method,
    /// `"f32"` or `"bf16"`.
    pub precision: Precision,
    /// Target epsilon, above 0.
    pub epsilon: f64,
    /// Target delta; default 1/(N·ln N) with N = `dataset.public_size`. At least 1/N is refused.
    pub delta: Option<f64>,
    /// Mean size of a Poisson batch; the sampling rate is this over `dataset.public_size`.
    pub expected_batch_size: u64,
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
    /// `"adamw"` or `"adam-bc"`.
    #[serde(skip_serializing_if = "is_default")]
    pub optimizer: Optimizer,
    /// The optimizer's step size.
    pub learning_rate: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly to its value.
    pub warmup_steps: u64,
    /// How per-example gradients are bounded.
    pub clipping: Clipping,
    /// C: the largest norm of a record's contribution.
    pub max_grad_norm: f64,
    /// Which noise is added.
    pub noise: NoiseKind,
    /// Epsilon of one noisy count of the labels, taken from `epsilon`; `sample.label_prior = "noisy"` draws by it.
    pub label_histogram_epsilon: Option<f64>,
    /// LoRA rank.
    pub rank: usize,
    /// LoRA scale: the adapter's output is multiplied by alpha / rank.
    pub alpha: f64,
    /// A checkpoint each this many steps.
    pub checkpoint_every: u64,
    /// What a record's loss rewards besides its text.
    #[serde(skip_serializing_if = "is_default")]
    pub objective: ObjectiveConfig,
    /// Public training before the first private step.
    #[serde(skip_serializing_if = "is_default")]
    pub warm_start: WarmStartConfig,
    /// Fixes all randomness, for debugging: the run is then marked NOT PRIVATE (rule P4).
    pub seed: Option<u64>,
}

/// Left out of what a run is known by, so that a key that came later does not make paid training another run's.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for FinetuneConfig {
    fn default() -> Self {
        FinetuneConfig {
            method: Method::Lora,
            precision: Precision::F32,
            epsilon: 8.0,
            delta: None,
            expected_batch_size: 1024,
            max_batch_size: None,
            epochs: 5.0,
            steps: None,
            micro_batch_size: 8,
            activation_checkpointing: false,
            optimizer: Optimizer::default(),
            learning_rate: 1e-3,
            weight_decay: 0.0,
            warmup_steps: 0,
            clipping: Clipping::Automatic,
            max_grad_norm: 1.0,
            noise: NoiseKind::ExactGaussian,
            label_histogram_epsilon: None,
            rank: 16,
            alpha: 32.0,
            checkpoint_every: 5,
            objective: ObjectiveConfig::default(),
            warm_start: WarmStartConfig::default(),
            seed: None,
        }
    }
}

/// How many records of each label are drawn. The prior is public, or paid for: it is never read off the data for free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"uniform\", \"noisy\" or a list of weights")]
pub enum LabelPrior {
    /// `"uniform"` or `"noisy"`.
    Named(NamedPrior),
    /// A weight for each label, in the order of the declared names (joint labels: last column fastest).
    Weights(Vec<f64>),
}

/// Priors that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedPrior {
    /// The same for every label.
    Uniform,
    /// By the noisy counts that `finetune.label_histogram_epsilon` pays for.
    Noisy,
}

/// How much label guidance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number from 0 or \"auto\"")]
pub enum Guidance {
    /// γ.
    Fixed(f64),
    /// `"auto"`.
    Found(Auto),
}

/// Found by the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    Auto,
}

/// What label guidance contrasts a label with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contrast {
    /// The mean probability under other labels' prompts: a row of the model for each of them.
    Labels,
    /// `prompt.marginal`, which names no label: one row more, however many labels there are.
    Marginal,
}

/// Drawing synthetic records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Number of synthetic records, all labels together.
    pub records: usize,
    /// Number of zero-shot records for the baseline; default: as many as synthetic.
    pub zero_shot_records: Option<usize>,
    /// How records are spread over labels.
    pub label_prior: LabelPrior,
    /// Longest record in tokens; default: `prepare.max_tokens`.
    pub max_tokens: Option<usize>,
    /// Softmax temperature, above 0.
    pub temperature: f64,
    /// Nucleus: the smallest set of tokens with at least this probability; 1 keeps all.
    pub top_p: f64,
    /// γ of label guidance: log p(x|y) + γ·(log p(x|y) − log p(x|contrast)) for each token; 0 is plain sampling, `"auto"`
    /// finds it for each arm from what the model says of its own records.
    pub guidance: Guidance,
    /// γ at the last token a record can have: from the first token on γ goes there in equal steps. Default: it stays.
    pub guidance_end: Option<f64>,
    /// What a label is contrasted with.
    pub guidance_contrast: Contrast,
    /// At most this many other labels enter the contrast `"labels"`.
    pub guidance_labels: usize,
    /// α of the plausibility mask (Li et al. 2023, contrastive decoding), from 0 to 1: where γ is above 0, tokens less
    /// probable under the label's own prompt than α times the most probable one are never drawn. 0 masks none.
    pub guidance_plausibility: f64,
    /// Records drawn side by side.
    pub batch_size: usize,
    /// Records a Parquet shard.
    pub shard_records: usize,
    /// Seed of the sampler. Sampling is post-processing: a seed costs no privacy.
    pub seed: u64,
    /// What becomes of records that do not show their label.
    pub refine: RefineConfig,
}

impl SampleConfig {
    /// Prompts beside its own that guidance contrasts each record with, of `labels` joint labels.
    pub fn contrasts(&self, labels: usize) -> usize {
        let guides = self.guidance != Guidance::Fixed(0.0) || self.guidance_end.is_some_and(|end| end > 0.0);
        match self.guidance_contrast {
            _ if !guides => 0,
            Contrast::Marginal => 1,
            Contrast::Labels => self.guidance_labels.min(labels - 1),
        }
    }
}

impl Default for SampleConfig {
    fn default() -> Self {
        SampleConfig {
            records: 50_000,
            zero_shot_records: None,
            label_prior: LabelPrior::Named(NamedPrior::Uniform),
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            guidance: Guidance::Found(Auto::Auto),
            guidance_end: None,
            guidance_contrast: Contrast::Labels,
            guidance_labels: 4,
            guidance_plausibility: 0.0,
            batch_size: 64,
            shard_records: 25_000,
            seed: 0,
            refine: RefineConfig::default(),
        }
    }
}

/// Refinement: the model that drew a record scores it under all labels. Free of privacy cost, and done alike to the
/// trained model's records and to the zero-shot ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { min_posterior = 0.7 }")]
pub struct RefineConfig {
    /// What becomes of a record by its posterior.
    pub action: RefineAction,
    /// The posterior p(label|text) that a record must reach, from 0 to below 1; 0 with `"drop"`: nothing is refined.
    pub min_posterior: f64,
    /// How often each record is drawn at most, the first time included; what has not passed by then is left out.
    pub rounds: u64,
    /// Takes the model's own leaning to some labels off its scores: the mean over the first round's records.
    pub centred: bool,
    /// A record is scored under its own label and at most this many others.
    pub labels: usize,
}

impl RefineConfig {
    /// Whether records are scored at all.
    pub fn is_on(&self) -> bool {
        self.action != RefineAction::Drop || self.min_posterior > 0.0
    }
}

impl Default for RefineConfig {
    fn default() -> Self {
        RefineConfig {
            action: RefineAction::Drop,
            min_posterior: 0.0,
            rounds: 4,
            centred: true,
            labels: 15,
        }
    }
}

/// What becomes of a record by its posterior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefineAction {
    /// Kept where its own label's reaches `min_posterior`, else drawn anew.
    Drop,
    /// Takes the label of the largest, where that reaches `min_posterior`, and a place that wants it; places that stay
    /// open are drawn anew.
    Relabel,
    /// Kept whatever it is: the scores are only reported.
    Score,
}

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
