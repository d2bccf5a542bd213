//! The scorer: softmax regression on which tokens a record has, by gradient descent on all units at once.
//!
//! It begins where naive Bayes on the noisy counts ends. Each step's sum of bounded gradients gets its one draw of noise
//! (P3); how many steps there are was charged before the first.

use super::lexicon::{Seen, sum_over};
use crate::Result;
use crate::privacy::ChargedSums;
use crate::records::Units;
use crate::sampling::evidence::Weights;

/// Step size, for a mean gradient of norm 1 at most.
const LEARNING_RATE: f64 = 5.0;
/// Polyak 1964.
const MOMENTUM: f64 = 0.9;

/// Learns by all `sums`, from `begin` on; `public_size` is the declared number of units. What comes back are the means of the
/// second half of the steps.
///
/// A record's gradient is (p − y) ⊗ x, where x is 1 for each of its tokens and for a bias; its norm is bounded by
/// [`ChargedSums::max_norm`]. A unit contributes the mean of its records' (P5).
///
/// # Errors
/// As [`ChargedSums::privatize`].
pub fn learn(units: &Units<Seen>, begin: &Weights, public_size: u64, mut sums: ChargedSums) -> Result<Weights> {
    let (labels, width) = (begin.of_labels.len(), begin.tokens.len() + 1);
    let features = features(units, &begin.tokens);
    // [labels, width]; the last of each row is the bias.
    let mut values: Vec<f64> = Vec::with_capacity(labels * width);
    for weights in &begin.of_labels {
        values.extend(weights.iter().map(|w| f64::from(*w)));
        values.push(0.0);
    }
    let (mut velocity, mut mean) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    let (steps, bound) = (sums.left(), sums.max_norm());
    for step in 0..steps {
        let sum = sum_over(units.len(), values.len(), |unit, sum| {
            let records = features.records(unit);
            for record in records {
                add_gradient(record, &values, width, bound, 1.0 / records.len() as f64, sum);
            }
        });
        let noisy = sums.privatize(&sum)?;
        for ((value, velocity), noisy) in values.iter_mut().zip(&mut velocity).zip(noisy) {
            *velocity = MOMENTUM * *velocity + f64::from(noisy) / public_size as f64;
            *value -= LEARNING_RATE * *velocity;
        }
        if step >= steps / 2 {
            mean.iter_mut().zip(&values).for_each(|(mean, value)| *mean += value);
        }
    }
    let kept = (steps - steps / 2) as f64;
    Ok(Weights {
        tokens: begin.tokens.clone(),
        of_labels: mean
            .chunks_exact(width)
            .map(|row| row[..width - 1].iter().map(|v| (v / kept) as f32).collect())
            .collect(),
    })
}

/// Each record's tokens as places among `tokens`.
fn features(units: &Units<Seen>, tokens: &[u32]) -> Units<Seen> {
    let places: std::collections::HashMap<u32, u32> = tokens.iter().copied().zip(0..).collect();
    let mut out = Units::empty();
    for unit in 0..units.len() {
        let of = |record: &Seen| Seen {
            label: record.label,
            tokens: record.tokens.iter().filter_map(|t| places.get(t).copied()).collect(),
        };
        out.push(units.records(unit).iter().map(of).collect());
    }
    out
}

/// Adds `share` of a record's bounded gradient.
fn add_gradient(record: &Seen, values: &[f64], width: usize, bound: f64, share: f64, sum: &mut [f64]) {
    let score = |row: &[f64]| record.tokens.iter().map(|t| row[*t as usize]).sum::<f64>() + row[width - 1];
    let scores: Vec<f64> = values.chunks_exact(width).map(score).collect();
    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
    let error =
        |(label, score): (usize, &f64)| (score - peak).exp() / total - f64::from(u8::from(label == record.label));
    let errors: Vec<f64> = scores.iter().enumerate().map(error).collect();
    let norm = errors.iter().map(|e| e * e).sum::<f64>().sqrt() * ((record.tokens.len() + 1) as f64).sqrt();
    let scale = share * (bound / norm).min(1.0);
    if !scale.is_finite() {
        // A record whose gradient is no number contributes nothing.
        return;
    }
    for (row, error) in sum.chunks_exact_mut(width).zip(errors) {
        record.tokens.iter().for_each(|t| row[*t as usize] += scale * error);
        row[width - 1] += scale * error;
    }
}
