//! One step's privacy loss, put on an even grid, from above and from below.
//!
//! The loss grows with x, so a range of losses is a range of x. Every mass is an integral of a positive smooth function
//! over such a range (Gauss–Legendre), so no digits are lost by subtraction.

use super::Direction;
use super::allocation::{Atom, Law};
use super::pairs::{Density, Pair, Range, exp_both};

/// Masses of a privacy loss: `mass[i]` at loss `base + i·step`, and `infinity` at an infinite loss.
pub struct LossPmf {
    pub base: f64,
    pub step: f64,
    pub mass: Vec<f64>,
    pub infinity: f64,
}

/// One step's pair, cut to where nearly all of either distribution's mass lies.
#[derive(Clone, Copy)]
pub struct Step {
    pair: Pair,
    range: Range,
}

/// More grid points than this are never built; the grid is made coarser instead, which stays on the safe side.
const MAX_POINTS: f64 = 2_097_152.0;

/// An atom within so many steps of the grid is on it.
const ON_THE_GRID: f64 = 1e-9;

const NODES_2: [(f64, f64); 2] = [(-0.577_350_269_189_625_8, 1.0), (0.577_350_269_189_625_8, 1.0)];
const NODES_4: [(f64, f64); 4] = [
    (-0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    (-0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
];

impl Step {
    /// `tail` is the mass that may be cut off on each side.
    pub fn new(pair: Pair, tail: f64) -> Self {
        Step {
            pair,
            range: pair.range(tail),
        }
    }

    /// Calls `add` with the masses at the nodes of a Gauss–Legendre rule on [a, b].
    fn quadrature(&self, a: f64, b: f64, mut add: impl FnMut(Density)) {
        let width = b - a;
        if width == 0.0 {
            return;
        }
        let scale = self.pair.scale();
        let pieces = (width.abs() / (0.1 * scale)).ceil().max(1.0);
        let nodes: &[(f64, f64)] = if width.abs() < 0.002 * scale {
            &NODES_2
        } else {
            &NODES_4
        };
        let half = 0.5 * width / pieces;
        for piece in 0..pieces as usize {
            let middle = a + (2 * piece + 1) as f64 * half;
            for (t, w) in nodes {
                let density = self.pair.density(middle + half * t);
                let weight = w * half;
                add(Density {
                    p: weight * density.p,
                    q: weight * density.q,
                    difference: weight * density.difference,
                });
            }
        }
    }

    /// The loss and its mass at enough points to integrate over; for the cumulant function.
    pub fn sketch(&self, direction: Direction) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        self.quadrature(self.range.x_min, self.range.x_max, |mass| {
            points.push(match direction {
                Direction::Remove | Direction::Both => (mass.loss(), mass.p),
                Direction::Add => (-mass.loss(), mass.q),
            });
        });
        if let Some(atoms) = self.pair.atoms() {
            points.extend([(-atoms.loss, atoms.low), (atoms.loss, atoms.high)]);
        }
        points
    }

    /// The grid's step, made coarser where the losses would need too many points.
    pub fn affordable(&self, step: f64) -> f64 {
        let (smallest, largest) = self.pair.losses(&self.range);
        step.max((largest - smallest) / MAX_POINTS)
    }

    /// Where the atoms lie, if there are any.
    pub fn atoms_at(&self) -> Option<f64> {
        self.pair.atoms().map(|a| a.loss)
    }

    /// From above: connect-the-dots (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022), on multiples of `step`.
    ///
    /// The mass of each grid interval goes to its two ends such that its mass under P and under Q are both kept. The
    /// hockey-stick curve is then the chord through the true curve's points, which is convex in e^ε: never below it.
    pub fn pessimistic(&self, step: f64, direction: Direction) -> LossPmf {
        let Range {
            x_min,
            x_max,
            below,
            above,
        } = self.range;
        let (smallest, largest) = self.pair.losses(&self.range);
        let first = (smallest / step).floor();
        let last = (largest / step).ceil().max(first + 1.0);
        let cells = (last - first) as usize;
        let mut mass = vec![0.0; cells + 1];
        let width = -(-step).exp_m1();
        let loss_at = |i: usize| (first + i as f64) * step;
        if let Some(atoms) = self.pair.atoms() {
            for (loss, p) in [(-atoms.loss, atoms.low), (atoms.loss, atoms.high)] {
                let i = ((loss / step).floor() - first).clamp(0.0, (cells - 1) as f64) as usize;
                let up = (p * -(loss_at(i) - loss).exp_m1() / width).clamp(0.0, p);
                mass[i] += p - up;
                mass[i + 1] += up;
            }
        }
        let mut a = x_min;
        for i in 0..cells {
            if a >= x_max {
                break;
            }
            let b = if i + 1 == cells {
                x_max
            } else {
                self.pair.x_at(loss_at(i + 1)).clamp(a, x_max)
            };
            let lower_loss = exp_both(loss_at(i));
            let (mut lower, mut upper) = (0.0, 0.0);
            self.quadrature(a, b, |m| {
                let up = (m.excess(lower_loss) / width).clamp(0.0, m.p);
                upper += up;
                lower += m.p - up;
            });
            mass[i] += lower;
            mass[i + 1] += upper;
            a = b;
        }
        with_cut(mass, first * step, step, direction, (below, below), (above, above))
    }

    /// From below: outcomes are merged into cells, which is post-processing and can only lose privacy loss, with the
    /// cells' edges solved such that the merged losses fall onto an even grid. What is cut off is dropped.
    pub fn optimistic(&self, step: f64, direction: Direction) -> LossPmf {
        // Atoms cannot be moved by merging: a little more noise puts them onto the grid.
        let Some(pair) = self.pair.aligned(step) else {
            return nothing(step);
        };
        let this = Step { pair, ..*self };
        let Range { x_min, x_max, .. } = self.range;
        let mut grid = Below::new(direction);
        // The lowest atom or else the first cell decides where the grid lies.
        let (base, mut low) = match pair.atoms() {
            Some(atoms) => {
                grid.put(0.0, atoms.low, atoms.high);
                grid.put((2.0 * atoms.loss / step).round(), atoms.high, atoms.low);
                (-atoms.loss, x_min)
            }
            None => {
                let first = this.first_cell(step);
                grid.put(0.0, first.mass.p, first.mass.q);
                (first.mass.loss(), first.high)
            }
        };
        while low < x_max {
            let loss_low = pair.density(low).loss();
            // The next grid loss above the cell's lower edge; one that is all but on the edge is left out.
            let index = ((loss_low - base) / step + 0.05).floor().max(0.0) + 1.0;
            let target = base + index * step;
            let least = pair.x_at(target).min(x_max);
            let most = pair.x_at(target + 1.5 * step).clamp(least, x_max);
            // ∫(P − e^target·Q) over the cell must vanish: Newton on the upper edge.
            let at = exp_both(target);
            let mut cell = this.cell(low, pair.x_at(2.0 * target - loss_low).clamp(least, most), at);
            for _ in 0..4 {
                let next = (cell.high - cell.excess / pair.density(cell.high).excess(at)).clamp(least, most);
                if !next.is_finite() || cell.excess.abs() <= 1e-11 * step * cell.mass.q * at.0 {
                    break;
                }
                cell.extend(&this, next);
            }
            // Where the edge could not be met the loss is rounded towards less loss, never towards more.
            let slack = 1e-9 * step * cell.mass.q * at.0;
            let steps_up = (cell.mass.loss() - base) / step;
            let index = match direction {
                Direction::Remove | Direction::Both if cell.excess < -slack => steps_up.floor().min(index),
                Direction::Add if cell.excess > slack => steps_up.ceil().max(index),
                _ => index,
            };
            if cell.mass.p > 0.0 && cell.mass.q > 0.0 {
                grid.put(index, cell.mass.p, cell.mass.q);
            }
            if cell.high <= low {
                break;
            }
            low = cell.high;
        }
        grid.pmf(base, step)
    }

    /// From the left end to half a step above the cell's own loss.
    fn first_cell(&self, step: f64) -> Cell {
        let Range { x_min, x_max, .. } = self.range;
        let cell_to = |loss: f64| {
            let high = self.pair.x_at(loss).clamp(x_min, x_max);
            self.cell(x_min, high, (1.0, 0.0))
        };
        let mut first = cell_to(self.pair.losses(&self.range).0 + step);
        for _ in 0..12 {
            let next = cell_to(first.mass.loss() + 0.5 * step);
            if next.high <= x_min {
                break;
            }
            let moved = (next.high - first.high).abs();
            first = next;
            if moved < 1e-9 * self.pair.scale() {
                break;
            }
        }
        first
    }

    /// Integrates over [low, high] against the ratio e^target, given as (e^target, e^target − 1).
    fn cell(&self, low: f64, high: f64, target: (f64, f64)) -> Cell {
        let mut cell = Cell {
            target,
            high: low,
            mass: Density::default(),
            excess: 0.0,
        };
        cell.extend(self, high);
        cell
    }
}

/// A range of outcomes that is treated as one: its masses, and ∫(P − e^target·Q).
struct Cell {
    target: (f64, f64),
    high: f64,
    mass: Density,
    excess: f64,
}

impl Cell {
    /// Moves the upper edge, adding or taking away what lies between.
    fn extend(&mut self, step: &Step, high: f64) {
        let (mut mass, mut excess) = (self.mass, self.excess);
        step.quadrature(self.high, high, |m| {
            mass.p += m.p;
            mass.q += m.q;
            mass.difference += m.difference;
            excess += m.excess(self.target);
        });
        (self.mass, self.excess, self.high) = (mass, excess, high);
    }
}

impl Law {
    /// The atoms that nearly all mass is in, and what is cut below and above: under P and under Q.
    fn cut(&self, tail: f64) -> Cut {
        let (mut first, mut last) = (0, self.atoms.len());
        let (mut below, mut above) = ((0.0, self.zero), self.lost);
        let with =
            |(p, q): (f64, f64), i: usize| (p + self.atoms[i].mass * self.atoms[i].ratio, q + self.atoms[i].mass);
        while first + 2 < last && with(below, first).1 <= tail {
            below = with(below, first);
            first += 1;
        }
        while first + 2 < last && with(above, last - 1).0 <= tail {
            last -= 1;
            above = with(above, last);
        }
        Cut {
            atoms: first..last,
            below,
            above,
        }
    }

    /// The loss and its mass.
    pub fn sketch(&self, direction: Direction, tail: f64) -> Vec<(f64, f64)> {
        let of = |a: &Atom| match direction {
            Direction::Remove | Direction::Both => (a.ratio.ln(), a.mass * a.ratio),
            Direction::Add => (-a.ratio.ln(), a.mass),
        };
        self.atoms[self.cut(tail).atoms].iter().map(of).collect()
    }

    /// As [`Step::affordable`].
    pub fn affordable(&self, step: f64, tail: f64) -> f64 {
        let atoms = self.cut(tail).atoms;
        let [low, high] = [atoms.start, atoms.end - 1].map(|i| self.atoms[i].ratio.ln());
        step.max((high - low) / MAX_POINTS)
    }

    /// As [`Step::pessimistic`], of a law from above.
    pub fn pessimistic(&self, step: f64, direction: Direction, tail: f64) -> LossPmf {
        let cut = self.cut(tail);
        let atoms = &self.atoms[cut.atoms.clone()];
        let at = |loss: f64| (loss / step).floor();
        let first = atoms.first().map_or(0.0, |a| at(a.ratio.ln()));
        let last = atoms.last().map_or(0.0, |a| at(a.ratio.ln()));
        let mut mass = vec![0.0; (last - first) as usize + 2];
        let width = -(-step).exp_m1();
        for atom in atoms {
            let (loss, p) = (atom.ratio.ln(), atom.mass * atom.ratio);
            let i = (at(loss) - first) as usize;
            let up = (p * -((first + i as f64) * step - loss).exp_m1() / width).clamp(0.0, p);
            mass[i] += p - up;
            mass[i + 1] += up;
        }
        with_cut(mass, first * step, step, direction, cut.below, cut.above)
    }

    /// As [`Step::optimistic`], of a law from below: atoms are merged, and parted where a cell is full, such that each cell's
    /// loss falls onto the grid.
    pub fn optimistic(&self, step: f64, direction: Direction, tail: f64) -> LossPmf {
        let atoms = &self.atoms[self.cut(tail).atoms];
        let Some(first) = atoms.first() else {
            return nothing(step);
        };
        // The lowest atom decides where the grid lies.
        let base = first.ratio.ln();
        let mut grid = Below::new(direction);
        grid.put(0.0, first.mass * first.ratio, first.mass);
        // The cell that is being filled: its place on the grid, its masses, and P − e^target·Q, which is below 0 until it is full.
        let (mut index, mut p, mut q, mut excess) = (1.0, 0.0, 0.0, 0.0);
        let unfilled = |grid: &mut Below, index: f64, p: f64, q: f64| {
            if q > 0.0 {
                // Towards less loss.
                let steps_up = ((p / q).ln() - base) / step;
                let index = match direction {
                    Direction::Remove | Direction::Both => steps_up.floor().min(index),
                    Direction::Add => steps_up.ceil().max(index),
                };
                grid.put(index, p, q);
            }
        };
        for atom in &atoms[1..] {
            let at = (atom.ratio.ln() - base) / step;
            // What lies on the grid stays there: no cell takes of it.
            if (at - at.round()).abs() < ON_THE_GRID {
                unfilled(&mut grid, index, p, q);
                grid.put(at.round(), atom.mass * atom.ratio, atom.mass);
                (p, q, excess) = (0.0, 0.0, 0.0);
                continue;
            }
            let mut left = atom.mass;
            while left > 0.0 {
                if q == 0.0 {
                    index = at.floor() + 1.0;
                }
                let target = (base + index * step).exp();
                let gain = (atom.ratio - target) * left;
                if excess + gain < 0.0 || q == 0.0 {
                    (p, q, excess) = (p + left * atom.ratio, q + left, excess + gain);
                    break;
                }
                let part = (-excess / gain * left).clamp(0.0, left);
                grid.put(index, p + part * atom.ratio, q + part);
                left -= part;
                (p, q, excess) = (0.0, 0.0, 0.0);
            }
        }
        unfilled(&mut grid, index, p, q);
        grid.pmf(base, step)
    }
}

/// What of a law's atoms is kept, and the masses under P and under Q of what is not.
struct Cut {
    atoms: std::ops::Range<usize>,
    below: (f64, f64),
    above: (f64, f64),
}

/// A grid from below that is being filled: P's mass at the loss where a record is removed, Q's at minus the loss where it is
/// added.
struct Below {
    direction: Direction,
    mass: Vec<f64>,
}

impl Below {
    fn new(direction: Direction) -> Self {
        Below {
            direction,
            mass: Vec::new(),
        }
    }

    /// Masses under P and Q, so many steps above the base.
    fn put(&mut self, index: f64, p: f64, q: f64) {
        let index = index.max(0.0) as usize;
        if self.mass.len() <= index {
            self.mass.resize(index + 1, 0.0);
        }
        self.mass[index] += match self.direction {
            Direction::Remove | Direction::Both => p,
            Direction::Add => q,
        };
    }

    /// With its lowest loss, and what lies between two.
    fn pmf(self, base: f64, step: f64) -> LossPmf {
        let mut mass = self.mass;
        let base = match self.direction {
            Direction::Remove | Direction::Both => base,
            Direction::Add => {
                mass.reverse();
                -(base + (mass.len() - 1) as f64 * step)
            }
        };
        LossPmf {
            base,
            step,
            mass,
            infinity: 0.0,
        }
    }
}

/// P's masses on a grid from above, and what was cut below and above it, under P and under Q: the largest losses become
/// infinite, the smallest are lifted to the grid's second point, which is above the smallest loss within.
fn with_cut(
    mass: Vec<f64>,
    base: f64,
    step: f64,
    direction: Direction,
    below: (f64, f64),
    above: (f64, f64),
) -> LossPmf {
    let (mut out, lifted, infinity) = match direction {
        Direction::Remove | Direction::Both => (
            LossPmf {
                base,
                step,
                mass,
                infinity: 0.0,
            },
            below.0,
            above.0,
        ),
        Direction::Add => (swap(mass, base, step), above.1, below.1),
    };
    out.mass[1] += lifted;
    out.infinity = infinity;
    out
}

/// No loss at all.
fn nothing(step: f64) -> LossPmf {
    LossPmf {
        base: 0.0,
        step,
        mass: vec![1.0],
        infinity: 0.0,
    }
}

/// One of several losses, chosen in public with the probabilities given; all on multiples of the same step.
pub fn mixture(parts: Vec<(f64, LossPmf)>) -> LossPmf {
    let step = parts[0].1.step;
    let first = |pmf: &LossPmf| (pmf.base / step).round();
    let lowest = parts.iter().map(|(_, pmf)| first(pmf)).fold(f64::INFINITY, f64::min);
    let mut out = LossPmf {
        base: lowest * step,
        step,
        mass: Vec::new(),
        infinity: 0.0,
    };
    for (weight, pmf) in parts {
        let offset = (first(&pmf) - lowest) as usize;
        if out.mass.len() < offset + pmf.mass.len() {
            out.mass.resize(offset + pmf.mass.len(), 0.0);
        }
        for (sum, m) in out.mass[offset..].iter_mut().zip(&pmf.mass) {
            *sum += weight * m;
        }
        out.infinity += weight * pmf.infinity;
    }
    out
}

/// The same pair with P and Q exchanged: loss −l with mass e^(−l)·m.
fn swap(mass: Vec<f64>, base: f64, step: f64) -> LossPmf {
    let last = mass.len() - 1;
    let swapped = mass
        .iter()
        .enumerate()
        .map(|(i, m)| m * (-(base + i as f64 * step)).exp())
        .rev()
        .collect();
    LossPmf {
        base: -(base + last as f64 * step),
        step,
        mass: swapped,
        infinity: 0.0,
    }
}
