//! Exact Laplace noise (Canonne, Kamath and Steinke 2020, algorithm 2): integers from random bits alone. Discrete for counts,
//! rounded for sums of numbers.
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
            let size = geometric(self.denominator, self.numerator, rng);
            let negative = rng.next_u64() & 1 == 1;
            // Zero has no sign.
            if negative && size == 0 {
                continue;
            }
            return if negative { -(size as i64) } else { size as i64 };
        }
    }
}

/// An exponential number of mean `denominator`/`numerator`, cut to a whole one.
fn geometric(denominator: u64, numerator: u64, rng: &mut impl Rng) -> u64 {
    loop {
        // It is a geometric number of whole means and a remainder u/denominator of one.
        let u = below(denominator, rng);
        if !exp_minus(u, denominator, rng) {
            continue;
        }
        let mut whole = 0;
        while exp_minus(1, 1, rng) {
            whole += 1;
        }
        return denominator.saturating_mul(whole).saturating_add(u) / numerator;
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

/// Exact Laplace noise rounded to whole numbers: what rounding makes of a whole number plus the noise. It hides what the noise
/// itself hides, since rounding comes after it.
#[derive(Clone, Copy, Debug)]
pub struct RoundedLaplace {
    /// Twice the mean absolute value.
    halves: u64,
}

impl RoundedLaplace {
    /// Of mean absolute value `halves`/2. `None` where that is 0, or more than 2⁵⁴: a draw is then below 2⁶² but with probability
    /// e^(−256).
    pub fn new(halves: u64) -> Option<Self> {
        (1..=1 << 55).contains(&halves).then_some(RoundedLaplace { halves })
    }

    /// One draw.
    pub fn draw(&self, rng: &mut impl Rng) -> i64 {
        // The size in halves, cut to whole ones: what is at least one and less than three of them rounds to 1.
        let size = (geometric(self.halves, 1, rng).saturating_add(1) / 2).min(1 << 62) as i64;
        if rng.next_u64() & 1 == 1 { -size } else { size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    /// Sizes below half a unit round to 0, those around k to k; by the integral of the density.
    #[test]
    fn p12_rounded_laplace_noise_is_laplace_noise_that_was_rounded() {
        for halves in [1, 3, 40] {
            let noise = RoundedLaplace::new(halves).expect("in range");
            let scale = 0.5 * halves as f64;
            let mut rng = Key::fixed(10).stream(0);
            let n = 1_000_000;
            let mut seen = std::collections::HashMap::<i64, f64>::new();
            for _ in 0..n {
                *seen.entry(noise.draw(&mut rng)).or_default() += 1.0;
            }
            let above = |x: f64| 0.5 * (-x / scale).exp();
            let probability = |k: i64| match k {
                0 => 1.0 - 2.0 * above(0.5),
                _ => above(k.abs() as f64 - 0.5) - above(k.abs() as f64 + 0.5),
            };
            let (mut chi_square, mut cells) = (0.0, 0.0);
            for k in -400..=400 {
                let expected = probability(k) * n as f64;
                if expected >= 10.0 {
                    chi_square += (seen.get(&k).copied().unwrap_or(0.0) - expected).powi(2) / expected;
                    cells += 1.0;
                }
            }
            assert!(
                chi_square < cells + 5.0 * (2.0_f64 * cells).sqrt(),
                "scale {scale}: {chi_square} over {cells} cells"
            );
        }
        assert!(RoundedLaplace::new(0).is_none() && RoundedLaplace::new(u64::MAX).is_none());
    }

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
