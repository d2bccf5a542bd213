//! Without subsampling (q = 1) the composition is one Gaussian mechanism with a closed form.

use statrs::function::erf::erfc;

/// ln Φ(x), good into the far lower tail.
pub fn ln_normal_cdf(x: f64) -> f64 {
    if x > -25.0 {
        return (0.5 * erfc(-x / std::f64::consts::SQRT_2)).ln();
    }
    // Mills ratio, asymptotic: Φ(x) = φ(x)/|x| · (1 − 1/x² + 3/x⁴ − 15/x⁶ + …); at 25 the next term is below 1e-9.
    let v = 1.0 / (x * x);
    let series = 1.0 - v * (1.0 - v * (3.0 - v * 15.0));
    -0.5 * x * x - 0.5 * (2.0 * std::f64::consts::PI).ln() - (-x).ln() + series.ln()
}

/// δ(ε) of the Gaussian mechanism with sensitivity over noise `mu` (Balle and Wang 2018, theorem 8).
pub fn delta(mu: f64, epsilon: f64) -> f64 {
    let upper = ln_normal_cdf(mu / 2.0 - epsilon / mu);
    let lower = epsilon + ln_normal_cdf(-mu / 2.0 - epsilon / mu);
    // e^upper − e^lower with lower < upper.
    -upper.exp() * (lower - upper).min(0.0).exp_m1()
}

/// The smallest ε ≥ 0 with δ(ε) ≤ `target`, from above, to about 1e-12 relative.
pub fn epsilon(mu: f64, target: f64) -> f64 {
    if delta(mu, 0.0) <= target {
        return 0.0;
    }
    let mut high = 1.0;
    while delta(mu, high) > target {
        high *= 2.0;
    }
    let mut low = 0.0;
    while high - low > 1e-13 * high {
        let mid = 0.5 * (low + high);
        if mid <= low || mid >= high {
            break;
        }
        if delta(mu, mid) > target { low = mid } else { high = mid }
    }
    high
}
