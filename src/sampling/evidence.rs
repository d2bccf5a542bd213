//! What the tokens of a text say of its label, by a linear scorer, and how decoding lets them.
//!
//! A scorer gives each token a weight under each label; a text's log-odds add up over its distinct tokens, so each counts
//! where it first occurs. Decoding adds to a token's log-probability β times the change that it would make in the log-odds
//! of the wanted label: log p(x|y) + β·Δ log (p(y|x)/(1 − p(y|x))). Where the scorer is naive Bayes and β = 1 that is Bayes'
//! rule, token by token. The scorer was paid for; from here on it is post-processing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// No token is lifted by more, in nats: weights of much noise would else decide alone.
pub const MOST: f32 = 30.0;

/// A linear scorer of labels: weights [labels, tokens], in nats. Only their differences between labels count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Numbers of the tokens that say anything.
    pub tokens: Vec<u32>,
    /// Of each joint label, a weight for each of `tokens`.
    pub of_labels: Vec<Vec<f32>>,
}

/// A scorer at work.
#[derive(Clone, Debug)]
pub struct Evidence {
    weights: Weights,
    /// Where a token stands among those that say anything.
    places: HashMap<u32, usize>,
    /// Each token's largest weight.
    peaks: Vec<f32>,
    /// exp of the weights below the largest.
    likelihoods: Vec<Vec<f32>>,
    /// The tokens that are lifted: those of the weights, then others.
    tokens: Vec<u32>,
    /// By how much each of them is lifted whatever the label.
    of_any_label: Vec<f32>,
}

/// How far a text has been read: each label's sum of weights, and which tokens it has.
#[derive(Clone, Debug)]
pub struct Reading {
    sums: Vec<f64>,
    seen: Vec<bool>,
}

/// What is added to the log-probabilities of some tokens.
#[derive(Clone, Copy, Debug)]
pub struct Lift<'a> {
    pub tokens: &'a [u32],
    /// As many, in nats.
    pub values: &'a [f32],
}

impl Evidence {
    /// # Panics
    /// Where a label has not as many weights as there are tokens.
    pub fn new(weights: Weights) -> Self {
        let whole = weights.of_labels.iter().all(|w| w.len() == weights.tokens.len());
        assert!(whole, "each label has a weight for each token");
        let places = weights
            .tokens
            .iter()
            .enumerate()
            .map(|(at, token)| (*token, at))
            .collect();
        let of_token = |at: usize| weights.of_labels.iter().map(move |w| w[at]);
        let peak = |at| of_token(at).fold(f32::NEG_INFINITY, f32::max);
        let peaks: Vec<f32> = (0..weights.tokens.len()).map(peak).collect();
        let exp = |w: &Vec<f32>| w.iter().zip(&peaks).map(|(w, peak)| (w - peak).exp()).collect();
        Evidence {
            likelihoods: weights.of_labels.iter().map(exp).collect(),
            tokens: weights.tokens.clone(),
            of_any_label: vec![0.0; weights.tokens.len()],
            places,
            peaks,
            weights,
        }
    }

    /// The same, but `tokens` are lifted by so much besides, whatever the label.
    ///
    /// # Panics
    /// Where there are not as many values as tokens.
    pub fn beside(mut self, tokens: &[u32], values: impl ExactSizeIterator<Item = f32>) -> Self {
        assert_eq!(tokens.len(), values.len(), "each token has a value");
        for (token, value) in tokens.iter().zip(values) {
            let at = *self.places.entry(*token).or_insert_with(|| {
                self.tokens.push(*token);
                self.of_any_label.push(0.0);
                self.tokens.len() - 1
            });
            self.of_any_label[at] += value;
        }
        self
    }

    /// Whether tokens are lifted where labels do not matter.
    pub fn lifts_for_any_label(&self) -> bool {
        self.of_any_label.iter().any(|value| *value != 0.0)
    }

    /// How many labels there are.
    pub fn labels(&self) -> usize {
        self.weights.of_labels.len()
    }

    /// The tokens that are lifted.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Nothing read yet.
    pub fn begin(&self) -> Reading {
        Reading {
            sums: vec![0.0; self.weights.of_labels.len()],
            seen: vec![false; self.tokens.len()],
        }
    }

    /// Reads a token.
    pub fn read(&self, reading: &mut Reading, token: u32) {
        let Some(at) = self.places.get(&token).copied() else {
            return;
        };
        if std::mem::replace(&mut reading.seen[at], true) {
            return;
        }
        for (sum, weights) in reading.sums.iter_mut().zip(&self.weights.of_labels) {
            *sum += weights.get(at).copied().map_or(0.0, f64::from);
        }
    }

    /// log (p(label|x) / (1 − p(label|x))) of what was read, for labels that are equally likely before.
    pub fn log_odds(&self, reading: &Reading, label: usize) -> f64 {
        let others = reading.sums.iter().enumerate().filter(|(other, _)| *other != label);
        reading.sums[label] - log_sum_exp(others.map(|(_, sum)| *sum))
    }

    /// The log-odds of `label` for the distinct tokens of a text.
    pub fn score(&self, tokens: &[u32], label: usize) -> f64 {
        self.log_odds(&self.read_all(tokens), label)
    }

    /// log p(y|x) of each label, but for a constant, for the distinct tokens of a text.
    pub fn scores(&self, tokens: &[u32]) -> Vec<f64> {
        self.read_all(tokens).sums
    }

    fn read_all(&self, tokens: &[u32]) -> Reading {
        let mut reading = self.begin();
        tokens.iter().for_each(|token| self.read(&mut reading, *token));
        reading
    }

    /// β times the change that each token would make in the log-odds of `label`, and what it is lifted by besides, within
    /// [`MOST`]; 0 for those that were read.
    pub fn lift(&self, reading: &Reading, label: usize, beta: f64) -> Vec<f32> {
        let mut out = match beta > 0.0 {
            true => self.changes(reading, label),
            false => vec![0.0; self.weights.tokens.len()],
        };
        out.resize(self.tokens.len(), 0.0);
        for ((lift, besides), seen) in out.iter_mut().zip(&self.of_any_label).zip(&reading.seen) {
            *lift = match *seen {
                true => 0.0,
                false => (beta as f32 * *lift + besides).clamp(-MOST, MOST),
            };
        }
        out
    }

    /// The change that each token of the weights would make in the log-odds of `label`.
    fn changes(&self, reading: &Reading, label: usize) -> Vec<f32> {
        let sums = reading.sums.iter().copied().enumerate();
        let others: Vec<(usize, f64)> = sums.filter(|(other, _)| *other != label).collect();
        let total = log_sum_exp(others.iter().map(|(_, sum)| *sum));
        let mut mixed = vec![0f32; self.weights.tokens.len()];
        for (other, sum) in others {
            let share = (sum - total).exp() as f32;
            for (mixed, likelihood) in mixed.iter_mut().zip(&self.likelihoods[other]) {
                *mixed += share * likelihood;
            }
        }
        let own = self.weights.of_labels[label].iter().zip(&self.peaks);
        for (mixed, (own, peak)) in mixed.iter_mut().zip(own) {
            *mixed = own - peak - mixed.max(f32::MIN_POSITIVE).ln();
        }
        mixed
    }
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let peak = values.clone().fold(f64::NEG_INFINITY, f64::max);
    peak + values.map(|v| (v - peak).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_labels() -> Evidence {
        Evidence::new(Weights {
            tokens: vec![7, 2, 30],
            of_labels: vec![vec![0.5, -1.0, 0.1], vec![-0.2, 0.3, 2.0], vec![0.0, 0.9, -0.7]],
        })
    }

    #[test]
    fn increments_sum_to_the_scorers_log_odds() {
        let evidence = three_labels();
        for label in 0..3 {
            let mut reading = evidence.begin();
            let before = evidence.log_odds(&reading, label);
            let mut sum = 0.0;
            for token in [30, 4, 7, 30, 2, 7] {
                let lift = evidence.lift(&reading, label, 1.0);
                let at = evidence.tokens().iter().position(|t| *t == token);
                sum += at.map_or(0.0, |at| f64::from(lift[at]));
                evidence.read(&mut reading, token);
            }
            let own: f64 = [0.5 - 1.0 + 0.1, -0.2 + 0.3 + 2.0, 0.9 - 0.7][label];
            let rest = [-0.4f64, 2.1, 0.2]
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != label);
            let by_hand = own - rest.map(|(_, z)| z.exp()).sum::<f64>().ln();
            assert!((evidence.log_odds(&reading, label) - by_hand).abs() < 1e-6);
            assert!(
                (before + sum - by_hand).abs() < 1e-5,
                "{label}: {before} + {sum}, not {by_hand}"
            );
        }
    }

    /// Two tokens, three labels: p(token | label) by hand, and Bayes' rule over them.
    #[test]
    fn naive_bayes_with_beta_one_is_bayes_rule() {
        let p = [[0.2f64, 0.7], [0.5, 0.1], [0.3, 0.3]];
        let evidence = Evidence::new(Weights {
            tokens: vec![0, 1],
            of_labels: p.iter().map(|p| p.iter().map(|p| p.ln() as f32).collect()).collect(),
        });
        let mut reading = evidence.begin();
        evidence.read(&mut reading, 1);
        let lift = evidence.lift(&reading, 0, 1.0);
        // p(0 | 1, 0) / (1 − p) over p(0 | 1) / (1 − p), with equal priors.
        let after = 0.7 * 0.2 / (0.1 * 0.5 + 0.3 * 0.3);
        let before = 0.7 / (0.1 + 0.3);
        assert!((f64::from(lift[0]) - f64::ln(after / before)).abs() < 1e-6);
        assert_eq!(lift[1], 0.0, "a token counts once");
    }
}
