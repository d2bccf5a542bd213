//! Which tokens records of each label have, summed over all units: what the lexicon's noise is added to.

use rayon::prelude::*;

use crate::records::Units;

/// A record as the lexicon and the scorer see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Joint label.
    pub label: usize,
    /// Its distinct tokens, ascending.
    pub tokens: Vec<u32>,
}

impl Seen {
    /// Of a record's tokens in any order.
    pub fn of(label: usize, mut tokens: Vec<u32>) -> Self {
        tokens.sort_unstable();
        tokens.dedup();
        Seen { label, tokens }
    }
}

/// Units that are summed at once.
const CHUNK: usize = 1024;

/// The sum over `units` of vectors [labels · vocabulary]: a record's is 1 where its label meets one of its tokens, scaled to
/// norm `max_norm` at most; a unit's is the mean of its records'. So no unit moves the sum by more than `max_norm` (P5).
pub fn counts(units: &Units<Seen>, labels: usize, vocabulary: usize, max_norm: f64) -> Vec<f64> {
    let mut sum = vec![0.0; labels * vocabulary];
    for unit in 0..units.len() {
        let records = units.records(unit);
        for record in records {
            let norm = (record.tokens.len() as f64).sqrt();
            let scale = (max_norm / norm).min(1.0) / records.len() as f64;
            let own = &mut sum[record.label * vocabulary..][..vocabulary];
            for token in &record.tokens {
                if let Some(count) = own.get_mut(*token as usize) {
                    *count += scale;
                }
            }
        }
    }
    sum
}

/// What [`sum_over`] adds up: a unit's contribution to a vector.
pub fn sum_over(units: usize, len: usize, add: impl Fn(usize, &mut [f64]) + Sync) -> Vec<f64> {
    let chunks: Vec<usize> = (0..units).step_by(CHUNK).collect();
    // In the order of the units, so that the sum is the same on any number of cores.
    let parts: Vec<Vec<f64>> = chunks
        .into_par_iter()
        .map(|first| {
            let mut part = vec![0.0; len];
            (first..units.min(first + CHUNK)).for_each(|unit| add(unit, &mut part));
            part
        })
        .collect();
    let mut sum = vec![0.0; len];
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}
