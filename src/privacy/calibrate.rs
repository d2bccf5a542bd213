//! The accountant turned round: the smallest noise multiplier for a target epsilon.

use super::accountant::{Adjacency, MIN_NOISE_MULTIPLIER, Phase, check_delta, pld};
use crate::{Error, Result};

/// How far above the smallest the answer may lie, as a fraction.
const PRECISION: f64 = 1e-4;

/// The largest noise multiplier that is tried.
const MOST: f64 = 1e7;

/// The smallest noise multiplier (to 0.01 %) with which `steps` steps at `sampling_rate` stay within
/// (`target_epsilon`, `delta`) by the PLD accountant; never one that goes above it.
///
/// # Errors
/// Usage: a value out of range, or no noise is enough.
pub fn noise_multiplier(target_epsilon: f64, delta: f64, sampling_rate: f64, steps: u64) -> Result<f64> {
    if !(target_epsilon > 0.0 && target_epsilon.is_finite()) {
        return Err(
            Error::usage(format!("epsilon must be a number above 0, not {target_epsilon}"))
                .hint("values from 0.1 to 10 are usual"),
        );
    }
    check_delta(delta)?;
    let epsilon = |sigma: f64| {
        pld::epsilon_above(
            &[Phase::new(sampling_rate, sigma, steps)?],
            Adjacency::AddOrRemoveOne,
            delta,
        )
    };

    // A bracket: `low` spends too much, `high` does not.
    let (mut low, mut high) = (1.0, 1.0);
    let mut at_high = epsilon(high)?;
    let mut at_low = at_high;
    while at_high > target_epsilon {
        (low, at_low) = (high, at_high);
        high *= 2.0;
        if high > MOST {
            return Err(Error::usage(format!(
                "no noise multiplier up to {MOST:e} keeps {steps} steps at sampling rate {sampling_rate} within epsilon {target_epsilon}"
            ))
            .hint("take fewer steps, a larger epsilon or a larger delta"));
        }
        at_high = epsilon(high)?;
    }
    while at_low <= target_epsilon {
        if low <= MIN_NOISE_MULTIPLIER {
            return Ok(MIN_NOISE_MULTIPLIER);
        }
        (high, at_high) = (low, at_low);
        low = (low * 0.7).max(MIN_NOISE_MULTIPLIER);
        at_low = epsilon(low)?;
    }

    // ln ε is smooth in ln σ: the secant, kept off the ends of the bracket so that it always shrinks from both sides.
    while high / low > 1.0 + PRECISION {
        let (a, b) = (low.ln(), high.ln());
        let slope = (at_high.max(1e-12).ln() - at_low.ln()) / (b - a);
        let secant = a + (target_epsilon.ln() - at_low.ln()) / slope;
        let margin = (0.4 * PRECISION).max(0.02 * (b - a));
        // Aim a little to the side where the answer is nearer, so that the next bracket is narrow.
        let aim = if secant - a < b - secant {
            secant + margin
        } else {
            secant - margin
        };
        let mid = if aim.is_finite() {
            aim.clamp(a + margin.min(0.5 * (b - a)), b - margin.min(0.5 * (b - a)))
        } else {
            0.5 * (a + b)
        };
        let sigma = mid.exp();
        let at = epsilon(sigma)?;
        if at > target_epsilon {
            (low, at_low) = (sigma, at)
        } else {
            (high, at_high) = (sigma, at)
        }
    }
    Ok(high)
}
