//! Poisson sampling: every record is in or out by a coin of its own, so the batch size is random (rule P1).

use rand_chacha::rand_core::Rng;

use super::keys::Key;

/// Indices of the records drawn, each of `records` with probability `sampling_rate`, in order; may be empty (P6).
///
/// The coin compares 64 random bits with ⌊q·2⁶⁴⌋: at most 2⁻⁶⁴ less likely than q, which is on the private side.
pub fn poisson(records: usize, sampling_rate: f64, key: &Key) -> Vec<usize> {
    let threshold = (sampling_rate * 2f64.powi(64)) as u128;
    let mut rng = key.stream(0);
    (0..records)
        .filter(|_| u128::from(rng.next_u64()) < threshold)
        .collect()
}
