//! MAUVE (Pillutla et al. 2021): how well one cloud of sentence vectors covers the other, and the other way round.

use serde::{Deserialize, Serialize};

use super::cloud::{Vectors, centre, covariance, in_order, matrix, principal};
use super::kmeans::{Points, clusters};

/// Share of the variance that is kept before clustering.
const VARIANCE: f64 = 0.9;
/// Points a cluster, over one side; at least two clusters and at most [`MOST_CLUSTERS`].
const POINTS_A_CLUSTER: f64 = 10.0;
const MOST_CLUSTERS: usize = 500;
/// The paper's c.
const SCALE: f64 = 5.0;
/// Mixtures on the divergence curve, and how near they come to either side.
const MIXTURES: usize = 25;
const NEAREST: f64 = 1e-6;
/// With fewer points a side the two clusters would hold next to nothing.
pub const FEWEST: usize = 20;

/// Areas under the divergence curve, 0 (nothing in common) to 1 (the same).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mauve {
    /// As of 2021.
    pub plain: f64,
    /// With half a point added to each cluster of either side (Krichevsky and Trofimov 1981; Pillutla et al. 2023), which
    /// small samples ask for.
    pub smoothed: f64,
}

impl Mauve {
    /// Clusters both sides together, then compares how they are spread over the clusters. None with fewer than [`FEWEST`]
    /// points a side.
    pub fn between(a: &Vectors, b: &Vectors) -> Option<Self> {
        let fewest = a.len().min(b.len());
        if fewest < FEWEST {
            return None;
        }
        let k = ((fewest as f64 / POINTS_A_CLUSTER).round() as usize).clamp(2, MOST_CLUSTERS);
        let clusters = quantise(&[a, b].concat(), k);
        let (mut p, mut q) = (vec![0.0; k], vec![0.0; k]);
        clusters[..a.len()].iter().for_each(|c| p[*c] += 1.0);
        clusters[a.len()..].iter().for_each(|c| q[*c] += 1.0);
        let plain = area(&p, &q);
        p.iter_mut().chain(&mut q).for_each(|count| *count += 0.5);
        Some(Mauve {
            plain,
            smoothed: area(&p, &q),
        })
    }
}

/// The cluster of each vector, after its principal components.
fn quantise(vectors: &Vectors, k: usize) -> Vec<usize> {
    let mut points = matrix(vectors);
    centre(&mut points);
    let components = principal(covariance(&points), VARIANCE);
    // Columns are what nalgebra keeps together: a point becomes one.
    let projected = components.tr_mul(&points.transpose()).map(|v| v as f32);
    let found = clusters(
        Points {
            values: projected.as_slice(),
            width: components.ncols(),
        },
        k,
    );
    // Where nothing varies all are in one.
    let mut out = vec![0; vectors.len()];
    for (place, cluster) in in_order(vectors).into_iter().zip(found) {
        out[place] = cluster;
    }
    out
}

/// The area under the curve of (exp(−c·KL(q‖r)), exp(−c·KL(p‖r))) over the mixtures r of `p` and `q`, between its ends
/// (1, 0) and (0, 1), by trapezoids. `p` and `q` count the same clusters, each with a sum above 0.
pub fn area(p: &[f64], q: &[f64]) -> f64 {
    let [p, q] = [p, q].map(|counts| {
        let sum: f64 = counts.iter().sum();
        counts.iter().map(|c| c / sum).collect::<Vec<f64>>()
    });
    let on_curve = |i: usize| {
        let weight = NEAREST + (1.0 - 2.0 * NEAREST) * i as f64 / (MIXTURES - 1) as f64;
        let mixture: Vec<f64> = p.iter().zip(&q).map(|(p, q)| weight * p + (1.0 - weight) * q).collect();
        [&q, &p].map(|side| (-SCALE * kullback_leibler(side, &mixture)).exp())
    };
    let curve: Vec<[f64; 2]> = std::iter::once([1.0, 0.0])
        .chain((0..MIXTURES).map(on_curve))
        .chain([[0.0, 1.0]])
        .collect();
    let trapezoid = |pair: &[[f64; 2]]| (pair[0][0] - pair[1][0]) * (pair[0][1] + pair[1][1]) / 2.0;
    curve.windows(2).map(trapezoid).sum::<f64>().clamp(0.0, 1.0)
}

/// Σ p ln(p / r), where r is above 0 wherever p is.
fn kullback_leibler(p: &[f64], r: &[f64]) -> f64 {
    let terms = p.iter().zip(r).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, r)| p * (p / r).ln()).sum::<f64>().max(0.0)
}
