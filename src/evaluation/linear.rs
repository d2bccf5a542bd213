//! The cheap classifier: multinomial logistic regression over hashed TF-IDF of words and word pairs.
//!
//! Nothing in it is learned from any text but those it is fitted on, and it is the same on every machine.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Example;
use super::features::{BUCKETS, InverseDocumentFrequency, SparseRow, term_frequencies};

/// Weight of the data against the penalty, as scikit-learn's `C`.
const C: f32 = 10.0;
/// Passes over the training records.
const EPOCHS: usize = 40;
/// Rows have length 1, and the bias is one more feature of value 1.
const SQUARED_NORM: f32 = 2.0;
/// The log-loss of a softmax is 1/GAMMA-smooth: diag(p) − ppᵀ has no eigenvalue above 1/2.
const GAMMA: f32 = 2.0;

/// The number of updates for so many training records: each is visited once a pass.
pub fn steps(records: usize) -> usize {
    EPOCHS * records
}

/// A fitted classifier.
pub struct LinearClassifier {
    num_labels: usize,
    idf: InverseDocumentFrequency,
    /// `[buckets, labels]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl LinearClassifier {
    /// Minimises C · Σ log-loss + ‖W‖² / 2 over `examples`, the bias among the weights.
    ///
    /// `seed` orders the records. Labels are below `num_labels`. With no examples every prediction is label 0.
    pub fn fit(examples: &[Example], num_labels: usize, seed: u64) -> Self {
        let mut rows = frequencies(examples);
        let idf = InverseDocumentFrequency::of(&rows);
        idf.apply(&mut rows);
        let mut model = LinearClassifier {
            num_labels,
            idf,
            weights: vec![0.0; BUCKETS * num_labels],
            bias: vec![0.0; num_labels],
        };
        model.ascend(&rows, examples, seed);
        model
    }

    /// Stochastic dual coordinate ascent (Shalev-Shwartz and Zhang 2013, Prox-SDCA with the closed-form step):
    /// it converges linearly and has no step size to tune.
    ///
    /// Each record has a dual vector αᵢ, and W = C · Σ xᵢαᵢᵀ at all times. A visit moves αᵢ towards the negative
    /// gradient of its loss; at the optimum they are equal.
    fn ascend(&mut self, rows: &[SparseRow], examples: &[Example], seed: u64) {
        let labels = self.num_labels;
        let share = GAMMA / (C * SQUARED_NORM + GAMMA);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut dual = vec![0.0; rows.len() * labels];
        let mut change = vec![0.0; labels];
        for _ in 0..EPOCHS {
            order.shuffle(&mut rng);
            for &i in &order {
                self.scores(&rows[i], &mut change);
                softmax(&mut change);
                change[examples[i].label] -= 1.0;
                for (change, dual) in change.iter_mut().zip(&mut dual[i * labels..][..labels]) {
                    let step = share * (-*change - *dual);
                    *dual += step;
                    *change = C * step;
                }
                self.add(&rows[i], &change);
            }
        }
    }

    /// The most likely label of each text.
    pub fn predict(&self, examples: &[Example]) -> Vec<usize> {
        let mut rows = frequencies(examples);
        self.idf.apply(&mut rows);
        rows.par_iter()
            .map(|row| {
                let mut scores = vec![0.0; self.num_labels];
                self.scores(row, &mut scores);
                argmax(&scores)
            })
            .collect()
    }

    fn scores(&self, row: &SparseRow, scores: &mut [f32]) {
        scores.copy_from_slice(&self.bias);
        for &(bucket, value) in row {
            let weights = &self.weights[bucket as usize * self.num_labels..][..self.num_labels];
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score += value * weight;
            }
        }
    }

    fn add(&mut self, row: &SparseRow, change: &[f32]) {
        for &(bucket, value) in row {
            let weights = &mut self.weights[bucket as usize * self.num_labels..][..self.num_labels];
            for (weight, change) in weights.iter_mut().zip(change) {
                *weight += value * change;
            }
        }
        for (bias, change) in self.bias.iter_mut().zip(change) {
            *bias += change;
        }
    }
}

fn frequencies(examples: &[Example]) -> Vec<SparseRow> {
    term_frequencies(examples.par_iter().map(|e| e.text.as_str()))
}

fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - top).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// The first of the largest.
pub(super) fn argmax(scores: &[f32]) -> usize {
    (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}
