//! The dominating pair of a step: two distributions P and Q on the real line whose loss ln P/Q grows with x.
//!
//! "Dominating": at every a, the hockey-stick divergence E_a(P‖Q) = ∫(P − a·Q)₊ is at least that of the step's outputs
//! on any two neighbours (and E_a(Q‖P) in the other direction). Dominating pairs compose, adaptively too (Zhu, Dong and
//! Wang 2022, theorem 10). E_a is jointly convex and does not see translations, so a step may be bounded given whatever
//! else happened in it, and what is conditioned on with the same probability on both sides may be revealed.

use super::allocation::{Law, Round};
use super::compose::Side;
use super::laplace::SampledLaplace;
use super::{Adjacency, Mechanism, Phase};
use crate::bands::{length, length_of_first};
use crate::{Error, Result};

/// A pair (P, Q). Q is also the name of its density below; `q` is a sampling rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pair {
    /// P = (1−q)·N(0,σ²) + q·N(1,σ²), Q = N(0,σ²): one record, drawn with probability q, or none. Given the other
    /// records' draws the outputs differ by a shift of norm at most 1, if the record is drawn (Zhu et al. 2022,
    /// theorem 11). Q against P is the other direction.
    Removed {
        /// Sampling rate.
        q: f64,
        /// Noise over sensitivity.
        sigma: f64,
    },
    /// P = (1−q)·N(0,σ²) + q·N(1,σ²), Q = (1−q)·N(0,σ²) + q·N(−1,σ²): one record or another in its place.
    ///
    /// Given the other draws, the outputs are (1−q)·N(0) + q·N(v) and (1−q)·N(0) + q·N(v′) with |v|, |v′| ≤ 1, so
    /// E_a = E f(w, w′) over x ~ N(0,σ²I) with f = (q·w − a·q·w′ − (1−q)(a−1))₊, w = exp((x·v − |v|²/2)/σ²) and w′
    /// likewise. f is convex and submodular, so for given norms its mean falls as the correlation of x·v and x·v′
    /// grows (Tchen 1980; Slepian's inequality) and is largest at −1: opposite directions. It grows with |v|: a longer
    /// v₊ with correlation lessened by |v|/|v₊| has E[w₊ | w, w′] = w, so Jensen's inequality applies; then lower the
    /// correlation back to −1. The same for |v′|. Exchanging P and Q mirrors x: one direction is both.
    Replaced {
        /// Sampling rate.
        q: f64,
        /// Noise over the norm of one record's contribution.
        sigma: f64,
    },
    /// P = Laplace around 1, Q = Laplace around 0. Outside (0, 1) the loss is constant: two atoms at ±1/scale.
    Laplace {
        /// Noise over sensitivity.
        scale: f64,
    },
    /// Randomised response: losses ±ε only. It dominates everything that is (ε, 0)-private (Kairouz, Oh and Viswanath
    /// 2015, theorem 3.2).
    Response {
        /// Pure epsilon.
        epsilon: f64,
    },
}

/// Densities (or masses) under P and Q, and P − Q without cancellation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Density {
    pub p: f64,
    pub q: f64,
    pub difference: f64,
}

impl Density {
    /// P − e^loss·Q, given e^loss and e^loss − 1, with few digits lost also where the loss is near 0.
    pub fn excess(&self, (exp, exp_m1): (f64, f64)) -> f64 {
        if exp_m1.abs() < 0.5 {
            self.difference - exp_m1 * self.q
        } else {
            self.p - exp * self.q
        }
    }

    /// ln P/Q.
    pub fn loss(&self) -> f64 {
        let above = self.difference / self.q;
        if above.abs() < 0.5 {
            above.ln_1p()
        } else {
            (self.p / self.q).ln()
        }
    }
}

/// Where a pair has nothing but a little outside.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub x_min: f64,
    pub x_max: f64,
    /// At least the mass below `x_min` that is not in an atom, under P and under Q.
    pub below: f64,
    /// At least the mass above `x_max` that is not in an atom, under P and under Q.
    pub above: f64,
}

/// Masses under P at the losses −`loss` and `loss`; under Q they are exchanged.
#[derive(Clone, Copy, Debug)]
pub struct Atoms {
    pub loss: f64,
    pub low: f64,
    pub high: f64,
}

/// Losses of single steps beyond this are treated as infinite; e to their power stays well within f64.
const MAX_LOSS: f64 = 500.0;

/// (eᵘ, eᵘ − 1).
pub fn exp_both(u: f64) -> (f64, f64) {
    if u.abs() < 1.0 {
        let minus_1 = u.exp_m1();
        (1.0 + minus_1, minus_1)
    } else {
        let exp = u.exp();
        (exp, exp - 1.0)
    }
}

/// The density of N(0, σ²).
fn normal(x: f64, sigma: f64) -> f64 {
    let t = x / sigma;
    (-0.5 * t * t).exp() / (sigma * (2.0 * std::f64::consts::PI).sqrt())
}

impl Pair {
    /// Densities at x.
    pub fn density(&self, x: f64) -> Density {
        match *self {
            Pair::Removed { q, sigma } => {
                let (exp, exp_m1) = exp_both((2.0 * x - 1.0) / (2.0 * sigma * sigma));
                let at_0 = normal(x, sigma);
                Density {
                    p: at_0 * ((1.0 - q) + q * exp),
                    q: at_0,
                    difference: at_0 * q * exp_m1,
                }
            }
            Pair::Replaced { q, sigma } => {
                let [at_0, at_1, at_minus_1] = [x, x - 1.0, x + 1.0].map(|x| normal(x, sigma));
                let nearer = -(-2.0 * x.abs() / (sigma * sigma)).exp_m1() * at_1.max(at_minus_1);
                Density {
                    p: (1.0 - q) * at_0 + q * at_1,
                    q: (1.0 - q) * at_0 + q * at_minus_1,
                    difference: q * nearer.copysign(x),
                }
            }
            Pair::Laplace { scale } => {
                let q = (-x.abs() / scale).exp() / (2.0 * scale);
                let (exp, exp_m1) = exp_both(self.loss(x));
                Density {
                    p: q * exp,
                    q,
                    difference: q * exp_m1,
                }
            }
            Pair::Response { .. } => Density::default(),
        }
    }

    /// ln P/Q at x.
    fn loss(&self, x: f64) -> f64 {
        match *self {
            Pair::Removed { q, sigma } => {
                let u = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
                if q == 1.0 {
                    return u;
                }
                let (exp, exp_m1) = exp_both(u);
                if q * exp_m1.abs() < 0.5 {
                    (q * exp_m1).ln_1p()
                } else {
                    ((1.0 - q) + q * exp).ln()
                }
            }
            Pair::Replaced { q, sigma } => {
                let variance = sigma * sigma;
                let far = x.abs();
                // 2·e^(−1/2σ²)·sinh(|x|/σ²) is the difference of the two ratios to N(0, σ²).
                let above = q * ((2.0 * far - 1.0) / (2.0 * variance)).exp() * -(-2.0 * far / variance).exp_m1();
                let below = (1.0 - q) + q * ((-2.0 * far - 1.0) / (2.0 * variance)).exp();
                (above / below).ln_1p().copysign(x)
            }
            Pair::Laplace { scale } => (2.0 * x - 1.0).clamp(-1.0, 1.0) / scale,
            Pair::Response { epsilon } => epsilon.copysign(x),
        }
    }

    /// The x at which the loss is `loss`; −∞ below the smallest.
    pub fn x_at(&self, loss: f64) -> f64 {
        match *self {
            Pair::Removed { q, sigma } => {
                let u = if q == 1.0 {
                    loss
                } else {
                    let v = (loss.exp_m1() + q) / q;
                    if v <= 0.0 {
                        return f64::NEG_INFINITY;
                    }
                    v.ln()
                };
                sigma * sigma * u + 0.5
            }
            Pair::Replaced { q, sigma } => {
                // With y = e^(x/σ²) the ratio's equation is a quadratic; z = y·e^(−loss/2) has z − 1/z known.
                let odds = (1.0 - q) / q * (0.5 / (sigma * sigma)).exp();
                sigma * sigma * (0.5 * loss + (odds * (0.5 * loss).sinh()).asinh())
            }
            Pair::Laplace { scale } => 0.5 * (1.0 + loss * scale),
            Pair::Response { .. } => 0.0,
        }
    }

    /// Leaves at most about `tail` on each side.
    pub fn range(&self, tail: f64) -> Range {
        // P(N(0,1) > z) ≤ exp(−z²/2).
        let z = (-2.0 * tail.ln()).sqrt();
        let beyond = |distance: f64| (-0.5 * distance.max(0.0).powi(2)).exp();
        match *self {
            Pair::Removed { sigma, .. } => {
                // With q = 1 the loss has no lower bound either.
                let x_min = (-z * sigma).max(self.x_at(-MAX_LOSS));
                let x_max = (1.0 + z * sigma).min(self.x_at(MAX_LOSS));
                Range {
                    x_min,
                    x_max,
                    below: beyond(-x_min / sigma),
                    above: beyond((x_max - 1.0) / sigma),
                }
            }
            Pair::Replaced { sigma, .. } => {
                let x_max = (1.0 + z * sigma).min(self.x_at(MAX_LOSS));
                let beyond = beyond((x_max - 1.0) / sigma);
                Range {
                    x_min: -x_max,
                    x_max,
                    below: beyond,
                    above: beyond,
                }
            }
            Pair::Laplace { .. } => Range {
                x_min: 0.0,
                x_max: 1.0,
                below: 0.0,
                above: 0.0,
            },
            Pair::Response { .. } => Range {
                x_min: 0.0,
                x_max: 0.0,
                below: 0.0,
                above: 0.0,
            },
        }
    }

    /// Smallest and largest loss within `range` and in atoms.
    pub fn losses(&self, range: &Range) -> (f64, f64) {
        match *self {
            Pair::Response { epsilon } => (-epsilon, epsilon),
            _ => (self.loss(range.x_min), self.loss(range.x_max)),
        }
    }

    /// The atoms, where there are any.
    pub fn atoms(&self) -> Option<Atoms> {
        match *self {
            Pair::Removed { .. } | Pair::Replaced { .. } => None,
            Pair::Laplace { scale } => Some(Atoms {
                loss: 1.0 / scale,
                low: 0.5 * (-1.0 / scale).exp(),
                high: 0.5,
            }),
            Pair::Response { epsilon } => Some(Atoms {
                loss: epsilon,
                low: 1.0 / (1.0 + epsilon.exp()),
                high: 1.0 / (1.0 + (-epsilon).exp()),
            }),
        }
    }

    /// A pair that is this one post-processed, whose atoms are a multiple of `step` apart; itself if it has none.
    ///
    /// Adding noise makes Laplace noise of a larger scale b′: (1 + b²t²)/(1 + b′²t²) is the characteristic function of
    /// a mixture of 0 and Laplace(b′). `None` where the atoms would meet.
    pub fn aligned(&self, step: f64) -> Option<Pair> {
        let Some(atoms) = self.atoms() else {
            return Some(*self);
        };
        let loss = 0.5 * step * (2.0 * atoms.loss / step * (1.0 + 1e-12)).floor();
        (loss > 0.0).then_some(match self {
            Pair::Laplace { .. } => Pair::Laplace { scale: 1.0 / loss },
            _ => Pair::Response { epsilon: loss },
        })
    }

    /// The length in x over which densities and ratio change by about a factor.
    pub fn scale(&self) -> f64 {
        match *self {
            // The density varies on the scale σ (eight times faster in its tails), the ratio on σ².
            Pair::Removed { sigma, .. } | Pair::Replaced { sigma, .. } => sigma.min(2.5 * sigma * sigma),
            Pair::Laplace { scale } => scale,
            Pair::Response { .. } => 1.0,
        }
    }

    /// True where P against Q and Q against P have the same losses.
    pub fn symmetric(&self) -> bool {
        match *self {
            Pair::Removed { q, .. } => q == 1.0,
            _ => true,
        }
    }
}

/// What dominates what is done once.
#[derive(Clone, Debug, PartialEq)]
pub enum Dominating {
    /// Pairs with the probabilities by which one of them is chosen, in public. The first is attained by some neighbours; more
    /// than one, and the others are an upper bound only.
    Pairs(Vec<(f64, Pair)>),
    /// Known by the law of their ratio.
    Ratio(Ratio),
}

/// What is known by the law of P/Q under Q.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio {
    /// Steps that share their sampling.
    Round(Round),
    /// One number with Laplace noise.
    Laplace(SampledLaplace),
}

impl Ratio {
    /// From above, where it occurs `times` times and about `tail` of each may be lost.
    pub fn above(&self, times: u64, tail: f64) -> Law {
        match self {
            Ratio::Round(round) => round.above(times, tail / round.steps as f64),
            Ratio::Laplace(laplace) => laplace.above(),
        }
    }

    /// The same from below.
    pub fn below(&self, times: u64, tail: f64) -> Law {
        match self {
            Ratio::Round(round) => round.below(times, tail / round.steps as f64),
            Ratio::Laplace(laplace) => laplace.below(),
        }
    }

    /// What should be a multiple of the step of a grid from `side`, where much mass lies at two losses.
    pub fn atoms_at(&self, side: Side) -> Option<f64> {
        match (self, side) {
            (Ratio::Round(_), _) => None,
            (Ratio::Laplace(laplace), Side::Above) => Some(laplace.largest_loss()),
            (Ratio::Laplace(laplace), Side::Below) => Some(laplace.losses_apart()),
        }
    }

    /// ln E_Q (P/Q)^order for each order that is asked for, above 1: a bound, of the worse direction.
    pub fn log_moments(&self) -> Box<dyn Fn(f64) -> f64> {
        match self {
            Ratio::Round(round) => Box::new(round.log_moments()),
            Ratio::Laplace(laplace) => Box::new(laplace.log_moments()),
        }
    }
}

/// What dominates `phase`, and how often it is done.
///
/// # Errors
/// Usage: random allocation where a record is replaced.
pub fn dominating(phase: &Phase, adjacency: Adjacency) -> Result<Vec<(Dominating, u64)>> {
    let gaussian = |q, sigma| match adjacency {
        Adjacency::AddOrRemoveOne => Pair::Removed { q, sigma },
        Adjacency::ReplaceOne => Pair::Replaced { q, sigma },
    };
    // A record replaced is one removed and one added: twice the shift, twice the epsilon.
    let twice = match adjacency {
        Adjacency::AddOrRemoveOne => 1.0,
        Adjacency::ReplaceOne => 2.0,
    };
    let pairs = match phase.mechanism {
        Mechanism::Gaussian {
            sampling_rate,
            noise_multiplier,
        } => vec![(1.0, gaussian(sampling_rate, noise_multiplier))],
        Mechanism::TruncatedGaussian {
            sampling_rate: q,
            noise_multiplier: sigma,
            max_batch_size,
            most_records,
        } => {
            let full = full_batch_probability(most_records, q, max_batch_size);
            if full == 0.0 {
                vec![(1.0, gaussian(q, sigma))]
            } else {
                vec![(1.0 - full, gaussian(q, sigma)), (full, gaussian(q, 0.5 * sigma))]
            }
        }
        // Everybody takes part in every step.
        Mechanism::AllocatedGaussian {
            slots: 1,
            noise_multiplier,
        } => vec![(1.0, gaussian(1.0, noise_multiplier))],
        Mechanism::AllocatedGaussian { .. } if adjacency == Adjacency::ReplaceOne => {
            return Err(Error::usage(
                "random allocation is accounted for where a record is added or removed, not replaced",
            )
            .hint("Poisson sampling is accounted for in both"));
        }
        Mechanism::AllocatedGaussian {
            slots,
            noise_multiplier,
        } => {
            let of = |round: Round| match round.steps {
                // One step knows no other.
                1 => Dominating::Pairs(vec![(1.0, gaussian(1.0 / slots as f64, noise_multiplier))]),
                _ => Dominating::Ratio(Ratio::Round(round)),
            };
            let rounds = Round::all(slots, noise_multiplier, phase.steps);
            return Ok(rounds.map(|(round, times)| (of(round), times)).collect());
        }
        Mechanism::BandedGaussian {
            bands,
            sampling_rate: q,
            noise_multiplier: sigma,
        } => {
            // The record of the first step has as many turns as any, and its last reaches furthest: over all the steps that
            // are left.
            let whole = (phase.steps - 1) / bands;
            let last = sigma * length(bands) / length_of_first(bands, phase.steps - whole * bands);
            let turns = [(sigma, whole), (last.max(sigma), 1)]
                .into_iter()
                .filter(|(_, times)| *times > 0);
            return Ok(turns
                .map(|(sigma, times)| (Dominating::Pairs(vec![(1.0, gaussian(q, sigma))]), times))
                .collect());
        }
        Mechanism::Laplace { scale } => vec![(1.0, Pair::Laplace { scale: scale / twice })],
        // Everybody takes part.
        Mechanism::SampledLaplace {
            sampling_rate: 1.0,
            scale,
        } => vec![(1.0, Pair::Laplace { scale: scale / twice })],
        Mechanism::SampledLaplace { .. } if adjacency == Adjacency::ReplaceOne => {
            return Err(Error::usage(
                "Laplace noise on a number of some records is accounted for where a record is added or removed, not replaced",
            )
            .hint("Gaussian noise is accounted for in both"));
        }
        Mechanism::SampledLaplace { sampling_rate, scale } => {
            let laplace = SampledLaplace {
                q: sampling_rate,
                scale,
            };
            return Ok(vec![(Dominating::Ratio(Ratio::Laplace(laplace)), phase.steps)]);
        }
        Mechanism::Pure { epsilon } => vec![(
            1.0,
            Pair::Response {
                epsilon: epsilon * twice,
            },
        )],
    };
    Ok(vec![(Dominating::Pairs(pairs), phase.steps)])
}

/// τ ≥ P(Binomial(n−1, q) ≥ m) for n = `most_records` and m = `max_batch_size`: how often truncation can touch a given
/// record. A step of truncated Poisson sampling is the pair of sensitivity 1 with probability 1 − τ, else of 2.
///
/// Let K ~ Binomial(n′−1, q) count the drawn records beside the one that differs, x, in the larger of two neighbours
/// with n′ ≤ n records (or in either, where x is replaced). K is the same on both sides, so it may be revealed:
///
/// - K < m: nothing is dropped with x or without it. The plain pair.
/// - K = k ≥ m: without x, a uniform m-subset U of the k is kept. With x: it is drawn and kept with probability
///   p = q·m/(k+1), and then the others kept are a uniform (m−1)-subset R; else the kept are distributed as U. Write
///   U = R ∪ {y} with y uniform outside R: given R and y, the sums differ by a shift of x − y with probability p, else
///   not at all. That shift has norm at most 2: the plain pair with coin p ≤ q and half the noise. Where x is replaced
///   by x′ the shifts are x − y and x′ − y, of norms at most 2: [`Pair::Replaced`] with half the noise.
///
/// The coin p is q post-processed (with probability 1 − p/q, exchange the output for noise around 0), so it may be
/// raised to q. Then the second pair dominates the first (add noise), and so τ may be rounded up and n′ may be anything
/// up to n. Datasets of at most m records are never truncated: the first pair alone is attained.
fn full_batch_probability(most_records: u64, q: f64, max_batch_size: u64) -> f64 {
    if max_batch_size >= most_records {
        return 0.0;
    }
    let (others, least) = ((most_records - 1) as f64, max_batch_size as f64);
    if least <= others * q {
        return 1.0;
    }
    if least == others {
        return q.powf(others) * (1.0 + 1e-6);
    }
    // The first term by Stirling's bound n!/(k!(n−k)!) ≤ √(n/(2πk(n−k)))·(n/k)^k·(n/(n−k))^(n−k), then by ratios.
    let rest = others - least;
    let exponent = least * (others * q / least).ln() + rest * (others * (1.0 - q) / rest).ln();
    let mut term = (others / (2.0 * std::f64::consts::PI * least * rest)).sqrt() * exponent.exp();
    let (mut sum, mut drawn) = (0.0, least);
    while drawn <= others {
        sum += term;
        let ratio = (others - drawn) / (drawn + 1.0) * q / (1.0 - q);
        // Ratios fall, so what is left is at most a geometric series.
        if term * ratio <= 1e-9 * sum * (1.0 - ratio) {
            break;
        }
        term *= ratio;
        drawn += 1.0;
    }
    (sum * (1.0 + 1e-6)).min(1.0)
}
