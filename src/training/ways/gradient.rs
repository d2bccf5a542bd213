//! DP-SGD (Abadi et al. 2016): each record shows its gradient.

use super::{At, Drawn, Way};
use crate::training::clip::Clip;
use crate::training::optimizer::Optimizer;

pub struct Gradient {
    len: usize,
    clip: Clip,
}

impl Gradient {
    /// Of `len` trained values.
    pub fn new(len: usize, clip: Clip) -> Self {
        Gradient { len, clip }
    }
}

impl Way for Gradient {
    fn dimensions(&self) -> usize {
        self.len
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        drawn.gradients(at.values, self.clip)
    }

    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        released.to_vec()
    }

    fn step(&mut self, released: &[f32], values: &mut [f32], optimizer: &mut Optimizer, learning_rate: f32) {
        // Without a copy: there can be billions.
        optimizer.step(values, released, learning_rate);
    }
}
