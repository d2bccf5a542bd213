//! The scorer: softmax regression on what a record shows (its tokens, or its text's vector), by gradient descent on all units
//! at once.
//!
//! Each step's sum of bounded gradients gets its one draw of noise (P3); how many steps there are was charged before the
//! first.

use rayon::prelude::*;

use crate::Result;
use crate::privacy::ChargedSums;
use crate::records::Units;

/// Step size, for a mean gradient of norm 1 at most.
const LEARNING_RATE: f64 = 5.0;
/// Polyak 1964.
const MOMENTUM: f64 = 0.9;

/// Units that are summed at once.
const CHUNK: usize = 1024;
/// Chunks whose sums are in memory.
const CHUNKS: usize = 16;

/// What a record shows.
pub trait Features: Sync {
    /// With a row of weights, one for each feature there is.
    fn dot(&self, row: &[f64]) -> f64;

    /// Adds `scale` times itself to a row.
    fn add_to(&self, row: &mut [f64], scale: f64);

    fn squared_norm(&self) -> f64;
}

/// Features that are there, by their places: each is 1.
impl Features for Vec<u32> {
    fn dot(&self, row: &[f64]) -> f64 {
        self.iter().map(|at| row[*at as usize]).sum()
    }

    fn add_to(&self, row: &mut [f64], scale: f64) {
        self.iter().for_each(|at| row[*at as usize] += scale);
    }

    fn squared_norm(&self) -> f64 {
        self.len() as f64
    }
}

/// Features by their values.
impl Features for Vec<f32> {
    fn dot(&self, row: &[f64]) -> f64 {
        self.iter().zip(row).map(|(x, w)| f64::from(*x) * w).sum()
    }

    fn add_to(&self, row: &mut [f64], scale: f64) {
        row.iter_mut().zip(self).for_each(|(w, x)| *w += scale * f64::from(*x));
    }

    fn squared_norm(&self) -> f64 {
        self.iter().map(|x| f64::from(*x).powi(2)).sum()
    }
}

/// A record as a scorer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled<F> {
    /// Joint label.
    pub label: usize,
    pub features: F,
}

/// Learns by all `sums`, from the weights `begin` [labels][features] on; `public_size` is the declared number of units. What
/// comes back are the means of the weights over the second half of the steps, with a bias last in each row.
///
/// A record's gradient is (p − y) ⊗ (x, 1); its norm is bounded by [`ChargedSums::max_norm`]. A unit contributes the mean of
/// its records' (P5).
///
/// # Errors
/// As [`ChargedSums::privatize`].
pub fn learn<F: Features>(
    units: &Units<Labelled<F>>,
    begin: &[Vec<f32>],
    public_size: u64,
    mut sums: ChargedSums,
) -> Result<Vec<Vec<f32>>> {
    let width = begin.first().map_or(0, Vec::len) + 1;
    let mut values: Vec<f64> = Vec::with_capacity(begin.len() * width);
    for weights in begin {
        values.extend(weights.iter().map(|w| f64::from(*w)));
        values.push(0.0);
    }
    let (mut velocity, mut mean) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    let (steps, bound) = (sums.left(), sums.max_norm());
    for step in 0..steps {
        let sum = sum_over(units.len(), values.len(), |unit, sum| {
            let records = units.records(unit);
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
    let row = |row: &[f64]| row.iter().map(|v| (v / kept) as f32).collect();
    Ok(mean.chunks_exact(width).map(row).collect())
}

/// Adds `share` of a record's bounded gradient.
fn add_gradient<F: Features>(
    record: &Labelled<F>,
    values: &[f64],
    width: usize,
    bound: f64,
    share: f64,
    sum: &mut [f64],
) {
    let x = &record.features;
    let scores: Vec<f64> = values
        .chunks_exact(width)
        .map(|row| x.dot(&row[..width - 1]) + row[width - 1])
        .collect();
    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
    let error =
        |(label, score): (usize, &f64)| (score - peak).exp() / total - f64::from(u8::from(label == record.label));
    let errors: Vec<f64> = scores.iter().enumerate().map(error).collect();
    let norm = (errors.iter().map(|e| e * e).sum::<f64>() * (x.squared_norm() + 1.0)).sqrt();
    let scale = share * (bound / norm).min(1.0);
    if !scale.is_finite() || !norm.is_finite() {
        // A record whose gradient is no number contributes nothing.
        return;
    }
    for (row, error) in sum.chunks_exact_mut(width).zip(errors) {
        x.add_to(&mut row[..width - 1], scale * error);
        row[width - 1] += scale * error;
    }
}

/// The sum of what `add` adds for each of so many units, in their order, so that it is the same on any number of cores.
fn sum_over(units: usize, len: usize, add: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
    let chunks: Vec<usize> = (0..units).step_by(CHUNK).collect();
    let mut sum = vec![0.0; len];
    for chunks in chunks.chunks(CHUNKS) {
        let of_chunk = |first: &usize| {
            let mut part = vec![0.0; len];
            (*first..units.min(first + CHUNK)).for_each(|unit| add(unit, &mut part));
            part
        };
        let parts: Vec<Vec<f64>> = chunks.par_iter().map(of_chunk).collect();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    sum
}
