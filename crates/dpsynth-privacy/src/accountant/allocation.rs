//! Random allocation: in each round of `slots` steps a record takes part in one, which it chooses uniformly at random,
//! and independently of all others.
//!
//! The pair that dominates the first m steps of a round (Chua et al. 2025, "Balls-and-Bins sampling for DP-SGD"; Feldman
//! and Shenfeld 2025, "Privacy amplification by random allocation") is P = (1 − m/t)·N(0, σ²I) + (1/t)·Σᵢ N(eᵢ, σ²I) and
//! Q = N(0, σ²I) in m dimensions, t being the slots: given everybody else's slots a step's output is its scalar,
//! rotated to the record's contribution, with more noise where that is shorter than 1, and so are all steps one after
//! the other, whatever led to each. The ratio is
//!
//! > W = P/Q = 1 − m/t + (Y₁ + … + Yₘ)/t,  ln Yᵢ ~ N(−1/2σ², 1/σ²) under Q, independent, E Yᵢ = 1,
//!
//! and both directions ask for the mean of a convex function of it: E_a(P‖Q) = E_Q (W − a)₊, E_a(Q‖P) = E_Q (1 − a·W)₊.
//! So it takes only the law of a sum, found by adding Y to itself on a grid that is even in ln y:
//!
//! - from above, what falls between two points of the grid is split between them such that its mean stays. That is a
//!   mean-preserving spread, spreads stay spreads in sums, and no convex function's mean falls by one.
//! - from below, what falls into a cell of the grid becomes one point, at its mean: no convex function's mean rises.
//!
//! Either error is of second order in the grid's step. Rounds compose as all dominating pairs do.

use statrs::function::erf::erfc;
use statrs::function::gamma::ln_gamma;

use super::gaussian::ln_normal_cdf;
use super::rdp::log_sum_exp;

/// The first `steps` of a round's `slots` steps, 1 ≤ `steps` ≤ `slots`, with noise `sigma`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    pub slots: u64,
    pub steps: u64,
    pub sigma: f64,
}

/// A point of a law: P/Q, and its mass under Q.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Atom {
    pub ratio: f64,
    pub mass: f64,
}

/// The law of P/Q under Q.
#[derive(Clone, Debug)]
pub struct Law {
    /// All ratios above 0; of a law from above they rise.
    pub atoms: Vec<Atom>,
    /// Mass under Q where P has none, or next to none.
    pub zero: f64,
    /// At least what is missing above, under P and under Q.
    pub lost: (f64, f64),
}

/// e to this power, and products with it, stay well within f64.
const MOST: f64 = 500.0;

/// Points of the grid for a standard deviation of ln Y where there is one round.
const FINENESS: f64 = 64.0;

/// More points than this are never used; the grid is made coarser instead.
const MAX_POINTS: f64 = 8_000.0;

impl Round {
    /// The rounds that `steps` steps are: whole ones, and what is begun of one; each with how often it occurs.
    pub fn all(slots: u64, sigma: f64, steps: u64) -> impl Iterator<Item = (Round, u64)> {
        let of = move |steps| Round { slots, steps, sigma };
        let parts = [(of(slots), steps / slots), (of(steps % slots), 1)];
        parts.into_iter().filter(|(round, times)| round.steps > 0 && *times > 0)
    }

    /// The law of P/Q from above, for so many such rounds; what is lost of each step is about `tail`, or less.
    pub fn above(&self, times: u64, tail: f64) -> Law {
        let grid = self.grid(times, tail);
        let law = self.law(sum(grid.spread(), self.steps, |a, b| grid.add_spread(a, b)));
        let steps = self.steps as f64;
        // Under P one of the steps, if any, has the record.
        let in_q = steps * above(grid.high(), grid.sigma, 0.0);
        let in_p = steps / self.slots as f64 * above(grid.high(), grid.sigma, 1.0) + in_q;
        Law {
            lost: (in_p + law.lost.0, in_q),
            ..law
        }
    }

    /// The same from below; what is missing is left out.
    pub fn below(&self, times: u64, tail: f64) -> Law {
        let grid = self.grid(times, tail);
        self.law(sum(grid.merged(), self.steps, |a, b| grid.add_merged(a, b)))
    }

    /// ln E_Q (P/Q)^order for each order that is asked for, above 1: a bound, of the worse direction.
    ///
    /// For P against Q and a whole order it is exact, order!·[z^order] of e^((1 − m/t)z)·(Σ E Y^k·(z/t)^k/k!)^m; between
    /// two whole orders it is convex, so that the chord is above it. For Q against P it is the mean of a convex function
    /// again, from above; the larger of both counts. Infinite beyond order [`MAX_ORDER`].
    pub fn log_moments(&self) -> impl Fn(f64) -> f64 + use<> {
        let removed = self.whole_moments();
        let (this, grid) = (*self, self.grid(1, FAR));
        let law = self.above(1, FAR);
        move |order| {
            if order > MAX_ORDER as f64 {
                return f64::INFINITY;
            }
            let (whole, part) = (order.floor() as usize, order.fract());
            let remove = match part {
                0.0 => removed[whole],
                _ => (1.0 - part) * removed[whole] + part * removed[whole + 1],
            };
            remove.max(this.added(&law, &grid, order - 1.0))
        }
    }

    /// ln E_Q W^(−s), s > 0, from above: of `law`, and of what it does not hold.
    fn added(&self, law: &Law, grid: &Grid, s: f64) -> f64 {
        let (t, m) = (self.slots as f64, self.steps as f64);
        let mut terms: Vec<f64> = law.atoms.iter().map(|a| a.mass.ln() - s * a.ratio.ln()).collect();
        // Where a step lies above the grid the ratio is at least what the grid's end alone makes of it.
        terms.push(law.lost.1.ln() - s * (1.0 - m / t + grid.high().exp() / t).ln());
        // Where all of them lie below it, or there is so little mass that it was dropped: by Cauchy and Schwarz, E W^(−2s)
        // being bounded since W is at least the product of all Y^(1/t).
        let below = ln_normal_cdf(grid.low() * self.sigma + 0.5 / self.sigma);
        let dropped = (m * below).exp() + law.zero + LEAST;
        let twice = m / t * s * (2.0 * s / t + 1.0) / (self.sigma * self.sigma);
        terms.push(0.5 * (twice + dropped.ln()));
        log_sum_exp(&terms)
    }

    /// ln E_Q W^n for n up to [`MAX_ORDER`].
    fn whole_moments(&self) -> Vec<f64> {
        let (t, m) = (self.slots as f64, self.steps);
        let half = 0.5 / (self.sigma * self.sigma);
        let series: Vec<f64> = (0..=MAX_ORDER)
            .map(|k| {
                let k = k as f64;
                half * k * (k - 1.0) - k * t.ln() - ln_gamma(k + 1.0)
            })
            .collect();
        let product = |a: &Vec<f64>, b: &Vec<f64>| -> Vec<f64> {
            let of = |n: usize| log_sum_exp(&(0..=n).map(|k| a[k] + b[n - k]).collect::<Vec<_>>());
            (0..=MAX_ORDER).map(of).collect()
        };
        let mut out = sum(series, m, product);
        let rest = (1.0 - m as f64 / t).ln();
        if rest.is_finite() {
            let beside: Vec<f64> = (0..=MAX_ORDER)
                .map(|k| k as f64 * rest - ln_gamma(k as f64 + 1.0))
                .collect();
            out = product(&out, &beside);
        }
        out.iter()
            .enumerate()
            .map(|(n, coefficient)| coefficient + ln_gamma(n as f64 + 1.0))
            .collect()
    }

    fn grid(&self, times: u64, tail: f64) -> Grid {
        let (deviation, ln_steps) = (1.0 / self.sigma, (self.steps as f64).ln());
        let middle = 0.5 * deviation * deviation;
        // P(N(0,1) > z) ≤ exp(−z²/2).
        let reach = (-2.0 * tail.max(LEAST).ln()).sqrt();
        let low = (-middle - reach * deviation).max(-MOST);
        let high = (middle + reach * deviation).min(MOST);
        // Of very many steps the ratio hardly moves: the grid has to see that.
        let of_sum = (deviation * deviation).min(MOST).exp_m1().sqrt() / (self.steps as f64).sqrt();
        let step = (deviation / FINENESS).min(0.1 * of_sum) / (times as f64).sqrt();
        let step = step.max((high - low + ln_steps) / MAX_POINTS);
        let first = (low / step).floor() as i64;
        let last = (high / step).ceil() as i64;
        Grid {
            sigma: self.sigma,
            step,
            first,
            cells: (last - first) as usize,
        }
    }

    fn law(&self, sum: Sum) -> Law {
        let (t, m) = (self.slots as f64, self.steps as f64);
        let rest = 1.0 - m / t;
        let (mut zero, mut lost) = (sum.zero, (0.0, 0.0));
        let mut atoms: Vec<Atom> = Vec::with_capacity(sum.mass.len() + 1);
        if rest > 0.0 {
            atoms.push(Atom {
                ratio: rest,
                mass: std::mem::take(&mut zero),
            });
        }
        for (mass, moment) in sum.mass.iter().zip(&sum.moment) {
            let in_p = rest * mass + moment / t;
            // So little has lost its digits: it counts as what each direction likes least.
            if *mass < LEAST || in_p < LEAST {
                zero += mass;
                lost.0 += in_p;
                continue;
            }
            atoms.push(Atom {
                ratio: in_p / mass,
                mass: *mass,
            });
        }
        atoms.retain(|atom| atom.mass >= LEAST);
        Law { atoms, zero, lost }
    }
}

/// Less mass than this is not told apart.
const LEAST: f64 = 1e-290;

/// What may be lost of a step where moments are asked for.
const FAR: f64 = 1e-63;

/// The largest order of [`Round::log_moments`].
pub const MAX_ORDER: usize = 128;

/// P(ln Y > `at`), under Q or, with `shift` 1, where the record takes part.
fn above(at: f64, sigma: f64, shift: f64) -> f64 {
    ln_normal_cdf(-(at * sigma + (0.5 - shift) / sigma)).exp()
}

/// `one` added to itself, `times` ≥ 1 terms in all, by doubling.
fn sum<T: Clone>(one: T, times: u64, add: impl Fn(&T, &T) -> T) -> T {
    let (mut doubled, mut left) = (one, times);
    let mut out: Option<T> = None;
    loop {
        if left & 1 == 1 {
            out = Some(match &out {
                None => doubled.clone(),
                Some(out) => add(out, &doubled),
            });
        }
        left >>= 1;
        match (left, out) {
            (0, Some(out)) => return out,
            (_, rest) => out = rest,
        }
        doubled = add(&doubled, &doubled);
    }
}

/// Points e^(step·i) from i = `first` on.
#[derive(Clone, Copy)]
struct Grid {
    sigma: f64,
    step: f64,
    first: i64,
    /// Of one Y; sums go on beyond.
    cells: usize,
}

/// A sum of several Y: masses at, or about, the grid's points, each with its mean times its mass.
#[derive(Clone)]
struct Sum {
    mass: Vec<f64>,
    moment: Vec<f64>,
    /// Mass at 0.
    zero: f64,
}

impl Grid {
    fn point(&self, index: usize) -> f64 {
        ((self.first + index as i64) as f64 * self.step).exp()
    }

    fn low(&self) -> f64 {
        self.first as f64 * self.step
    }

    fn high(&self) -> f64 {
        (self.first + self.cells as i64) as f64 * self.step
    }

    /// Mass and mean times mass of Y with ln y between grid coordinates `from` and `to`.
    fn between(&self, from: f64, to: f64) -> (f64, f64) {
        let deviation = 1.0 / self.sigma;
        let z = |at: f64| (self.first as f64 + at) * self.step / deviation + 0.5 * deviation;
        let of = |a: f64, b: f64| {
            let tail = |x: f64| 0.5 * erfc(x / std::f64::consts::SQRT_2);
            // From the tail that loses no digits.
            match a + b > 0.0 {
                true => tail(a) - tail(b),
                false => tail(-b) - tail(-a),
            }
        };
        (of(z(from), z(to)), of(z(from) - deviation, z(to) - deviation))
    }

    /// Y from above.
    fn spread(&self) -> Sum {
        let mut mass = vec![0.0; self.cells + 1];
        for i in 0..self.cells {
            let (p, moment) = self.between(i as f64, (i + 1) as f64);
            let (a, b) = (self.point(i), self.point(i + 1));
            let up = ((moment - a * p) / (b - a)).clamp(0.0, p);
            mass[i] += p - up;
            mass[i + 1] += up;
        }
        // Below the grid: between 0 and its first point.
        let (p, moment) = self.between(f64::NEG_INFINITY, 0.0);
        let up = (moment / self.point(0)).clamp(0.0, p);
        mass[0] += up;
        self.at_points(mass, p - up)
    }

    fn at_points(&self, mass: Vec<f64>, zero: f64) -> Sum {
        let moment = mass.iter().enumerate().map(|(i, m)| m * self.point(i)).collect();
        Sum { mass, moment, zero }
    }

    /// Y from below: a cell is about each point.
    fn merged(&self) -> Sum {
        let cells = (0..=self.cells).map(|i| match i {
            0 => self.between(f64::NEG_INFINITY, 0.5),
            _ => self.between(i as f64 - 0.5, i as f64 + 0.5),
        });
        let (mass, moment) = cells.unzip();
        Sum {
            mass,
            moment,
            zero: 0.0,
        }
    }

    /// By how much the sum of points `apart` cells apart lies above the larger, in cells.
    fn rise(&self, apart: usize) -> f64 {
        (-self.step * apart as f64).exp().ln_1p() / self.step
    }

    /// Room for the sums of two.
    fn room(&self, a: &Sum, b: &Sum) -> usize {
        a.mass.len().max(b.mass.len()) + self.rise(0) as usize + 2
    }

    fn add_spread(&self, a: &Sum, b: &Sum) -> Sum {
        let mut mass = vec![0.0; self.room(a, b)];
        for (of, other) in [(a, b), (b, a)] {
            mass.iter_mut()
                .zip(&of.mass)
                .for_each(|(out, m)| *out += m * other.zero);
        }
        for_pairs(a, b, |apart, larger, smaller, n| {
            let rise = self.rise(apart);
            let cells = rise as usize;
            // Where 1 + e^(−step·apart) lies between e^(step·cells) and the next point.
            let up = ((rise - cells as f64) * self.step).exp_m1() / self.step.exp_m1();
            let (of, other) = (&larger.mass[apart..apart + n], &smaller.mass[..n]);
            for (shift, share) in [(cells, 1.0 - up), (cells + 1, up)] {
                let out = &mut mass[apart + shift..apart + shift + n];
                for ((out, x), y) in out.iter_mut().zip(of).zip(other) {
                    *out += share * x * y;
                }
            }
        });
        self.at_points(mass, a.zero * b.zero)
    }

    fn add_merged(&self, a: &Sum, b: &Sum) -> Sum {
        let room = self.room(a, b);
        let (mut mass, mut moment) = (vec![0.0; room], vec![0.0; room]);
        for_pairs(a, b, |apart, larger, smaller, n| {
            let at = apart + self.rise(apart).round() as usize;
            let (x, of_x) = (&larger.mass[apart..apart + n], &larger.moment[apart..apart + n]);
            let (y, of_y) = (&smaller.mass[..n], &smaller.moment[..n]);
            for ((out, x), y) in mass[at..at + n].iter_mut().zip(x).zip(y) {
                *out += x * y;
            }
            let means = x.iter().zip(of_x).zip(y.iter().zip(of_y));
            for (out, ((x, of_x), (y, of_y))) in moment[at..at + n].iter_mut().zip(means) {
                *out += of_x * y + x * of_y;
            }
        });
        Sum {
            mass,
            moment,
            zero: 0.0,
        }
    }
}

/// Calls `each` for all pairs of a term of `a` and one of `b` that lie equally far apart: how far, whose term is the larger,
/// whose the smaller, and how many there are, the smaller's from its first point on.
fn for_pairs<'a>(a: &'a Sum, b: &'a Sum, mut each: impl FnMut(usize, &'a Sum, &'a Sum, usize)) {
    let (of_a, of_b) = (a.mass.len(), b.mass.len());
    for apart in 0..of_a {
        each(apart, a, b, of_b.min(of_a - apart));
    }
    for apart in 1..of_b {
        each(apart, b, a, of_a.min(of_b - apart));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accountant::pairs::Pair;

    const FIXTURE: &str = include_str!("../../tests/fixtures/allocation.csv");

    fn mean(law: &Law, of: impl Fn(f64) -> f64) -> f64 {
        law.zero * of(0.0) + law.atoms.iter().map(|a| a.mass * of(a.ratio)).sum::<f64>()
    }

    fn removed(law: &Law, epsilon: f64) -> f64 {
        mean(law, |w| (w - epsilon.exp()).max(0.0)) + law.lost.0
    }

    fn added(law: &Law, epsilon: f64) -> f64 {
        mean(law, |w| (1.0 - epsilon.exp() * w).max(0.0)) + law.lost.1
    }

    /// Of each row with one round: the round, and the row's numbers from `at` on.
    fn rows(kind: &str) -> Vec<(Round, Vec<f64>)> {
        let lines = FIXTURE.lines().filter(|line| line.starts_with(kind));
        let row = |line: &str| {
            let n: Vec<f64> = line.split(',').skip(1).map(|n| n.parse().unwrap_or(f64::NAN)).collect();
            let round = Round {
                slots: n[0] as u64,
                sigma: n[1],
                steps: n[2] as u64,
            };
            (n[3] == 1.0).then(|| (round, n[4..].to_vec()))
        };
        lines.filter_map(row).collect()
    }

    #[test]
    fn both_directions_lie_between_what_is_below_and_what_is_above() {
        let rows = rows("delta");
        assert!(rows.len() > 60);
        for (round, row) in rows {
            let (above, below) = (round.above(1, FAR), round.below(1, FAR));
            let epsilon = row[0];
            for (reference, error, at) in [
                (row[1], row[3], removed as fn(&Law, f64) -> f64),
                (row[2], row[4], added),
            ] {
                let (high, low) = (at(&above, epsilon), at(&below, epsilon));
                // Where no simulated outcome counted, some may still.
                let unseen = if reference == 0.0 && row[3] > 1e-9 { 1e-6 } else { 0.0 };
                let slack = 4.0 * error + 1e-9 * reference + 1e-13 + unseen;
                assert!(
                    low <= reference + slack && high >= reference - slack,
                    "{round:?} at {epsilon}: {low:e} to {high:e}, not {reference:e}"
                );
                assert!(
                    high - low <= 1e-2 * high + 1e-10,
                    "{round:?} at {epsilon}: {low:e} to {high:e} is wide"
                );
            }
        }
    }

    /// The mean of P/Q is 1, whatever the grid, and so a law from above is a pair of distributions.
    #[test]
    fn a_law_is_of_two_distributions() {
        for (slots, steps, sigma) in [(1000, 1000, 0.3), (98, 10, 0.4), (2, 2, 40.0), (5, 3, 0.06)] {
            let round = Round { slots, steps, sigma };
            for law in [round.above(1, FAR), round.above(50, FAR), round.below(1, FAR)] {
                let (p, q) = (mean(&law, |w| w), mean(&law, |_| 1.0));
                assert!((p + law.lost.0 - 1.0).abs() < 1e-9, "{round:?}: P is {p}");
                assert!((q + law.lost.1 - 1.0).abs() < 1e-9, "{round:?}: Q is {q}");
                assert!(law.lost.0 < 1e-40 || sigma < 0.1, "{round:?}: {:?}", law.lost);
            }
        }
    }

    /// One step of a round is a Poisson step at the rate of one slot.
    #[test]
    fn one_step_is_the_subsampled_gaussian() {
        let (slots, sigma) = (8, 0.8);
        let round = Round { slots, steps: 1, sigma };
        let pair = Pair::Removed { q: 0.125, sigma };
        let n = 400_000;
        for epsilon in [0.2, 1.0, 2.5] {
            let sum: f64 = (0..n)
                .map(|i| {
                    let x = -12.0 + 26.0 * (f64::from(i) + 0.5) / f64::from(n);
                    let density = pair.density(x);
                    (density.p - f64::exp(epsilon) * density.q).max(0.0) * 26.0 / f64::from(n)
                })
                .sum();
            let (low, high) = (
                removed(&round.below(1, FAR), epsilon),
                removed(&round.above(1, FAR), epsilon),
            );
            assert!(
                low <= sum + 1e-8 && sum <= high + 1e-8 && high - low < 2e-3 * high,
                "{low} {sum} {high}"
            );
        }
    }

    #[test]
    fn moments_are_never_below_the_reference() {
        let rows = rows("moment");
        assert!(rows.len() > 30);
        for (round, row) in rows {
            let at = round.log_moments();
            let (order, remove, add) = (row[0], row[1], row[2]);
            let worst = if add.is_nan() { remove } else { remove.max(add) };
            let got = at(order);
            assert!(
                got >= worst - 1e-9 * worst.abs() && got <= worst * (1.0 + 1e-6) + 1e-9,
                "{round:?} at {order}: {got}, not {worst}"
            );
            // The other direction by itself: from above, and near.
            if !add.is_nan() {
                let got = round.added(&round.above(1, FAR), &round.grid(1, FAR), order - 1.0);
                assert!(
                    got >= add - 1e-7 && got <= add * 1.02 + 1e-6,
                    "{round:?} at {order}: {got}, not {add}"
                );
            }
        }
        assert_eq!(
            Round {
                slots: 3,
                steps: 3,
                sigma: 1.0
            }
            .log_moments()(200.0),
            f64::INFINITY
        );
    }
}
