//! Records that are nearly the same, found by MinHash (Broder 1997) and verified.

use std::collections::HashMap;

use rayon::prelude::*;

use super::words::Words;

/// Words of a shingle.
const SHINGLE: usize = 5;
/// Records with at least this Jaccard similarity of their shingles are near duplicates.
pub const SIMILARITY: f64 = 0.7;
/// Records that agree in all `ROWS` hashes of one of the `BANDS` are compared: at a similarity of 0.7 all but one pair
/// in six thousand, 1 − (1 − 0.7⁴)³².
const BANDS: usize = 32;
const ROWS: usize = 4;

/// Which records have a near duplicate among the others. A record of fewer than five words is one shingle.
pub fn near_duplicates(records: &[Words]) -> Vec<bool> {
    let shingles = shingles(records);
    let signatures: Vec<Vec<u64>> = shingles.par_iter().map(|s| signature(s)).collect();
    let mut found = vec![false; records.len()];
    for band in 0..BANDS {
        let mut buckets: HashMap<&[u64], Vec<usize>> = HashMap::new();
        for (i, signature) in signatures.iter().enumerate() {
            buckets.entry(&signature[band * ROWS..][..ROWS]).or_default().push(i);
        }
        for bucket in buckets.into_values() {
            for (k, &i) in bucket.iter().enumerate() {
                for &j in &bucket[k + 1..] {
                    // What is known of both needs no other pair.
                    if !(found[i] && found[j]) && jaccard(&shingles[i], &shingles[j]) >= SIMILARITY {
                        (found[i], found[j]) = (true, true);
                    }
                }
            }
        }
    }
    found
}

/// Each record's set of shingles, as numbers in rising order.
fn shingles(records: &[Words]) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<&[u32], u32> = HashMap::new();
    records
        .iter()
        .map(|record| {
            let mut set: Vec<u32> = record
                .windows(SHINGLE.min(record.len()).max(1))
                .map(|shingle| {
                    let next = numbers.len() as u32;
                    *numbers.entry(shingle).or_insert(next)
                })
                .collect();
            set.sort_unstable();
            set.dedup();
            set
        })
        .collect()
}

/// The smallest hash of a set's members under each of the hash functions.
fn signature(set: &[u32]) -> Vec<u64> {
    let smallest = |function: u64| set.iter().map(|&s| mix(function << 32 | u64::from(s))).min();
    (0..(BANDS * ROWS) as u64)
        .map(|f| smallest(f).unwrap_or(u64::MAX))
        .collect()
}

/// SplitMix64's output function (Steele et al. 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// |A ∩ B| / |A ∪ B| of sets in rising order; two empty ones are the same.
fn jaccard(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let order = a[i].cmp(&b[j]);
        both += usize::from(order.is_eq());
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    match a.len() + b.len() - both {
        0 => 1.0,
        either => both as f64 / either as f64,
    }
}
