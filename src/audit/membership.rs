//! Membership inference on the synthetic texts alone, after Meeus et al. 2025 ("The Canary's Echo: Auditing Privacy
//! Risks of LLM-Generated Synthetic Text"): an n-gram model of the synthetic records finds texts of the training set
//! likelier than it should, if the synthetic records echo them.
//!
//! Score of a text: its mean ln p per token by trigrams of the synthetic records, minus that by trigrams of the
//! zero-shot records, which have read no private record (the calibration). Members are training records. The others are the
//! records set apart for the audit, else held-out records: equal numbers, prepared alike, without texts that stand in both.
//!
//! The attack is weaker than the canaries'. Its bound on ε takes the two groups as drawn alike and their records as
//! independent of each other; where held-out records come from elsewhere, the attack tells the sources apart, not the
//! members. So a blind attack, which has read no synthetic text, is run beside it (after Das, Zhang and Tramèr 2024,
//! "Blind baselines beat membership inference attacks"): where that succeeds too, the bound means nothing.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Stop;
use super::ngram::Trigrams;
use super::threshold::{Names, Sides};
use crate::Result;
pub use crate::documents::{AtRate, Auc, Membership};

/// False positive rates at which the attack is looked at.
const FALSE_POSITIVE_RATES: [f64; 2] = [0.01, 0.001];
/// Fewer records than this on a side say nothing.
pub const LEAST: usize = 20;

/// Token sequences of four groups of texts, without prompts.
pub struct Texts {
    pub members: Vec<Vec<u32>>,
    pub others: Vec<Vec<u32>>,
    pub synthetic: Vec<Vec<u32>>,
    pub zero_shot: Vec<Vec<u32>>,
    pub vocabulary: usize,
}

impl Texts {
    /// The attack; none where fewer than [`LEAST`] records a side are left. Repeats for the same texts.
    ///
    /// # Errors
    /// [`crate::Error::interrupted`].
    pub fn attack(self, delta: f64, alpha: f64, stop: Stop) -> Result<Option<Membership>> {
        let (members, others) = self.sides();
        if members.len() < LEAST {
            return Ok(None);
        }
        let model = |texts: &[Vec<u32>]| Trigrams::new(texts.iter().map(Vec::as_slice), self.vocabulary);
        let read = model(&self.synthetic);
        stop.check()?;
        let unread = model(&self.zero_shot);
        stop.check()?;
        let scores = |texts: &[&Vec<u32>], calibrated: bool| {
            let score = |t: &&Vec<u32>| {
                let reference = if calibrated {
                    unread.mean_log_probability(t)
                } else {
                    0.0
                };
                read.mean_log_probability(t) - reference
            };
            texts.iter().map(score).collect::<Vec<f64>>()
        };
        let sides = |calibrated| Sides {
            members: scores(&members, calibrated),
            others: scores(&others, calibrated),
        };
        let (plain, calibrated) = (sides(false), sides(true));
        let (fixing, measuring) = calibrated.halves();
        let blind_auc = self.blind(&members, &others);
        stop.check()?;
        let share = alpha / FALSE_POSITIVE_RATES.len() as f64;
        let at: Vec<AtRate> = FALSE_POSITIVE_RATES
            .map(|rate| {
                let threshold = fixing.threshold_at(rate);
                AtRate::of(rate, measuring.measure(threshold, Names::Members, delta, share))
            })
            .into();
        Ok(Some(Membership {
            records: members.len(),
            synthetic: self.synthetic.len(),
            zero_shot: self.zero_shot.len(),
            auc: calibrated.auc(),
            auc_uncalibrated: plain.auc(),
            epsilon_lower: (blind_auc.low <= 0.5).then(|| at.iter().map(|a| a.epsilon_lower).fold(0.0, f64::max)),
            at,
            blind_auc,
        }))
    }

    /// What can be told without any synthetic text.
    fn blind(&self, members: &[&Vec<u32>], others: &[&Vec<u32>]) -> Auc {
        let half = members.len() / 2;
        let model = |texts: &[&Vec<u32>]| Trigrams::new(texts[..half].iter().map(|t| t.as_slice()), self.vocabulary);
        let (of_members, of_others) = (model(members), model(others));
        let scores = |texts: &[&Vec<u32>]| {
            let score = |t: &&Vec<u32>| of_members.mean_log_probability(t) - of_others.mean_log_probability(t);
            texts[half..].iter().map(score).collect()
        };
        let sides = Sides {
            members: scores(members),
            others: scores(others),
        };
        sides.auc()
    }

    /// Members and others: different texts, none on both sides, equal numbers, in an order that is fixed but arbitrary.
    fn sides(&self) -> (Vec<&Vec<u32>>, Vec<&Vec<u32>>) {
        let different = |texts: &'_ [Vec<u32>]| texts.iter().cloned().collect::<HashSet<Vec<u32>>>();
        let (in_members, in_others) = (different(&self.members), different(&self.others));
        let own = |texts: &'_ [Vec<u32>], elsewhere: &HashSet<Vec<u32>>, seed: u64| {
            let mut seen = HashSet::new();
            let mut kept: Vec<usize> = (0..texts.len())
                .filter(|i| !texts[*i].is_empty() && !elsewhere.contains(&texts[*i]) && seen.insert(&texts[*i]))
                .collect();
            kept.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            kept
        };
        let mut members = own(&self.members, &in_others, 1);
        let mut others = own(&self.others, &in_members, 2);
        let count = members.len().min(others.len());
        members.truncate(count);
        others.truncate(count);
        (
            members.into_iter().map(|i| &self.members[i]).collect(),
            others.into_iter().map(|i| &self.others[i]).collect(),
        )
    }
}

impl Sides {
    /// The smallest threshold that names at most `rate` of the others.
    fn threshold_at(&self, rate: f64) -> f64 {
        let mut sorted = self.others.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let allowed = (rate * sorted.len() as f64).floor() as usize;
        sorted.get(allowed).map_or(f64::NEG_INFINITY, |s| s.next_up())
    }

    /// The area under the ROC curve, with the interval of DeLong, DeLong and Clarke-Pearson 1988.
    pub fn auc(&self) -> Auc {
        let sorted = |scores: &[f64]| {
            let mut out = scores.to_vec();
            out.sort_by(f64::total_cmp);
            out
        };
        let (members, others) = (sorted(&self.members), sorted(&self.others));
        // The share of `all` below a score, ties counted half.
        let placement = |all: &[f64], score: f64| {
            let below = all.partition_point(|s| *s < score);
            let upto = all.partition_point(|s| *s <= score);
            (below + upto) as f64 / (2 * all.len()) as f64
        };
        let of_members: Vec<f64> = members.iter().map(|s| placement(&others, *s)).collect();
        let of_others: Vec<f64> = others.iter().map(|s| 1.0 - placement(&members, *s)).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let variance_of_mean = |v: &[f64]| {
            let m = mean(v);
            v.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / (v.len() - 1) as f64 / v.len() as f64
        };
        let value = mean(&of_members);
        let half_width = 1.959964 * (variance_of_mean(&of_members) + variance_of_mean(&of_others)).sqrt();
        Auc {
            value,
            low: (value - half_width).max(0.0),
            high: (value + half_width).min(1.0),
        }
    }
}
