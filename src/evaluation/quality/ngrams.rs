//! Which sequences of n words records have: how far two sets are apart, and how many different ones a set has.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::words::Words;

/// Distances between the distributions of words, 0 (the same) to 1 (nothing in common).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Of single words; none where a side has none.
    pub unigrams: Option<f64>,
    /// Of pairs of neighbours in a record; none where a side has none.
    pub bigrams: Option<f64>,
}

impl Divergence {
    pub fn between(records: &[Words], held_out: &[Words]) -> Self {
        Divergence {
            unigrams: jensen_shannon(records, held_out, 1),
            bigrams: jensen_shannon(records, held_out, 2),
        }
    }
}

/// Jensen–Shannon divergence (Lin 1991) to base 2 between the distributions of n-grams: H((p + q)/2) − (H(p) + H(q))/2,
/// 0 to 1. None where a side has no n-gram.
pub fn jensen_shannon(a: &[Words], b: &[Words], n: usize) -> Option<f64> {
    let (a, b) = (counts(a, n), counts(b, n));
    let total = |c: &[(&[u32], u64)]| c.iter().map(|(_, count)| *count).sum::<u64>() as f64;
    let (total_a, total_b) = (total(&a), total(&b));
    if total_a == 0.0 || total_b == 0.0 {
        return None;
    }
    let part = |p: f64, mean: f64| if p > 0.0 { p / 2.0 * (p / mean).log2() } else { 0.0 };
    let (mut i, mut j, mut divergence) = (0, 0, 0.0);
    while i < a.len() || j < b.len() {
        // The smaller of the next n-grams of either side, or both where they are the same.
        let order = match (a.get(i), b.get(j)) {
            (Some((x, _)), Some((y, _))) => x.cmp(y),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        let (mut p, mut q) = (0.0, 0.0);
        if order.is_le() {
            p = a[i].1 as f64 / total_a;
            i += 1;
        }
        if order.is_ge() {
            q = b[j].1 as f64 / total_b;
            j += 1;
        }
        divergence += part(p, (p + q) / 2.0) + part(q, (p + q) / 2.0);
    }
    Some(divergence.clamp(0.0, 1.0))
}

/// Different n-grams over all n-grams (after Li et al. 2016), 0 to 1; none where there are no n-grams.
///
/// Only the first `words` words count: the share falls as a set grows, so only sets of one size can be compared.
pub fn distinct(records: &[Words], n: usize, words: usize) -> Option<f64> {
    let mut left = words;
    let cut = records.iter().map(|record| {
        let taken = record.len().min(left);
        left -= taken;
        &record[..taken]
    });
    let counts = counted(cut.flat_map(|record| record.windows(n)).collect());
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    (total > 0).then(|| counts.len() as f64 / total as f64)
}

fn counts(records: &[Words], n: usize) -> Vec<(&[u32], u64)> {
    counted(records.iter().flat_map(|record| record.windows(n)).collect())
}

/// Different n-grams in rising order, each with how often it came.
fn counted(mut ngrams: Vec<&[u32]>) -> Vec<(&[u32], u64)> {
    ngrams.par_sort_unstable();
    ngrams
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len() as u64))
        .collect()
}
