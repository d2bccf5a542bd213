//! What a run is told: typed, with strict keys, profiles and dotted overrides. A section is a file with its own `check`.

mod audit;
mod dataset;
mod draft;
mod evaluate;
mod finetune;
mod lexicon;
mod load;
mod model;
mod names;
mod prepare;
mod prompt;
mod quality;
mod release;
mod risk;
mod rules;
mod sample;
pub mod turn;
mod update;

use serde::{Deserialize, Serialize};

pub use crate::models::device::DeviceChoice;
pub use crate::privacy::NoiseKind;
pub use crate::tables::Escape;
pub use audit::AuditConfig;
pub use dataset::{ColumnKind, DatasetConfig, Files, HeldOut, LabelConfig, TextColumn, UnitConfig, is_population};
pub use draft::draft;
pub use evaluate::{AllReal, DirectMethod, DpDirectConfig, EvaluateConfig, ExtraArm, Judge, NonPrivateConfig};
pub use finetune::{
    Batching, Clipping, FinetuneConfig, Method, ObjectiveConfig, Optimizer, Precision, WarmStartConfig,
};
pub use lexicon::LexiconConfig;
pub(crate) use load::is_remote;
pub use load::{Profile, load, resolved};
pub use model::ModelConfig;
pub use names::Named;
pub use prepare::PrepareConfig;
pub use prompt::PromptConfig;
pub use quality::QualityConfig;
pub use release::{CopyGate, DeployerType, ReleaseConfig};
pub use risk::{EvenOdds, Rates, Risk};
use rules::{is_default, refuse};
pub use sample::{
    Auto, Contrast, LabelPrior, MOST_TIMES, NamedPrior, RefineAction, RefineConfig, SampleConfig, Strength,
};

pub use update::{Ascent, ReferenceValues, Toward, Update};

use crate::{Error, Result};

/// What comes of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Records, drawn from a language model that was trained privately.
    #[default]
    Synthesise,
    /// A classifier, trained privately on the real records: the arm `dp_direct` and nothing else.
    Classify,
}

/// Everything a run depends on. A run's folder holds the resolved value as `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run; its folder is `<runs_dir>/<name>-<profile>`.
    pub name: String,
    /// What comes of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub task: Task,
    /// Where the models compute.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Allows methods without a proof: the run is then NOT A DP GUARANTEE, and nothing of it can be released.
    #[serde(default, skip_serializing_if = "is_default")]
    pub research: bool,
    /// Which records, and what they look like.
    pub dataset: DatasetConfig,
    /// Which language model is fine-tuned.
    #[serde(default)]
    pub model: ModelConfig,
    /// How a label becomes a request to the model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt: PromptConfig,
    /// Reading, cleaning and tokenising.
    #[serde(default)]
    pub prepare: PrepareConfig,
    /// What labels look like, counted privately.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lexicon: LexiconConfig,
    /// Private training.
    #[serde(default)]
    pub finetune: FinetuneConfig,
    /// Drawing synthetic records.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Measuring what they are worth.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// What an audit is prepared for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audit: AuditConfig,
    /// What is said of what is published; part of no stage.
    #[serde(default, skip_serializing_if = "is_default")]
    pub release: ReleaseConfig,
}

impl RunConfig {
    /// Whether records of other arms than the synthetic one are kept as drawn: where synthetic ones are judged by what was
    /// learned privately, no other arm has a judge but the model, which would read its records again under several labels.
    pub fn keeps_others_as_drawn(&self) -> bool {
        self.lexicon.has_scorer() && self.sample.refine.action != RefineAction::Score
    }

    /// Refuses a run that draws no records, where they are what is audited, shown or released.
    ///
    /// # Errors
    /// Usage.
    pub fn require_records(&self) -> Result<()> {
        match self.task {
            Task::Synthesise => Ok(()),
            Task::Classify => Err(Error::usage(format!(
                "the run {} trains a classifier and draws no records",
                self.name
            ))
            .hint("report.json has its score and its guarantee, internal/dp_direct the classifier")),
        }
    }

    /// Tokens of a drawn record, at most.
    pub fn drawn_tokens(&self) -> usize {
        self.sample.max_tokens.unwrap_or(self.prepare.max_tokens)
    }

    /// Refuses values that parse but mean nothing, by themselves or beside others.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        if !self.name.starts_with(char::is_alphanumeric) || !self.name.chars().all(plain) {
            return refuse(
                "name",
                "letters, digits, `-`, `_` and `.` (it names a folder)",
                format!("{:?}", self.name),
            );
        }
        self.release.check()?;
        self.audit.check()?;
        self.dataset.check()?;
        self.dataset.check_whole()?;
        self.lexicon.check()?;
        self.finetune.check()?;
        self.prepare.check()?;
        self.sample.check()?;
        self.evaluate.check()?;
        self.proven()?;
        self.together()
    }

    /// Refuses a mechanism without a proof, unless it is asked for as such (P11).
    fn proven(&self) -> Result<()> {
        let f = &self.finetune;
        if f.noise == NoiseKind::ExactLaplace {
            return self.laplace();
        }
        if f.noise != NoiseKind::LaplaceMixture {
            return Ok(());
        }
        if !self.research {
            return Err(Error::usage(
                "finetune.noise = \"laplace-mixture\" has no proof for a vector, as steps release: its epsilon is NOT A DP GUARANTEE",
            )
            .hint("to try it on data that needs no protection: --research; to protect records: leave it out"));
        }
        let update = &self.evaluate.dp_direct.update;
        if f.optimizer == Optimizer::AdamBc || matches!(update, Update::NormalEquations {}) {
            return Err(Error::usage(
                "adam-bc and normal equations reckon with the noise's deviation, and finetune.noise = \"laplace-mixture\" need not have one",
            )
            .hint("take another optimizer or update"));
        }
        if f.risk.is_some() {
            return Err(Error::usage(
                "finetune.risk bounds attacks by a proven curve, which finetune.noise = \"laplace-mixture\" has not",
            )
            .hint("leave out finetune.risk"));
        }
        Ok(())
    }

    /// Laplace noise goes with few numbers, whose sizes add up to what is bounded.
    fn laplace(&self) -> Result<()> {
        let (f, direct) = (&self.finetune, &self.evaluate.dp_direct);
        let few = |update: &Update| matches!(update, Update::ZerothOrder { .. });
        let synthesises = self.task == Task::Synthesise;
        let classifies = self.evaluate.arms.contains(&ExtraArm::DpDirect);
        if (synthesises && !few(&f.update)) || (classifies && !few(&direct.update)) {
            return Err(Error::usage(
                "finetune.noise = \"exact-laplace\" is for steps that show a few numbers, and a gradient is long: `update = { kind = \"zeroth-order\" }` shows few",
            )
            .hint("finetune.update is of the language model, evaluate.dp_direct.update of a classifier; \"exact-gaussian\" is for all"));
        }
        if f.sampler != Batching::Poisson || f.max_batch_size.is_some() {
            return Err(Error::usage(
                "finetune.noise = \"exact-laplace\" is accounted for with Poisson batches of any size",
            )
            .hint("leave out finetune.sampler and finetune.max_batch_size"));
        }
        Ok(())
    }

    /// Ways of taking steps that an optimizer does not go with, and what the normal equations want.
    fn update_and_optimizer(&self) -> Result<()> {
        let (f, direct) = (&self.finetune, &self.evaluate.dp_direct);
        let either = |is: fn(&Update) -> bool| is(&direct.update) || is(&f.update);
        let instead = "finetune.optimizer = \"adamw\" or \"sgd\"";
        match f.optimizer {
            Optimizer::ModelMix if either(|update| matches!(update, Update::Flat { .. })) => {
                return Err(Error::usage(
                    "ModelMix keeps iterates, and no direction that a flat step could go up along",
                )
                .hint(instead));
            }
            Optimizer::AdamBc if either(Update::spreads_noise) => {
                return Err(Error::usage(
                    "DP-AdamBC takes out noise that is the same in each coordinate of a gradient, and that of this `update` is not",
                )
                .hint(instead));
            }
            _ => {}
        }
        let once =
            direct.method == DirectMethod::Features && direct.steps.or(f.steps) == Some(1) && direct.toward.is_none();
        if direct.update == (Update::NormalEquations {}) && !once {
            return Err(Error::usage(
                "the normal equations are solved once, on features: `evaluate.dp_direct.update` wants steps = 1, method = \"features\" and no `toward` beside it",
            )
            .hint("with an expected batch size of dataset.public_size all records are in them"));
        }
        Ok(())
    }

    /// Settings of different sections.
    fn together(&self) -> Result<()> {
        let (f, total) = (&self.finetune, self.dataset.total_epsilon);
        match self.task {
            Task::Classify if self.evaluate.arms != [ExtraArm::DpDirect] => {
                return refuse(
                    "evaluate.arms",
                    "[\"dp_direct\"] where `task` is \"classify\"",
                    format!("{:?}", self.evaluate.arms),
                );
            }
            Task::Classify if self.audit.holdout > 0.0 || self.release.copy_gate.is_some() => {
                return Err(Error::usage(
                    "a run that trains a classifier draws no records that an audit or a gate could look at",
                )
                .hint("leave out audit.holdout and release.copy_gate"));
            }
            Task::Synthesise if self.prompt.user.trim().is_empty() => {
                return refuse(
                    "prompt.user",
                    "a request to the model over the label columns",
                    "nothing",
                );
            }
            _ => {}
        }
        let direct = &self.evaluate.dp_direct.update;
        if f.bands.is_some()
            && self.evaluate.asks(ExtraArm::DpDirect)
            && !matches!(direct, Update::Gradient {} | Update::Flat { .. })
        {
            return Err(Error::usage(
                "`finetune.bands` is for steps along gradients, which `evaluate.dp_direct.update` says otherwise of",
            )
            .hint("leave out one of them"));
        }
        if self.task == Task::Classify && f.update != Update::default() {
            return Err(
                Error::usage("`finetune.update` is of a language model, and this run trains a classifier")
                    .hint("evaluate.dp_direct.update is of classifiers"),
            );
        }
        if f.risk.is_some() && self.task == Task::Synthesise && self.evaluate.asks(ExtraArm::DpDirect) {
            return Err(Error::usage(
                "`finetune.risk` bounds what one run gives away, and `dp_direct` in `evaluate.arms` is a second one on the same records",
            )
            .hint("leave one of them out, or run dp_direct by itself: task = \"classify\""));
        }
        self.update_and_optimizer()?;
        if self.sample.guidance_contrast == Contrast::Marginal && self.prompt.marginal.is_none() {
            return Err(Error::usage(
                "`sample.guidance_contrast` is \"marginal\" and there is no prompt without a label",
            )
            .hint("prompt.marginal = \"Write a movie review.\" is one: `prompt.user` without its label columns"));
        }
        if f.expected_batch_size > self.dataset.public_size {
            return refuse(
                "finetune.expected_batch_size",
                "at most `dataset.public_size`",
                f.expected_batch_size,
            );
        }
        if self.sample.label_prior == LabelPrior::Named(NamedPrior::Noisy) && f.label_histogram_epsilon.is_none() {
            return Err(Error::usage(
                "`sample.label_prior` is \"noisy\" and no epsilon is set aside for counting the labels",
            )
            .hint("finetune.label_histogram_epsilon = 0.1 takes it from the run's epsilon"));
        }
        let twice = self.task == Task::Synthesise && self.evaluate.asks(ExtraArm::DpDirect);
        if twice && total.is_none_or(|total| total <= f.epsilon) {
            // Refused now, not after training and sampling.
            return Err(Error::usage(format!(
                "the arm `dp_direct` spends budget a second time, and the dataset's total is {}",
                total.unwrap_or(f.epsilon)
            ))
            .hint("leave it out of evaluate.arms, or declare a larger dataset.total_epsilon"));
        }
        Ok(())
    }
}
