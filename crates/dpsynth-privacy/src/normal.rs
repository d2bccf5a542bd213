//! Exact normal deviates, rounded: round(σ·X) for an integer σ and X standard normal (rule P12).
//!
//! Karney (2016), "Sampling exactly from the normal distribution", ACM TOMS 42(1), algorithm N, on strips of width 1/32
//! where the paper has 1. |X| = (k + x)/32 has the density exp(−k²/2048)·exp(−x(2k + x)/2048) up to a constant: the strip
//! k is drawn by the first factor ([`strips`]), x is uniform in [0, 1), and the second factor is the probability with which
//! both are kept, in a run of comparisons that mostly ends with the first. There is no floating point: comparisons are of
//! uniform deviates whose digits are drawn when they are needed, so that the result has exactly the distribution it
//! claims, given uniform random bits.

mod lazy;
mod strips;
#[cfg(test)]
pub(super) mod tests;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;

use super::uniform::below;
use lazy::Uniform;
use strips::{PER_UNIT, SQUARE, Strips};

/// True with probability e^(−x(2k + x)/d), for 2k + 1 ≤ d (Karney's algorithm B with another d). `part` is uniform in
/// [0, d).
fn accept(k: u32, d: u32, part: u32, x: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
    // A run x > z₁ > z₂ > … where each link also needs a coin of (2k + x)/d: it has n links or more with probability
    // (x(2k + x)/d)ⁿ/n!, so its length is even with the probability wanted.
    let mut part = part;
    let mut last: Option<Uniform> = None;
    let mut even = true;
    loop {
        if part > 2 * k || (part == 2 * k && !Uniform::draw(rng).less_than(x, rng)) {
            return even;
        }
        let mut z = Uniform::draw(rng);
        if !z.less_than(last.as_mut().unwrap_or(x), rng) {
            return even;
        }
        last = Some(z);
        even = !even;
        part = below(d.into(), rng) as u32;
    }
}

/// The sign (true below 0) and k of an exact standard normal deviate X with |X| = (k + x)/32; `x` is set.
#[inline]
fn deviate(strips: &Strips, x: &mut Uniform, rng: &mut ChaCha20Rng) -> (bool, u32) {
    loop {
        let word = rng.next_u64();
        let Some(k) = strips.choose(word as u32, rng) else {
            continue;
        };
        x.restart((word >> 32) as u32);
        // Different bits of one word: the first coin's part and the sign.
        let word = rng.next_u32();
        let part = word % SQUARE;
        // Most often the first coin ends it.
        if (k < SQUARE / 2 && part > 2 * k) || keep(k, part, x, rng) {
            return (word >> 31 == 1, k);
        }
    }
}

/// True with probability e^(−x(2k + x)/2048): n coins of the n-th root, such that 2k + 1 ≤ 2048·n. Up to 32 standard
/// deviations n is 1. `part` is uniform in [0, 2048), and used where n is 1.
#[cold]
fn keep(k: u32, part: u32, x: &mut Uniform, rng: &mut ChaCha20Rng) -> bool {
    let n = k / (SQUARE / 2) + 1;
    if n == 1 {
        return accept(k, SQUARE, part, x, rng);
    }
    let d = SQUARE * n;
    (0..n).all(|_| {
        let part = below(d.into(), rng) as u32;
        accept(k, d, part, x, rng)
    })
}

/// ⌊σ(k + x)/32 + 1/2⌋.
#[inline]
fn nearest(sigma: u64, k: u32, x: &mut Uniform, rng: &mut ChaCha20Rng) -> u64 {
    // One digit of x leaves an interval of width σ/2³⁷, two of σ/2⁶⁹, which almost never holds a whole number. `room` is
    // what is left up to the next one, in the units of `low`.
    let wide = u128::from(sigma);
    let mut bits = PER_UNIT.ilog2() + 32;
    let mut low = ((wide * u128::from(k) + u128::from(PER_UNIT / 2)) << 32) + wide * u128::from(x.first);
    let room = |low: u128, bits: u32| (1 << bits) - (low & ((1 << bits) - 1));
    let mut up = false;
    if wide > room(low, bits) {
        low = (low << 32) + wide * u128::from(x.later_digit(0, rng));
        bits += 32;
        let room = room(low, bits);
        up = wide > room && !x.rest_below(room as u64, sigma, rng);
    }
    (low >> bits) as u64 + u64::from(up)
}

/// The largest σ in grid units: σ·k with 64 more binary digits stays within 128 bits.
pub const MAX_SIGMA: u64 = 1 << 50;

/// Draws of round(σ·X), X standard normal.
#[derive(Clone, Copy)]
pub struct Rounded {
    sigma: u64,
    strips: &'static Strips,
}

impl Rounded {
    /// For 1 ≤ σ ≤ [`MAX_SIGMA`]; none outside.
    pub fn new(sigma: u64) -> Option<Self> {
        (1..=MAX_SIGMA).contains(&sigma).then(|| Rounded {
            sigma,
            strips: Strips::table(),
        })
    }

    /// The standard deviation before rounding.
    #[cfg(test)]
    pub fn sigma(&self) -> u64 {
        self.sigma
    }

    #[inline]
    pub fn draw(&self, rng: &mut ChaCha20Rng) -> i64 {
        let mut x = Uniform::starting(0);
        let (negative, k) = deviate(self.strips, &mut x, rng);
        let magnitude = nearest(self.sigma, k, &mut x, rng) as i64;
        // Without a branch, which nothing could predict.
        let sign = -i64::from(negative);
        (magnitude ^ sign) - sign
    }
}
