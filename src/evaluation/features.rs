//! Text as a bag of hashed word n-grams.

use rayon::prelude::*;

/// Number of hash buckets; a power of two.
pub(crate) const BUCKETS: usize = 1 << 18;

/// A text's buckets in rising order, each with a weight.
pub(crate) type SparseRow = Vec<(u32, f32)>;

/// Counts the lower-cased words and pairs of neighbouring words of each text: each bucket with 1 + ln(count).
pub(crate) fn term_frequencies<'a>(texts: impl IntoParallelIterator<Item = &'a str>) -> Vec<SparseRow> {
    texts.into_par_iter().map(term_frequency).collect()
}

fn term_frequency(text: &str) -> SparseRow {
    let lower = text.to_lowercase();
    let mut buckets = Vec::new();
    let mut previous: Option<u64> = None;
    for word in words(&lower) {
        let hash = fnv1a(word);
        buckets.push(bucket(hash));
        if let Some(previous) = previous {
            buckets.push(bucket(previous.rotate_left(23) ^ hash.wrapping_mul(PAIR)));
        }
        previous = Some(hash);
    }
    buckets.sort_unstable();
    let runs = buckets.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], 1.0 + (run.len() as f32).ln())).collect()
}

/// Runs of at least two letters, digits or underscores, as scikit-learn's `\b\w\w+\b` finds them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|w| w.chars().nth(1).is_some())
}

/// An odd constant (2⁶⁴ over the golden ratio) that keeps (a, b) and (b, a) apart.
const PAIR: u64 = 0x9E37_79B9_7F4A_7C15;

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
fn fnv1a(word: &str) -> u64 {
    word.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// The high bits of a multiplicative hash (Knuth): the low bits of FNV-1a of short words are uneven.
fn bucket(hash: u64) -> u32 {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(PAIR);
    (mixed >> (64 - BUCKETS.trailing_zeros())) as u32
}

/// Weights of buckets, ln((1 + n) / (1 + df)) + 1, learned from one arm alone.
pub(crate) struct InverseDocumentFrequency(Vec<f32>);

impl InverseDocumentFrequency {
    pub(crate) fn of(rows: &[SparseRow]) -> Self {
        let mut document_frequency = vec![0u32; BUCKETS];
        for &(bucket, _) in rows.iter().flatten() {
            document_frequency[bucket as usize] += 1;
        }
        let n = 1.0 + rows.len() as f32;
        InverseDocumentFrequency(
            document_frequency
                .iter()
                .map(|&df| (n / (1.0 + df as f32)).ln() + 1.0)
                .collect(),
        )
    }

    /// Multiplies each row by the weights and scales it to length 1.
    pub(crate) fn apply(&self, rows: &mut [SparseRow]) {
        rows.par_iter_mut().for_each(|row| {
            row.iter_mut()
                .for_each(|(bucket, value)| *value *= self.0[*bucket as usize]);
            let norm = row.iter().map(|(_, v)| v * v).sum::<f32>().sqrt();
            row.iter_mut().for_each(|(_, v)| *v /= norm);
        });
    }
}
