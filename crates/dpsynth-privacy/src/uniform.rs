//! Uniform integers, without bias.

use rand_chacha::rand_core::Rng;

/// Uniform on 0..`bound`, exactly; `bound` ≥ 1.
pub fn below(bound: u64, rng: &mut impl Rng) -> u64 {
    // The largest multiple of the bound that 64 bits hold; what lies above it is drawn again.
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let bits = rng.next_u64();
        if bits < limit {
            return bits % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    #[test]
    fn every_value_below_the_bound_is_equally_likely() {
        let mut rng = Key::fixed(3).stream(0);
        let mut seen = [0f64; 6];
        for _ in 0..60_000 {
            seen[below(6, &mut rng) as usize] += 1.0;
        }
        let chi_square: f64 = seen.iter().map(|n| (n - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi_square < 25.0, "{seen:?}");
        assert_eq!(below(1, &mut rng), 0);
    }
}
