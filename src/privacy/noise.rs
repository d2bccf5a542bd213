//! One draw of noise for one clipped sum, and the division by the public batch size (rules P2, P3, P12).

use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::keys::Key;
use super::normal::Rounded;
use crate::config::NoiseKind;
use crate::{Error, Result};

/// Largest share of C by which rounding to the grid may move a sum: √d · grid ≤ this · C.
const GRID_SHARE: f64 = 1e-4;

/// Share of C granted to floating point before the sum gets here: clip factors and norms in f32, partial sums of
/// micro-batches in f32, added up in f64. It is part of the sensitivity, so the noise is that much larger.
pub const FLOAT_ALLOWANCE: f64 = 1e-3;

/// Coordinates that share one random stream.
const CHUNK: usize = 1 << 14;

/// A plan's noise.
#[derive(Clone, Copy)]
pub struct Mechanism {
    pub kind: NoiseKind,
    pub noise_multiplier: f64,
    pub max_grad_norm: f64,
    pub expected_batch_size: u64,
}

impl Mechanism {
    /// (sum + noise) / expected batch size, for a clipped sum [d] of records with norm at most C each.
    pub fn privatize(&self, sum: &[f64], key: &Key) -> Result<Vec<f32>> {
        if let Some(at) = sum.iter().position(|v| !v.is_finite()) {
            return Err(
                Error::other(format!("coordinate {at} of the clipped sum is {}", sum[at]))
                    .hint("a record whose gradient is not finite must contribute zero"),
            );
        }
        match self.kind {
            NoiseKind::ExactGaussian => self.exact(sum, key),
            NoiseKind::Gaussian => Ok(self.continuous(sum, key)),
        }
    }

    /// The largest power of two with √d · grid ≤ [`GRID_SHARE`] · C.
    fn grid(&self, d: usize) -> f64 {
        2f64.powi((GRID_SHARE * self.max_grad_norm / (d as f64).sqrt()).log2().floor() as i32)
    }

    fn exact(&self, sum: &[f64], key: &Key) -> Result<Vec<f32>> {
        let d = sum.len().max(1);
        let grid = self.grid(d);
        // Rounding moves each of two neighbouring sums by at most grid/2 a coordinate: √d · grid together.
        let sensitivity = self.max_grad_norm * (1.0 + FLOAT_ALLOWANCE) + (d as f64).sqrt() * grid;
        // Up, and by one more for the rounding of this line.
        let sigma = (self.noise_multiplier * sensitivity / grid).ceil() + 1.0;
        // A conversion from floating point stops at the ends of u64, which the sampler refuses.
        let Some(rounded) = Rounded::new(sigma as u64) else {
            return Err(
                Error::usage(format!("noise of {sigma:e} grid units is beyond the exact sampler"))
                    .hint("a noise multiplier above a million is a mistake in the plan"),
            );
        };
        let limit = 2f64.powi(61) * grid;
        if let Some(at) = sum.iter().position(|v| v.abs() > limit) {
            return Err(Error::other(format!(
                "coordinate {at} of the clipped sum, {:e}, is too large for clipped records",
                sum[at]
            ))
            .hint("the sum of B records of norm C is at most B·C"));
        }
        let mut out = vec![0.0; sum.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(sum.par_chunks(CHUNK)).enumerate();
        chunks.for_each(|(stream, (out, sum))| {
            let mut rng = key.stream(stream as u64);
            for (o, s) in out.iter_mut().zip(sum) {
                // Exact: the grid is a power of two, and the rounded quotient is within ±2⁶¹.
                let noisy = (s / grid).round_ties_even() as i64 + rounded.draw(&mut rng);
                // From here on it is post-processing.
                *o = (noisy as f64 * grid / self.expected_batch_size as f64) as f32;
            }
        });
        Ok(out)
    }

    /// Ziggurat normals (Doornik 2005) in f64: faster than the exact ones, and floating point.
    fn continuous(&self, sum: &[f64], key: &Key) -> Vec<f32> {
        let sigma = self.noise_multiplier * self.max_grad_norm * (1.0 + FLOAT_ALLOWANCE);
        let mut out = vec![0.0; sum.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(sum.par_chunks(CHUNK)).enumerate();
        chunks.for_each(|(stream, (out, sum))| {
            let mut rng = key.stream(stream as u64);
            for (o, s) in out.iter_mut().zip(sum) {
                let normal: f64 = StandardNormal.sample(&mut rng);
                *o = ((s + sigma * normal) / self.expected_batch_size as f64) as f32;
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_the_grid_is_a_power_of_two_fine_enough_for_every_length() {
        for c in [1e-3, 0.7, 1.0, 50.0] {
            for d in [1, 10, 4_900_000, 1 << 30] {
                let mechanism = Mechanism {
                    kind: NoiseKind::ExactGaussian,
                    noise_multiplier: 1.0,
                    max_grad_norm: c,
                    expected_batch_size: 1,
                };
                let grid = mechanism.grid(d);
                assert_eq!(grid.log2().fract(), 0.0);
                assert!((d as f64).sqrt() * grid <= GRID_SHARE * c);
                assert!((d as f64).sqrt() * grid > 0.49 * GRID_SHARE * c);
            }
        }
    }
}
