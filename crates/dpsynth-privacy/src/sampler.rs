//! Poisson sampling: every unit is in or out by a coin of its own, so the batch size is random (rule P1).

use rand_chacha::rand_core::Rng;

use super::keys::Key;
use super::uniform::below;

/// Indices of the units drawn, each of `units` with probability `sampling_rate`, in order; may be empty (P6).
///
/// The coin compares 64 random bits with ⌊q·2⁶⁴⌋: at most 2⁻⁶⁴ less likely than q, which is on the private side.
pub fn poisson(units: usize, sampling_rate: f64, key: &Key) -> Vec<usize> {
    #[cfg(mutants)]
    let sampling_rate = match crate::mutation::is(crate::mutation::Mutation::SamplingRateTooHigh) {
        true => 1.02 * sampling_rate,
        false => sampling_rate,
    };
    let threshold = threshold(sampling_rate);
    let mut rng = key.stream(0);
    (0..units).filter(|_| u128::from(rng.next_u64()) < threshold).collect()
}

/// ⌊q·2⁶⁴⌋.
fn threshold(sampling_rate: f64) -> u128 {
    (sampling_rate * 2f64.powi(64)) as u128
}

/// Truncated Poisson sampling: of more than `most` members a uniformly random subset of that size stays, in order.
pub fn truncate(mut members: Vec<usize>, most: usize, key: &Key) -> Vec<usize> {
    if members.len() > most {
        #[cfg(mutants)]
        if crate::mutation::is(crate::mutation::Mutation::TruncationKeepsTheFirst) {
            members.truncate(most);
            return members;
        }
        let mut rng = key.stream(1);
        for i in 0..most {
            let j = i + below((members.len() - i) as u64, &mut rng) as usize;
            members.swap(i, j);
        }
        members.truncate(most);
        members.sort_unstable();
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A coin is q itself, not a rate near it: of powers of two exactly, of others from below.
    #[test]
    fn p1_a_coin_has_the_probability_that_is_accounted_for() {
        assert_eq!(threshold(0.25), 1 << 62);
        assert_eq!(threshold(1.0), 1 << 64);
        assert_eq!(threshold(0.0), 0);
        // 0.1 in f64 is 3602879701896397 / 2^55.
        assert_eq!(threshold(0.1), 3_602_879_701_896_397 << 9);
    }

    #[test]
    fn truncation_keeps_every_member_equally_often() {
        let (mut seen, trials) = ([0f64; 7], 21_000u32);
        for trial in 0..trials {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&trial.to_le_bytes());
            let kept = truncate((0..7).collect(), 3, &Key::of(key));
            assert!(kept.len() == 3 && kept.windows(2).all(|w| w[0] < w[1]), "{kept:?}");
            kept.iter().for_each(|i| seen[*i] += 1.0);
        }
        // Each is kept with probability 3/7: 9000 times, deviation 72.
        assert!(seen.iter().all(|n| (n - 9000.0).abs() < 360.0), "{seen:?}");
        assert_eq!(truncate(vec![2, 5], 3, &Key::fixed(1)), [2, 5]);
    }
}
