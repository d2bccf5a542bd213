//! How to spend the hours there are: on training, on drawing records, and on texts of which length; and how to split epsilon
//! between them. From public numbers and this machine's speed: nothing is tuned on private records.
//!
//! What does not grow with what is planned goes first: the vectors for the lexicon, the records of the untouched model, and
//! the evaluation's classifiers on equally many records. Of the rest, training and synthetic records get a half each: as
//! measured so far each is worth something, and neither makes up for the other (docs/results.md). Records are as long as they can
//! be with [`ENOUGH`] of them drawn and [`FEW_DRAWS`] seen in training. The lexicon takes the largest share of epsilon that
//! leaves training [`KEPT`] of its worth.

use super::cost::{Basis, Reckoning, Spending};
use crate::config::{MOST_TIMES, RunConfig};
use crate::privacy::planner::{FEWEST_STEPS, Offer, Proposal};
use crate::run::plan_request;
use crate::training::trainable;
use crate::{Error, Result};

/// Tokens of a record in training, and of one that is drawn, from the shortest: drawn ones go on for longer, since a
/// classifier sees more of them.
const LENGTHS: [(usize, usize); 5] = [(64, 128), (96, 192), (128, 224), (192, 256), (300, 320)];

/// Synthetic records that come before longer ones: with twice as many, linear classifiers gained a point or less.
const ENOUGH: usize = 2000;

/// Units that training draws in all before records grow longer: ten steps of 256.
const FEW_DRAWS: u64 = 256 * FEWEST_STEPS;

/// Of epsilon, what the lexicon and its scorers cost alone, together: rungs, the largest first.
const SHARES: [f64; 6] = [0.95, 0.9, 0.8, 0.6, 0.4, 0.2];

/// Of training's worth without a lexicon, what one leaves at least.
const KEPT: f64 = 0.875;

/// Fewer synthetic records are no proposal, unless there are fewer real ones.
const FEWEST_RECORDS: usize = 128;

/// To tell what each more takes.
const MANY: usize = 1 << 16;

/// Hours for a whole run: a number above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hours(f64);

impl Hours {
    /// # Errors
    /// Usage: not a number above 0, or none at all.
    pub fn new(hours: f64) -> Result<Self> {
        match hours > 0.0 && hours.is_finite() {
            true => Ok(Hours(hours)),
            false => Err(
                Error::usage(format!("the hours for a run must be a number above 0, not {hours}"))
                    .hint("--hours 0.5 is half an hour"),
            ),
        }
    }

    /// As given.
    pub fn get(self) -> f64 {
        self.0
    }

    fn seconds(self) -> f64 {
        self.0 * 3600.0
    }
}

/// How to spend a time.
#[derive(Clone, Debug)]
pub struct Spent {
    /// The settings with what is proposed.
    pub config: RunConfig,
    /// Steps and batches, of which one is proposed.
    pub training: Proposal,
    pub spending: Spending,
    /// Synthetic records of full length.
    pub records: usize,
    /// Units that training takes in a second.
    pub units_per_second: f64,
}

impl Spent {
    /// What `--set` takes.
    pub fn set(&self) -> Vec<(&'static str, String)> {
        let (c, offer) = (&self.config, self.training.proposed());
        let mut set = vec![
            ("finetune.expected_batch_size", offer.expected_batch_size.to_string()),
            ("finetune.steps", offer.steps.to_string()),
            ("prepare.max_tokens", c.prepare.max_tokens.to_string()),
            ("sample.records", c.sample.records.to_string()),
        ];
        set.extend(c.sample.max_tokens.map(|n| ("sample.max_tokens", n.to_string())));
        set.extend(c.sample.tokens.map(|n| ("sample.tokens", n.to_string())));
        set.extend(
            c.sample
                .zero_shot_records
                .map(|n| ("sample.zero_shot_records", n.to_string())),
        );
        if c.lexicon.is_on() {
            set.push(("lexicon.share", c.lexicon.share.to_string()));
            set.push(("lexicon.scorer_share", c.lexicon.scorer_share.to_string()));
        }
        set
    }
}

/// How to spend `hours` on a run of `config`.
///
/// # Errors
/// Usage: too few for what every run does, or to train and draw at all; what [`Proposal::new`] refuses.
pub fn spend(config: &RunConfig, basis: &Basis, hours: Hours) -> Result<Spent> {
    let lengths = LENGTHS.map(|(train, drawn)| Lengths::of(config, basis, train, drawn));
    let fits = |l: &&Lengths| {
        let halves = l.halves(basis, hours);
        halves.is_some_and(|h| h.records >= l.enough() && h.draws >= l.few_draws())
    };
    let lengths = lengths.iter().rev().find(fits).unwrap_or(&lengths[0]);
    let halves = lengths
        .halves(basis, hours)
        .filter(|h| h.records >= lengths.fewest(basis));
    let halves = halves.ok_or_else(|| lengths.too_few(basis, hours))?;
    halves.spent(&lengths.config, basis)
}

/// Settings with records of a length.
struct Lengths {
    config: RunConfig,
}

/// What a time comes to.
struct Halves {
    /// Synthetic ones.
    records: usize,
    draws: u64,
}

impl Lengths {
    /// No longer than texts are, and within half of the model's context.
    fn of(config: &RunConfig, basis: &Basis, train: usize, drawn: usize) -> Self {
        let most = basis.longest_text.min(basis.shape.context / 2).max(1);
        let mut config = config.clone();
        config.sample.zero_shot_records = Some(config.sample.zero_shot());
        config.prepare.max_tokens = train.min(most);
        config.sample.max_tokens = Some(drawn.min(most));
        Lengths { config }
    }

    fn reckoning<'a>(&'a self, basis: &'a Basis) -> Reckoning<'a> {
        Reckoning {
            config: &self.config,
            basis,
        }
    }

    fn real(&self) -> usize {
        self.config.dataset.public_size as usize
    }

    /// No more than there are real ones.
    fn enough(&self) -> usize {
        ENOUGH.min(self.real())
    }

    fn fewest(&self, basis: &Basis) -> usize {
        FEWEST_RECORDS.max(2 * basis.labels).min(self.real())
    }

    fn few_draws(&self) -> u64 {
        FEW_DRAWS.min(FEWEST_STEPS * (self.config.dataset.public_size / 2).max(1))
    }

    /// Seconds that every run takes.
    fn fixed(&self, basis: &Basis) -> Spending {
        let r = self.reckoning(basis);
        let zero_shot = r.zero_shot_records();
        Spending {
            // Without the fits on all synthetic records.
            evaluate_s: r.evaluate_s(zero_shot) - zero_shot as f64 * self.read_s(basis),
            ..r.spending(0, 0)
        }
    }

    /// Seconds in which the fits on all synthetic records read one of them.
    fn read_s(&self, basis: &Basis) -> f64 {
        let r = self.reckoning(basis);
        // From there on the other fits stay as large as they are.
        let from = r.zero_shot_records();
        (r.evaluate_s(from + MANY) - r.evaluate_s(from)) / MANY as f64
    }

    /// None where nothing is left for them.
    fn halves(&self, basis: &Basis, hours: Hours) -> Option<Halves> {
        let r = self.reckoning(basis);
        let half = (hours.seconds() - self.fixed(basis).total_s()) / 2.0;
        if half <= 0.0 {
            return None;
        }
        let drawn_s = (r.drawing_s(MANY, true) - r.drawing_s(0, true)) / MANY as f64;
        let each = drawn_s + self.read_s(basis);
        let records = ((half / each) as usize).min(self.real());
        let rest = 2.0 * half - records as f64 * each;
        Some(Halves {
            records,
            draws: (rest * r.units_per_second()) as u64,
        })
    }

    fn too_few(&self, basis: &Basis, hours: Hours) -> Error {
        let fixed = self.fixed(basis);
        let parts = [
            (
                fixed.before_training_s,
                "vectors for the lexicon",
                "lexicon.encoder=none",
            ),
            (
                fixed.zero_shot_s,
                "records of the untouched model",
                "sample.zero_shot_records=128",
            ),
            (fixed.evaluate_s, "evaluation", "evaluate.encoder=false"),
        ];
        let told = parts.iter().map(|(s, what, _)| format!("{:.0} min {what}", s / 60.0));
        let longest = parts.iter().max_by(|a, b| a.0.total_cmp(&b.0));
        Error::usage(format!(
            "{} h are too few to train and to draw {} records beside what every run takes here: {}",
            hours.get(),
            self.fewest(basis),
            told.collect::<Vec<_>>().join(", ")
        ))
        .hint(format!(
            "more hours, or less of what takes longest: --set {}",
            longest.map_or("", |(.., key)| key)
        ))
    }
}

impl Halves {
    fn spent(&self, config: &RunConfig, basis: &Basis) -> Result<Spent> {
        let mut config = config.clone();
        let real = config.dataset.public_size as usize;
        let by_tokens = Reckoning { config: &config, basis }.counts_tokens();
        (config.sample.records, config.sample.tokens) = match by_tokens {
            false => (self.records, None),
            // So many times as many where they are shorter, and never more than real ones.
            true => {
                let most = (real / MOST_TIMES).max(self.records.div_ceil(MOST_TIMES));
                let length = config.drawn_tokens();
                (
                    config.sample.records.min(self.records).min(most),
                    Some(self.records * length),
                )
            }
        };
        let least = self.records.div_ceil(MOST_TIMES);
        config.sample.records = config.sample.records.max(least);
        let dimensions = trainable::count(&config.finetune, &basis.shape);
        let propose = |config: &RunConfig| Proposal::new(&plan_request(config), dimensions, self.draws);
        let taken = |config: &mut RunConfig, offer: &Offer| {
            config.finetune.expected_batch_size = offer.expected_batch_size;
            config.finetune.steps = Some(offer.steps);
        };
        let proposal = propose(&config)?;
        taken(&mut config, proposal.proposed());
        split(&mut config, dimensions);
        let proposal = propose(&config)?;
        taken(&mut config, proposal.proposed());

        let reckoning = Reckoning { config: &config, basis };
        let units_per_second = reckoning.units_per_second();
        let spending = reckoning.spending(proposal.proposed().draws(), self.records);
        Ok(Spent {
            config,
            training: proposal,
            spending,
            records: self.records,
            units_per_second,
        })
    }
}

/// Gives the lexicon and its scorers, in the proportion in which they stand, what training can spare; where even the least is
/// too much, what they have.
fn split(config: &mut RunConfig, dimensions: usize) {
    if !config.lexicon.is_on() {
        return;
    }
    let (share, scorer_share) = (config.lexicon.share, config.lexicon.scorer_share);
    let with = |total: f64| {
        let mut config = config.clone();
        let part = |of: f64| match of > 0.0 && total > 0.0 {
            true => ((total * of / (share + scorer_share) * 1e3).round() / 1e3).max(1e-3),
            false => 0.0,
        };
        (config.lexicon.share, config.lexicon.scorer_share) = (part(share), part(scorer_share));
        config
    };
    // What cannot be paid at all is worth nothing: a histogram or the copy gate may take the rest of epsilon.
    let worth = |config: &RunConfig| {
        let offer = Offer::of(&plan_request(config), dimensions);
        offer.map_or(0.0, |offer| offer.worth)
    };
    let alone = worth(&with(0.0));
    let spared = SHARES
        .iter()
        .map(|total| with(*total))
        .find(|split| worth(split) >= KEPT * alone);
    if let Some(split) = spared {
        config.lexicon = split.lexicon;
    }
}
