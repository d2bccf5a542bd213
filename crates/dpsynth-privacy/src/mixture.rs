//! Laplace noise of mixed scales (LMO-DP; Yang et al. 2024, arXiv 2405.18776), and the account of it that its authors give,
//! which is of one number. What steps release is a vector: P11, for research.

use std::sync::LazyLock;

use rand_chacha::rand_core::Rng;
use rand_distr::{Distribution, Exp1, Gamma, StandardUniform};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::function::gamma::ln_gamma;

use crate::accountant::rdp::{convert, log_sum_exp};

/// Laplace noise of scale 1/u, where u is drawn anew for each coordinate: a gamma, an exponential and a uniform value added
/// up. All numbers are ≥ 0; the noise is for values that one unit moves by at most 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// k.
    pub gamma_shape: f64,
    /// θ: the gamma value has mean k·θ.
    pub gamma_scale: f64,
    pub exponential_mean: f64,
    pub uniform_low: f64,
    pub uniform_high: f64,
}

/// Whole orders at which the account of one number is taken.
const ORDERS: std::ops::RangeInclusive<usize> = 2..=256;

/// ln n! by n.
static LN_FACTORIALS: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..=*ORDERS.end()).map(|n| ln_gamma(n as f64 + 1.0)).collect());

/// What a mixture is chosen by: how often noise is less than this share of the sensitivity (section 4.3 there).
const NEAR: f64 = 0.9;

impl Mixture {
    /// Whether it is a law at all.
    pub fn is_one(&self) -> bool {
        let all = [
            self.gamma_shape,
            self.gamma_scale,
            self.exponential_mean,
            self.uniform_low,
            self.uniform_high,
        ];
        let in_range = all.iter().all(|v| (0.0..=1e6).contains(v)) && self.uniform_low <= self.uniform_high;
        in_range && self.gamma_shape > 0.0 && self.gamma_scale.max(self.exponential_mean).max(self.uniform_high) > 1e-12
    }

    /// The noise multiplier of the Gaussian noise that it is counted like: see [`Mixture::fisher_information`].
    pub fn counted_multiplier(&self) -> f64 {
        self.fisher_information().sqrt().recip()
    }

    /// Whether it is a law, and `noise_multiplier` the one that it is counted by.
    pub fn is_counted_by(&self, noise_multiplier: f64) -> bool {
        self.is_one() && (noise_multiplier / self.counted_multiplier() - 1.0).abs() < 1e-6
    }

    /// The same with `factor` times u: less noise where it is above 1.
    fn times(&self, factor: f64) -> Mixture {
        Mixture {
            gamma_shape: self.gamma_shape,
            gamma_scale: factor * self.gamma_scale,
            exponential_mean: factor * self.exponential_mean,
            uniform_low: factor * self.uniform_low,
            uniform_high: factor * self.uniform_high,
        }
    }

    /// ln E e^(t·u); infinite where the integral does not exist, as it does not for t ≥ 1/θ, whatever its formula gives there.
    fn log_mgf(&self, t: f64) -> f64 {
        if t * self.gamma_scale.max(self.exponential_mean) >= 1.0 {
            return f64::INFINITY;
        }
        let x = (self.uniform_high - self.uniform_low) * t;
        // ln (eˣ − 1)/x.
        let uniform = match x {
            x if x.abs() < 1e-5 => 0.5 * x,
            x if x > 500.0 => x - x.ln(),
            x => (x.exp_m1() / x).ln(),
        };
        let gamma = -self.gamma_shape * (-t * self.gamma_scale).ln_1p();
        gamma - (-t * self.exponential_mean).ln_1p() + t * self.uniform_low + uniform
    }

    /// Rényi divergence of an order above 1 between the noise around 1 and around 0 with u in plain sight, which is no less
    /// than without (section 4.1 there, by Mironov 2017, proposition 6).
    fn divergence(&self, order: f64) -> f64 {
        let terms = [
            (order / (2.0 * order - 1.0)).ln() + self.log_mgf(order - 1.0),
            ((order - 1.0) / (2.0 * order - 1.0)).ln() + self.log_mgf(-order),
        ];
        log_sum_exp(&terms) / (order - 1.0)
    }

    /// Epsilon by the account of one number: of `steps` that draw a unit with probability `sampling_rate`. The bound for any
    /// mechanism of Zhu and Wang 2019 (theorem 5), at the best whole order.
    pub fn claimed_epsilon(&self, sampling_rate: f64, steps: u64, delta: f64) -> f64 {
        let whole = |j: usize| (j as f64 - 1.0) * self.divergence(j as f64);
        let moments: Vec<f64> = ORDERS.map(whole).take_while(|m| m.is_finite()).collect();
        let (ln_q, ln_rest) = (sampling_rate.ln(), (-sampling_rate).ln_1p());
        let sampled = |order: usize| {
            if sampling_rate == 1.0 {
                return moments[order - 2];
            }
            let n = order as f64;
            let ln_binomial = |j: usize| LN_FACTORIALS[order] - LN_FACTORIALS[j] - LN_FACTORIALS[order - j];
            let drawn = |j: usize| ln_binomial(j) + (order - j) as f64 * ln_rest + j as f64 * ln_q + moments[j - 2];
            let mut terms = vec![
                (n - 1.0) * ln_rest + (n * sampling_rate - sampling_rate).ln_1p(),
                drawn(2),
            ];
            terms.extend((3..=order).map(|j| 3_f64.ln() + drawn(j)));
            log_sum_exp(&terms)
        };
        (2..2 + moments.len())
            .map(|order| {
                let n = order as f64;
                convert(steps as f64 * sampled(order) / (n - 1.0), n, delta)
            })
            .fold(f64::INFINITY, f64::min)
    }

    /// I = ∫ p′²/p of the noise's density p: how much its place tells of what it was added to. Two sums that differ by the same
    /// little in each of very many coordinates, by a vector of L2 norm 1, look like normal values √I standard deviations apart (the central
    /// limit of Dong, Roth and Su 2022, theorem 5).
    pub fn fisher_information(&self) -> f64 {
        // p(x) = M′(−|x|)/2 for M the generating function of u: p′/p = −(K″ + K′²)/K′ for K = ln M.
        let at = |x: f64| {
            let [first, second] = self.cumulants(x);
            self.log_mgf(-x).exp() * (second + first * first).powi(2) / first
        };
        // Simpson's rule over y, x = (e^y − 1)/E[u]: the density falls like a power of x.
        let (n, top) = (4000, 24.0);
        let mean = self.cumulants(0.0)[0];
        let over_y = |i: usize| {
            let y = top * i as f64 / f64::from(n);
            at(y.exp_m1() / mean) * y.exp() / mean
        };
        let inner = (1..n as usize).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * over_y(i));
        (over_y(0) + inner.sum::<f64>() + over_y(n as usize)) * top / f64::from(n) / 3.0
    }

    /// K′ and K″ of K(t) = ln E e^(t·u) at t = −x ≤ 0.
    fn cumulants(&self, x: f64) -> [f64; 2] {
        let part = |count: f64, scale: f64| {
            let at = scale / (1.0 + x * scale);
            [count * at, count * at * at]
        };
        let ([g1, g2], [e1, e2]) = (
            part(self.gamma_shape, self.gamma_scale),
            part(1.0, self.exponential_mean),
        );
        let width = self.uniform_high - self.uniform_low;
        let z = width * x;
        // Mean and variance of a uniform value over (0, 1), weighed by e^(−z·value).
        let [u1, u2] = match z {
            z if z < 1e-2 => [0.5 - z / 12.0, 1.0 / 12.0 - z * z / 240.0],
            z => {
                let left = (-z).exp();
                [
                    1.0 / z - left / -(-z).exp_m1(),
                    1.0 / (z * z) - left / (-z).exp_m1().powi(2),
                ]
            }
        };
        [g1 + e1 + self.uniform_low + width * u1, g2 + e2 + width * width * u2]
    }

    /// The mixture with noise below [`NEAR`] most often among those whose account of one number is at most `epsilon` (the
    /// offline search of section 4.3 there): each of a table of forms, as little noise as that allows.
    pub fn search(epsilon: f64, delta: f64, sampling_rate: f64, steps: u64) -> Option<Mixture> {
        let claimed = |m: &Mixture| m.claimed_epsilon(sampling_rate, steps, delta);
        let forms: Vec<Mixture> = forms().collect();
        let fitted = forms.into_par_iter().filter_map(|form| {
            let (mut low, mut high) = (1e-9_f64.ln(), 1e3_f64.ln());
            if claimed(&form.times(low.exp())) > epsilon {
                return None;
            }
            while high - low > 1e-4 {
                let middle = 0.5 * (low + high);
                match claimed(&form.times(middle.exp())) <= epsilon {
                    true => low = middle,
                    false => high = middle,
                }
            }
            Some(form.times(low.exp()))
        });
        // P(|noise| > x) = E e^(−x·u).
        let fitted: Vec<Mixture> = fitted.collect();
        fitted
            .into_iter()
            .min_by(|a, b| a.log_mgf(-NEAR).total_cmp(&b.log_mgf(-NEAR)))
    }

    /// Draws values of it. In floating point: attacks on that are outside any claim.
    pub fn sampler(&self) -> Sampler {
        Sampler {
            gamma: Gamma::new(self.gamma_shape, self.gamma_scale.max(f64::MIN_POSITIVE)).expect("a law"),
            law: *self,
        }
    }
}

/// Shares of the mean of u, which is 1: of the gamma value (of several shapes), the exponential and the uniform one.
fn forms() -> impl Iterator<Item = Mixture> {
    let quarters = (0..=4).flat_map(|g| (0..=4 - g).map(move |e| [g, e, 4 - g - e].map(|n| f64::from(n) / 4.0)));
    let shapes = |gamma: f64| {
        if gamma > 0.0 {
            &[1.0, 2.0, 4.0, 16.0, 64.0][..]
        } else {
            &[1.0][..]
        }
    };
    quarters.flat_map(move |[gamma, exponential, uniform]| {
        let lows = if uniform > 0.0 {
            &[0.0, 0.5, 1.0][..]
        } else {
            &[0.0][..]
        };
        shapes(gamma).iter().flat_map(move |shape| {
            lows.iter().map(move |low| Mixture {
                gamma_shape: *shape,
                gamma_scale: gamma / shape,
                exponential_mean: exponential,
                uniform_low: low * uniform,
                uniform_high: (2.0 - low) * uniform,
            })
        })
    })
}

/// See [`Mixture::sampler`].
pub struct Sampler {
    gamma: Gamma<f64>,
    law: Mixture,
}

impl Sampler {
    /// One draw, for a sensitivity of 1.
    pub fn draw(&self, rng: &mut impl Rng) -> f64 {
        let law = &self.law;
        let exponential: f64 = Exp1.sample(rng);
        let uniform: f64 = StandardUniform.sample(rng);
        let u = self.gamma.sample(rng)
            + law.exponential_mean * exponential
            + law.uniform_low
            + (law.uniform_high - law.uniform_low) * uniform;
        let size: f64 = Exp1.sample(rng);
        let sign = if rng.next_u64() & 1 == 1 { 1.0 } else { -1.0 };
        sign * size / u
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accountant::{Adjacency, Phase, pld};
    use crate::keys::Key;

    /// The law and the columns of tests/fixtures/mixture.csv, which mixture.py integrated.
    fn references() -> Vec<(Mixture, Vec<f64>)> {
        let lines = include_str!("../tests/fixtures/mixture.csv").lines().skip(1);
        let read = |line: &str| {
            let v: Vec<f64> = line
                .split(',')
                .map(|v| v.trim_start_matches('+').parse().expect("a number"))
                .collect();
            let law = Mixture {
                gamma_shape: v[0],
                gamma_scale: v[1],
                exponential_mean: v[2],
                uniform_low: v[3],
                uniform_high: v[4],
            };
            (law, v[5..].to_vec())
        };
        lines.map(read).collect()
    }

    fn near(got: f64, wanted: f64, relative: f64) {
        assert!((got - wanted).abs() <= relative * wanted.abs(), "{got} is not {wanted}");
    }

    #[test]
    fn a_mixture_is_what_numerical_integration_says() {
        let references = references();
        assert_eq!(references.len(), 4);
        for (law, wanted) in references {
            near(law.log_mgf(-0.7).exp(), wanted[0], 1e-9);
            near(law.fisher_information(), wanted[1], 1e-6);
            if wanted[2].is_finite() {
                near(law.divergence(3.0), wanted[3], 1e-9);
                assert!(law.divergence(3.0) > wanted[2], "what is seen tells more");
            }
            near(law.claimed_epsilon(1.0, 1, 1e-5), wanted[4], 1e-9);
            near(law.claimed_epsilon(1.0, 10, 1e-5), wanted[5], 1e-9);
            near(law.claimed_epsilon(0.02, 100, 1e-5), wanted[6], 1e-9);
        }
    }

    /// Beyond 1/θ the moment's integral diverges, while its formula goes on and gives small numbers: the paper's epsilon of 0.3
    /// is read there (docs/privacy.md has these figures).
    #[test]
    fn p11_no_moment_is_read_where_it_does_not_exist() {
        // The parameters that the public code of 2405.18776 has for epsilon 0.3, by the formula at any whole order.
        let (law, _) = references()[0];
        let delta: f64 = 1e-5;
        let formula = |t: f64| {
            let [theta, mean, high] = [law.gamma_scale, law.exponential_mean, law.uniform_high];
            (1.0 - theta * t).powf(-law.gamma_shape) / (1.0 - mean * t) * (high * t).exp_m1() / (high * t)
        };
        let anywhere = (2..=128).filter(|order| *order != 51).map(|order| {
            let n = f64::from(order);
            let moment = (n * formula(n - 1.0) + (n - 1.0) * formula(-n)) / (2.0 * n - 1.0);
            (convert(moment.ln() / (n - 1.0), n, delta), order)
        });
        let (read, order) = anywhere
            .filter(|(e, _)| *e > 0.0)
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .expect("some");
        assert_eq!((format!("{read:.3}"), order), ("0.296".into(), 41));
        assert_eq!(format!("{:.2}", law.claimed_epsilon(1.0, 1, delta)), "6.33");
        let spread = Phase::new(1.0, law.fisher_information().sqrt().recip(), 1).expect("a phase");
        let spread = pld::epsilon(&[spread], Adjacency::AddOrRemoveOne, delta).expect("an epsilon");
        assert_eq!(format!("{:.2}", spread.epsilon_lower), "4.38");

        assert!(law.divergence(3.4).is_finite());
        for order in [3.5, 4.0, 20.0] {
            assert_eq!(law.divergence(order), f64::INFINITY, "{order}");
        }
        assert_eq!(law.times(3.0).claimed_epsilon(1.0, 1, 1e-5), f64::INFINITY);
    }

    #[test]
    fn draws_of_a_mixture_follow_its_law() {
        for (law, _) in references() {
            let (sampler, mut rng) = (law.sampler(), Key::fixed(3).stream(0));
            let n = 200_000;
            let mut draws: Vec<f64> = (0..n).map(|_| sampler.draw(&mut rng)).collect();
            draws.sort_by(f64::total_cmp);
            let cdf = |x: f64| {
                let beyond = 0.5 * law.log_mgf(-x.abs()).exp();
                if x < 0.0 { beyond } else { 1.0 - beyond }
            };
            let at = |i: usize| (cdf(draws[i]) - (i as f64 + 0.5) / f64::from(n)).abs();
            let furthest = (0..n as usize).map(at).fold(0.0, f64::max);
            // The 0.9999 quantile of Kolmogorov's distribution.
            assert!(furthest * f64::from(n).sqrt() < 2.23, "{law:?}: {furthest}");
        }
    }

    /// What [`Mixture::fisher_information`] is for: the loss of a difference of norm 1 that is spread over 4,096 coordinates is
    /// normal with mean I/2 and variance I.
    #[test]
    fn a_difference_spread_over_many_coordinates_is_told_as_by_normal_noise() {
        for (law, _) in references().into_iter().take(2) {
            let information = law.fisher_information();
            let (sampler, mut rng) = (law.sampler(), Key::fixed(4).stream(0));
            let log_density = |x: f64| law.log_mgf(-x.abs()) + law.cumulants(x.abs())[0].ln();
            let (d, n) = (4096_i32, 400);
            let shift = f64::from(d).sqrt().recip();
            let losses: Vec<f64> = (0..n)
                .map(|_| {
                    (0..d)
                        .map(|_| sampler.draw(&mut rng))
                        .map(|z| log_density(z) - log_density(z + shift))
                        .sum()
                })
                .collect();
            let mean = losses.iter().sum::<f64>() / f64::from(n);
            let variance = losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!(
                (mean - 0.5 * information).abs() < 4.0 * (information / f64::from(n)).sqrt(),
                "{mean}"
            );
            assert!((variance / information - 1.0).abs() < 0.3, "{variance} {information}");
        }
    }

    #[test]
    fn the_search_spends_what_it_may_and_no_more() {
        for (epsilon, q, steps) in [(0.3, 1.0, 1), (3.0, 0.02, 100)] {
            let found = Mixture::search(epsilon, 1e-5, q, steps).expect("a mixture");
            let claimed = found.claimed_epsilon(q, steps, 1e-5);
            assert!(claimed <= epsilon && claimed > 0.99 * epsilon, "{claimed}");
            assert!(found.is_one());
        }
        assert!(Mixture::search(-0.1, 1e-5, 1.0, 1).is_none());
    }
}
