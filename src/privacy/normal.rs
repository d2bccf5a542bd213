//! Exact normal deviates, rounded: round(σ·X) for an integer σ and X standard normal (rule P12).
//!
//! Karney (2016), "Sampling exactly from the normal distribution", ACM TOMS 42(1), algorithm N: only comparisons of
//! uniform deviates whose digits are drawn when they are needed. There is no floating point and no table, so the
//! result has exactly the distribution it claims, given uniform random bits.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

/// A uniform deviate in [0, 1) in base 2³²; digits beyond the first are drawn when a comparison asks for them.
struct Uniform {
    first: u32,
    more: Vec<u32>,
}

impl Uniform {
    #[inline]
    fn draw(rng: &mut ChaCha20Rng) -> Self {
        Uniform {
            first: rng.next_u32(),
            more: Vec::new(),
        }
    }

    #[cold]
    fn later_digit(&mut self, index: usize, rng: &mut ChaCha20Rng) -> u32 {
        while self.more.len() <= index {
            self.more.push(rng.next_u32());
        }
        self.more[index]
    }

    #[inline]
    fn less_than(&mut self, other: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
        if self.first != other.first {
            return self.first < other.first;
        }
        self.less_than_later(other, rng)
    }

    #[cold]
    fn less_than_later(&mut self, other: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
        let mut index = 0;
        loop {
            let (a, b) = (self.later_digit(index, rng), other.later_digit(index, rng));
            if a != b {
                return a < b;
            }
            index += 1;
        }
    }
}

/// A uniform integer in [0, bound), exactly: words that would favour small values are drawn again.
#[inline]
fn below(bound: u32, rng: &mut ChaCha20Rng) -> u32 {
    if bound.is_power_of_two() {
        return rng.next_u32() & (bound - 1);
    }
    let fair = u32::MAX - u32::MAX % bound;
    loop {
        let word = rng.next_u32();
        if word < fair {
            return word % bound;
        }
    }
}

/// True with probability e^(−1/2): von Neumann's alternating run below 1/2 (Karney's algorithm H).
#[inline]
fn half_exponential(rng: &mut ChaCha20Rng) -> bool {
    let mut u = Uniform::draw(rng);
    if u.first >= 1 << 31 {
        return true;
    }
    loop {
        let mut v = Uniform::draw(rng);
        if !v.less_than(&mut u, rng) {
            return false;
        }
        u = Uniform::draw(rng);
        if !u.less_than(&mut v, rng) {
            return true;
        }
    }
}

/// True with probability e^(−x(2k + x)/(2k + 2)) (Karney's algorithm B).
#[inline]
fn accept(k: u32, x: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
    // A run y = x > z₁ > z₂ > … where each link also needs a coin of (2k + x)/(2k + 2): its length is even with the
    // probability wanted.
    let mut last: Option<Uniform> = None;
    let mut even = true;
    loop {
        let part = below(2 * k + 2, rng);
        if part > 2 * k || (part == 2 * k && !Uniform::draw(rng).less_than(x, rng)) {
            return even;
        }
        let mut z = Uniform::draw(rng);
        if !z.less_than(last.as_mut().unwrap_or(x), rng) {
            return even;
        }
        last = Some(z);
        even = !even;
    }
}

/// The modulus |X| = k + x of an exact standard normal deviate (Karney's algorithm N, steps N1 to N5).
#[inline]
fn modulus(rng: &mut ChaCha20Rng) -> (u32, Uniform) {
    'again: loop {
        let mut k: u32 = 0;
        while half_exponential(rng) {
            k += 1;
        }
        for _ in 0..k * k.saturating_sub(1) {
            if !half_exponential(rng) {
                continue 'again;
            }
        }
        let mut x = Uniform::draw(rng);
        for _ in 0..=k {
            if !accept(k, &mut x, rng) {
                continue 'again;
            }
        }
        return (k, x);
    }
}

/// The largest σ in grid units: products with 64 binary digits stay within 128 bits.
pub const MAX_SIGMA: u64 = 1 << 56;

/// round(σ·X), X standard normal, for 1 ≤ σ ≤ [`MAX_SIGMA`].
#[inline]
pub fn rounded(sigma: u64, rng: &mut ChaCha20Rng) -> i64 {
    let (k, mut x) = modulus(rng);
    // 64 digits of x leave σ·x + 1/2 in an interval of width σ/2⁶⁴, which almost never holds a whole number.
    let digits = u64::from(x.first) << 32 | u64::from(x.later_digit(0, rng));
    let low = u128::from(sigma) * u128::from(digits) + (1 << 63);
    let (mut whole, fraction) = ((low >> 64) as u64, low as u64);
    let room = (1u128 << 64) - u128::from(fraction);
    if u128::from(sigma) > room && !remainder_below(room as u64, sigma, &mut x, rng) {
        whole += 1;
    }
    let magnitude = (u64::from(k) * sigma + whole) as i64;
    if rng.next_u32() & 1 == 0 { magnitude } else { -magnitude }
}

/// Whether the digits of x from the third on, read as a number in [0, 1), are below `numerator`/`denominator`.
#[cold]
fn remainder_below(numerator: u64, denominator: u64, x: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
    let mut rest = u128::from(numerator);
    let mut index = 1;
    loop {
        rest <<= 32;
        let (quotient, digit) = (rest / u128::from(denominator), u128::from(x.later_digit(index, rng)));
        if digit != quotient {
            return digit < quotient;
        }
        rest %= u128::from(denominator);
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

    use super::super::keys::Key;
    use super::*;

    /// Chi-square against the exact probability of every point: p-value above 1e-6.
    #[test]
    fn p12_every_grid_point_has_its_exact_probability() {
        const DRAWS: usize = 2_000_000;
        let normal = Normal::standard();
        for sigma in [1u64, 2, 5] {
            let reach = 5 * sigma as i64;
            let mut counts = vec![0u64; 2 * reach as usize + 1];
            let mut rng = Key::fixed(sigma as u8).stream(7);
            for _ in 0..DRAWS {
                // The two ends collect the tails.
                counts[(rounded(sigma, &mut rng).clamp(-reach, reach) + reach) as usize] += 1;
            }
            let cdf = |v: f64| normal.cdf(v / sigma as f64);
            let mut statistic = 0.0;
            for (i, count) in counts.iter().enumerate() {
                let n = i as i64 - reach;
                let lower = if n == -reach { 0.0 } else { cdf(n as f64 - 0.5) };
                let upper = if n == reach { 1.0 } else { cdf(n as f64 + 0.5) };
                let expected = DRAWS as f64 * (upper - lower);
                statistic += (*count as f64 - expected).powi(2) / expected;
            }
            let p = 1.0
                - ChiSquared::new((counts.len() - 1) as f64)
                    .expect("positive")
                    .cdf(statistic);
            assert!(
                p > 1e-6,
                "sigma {sigma}: chi-square {statistic} over {} points, p {p:e}",
                counts.len()
            );
        }
    }

    /// Kolmogorov–Smirnov, moments and tails where the grid is fine.
    #[test]
    fn p12_on_a_fine_grid_the_noise_is_normal() {
        const DRAWS: usize = 1_000_000;
        let sigma = 1u64 << 40;
        let mut rng = Key::fixed(9).stream(0);
        let mut x: Vec<f64> = (0..DRAWS)
            .map(|_| rounded(sigma, &mut rng) as f64 / sigma as f64)
            .collect();
        let n = DRAWS as f64;
        let moment = |p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / n;
        // Standard errors of the sample moments of a standard normal: 1, √2, √15, √96 over √n.
        for (p, expected, error) in [
            (1, 0.0, 1.0),
            (2, 1.0, 2f64.sqrt()),
            (3, 0.0, 15f64.sqrt()),
            (4, 3.0, 96f64.sqrt()),
        ] {
            let deviation = (moment(p) - expected) / (error / n.sqrt());
            assert!(deviation.abs() < 5.0, "moment {p} is {deviation} standard errors off");
        }
        let beyond = x.iter().filter(|v| v.abs() > 4.0).count() as f64;
        assert!(
            (beyond - 63.3).abs() < 45.0,
            "{beyond} of a million beyond 4 standard deviations, 63 expected"
        );
        x.sort_by(f64::total_cmp);
        let normal = Normal::standard();
        let distance = x.iter().enumerate().map(|(i, v)| {
            let f = normal.cdf(*v);
            (f - i as f64 / n).abs().max((f - (i + 1) as f64 / n).abs())
        });
        // P(√n·D > 2.7) is about 1e-6.
        let d = distance.fold(0.0, f64::max) * n.sqrt();
        assert!(d < 2.7, "KS distance {d}");
    }

    /// Comparisons that need a second digit are as fair as those that do not: the rare paths, made common.
    #[test]
    fn p12_digits_beyond_the_first_decide_fairly() {
        let mut rng = Key::fixed(3).stream(1);
        let (mut less, mut under_third) = (0, 0);
        const TRIALS: u32 = 200_000;
        for _ in 0..TRIALS {
            let same = |first| Uniform { first, more: vec![] };
            less += u32::from(same(5).less_than(&mut same(5), &mut rng));
            under_third += u32::from(remainder_below(1, 3, &mut same(0), &mut rng));
        }
        let off = |count: u32, p: f64| {
            (f64::from(count) - p * f64::from(TRIALS)) / (f64::from(TRIALS) * p * (1.0 - p)).sqrt()
        };
        assert!(
            off(less, 0.5).abs() < 5.0 && off(under_third, 1.0 / 3.0).abs() < 5.0,
            "{less} {under_third}"
        );
    }
}
