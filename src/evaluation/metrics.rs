//! Scores of predictions, and their spread over seeds.

use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Counts of (true label, predicted label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    num_labels: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// Counts pairs; `truth` and `predicted` are equally long and hold labels below `num_labels`.
    pub fn new(truth: impl IntoIterator<Item = usize>, predicted: &[usize], num_labels: usize) -> Self {
        let mut counts = vec![0; num_labels * num_labels];
        for (truth, &predicted) in truth.into_iter().zip(predicted) {
            counts[truth * num_labels + predicted] += 1;
        }
        Confusion { num_labels, counts }
    }

    /// As [`Self::rows`] gave them.
    pub fn of_rows(rows: &[Vec<u64>]) -> Self {
        Confusion {
            num_labels: rows.len(),
            counts: rows.concat(),
        }
    }

    /// How often `predicted` was said where `truth` is the label.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.num_labels + predicted]
    }

    /// The counts, a row for each true label.
    pub fn rows(&self) -> Vec<Vec<u64>> {
        self.counts
            .chunks(self.num_labels.max(1))
            .map(<[u64]>::to_vec)
            .collect()
    }

    /// Share of right predictions, 0 to 1; 0 where nothing was counted.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.num_labels).map(|l| self.count(l, l)).sum();
        ratio(right, self.counts.iter().sum())
    }

    /// F1 = 2·TP / (2·TP + FP + FN), averaged over the labels that occur as truth or as prediction, 0 to 1.
    pub fn macro_f1(&self) -> f64 {
        let scores: Vec<f64> = (0..self.num_labels)
            .filter_map(|l| {
                let true_as_l: u64 = (0..self.num_labels).map(|p| self.count(l, p)).sum();
                let said_l: u64 = (0..self.num_labels).map(|t| self.count(t, l)).sum();
                // True + said = 2·TP + FN + FP.
                (true_as_l + said_l > 0).then(|| ratio(2 * self.count(l, l), true_as_l + said_l))
            })
            .collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    }
}

/// Sets of test records that are drawn for an interval.
const RESAMPLED: u64 = 400;

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean of a score over seeds with its 95 % confidence interval.
///
/// The seeds change the order of training and, where an arm is larger than the others, which of its records are
/// taken. The interval covers that, not the chance in the choice of the test records; and of a small arm, whose seeds
/// share most of its records, little of the chance in theirs: there it is narrower than it should be. Of one fit it is the
/// other chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean over seeds.
    pub mean: f64,
    /// Lower end, at least 0.
    pub low: f64,
    /// Upper end, at most 1.
    pub high: f64,
    /// Number of seeds behind it; 1: the interval is over test records.
    pub seeds: usize,
}

impl Interval {
    /// `self` − `other`, of scores with independent spread: the half widths add up as √(h₁² + h₂²). Between −1 and 1.
    pub fn minus(&self, other: &Interval) -> Interval {
        // Where an end was cut to the range of a score, the other one is as far as it was.
        let half = |i: &Interval| (i.high - i.mean).max(i.mean - i.low);
        let (mean, half) = (self.mean - other.mean, half(self).hypot(half(other)));
        Interval {
            mean,
            low: (mean - half).max(-1.0),
            high: (mean + half).min(1.0),
            seeds: self.seeds.min(other.seeds),
        }
    }

    /// mean ± t₀.₉₇₅(n − 1) · s / √n (Student 1908) for scores between 0 and 1, cut to that range.
    ///
    /// `None` with fewer than two scores: one run says nothing about the spread.
    pub fn over_seeds(scores: &[f64]) -> Option<Self> {
        let n = scores.len() as f64;
        let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?.inverse_cdf(0.975);
        let mean = scores.iter().sum::<f64>() / n;
        let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = t * (variance / n).sqrt();
        Some(Interval {
            mean,
            low: (mean - half).max(0.0),
            high: (mean + half).min(1.0),
            seeds: scores.len(),
        })
    }

    /// `score` of one fit, with the 95 % interval by the chance in the choice of the test records: percentiles of the bootstrap
    /// (Efron 1979). What another set of training records would give is not in it.
    pub fn of_one(fit: &Confusion, score: fn(&Confusion) -> f64) -> Self {
        let mean = score(fit);
        let total: u64 = fit.counts.iter().sum();
        let again = |cells: &WeightedIndex<u64>, seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut counts = vec![0; fit.counts.len()];
            (0..total).for_each(|_| counts[cells.sample(&mut rng)] += 1);
            score(&Confusion { counts, ..*fit })
        };
        // Nothing was tested: nothing varies.
        let mut scores = match WeightedIndex::new(&fit.counts) {
            Ok(cells) => (0..RESAMPLED).map(|seed| again(&cells, seed)).collect(),
            Err(_) => vec![mean],
        };
        scores.sort_by(f64::total_cmp);
        let at = |share: f64| scores[((scores.len() - 1) as f64 * share).round() as usize];
        Interval {
            mean,
            low: at(0.025),
            high: at(0.975),
            seeds: 1,
        }
    }
}
