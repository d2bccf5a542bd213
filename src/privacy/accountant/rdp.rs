//! Rényi differential privacy of the Poisson-subsampled Gaussian (Mironov, Talwar and Zhang 2019), for comparison.

use statrs::function::gamma::ln_gamma;

use super::gaussian::ln_normal_cdf;
use super::{Mechanism, Phase, check_delta, check_phases};
use crate::{Error, Result};

/// Epsilon and the order that gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renyi {
    /// The mechanism is (epsilon, delta)-private.
    pub epsilon: f64,
    /// The order at which the bound is least.
    pub order: f64,
}

/// 1.1 to 10.9 by tenths, 11 to 63, then powers of two.
fn orders() -> impl Iterator<Item = f64> {
    let tenths = (1..100).map(|i| 1.0 + f64::from(i) / 10.0);
    let whole = (11..64).map(f64::from);
    tenths.chain(whole).chain([128.0, 256.0, 512.0, 1024.0])
}

/// The smallest epsilon for `delta` over a fixed list of orders, by the bound that dp_accounting 0.6 uses.
///
/// That bound counts every term of the alternating series for fractional orders as positive: valid, but up to 4 %
/// above [`epsilon_exact`] where a small fractional order is best.
///
/// # Errors
/// Usage: no phases, delta outside (0, 1).
pub fn epsilon(phases: &[Phase], delta: f64) -> Result<Renyi> {
    least(phases, delta, series_bound)
}

/// The same with the exact moment at fractional orders, as Opacus has it.
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_exact(phases: &[Phase], delta: f64) -> Result<Renyi> {
    least(phases, delta, fractional)
}

/// ln E (P/Q)^order of one step, for a fractional order, from (q, sigma, order).
type LogMoment = fn(f64, f64, f64) -> f64;

fn least(phases: &[Phase], delta: f64, log_moment: LogMoment) -> Result<Renyi> {
    check_phases(phases)?;
    check_delta(delta)?;
    let gaussians: Vec<(f64, f64, f64)> = phases
        .iter()
        .map(|p| match p.mechanism() {
            Mechanism::Gaussian {
                sampling_rate,
                noise_multiplier,
            } => Ok((sampling_rate, noise_multiplier, p.steps() as f64)),
            _ => Err(
                Error::usage("Rényi accounting is for the Poisson-subsampled Gaussian only")
                    .hint("the pld accountant knows every mechanism"),
            ),
        })
        .collect::<Result<_>>()?;
    let rho = |order| -> f64 {
        gaussians
            .iter()
            .map(|(q, sigma, times)| times * step(*q, *sigma, order, log_moment))
            .sum()
    };
    orders()
        .map(|order| Renyi {
            epsilon: convert(rho(order), order, delta),
            order,
        })
        .min_by(|a, b| a.epsilon.total_cmp(&b.epsilon))
        .ok_or_else(|| Error::other("no Rényi order was tried"))
}

/// From (order, rho) to epsilon: Canonne, Kamath and Steinke 2020, proposition 12.
fn convert(rho: f64, order: f64, delta: f64) -> f64 {
    // Total variation ≤ √(1 − e^(−KL)) and KL ≤ rho: below delta, epsilon is 0.
    if delta * delta + (-rho).exp_m1() > 0.0 {
        return 0.0;
    }
    (rho + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)).max(0.0)
}

/// The Rényi divergence of one step.
fn step(q: f64, sigma: f64, order: f64, log_moment: LogMoment) -> f64 {
    if q == 1.0 {
        return order / (2.0 * sigma * sigma);
    }
    let log_moment = if order.fract() == 0.0 {
        whole(q, sigma, order)
    } else {
        log_moment(q, sigma, order)
    };
    log_moment / (order - 1.0)
}

fn log_sum_exp(terms: &[f64]) -> f64 {
    let peak = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    peak + terms.iter().map(|t| (t - peak).exp()).sum::<f64>().ln()
}

/// ln E (P/Q)^order by the binomial sum (section 3.3, equation for whole orders).
fn whole(q: f64, sigma: f64, order: f64) -> f64 {
    let terms: Vec<f64> = (0..=order as u64)
        .map(|k| {
            let k = k as f64;
            let binomial = ln_gamma(order + 1.0) - ln_gamma(k + 1.0) - ln_gamma(order - k + 1.0);
            binomial + k * q.ln() + (order - k) * (-q).ln_1p() + (k * k - k) / (2.0 * sigma * sigma)
        })
        .collect();
    log_sum_exp(&terms)
}

/// A bound on ln E (P/Q)^order: the two binomial series of section 3.3, which meet where 1 − q and q·eᵘ are equal,
/// with the binomials' signs dropped. Infinite where 1,000 terms are not enough.
fn series_bound(q: f64, sigma: f64, order: f64) -> f64 {
    let ln_half_erfc = |x: f64| ln_normal_cdf(-x * std::f64::consts::SQRT_2);
    let (ln_q, ln_p) = (q.ln(), (-q).ln_1p());
    let meet = sigma * sigma * (1.0 / q - 1.0).ln() + 0.5;
    let term = |ln_binomial: f64, i: f64, j: f64, distance: f64| {
        ln_binomial
            + i * ln_q
            + j * ln_p
            + (i * i - i) / (2.0 * sigma * sigma)
            + ln_half_erfc(distance / (std::f64::consts::SQRT_2 * sigma))
    };
    let (mut total, mut ln_binomial, mut last) = (f64::NEG_INFINITY, 0.0_f64, (f64::INFINITY, f64::INFINITY));
    for k in 0..1000 {
        let i = f64::from(k);
        let j = order - i;
        let terms = (term(ln_binomial, i, j, i - meet), term(ln_binomial, j, i, meet - j));
        total = log_sum_exp(&[total, terms.0, terms.1]);
        if terms.0 < last.0 && terms.1 < last.1 && terms.0.max(terms.1) < total - 30.0 {
            return total;
        }
        last = terms;
        ln_binomial += (j.abs() / (i + 1.0)).ln();
    }
    f64::INFINITY
}

/// ln E (P/Q)^order by the trapezoid rule, which converges faster than any power for such integrands.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    let h = sigma.min(sigma * sigma) / 12.0;
    let (from, to) = (-10.0 * sigma, order + 10.0 * sigma);
    let norm = (h / (sigma * (2.0 * std::f64::consts::PI).sqrt())).ln();
    let terms: Vec<f64> = (0..=((to - from) / h) as usize)
        .map(|i| {
            let x = from + i as f64 * h;
            let u = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
            // ln(1 − q + q·eᵘ), also where eᵘ is beyond f64.
            let loss = if u > 500.0 {
                u + q.ln()
            } else {
                (q * u.exp_m1()).ln_1p()
            };
            order * loss - x * x / (2.0 * sigma * sigma) + norm
        })
        .collect();
    log_sum_exp(&terms)
}
