//! Who takes part in a step (rule P1). Poisson sampling: every unit is in or out by a coin of its own, so the batch size is
//! random. Random allocation: every unit is in one step of each round, so it takes part in each round once. Cyclic Poisson sampling:
//! steps take turns at parts of the units.

use rand_chacha::rand_core::Rng;

use super::keys::Key;
use super::uniform::below;

/// Indices of the units drawn, each of `units` with probability `sampling_rate`, in order; may be empty (P6).
pub fn poisson(units: usize, sampling_rate: f64, key: &Key) -> Vec<usize> {
    heads(sampling_rate, key)
        .take(units)
        .enumerate()
        .filter_map(|(i, drawn)| drawn.then_some(i))
        .collect()
}

/// Cyclic Poisson sampling: of the units of part `part` of `parts`, in order, each with probability `sampling_rate`. `shared_out`
/// is the run's key, which says what part each unit is in, and `key` the step's.
pub fn cyclic(units: usize, parts: u64, part: u64, sampling_rate: f64, shared_out: &Key, key: &Key) -> Vec<usize> {
    let mut members = allocated(units, parts, part, shared_out);
    let mut coins = heads(sampling_rate, key);
    members.retain(|_| coins.next() == Some(true));
    members
}

/// Coins without end, each true with probability `sampling_rate`.
///
/// A coin compares 64 random bits with ⌊q·2⁶⁴⌋: at most 2⁻⁶⁴ less likely than q, which is on the private side.
fn heads(sampling_rate: f64, key: &Key) -> impl Iterator<Item = bool> + use<> {
    #[cfg(mutants)]
    let sampling_rate = match crate::mutation::is(crate::mutation::Mutation::SamplingRateTooHigh) {
        true => 1.02 * sampling_rate,
        false => sampling_rate,
    };
    let threshold = threshold(sampling_rate);
    let mut rng = key.stream(0);
    std::iter::repeat_with(move || u128::from(rng.next_u64()) < threshold)
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

/// Random allocation: of `units` those, in order, that are in step `slot` of a round of `slots` steps; `key` is the round's.
/// Each unit is in one of its steps, every step equally likely.
pub fn allocated(units: usize, slots: u64, slot: u64, key: &Key) -> Vec<usize> {
    let mut rng = key.stream(0);
    (0..units).filter(|_| below(slots, &mut rng) == slot).collect()
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
    fn p1_each_unit_is_in_one_step_of_a_round_each_equally_likely() {
        let (units, slots) = (6_000, 5);
        let mut together = [0f64; 25];
        let rounds: Vec<Vec<Vec<usize>>> = [1, 2]
            .map(|key| {
                (0..slots)
                    .map(|slot| allocated(units, slots, slot, &Key::fixed(key)))
                    .collect()
            })
            .into();
        for round in &rounds {
            let mut all: Vec<usize> = round.concat();
            assert!(round.iter().all(|step| step.is_sorted()));
            all.sort_unstable();
            assert_eq!(all, (0..units).collect::<Vec<_>>());
        }
        let of = |round: &[Vec<usize>], unit| round.iter().position(|step| step.binary_search(&unit).is_ok());
        for unit in 0..units {
            let places = [&rounds[0], &rounds[1]].map(|round| of(round, unit).expect("somewhere"));
            together[5 * places[0] + places[1]] += 1.0;
        }
        // Uniform, and one round knows nothing of the other: 24 degrees of freedom.
        let expected = units as f64 / 25.0;
        let chi_square: f64 = together.iter().map(|n| (n - expected).powi(2) / expected).sum();
        assert!(chi_square < 60.0, "{together:?}");
        assert!(allocated(0, 5, 0, &Key::fixed(1)).is_empty());
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
