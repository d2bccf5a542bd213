//! One step's privacy loss, put on an even grid, from above and from below.
//!
//! The pair is P = (1−q)·N(0,σ²) + q·N(1,σ²) against Q = N(0,σ²). With u = (2x−1)/(2σ²) the likelihood ratio is
//! P/Q(x) = 1 + q(eᵘ − 1), which grows with x, so a range of losses is a range of x. Every mass is an integral of a
//! positive smooth function over such a range (Gauss–Legendre), so no digits are lost by subtraction.

use super::Direction;

/// Masses of a privacy loss: `mass[i]` at loss `base + i·step`, and `infinity` at an infinite loss.
pub struct LossPmf {
    pub base: f64,
    pub step: f64,
    pub mass: Vec<f64>,
    pub infinity: f64,
}

/// One Poisson-subsampled Gaussian step, cut to where all but `tail` of either distribution's mass lies on each side.
#[derive(Clone, Copy)]
pub struct Step {
    q: f64,
    sigma: f64,
    tail: f64,
    x_min: f64,
    x_max: f64,
}

/// More grid points than this are never built; the grid is made coarser instead, which stays on the safe side.
const MAX_POINTS: f64 = 2_097_152.0;

const NODES_2: [(f64, f64); 2] = [(-0.577_350_269_189_625_8, 1.0), (0.577_350_269_189_625_8, 1.0)];
const NODES_4: [(f64, f64); 4] = [
    (-0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
    (-0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.339_981_043_584_856_3, 0.652_145_154_862_546_1),
    (0.861_136_311_594_052_6, 0.347_854_845_137_453_85),
];

impl Step {
    /// `tail` is the mass that may be cut off on each side.
    pub fn new(q: f64, sigma: f64, tail: f64) -> Self {
        // P(N(0,1) > z) ≤ exp(−z²/2).
        let z = (-2.0 * tail.ln()).sqrt();
        Step {
            q,
            sigma,
            tail,
            x_min: -z * sigma,
            x_max: 1.0 + z * sigma,
        }
    }

    /// P/Q(x) − 1.
    fn ratio_minus_1(&self, x: f64) -> f64 {
        self.q * ((2.0 * x - 1.0) / (2.0 * self.sigma * self.sigma)).exp_m1()
    }

    /// ln P/Q(x).
    fn loss(&self, x: f64) -> f64 {
        if self.q == 1.0 {
            return (2.0 * x - 1.0) / (2.0 * self.sigma * self.sigma);
        }
        self.ratio_minus_1(x).ln_1p()
    }

    /// The x where the loss is `loss`; −∞ below the smallest loss ln(1−q).
    fn x_at(&self, loss: f64) -> f64 {
        let u = if self.q == 1.0 {
            loss
        } else {
            let v = (loss.exp_m1() + self.q) / self.q;
            if v <= 0.0 {
                return f64::NEG_INFINITY;
            }
            v.ln()
        };
        self.sigma * self.sigma * u + 0.5
    }

    /// Q's density.
    fn density(&self, x: f64) -> f64 {
        let t = x / self.sigma;
        (-0.5 * t * t).exp() / (self.sigma * (2.0 * std::f64::consts::PI).sqrt())
    }

    /// Calls `add(x, weight)` at the nodes of a Gauss–Legendre rule on [a, b]; the weight holds Q's density.
    fn quadrature(&self, a: f64, b: f64, mut add: impl FnMut(f64, f64)) {
        let width = b - a;
        // The integrands vary on the scales σ (the density; eight times faster in its tails) and σ² (the ratio).
        let scale = self.sigma.min(2.5 * self.sigma * self.sigma);
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
                let x = middle + half * t;
                add(x, w * half * self.density(x));
            }
        }
    }

    /// The loss and its mass at enough points to integrate over; for the cumulant function.
    pub fn sketch(&self, direction: Direction) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        self.quadrature(self.x_min, self.x_max, |x, w| {
            let (loss, ratio) = (self.loss(x), 1.0 + self.ratio_minus_1(x));
            points.push(match direction {
                Direction::Remove => (loss, w * ratio),
                Direction::Add | Direction::Both => (-loss, w),
            });
        });
        points
    }

    /// The grid's step, made coarser where the losses would need too many points.
    pub fn affordable(&self, step: f64) -> f64 {
        step.max((self.loss(self.x_max) - self.loss(self.x_min)) / MAX_POINTS)
    }

    /// From above: connect-the-dots (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022).
    ///
    /// The mass of each grid interval goes to its two ends such that its mass under P and under Q are both kept. The
    /// hockey-stick curve is then the chord through the true curve's points, which is convex in e^ε: never below it.
    pub fn pessimistic(&self, step: f64, direction: Direction) -> LossPmf {
        let first = (self.loss(self.x_min) / step).floor();
        let last = (self.loss(self.x_max) / step).ceil().max(first + 1.0);
        let cells = (last - first) as usize;
        let mut mass = vec![0.0; cells + 1];
        let width = -(-step).exp_m1();
        let mut a = self.x_min;
        for i in 0..cells {
            let lower_loss = (first + i as f64) * step;
            let b = if i + 1 == cells {
                self.x_max
            } else {
                self.x_at(lower_loss + step).clamp(a, self.x_max)
            };
            let below = lower_loss.exp_m1();
            let (mut lower, mut upper) = (0.0, 0.0);
            self.quadrature(a, b, |x, w| {
                let r = self.ratio_minus_1(x);
                let p = w * (1.0 + r);
                let up = (w * (r - below) / width).clamp(0.0, p);
                upper += up;
                lower += p - up;
            });
            mass[i] += lower;
            mass[i + 1] += upper;
            a = b;
        }
        match direction {
            // What was cut: losses above become infinite, losses below are lifted to the grid's first point.
            Direction::Remove => {
                mass[0] += self.tail;
                LossPmf {
                    base: first * step,
                    step,
                    mass,
                    infinity: self.tail,
                }
            }
            Direction::Add | Direction::Both => {
                let mut out = swap(mass, first * step, step);
                out.mass[0] += self.tail;
                out.infinity = self.tail;
                out
            }
        }
    }

    /// From below: outcomes are merged into cells, which is post-processing and can only lose privacy loss, with the
    /// cells' edges solved such that the merged losses fall onto an even grid. What is cut off is dropped.
    pub fn optimistic(&self, step: f64, direction: Direction) -> LossPmf {
        // The first cell decides where the grid lies: its upper edge is half a step above its own loss.
        let mut first = self.cell(self.x_min, self.x_at(self.loss(self.x_min) + step).min(self.x_max), 0.0);
        for _ in 0..12 {
            let edge = self.x_at(first.loss() + 0.5 * step).clamp(self.x_min, self.x_max);
            if (edge - first.high).abs() < 1e-9 * self.sigma || edge <= self.x_min {
                break;
            }
            first = self.cell(self.x_min, edge, 0.0);
        }
        let base = first.loss();
        // Remove counts P's mass at the loss; Add counts Q's mass at minus the loss.
        let kept = |cell: &Cell| match direction {
            Direction::Remove => cell.p(),
            Direction::Add | Direction::Both => cell.q,
        };
        let mut mass = vec![kept(&first)];
        let mut low = first.high;
        while low < self.x_max {
            let loss_low = self.loss(low);
            // The next grid loss above the cell's lower edge; one that is all but on the edge is left out.
            let index = ((loss_low - base) / step + 0.05).floor().max(0.0) + 1.0;
            let target = base + index * step;
            let above = target.exp_m1();
            let least = self.x_at(target).min(self.x_max);
            let most = self.x_at(target + 1.5 * step).clamp(least, self.x_max);
            // ∫(P − e^target·Q) over the cell must vanish: Newton on the upper edge.
            let mut cell = self.cell(low, self.x_at(2.0 * target - loss_low).clamp(least, most), above);
            for _ in 0..4 {
                let slope = self.density(cell.high) * (self.ratio_minus_1(cell.high) - above);
                let next = (cell.high - cell.excess / slope).clamp(least, most);
                if !next.is_finite() || cell.excess.abs() <= 1e-11 * step * cell.q * (1.0 + above) {
                    break;
                }
                cell.extend(self, next);
            }
            // Where the edge could not be met the loss is rounded towards less loss, never towards more.
            let slack = 1e-9 * step * cell.q * (1.0 + above);
            let index = match direction {
                Direction::Remove if cell.excess < -slack => index - 1.0,
                Direction::Add | Direction::Both if cell.excess > slack => {
                    ((self.loss(cell.high) - base) / step).ceil()
                }
                _ => index,
            } as usize;
            if mass.len() <= index {
                mass.resize(index + 1, 0.0);
            }
            mass[index] += kept(&cell);
            if cell.high <= low {
                break;
            }
            low = cell.high;
        }
        let last = mass.len() - 1;
        let base = match direction {
            Direction::Remove => base,
            Direction::Add | Direction::Both => {
                mass.reverse();
                -(base + last as f64 * step)
            }
        };
        LossPmf {
            base,
            step,
            mass,
            infinity: 0.0,
        }
    }

    /// Integrates over [low, high] against the ratio 1 + `above`.
    fn cell(&self, low: f64, high: f64, above: f64) -> Cell {
        let mut cell = Cell {
            above,
            high: low,
            q: 0.0,
            excess: 0.0,
        };
        cell.extend(self, high);
        cell
    }
}

/// A range of outcomes that is treated as one: Q's mass in it, and ∫(P − (1 + above)·Q).
struct Cell {
    above: f64,
    high: f64,
    q: f64,
    excess: f64,
}

impl Cell {
    /// Moves the upper edge, adding or taking away what lies between.
    fn extend(&mut self, step: &Step, high: f64) {
        let (above, mut q, mut excess) = (self.above, 0.0, 0.0);
        step.quadrature(self.high, high, |x, w| {
            excess += w * (step.ratio_minus_1(x) - above);
            q += w;
        });
        self.q += q;
        self.excess += excess;
        self.high = high;
    }

    /// P's mass.
    fn p(&self) -> f64 {
        self.excess + (1.0 + self.above) * self.q
    }

    /// The merged outcome's loss, ln(P/Q), for a cell that was made with `above` = 0.
    fn loss(&self) -> f64 {
        (self.excess / self.q).ln_1p()
    }
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
