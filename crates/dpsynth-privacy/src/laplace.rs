//! Exact discrete Laplace noise for counts (Canonne, Kamath and Steinke 2020, algorithm 2): integers from random bits alone.
//!
//! P(x) = (e^γ − 1)/(e^γ + 1) · e^(−γ|x|). Added to a count that one unit moves by at most k it is (γ·k, 0)-private, and so
//! it is for a histogram that one unit moves by at most k in total.

use rand_chacha::rand_core::Rng;

use super::uniform::below;

/// γ is a multiple of 2⁻²⁴, so that it is a ratio of small integers.
const DENOMINATOR: u64 = 1 << 24;

/// Discrete Laplace noise.
#[derive(Clone, Copy, Debug)]
pub struct DiscreteLaplace {
    /// γ = numerator / denominator.
    numerator: u64,
    denominator: u64,
}

impl DiscreteLaplace {
    /// The noise with which counts that one unit moves by at most `sensitivity` in total are (`epsilon`, 0)-private.
    ///
    /// `None` where the epsilon is below 2⁻²⁴ or above 1000, or the sensitivity 0 or above a million.
    pub fn new(epsilon: f64, sensitivity: u64) -> Option<Self> {
        // Down: a smaller epsilon is more noise.
        let numerator = (epsilon * DENOMINATOR as f64).floor();
        let fits = numerator >= 1.0 && epsilon <= 1000.0 && (1..=1_000_000).contains(&sensitivity);
        fits.then(|| DiscreteLaplace {
            numerator: numerator as u64,
            denominator: DENOMINATOR * sensitivity,
        })
    }

    /// One draw.
    pub fn draw(&self, rng: &mut impl Rng) -> i64 {
        loop {
            // |x|·γ is a geometric number of whole units and a remainder u/denominator.
            let u = below(self.denominator, rng);
            if !exp_minus(u, self.denominator, rng) {
                continue;
            }
            let mut whole = 0;
            while exp_minus(1, 1, rng) {
                whole += 1;
            }
            let size = (u + self.denominator * whole) / self.numerator;
            let negative = rng.next_u64() & 1 == 1;
            // Zero has no sign.
            if negative && size == 0 {
                continue;
            }
            return if negative { -(size as i64) } else { size as i64 };
        }
    }
}

/// True with probability e^(−a/b), for 0 ≤ a ≤ b (algorithm 1 there, after Forsythe and von Neumann).
fn exp_minus(a: u64, b: u64, rng: &mut impl Rng) -> bool {
    // The first k at which a coin of probability a/(b·k) fails is odd with that probability.
    let mut k = 1;
    while below(b, rng) < a && below(k, rng) == 0 {
        k += 1;
    }
    k % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    #[test]
    fn draws_follow_the_discrete_laplace_point_by_point() {
        for (epsilon, sensitivity) in [(0.5, 1), (2.0, 1), (1.0, 3)] {
            let noise = DiscreteLaplace::new(epsilon, sensitivity).expect("in range");
            let gamma: f64 = epsilon / sensitivity as f64;
            let mut rng = Key::fixed(9).stream(0);
            let (n, mut seen) = (1_000_000, std::collections::HashMap::<i64, f64>::new());
            for _ in 0..n {
                *seen.entry(noise.draw(&mut rng)).or_default() += 1.0;
            }
            let probability = |x: i64| gamma.exp_m1() / (gamma.exp() + 1.0) * (-gamma * x.abs() as f64).exp();
            let (mut chi_square, mut cells, mut left) = (0.0, 0.0, (n as f64, n as f64));
            for x in -60..=60 {
                let expected = probability(x) * n as f64;
                if expected < 10.0 {
                    continue;
                }
                let got = seen.get(&x).copied().unwrap_or(0.0);
                chi_square += (got - expected).powi(2) / expected;
                left = (left.0 - got, left.1 - expected);
                cells += 1.0;
            }
            chi_square += (left.0 - left.1).powi(2) / left.1.max(1.0);
            // Mean `cells`, variance twice that.
            assert!(
                chi_square < cells + 5.0 * (2.0_f64 * cells).sqrt(),
                "epsilon {epsilon}: {chi_square} over {cells} cells"
            );
        }
    }

    #[test]
    fn values_without_a_meaning_have_no_noise() {
        for (epsilon, sensitivity) in [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (1e9, 1), (1.0, 0)] {
            assert!(
                DiscreteLaplace::new(epsilon, sensitivity).is_none(),
                "{epsilon} {sensitivity}"
            );
        }
    }
}
