//! One answer of one accountant.

use dpsynth::Result;
use dpsynth::privacy::accountant::{Adjacency, Direction, Phase, edgeworth, gdp, pld, rdp};
use serde::Serialize;

use super::Accountant;
use crate::cli::number::up;

/// What is given, of which the other is asked.
#[derive(Clone, Copy)]
pub enum Given {
    Delta(f64),
    Epsilon(f64),
}

/// A point of the privacy curve.
#[derive(Serialize)]
pub struct Point {
    pub epsilon: f64,
    /// From below; only pld has one, and only where delta is given.
    pub epsilon_lower: Option<f64>,
    pub delta: f64,
    /// Which neighbour decides; `both` where the bound is one for both.
    pub direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Rényi accounting with exact moments at fractional orders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_exact_orders: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub orders: Option<Orders>,
    /// An epsilon that the first order and its error bound prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finite_sample_bound: Option<Bound>,
}

/// What each Edgeworth order says of what is asked.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Orders {
    Epsilon {
        epsilon_order1: f64,
        epsilon_order2: f64,
        epsilon_order3: f64,
    },
    Delta {
        delta_order1: f64,
        delta_order2: f64,
        delta_order3: f64,
    },
}

impl Orders {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Orders::Epsilon {
                epsilon_order1: a,
                epsilon_order2: b,
                epsilon_order3: c,
            } => format!("{a:.6}, {b:.6}, {c:.6}"),
            Orders::Delta {
                delta_order1: a,
                delta_order2: b,
                delta_order3: c,
            } => format!("{a:.3e}, {b:.3e}, {c:.3e}"),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
pub enum Bound {
    Proven(f64),
    Vacuous(&'static str),
}

impl Bound {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Bound::Proven(epsilon) => format!("epsilon {}", up(*epsilon, 6)),
            Bound::Vacuous(word) => word.to_string(),
        }
    }
}

impl Point {
    /// By one accountant.
    pub fn of(accountant: Accountant, phases: &[Phase], adjacency: Adjacency, given: Given) -> Result<Point> {
        let (epsilon, delta) = match given {
            Given::Delta(delta) => (f64::NAN, delta),
            Given::Epsilon(epsilon) => (epsilon, f64::NAN),
        };
        let blank = Point {
            epsilon,
            epsilon_lower: None,
            delta,
            direction: Direction::Both.name(),
            order: None,
            epsilon_exact_orders: None,
            orders: None,
            finite_sample_bound: None,
        };
        Ok(match (accountant, given) {
            (Accountant::Pld, Given::Delta(delta)) => {
                let bracket = pld::epsilon(phases, adjacency, delta)?;
                Point {
                    epsilon: bracket.epsilon,
                    epsilon_lower: Some(bracket.epsilon_lower),
                    direction: bracket.direction.name(),
                    ..blank
                }
            }
            (Accountant::Pld, Given::Epsilon(epsilon)) => Point {
                delta: pld::delta(phases, adjacency, epsilon)?,
                ..blank
            },
            (Accountant::Rdp, Given::Delta(delta)) => {
                let renyi = rdp::epsilon(phases, adjacency, delta)?;
                Point {
                    epsilon: renyi.epsilon,
                    order: Some(renyi.order),
                    epsilon_exact_orders: Some(rdp::epsilon_exact(phases, adjacency, delta)?.epsilon),
                    ..blank
                }
            }
            (Accountant::Rdp, Given::Epsilon(epsilon)) => {
                let (delta, order) = rdp::delta(phases, adjacency, epsilon)?;
                Point {
                    delta,
                    order: Some(order),
                    ..blank
                }
            }
            (Accountant::Gdp, Given::Delta(delta)) => Point {
                epsilon: gdp::epsilon(phases, adjacency, delta)?.value(),
                ..blank
            },
            (Accountant::Gdp, Given::Epsilon(epsilon)) => Point {
                delta: gdp::delta(phases, adjacency, epsilon)?.value(),
                ..blank
            },
            (Accountant::Edgeworth, Given::Delta(delta)) => {
                let [a, b, c] = edgeworth::epsilon(phases, adjacency, delta)?.map(|e| e.value());
                let proven = edgeworth::certified(phases, adjacency, delta)?.epsilon;
                Point {
                    epsilon: c,
                    direction: Direction::Remove.name(),
                    orders: Some(Orders::Epsilon {
                        epsilon_order1: a,
                        epsilon_order2: b,
                        epsilon_order3: c,
                    }),
                    finite_sample_bound: Some(proven.map_or(Bound::Vacuous("vacuous"), Bound::Proven)),
                    ..blank
                }
            }
            (Accountant::Edgeworth, Given::Epsilon(epsilon)) => {
                let [a, b, c] = edgeworth::delta(phases, adjacency, epsilon)?.map(|d| d.value());
                Point {
                    delta: c,
                    direction: Direction::Remove.name(),
                    orders: Some(Orders::Delta {
                        delta_order1: a,
                        delta_order2: b,
                        delta_order3: c,
                    }),
                    ..blank
                }
            }
        })
    }
}
