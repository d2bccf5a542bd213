//! How far apart two clouds are, taken as normal distributions.

use super::cloud::{Vectors, centre, covariance, matrix, root};

/// Squared Fréchet distance between the normal distributions fitted to two clouds (Dowson and Landau 1982; Heusel et al.
/// 2017): ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), 0 or more.
///
/// It falls as samples grow, so only samples of one size can be compared. None with fewer than two points a side.
pub fn distance(a: &Vectors, b: &Vectors) -> Option<f64> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let [(mean_a, a), (mean_b, b)] = [a, b].map(|vectors| {
        let mut points = matrix(vectors);
        let mean = centre(&mut points);
        (mean, covariance(&points))
    });
    let traces = a.trace() + b.trace();
    // Σ₁Σ₂ has the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    let root = root(a);
    let product = &root * b * &root;
    let both: f64 = product.symmetric_eigenvalues().iter().map(|v| v.max(0.0).sqrt()).sum();
    Some(((mean_a - mean_b).norm_squared() + traces - 2.0 * both).max(0.0))
}
