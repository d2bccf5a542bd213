//! Privacy loss distributions: what spends budget.
//!
//! Pessimistic by connect-the-dots (Doroshenko et al. 2022), optimistic by merging outcomes, both composed by FFT
//! (Koskela, Jälkö and Honkela 2020) in both directions. The grid is as fine as the answer needs: the error that a
//! step's discretisation brings is of second order in it.

use super::cells::Step;
use super::compose::{Composed, Side, compose};
use super::{Adjacency, Bracket, Direction, Mechanism, Phase, check_delta, check_phases, gaussian, merge};
use crate::{Error, Result};

/// Share of epsilon that its bracket should not be wider than.
const GAP: f64 = 1e-3;

/// The smallest epsilon for `delta`, from above and from below, of all `phases` together.
///
/// # Errors
/// Usage: no phases, delta outside (0, 1).
pub fn epsilon(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Bracket> {
    check_known(phases, adjacency)?;
    check_delta(delta)?;
    let phases = merge(phases);
    if let Some(mu) = unsampled(&phases) {
        let epsilon = gaussian::epsilon(mu, delta);
        return Ok(Bracket {
            epsilon,
            epsilon_lower: epsilon * (1.0 - 1e-10),
            direction: Direction::Remove,
        });
    }
    // The grid is chosen by an estimate of its error; where the bracket shows that to be too rosy, it is made finer.
    let mut fineness = 1.0;
    loop {
        let (losses, above) = worst(&phases, delta, fineness)?;
        let bracket = Bracket {
            epsilon: above.0,
            epsilon_lower: losses.epsilon_below(delta, above),
            direction: losses.direction,
        };
        if bracket.epsilon - bracket.epsilon_lower <= GAP * bracket.epsilon || fineness > 9.0 {
            return Ok(bracket);
        }
        fineness *= 3.0;
    }
}

/// Only the pessimistic value of [`epsilon`], at half the cost.
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_above(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<f64> {
    check_known(phases, adjacency)?;
    check_delta(delta)?;
    let phases = merge(phases);
    match unsampled(&phases) {
        Some(mu) => Ok(gaussian::epsilon(mu, delta)),
        None => Ok(worst(&phases, delta, 1.0)?.1.0),
    }
}

/// The direction with the larger pessimistic epsilon, that epsilon and the slope there.
fn worst(phases: &[Phase], delta: f64, fineness: f64) -> Result<(Losses, (f64, f64))> {
    let remove = Losses::new(phases, Direction::Remove, tail(phases, delta), fineness);
    let removed = remove.epsilon_above(delta)?;
    let add = Losses::new(phases, Direction::Add, tail(phases, delta), fineness);
    // A Chernoff bound often shows that adding is the lesser evil, without composing anything.
    if add.tilt_for_delta(delta).1 * (1.0 + 1e-6) <= removed.0 {
        return Ok((remove, removed));
    }
    let added = add.epsilon_above(delta)?;
    if added.0 > removed.0 {
        Ok((add, added))
    } else {
        Ok((remove, removed))
    }
}

/// Deltas are not told apart below this.
const SMALLEST_DELTA: f64 = 1e-50;

/// The smallest delta for `epsilon` ≥ 0, from above, of all `phases` together; never below 1e-59.
///
/// # Errors
/// Usage: no phases, a negative epsilon or one that is not a number.
pub fn delta(phases: &[Phase], adjacency: Adjacency, epsilon: f64) -> Result<f64> {
    check_known(phases, adjacency)?;
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(
            Error::usage(format!("epsilon must be 0 or more, not {epsilon}")).hint("values from 0.1 to 10 are usual")
        );
    }
    let phases = merge(phases);
    if let Some(mu) = unsampled(&phases) {
        return Ok(gaussian::delta(mu, epsilon));
    }
    let one = |direction| {
        let losses = Losses::new(&phases, direction, tail(&phases, SMALLEST_DELTA), 1.0);
        let theta = losses.tilt_for_loss(epsilon);
        let composed = losses
            .composed(theta, theta, epsilon, Side::Above)
            .delta(epsilon, Side::Above);
        // Near the largest loss there can be, where the tilt is extreme, Chernoff's bound is the better one.
        let chernoff = (losses.cumulants(theta).0 - theta * epsilon).min(0.0).exp() * (1.0 + 1e-3);
        composed.min(chernoff + SMALLEST_DELTA)
    };
    Ok(one(Direction::Remove).max(one(Direction::Add)))
}

fn check_known(phases: &[Phase], adjacency: Adjacency) -> Result<()> {
    check_phases(phases)?;
    let gaussian = phases.iter().all(|p| matches!(p.mechanism, Mechanism::Gaussian { .. }));
    if !gaussian || adjacency == Adjacency::ReplaceOne {
        return Err(Error::usage("this mechanism and adjacency cannot be accounted for yet")
            .hint("the Poisson-subsampled Gaussian with add-or-remove-one adjacency can"));
    }
    Ok(())
}

/// (q, σ) of a Gaussian phase.
fn gaussian_of(phase: &Phase) -> (f64, f64) {
    match phase.mechanism {
        Mechanism::Gaussian {
            sampling_rate,
            noise_multiplier,
        } => (sampling_rate, noise_multiplier),
        _ => unreachable!("refused by check_known"),
    }
}

/// Without subsampling: sensitivity over noise of the one Gaussian mechanism that all phases make together.
fn unsampled(phases: &[Phase]) -> Option<f64> {
    let all = phases.iter().all(|p| gaussian_of(p).0 == 1.0);
    all.then(|| {
        phases
            .iter()
            .map(|p| p.steps as f64 / gaussian_of(p).1.powi(2))
            .sum::<f64>()
            .sqrt()
    })
}

/// The mass a step may lose on each side: a billionth of delta over all steps.
fn tail(phases: &[Phase], delta: f64) -> f64 {
    let steps: f64 = phases.iter().map(|p| p.steps as f64).sum();
    (1e-9 * delta / steps).max(1e-280)
}

/// The losses of all phases in one direction, as a sketch (for choosing the grid) and as steps (for building it).
struct Losses {
    direction: Direction,
    /// By how much the grid is finer than the error estimate asks.
    fineness: f64,
    parts: Vec<(Step, u64)>,
    sketches: Vec<Vec<(f64, f64)>>,
}

impl Losses {
    fn new(phases: &[Phase], direction: Direction, tail: f64, fineness: f64) -> Self {
        let parts: Vec<_> = phases
            .iter()
            .map(|p| {
                let (q, sigma) = gaussian_of(p);
                (Step::new(q, sigma, tail), p.steps)
            })
            .collect();
        Losses {
            direction,
            fineness,
            sketches: parts.iter().map(|(step, _)| step.sketch(direction)).collect(),
            parts,
        }
    }

    /// K(θ) = ln E e^(θ·loss) of the sum, and its first two derivatives.
    fn cumulants(&self, theta: f64) -> (f64, f64, f64) {
        let mut sum = (0.0, 0.0, 0.0);
        for (sketch, (_, times)) in self.sketches.iter().zip(&self.parts) {
            let peak = sketch.iter().filter(|(_, m)| *m > 0.0).map(|(l, m)| theta * l + m.ln());
            let peak = peak.fold(f64::NEG_INFINITY, f64::max);
            let (mut s0, mut s1) = (0.0, 0.0);
            for (l, m) in sketch {
                let w = m * (theta * l - peak).exp();
                s0 += w;
                s1 += w * l;
            }
            let mean = s1 / s0;
            let s2: f64 = sketch
                .iter()
                .map(|(l, m)| m * (theta * l - peak).exp() * (l - mean).powi(2))
                .sum();
            let times = *times as f64;
            sum.0 += times * (peak + s0.ln());
            sum.1 += times * mean;
            sum.2 += times * s2 / s0;
        }
        sum
    }

    /// Solves a condition that turns true as θ grows.
    fn tilt(&self, reached: impl Fn(f64, (f64, f64, f64)) -> bool) -> f64 {
        let (mut low, mut high) = (0.0, 1.0 / self.cumulants(0.0).2.sqrt().max(1e-9));
        while !reached(high, self.cumulants(high)) {
            (low, high) = (high, 2.0 * high);
            if high > 1e7 {
                return low;
            }
        }
        while high - low > 1e-3 * high {
            let mid = 0.5 * (low + high);
            if reached(mid, self.cumulants(mid)) {
                high = mid
            } else {
                low = mid
            }
        }
        high
    }

    /// The θ of the Chernoff bound ε ≤ (K(θ) + ln 1/δ)/θ at its best, and that bound.
    fn tilt_for_delta(&self, delta: f64) -> (f64, f64) {
        let need = -delta.ln();
        let theta = self.tilt(|theta, (k, mean, _)| theta * mean - k >= need);
        (theta, (self.cumulants(theta).0 + need) / theta)
    }

    /// The θ at which the tilted mean is `loss`; 0 where the mean is above it already.
    fn tilt_for_loss(&self, loss: f64) -> f64 {
        if self.cumulants(0.0).1 >= loss {
            return 0.0;
        }
        self.tilt(|_, (_, mean, _)| mean >= loss)
    }

    /// The pessimistic epsilon, and the slope −d ln δ/dε there.
    fn epsilon_above(&self, delta: f64) -> Result<(f64, f64)> {
        let (mut theta, mut guess) = self.tilt_for_delta(delta);
        let mut slope = theta;
        for _ in 0..6 {
            let found = self
                .composed(theta, slope, guess, Side::Above)
                .epsilon(delta, Side::Above);
            let (epsilon, slope_there) = found.ok_or_else(|| {
                Error::usage(format!("no epsilon can be certified for delta {delta}"))
                    .hint("choose a larger delta or fewer steps")
            })?;
            // Where few records are ever drawn the Chernoff bound can be far off and δ fall slower than it says: look
            // closer, at what was found.
            if epsilon < 1e-6 || (epsilon > 0.7 * guess && slope_there > 0.3 * slope) {
                return Ok((epsilon, slope_there));
            }
            (theta, slope, guess) = (self.tilt_for_loss(epsilon), slope_there, epsilon);
        }
        Ok((guess, slope))
    }

    /// The optimistic epsilon, on a grid that resolves what lies near the pessimistic one.
    fn epsilon_below(&self, delta: f64, above: (f64, f64)) -> f64 {
        let (epsilon, slope) = above;
        if epsilon == 0.0 {
            return 0.0;
        }
        let composed = self.composed(self.tilt_for_loss(epsilon), slope, epsilon, Side::Below);
        composed
            .epsilon(delta, Side::Below)
            .map_or(0.0, |(below, _)| below.min(epsilon))
    }

    /// Builds and composes the grid that resolves `epsilon` where δ falls as e^(−slope·ε).
    fn composed(&self, theta: f64, slope: f64, epsilon: f64, side: Side) -> Composed {
        let steps: f64 = self.parts.iter().map(|(_, times)| *times as f64).sum();
        // Splitting a loss over a grid cell of width h raises K(θ), and with it ln δ, by about θ(θ+1)·h²/12 a step: an
        // error of that over the slope in epsilon. It can never be more than T·h.
        let tolerance = 5e-5 * epsilon.abs() + 1e-8;
        let flat = if theta > 0.0 {
            (slope / theta).clamp(1e-3, 1.0)
        } else {
            1.0
        };
        let steep = theta.max(slope) + 1.0;
        let step = (12.0 * tolerance * flat / (steep * steps))
            .sqrt()
            .max(tolerance / steps)
            / self.fineness;
        let step = self.parts.iter().map(|(s, _)| s.affordable(step)).fold(step, f64::max);
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|(s, times)| {
                let pmf = match side {
                    Side::Above => s.pessimistic(step, self.direction),
                    Side::Below => s.optimistic(step, self.direction),
                };
                (pmf, *times)
            })
            .collect();
        compose(&parts, theta)
    }
}
