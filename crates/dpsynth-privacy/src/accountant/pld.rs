//! Privacy loss distributions: what spends budget.
//!
//! Pessimistic by connect-the-dots (Doroshenko et al. 2022), optimistic by merging outcomes, both composed by FFT
//! (Koskela, Jälkö and Honkela 2020) in both directions. The grid is as fine as the answer needs: the error that a
//! step's discretisation brings is of second order in it.

use std::sync::OnceLock;

use super::allocation::Law;
use super::cells::{LossPmf, Step, mixture};
use super::compose::{Composed, Side, TooFine, compose};
use super::pairs::{Dominating, Pair, Ratio, dominating};
use super::{Adjacency, Bracket, Direction, Phase, check_delta, check_epsilon, check_phases, gaussian};
use crate::{Error, Result};

/// By how much lower bounds are lowered, as a share, for what floating point may do.
const ROUNDING: f64 = 1e-10;

/// Share of epsilon that its bracket should not be wider than, and what is nothing beside any epsilon.
const GAP: (f64, f64) = (1e-3, 5e-5);

/// The smallest epsilon for `delta`, from above and from below, of all `phases` together.
///
/// # Errors
/// Usage: no phases, delta outside (0, 1), or losses so large that no epsilon can be certified.
pub fn epsilon(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Bracket> {
    check_delta(delta)?;
    let parts = Dominated::all(phases, adjacency, delta)?;
    if let Some(mu) = unsampled(&parts) {
        let epsilon = gaussian::epsilon(mu, delta);
        return Ok(Bracket {
            epsilon,
            epsilon_lower: epsilon * (1.0 - ROUNDING),
            direction: Direction::Both,
        });
    }
    // The grid is chosen by an estimate of its error; where the bracket shows that to be too rosy, it is made finer.
    // No grid closes the gap between a mixture and the one pair of it that is attained.
    let closes = parts
        .iter()
        .all(|part| !matches!(&part.of, Dominating::Pairs(pairs) if pairs.len() > 1));
    let (mut fineness, mut last_gap) = (1.0, f64::INFINITY);
    loop {
        let (losses, above) = worst(&parts, delta, fineness)?;
        let bracket = Bracket {
            epsilon: above.0,
            epsilon_lower: losses.epsilon_below(delta, above) * (1.0 - ROUNDING),
            direction: losses.direction,
        };
        let gap = bracket.epsilon - bracket.epsilon_lower;
        // A gap that does not shrink is held open by the limits on the grid's size.
        let stuck = gap > 0.7 * last_gap || fineness > 9.0;
        if gap <= GAP.0 * bracket.epsilon + GAP.1 || !closes || stuck {
            return Ok(bracket);
        }
        (fineness, last_gap) = (3.0 * fineness, gap);
    }
}

/// Only the pessimistic value of [`epsilon`], at half the cost.
///
/// # Errors
/// As [`epsilon`].
pub fn epsilon_above(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<f64> {
    check_delta(delta)?;
    let parts = Dominated::all(phases, adjacency, delta)?;
    match unsampled(&parts) {
        Some(mu) => Ok(gaussian::epsilon(mu, delta)),
        None => Ok(worst(&parts, delta, 1.0)?.1.0),
    }
}

/// The direction with the larger pessimistic epsilon, that epsilon and the slope there.
fn worst(parts: &[Dominated], delta: f64, fineness: f64) -> Result<(Losses<'_>, (f64, f64))> {
    if symmetric(parts) {
        let both = Losses::new(parts, Direction::Both, tail(parts, delta), fineness);
        let found = both.epsilon_above(delta)?;
        return Ok((both, found));
    }
    let remove = Losses::new(parts, Direction::Remove, tail(parts, delta), fineness);
    let removed = remove.epsilon_above(delta)?;
    let add = Losses::new(parts, Direction::Add, tail(parts, delta), fineness);
    // A Chernoff bound often shows that adding is the lesser evil, without composing anything.
    if add.tilt_for_delta(delta).1 * (1.0 + 1e-6) <= removed.0 {
        return Ok((remove, removed));
    }
    let added = add.epsilon_above(delta)?;
    if added.0 > removed.0 {
        Ok((add, added))
    } else {
        Ok((remove, removed))
    }
}

/// Deltas are not told apart below this.
const SMALLEST_DELTA: f64 = 1e-50;

/// The smallest delta for `epsilon` ≥ 0, from above, of all `phases` together; never below 1e-59.
///
/// # Errors
/// Usage: no phases, a negative epsilon or one that is not a number.
pub fn delta(phases: &[Phase], adjacency: Adjacency, epsilon: f64) -> Result<f64> {
    check_epsilon(epsilon)?;
    let parts = Dominated::all(phases, adjacency, SMALLEST_DELTA)?;
    if let Some(mu) = unsampled(&parts) {
        return Ok(gaussian::delta(mu, epsilon));
    }
    if symmetric(&parts) {
        return Ok(delta_above(&parts, Direction::Both, epsilon, 0.0));
    }
    let removed = delta_above(&parts, Direction::Remove, epsilon, 0.0);
    Ok(delta_above(&parts, Direction::Add, epsilon, removed))
}

/// δ at several ε of any sign, of one direction.
pub(super) struct Deltas {
    pub above: Vec<f64>,
    pub below: Vec<f64>,
}

/// How finely losses are told apart for a whole curve, in ε, and how steeply δ is taken to fall there.
const WHOLE: (f64, f64) = (0.25, 4.0);

/// A curve's deltas are told apart down to a billionth of this.
const CURVE: f64 = 1e-6;

/// δ at each of `epsilons`, which rise, from both sides and in each direction; one where both cost the same. Right to
/// about 1e-12.
///
/// # Errors
/// Usage: no phases.
pub(super) fn deltas(phases: &[Phase], adjacency: Adjacency, epsilons: &[f64]) -> Result<Vec<Deltas>> {
    let parts = Dominated::all(phases, adjacency, CURVE)?;
    if let Some(mu) = unsampled(&parts) {
        let above: Vec<f64> = epsilons.iter().map(|epsilon| gaussian::delta(mu, *epsilon)).collect();
        let below = above.iter().map(|delta| delta * (1.0 - ROUNDING)).collect();
        return Ok(vec![Deltas { above, below }]);
    }
    let directions: &[Direction] = match symmetric(&parts) {
        true => &[Direction::Both],
        false => &[Direction::Remove, Direction::Add],
    };
    let of = |direction: &Direction| {
        let losses = Losses::new(&parts, *direction, tail(&parts, CURVE), 1.0);
        let side = |side| losses.composed(0.0, WHOLE.1, WHOLE.0, side).deltas(epsilons, side);
        Deltas {
            above: side(Side::Above),
            below: side(Side::Below),
        }
    };
    Ok(directions.iter().map(of).collect())
}

/// The delta of one direction, or `known` where that is larger.
fn delta_above(parts: &[Dominated], direction: Direction, epsilon: f64, known: f64) -> f64 {
    // Chernoff's bound says how small delta is, so how little may be cut off; and often that it does not matter.
    let whole = Losses::new(parts, direction, tail(parts, SMALLEST_DELTA), 1.0);
    let theta = whole.tilt_for_loss(epsilon);
    let exponent = whole.cumulants(theta).0 - theta * epsilon;
    let chernoff = exponent.min(0.0).exp() * (1.0 + 1e-3) + SMALLEST_DELTA;
    if chernoff <= known {
        return known;
    }
    let composed = Losses::new(
        parts,
        direction,
        tail(parts, (1e-6 * chernoff).max(SMALLEST_DELTA)),
        1.0,
    )
    .composed(theta, theta, epsilon, Side::Above)
    .delta(epsilon, Side::Above);
    // Near the largest loss there can be, where the tilt is extreme, Chernoff's bound is the better one.
    composed.min(chernoff).max(known)
}

/// What dominates a part of the phases, and how often.
struct Dominated {
    of: Dominating,
    times: u64,
    /// For which delta.
    delta: f64,
    /// Of a ratio, from above and from below, once it was asked for.
    laws: [OnceLock<Law>; 2],
}

impl Dominated {
    /// Equal steps become one part, so that a second run like the first costs what more steps would.
    fn all(phases: &[Phase], adjacency: Adjacency, delta: f64) -> Result<Vec<Self>> {
        check_phases(phases)?;
        let mut parts: Vec<Dominated> = Vec::new();
        for phase in phases {
            for (of, times) in dominating(phase, adjacency)? {
                match parts.iter_mut().find(|p| p.of == of) {
                    Some(part) => part.times = part.times.saturating_add(times),
                    None => parts.push(Dominated {
                        of,
                        times,
                        delta,
                        laws: Default::default(),
                    }),
                }
            }
        }
        Ok(parts)
    }

    /// What happens once, cut to where nearly all of its mass lies.
    fn outcomes(&self, tail: f64) -> Outcomes<'_> {
        match &self.of {
            Dominating::Pairs(pairs) => {
                Outcomes::Pairs(pairs.iter().map(|(w, pair)| (*w, Step::new(*pair, tail))).collect())
            }
            Dominating::Ratio(_) => Outcomes::Ratio(self, tail),
        }
    }

    fn ratio(&self) -> &Ratio {
        match &self.of {
            Dominating::Ratio(ratio) => ratio,
            Dominating::Pairs(_) => unreachable!("pairs are no ratios"),
        }
    }

    /// Of a ratio.
    fn law(&self, side: Side) -> &Law {
        let ratio = self.ratio();
        // A billionth of delta in all.
        let tail = 1e-9 * self.delta / self.times as f64;
        match side {
            Side::Above => self.laws[0].get_or_init(|| ratio.above(self.times, tail)),
            Side::Below => self.laws[1].get_or_init(|| ratio.below(self.times, tail)),
        }
    }
}

/// True where both directions cost the same.
fn symmetric(parts: &[Dominated]) -> bool {
    parts.iter().all(|part| match &part.of {
        Dominating::Pairs(pairs) => pairs.iter().all(|(_, pair)| pair.symmetric()),
        Dominating::Ratio(_) => false,
    })
}

/// Without subsampling: sensitivity over noise of the one Gaussian mechanism that all parts make together.
fn unsampled(parts: &[Dominated]) -> Option<f64> {
    let mut sum = 0.0;
    for part in parts {
        let Dominating::Pairs(pairs) = &part.of else {
            return None;
        };
        let mu = match pairs[..] {
            [(_, Pair::Removed { q: 1.0, sigma })] => 1.0 / sigma,
            [(_, Pair::Replaced { q: 1.0, sigma })] => 2.0 / sigma,
            _ => return None,
        };
        sum += part.times as f64 * mu * mu;
    }
    Some(sum.sqrt())
}

/// The mass a step may lose on each side: a billionth of delta over all steps.
fn tail(parts: &[Dominated], delta: f64) -> f64 {
    let steps: f64 = parts.iter().map(|p| p.times as f64).sum();
    (1e-9 * delta / steps).max(1e-280)
}

/// What happens once: pairs and how probable each is, or a ratio.
enum Outcomes<'a> {
    Pairs(Vec<(f64, Step)>),
    Ratio(&'a Dominated, f64),
}

/// A part of the phases.
struct Part<'a> {
    outcomes: Outcomes<'a>,
    times: u64,
    /// The loss and its mass at points to integrate over.
    sketch: Vec<(f64, f64)>,
}

impl Part<'_> {
    fn on_grid(&self, step: f64, direction: Direction, side: Side) -> LossPmf {
        match (side, &self.outcomes) {
            (Side::Above, Outcomes::Pairs(several)) => {
                let all = several
                    .iter()
                    .map(|(weight, s)| (*weight, s.pessimistic(step, direction)));
                mixture(all.collect())
            }
            // The first pair alone is what some neighbours attain.
            (Side::Below, Outcomes::Pairs(several)) => several[0].1.optimistic(step, direction),
            (Side::Above, Outcomes::Ratio(ratio, tail)) => ratio.law(side).pessimistic(step, direction, *tail),
            (Side::Below, Outcomes::Ratio(ratio, tail)) => ratio.law(side).optimistic(step, direction, *tail),
        }
    }

    /// The grid's step, made coarser where the losses would need too many points.
    fn affordable(&self, step: f64) -> f64 {
        match &self.outcomes {
            Outcomes::Pairs(pairs) => pairs.iter().map(|(_, s)| s.affordable(step)).fold(step, f64::max),
            Outcomes::Ratio(ratio, tail) => ratio.law(Side::Above).affordable(step, *tail),
        }
    }

    /// Where atoms lie that can be put on the grid.
    fn atoms_at(&self, side: Side) -> Option<f64> {
        match &self.outcomes {
            Outcomes::Pairs(pairs) => {
                let atoms = pairs.iter().filter_map(|(_, s)| s.atoms_at());
                atoms.reduce(f64::max)
            }
            Outcomes::Ratio(of, _) => of.ratio().atoms_at(side),
        }
    }
}

/// The losses of all phases in one direction.
struct Losses<'a> {
    direction: Direction,
    /// By how much the grid is finer than the error estimate asks.
    fineness: f64,
    parts: Vec<Part<'a>>,
}

impl<'a> Losses<'a> {
    fn new(parts: &'a [Dominated], direction: Direction, tail: f64, fineness: f64) -> Self {
        let part = |p: &'a Dominated| {
            let outcomes = p.outcomes(tail);
            let weighted = |(weight, step): &(f64, Step)| {
                let weight = *weight;
                step.sketch(direction).into_iter().map(move |(l, m)| (l, weight * m))
            };
            Part {
                sketch: match &outcomes {
                    Outcomes::Pairs(pairs) => pairs.iter().flat_map(weighted).collect(),
                    Outcomes::Ratio(ratio, tail) => ratio.law(Side::Above).sketch(direction, *tail),
                },
                outcomes,
                times: p.times,
            }
        };
        Losses {
            direction,
            fineness,
            parts: parts.iter().map(part).collect(),
        }
    }

    /// K(θ) = ln E e^(θ·loss) of the sum, and its first two derivatives.
    fn cumulants(&self, theta: f64) -> (f64, f64, f64) {
        let mut sum = (0.0, 0.0, 0.0);
        for Part { sketch, times, .. } in &self.parts {
            let peak = sketch.iter().filter(|(_, m)| *m > 0.0).map(|(l, m)| theta * l + m.ln());
            let peak = peak.fold(f64::NEG_INFINITY, f64::max);
            let (mut s0, mut s1) = (0.0, 0.0);
            for (l, m) in sketch {
                let w = m * (theta * l - peak).exp();
                s0 += w;
                s1 += w * l;
            }
            let mean = s1 / s0;
            let s2: f64 = sketch
                .iter()
                .map(|(l, m)| m * (theta * l - peak).exp() * (l - mean).powi(2))
                .sum();
            let times = *times as f64;
            sum.0 += times * (peak + s0.ln());
            sum.1 += times * mean;
            sum.2 += times * s2 / s0;
        }
        sum
    }

    /// Solves a condition that turns true as θ grows.
    fn tilt(&self, reached: impl Fn(f64, (f64, f64, f64)) -> bool) -> f64 {
        let (mut low, mut high) = (0.0, 1.0 / self.cumulants(0.0).2.sqrt().max(1e-9));
        loop {
            let cumulants = self.cumulants(high);
            if reached(high, cumulants) {
                break;
            }
            // All but certainly the largest loss there is: tilting further shows nothing new.
            if low > 0.0 && high * high * cumulants.2 < 1e-4 {
                return high;
            }
            (low, high) = (high, 2.0 * high);
            if high > 1e12 {
                return low;
            }
        }
        while high - low > 1e-3 * high {
            let mid = 0.5 * (low + high);
            if reached(mid, self.cumulants(mid)) {
                high = mid
            } else {
                low = mid
            }
        }
        high
    }

    /// The θ of the Chernoff bound ε ≤ (K(θ) + ln 1/δ)/θ at its best, and that bound.
    fn tilt_for_delta(&self, delta: f64) -> (f64, f64) {
        let need = -delta.ln();
        let theta = self.tilt(|theta, (k, mean, _)| theta * mean - k >= need);
        (theta, (self.cumulants(theta).0 + need) / theta)
    }

    /// The θ at which the tilted mean is `loss`; 0 where the mean is above it already.
    fn tilt_for_loss(&self, loss: f64) -> f64 {
        if self.cumulants(0.0).1 >= loss {
            return 0.0;
        }
        self.tilt(|_, (_, mean, _)| mean >= loss)
    }

    /// The pessimistic epsilon, and the slope −d ln δ/dε there.
    fn epsilon_above(&self, delta: f64) -> Result<(f64, f64)> {
        let (mut theta, mut guess) = self.tilt_for_delta(delta);
        let (mut slope, mut best) = (theta, (f64::INFINITY, theta));
        for _ in 0..6 {
            let found = self
                .composed(theta, slope, guess, Side::Above)
                .epsilon(delta, Side::Above);
            let (epsilon, slope_there) = found.ok_or_else(|| {
                Error::usage(format!("no epsilon can be certified for delta {delta}"))
                    .hint("choose a larger delta or fewer steps")
            })?;
            if epsilon < best.0 {
                best = (epsilon, slope_there);
            }
            // Where few records are ever drawn the Chernoff bound can be far off and δ fall slower than it says: look
            // closer, at what was found.
            if epsilon < GAP.1 || (epsilon > 0.7 * guess && slope_there > 0.3 * slope) {
                break;
            }
            (theta, slope, guess) = (self.tilt_for_loss(epsilon), slope_there, epsilon);
        }
        Ok(best)
    }

    /// The optimistic epsilon, on a grid that resolves what lies near the pessimistic one.
    fn epsilon_below(&self, delta: f64, above: (f64, f64)) -> f64 {
        let (epsilon, slope) = above;
        if epsilon == 0.0 {
            return 0.0;
        }
        let composed = self.composed(self.tilt_for_loss(epsilon), slope, epsilon, Side::Below);
        composed
            .epsilon(delta, Side::Below)
            .map_or(0.0, |(below, _)| below.min(epsilon))
    }

    /// Builds and composes the grid that resolves `epsilon` where δ falls as e^(−slope·ε).
    fn composed(&self, theta: f64, slope: f64, epsilon: f64, side: Side) -> Composed {
        let steps: f64 = self.parts.iter().map(|p| p.times as f64).sum();
        // Splitting a loss over a grid cell of width h raises K(θ), and with it ln δ, by about θ(θ+1)·h²/12 a step: an
        // error of that over the slope in epsilon. It can never be more than T·h.
        let tolerance = 5e-5 * epsilon.abs() + 5e-7;
        let flat = if theta > 0.0 {
            (slope / theta).clamp(1e-3, 1.0)
        } else {
            1.0
        };
        let steep = theta.max(slope) + 1.0;
        let step = (12.0 * tolerance * flat / (steep * steps))
            .sqrt()
            .max(tolerance / steps)
            / self.fineness;
        let mut step = self.parts.iter().map(|p| p.affordable(step)).fold(step, f64::max);
        loop {
            // Atoms on the grid have no error at all: the most frequent ones are put there.
            let atoms = self.parts.iter().filter_map(|p| Some((p.atoms_at(side)?, p.times)));
            let aligned = match atoms.filter(|(loss, _)| *loss >= step).max_by_key(|(_, times)| *times) {
                Some((loss, _)) => loss / (loss / step).ceil(),
                None => step,
            };
            let on_grid = |p: &Part| (p.on_grid(aligned, self.direction, side), p.times);
            match compose(&self.parts.iter().map(on_grid).collect::<Vec<_>>(), theta) {
                Ok(composed) => return composed,
                Err(TooFine(factor)) => step *= factor.max(1.1),
            }
        }
    }
}
