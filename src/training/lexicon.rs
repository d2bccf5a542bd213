//! Which tokens records of each label have, summed over all units: what the lexicon's noise is added to.

use std::collections::HashMap;

use super::scorer::Labelled;
use crate::records::Units;

/// A record as the lexicon sees it: its distinct tokens, ascending.
pub type Seen = Labelled<Vec<u32>>;

/// The same of tokens in any order.
pub fn seen(label: usize, mut tokens: Vec<u32>) -> Seen {
    tokens.sort_unstable();
    tokens.dedup();
    Labelled {
        label,
        features: tokens,
    }
}

/// The tokens of `known` that each record has, by their places there.
pub fn places(units: &Units<Seen>, known: &[u32]) -> Units<Seen> {
    let places: HashMap<u32, u32> = known.iter().copied().zip(0..).collect();
    let of = |record: &Seen| Labelled {
        label: record.label,
        features: record.features.iter().filter_map(|t| places.get(t).copied()).collect(),
    };
    let mut out = Units::empty();
    (0..units.len()).for_each(|unit| out.push(units.records(unit).iter().map(of).collect()));
    out
}

/// The sum over `units` of vectors [labels · vocabulary]: a record's is 1 where its label meets one of its tokens, scaled to
/// norm `max_norm` at most; a unit's is the mean of its records'. So no unit moves the sum by more than `max_norm` (P5).
pub fn counts(units: &Units<Seen>, labels: usize, vocabulary: usize, max_norm: f64) -> Vec<f64> {
    let mut sum = vec![0.0; labels * vocabulary];
    for unit in 0..units.len() {
        let records = units.records(unit);
        for record in records {
            let norm = (record.features.len() as f64).sqrt();
            let scale = (max_norm / norm).min(1.0) / records.len() as f64;
            let own = &mut sum[record.label * vocabulary..][..vocabulary];
            for token in &record.features {
                if let Some(count) = own.get_mut(*token as usize) {
                    *count += scale;
                }
            }
        }
    }
    sum
}
