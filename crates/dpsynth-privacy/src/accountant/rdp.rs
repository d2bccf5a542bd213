//! Rényi differential privacy: the divergences of the dominating pairs, added up. At one fixed order they are a filter, which
//! spends budget once something was charged; at the best order they stand beside [`super::pld`] for comparison.
//!
//! For the Poisson-subsampled Gaussian after Mironov, Talwar and Zhang 2019, whose theorem 5 shows that a record removed
//! is the worse case; for random allocation see [`super::allocation`], for Laplace noise on a batch's number [`super::laplace`];
//! for Laplace noise and randomised response after Mironov 2017, proposition 6 and table II.

use statrs::function::gamma::ln_gamma;

use super::gaussian::ln_normal_cdf;
use super::pairs::{Dominating, Pair, dominating};
use super::{Adjacency, Phase, check_delta, check_epsilon, check_phases};
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
pub fn epsilon(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Renyi> {
    least(phases, adjacency, delta, series_bound)
}

/// The same with the exact moment at fractional orders, as Opacus has it.
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_exact(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Renyi> {
    least(phases, adjacency, delta, fractional)
}

/// ln E_Q (P/Q)^order of the subsampled Gaussian, for a fractional order, from (q, sigma, order).
type LogMoment = fn(f64, f64, f64) -> f64;

/// The smallest delta at which [`epsilon`] is at most `target`, from above to one in a million, and its order.
///
/// # Errors
/// Usage: no phases, a negative target or one that is not a number.
pub fn delta(phases: &[Phase], adjacency: Adjacency, target: f64) -> Result<(f64, f64)> {
    check_epsilon(target)?;
    check_phases(phases)?;
    let rho = divergence(phases, adjacency, series_bound)?;
    let (mut low, mut high) = (1e-300_f64.ln(), (1.0 - 1e-9_f64).ln());
    while high - low > 1e-6 {
        let middle = 0.5 * (low + high);
        if best(&rho, middle.exp())?.epsilon > target {
            low = middle
        } else {
            high = middle
        }
    }
    Ok((high.exp(), best(&rho, high.exp())?.order))
}

/// Epsilon for `delta` by one order, both fixed beforehand: what phases may come to that are let in only while this is within
/// a fixed epsilon, whatever led to the later ones (Feldman and Zrnic 2021, a filter).
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_at(phases: &[Phase], adjacency: Adjacency, delta: f64, order: f64) -> Result<f64> {
    check_phases(phases)?;
    check_delta(delta)?;
    Ok(convert(
        divergence(phases, adjacency, series_bound)?(order),
        order,
        delta,
    ))
}

/// The same where no epsilon was fixed beforehand, at whatever point phases stop: ρ + ln(1/δ)/(order − 1), Markov's bound,
/// which holds at all times together.
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_at_any_time(phases: &[Phase], adjacency: Adjacency, delta: f64, order: f64) -> Result<f64> {
    check_phases(phases)?;
    check_delta(delta)?;
    Ok(divergence(phases, adjacency, series_bound)?(order) - delta.ln() / (order - 1.0))
}

/// The order at which `phases` fit under (epsilon, delta) the most times.
///
/// # Errors
/// As [`epsilon`].
pub fn order_for(phases: &[Phase], adjacency: Adjacency, epsilon: f64, delta: f64) -> Result<f64> {
    check_phases(phases)?;
    check_delta(delta)?;
    let rho = divergence(phases, adjacency, series_bound)?;
    let times = orders().map(|order| ((epsilon - price(order, delta)) / rho(order), order));
    let best = times
        .filter(|(times, _)| times.is_finite())
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.map_or(2.0, |best| best.1))
}

fn least(phases: &[Phase], adjacency: Adjacency, delta: f64, sampled: LogMoment) -> Result<Renyi> {
    check_phases(phases)?;
    check_delta(delta)?;
    best(divergence(phases, adjacency, sampled)?, delta)
}

fn best(rho: impl Fn(f64) -> f64, delta: f64) -> Result<Renyi> {
    orders()
        .map(|order| Renyi {
            epsilon: convert(rho(order), order, delta),
            order,
        })
        .min_by(|a, b| a.epsilon.total_cmp(&b.epsilon))
        .ok_or_else(|| Error::other("no Rényi order was tried"))
}

/// Of all phases together, at an order.
fn divergence(phases: &[Phase], adjacency: Adjacency, sampled: LogMoment) -> Result<impl Fn(f64) -> f64> {
    let part = |of: Dominating| -> Box<dyn Fn(f64) -> f64> {
        match of {
            Dominating::Pairs(pairs) => Box::new(move |order| {
                let moments = pairs
                    .iter()
                    .map(|(weight, pair)| weight.ln() + log_moment(pair, order, sampled));
                log_sum_exp(&moments.collect::<Vec<_>>())
            }),
            Dominating::Ratio(ratio) => ratio.log_moments(),
        }
    };
    let mut parts = Vec::new();
    for phase in phases {
        let of_phase = dominating(phase, adjacency)?;
        parts.extend(of_phase.into_iter().map(|(of, times)| (part(of), times as f64)));
    }
    Ok(move |order: f64| parts.iter().map(|(of, times)| times * of(order) / (order - 1.0)).sum())
}

/// From (order, rho) to epsilon: Canonne, Kamath and Steinke 2020, proposition 12.
pub(crate) fn convert(rho: f64, order: f64, delta: f64) -> f64 {
    if !rho.is_finite() {
        return f64::INFINITY;
    }
    // Total variation ≤ √(1 − e^(−KL)) and KL ≤ rho: below delta, epsilon is 0.
    if delta * delta + (-rho).exp_m1() > 0.0 {
        return 0.0;
    }
    (rho + price(order, delta)).max(0.0)
}

/// What epsilon is above rho.
fn price(order: f64, delta: f64) -> f64 {
    (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}

/// ln E_Q (P/Q)^order.
fn log_moment(pair: &Pair, order: f64, sampled: LogMoment) -> f64 {
    match *pair {
        Pair::Removed { q: 1.0, sigma } => order * (order - 1.0) / (2.0 * sigma * sigma),
        Pair::Removed { q, sigma } if order.fract() == 0.0 => whole(q, sigma, order),
        Pair::Removed { q, sigma } => sampled(q, sigma, order),
        Pair::Replaced { q: 1.0, sigma } => 2.0 * order * (order - 1.0) / (sigma * sigma),
        Pair::Replaced { q, sigma } => replaced(q, sigma, order),
        Pair::Laplace { scale } => log_sum_exp(&[
            (order / (2.0 * order - 1.0)).ln() + (order - 1.0) / scale,
            ((order - 1.0) / (2.0 * order - 1.0)).ln() - order / scale,
        ]),
        // P = (1, e^−ε)/(1 + e^−ε) and Q the other way round.
        Pair::Response { epsilon } => {
            log_sum_exp(&[(order - 1.0) * epsilon, -order * epsilon]) - (-epsilon).exp().ln_1p()
        }
    }
}

pub(crate) fn log_sum_exp(terms: &[f64]) -> f64 {
    let peak = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if peak.is_infinite() {
        return peak;
    }
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

/// ln(1 − q + q·eᵘ), also where eᵘ is beyond f64.
fn log_ratio(q: f64, u: f64) -> f64 {
    if u > 500.0 {
        u + q.ln()
    } else {
        (q * u.exp_m1()).ln_1p()
    }
}

/// ln ∫ e^f over [from, to] by the trapezoid rule, which converges faster than any power for such integrands.
fn log_integral(from: f64, to: f64, h: f64, f: impl Fn(f64) -> f64) -> f64 {
    let terms: Vec<f64> = (0..=((to - from) / h) as usize)
        .map(|i| f(from + i as f64 * h))
        .collect();
    log_sum_exp(&terms) + h.ln()
}

/// ln of the density of N(0, σ²).
fn log_normal(x: f64, sigma: f64) -> f64 {
    -x * x / (2.0 * sigma * sigma) - (sigma * (2.0 * std::f64::consts::PI).sqrt()).ln()
}

/// ln E (P/Q)^order of the subsampled Gaussian at any order.
fn fractional(q: f64, sigma: f64, order: f64) -> f64 {
    let h = sigma.min(sigma * sigma) / 12.0;
    log_integral(-10.0 * sigma, order + 10.0 * sigma, h, |x| {
        order * log_ratio(q, (2.0 * x - 1.0) / (2.0 * sigma * sigma)) + log_normal(x, sigma)
    })
}

/// The same where a record is replaced: P^order·Q^(1−order) has its mass at most at 2·order − 1, where both records
/// are always drawn.
fn replaced(q: f64, sigma: f64, order: f64) -> f64 {
    let h = sigma.min(sigma * sigma) / 12.0;
    log_integral(-1.0 - 10.0 * sigma, 2.0 * order - 1.0 + 10.0 * sigma, h, |x| {
        let [p, q] = [2.0 * x - 1.0, -2.0 * x - 1.0].map(|u| log_ratio(q, u / (2.0 * sigma * sigma)));
        order * p + (1.0 - order) * q + log_normal(x, sigma)
    })
}
