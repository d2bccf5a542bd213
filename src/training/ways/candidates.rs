//! Noise on the coefficients of candidate directions (the noise injection of PE-SGD; Zou et al. 2026, ICLR): the step goes along
//! the gradients of a few hundred public records, and all that is released is how far along each. What private gradients have
//! besides is lost, and so is nearly all of the noise: few records and few steps are what it is made for.
//!
//! The coefficients are those of least squares, c = (V·Vᵀ + λ·I)⁻¹·V·g for candidates V of length 1. The paper's candidates come
//! of synthetic records that evolve between steps; these are the public records that are given, and their gradients
//! are taken anew.

use nalgebra::{DMatrix, DVector, linalg::Cholesky};

use super::subspace::add_along;
use super::{At, Bounds, Drawn, Public, Way, dot, unit};
use crate::training::clip::Clip;

/// λ: candidates are alike, and what tells two of them apart would be mostly noise.
const RIDGE: f64 = 0.1;

pub struct Candidates<'a> {
    bounds: Bounds,
    len: usize,
    public: Public<'a>,
    /// Of length 1.
    candidates: Vec<Vec<f32>>,
}

impl<'a> Candidates<'a> {
    /// Of `len` trained values, along at most `directions` gradients of `public` records, anew in each step.
    pub fn new(len: usize, clip: Clip, directions: usize, public: Public<'a>) -> Self {
        Candidates {
            bounds: Bounds::whole(directions, clip),
            len,
            public,
            candidates: Vec::new(),
        }
    }

    fn renew(&mut self, values: &[f32]) {
        let gradients = (self.public)(values).into_iter();
        self.candidates = gradients.filter_map(unit).take(self.bounds.len()).collect();
    }

    /// V·Vᵀ + λ·I, taken apart.
    fn gram(&self) -> Cholesky<f64, nalgebra::Dyn> {
        let n = self.candidates.len();
        let of = |i: usize, j: usize| {
            let ridge = if i == j { RIDGE } else { 0.0 };
            dot(&self.candidates[i], &self.candidates[j]) + ridge
        };
        Cholesky::new(DMatrix::from_fn(n, n, of)).expect("it is positive by its ridge")
    }
}

impl Way for Candidates<'_> {
    fn dimensions(&self) -> usize {
        self.bounds.len()
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        self.renew(at.values);
        let gram = self.gram();
        drawn.sum(at.values, &self.bounds, &|record| {
            let gradient = record.gradient()?;
            let along = self.candidates.iter().map(|candidate| dot(candidate, &gradient));
            let along = DVector::from_iterator(self.candidates.len(), along);
            let mut out: Vec<f32> = gram.solve(&along).iter().map(|c| *c as f32).collect();
            out.resize(self.bounds.len(), 0.0);
            Some(out)
        })
    }

    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; self.len];
        add_along(&self.candidates, released, &mut out);
        out
    }
}
