//! Many steps: losses add up, so their distributions are convolved, by FFT of the exponentially tilted masses.
//!
//! Tilting (every mass times e^(θ·loss), normalised) moves the bulk of the distribution to the losses that decide
//! δ(ε), so the transform's rounding error is relative to δ instead of to 1, and the window can be short.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex64;

use super::cells::LossPmf;

/// The tilted mass that may fall outside the window on each side.
const OUTSIDE: f64 = 1e-13;

/// Composed losses in a window, tilted.
pub struct Composed {
    theta: f64,
    step: f64,
    /// Loss of `mass[0]`.
    base: f64,
    /// Tilted masses; the true ones are these times e^(log_scale − θ·(loss − pivot)).
    mass: Vec<f64>,
    log_scale: f64,
    pivot: f64,
    infinity: f64,
    /// Tilted mass by which a sum over `mass` may be wrong: what wrapped round or was rounded.
    slop: f64,
}

/// A part's cumulants in units of grid steps from its base.
struct Part<'a> {
    pmf: &'a LossPmf,
    times: f64,
    log_mass: Vec<f64>,
}

impl Part<'_> {
    /// ln Σ mass·e^(θ·i·step).
    fn cumulant(&self, theta: f64) -> f64 {
        let slope = theta * self.pmf.step;
        let peak = self
            .log_mass
            .iter()
            .enumerate()
            .map(|(i, m)| m + slope * i as f64)
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self
            .log_mass
            .iter()
            .enumerate()
            .map(|(i, m)| (m + slope * i as f64 - peak).exp())
            .sum();
        peak + sum.ln()
    }

    /// The masses tilted by θ and normalised.
    fn tilted(&self, theta: f64, cumulant: f64) -> impl Iterator<Item = f64> {
        let slope = theta * self.pmf.step;
        self.log_mass
            .iter()
            .enumerate()
            .map(move |(i, m)| (m + slope * i as f64 - cumulant).exp())
    }
}

/// Longer windows are refused: the longest transforms take some tenths of a second.
const MAX_LENGTH: f64 = 4_194_304.0;

/// The window would be too long by this factor: the grid has to be coarser.
pub struct TooFine(pub f64);

/// Composes `parts` (each a step's loss and how often it happens, all on grids of the same step), tilted by `theta`.
pub fn compose(parts: &[(LossPmf, u64)], theta: f64) -> Result<Composed, TooFine> {
    let step = parts[0].0.step;
    let parts: Vec<Part> = parts
        .iter()
        .map(|(pmf, times)| Part {
            pmf,
            times: *times as f64,
            log_mass: pmf.mass.iter().map(|m| m.ln()).collect(),
        })
        .collect();
    let cumulants: Vec<f64> = parts.iter().map(|p| p.cumulant(theta)).collect();
    let total = |theta: f64| parts.iter().map(|p| p.times * p.cumulant(theta)).sum::<f64>();
    let at_theta: f64 = parts.iter().zip(&cumulants).map(|(p, k)| p.times * k).sum();

    // Mean and variance of the tilted sum, in steps.
    let (mut mean, mut variance) = (0.0, 0.0);
    for (part, k) in parts.iter().zip(&cumulants) {
        let m: f64 = part.tilted(theta, *k).enumerate().map(|(i, t)| t * i as f64).sum();
        let v: f64 = part
            .tilted(theta, *k)
            .enumerate()
            .map(|(i, t)| t * (i as f64 - m).powi(2))
            .sum();
        mean += part.times * m;
        variance += part.times * v;
    }

    // A step that hardly ever loses anything is a point and a little beside it. Where nearly all of every sum is that
    // point too, all errors are made relative to what is beside it.
    let points: Vec<Option<Point>> = parts
        .iter()
        .zip(&cumulants)
        .map(|(part, k)| Point::find(part.tilted(theta, *k)))
        .collect();
    let beside: f64 = parts
        .iter()
        .zip(&points)
        .map(|(part, point)| part.times * point.map_or(1.0, |p| p.beside))
        .sum();
    let outside = OUTSIDE * beside.min(1.0);

    // The window: Chernoff bounds on the tilted sum's tails.
    let spread = variance.sqrt().max(0.5) * step;
    let need = -outside.ln();
    let best = (2.0 * need).sqrt() / spread;
    let most: f64 = parts.iter().map(|p| p.times * (p.log_mass.len() - 1) as f64).sum();
    let bound = |sign: f64| {
        let tries = [2.0, 1.0, 0.5, 0.25, 0.125, 0.06];
        let reach = tries.iter().map(|f| {
            let t = f * best;
            (total(theta + sign * t) - at_theta + need) / t / step
        });
        reach.fold(f64::INFINITY, f64::min)
    };
    let top = bound(1.0).min(most).ceil();
    let bottom = (-bound(-1.0)).max(0.0).floor();
    let length = (top - bottom + 1.0).max(1.0);
    if length > MAX_LENGTH {
        return Err(TooFine(length / MAX_LENGTH));
    }
    let length = length as usize;
    let n = length.next_power_of_two();

    let mut planner = FftPlanner::new();
    let forward = planner.plan_fft_forward(n);
    let mut product = vec![Complex64::new(1.0, 0.0); n];
    // ln of the transform of all steps with a point, as if the points were at 0; they are at `shift` together.
    let mut exponent = vec![Complex64::default(); n];
    let mut shift = 0;
    for ((part, k), point) in parts.iter().zip(&cumulants).zip(&points) {
        let mut folded = vec![Complex64::default(); n];
        let origin = point.map_or(0, |p| p.index);
        for (i, t) in part.tilted(theta, *k).enumerate() {
            folded[(i + n * (origin / n + 1) - origin) % n].re += t;
        }
        match point {
            Some(point) => {
                folded[0].re = folded_origin(part.tilted(theta, *k), point, n);
                forward.process(&mut folded);
                for (e, f) in exponent.iter_mut().zip(&folded) {
                    *e += ln_1p(*f) * part.times;
                }
                shift = (shift + (point.index as u64 % n as u64) * (part.times as u64 % n as u64)) % n as u64;
            }
            None => {
                forward.process(&mut folded);
                for (p, f) in product.iter_mut().zip(&folded) {
                    *p *= power(*f, part.times as u64);
                }
            }
        }
    }
    let only_points = points.iter().all(Option::is_some);
    for (p, e) in product.iter_mut().zip(&exponent) {
        if only_points { *p = exp_m1(*e) } else { *p *= e.exp() }
    }
    planner.plan_fft_inverse(n).process(&mut product);
    if only_points {
        product[0].re += n as f64;
    }
    let start = (bottom % n as f64) as usize + n - shift as usize;
    let mass = (0..length)
        .map(|w| (product[(start + w) % n].re / n as f64).max(0.0))
        .collect();

    let bases: f64 = parts.iter().map(|p| p.times * p.pmf.base).sum();
    let pivot = bases + mean * step;
    Ok(Composed {
        theta,
        step,
        base: bases + bottom * step,
        mass,
        log_scale: at_theta - theta * (pivot - bases),
        pivot,
        infinity: parts.iter().map(|p| p.times * p.pmf.infinity).sum::<f64>().min(1.0),
        slop: (2.0 * outside + 2e-15 * beside).max(1e-300),
    })
}

/// Where nearly all of a step's tilted mass is, and how much is not.
#[derive(Clone, Copy)]
struct Point {
    index: usize,
    beside: f64,
}

impl Point {
    fn find(tilted: impl Iterator<Item = f64>) -> Option<Point> {
        let (mut index, mut most, mut sum) = (0, 0.0, 0.0);
        for (i, t) in tilted.enumerate() {
            if t > most {
                sum += most;
                (index, most) = (i, t);
            } else {
                sum += t;
            }
        }
        (sum < 0.1).then_some(Point { index, beside: sum })
    }
}

/// What lies at the point once all is folded to length n, less 1: minus what lies elsewhere.
fn folded_origin(tilted: impl Iterator<Item = f64>, point: &Point, n: usize) -> f64 {
    let elsewhere = tilted.enumerate().filter(|(i, _)| i.abs_diff(point.index) % n != 0);
    -elsewhere.map(|(_, t)| t).sum::<f64>()
}

/// ln(1 + z) without cancellation.
fn ln_1p(z: Complex64) -> Complex64 {
    let squared = 2.0 * z.re + z.re * z.re + z.im * z.im;
    Complex64::new(0.5 * squared.ln_1p(), z.im.atan2(1.0 + z.re))
}

/// e^z − 1 without cancellation.
fn exp_m1(z: Complex64) -> Complex64 {
    let half = (0.5 * z.im).sin();
    Complex64::new(z.re.exp_m1() * z.im.cos() - 2.0 * half * half, z.re.exp() * z.im.sin())
}

/// zⁿ by squaring.
fn power(z: Complex64, mut n: u64) -> Complex64 {
    let (mut square, mut out) = (z, Complex64::new(1.0, 0.0));
    while n > 0 {
        if n & 1 == 1 {
            out *= square;
        }
        square *= square;
        n >>= 1;
    }
    out
}

/// Which way what is not known exactly is counted.
#[derive(Clone, Copy)]
pub enum Side {
    /// Against us: the value is an upper bound.
    Above,
    /// For us: the value is a lower bound.
    Below,
}

impl Composed {
    fn loss(&self, index: usize) -> f64 {
        self.base + index as f64 * self.step
    }

    fn sign(side: Side) -> f64 {
        match side {
            Side::Above => 1.0,
            Side::Below => -1.0,
        }
    }

    /// δ(ε) = P(∞) + Σ over losses l > ε of mass·(1 − e^(ε − l)).
    pub fn delta(&self, epsilon: f64, side: Side) -> f64 {
        let weight = |loss: f64| (self.log_scale - self.theta * (loss - self.pivot)).exp();
        let sum: f64 = self
            .mass
            .iter()
            .enumerate()
            .rev()
            .map(|(i, m)| (self.loss(i), m))
            .take_while(|(loss, _)| *loss > epsilon)
            .map(|(loss, m)| m * weight(loss) * -(epsilon - loss).exp_m1())
            .sum();
        (self.infinity + sum + Self::sign(side) * self.slop * weight(epsilon)).clamp(0.0, 1.0)
    }

    /// [`Composed::delta`] at each of `epsilons`, which rise; of losses that are not tilted.
    pub fn deltas(&self, epsilons: &[f64], side: Side) -> Vec<f64> {
        assert_eq!(self.theta, 0.0, "weights are the same for all losses");
        let (scale, slop) = (self.log_scale.exp(), Self::sign(side) * self.slop);
        // Σ m and Σ m·e^(pivot − l) over the losses above.
        let (mut all, mut discounted, mut next) = (0.0, 0.0, self.mass.len());
        let mut out = vec![0.0; epsilons.len()];
        for (delta, epsilon) in out.iter_mut().zip(epsilons).rev() {
            while next > 0 && self.loss(next - 1) > *epsilon {
                next -= 1;
                all += self.mass[next];
                discounted += self.mass[next] * (self.pivot - self.loss(next)).exp();
            }
            let above = all - discounted * (epsilon - self.pivot).exp();
            *delta = (self.infinity + scale * (above + slop)).clamp(0.0, 1.0);
        }
        out
    }

    /// The smallest ε ≥ 0 with δ(ε) ≤ `delta`, and −d ln δ/dε there; `None` where no ε is enough.
    pub fn epsilon(&self, delta: f64, side: Side) -> Option<(f64, f64)> {
        // What the finite losses may contribute, in tilted units.
        let target = (delta - self.infinity) / self.log_scale.exp();
        // Nor is a grid without numbers.
        if target <= 0.0 || target.is_nan() || !self.base.is_finite() || !self.step.is_finite() {
            return None;
        }
        // a = Σ m·w, b = Σ m·w·e^(pivot − l) over losses above: δ(ε) = a − b·e^(ε − pivot), exactly, between grid points.
        let (mut a, mut b) = (0.0, 0.0);
        for i in (0..self.mass.len()).rev() {
            let loss = self.loss(i);
            let weight = (-self.theta * (loss - self.pivot)).exp();
            let slop = Self::sign(side) * self.slop * weight;
            let reached = a - b * (loss - self.pivot).exp() + slop;
            // Where the tilt is so strong that weights leave f64, nothing is known below the last loss: from above that
            // loss is the answer.
            if reached.is_nan() || reached.is_infinite() {
                return match side {
                    Side::Above => Some(((loss + self.step).max(0.0), self.theta)),
                    Side::Below => Some((0.0, self.theta)),
                };
            }
            if reached >= target {
                let fraction = (a + slop - target) / b;
                let solved = if fraction > 0.0 && b > 0.0 {
                    self.pivot + fraction.ln()
                } else {
                    loss
                };
                let slope = b * (solved - self.pivot).exp() / target;
                return Some((solved.clamp(loss, loss + self.step).max(0.0), slope));
            }
            if loss < 0.0 {
                return Some((0.0, self.theta));
            }
            a += self.mass[i] * weight;
            b += self.mass[i] * weight * (self.pivot - loss).exp();
        }
        // The window ends above where δ is reached.
        let end = match side {
            Side::Above => self.base.max(0.0),
            Side::Below => 0.0,
        };
        Some((end, self.theta))
    }
}
