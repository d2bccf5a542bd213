//! `internal/audit.json`: what an audit found. Private records were read, so all that it measured is internal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::document;
use crate::privacy::Guarantee;
use crate::privacy::bounds::binomial::{lower_limit, upper_limit};

/// A name that the program gives.
type Name = Cow<'static, str>;

/// Whether the claim stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No attack found more than is claimed.
    Pass,
    /// One did that reads private records: it may be chance, and a release does not look at it.
    Advice,
    /// The claim is refuted.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Advice => "advice",
            Verdict::Fail => "fail",
        })
    }
}

/// Whom a threshold test names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// Scores at or above the threshold are said to be in.
    Members,
    /// Scores below the threshold are said to be out.
    Others,
}

document! {
    /// What an audit found.
    #[derive(Clone, Debug)]
    pub struct Findings {
        public run: String,
        /// "internal": private records were read (P9).
        public classification: Name,
        internal verdict: Verdict,
        /// What refuted the claim, and decides a release: it read no private record, or found what the claim excludes for
        /// every dataset.
        internal refuted_by: Vec<String>,
        /// What attacks that read private records found beyond the claim: for the owner, and no reason to refuse a release.
        #[serde(default)]
        internal advice: Vec<String>,
        public claim: Guarantee,
        /// The files that were audited.
        /// None in findings of an earlier version of the program.
        internal subject: Option<Subject>,
        /// Together with confidence `confidence`.
        internal lower_bounds: Vec<LowerBound>,
        public confidence: f64,
        internal replay: Replay,
        /// None of an earlier version of the program.
        #[serde(default)]
        internal trainer: Option<TrainerSteps>,
        internal canaries: Dirac,
        internal losses: Option<Losses>,
        /// None where it was left out, or of an earlier version of the program.
        #[serde(default)]
        internal echo: Option<Echo>,
        internal membership: Option<Membership>,
        /// Whether the model had read such records before; none of an earlier version of the program.
        #[serde(default)]
        internal contamination: Option<Contamination>,
        /// Of the synthetic and the zero-shot records; none before sampling, or of an earlier version of the program.
        #[serde(default)]
        post_processing redraws: Vec<Redraw>,
        /// What was left out or must be known to read this.
        internal notes: Vec<String>,
        public settings: Settings,
        internal device: Name,
        public program_version: Name,
    }
}

document! {
    /// Hashes of what a run would hand out, and of the private records that it is held against.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Subject {
        /// SHA-256 of the trained adapter or weights.
        internal trained: String,
        /// SHA-256 of each shard of synthetic records, by file name; none before sampling.
        internal shards: BTreeMap<String, String>,
        /// The same of zero-shot ones.
        #[serde(default)]
        internal zero_shot: BTreeMap<String, String>,
        /// SHA-256 of `sampling/<arm>.json`; of the synthetic records, then the zero-shot ones, where they are there.
        #[serde(default)]
        internal sampled: Vec<String>,
        /// SHA-256 of the training and of the held-out records: a search for copies of others would find none.
        #[serde(default)]
        internal private: Vec<String>,
    }
}

document! {
    /// A lower bound on epsilon, at the claim's delta.
    #[derive(Clone, Debug)]
    pub struct LowerBound {
        public attack: Name,
        internal epsilon_lower: f64,
        /// What it takes for granted.
        public rests_on: Name,
        /// Whether a release may depend on it: the attack read no private record.
        #[serde(default)]
        public decides: bool,
    }
}

document! {
    /// How much is tried.
    #[derive(Clone, Copy, Debug)]
    pub struct Settings {
        /// About how long the replay may take.
        public replay_seconds: f64,
        /// Dirac canaries; default: as many as take seconds, at most 8 million.
        public canaries: Option<usize>,
        /// Canary records of the black-box attack, which trains once more; none: the attack is left out.
        public retrain: Option<usize>,
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            replay_seconds: 120.0,
            canaries: None,
            retrain: None,
        }
    }
}

document! {
    /// One unit of privacy added to one batch.
    #[derive(Clone, Debug)]
    pub struct Probe {
        /// Which values: `initial` or `trained`.
        internal state: Name,
        /// What the unit is: a record, or several.
        internal record: Name,
        internal tokens: usize,
        /// ‖S(D ∪ {x}) − S(D)‖ / C.
        #[serde(deserialize_with = "unbounded")]
        internal ratio: f64,
        /// ‖S(D ∪ {x}) − S(D) − S({x})‖ / C: by how much the others' contributions moved. None of an earlier version of the
        /// program.
        #[serde(default)]
        internal others: Option<f64>,
    }
}

document! {
    /// What the replay came to.
    #[derive(Clone, Debug)]
    pub struct Replay {
        /// Units in D.
        internal batch: usize,
        internal micro_batch_size: usize,
        internal probes: Vec<Probe>,
        #[serde(deserialize_with = "unbounded")]
        internal worst_ratio: f64,
        #[serde(default)]
        internal worst_others: Option<f64>,
        /// `worst_ratio` may be at most 1 and this, `worst_others` this; beyond it the claim does not hold.
        public charged_allowance: f64,
        internal within_charge: bool,
        /// Whether it is within 1 + 1e-6, as rule P5 has it.
        internal within_p5: bool,
        internal seconds: f64,
    }
}

document! {
    /// The mechanism as claimed: what the adversary computes likelihoods with.
    #[derive(Clone, Copy, Debug)]
    pub struct Claimed {
        /// q: probability that a record is drawn in a step.
        public sampling_rate: f64,
        /// σ: noise standard deviation over C.
        public noise_multiplier: f64,
        /// T: number of steps.
        public steps: u64,
        public delta: f64,
        /// Steps of a round, where batches are drawn by random allocation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public slots: Option<u64>,
        /// Steps over which noise goes together, where it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public bands: Option<u64>,
        /// Whether the noise is Laplace noise.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        public laplace: bool,
    }
}

document! {
    /// What the Dirac canaries came to.
    #[derive(Clone, Debug)]
    pub struct Dirac {
        public claimed: Claimed,
        public canaries: usize,
        /// By the one-run theorem, which assumes nothing but (ε, δ)-privacy.
        internal one_run: Vec<OneRun>,
        /// By a threshold, fixed on half of the canaries and measured on the other half, taking canaries as independent of
        /// each other: that they are is part of what is claimed (each is drawn by itself, independent noise).
        internal threshold: Measured,
        /// The same two attacks, held against the whole curve; none of an earlier version of the program.
        #[serde(default)]
        internal on_the_curve: Option<OnTheCurve>,
    }
}

document! {
    /// Bounds by the claimed mechanism's trade-off function, at other noise.
    #[derive(Clone, Debug)]
    pub struct OnTheCurve {
        internal one_run: OneRun,
        internal threshold: Measured,
    }
}

/// How many canaries and how many guesses; fixed before anything is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Design {
    /// m. With more of them than this, the first m are audited, the other coins taken as given.
    pub canaries: usize,
    /// r: the scores furthest from 0 are guessed by their sign, the rest are abstained from.
    pub guesses: usize,
}

document! {
    /// What one design came to.
    #[derive(Clone, Debug)]
    pub struct OneRun {
        /// See [`Design`], as the next.
        public canaries: usize,
        public guesses: usize,
        internal correct: u64,
        /// Canaries that were in and guessed to be, of all that were in.
        internal true_positives: Rate,
        /// Canaries that were out and guessed to be in, of all that were out.
        internal false_positives: Rate,
        /// At level `alpha`.
        internal epsilon_lower: f64,
        /// This design's share of the error that is allowed.
        public alpha: f64,
    }
}

document! {
    /// A threshold test fixed elsewhere, measured here.
    #[derive(Clone, Debug)]
    pub struct Measured {
        internal threshold: f64,
        internal names: Names,
        /// Of those it should name, those it does.
        internal true_positives: Rate,
        /// Of those it should not name, those it does.
        internal false_positives: Rate,
        /// At level `alpha`.
        internal epsilon_lower: f64,
        public alpha: f64,
    }
}

document! {
    /// A share with its exact (Clopper and Pearson 1934) 95 % interval.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Rate {
        internal count: u64,
        internal of: u64,
        internal rate: f64,
        internal low: f64,
        internal high: f64,
    }
}

impl Rate {
    /// `count` of `of`; of nothing, nothing is known.
    pub fn new(count: u64, of: u64) -> Self {
        Rate {
            count,
            of,
            rate: if of == 0 { 0.0 } else { count as f64 / of as f64 },
            low: lower_limit(count, of, 0.025),
            high: upper_limit(count, of, 0.025),
        }
    }
}

document! {
    /// What the losses of canary records came to.
    #[derive(Clone, Debug)]
    pub struct Losses {
        public canaries: usize,
        /// Tokens of each canary, without the prompt.
        internal tokens: usize,
        /// Mean drop of the loss of canaries that were trained on.
        internal mean_drop_included: f64,
        /// The same of those that were not.
        internal mean_drop_excluded: f64,
        internal one_run: Vec<OneRun>,
    }
}

document! {
    /// What synthetic text alone tells of canaries that a model was trained with.
    #[derive(Clone, Debug)]
    pub struct Echo {
        /// Records that the model drew.
        internal synthetic: usize,
        internal at: Vec<EchoAt>,
    }
}

document! {
    /// Of canaries that stand so often in the data.
    #[derive(Clone, Debug)]
    pub struct EchoAt {
        public repetitions: usize,
        /// In and out.
        public canaries: usize,
        /// By trigrams of the records, calibrated by those of zero-shot ones.
        internal trigrams: Auc,
        /// By the losses of a model that was fine-tuned on the records.
        internal auxiliary_model: Auc,
        /// By the nearest record, as a sentence encoder sees them; none without one.
        internal similarity: Option<Auc>,
    }
}

document! {
    /// Area under the ROC curve with its 95 % interval.
    #[derive(Clone, Copy, Debug)]
    pub struct Auc {
        internal value: f64,
        internal low: f64,
        internal high: f64,
    }
}

document! {
    /// Membership inference at one false positive rate.
    #[derive(Clone, Debug)]
    pub struct AtRate {
        /// The rate that the threshold keeps on one half of the held-out records.
        public false_positive_rate: f64,
        /// What it does on the other halves; see [`Measured`].
        internal threshold: f64,
        internal names: Names,
        internal true_positives: Rate,
        internal false_positives: Rate,
        internal epsilon_lower: f64,
        public alpha: f64,
    }
}

impl AtRate {
    pub fn of(false_positive_rate: f64, measured: Measured) -> Self {
        AtRate {
            false_positive_rate,
            threshold: measured.threshold,
            names: measured.names,
            true_positives: measured.true_positives,
            false_positives: measured.false_positives,
            epsilon_lower: measured.epsilon_lower,
            alpha: measured.alpha,
        }
    }
}

document! {
    /// What membership inference came to.
    #[derive(Clone, Debug)]
    pub struct Membership {
        /// Records on each side.
        internal records: usize,
        internal synthetic: usize,
        internal zero_shot: usize,
        internal auc: Auc,
        /// Without the calibration by zero-shot records.
        internal auc_uncalibrated: Auc,
        internal at: Vec<AtRate>,
        /// Of the blind attack: trigrams of half of the members against trigrams of half of the others, on the rest.
        internal blind_auc: Auc,
        /// The larger of the bounds; they share the error that is allowed. None where the blind attack succeeds.
        internal epsilon_lower: Option<f64>,
    }
}

document! {
    /// How the untouched model completes held-out records.
    #[derive(Clone, Copy, Debug)]
    pub struct Contamination {
        /// Records that were cut in two.
        internal records: usize,
        /// Mean loss of second parts after their own first parts.
        internal nats_a_token: f64,
        /// Behind another record's.
        internal nats_a_token_shuffled: f64,
        /// Second parts whose tokens' probabilities have a geometric mean above one half.
        internal recited: usize,
        /// The same behind another record's first part.
        internal recited_shuffled: usize,
    }
}

impl fmt::Display for Contamination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mean loss of the untouched model on the second part of {} held-out records: {:.2} nats a token after their own first \
             part, {:.2} after another record's; below ln 2 for {} of them ({} after another's)",
            self.records, self.nats_a_token, self.nats_a_token_shuffled, self.recited, self.recited_shuffled
        )
    }
}

document! {
    /// Steps of the training loop beside the same steps by their parts.
    #[derive(Clone, Debug)]
    pub struct TrainerSteps {
        public steps: u64,
        /// Units that they drew together.
        internal drawn: usize,
        /// Of a trained value between both.
        #[serde(deserialize_with = "unbounded")]
        internal largest_difference: f64,
        /// Whether the optimizer was given what the mechanism released: to the bit on a CPU.
        internal same: bool,
    }
}

document! {
    /// Records of an arm, held against the model that drew them.
    #[derive(Clone, Debug)]
    pub struct Redraw {
        public arm: Name,
        /// In the shards.
        post_processing records: usize,
        /// Of those, how many stand in no journal of what was drawn.
        post_processing not_drawn: usize,
        post_processing drawn_again: usize,
        /// Of those, how many came out the same, letter by letter.
        post_processing same: usize,
        /// Whether the same arithmetic computed both.
        post_processing same_arithmetic: bool,
    }
}

/// JSON has no infinity: it is written as null.
fn unbounded<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}
