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
        let per_unit = 1.0 / grid;
        let mut out = vec![0.0; sum.len()];
        let chunks = out.par_chunks_mut(CHUNK).zip(sum.par_chunks(CHUNK)).enumerate();
        chunks.for_each(|(stream, (out, sum))| {
            let mut rng = key.stream(stream as u64);
            for (o, s) in out.iter_mut().zip(sum) {
                // Exact: the grid is a power of two, and the rounded quotient is within ±2⁶¹.
                let noisy = (s * per_unit).round_ties_even() as i64 + rounded.draw(&mut rng);
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
    use super::super::normal::tests::{Cells, DRAWS, LEAST_P, between, ks_p_value};
    use super::*;

    fn mechanism(kind: NoiseKind, noise_multiplier: f64, max_grad_norm: f64) -> Mechanism {
        Mechanism {
            kind,
            noise_multiplier,
            max_grad_norm,
            expected_batch_size: 4,
        }
    }

    #[test]
    fn p12_the_grid_is_a_power_of_two_fine_enough_for_every_length() {
        for c in [1e-3, 0.7, 1.0, 50.0] {
            for d in [1, 10, 4_900_000, 1 << 30] {
                let grid = mechanism(NoiseKind::ExactGaussian, 1.0, c).grid(d);
                assert_eq!(grid.log2().fract(), 0.0);
                assert!((d as f64).sqrt() * grid <= GRID_SHARE * c);
                assert!((d as f64).sqrt() * grid > 0.49 * GRID_SHARE * c);
            }
        }
    }

    /// The p-values of chi-square and KS for noise in units of its claimed standard deviation.
    fn p_values(noise: &[f64]) -> [f64; 2] {
        let cdf = |v: f64| between(f64::NEG_INFINITY, v);
        let unit = 2f64.powi(40);
        let whole: Vec<i64> = noise.iter().map(|v| (v * unit).round() as i64).collect();
        [Cells::even(unit).p_value(&whole), ks_p_value(noise.to_vec(), cdf, cdf)]
    }

    #[test]
    fn p12_the_noise_of_a_step_is_normal_with_the_declared_deviation() {
        for (key, kind) in [NoiseKind::ExactGaussian, NoiseKind::Gaussian].into_iter().enumerate() {
            for (noise_multiplier, max_grad_norm) in [(0.05, 1.0), (0.37, 0.01), (30.0, 50.0)] {
                let m = mechanism(kind, noise_multiplier, max_grad_norm);
                let key = Key::fixed(50 + key as u8);
                let out = m.privatize(&vec![0.0; DRAWS], &key).expect("finite");
                // The exact kind also pays for its grid: 1e-4 of the norm at most.
                let sigma = noise_multiplier * max_grad_norm * (1.0 + FLOAT_ALLOWANCE);
                let grid = match kind {
                    NoiseKind::ExactGaussian => m.grid(DRAWS),
                    NoiseKind::Gaussian => 0.0,
                };
                let declared = sigma + noise_multiplier * (DRAWS as f64).sqrt() * grid + grid;
                let of = |declared: f64| -> Vec<f64> { out.iter().map(|v| f64::from(*v) * 4.0 / declared).collect() };
                for p in p_values(&of(declared)) {
                    assert!(p > LEAST_P, "{kind:?}, {noise_multiplier}·{max_grad_norm}: p {p:e}");
                }
                for off in [0.99, 1.01] {
                    let [chi_square, ks] = p_values(&of(off * declared));
                    assert!(
                        chi_square < 1e-9 && ks < LEAST_P,
                        "{kind:?} passes for {off} of its deviation: {chi_square:e}, {ks:e}"
                    );
                }
            }
        }
    }

    /// However many threads share the work: neither the values nor their independence depend on it.
    #[test]
    fn p12_noise_is_the_same_on_one_thread_and_repeats_in_no_chunk() {
        for kind in [NoiseKind::ExactGaussian, NoiseKind::Gaussian] {
            let draw = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("threads");
                let zeros = vec![0.0; 8 * CHUNK + 17];
                pool.install(|| {
                    mechanism(kind, 1.0, 1.0)
                        .privatize(&zeros, &Key::fixed(60))
                        .expect("finite")
                })
            };
            let noise = draw(4);
            assert_eq!(noise, draw(1));
            let chunks: Vec<&[f32]> = noise.chunks(CHUNK).collect();
            for (i, a) in chunks.iter().enumerate() {
                for b in &chunks[..i] {
                    // Of unit-variance pairs: a standard normal over √n.
                    let product: f64 = a.iter().zip(*b).map(|(a, b)| f64::from(a * b) * 16.0).sum();
                    let n = a.len().min(b.len()) as f64;
                    assert!(product.abs() / n.sqrt() < 5.0, "chunks go together: {product}");
                }
            }
        }
    }
}
