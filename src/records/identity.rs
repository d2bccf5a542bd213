//! What makes a dataset the same dataset: its records, whatever their order.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::Record;
use crate::assets::hex;

/// Hexadecimal sha256 over the texts as a multiset: the sha256 of the sorted sha256 of each. Rows in another order, and
/// labels declared otherwise, are the same dataset; one text more, fewer, changed or repeated is another.
pub fn content_hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hashes: Vec<[u8; 32]> = texts.into_iter().map(|text| Sha256::digest(text).into()).collect();
    hashes.sort_unstable();
    let mut all = Sha256::new();
    hashes.iter().for_each(|hash| all.update(hash));
    hex(&all.finalize())
}

/// At most `count` records, the same ones whatever the order of the rows: those with the smallest hashes.
pub fn fixed_sample(mut records: Vec<Record>, count: Option<usize>) -> Vec<Record> {
    if let Some(count) = count {
        records.sort_by_cached_key(record_hash);
        records.truncate(count);
    }
    records
}

/// Number of different texts that are, letter by letter, in both.
pub fn shared_texts(train: &[Record], test: &[Record]) -> usize {
    let of = |records: &[Record]| -> HashSet<[u8; 32]> {
        records
            .iter()
            .map(|record| Sha256::digest(&record.text).into())
            .collect()
    };
    of(train).intersection(&of(test)).count()
}

fn record_hash(record: &Record) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update((record.label as u64).to_le_bytes());
    hasher.update(record.text.as_bytes());
    hasher.finalize().into()
}
