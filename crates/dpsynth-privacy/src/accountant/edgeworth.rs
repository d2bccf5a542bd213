//! The Edgeworth accountant (Wang, Gao, Zhang, Su and Shen 2022, "Analytical composition of differential privacy via the
//! Edgeworth accountant"; used by EW-Tune, Behnia et al. 2022): an estimate, can be too low.
//!
//! With X and Y the sums of T privacy losses ln(P/Q) under Q and under P, δ(ε) = P(Y > ε) − e^ε·P(X > ε). Both tails
//! are replaced by their Edgeworth expansions of order 1 to 3, from cumulants that add up over steps and phases. P is
//! the run with the record (direction `remove`). An expansion is no distribution: where T is small its δ(ε) may rise,
//! or be negative, and epsilon is read off where the curve first falls through delta.
//!
//! [`certified`] adds what is proven of the first order's error: Derumigny, Girard and Guyonvarch 2023, "Explicit
//! non-asymptotic bounds for the distance to the first-order Edgeworth expansion", theorem 2.1.

use std::f64::consts::{PI, SQRT_2};

use super::check_epsilon;
use super::estimate::{Estimate, gaussians};
use super::gaussian::ln_normal_cdf;
use super::{Adjacency, Phase, check_delta};
use crate::Result;

/// How many terms beyond the normal distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Skewness: an error of order 1/T.
    First,
    /// Also kurtosis: T^(−3/2).
    Second,
    /// Also the fifth cumulant: T^(−2).
    Third,
}

impl Order {
    /// From first to third.
    pub const ALL: [Order; 3] = [Order::First, Order::Second, Order::Third];
}

/// About the smallest epsilon for `delta`, by each order from the first to the third.
///
/// # Errors
/// Usage: no phases, another mechanism or adjacency than add-or-remove-one of the Poisson-subsampled Gaussian, delta
/// outside (0, 1).
pub fn epsilon(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<[Estimate; 3]> {
    check_delta(delta)?;
    let losses = Losses::new(phases, adjacency)?;
    Ok(Order::ALL.map(|order| {
        let crossing = losses.first_fall(|epsilon| losses.delta(epsilon, order), delta);
        Estimate::new(crossing.unwrap_or(0.0))
    }))
}

/// About the smallest delta for `epsilon` ≥ 0, by each order from the first to the third; between 0 and 1.
///
/// # Errors
/// As [`epsilon`]; a negative epsilon or one that is not a number.
pub fn delta(phases: &[Phase], adjacency: Adjacency, epsilon: f64) -> Result<[Estimate; 3]> {
    check_epsilon(epsilon)?;
    let losses = Losses::new(phases, adjacency)?;
    Ok(Order::ALL.map(|order| Estimate::new(losses.delta(epsilon, order).clamp(0.0, 1.0))))
}

/// What the error bound of the first order proves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certified {
    /// The mechanism is (epsilon, delta)-private; `None` where the bound proves nothing at this delta: it is vacuous.
    pub epsilon: Option<f64>,
    /// No delta up to this can be proven, whatever epsilon: the larger of the errors.
    pub least_delta: f64,
    /// By how much the distribution function of the losses' sum without the record may be off.
    pub error_without: f64,
    /// By how much the distribution function of the losses' sum with the record may be off.
    pub error_with: f64,
}

/// An epsilon that the Edgeworth expansion proves, in both directions.
///
/// P(Y > ε) is at most the expansion plus its error, P(X > ε) at least the expansion minus its error and at least 0;
/// the direction `add` is the same with −Y and −X for X and Y.
///
/// # Errors
/// As [`epsilon`].
pub fn certified(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Certified> {
    check_delta(delta)?;
    let losses = Losses::new(phases, adjacency)?;
    let (error_without, error_with) = (losses.without.error(), losses.with.error());
    let least_delta = error_without.max(error_with);
    let bound = |epsilon: f64| {
        let at = |sum: &Sum, sign: f64| sum.first_order(sign, epsilon);
        let (below, above) = (at(&losses.without, 1.0), at(&losses.with, 1.0));
        let removed = above.0 + error_with - (below.1 - epsilon.exp() * error_without).max(0.0);
        let (below, above) = (at(&losses.with, -1.0), at(&losses.without, -1.0));
        let added = above.0 + error_without - (below.1 - epsilon.exp() * error_with).max(0.0);
        removed.max(added)
    };
    let epsilon = if least_delta >= delta {
        None
    } else if bound(0.0) <= delta {
        Some(0.0)
    } else {
        losses.first_fall(bound, delta)
    };
    Ok(Certified {
        epsilon,
        least_delta,
        error_without,
        error_with,
    })
}

/// The sums of all steps' losses without and with the record.
struct Losses {
    without: Sum,
    with: Sum,
}

impl Losses {
    fn new(phases: &[Phase], adjacency: Adjacency) -> Result<Self> {
        let mut losses = Losses {
            without: Sum::default(),
            with: Sum::default(),
        };
        for (q, sigma, steps) in gaussians("edgeworth", phases, adjacency)? {
            let points = points(q, sigma);
            losses.without.add(&points, |p| p.without, steps);
            losses.with.add(&points, |p| p.with, steps);
        }
        Ok(losses)
    }

    /// The estimate of δ(ε), not clipped.
    fn delta(&self, epsilon: f64, order: Order) -> f64 {
        self.with.tail(epsilon, 0.0, order) - self.without.tail(epsilon, epsilon, order)
    }

    /// The first ε > 0 at which `curve` falls to `level`; `None` where it never does.
    fn first_fall(&self, curve: impl Fn(f64) -> f64, level: f64) -> Option<f64> {
        let (wide, narrow) = (
            self.with.variance.max(self.without.variance).sqrt(),
            self.with.variance.min(self.without.variance).sqrt(),
        );
        // Past 40 deviations the tails are 0 in f64.
        let end = self.with.mean.max(-self.without.mean) + 40.0 * wide;
        let steps = (end / (narrow.min(1.0) / 60.0)).ceil().clamp(1e3, 4e4);
        let mut before = (0.0, curve(0.0));
        for i in 1..=steps as usize {
            let here = end * i as f64 / steps;
            let value = curve(here);
            if before.1 > level && value <= level {
                let (mut low, mut high) = (before.0, here);
                while high - low > 1e-13 * high {
                    let middle = 0.5 * (low + high);
                    if middle <= low || middle >= high {
                        break;
                    }
                    if curve(middle) > level {
                        low = middle
                    } else {
                        high = middle
                    }
                }
                return Some(high);
            }
            before = (here, value);
        }
        None
    }
}

/// A loss and the probabilities of a small cell around it.
struct Point {
    loss: f64,
    without: f64,
    with: f64,
}

/// One step's losses on an even grid, which is the trapezoid rule: for such integrands its error falls faster than any
/// power of the spacing (the nearest pole of the loss is π·σ² off the real line).
fn points(q: f64, sigma: f64) -> Vec<Point> {
    let h = sigma.min(sigma * sigma) / 12.0;
    let (from, to) = (-14.0 * sigma, 1.0 + 14.0 * sigma);
    let density = |x: f64| (-0.5 * (x / sigma).powi(2)).exp() * h / (sigma * (2.0 * PI).sqrt());
    (0..=((to - from) / h) as usize)
        .map(|i| {
            let x = from + i as f64 * h;
            let u = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
            let loss = if q == 1.0 {
                u
            } else if u > 500.0 {
                u + q.ln()
            } else {
                (q * u.exp_m1()).ln_1p()
            };
            let without = density(x);
            Point {
                loss,
                without,
                with: (1.0 - q) * without + q * density(x - 1.0),
            }
        })
        .collect()
}

/// A sum of independent losses: its mean, variance and next three cumulants, and what the error bound needs.
#[derive(Default)]
struct Sum {
    mean: f64,
    variance: f64,
    third: f64,
    fourth: f64,
    fifth: f64,
    steps: f64,
    /// Σ E|c|³ of the centred losses c.
    absolute_third: f64,
    /// Σ E c⁴.
    raw_fourth: f64,
    /// Σ E|c|·E c².
    first_times_second: f64,
}

impl Sum {
    /// Adds `steps` independent losses; cumulants add up.
    fn add(&mut self, points: &[Point], weight: impl Fn(&Point) -> f64, steps: f64) {
        let total: f64 = points.iter().map(&weight).sum();
        let expect = |f: &dyn Fn(f64) -> f64| points.iter().map(|p| weight(p) * f(p.loss)).sum::<f64>() / total;
        let mean = expect(&|l| l);
        let central = |power: i32| expect(&|l| (l - mean).powi(power));
        let (second, third, fourth, fifth) = (central(2), central(3), central(4), central(5));
        self.mean += steps * mean;
        self.variance += steps * second;
        self.third += steps * third;
        self.fourth += steps * (fourth - 3.0 * second * second);
        self.fifth += steps * (fifth - 10.0 * second * third);
        self.steps += steps;
        self.absolute_third += steps * expect(&|l| (l - mean).abs().powi(3));
        self.raw_fourth += steps * fourth;
        self.first_times_second += steps * expect(&|l| (l - mean).abs()) * second;
    }

    /// e^`log_factor` times the expansion of P(sum > x) (Hall 1992, section 2.3), in one exponent so that a huge factor
    /// times a tiny tail stays finite.
    fn tail(&self, x: f64, log_factor: f64, order: Order) -> f64 {
        let deviation = self.variance.sqrt();
        let z = (x - self.mean) / deviation;
        let skewness = self.third / deviation.powi(3);
        let mut terms = skewness / 6.0 * hermite(2, z);
        if order >= Order::Second {
            let kurtosis = self.fourth / deviation.powi(4);
            terms += kurtosis / 24.0 * hermite(3, z) + skewness.powi(2) / 72.0 * hermite(5, z);
            if order >= Order::Third {
                let fifth = self.fifth / deviation.powi(5);
                terms += fifth / 120.0 * hermite(4, z)
                    + skewness * kurtosis / 144.0 * hermite(6, z)
                    + skewness.powi(3) / 1296.0 * hermite(8, z);
            }
        }
        (log_factor + ln_normal_cdf(-z)).exp() + terms * (log_factor - 0.5 * z * z).exp() / (2.0 * PI).sqrt()
    }

    /// First-order expansions of P(±sum > ε), and the same times e^ε.
    fn first_order(&self, sign: f64, epsilon: f64) -> (f64, f64) {
        if sign > 0.0 {
            (
                self.tail(epsilon, 0.0, Order::First),
                self.tail(epsilon, epsilon, Order::First),
            )
        } else {
            // P(−sum > ε) = P(sum < −ε): the same expansion of the mirrored sum.
            let mirrored = Sum {
                mean: -self.mean,
                third: -self.third,
                variance: self.variance,
                ..Sum::default()
            };
            mirrored.first_order(1.0, epsilon)
        }
    }

    /// A bound on |P(sum ≤ x) − first-order expansion| for all x, from moments alone.
    ///
    /// Prawitz' smoothing inequality with T = 2π√n/K̃ and t₀ = 1/π splits the error into three: the expansion's own tail
    /// (Ω₁), the sum's characteristic function between t₀ and 1 (Ω₂), and the difference of the two below t₀ (Ω₃), where
    /// Ω₃ is split once more at the point up to which Taylor's expansion holds. The free parameter is 0.1, as in the
    /// paper. Losses are centred, as the theorem asks; phases may differ (its assumption 2.1).
    fn error(&self) -> f64 {
        let n = self.steps;
        let root = n.sqrt();
        let average = self.variance / n;
        let skewness = (self.third / n / average.powf(1.5)).abs();
        let third = self.absolute_third / n / average.powf(1.5);
        let fourth = self.raw_fourth / n / average.powi(2);
        let tilde = third + self.first_times_second / n / average.powf(1.5);
        let t = 2.0 * PI * root / tilde;

        let expansion = |u: f64| (-0.5 * u * u).exp() * (1.0 + skewness / (6.0 * root) * u.powi(3));
        let kernel = |s: f64| 0.5 * (1.0 - s + (PI * s).powi(2) / 18.0);
        // Beyond 12 deviations the integrands are below 1e-30.
        let reach = 12.0 / t;
        let start = 1.0 / PI;
        let omega_1 = 2.0 * integral(0.0, start.min(reach), |s| kernel(s) * expansion(t * s))
            + integral(start, reach.max(start), |s| expansion(t * s) / s) / PI;
        let omega_2 = 67.0415 / t.powi(4) + 1.2187 / t.powi(2);

        const FREE: f64 = 0.1;
        let scaled = (1.0 - 3.0 * FREE).powi(-2);
        let p = (144.0
            + 48.0 * FREE
            + 4.0 * FREE * FREE
            + 96.0 * (2.0 * FREE).sqrt()
            + 32.0 * FREE
            + 16.0 * SQRT_2 * FREE.powf(1.5))
            / 576.0;
        let e = (FREE * FREE * (1.0 / 6.0 + 2.0 * p * scaled)).exp();
        let k = fourth / n;
        let rest = |u: f64| {
            let first = u.powi(6) / 24.0 * k.powf(1.5) + u.powi(8) / 576.0 * k * k;
            let second =
                u.powi(5) / 6.0 * k.powf(1.25) + u.powi(6) / 36.0 * k.powf(1.5) + u.powi(7) / 72.0 * k.powf(1.75);
            let b = 1.0 / 24.0 + 0.5 * p * scaled;
            0.5 * (first + second) * scaled
                + e * (0.5 * u.powi(8) * (k * b).powi(2) + u.powi(7) * skewness / root * k * b / 6.0)
        };
        let last = t / PI;
        let split = ((2.0 * FREE).sqrt() * k.powf(-0.25)).min(last);
        // sup |s·Ψ(s)| ≤ 1.0253/2π of Prawitz' kernel Ψ.
        const PSI: f64 = 1.0253 / (2.0 * PI);
        let near = 0.327 * k * (1.0 / 12.0 + scaled / 4.0)
            + 1.306 / 36.0 * e * skewness * skewness / n
            + 2.0 * PSI * integral(0.0, split, |u| u * (-0.5 * u * u).exp() * rest(u));
        let far = PSI / (3.0 * root)
            * integral(split, last, |u| {
                let slowed = 1.0 - 0.198324 * u * tilde / root - k.sqrt();
                u * u * (third * (-0.5 * u * u * slowed).exp() + skewness * (-0.5 * u * u).exp())
            });
        omega_1 + omega_2 + near + far
    }
}

/// Probabilists' Hermite polynomial.
fn hermite(degree: u32, z: f64) -> f64 {
    let (mut last, mut this) = (0.0, 1.0);
    for k in 0..degree {
        (last, this) = (this, z * this - f64::from(k) * last);
    }
    this
}

/// Simpson's rule on 2,000 pieces; 0 for an empty range.
fn integral(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    const PIECES: u32 = 2000;
    if to <= from {
        return 0.0;
    }
    let h = (to - from) / f64::from(PIECES);
    let sum: f64 = (0..=PIECES)
        .map(|i| {
            let weight = match i {
                0 | PIECES => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * f(from + f64::from(i) * h)
        })
        .sum();
    sum * h / 3.0
}
