//! Gradient embedding perturbation (GEP; Yu et al. 2021, arXiv 2102.12677): a record shows how far its gradient goes along a few
//! directions that public gradients span, and apart from that what is left of it. Both are bounded and noised; the first is short,
//! so that its noise is little. The directions are those that the gradients of the first records span, at right angles; the paper
//! takes the principal ones of more.

use super::subspace::Subspace;
use super::{At, Bounds, Drawn, Public, Way};
use crate::training::clip::Clip;

pub struct Projection<'a> {
    bounds: Bounds,
    len: usize,
    /// So many directions are released in each step, whether the public gradients span as many or not.
    directions: usize,
    public: Public<'a>,
    subspace: Subspace,
}

impl<'a> Projection<'a> {
    /// Of `len` trained values, along at most `directions` that the gradients of `public` records span, anew in each step.
    pub fn new(len: usize, clip: Clip, directions: usize, public: Public<'a>) -> Self {
        Projection {
            bounds: Bounds::halves([directions, len], clip),
            len,
            directions,
            public,
            subspace: Subspace::default(),
        }
    }
}

impl Way for Projection<'_> {
    fn dimensions(&self) -> usize {
        self.bounds.len()
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        self.subspace = Subspace::of((self.public)(at.values).into_iter().take(self.directions));
        let subspace = &self.subspace;
        drawn.sum(at.values, &self.bounds, &|record| {
            let mut rest = record.gradient()?;
            let mut out = subspace.coordinates(&rest);
            subspace.take_off(&mut rest, &out);
            out.resize(self.directions, 0.0);
            out.extend(rest);
            Some(out)
        })
    }

    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        let (along, rest) = released.split_at(released.len() - self.len);
        let mut out = rest.to_vec();
        self.subspace.add_to(&mut out, along);
        out
    }
}
