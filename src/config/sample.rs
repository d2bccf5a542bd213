//! `[sample]`: drawing synthetic records.

use serde::{Deserialize, Serialize};

use super::rules::{self, refuse};
use crate::{Error, Result};

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

/// How much a label steers decoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number from 0 or \"auto\"")]
pub enum Strength {
    /// γ of label guidance, or β of a lexicon.
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

/// δ where none is given.
const DOMAIN_WEIGHT: f64 = 0.5;

// Left out where they are as usual, so that settings of earlier versions, which lack them, are the same settings.
fn is_usual(weight: &f64) -> bool {
    *weight == DOMAIN_WEIGHT
}

fn is_found(weight: &Strength) -> bool {
    *weight == Strength::Found(Auto::Auto)
}

/// Drawing synthetic records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Number of synthetic records, all labels together.
    pub records: usize,
    /// About so many tokens are drawn where a strength is found: more than `records` records where those are short, but at
    /// most 24 times as many. Default: `records` are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Number of zero-shot records for the baseline; default: as many as synthetic.
    pub zero_shot_records: Option<usize>,
    /// How records are spread over labels.
    pub label_prior: LabelPrior,
    /// Longest record in tokens; default: `prepare.max_tokens`.
    pub max_tokens: Option<usize>,
    /// Softmax temperature, above 0.
    pub temperature: f64,
    /// Nucleus: the smallest set of tokens with at least this probability; 1 keeps all, and noise in the weights shows in
    /// the tail.
    pub top_p: f64,
    /// γ of label guidance: log p(x|y) + γ·(log p(x|y) − log p(x|contrast)) for each token; 0 is plain sampling, `"auto"`
    /// finds it for each arm from what is seen in its own records, and is 0 where a lexicon steers that tells labels.
    pub guidance: Strength,
    /// γ at the last token a record can have: from the first token on γ goes there in equal steps. Default: it stays.
    pub guidance_end: Option<f64>,
    /// What a label is contrasted with.
    pub guidance_contrast: Contrast,
    /// At most this many other labels enter the contrast `"labels"`.
    pub guidance_labels: usize,
    /// α of the plausibility mask (Li et al. 2023, contrastive decoding), from 0 to 1: where γ is above 0, tokens less
    /// probable under the label's own prompt than α times the most probable one are never drawn. 0 masks none.
    pub guidance_plausibility: f64,
    /// β: where there is a lexicon, log p(x|y) + β·(change in the lexicon's log-odds of y) for each token; 0 lifts none,
    /// `"auto"` finds it: such that records show their label as real ones do.
    #[serde(skip_serializing_if = "is_found")]
    pub lexicon_weight: Strength,
    /// δ: where there is a lexicon, its tokens are lifted by δ·log (how often private records have them over how often drawn
    /// ones do), by the noisy counts; 0 lifts none.
    #[serde(skip_serializing_if = "is_usual")]
    pub domain_weight: f64,
    /// Records drawn side by side.
    pub batch_size: usize,
    /// Records a Parquet shard.
    pub shard_records: usize,
    /// Seed of the sampler. Sampling is post-processing: a seed costs no privacy.
    pub seed: u64,
    /// What becomes of records that do not show their label.
    pub refine: RefineConfig,
}

/// So many times `sample.records` are drawn at most where `sample.tokens` leaves room.
pub const MOST_TIMES: usize = 24;

/// A larger one would leave nothing but the tokens that are lifted most.
const MOST_DOMAIN_WEIGHT: f64 = 10.0;

impl SampleConfig {
    /// As many records as there may be.
    pub fn most_records(&self) -> usize {
        match self.tokens {
            None => self.records,
            Some(_) => self.records.saturating_mul(MOST_TIMES),
        }
    }

    /// Records of the untouched model that are drawn.
    pub fn zero_shot(&self) -> usize {
        self.zero_shot_records.unwrap_or(self.records)
    }

    /// Prompts beside its own that guidance contrasts each record with, of `labels` joint labels.
    pub fn contrasts(&self, labels: usize) -> usize {
        let guides = self.guidance != Strength::Fixed(0.0) || self.guidance_end.is_some_and(|end| end > 0.0);
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
            tokens: None,
            zero_shot_records: None,
            label_prior: LabelPrior::Named(NamedPrior::Uniform),
            max_tokens: None,
            temperature: 1.0,
            top_p: 0.9,
            guidance: Strength::Found(Auto::Auto),
            guidance_end: None,
            guidance_contrast: Contrast::Labels,
            guidance_labels: 4,
            guidance_plausibility: 0.0,
            lexicon_weight: Strength::Found(Auto::Auto),
            domain_weight: DOMAIN_WEIGHT,
            batch_size: 64,
            shard_records: 25_000,
            seed: 0,
            refine: RefineConfig::default(),
        }
    }
}

/// Refinement: the lexicon's scorers, or the model that drew a record, score it under its label and others. Free of privacy cost.
/// By scorers synthetic records alone are judged; by the model, zero-shot ones too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { min_posterior = 0.7 }")]
pub struct RefineConfig {
    /// What becomes of a record by its posterior.
    pub action: RefineAction,
    /// The posterior p(label|text) that a record must reach, from 0 to below 1; 0: nothing is refined, unless
    /// it is scored.
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
        self.action == RefineAction::Score || self.min_posterior > 0.0
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

impl SampleConfig {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        rules::above_zero(&[("sample.temperature", self.temperature)])?;
        rules::at_least_one(&[
            ("sample.records", self.records),
            ("sample.batch_size", self.batch_size),
            ("sample.shard_records", self.shard_records),
            ("sample.refine.rounds", self.refine.rounds as usize),
            ("sample.refine.labels", self.refine.labels),
        ])?;
        rules::at_least_one_if_given(&[
            ("sample.zero_shot_records", self.zero_shot_records),
            ("sample.max_tokens", self.max_tokens),
            ("sample.tokens", self.tokens),
        ])?;
        match self.guidance {
            Strength::Fixed(guidance) if !(guidance >= 0.0 && guidance.is_finite()) => {
                return refuse("sample.guidance", "0 or more, or \"auto\"", guidance.to_string());
            }
            Strength::Found(_) if self.guidance_end.is_some() => {
                return Err(Error::usage(
                    "`sample.guidance_end` goes on from a `sample.guidance` that is a number, not \"auto\"",
                )
                .hint("--set sample.guidance=2 gives one"));
            }
            _ => {}
        }
        if let Some(end) = self.guidance_end.filter(|end| !(*end >= 0.0 && end.is_finite())) {
            return refuse("sample.guidance_end", "0 or more", end.to_string());
        }
        if !(0.0..=1.0).contains(&self.guidance_plausibility) {
            return refuse(
                "sample.guidance_plausibility",
                "from 0 to 1",
                self.guidance_plausibility.to_string(),
            );
        }
        if let Strength::Fixed(weight) = self.lexicon_weight
            && !(weight >= 0.0 && weight.is_finite())
        {
            return refuse("sample.lexicon_weight", "0 or more, or \"auto\"", weight.to_string());
        }
        if !(0.0..=MOST_DOMAIN_WEIGHT).contains(&self.domain_weight) {
            return refuse(
                "sample.domain_weight",
                &format!("from 0 to {MOST_DOMAIN_WEIGHT}"),
                self.domain_weight.to_string(),
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("sample.top_p", "above 0 and at most 1", self.top_p.to_string());
        }
        if !(0.0..1.0).contains(&self.refine.min_posterior) {
            return refuse(
                "sample.refine.min_posterior",
                "0 or more and below 1",
                self.refine.min_posterior.to_string(),
            );
        }
        Ok(())
    }
}
