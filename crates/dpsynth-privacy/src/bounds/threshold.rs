//! The lower bound on epsilon from a threshold test: (ε, δ)-privacy says TPR ≤ e^ε·FPR + δ, and the same of the
//! complements (Kairouz, Oh and Viswanath 2015; audits since Jagielski, Ullman and Oprea 2020).
//!
//! The rates are known to Clopper–Pearson limits, which want trials that are independent of each other, and a threshold
//! that was decided on other trials.

use super::binomial::{lower_limit, upper_limit};

/// How often, of how many trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub times: u64,
    pub of: u64,
}

/// What a test does at least where it is right to name somebody, and at most where it is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The true-positive rate is at least this.
    pub right: f64,
    /// The false-positive rate is at most this.
    pub wrong: f64,
}

/// Both hold with confidence 1 − `alpha`: half of the error for each.
pub fn limits(right: Count, wrong: Count, alpha: f64) -> Limits {
    Limits {
        right: lower_limit(right.times, right.of, alpha / 2.0),
        wrong: upper_limit(wrong.times, wrong.of, alpha / 2.0),
    }
}

/// The largest ε that is refuted at level `alpha`; 0 where none is.
pub fn epsilon_lower(right: Count, wrong: Count, delta: f64, alpha: f64) -> f64 {
    let limits = limits(right, wrong, alpha);
    let least = limits.right - delta;
    if least > 0.0 {
        (least / limits.wrong).ln().max(0.0)
    } else {
        0.0
    }
}
