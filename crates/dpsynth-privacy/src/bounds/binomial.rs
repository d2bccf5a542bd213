//! Binomial tails by direct summation, and the Clopper–Pearson limits that follow from them.

use statrs::function::gamma::ln_gamma;

/// W ~ Binomial(n, p). Holds both logarithms, so that a p within 1e-16 of 1 loses nothing.
#[derive(Clone, Copy, Debug)]
pub struct Binomial {
    n: u64,
    ln_p: f64,
    ln_not_p: f64,
}

impl Binomial {
    /// n trials that succeed with probability p in (0, 1).
    pub fn new(n: u64, p: f64) -> Self {
        Binomial {
            n,
            ln_p: p.ln(),
            ln_not_p: (-p).ln_1p(),
        }
    }

    /// n trials with p = e^ε / (e^ε + 1): guesses at a coin that randomised response answers with ε ≥ 0.
    pub fn of_randomised_response(n: u64, epsilon: f64) -> Self {
        Binomial {
            n,
            ln_p: -(-epsilon).exp().ln_1p(),
            ln_not_p: -epsilon - (-epsilon).exp().ln_1p(),
        }
    }

    /// n·p.
    pub fn mean(&self) -> f64 {
        self.n as f64 * self.ln_p.exp()
    }

    /// P\[W = k\] for k ≤ n.
    pub fn mass(&self, k: u64) -> f64 {
        let factorial = |i: u64| ln_gamma(i as f64 + 1.0);
        let ways = factorial(self.n) - factorial(k) - factorial(self.n - k);
        (ways + k as f64 * self.ln_p + (self.n - k) as f64 * self.ln_not_p).exp()
    }

    /// P\[W ≥ k\].
    pub fn at_least(&self, k: u64) -> f64 {
        if k == 0 {
            return 1.0;
        }
        if k > self.n {
            return 0.0;
        }
        // Each side is summed away from the mean, where terms only shrink.
        if k as f64 >= self.mean() {
            self.upwards(k)
        } else {
            1.0 - self.mirrored().upwards(self.n - k + 1)
        }
    }

    /// P\[W ≤ k\].
    pub fn at_most(&self, k: u64) -> f64 {
        self.mirrored().at_least(self.n.saturating_sub(k))
    }

    /// The largest k ≤ `from` with P\[W = k\] ≥ `mass`, for `from` at or above the mean; the mean where there is none.
    pub fn last_with_mass(&self, from: u64, mass: f64) -> u64 {
        let (mut low, mut high) = ((self.mean().floor() as u64).min(from), from + 1);
        while high - low > 1 {
            let mid = low + (high - low) / 2;
            if self.mass(mid) >= mass { low = mid } else { high = mid }
        }
        low
    }

    /// n − W.
    fn mirrored(&self) -> Self {
        Binomial {
            n: self.n,
            ln_p: self.ln_not_p,
            ln_not_p: self.ln_p,
        }
    }

    /// Σ P\[W = i\] for i from k, which is at or above the mean.
    fn upwards(&self, k: u64) -> f64 {
        let odds = (self.ln_p - self.ln_not_p).exp();
        let (mut term, mut sum) = (self.mass(k), 0.0);
        for i in k..=self.n {
            sum += term;
            term *= (self.n - i) as f64 / (i + 1) as f64 * odds;
            if term <= 1e-18 * sum {
                break;
            }
        }
        sum
    }
}

/// The largest p at which `successes` or more of `trials` have probability at most `alpha`: p is above it at 1 − alpha.
pub fn lower_limit(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    bisect(|p| Binomial::new(trials, p).at_least(successes) <= alpha).0
}

/// The smallest p at which `successes` or fewer of `trials` have probability at most `alpha`.
pub fn upper_limit(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes >= trials {
        return 1.0;
    }
    bisect(|p| Binomial::new(trials, p).at_most(successes) > alpha).1
}

/// Where `below` turns from true to false in (0, 1): the last point known to be true and the first known to be false.
fn bisect(below: impl Fn(f64) -> bool) -> (f64, f64) {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..70 {
        let mid = 0.5 * (low + high);
        if mid <= low || mid >= high {
            break;
        }
        if below(mid) { low = mid } else { high = mid }
    }
    (low, high)
}
