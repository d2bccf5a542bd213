//! Least squares on public features in one step, by noisy normal equations (Mehta et al. 2022, arXiv 2211.13403; Dwork et al.
//! 2014, "Analyze Gauss"): a record shows x·xᵀ and x ⊗ its label, for x its text's vector and a 1. Their sums are released once,
//! over all units, and what they are solved for classifies.

use nalgebra::{Cholesky, DMatrix};

use super::{At, Bounds, Drawn, Way};
use crate::training::clip::Clip;
use crate::training::optimizer::Optimizer;

pub struct NormalEquations {
    bounds: Bounds,
    labels: usize,
    /// Length of x.
    width: usize,
    /// Of the noise in each number that is released.
    noise_deviation: f64,
}

impl NormalEquations {
    /// For values [labels, width] and what is released with noise of `noise_deviation`.
    pub fn new(labels: usize, width: usize, clip: Clip, noise_deviation: f64) -> Self {
        NormalEquations {
            bounds: Bounds::whole(width * (width + 1) / 2 + width * labels, clip),
            labels,
            width,
            noise_deviation,
        }
    }

    /// The upper triangle of x·xᵀ, row by row, what is off the diagonal times √2, so that its norm is that of the whole; then
    /// x for the record's own label.
    fn shown(&self, vector: &[f32], label: usize) -> Vec<f32> {
        let x: Vec<f32> = vector.iter().copied().chain([1.0]).collect();
        let mut out = Vec::with_capacity(self.bounds.len());
        for (i, a) in x.iter().enumerate() {
            out.push(a * a);
            out.extend(x[i + 1..].iter().map(|b| std::f32::consts::SQRT_2 * a * b));
        }
        for of in 0..self.labels {
            match of == label {
                true => out.extend(&x),
                false => out.resize(out.len() + self.width, 0.0),
            }
        }
        out
    }

    /// The weights [labels, width] of what was released: (A + λ·I)⁻¹·b, λ as large as the noise's own eigenvalues are in a
    /// matrix of this size (Wigner's semicircle, 2·deviation·√width), since A with noise need not be positive.
    fn solved(&self, released: &[f32]) -> Vec<f32> {
        let n = self.width;
        let (triangle, of_labels) = released.split_at(n * (n + 1) / 2);
        let mut a = DMatrix::<f64>::zeros(n, n);
        let mut values = triangle.iter().map(|v| f64::from(*v));
        for i in 0..n {
            a[(i, i)] = values.next().unwrap_or_default();
            for j in i + 1..n {
                let value = values.next().unwrap_or_default() / 2f64.sqrt();
                (a[(i, j)], a[(j, i)]) = (value, value);
            }
        }
        let b = DMatrix::from_fn(n, self.labels, |i, label| f64::from(of_labels[label * n + i]));
        let mut ridge = (2.0 * self.noise_deviation * (n as f64).sqrt()).max(1e-9);
        loop {
            let ridged = &a + DMatrix::identity(n, n) * ridge;
            // Noise can be worse than it mostly is.
            match Cholesky::new(ridged) {
                Some(cholesky) => return cholesky.solve(&b).iter().map(|v| *v as f32).collect(),
                None => ridge *= 2.0,
            }
        }
    }
}

impl Way for NormalEquations {
    fn dimensions(&self) -> usize {
        self.bounds.len()
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        drawn.sum(at.values, &self.bounds, &|record| {
            let (vector, label) = record.features()?;
            Some(self.shown(&vector, label))
        })
    }

    /// To where the equations are solved, from 0.
    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        self.solved(released).iter().map(|v| -v).collect()
    }

    /// There is nothing to descend.
    fn step(&mut self, released: &[f32], values: &mut [f32], optimizer: &mut Optimizer, _: f32) {
        values.copy_from_slice(&self.solved(released));
        optimizer.steps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Clipping;

    #[test]
    fn p5_what_a_record_shows_has_the_norm_of_its_products() {
        let way = NormalEquations::new(2, 4, Clip::new(Clipping::Flat, 1.0), 0.0);
        let vector = [0.6f32, -0.2, 0.3];
        let shown = way.shown(&vector, 1);
        assert_eq!(shown.len(), way.dimensions());
        let squared = vector.iter().map(|v| f64::from(v * v)).sum::<f64>() + 1.0;
        // ‖x·xᵀ‖² = ‖x‖⁴ by Frobenius.
        let wanted = (squared * squared + squared).sqrt();
        assert!((super::super::norm(&shown) - wanted).abs() < 1e-6);
    }

    #[test]
    fn least_squares_are_solved() {
        let mut way = NormalEquations::new(2, 3, Clip::new(Clipping::Flat, 1e9), 0.0);
        // Label 1 where the first number is above the second.
        let points = [[1.0f32, 0.0], [0.8, 0.1], [0.0, 1.0], [0.2, 0.9]];
        let mut sum = vec![0f32; way.dimensions()];
        for (i, point) in points.iter().enumerate() {
            let shown = way.shown(point, usize::from(i < 2));
            sum.iter_mut().zip(shown).for_each(|(s, v)| *s += v);
        }
        let mut values = vec![9f32; 6];
        let mut optimizer = Optimizer::adamw(6, 0.0);
        way.step(&sum, &mut values, &mut optimizer, 1.0);
        assert_eq!(optimizer.steps, 1);
        for (i, point) in points.iter().enumerate() {
            let score = |row: &[f32]| row[0] * point[0] + row[1] * point[1] + row[2];
            let [zero, one] = [score(&values[..3]), score(&values[3..])];
            assert!((zero + one - 1.0).abs() < 1e-3, "shares of one: {zero} and {one}");
            assert_eq!(one > zero, i < 2);
        }
    }
}
