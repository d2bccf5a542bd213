//! One draw of noise for one clipped sum, and the division by the public batch size (rules P2, P3, P12).

use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bands;
use super::keys::Key;
use super::laplace::RoundedLaplace;
use super::mixture::Mixture;
use super::normal::Rounded;
use crate::{Error, Result};

/// Largest share of C by which rounding to the grid may move a sum: √d · grid ≤ this · C, or d · grid in the sum of sizes.
const GRID_SHARE: f64 = 1e-4;

/// Share of C granted to floating point before the sum gets here: clip factors and norms in f32, partial sums of
/// micro-batches in f32, added up in f64. It is part of the sensitivity, so the noise is that much larger.
pub const FLOAT_ALLOWANCE: f64 = 1e-3;

/// Coordinates that share one random stream.
const CHUNK: usize = 1 << 14;

/// Which noise is added to the clipped sum (rule P12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// Exact normal deviates rounded to a grid, in integer arithmetic.
    ExactGaussian,
    /// Floating-point normals; attacks on floating point are then outside the claim.
    Gaussian,
    /// Exact Laplace deviates rounded to a grid, in integer arithmetic. Records are then bounded in the sum of sizes, ‖·‖₁.
    ExactLaplace,
    /// Laplace noise of mixed scales. For research: no proof covers a clipped vector (P11).
    LaplaceMixture,
}

/// The law of a plan's noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    ExactGaussian,
    Gaussian,
    ExactLaplace,
    LaplaceMixture(Mixture),
}

impl Law {
    /// What a release has beside steps of this law: one with a proof.
    pub fn beside(self) -> Law {
        match self {
            Law::ExactGaussian | Law::ExactLaplace | Law::LaplaceMixture(_) => Law::ExactGaussian,
            Law::Gaussian => Law::Gaussian,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> NoiseKind {
        match self {
            Law::ExactGaussian => NoiseKind::ExactGaussian,
            Law::Gaussian => NoiseKind::Gaussian,
            Law::ExactLaplace => NoiseKind::ExactLaplace,
            Law::LaplaceMixture(_) => NoiseKind::LaplaceMixture,
        }
    }

    /// Length of `d` ones, in the norm in which records are bounded.
    fn length_of_ones(&self, d: usize) -> f64 {
        match self {
            Law::ExactLaplace => d as f64,
            Law::ExactGaussian | Law::Gaussian | Law::LaplaceMixture(_) => (d as f64).sqrt(),
        }
    }
}

/// A plan's noise.
#[derive(Clone, Copy)]
pub struct Mechanism {
    pub law: Law,
    /// Of a law that is not Gaussian: as it is counted.
    pub noise_multiplier: f64,
    pub max_grad_norm: f64,
    pub expected_batch_size: u64,
    /// Steps whose noise goes together ([`super::bands`]); 1 where each has its own.
    pub bands: u64,
}

/// Noise that waits for its sum.
#[derive(Clone)]
pub enum Drawn {
    /// In grid units.
    Exact(Vec<i64>),
    /// In standard deviations, or of a mixture in sensitivities.
    Continuous(Vec<f64>),
}

impl Drawn {
    /// How long a sum it is for.
    pub fn len(&self) -> usize {
        match self {
            Drawn::Exact(noise) => noise.len(),
            Drawn::Continuous(noise) => noise.len(),
        }
    }

    /// In grid units, where it is.
    pub fn exact(&self) -> Option<&[i64]> {
        match self {
            Drawn::Exact(noise) => Some(noise),
            Drawn::Continuous(_) => None,
        }
    }

    /// In standard deviations, where it is.
    pub fn continuous(&self) -> Option<&[f64]> {
        match self {
            Drawn::Continuous(noise) => Some(noise),
            Drawn::Exact(_) => None,
        }
    }
}

impl Mechanism {
    /// (sum + noise) / expected batch size, for a clipped sum [d] of records with norm at most C each; of noise that is the step's
    /// own.
    pub fn privatize(&self, sum: &[f64], key: &Key) -> Result<Vec<f32>> {
        check_finite(sum)?;
        match self.law {
            Law::ExactGaussian | Law::ExactLaplace => {
                let grid = self.gridded(sum.len())?;
                let mut out = vec![0.0; sum.len()];
                let chunks = out.par_chunks_mut(CHUNK).zip(sum.par_chunks(CHUNK)).enumerate();
                grid.check_size(sum)?;
                chunks.for_each(|(stream, (out, sum))| {
                    let mut rng = key.stream(stream as u64);
                    out.iter_mut()
                        .zip(sum)
                        .for_each(|(o, s)| *o = self.on_grid(&grid, *s, grid.noise.draw(&mut rng)));
                });
                Ok(out)
            }
            Law::Gaussian | Law::LaplaceMixture(_) => self.add(sum, self.draw(sum.len(), key)?),
        }
    }

    /// The noise of [`Mechanism::privatize`] for a sum of `d` values that is not there yet: the same draws.
    pub fn draw(&self, d: usize, key: &Key) -> Result<Drawn> {
        Ok(match self.law {
            Law::ExactGaussian | Law::ExactLaplace => {
                let grid = self.gridded(d)?;
                let mut out = vec![0; d];
                out.par_chunks_mut(CHUNK).enumerate().for_each(|(stream, out)| {
                    let mut rng = key.stream(stream as u64);
                    out.iter_mut().for_each(|o| *o = grid.noise.draw(&mut rng));
                });
                Drawn::Exact(out)
            }
            Law::Gaussian => Drawn::Continuous(in_chunks(d, key, |rng| StandardNormal.sample(rng))),
            Law::LaplaceMixture(mixture) => {
                let sampler = mixture.sampler();
                Drawn::Continuous(in_chunks(d, key, |rng| sampler.draw(rng)))
            }
        })
    }

    /// [`Mechanism::privatize`] with noise that was drawn before.
    pub fn add(&self, sum: &[f64], noise: Drawn) -> Result<Vec<f32>> {
        check_finite(sum)?;
        assert_eq!(sum.len(), noise.len(), "noise is drawn for the length of its sum");
        Ok(match noise {
            Drawn::Exact(noise) => {
                let grid = self.gridded(sum.len())?;
                grid.check_size(sum)?;
                let pairs = sum.par_iter().zip(noise);
                pairs.map(|(s, n)| self.on_grid(&grid, *s, n)).collect()
            }
            Drawn::Continuous(noise) => sum.par_iter().zip(noise).map(|(s, n)| self.continuous(*s, n)).collect(),
        })
    }

    /// The largest power of two with √d · grid ≤ [`GRID_SHARE`] · C, or d · grid in the sum of sizes.
    fn grid(&self, d: usize) -> f64 {
        2f64.powi(
            (GRID_SHARE * self.max_grad_norm / self.law.length_of_ones(d))
                .log2()
                .floor() as i32,
        )
    }

    fn gridded(&self, d: usize) -> Result<Gridded> {
        let d = d.max(1);
        let grid = self.grid(d);
        // Rounding moves each of two neighbouring sums by at most grid/2 a coordinate: √d · grid together, or d · grid.
        let rounding = self.law.length_of_ones(d) * grid;
        let own = self.max_grad_norm * (1.0 + FLOAT_ALLOWANCE) + rounding;
        // Where noise goes together a record moves the steps after its own as well, and what those take from it is rounded.
        let sensitivity = bands::length(self.bands) * own + (self.bands as f64 - 1.0).sqrt() * rounding;
        let deviation = self.noise_multiplier;
        #[cfg(mutants)]
        let deviation = match crate::mutation::is(crate::mutation::Mutation::NoiseShort) {
            true => 0.97 * deviation,
            false => deviation,
        };
        // Up, and by one more for the rounding of this line. A conversion from floating point stops at the ends of u64, which the
        // samplers refuse.
        let units = |size: f64| ((size * sensitivity / grid).ceil() + 1.0) as u64;
        let noise = match self.law {
            Law::ExactLaplace => RoundedLaplace::new(units(2.0 * laplace_scale(deviation))).map(Exact::Laplace),
            _ => Rounded::new(units(deviation)).map(Exact::Gaussian),
        };
        let Some(noise) = noise else {
            return Err(Error::usage(format!(
                "noise of {:e} grid units is beyond the exact sampler",
                deviation * sensitivity / grid
            ))
            .hint("a noise multiplier above a million is a mistake in the plan"));
        };
        Ok(Gridded {
            grid,
            per_unit: grid.recip(),
            noise,
        })
    }

    /// One coordinate and its noise in grid units.
    #[inline]
    fn on_grid(&self, grid: &Gridded, sum: f64, noise: i64) -> f32 {
        // Exact: the grid is a power of two, and the rounded quotient is within ±2⁶¹.
        let noisy = (sum * grid.per_unit).round_ties_even() as i64 + noise;
        // From here on it is post-processing.
        (noisy as f64 * grid.grid / self.expected_batch_size as f64) as f32
    }

    /// One coordinate and its noise as it was drawn: ziggurat normals (Doornik 2005) in f64, faster than the exact ones, or
    /// a mixture's. Floating point.
    #[inline]
    fn continuous(&self, sum: f64, noise: f64) -> f32 {
        let deviations = match self.law {
            Law::LaplaceMixture(_) => 1.0,
            Law::ExactGaussian | Law::ExactLaplace | Law::Gaussian => self.noise_multiplier,
        };
        let unit = deviations * self.max_grad_norm * (1.0 + FLOAT_ALLOWANCE);
        ((sum + unit * noise) / self.expected_batch_size as f64) as f32
    }
}

/// The grid of sums of one length, and the sampler of its noise.
struct Gridded {
    grid: f64,
    per_unit: f64,
    noise: Exact,
}

/// Noise in grid units.
enum Exact {
    Gaussian(Rounded),
    Laplace(RoundedLaplace),
}

impl Exact {
    #[inline]
    fn draw(&self, rng: &mut ChaCha20Rng) -> i64 {
        match self {
            Exact::Gaussian(noise) => noise.draw(rng),
            Exact::Laplace(noise) => noise.draw(rng),
        }
    }
}

/// The mean absolute value of Laplace noise with this standard deviation.
pub fn laplace_scale(deviation: f64) -> f64 {
    deviation / std::f64::consts::SQRT_2
}

impl Gridded {
    fn check_size(&self, sum: &[f64]) -> Result<()> {
        let limit = 2f64.powi(61) * self.grid;
        match sum.iter().position(|v| v.abs() > limit) {
            None => Ok(()),
            Some(at) => Err(Error::other(format!(
                "coordinate {at} of the clipped sum, {:e}, is too large for clipped records",
                sum[at]
            ))
            .hint("the sum of B records of norm C is at most B·C")),
        }
    }
}

/// `d` draws, each chunk by a stream of its own.
fn in_chunks(d: usize, key: &Key, draw: impl Fn(&mut ChaCha20Rng) -> f64 + Sync) -> Vec<f64> {
    let mut out = vec![0.0; d];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(stream, out)| {
        let mut rng = key.stream(stream as u64);
        out.iter_mut().for_each(|o| *o = draw(&mut rng));
    });
    out
}

fn check_finite(sum: &[f64]) -> Result<()> {
    match sum.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(
            Error::other(format!("coordinate {at} of the clipped sum is {}", sum[at]))
                .hint("a record whose gradient is not finite must contribute zero"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KeySource, Purpose};
    use super::super::normal::tests::{Cells, DRAWS, LEAST_P, between, ks_p_value};
    use super::*;

    fn mechanism(law: Law, noise_multiplier: f64, max_grad_norm: f64) -> Mechanism {
        Mechanism {
            law,
            noise_multiplier,
            max_grad_norm,
            expected_batch_size: 4,
            bands: 1,
        }
    }

    #[test]
    fn p12_the_grid_is_a_power_of_two_fine_enough_for_every_length() {
        for c in [1e-3, 0.7, 1.0, 50.0] {
            for d in [1, 10, 4_900_000, 1 << 30] {
                let grid = mechanism(Law::ExactGaussian, 1.0, c).grid(d);
                assert_eq!(grid.log2().fract(), 0.0);
                assert!((d as f64).sqrt() * grid <= GRID_SHARE * c);
                assert!((d as f64).sqrt() * grid > 0.49 * GRID_SHARE * c);
            }
        }
    }

    /// σ in grid units, by hand: σ·(C·(1 + 10⁻³) + √d·grid)/grid, up, and one.
    #[test]
    fn p12_the_noise_in_grid_units_is_what_is_charged_and_not_less() {
        let of = |mechanism: Mechanism, d: usize| {
            let gridded = mechanism.gridded(d).expect("a sampler");
            match gridded.noise {
                Exact::Gaussian(noise) => (gridded.grid, noise.sigma()),
                Exact::Laplace(_) => panic!("the law is Gaussian"),
            }
        };
        let sigma = |z: f64, c: f64, d: usize| of(mechanism(Law::ExactGaussian, z, c), d);
        let together = |z: f64, c: f64, d: usize| {
            let bands = 3;
            let mechanism = mechanism(Law::ExactGaussian, z, c);
            of(Mechanism { bands, ..mechanism }, d).1
        };
        // C = 1, d = 1: the grid is 2^-14, and 1.001 · 16384 + 1 = 16401.384.
        assert_eq!(sigma(1.0, 1.0, 1), (2f64.powi(-14), 16_403));
        // σ = 0.5 of the same: 8200.692.
        assert_eq!(sigma(0.5, 1.0, 1), (2f64.powi(-14), 8_202));
        // The same together over three steps: √(1² + ½² + ⅜²) · 16401.384 + √2 = 19342.707.
        assert_eq!(together(1.0, 1.0, 1), 19_344);
        // C = 8, d = 10000: 10^-4 · 8/100 = 8·10^-6 lies above 2^-17; 8 · 1.001 · 2^17 + 100 = 1,049,724.576; times 2.5.
        assert_eq!(sigma(2.5, 8.0, 10_000), (2f64.powi(-17), 2_624_313));
        // Together: 2.5 · (1.17925 · 1,049,724.576 + √2 · 100) = 3,095,066.63.
        assert_eq!(together(2.5, 8.0, 10_000), 3_095_068);
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
        for (key, law) in [Law::ExactGaussian, Law::Gaussian].into_iter().enumerate() {
            for (noise_multiplier, max_grad_norm) in [(0.05, 1.0), (0.37, 0.01), (30.0, 50.0)] {
                let m = mechanism(law, noise_multiplier, max_grad_norm);
                let key = Key::fixed(50 + key as u8);
                let out = m.privatize(&vec![0.0; DRAWS], &key).expect("finite");
                // The exact kind also pays for its grid: 1e-4 of the norm at most.
                let sigma = noise_multiplier * max_grad_norm * (1.0 + FLOAT_ALLOWANCE);
                let grid = match law {
                    Law::ExactGaussian => m.grid(DRAWS),
                    _ => 0.0,
                };
                let declared = sigma + noise_multiplier * (DRAWS as f64).sqrt() * grid + grid;
                let of = |declared: f64| -> Vec<f64> { out.iter().map(|v| f64::from(*v) * 4.0 / declared).collect() };
                for p in p_values(&of(declared)) {
                    assert!(p > LEAST_P, "{law:?}, {noise_multiplier}·{max_grad_norm}: p {p:e}");
                }
                for off in [0.99, 1.01] {
                    let [chi_square, ks] = p_values(&of(off * declared));
                    assert!(
                        chi_square < 1e-9 && ks < LEAST_P,
                        "{law:?} passes for {off} of its deviation: {chi_square:e}, {ks:e}"
                    );
                }
            }
        }
    }

    /// Of a vector the grid is finer: rounding may move every coordinate, and sizes add up.
    #[test]
    fn p12_laplace_noise_has_the_declared_deviation_and_pays_for_its_grid() {
        let c = 0.5;
        for (d, z) in [(1, 0.8), (16, 3.0), (DRAWS, 0.2)] {
            let m = mechanism(Law::ExactLaplace, z, c);
            assert!(d as f64 * m.grid(d) <= GRID_SHARE * c && d as f64 * m.grid(d) > 0.49 * GRID_SHARE * c);
            let noise: Vec<f64> = (0..DRAWS.div_ceil(d))
                .flat_map(|i| {
                    let key = KeySource::Seeded(7).key("training", i as u64, Purpose::Noise);
                    m.privatize(&vec![0.0; d], &key.expect("seeded")).expect("finite")
                })
                .map(|v| f64::from(v) * 4.0)
                .collect();
            let declared = z * (c * (1.0 + FLOAT_ALLOWANCE) + d as f64 * m.grid(d)) / 2f64.sqrt();
            let cdf = |scale: f64| move |x: f64| 0.5 + 0.5 * x.signum() * -(-x.abs() / scale).exp_m1();
            let p = |scale: f64| ks_p_value(noise.clone(), cdf(scale), cdf(scale));
            assert!(p(declared) > LEAST_P, "{d} {z}: {:e}", p(declared));
            for off in [0.98, 1.02] {
                assert!(p(off * declared) < LEAST_P, "{d} {z} passes for {off} of its scale");
            }
        }
    }

    #[test]
    fn p3_noise_drawn_before_its_sum_is_the_noise_drawn_with_it() {
        let sum: Vec<f64> = (0..2 * CHUNK + 5).map(|i| (i as f64).sin()).collect();
        for law in [Law::ExactGaussian, Law::Gaussian, Law::ExactLaplace] {
            let (m, key) = (mechanism(law, 0.7, 1.0), Key::fixed(70));
            let together = m.privatize(&sum, &key).expect("finite");
            let before = m.draw(sum.len(), &key).expect("drawn");
            assert_eq!(m.add(&sum, before).expect("finite"), together);
        }
    }

    /// However many threads share the work: neither the values nor their independence depend on it.
    #[test]
    fn p12_noise_is_the_same_on_one_thread_and_repeats_in_no_chunk() {
        for law in [Law::ExactGaussian, Law::Gaussian, Law::ExactLaplace] {
            let draw = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("threads");
                let zeros = vec![0.0; 8 * CHUNK + 17];
                pool.install(|| {
                    mechanism(law, 1.0, 1.0)
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
