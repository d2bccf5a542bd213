//! What attacks on membership can do: the whole curve, drawn.

use super::charts::{self, Axis, Curve, Frame, Point, Scale, Series};
use super::guarantee::ShownGuarantee;
use super::view::{Block, Table};
use crate::facts::attacks::Attacks;
use crate::number::up;

/// Shares are drawn from here up.
const SMALLEST: f64 = 1e-4;

/// The curve of the guarantee, whose attacks these are, with its points (false positives, true positives at most).
pub fn drawn(attacks: &Attacks, points: &[(f64, f64)], guarantee: &ShownGuarantee) -> Block {
    let share = |v: f64| format!("{} %", up(100.0 * v, 2));
    let mut table = Table::new(
        format!("The best attack on membership, at most; {}", guarantee.sentence),
        &[
            "false-positive rate",
            "true-positive rate, at most",
            "share of those named who are members, at even odds, at most",
        ],
        0,
    );
    for at in &attacks.at {
        table.rows.push(vec![
            format!("{} %", 100.0 * at.false_positive_rate),
            share(at.true_positive_rate_at_most),
            share(at.posterior_at_most),
        ]);
    }
    let point = |(x, y): (f64, f64)| Point {
        x,
        y,
        interval: None,
        tip: String::new(),
    };
    let within = points.iter().copied().filter(|(x, _)| *x >= SMALLEST);
    let guessing = within.clone().map(|(x, _)| point((x, x)));
    let curve = |series, points| Curve {
        series,
        points,
        joined: true,
        marked: false,
    };
    let mut plot = charts::curves(
        Frame {
            id: "tradeoff",
            title: "What attacks can do".into(),
            description: format!(
                "Highest true-positive rate at each false-positive rate: {} at 0.1 %, {} at 10 %. The lower line is guessing.",
                share(attacks.at[0].true_positive_rate_at_most),
                share(attacks.at[attacks.at.len() - 1].true_positive_rate_at_most)
            ),
        },
        &Scale {
            axis: Axis::logarithmic(SMALLEST, 1.0),
            name: "false-positive rate".into(),
            show: charts::percent,
        },
        &Scale {
            axis: Axis::linear(0.0, 1.0, 4),
            name: "true-positive rate, at most".into(),
            show: charts::percent,
        },
        &[
            curve(Series::Synthetic, within.clone().map(point).collect()),
            curve(Series::Plain, guessing.collect()),
        ],
    );
    plot.legend.clear();
    Block::Plot {
        plot,
        table,
        note: Some(format!(
            "No attack is above the upper line, whatever it knows and computes. The lower line is guessing. The smaller epsilon is, the nearer they are. \
             The smallest Gaussian mechanism that dominates this one, but for a probability of 1e-9, has mu {}.",
            up(attacks.mu, 3)
        )),
    }
}
