//! Noise that goes together over steps (DP-FTRL), so that much of it cancels in the sum of steps; rules P3, P5 and P12.
//!
//! Units are shared out among b parts, and step t draws its batch from part t mod b: a unit can take part in every b-th step
//! alone. Step t releases its sum plus
//!
//! > wₜ = ‖s‖·zₜ − (s₁·wₜ₋₁ + s₂·wₜ₋₂ + …, of the b − 1 steps before),  zₜ ~ N(0, σ²·sensitivity²),
//!
//! where sᵢ = binom(2i, i)/4ⁱ are the first b coefficients of (1 − x)^(−1/2), the square root of adding up (Choquette-Choo et
//! al. 2023, "(Amplified) banded matrix factorization"; Kalinin and Lampert 2024, banded square roots). With what was released
//! before, this tells no more than s₀·xₜ + s₁·xₜ₋₁ + … + ‖s‖·zₜ does: a unit moves the b steps from its own on by s₀, s₁, …, of
//! length ‖s‖ together, like one step of independent noise, and its next steps come after those. docs/privacy.md has the
//! proof, with what rounding adds.
//!
//! The noise of a step so needs that of the b − 1 before it. What is kept for another process is the keys alone, from which it
//! is drawn again; each process takes a new key for the steps that it charges itself.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::keys::{Key, KeySource, Purpose};
use super::noise::{Drawn, Mechanism};
use crate::{Error, Result};

/// Most steps over which noise goes together: products with noise of the exact samplers stay within 127 bits up to here.
pub const MAX_BANDS: u64 = 32;

/// sᵢ·4^(b−1), which are whole.
fn numerators(bands: u64) -> Vec<i128> {
    let mut binomial = 1i128;
    (0..bands as i128)
        .map(|i| {
            if i > 0 {
                binomial = binomial * 2 * (2 * i - 1) / i;
            }
            binomial << (2 * (bands as i128 - 1 - i))
        })
        .collect()
}

/// s₀ to s_{b−1}, where noise goes together over b = `bands` steps, 1 to [`MAX_BANDS`].
pub fn coefficients(bands: u64) -> Vec<f64> {
    let unit = 4f64.powi(bands as i32 - 1);
    numerators(bands).iter().map(|n| *n as f64 / unit).collect()
}

/// ‖s‖, from above: what a unit moves b steps by, where its own moves by 1.
pub fn length(bands: u64) -> f64 {
    length_of_first(bands, bands)
}

/// The length of the first `count` coefficients, at least: what a unit moves that many steps by.
pub fn length_of_first(bands: u64, count: u64) -> f64 {
    let first = coefficients(bands).into_iter().take(count as usize);
    first.map(|s| s * s).sum::<f64>().sqrt() * (1.0 + 1e-14)
}

/// Standard deviation of the noise of the last of `steps` steps, in that of independent noise.
pub fn deviation(bands: u64, steps: u64) -> f64 {
    // They fall off.
    let inverse = inverse(bands, steps.min(1_000));
    length(bands) * inverse.iter().map(|h| h * h).sum::<f64>().sqrt()
}

/// Standard deviation of the noise in the sum of `steps` steps, in that of as many with independent noise.
pub fn deviation_of_sum(bands: u64, steps: u64) -> f64 {
    // What each step's own deviates come to in all steps from it on.
    let mut shares = inverse(bands, steps);
    for t in 1..shares.len() {
        shares[t] += shares[t - 1];
    }
    length(bands) * (shares.iter().map(|share| share * share).sum::<f64>() / steps as f64).sqrt()
}

/// The first `count` coefficients of 1/s: what wₜ has of ‖s‖·zₜ, of ‖s‖·zₜ₋₁, …
fn inverse(bands: u64, count: u64) -> Vec<f64> {
    let s = coefficients(bands);
    let mut out: Vec<f64> = vec![1.0];
    for t in 1..count as usize {
        out.push(-(1..s.len().min(t + 1)).map(|i| s[i] * out[t - i]).sum::<f64>());
    }
    out
}

/// The noise of a run's steps, one after the other.
pub struct Strand {
    keys: Keys,
    /// The step whose noise comes next.
    next: u64,
    /// Noise of the steps before, the newest first.
    recent: VecDeque<Drawn>,
}

/// Where the noise of a step comes from.
pub enum Keys {
    /// A fixed seed: the same at any time.
    Seeded(KeySource),
    /// Keys, each with the first step that it is for; the first of them is for step 0.
    Kept(Vec<(u64, Key)>),
}

impl Strand {
    pub fn new(keys: Keys) -> Self {
        Strand {
            keys,
            next: 0,
            recent: VecDeque::new(),
        }
    }

    /// The noise of step `index` of `release` for a sum of `d` values. That of the steps before is drawn first: none of it may
    /// be left out, whether it was used or not.
    ///
    /// # Errors
    /// Usage: the plan's noise is beyond the exact sampler. Other: the sums of earlier steps had another length.
    pub fn draw(&mut self, release: &str, index: u64, d: usize, mechanism: &Mechanism) -> Result<Drawn> {
        if self.recent.front().is_some_and(|last| last.len() != d) {
            // On another grid it would not be what was released.
            return Err(Error::other("noise that goes together is of one length for all steps"));
        }
        if index < self.next {
            (self.next, self.recent) = (0, VecDeque::new());
        }
        loop {
            let key = self.keys.of(release, self.next)?;
            let own = mechanism.draw(d, &key)?;
            let noise = together(mechanism.bands, own, &self.recent);
            self.recent.truncate(mechanism.bands as usize - 2);
            self.recent.push_front(noise.clone());
            self.next += 1;
            if self.next > index {
                return Ok(noise);
            }
        }
    }
}

impl Keys {
    fn of(&self, release: &str, index: u64) -> Result<Key> {
        match self {
            Keys::Seeded(source) => source.key(release, index, Purpose::Noise),
            Keys::Kept(keys) => {
                let own = keys.iter().rev().find(|(from, _)| *from <= index);
                own.map(|(_, key)| key.of_step(index))
                    .ok_or_else(|| Error::other("a step's noise has no key"))
            }
        }
    }
}

/// wₜ of the step's own deviates and of the noise of the steps before, the newest first.
fn together(bands: u64, own: Drawn, recent: &VecDeque<Drawn>) -> Drawn {
    match own {
        Drawn::Exact(mut own) => {
            let before: Vec<&[i64]> = recent.iter().filter_map(Drawn::exact).collect();
            let (weights, shift) = (numerators(bands), 2 * (bands as u32 - 1));
            let half = (1i128 << shift) >> 1;
            own.par_iter_mut().enumerate().for_each(|(i, own)| {
                let sum: i128 = before
                    .iter()
                    .zip(&weights[1..])
                    .map(|(w, n)| n * i128::from(w[i]))
                    .sum();
                *own -= ((sum + half) >> shift) as i64;
            });
            Drawn::Exact(own)
        }
        Drawn::Continuous(mut own) => {
            let before: Vec<&[f64]> = recent.iter().filter_map(Drawn::continuous).collect();
            let (weights, length) = (coefficients(bands), length(bands));
            own.par_iter_mut().enumerate().for_each(|(i, own)| {
                let sum: f64 = before.iter().zip(&weights[1..]).map(|(w, s)| s * w[i]).sum();
                *own = length * *own - sum;
            });
            Drawn::Continuous(own)
        }
    }
}
