//! Gaussian differential privacy by the central limit theorem (Bu, Dong, Long and Su 2020, "Deep learning with Gaussian
//! differential privacy"): an estimate, can be too low.
//!
//! As T → ∞ with q·√T held, T steps look like one Gaussian mechanism with μ = q·√(T·(e^(1/σ²) − 1)) (corollary 4).
//! Phases add their μ². Nothing bounds what is lost at finite T: small T, small σ or q near 1 make it far too low or
//! too high.

use super::check_epsilon;
use super::estimate::{Estimate, gaussians};
use super::{Adjacency, Phase, check_delta, gaussian};
use crate::Result;

/// Sensitivity over noise of the one Gaussian mechanism that all `phases` tend to.
///
/// # Errors
/// Usage: no phases, another mechanism or adjacency than add-or-remove-one of the Poisson-subsampled Gaussian.
pub fn mu(phases: &[Phase], adjacency: Adjacency) -> Result<f64> {
    let square = |(q, sigma, steps): (f64, f64, f64)| q * q * steps * (sigma * sigma).recip().exp_m1();
    Ok(gaussians("gdp", phases, adjacency)?
        .into_iter()
        .map(square)
        .sum::<f64>()
        .sqrt())
}

/// About the smallest epsilon for `delta`.
///
/// # Errors
/// As [`mu`]; delta outside (0, 1).
pub fn epsilon(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Estimate> {
    check_delta(delta)?;
    Ok(Estimate::new(gaussian::epsilon(mu(phases, adjacency)?, delta)))
}

/// About the smallest delta for `epsilon` ≥ 0.
///
/// # Errors
/// As [`mu`]; a negative epsilon or one that is not a number.
pub fn delta(phases: &[Phase], adjacency: Adjacency, epsilon: f64) -> Result<Estimate> {
    check_epsilon(epsilon)?;
    Ok(Estimate::new(gaussian::delta(mu(phases, adjacency)?, epsilon)))
}

/// The largest μ with which a Gaussian mechanism is (`epsilon`, `delta`)-private; to about 1e-12 relative, from below.
pub(crate) fn mu_within(epsilon: f64, delta: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while gaussian::delta(high, epsilon) <= delta {
        (low, high) = (high, 2.0 * high);
    }
    while high - low > 1e-13 * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if gaussian::delta(middle, epsilon) <= delta {
            low = middle
        } else {
            high = middle
        }
    }
    low
}
