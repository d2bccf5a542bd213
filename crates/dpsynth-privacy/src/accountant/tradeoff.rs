//! The whole curve: what the best attack on membership can do, from above and from below.
//!
//! An attack says of a unit that it was in. For every ε its true-positive rate is at most e^ε times its false-positive rate
//! plus δ(ε), and the best attack attains the infimum over all real ε (Wasserman and Zhou 2010; Dong, Roth and Su 2022, the
//! trade-off function; Kulynych et al. 2024, attack success from privacy loss distributions). δ(ε) comes from the same
//! distributions as every other epsilon here, so what is said of attacks is no less certain.

use super::pld::{self, Deltas};
use super::{Adjacency, Phase, gaussian};
use crate::Result;

/// δ is known at so many ε on each side of 0.
const POINTS: usize = 1_500;
/// Probability beyond which the curve is not followed.
pub const BEYOND: f64 = 1e-9;

/// δ at an ε, from both sides.
#[derive(Clone, Copy, Debug)]
struct At {
    epsilon: f64,
    above: f64,
    below: f64,
}

/// What a mechanism gives away, at every ε.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Of each direction, in the order of ε.
    directions: Vec<Vec<At>>,
    /// The least of their lines from above, (false positives, true positives).
    corners: Vec<Vec<(f64, f64)>>,
}

/// What an attack says of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It was in: false positives were out.
    In,
    /// It was out: false positives were in.
    Out,
}

/// A rate, from above and from below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// No attack has more.
    pub at_most: f64,
    /// The best attack has at least this.
    pub at_least: f64,
}

/// A Gaussian mechanism that gives away no less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dominating {
    /// Its sensitivity over its noise. It dominates but for a probability of [`BEYOND`].
    pub mu: f64,
    /// By how much it overstates: the least κ for which the curve, with error rates raised by κ and lowered by κ, is below
    /// the Gaussian's (Gomez et al. 2025).
    pub regret: f64,
}

impl Curve {
    /// Of all `phases` together.
    ///
    /// # Errors
    /// Usage: no phases, or losses so large that nothing can be certified.
    pub fn new(phases: &[Phase], adjacency: Adjacency) -> Result<Self> {
        let furthest = pld::epsilon_above(phases, adjacency, BEYOND)?.max(1e-3);
        let epsilons: Vec<f64> = (0..=2 * POINTS)
            .map(|i| furthest * (i as f64 / POINTS as f64 - 1.0))
            .collect();
        let points = |deltas: Deltas| {
            let known = epsilons.iter().zip(deltas.above.iter().zip(&deltas.below));
            known
                .map(|(epsilon, (above, below))| At {
                    epsilon: *epsilon,
                    above: *above,
                    below: *below,
                })
                .collect()
        };
        let directions = pld::deltas(phases, adjacency, &epsilons)?;
        let directions: Vec<Vec<At>> = directions.into_iter().map(points).collect();
        Ok(Curve {
            corners: directions.iter().map(|points| corners(points)).collect(),
            directions,
        })
    }

    /// The highest true-positive rate of an attack with this false-positive rate, 0 to 1, whichever way round it guesses.
    pub fn true_positives(&self, false_positives: f64) -> Rate {
        // Between two points e^ε is at least that of the first, and δ at least that of the second.
        let at_least = |points: &Vec<At>| {
            let within = points
                .windows(2)
                .map(|p| p[0].epsilon.exp() * false_positives + p[1].below);
            let first = points.first().map_or(0.0, |p| p.below);
            let last = points.last().map_or(0.0, |p| p.epsilon.exp() * false_positives);
            within.chain([first, last]).fold(1.0, f64::min)
        };
        let of = |rate: &dyn Fn(&Vec<At>) -> f64| self.directions.iter().map(rate).fold(0.0, f64::max);
        Rate {
            at_most: self.most(false_positives),
            at_least: of(&at_least).max(false_positives),
        }
    }

    fn most(&self, false_positives: f64) -> f64 {
        let of = |said| self.at_most(said, false_positives);
        of(Said::In).max(of(Said::Out))
    }

    /// The highest true-positive rate of an attack that says so, with this false-positive rate.
    pub fn at_most(&self, said: Said, false_positives: f64) -> f64 {
        let corners = self.corners(said);
        let after = corners.partition_point(|corner| corner.0 < false_positives);
        match (after.checked_sub(1).map(|i| corners[i]), corners.get(after)) {
            (Some(a), Some(b)) => a.1 + (false_positives - a.0) / (b.0 - a.0) * (b.1 - a.1),
            (None, Some(first)) => first.1,
            (_, None) => 1.0,
        }
    }

    /// The same as a line with corners, (false positives, true positives), both rising, from 0 to (1, 1).
    pub fn corners(&self, said: Said) -> &[(f64, f64)] {
        let direction = match said {
            Said::In => self.corners.first(),
            Said::Out => self.corners.last(),
        };
        direction.map_or(&[], Vec::as_slice)
    }

    /// How often the best attack is right where in and out are an even chance: (1 + δ(0))/2.
    pub fn right_at_even_odds(&self) -> Rate {
        let at_zero = |side: fn(&At) -> f64| {
            let of = |points: &Vec<At>| side(&points[points.len() / 2]);
            0.5 + 0.5 * self.directions.iter().map(of).fold(0.0, f64::max)
        };
        Rate {
            at_most: at_zero(|p| p.above),
            at_least: at_zero(|p| p.below),
        }
    }

    /// The smallest Gaussian mechanism that gives away no less, to a thousandth.
    pub fn dominating(&self) -> Dominating {
        // δ falls in ε: where the Gaussian's at the next point is no less than ours at this one, it is no less between.
        let dominated = |mu: f64| {
            self.directions.iter().all(|points| {
                points[points.len() / 2..]
                    .windows(2)
                    .all(|p| gaussian::delta(mu, p[1].epsilon) + BEYOND >= p[0].above)
            })
        };
        let (mut low, mut high) = (0.0, 1.0);
        while !dominated(high) && high < 1e6 {
            (low, high) = (high, 2.0 * high);
        }
        if !dominated(high) {
            // No Gaussian that anybody would name.
            return Dominating {
                mu: f64::MAX,
                regret: 1.0,
            };
        }
        while high - low > 1e-3 * high {
            let mid = 0.5 * (low + high);
            match dominated(mid) {
                true => high = mid,
                false => low = mid,
            }
        }
        Dominating {
            mu: high,
            regret: self.regret(high),
        }
    }

    fn regret(&self, mu: f64) -> f64 {
        // Even steps, and even factors where rates are small.
        let rates: Vec<f64> = (1..1_000)
            .map(|i| i as f64 / 1_000.0)
            .chain((0..60).map(|i| 10f64.powf(-6.0 + i as f64 / 20.0)))
            .collect();
        let missed = |rate: f64| 1.0 - self.most(rate.min(1.0));
        let enough = |kappa: f64| {
            let reached = |rate: &f64| missed(rate + kappa) - kappa <= 1.0 - gaussian_true_positives(mu, *rate) + 1e-12;
            rates.iter().all(reached)
        };
        let (mut low, mut high) = (0.0, 1.0);
        while high - low > 1e-4 {
            let mid = 0.5 * (low + high);
            match enough(mid) {
                true => high = mid,
                false => low = mid,
            }
        }
        high
    }
}

/// Where the least of all lines from above turns. Each ε bounds by one, the steepest first; the last says that no rate
/// passes 1.
fn corners(points: &[At]) -> Vec<(f64, f64)> {
    let lines = (points.iter().rev().map(|p| (p.epsilon.exp(), p.above))).filter(|(slope, _)| slope.is_finite());
    let meet = |a: (f64, f64), b: (f64, f64)| (b.1 - a.1) / (a.0 - b.0);
    let mut lowest: Vec<(f64, f64)> = Vec::new();
    for line in lines.chain([(0.0, 1.0)]) {
        // Lines that others are below everywhere.
        while let Some(last) = lowest.last() {
            let from = lowest.len().checked_sub(2).map_or(0.0, |i| meet(lowest[i], *last));
            let needless = line.1 <= last.1 || meet(*last, line) <= from;
            if !needless {
                break;
            }
            lowest.pop();
        }
        lowest.push(line);
    }
    let begin = (0.0, lowest.first().map_or(0.0, |line| line.1));
    let between = lowest.windows(2).map(|w| meet(w[0], w[1]));
    let on = lowest
        .iter()
        .skip(1)
        .zip(between)
        .map(|(line, x)| (x, line.0 * x + line.1));
    let within = on.take_while(|corner| corner.0 < 1.0);
    [begin].into_iter().chain(within).chain([(1.0, 1.0)]).collect()
}

/// Of the best attack on a Gaussian mechanism: Φ(Φ⁻¹(rate) + μ), by its own δ(ε).
pub fn gaussian_true_positives(mu: f64, false_positives: f64) -> f64 {
    use statrs::distribution::{ContinuousCDF, Normal};
    let normal = Normal::standard();
    match false_positives {
        rate if rate <= 0.0 => 0.0,
        rate if rate >= 1.0 => 1.0,
        rate => normal.cdf(normal.inverse_cdf(rate) + mu),
    }
}
