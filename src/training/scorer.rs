//! Scorers: softmax regression on what a record shows (its tokens, or its text's vector), by gradient descent on all units at
//! once; and, learned the same way, how far each of them is to be trusted.
//!
//! Each step's sum of bounded gradients gets its one draw of noise (P3); how many steps there are was charged before the
//! first.

use rayon::prelude::*;

use crate::Result;
use crate::privacy::ChargedSums;
use crate::records::Units;

/// Step size, for a mean gradient of norm 1 at most.
const LEARNING_RATE: f64 = 5.0;
/// The same where scorers are weighed: there are few weights, near 1.
const WEIGHING_RATE: f64 = 1.0;
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

/// Learns by `steps` of `sums`, from the weights `begin` [labels][features] on; `public_size` is the declared number of units.
/// What comes back are the means of the weights over the second half of the steps, with a bias last in each row.
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
    sums: &mut ChargedSums,
    steps: u64,
) -> Result<Vec<Vec<f32>>> {
    let width = begin.first().map_or(0, Vec::len) + 1;
    let mut values: Vec<f64> = Vec::with_capacity(begin.len() * width);
    for weights in begin {
        values.extend(weights.iter().map(|w| f64::from(*w)));
        values.push(0.0);
    }
    let bound = sums.max_norm();
    let values = descend(
        values,
        steps,
        LEARNING_RATE / public_size as f64,
        sums,
        units,
        |record, values, share, sum| add_gradient(record, values, width, bound, share, sum),
    )?;
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// What each scorer gives a record for each label: log p(y|x), but for a constant.
pub type Scored = Labelled<Vec<Vec<f32>>>;

/// How far each scorer is to be trusted: the weights of their scores in the softmax over labels that best says the labels of
/// `units`, by `steps` of `sums`. As many as there are `scorers`; they begin at equal shares of 1 and end at 0 or more.
///
/// A record's gradient for a scorer is Σ (p − y)·score over its labels; the norm of all is bounded by
/// [`ChargedSums::max_norm`]. A unit contributes the mean of its records' (P5).
///
/// # Errors
/// As [`ChargedSums::privatize`].
pub fn weigh(
    units: &Units<Scored>,
    scorers: usize,
    public_size: u64,
    sums: &mut ChargedSums,
    steps: u64,
) -> Result<Vec<f32>> {
    let bound = sums.max_norm();
    let begin = vec![1.0 / scorers as f64; scorers];
    let rate = WEIGHING_RATE / public_size as f64;
    let trusts = descend(begin, steps, rate, sums, units, |record, weights, share, sum| {
        let mut errors = posterior(&record.features, weights);
        errors[record.label] -= 1.0;
        let of = |scores: &Vec<f32>| -> f64 { scores.iter().zip(&errors).map(|(s, e)| f64::from(*s) * e).sum() };
        let gradient: Vec<f64> = record.features.iter().map(of).collect();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if norm.is_finite() {
            let scale = share * (bound / norm).min(1.0);
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += scale * g);
        }
    })?;
    // A scorer is right oftener than not, whatever the noise says.
    Ok(trusts.into_iter().map(|trust| trust.max(0.0)).collect())
}

/// How well a scorer finds labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// The mean posterior that it gives a record's own label, from 1/labels to 1.
    pub all: f64,
    /// The same of the records whose own label is clear to all scorers together: has a posterior of [`CLEAR`] at least.
    pub clear: f64,
    /// The share of these records.
    pub clear_share: f64,
}

/// The posterior from which on a label is clear.
pub const CLEAR: f64 = 0.8;

/// How well the first of `scorers` by itself, trusted as far as `alone`, finds the labels of `units`; `together` is how far all of
/// them are trusted to say whether a label is clear. By one of `sums`.
///
/// A record adds (p, p·clear, clear)/√3, of norm 1 at most, which [`ChargedSums::max_norm`] bounds; a unit contributes the mean
/// of its records' (P5).
///
/// # Errors
/// As [`ChargedSums::privatize`].
pub fn shown(
    units: &Units<Scored>,
    alone: f32,
    together: &[f32],
    public_size: u64,
    sums: &mut ChargedSums,
) -> Result<Shown> {
    let together: Vec<f64> = together.iter().map(|w| f64::from(*w)).collect();
    let part = sums.max_norm().min(1.0) / 3f64.sqrt();
    let finite = |p: f64| if p.is_finite() { p } else { 0.0 };
    let sum = sum_over(units, 3, |record, share, sum| {
        let own = finite(posterior(&record.features[..1], &[f64::from(alone)])[record.label]);
        let clear = f64::from(u8::from(posterior(&record.features, &together)[record.label] >= CLEAR));
        let seen = [own, own * clear, clear];
        sum.iter_mut().zip(seen).for_each(|(sum, v)| *sum += share * part * v);
    });
    let labels = |record: &Scored| record.features.first().map_or(1, Vec::len);
    let labels = (0..units.len()).flat_map(|unit| units.records(unit).first().map(labels));
    let least = 1.0 / labels.max().unwrap_or(1) as f64;
    let noisy = sums.privatize(&sum)?;
    let [p, p_clear, clear] = [0, 1, 2].map(|i| f64::from(noisy.get(i).copied().unwrap_or_default()) / part);
    let all = (p / public_size as f64).clamp(least, 1.0);
    Ok(Shown {
        all,
        // What is clear cannot show less than the mean of all.
        clear: if clear > 0.0 {
            (p_clear / clear).clamp(all, 1.0)
        } else {
            all
        },
        clear_share: (clear / public_size as f64).clamp(0.0, 1.0),
    })
}

/// The softmax over labels of the weighed scores.
fn posterior(scores: &[Vec<f32>], weights: &[f64]) -> Vec<f64> {
    let labels = scores.first().map_or(0, Vec::len);
    let of = |label: usize| -> f64 { scores.iter().zip(weights).map(|(s, w)| f64::from(s[label]) * w).sum() };
    let mut all: Vec<f64> = (0..labels).map(of).collect();
    softmax(&mut all);
    all
}

/// In their place, p of each score.
pub(crate) fn softmax(scores: &mut [f64]) {
    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
    scores.iter_mut().for_each(|s| *s = (*s - peak).exp() / total);
}

/// Gradient descent with momentum from `values` on; `add` adds a record's bounded gradient, times its share of its unit, to a
/// sum. The means of the values over the second half of the steps.
fn descend<F: Sync>(
    mut values: Vec<f64>,
    steps: u64,
    rate: f64,
    sums: &mut ChargedSums,
    units: &Units<Labelled<F>>,
    add: impl Fn(&Labelled<F>, &[f64], f64, &mut [f64]) + Sync,
) -> Result<Vec<f32>> {
    let (mut velocity, mut mean) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    for step in 0..steps {
        let sum = sum_over(units, values.len(), |record, share, sum| {
            add(record, &values, share, sum);
        });
        let noisy = sums.privatize(&sum)?;
        for ((value, velocity), noisy) in values.iter_mut().zip(&mut velocity).zip(noisy) {
            *velocity = MOMENTUM * *velocity + f64::from(noisy);
            *value -= rate * *velocity;
        }
        if step >= steps / 2 {
            mean.iter_mut().zip(&values).for_each(|(mean, value)| *mean += value);
        }
    }
    let kept = (steps - steps / 2) as f64;
    Ok(mean.iter().map(|v| (v / kept) as f32).collect())
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
    let mut errors: Vec<f64> = values
        .chunks_exact(width)
        .map(|row| x.dot(&row[..width - 1]) + row[width - 1])
        .collect();
    softmax(&mut errors);
    errors[record.label] -= 1.0;
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

/// The sum over units of what `add` adds for each of a unit's records and the share that each is of its unit, in their order,
/// so that it is the same on any number of cores.
fn sum_over<F: Sync>(
    units: &Units<Labelled<F>>,
    len: usize,
    add: impl Fn(&Labelled<F>, f64, &mut [f64]) + Sync,
) -> Vec<f64> {
    let chunks: Vec<usize> = (0..units.len()).step_by(CHUNK).collect();
    let mut sum = vec![0.0; len];
    for chunks in chunks.chunks(CHUNKS) {
        let of_chunk = |first: &usize| {
            let mut part = vec![0.0; len];
            for unit in *first..units.len().min(first + CHUNK) {
                let records = units.records(unit);
                let share = 1.0 / records.len() as f64;
                records.iter().for_each(|record| add(record, share, &mut part));
            }
            part
        };
        let parts: Vec<Vec<f64>> = chunks.par_iter().map(of_chunk).collect();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    sum
}
