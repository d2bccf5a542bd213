//! Laplace noise on one number, where a record is in the batch with probability q.
//!
//! P = (1 − q)·L(0) + q·L(1) and Q = L(0), with L(v) Laplace noise of scale b around v: given who else was drawn, a record
//! moves the number by at most 1. The noise's density is log-concave, so that a shorter way there is dominated by the whole
//! one; sampling keeps what dominates (Zhu, Dong and Wang 2022, theorem 11). At an output x the ratio is
//!
//! > W = P/Q = 1 − q + q·e^((2x − 1)/b), x held to \[0, 1\],
//!
//! with half of Q at x ≤ 0 and half of L(1) at x ≥ 1. Between, \[0, 1\] is cut into cells whose masses are known in closed form.
//! As in [`super::allocation`], a cell that is split between its ends is above, and one that is merged is below.

use super::allocation::{Atom, Law};
use super::rdp::log_sum_exp;

/// A step, for a number of sensitivity 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledLaplace {
    /// Sampling rate.
    pub q: f64,
    /// b: the noise's mean absolute value.
    pub scale: f64,
}

/// A range of outputs: its masses under L(0) and L(1).
#[derive(Clone, Copy)]
struct Cell {
    at_0: f64,
    at_1: f64,
}

/// Cells of \[0, 1\] at least, and how much the loss may change over one at most, in nats.
const CELLS: (f64, f64) = (2_000.0, 0.005);

impl SampledLaplace {
    fn cells(&self) -> usize {
        CELLS.0.max(2.0 / self.scale / CELLS.1).ceil() as usize
    }

    /// Outputs of at most 0; by the symmetry of both, those of at least 1 with the masses exchanged.
    fn end(&self) -> Cell {
        Cell {
            at_0: 0.5,
            at_1: 0.5 * (-1.0 / self.scale).exp(),
        }
    }

    /// Outputs from `from` to `to`, both within \[0, 1\].
    fn between(&self, from: f64, to: f64) -> Cell {
        let share = -0.5 * ((from - to) / self.scale).exp_m1();
        Cell {
            at_0: share * (-from / self.scale).exp(),
            at_1: share * ((to - 1.0) / self.scale).exp(),
        }
    }

    /// L(1)/L(0) at `x`.
    fn likelihood(&self, x: f64) -> f64 {
        ((2.0 * x - 1.0) / self.scale).exp()
    }

    fn atom(&self, likelihood: f64, mass: f64) -> Atom {
        Atom {
            ratio: 1.0 + self.q * (likelihood - 1.0),
            mass,
        }
    }

    /// Ratios of the two ends: the least and the largest, each with much of either distribution's mass.
    fn ends(&self) -> [f64; 2] {
        [0.0, 1.0].map(|x| self.atom(self.likelihood(x), 0.0).ratio)
    }

    /// What should be a multiple of a grid's step from above: the largest loss.
    pub fn largest_loss(&self) -> f64 {
        self.ends()[1].ln()
    }

    /// The same from below, where the least loss is on the grid in any case: how far the largest lies above it.
    pub fn losses_apart(&self) -> f64 {
        let [least, largest] = self.ends();
        (largest / least).ln()
    }

    /// The law of P/Q from above.
    pub fn above(&self) -> Law {
        let cells = self.cells();
        let point = |i: usize| i as f64 / cells as f64;
        let mut mass = vec![0.0; cells + 1];
        let end = self.end();
        mass[0] += end.at_0;
        mass[cells] += end.at_1;
        for i in 0..cells {
            let cell = self.between(point(i), point(i + 1));
            let [low, high] = [i, i + 1].map(|i| self.likelihood(point(i)));
            let up = ((cell.at_1 - low * cell.at_0) / (high - low)).clamp(0.0, cell.at_0);
            mass[i] += cell.at_0 - up;
            mass[i + 1] += up;
        }
        let atoms = mass.iter().enumerate();
        law(atoms.map(|(i, mass)| self.atom(self.likelihood(point(i)), *mass)))
    }

    /// The same from below.
    pub fn below(&self) -> Law {
        let cells = self.cells();
        let point = |i: usize| i as f64 / cells as f64;
        let end = self.end();
        let last = Cell {
            at_0: end.at_1,
            at_1: end.at_0,
        };
        let inner = (0..cells).map(|i| self.between(point(i), point(i + 1)));
        let all = std::iter::once(end).chain(inner).chain([last]);
        law(all.map(|cell| self.atom(cell.at_1 / cell.at_0, cell.at_0)))
    }

    /// ln E_Q (P/Q)^order for each order that is asked for, above 1: a bound, of the worse direction.
    pub fn log_moments(&self) -> impl Fn(f64) -> f64 + use<> {
        let atoms = self.above().atoms;
        let moment = move |power: f64| {
            let terms: Vec<f64> = atoms.iter().map(|a| a.mass.ln() + power * a.ratio.ln()).collect();
            log_sum_exp(&terms)
        };
        // Of two convex functions of the ratio.
        move |order| moment(order).max(moment(1.0 - order))
    }
}

fn law(atoms: impl Iterator<Item = Atom>) -> Law {
    Law {
        atoms: atoms.filter(|atom| atom.mass > 0.0).collect(),
        zero: 0.0,
        lost: (0.0, 0.0),
    }
}
