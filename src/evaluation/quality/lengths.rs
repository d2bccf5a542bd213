//! How long records are.

use serde::{Deserialize, Serialize};

use super::words::Words;

/// Shares at which [`Lengths::quantiles`] are taken.
pub const SHARES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// Lengths of records, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    pub mean: f64,
    /// At the [`SHARES`].
    pub quantiles: [f64; 5],
    /// 1-Wasserstein distance to the lengths of the held-out records, in words.
    pub wasserstein: f64,
}

impl Lengths {
    /// None where either side has no record.
    pub fn between(records: &[Words], held_out: &[Words]) -> Option<Self> {
        let [ours, theirs] = [records, held_out].map(|r| sorted(r.iter().map(|w| w.len() as f64)));
        Some(Lengths {
            wasserstein: wasserstein(&ours, &theirs)?,
            mean: ours.iter().sum::<f64>() / ours.len() as f64,
            quantiles: SHARES.map(|share| quantile(&ours, share)),
        })
    }
}

/// Values in rising order.
pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The quantile at `share` (0 to 1) of values in rising order, at least one, linear between neighbours (numpy's default).
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

/// ∫ |F − G| of two samples' distribution functions, values in rising order: the 1-Wasserstein distance on the line
/// (Vallender 1974). None where either is empty.
pub fn wasserstein(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let all = sorted(a.iter().chain(b).copied());
    let (mut i, mut j, mut distance) = (0, 0, 0.0);
    for pair in all.windows(2) {
        while i < a.len() && a[i] <= pair[0] {
            i += 1;
        }
        while j < b.len() && b[j] <= pair[0] {
            j += 1;
        }
        let apart = i as f64 / a.len() as f64 - j as f64 / b.len() as f64;
        distance += apart.abs() * (pair[1] - pair[0]);
    }
    Some(distance)
}
