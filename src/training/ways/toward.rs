//! Any way, drawn toward public values beside (DP-Flat across models; Chen et al. 2024, arXiv 2403.04124): each step is also one
//! down λ/2 · ‖v − r‖², for the values v and a reference r. That asks nothing of private records, and so it is free. The
//! paper's reference is a copy that was trained on the private records without privacy, which is not.

use super::{At, Drawn, Way};
use crate::training::optimizer::Optimizer;

pub struct Toward<'a> {
    way: Box<dyn Way + 'a>,
    reference: Vec<f32>,
    strength: f32,
}

impl<'a> Toward<'a> {
    /// `way`, drawn toward public `reference` with λ = `strength`.
    pub fn new(way: Box<dyn Way + 'a>, reference: Vec<f32>, strength: f64) -> Self {
        Toward {
            way,
            reference,
            strength: strength as f32,
        }
    }
}

impl Way for Toward<'_> {
    fn dimensions(&self) -> usize {
        self.way.dimensions()
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        self.way.ask(drawn, at)
    }

    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        self.way.gradient(released)
    }

    fn step(&mut self, released: &[f32], values: &mut [f32], optimizer: &mut Optimizer, learning_rate: f32) {
        let mut gradient = self.way.gradient(released);
        for ((g, v), r) in gradient.iter_mut().zip(values.iter()).zip(&self.reference) {
            *g += self.strength * (v - r);
        }
        optimizer.step(values, &gradient, learning_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::super::gradient::Gradient;
    use super::*;
    use crate::config::Clipping;
    use crate::training::clip::Clip;
    use crate::training::optimizer::Rule;

    #[test]
    fn where_nothing_is_learned_values_come_to_the_reference() {
        let way = Box::new(Gradient::new(2, Clip::new(Clipping::Flat, 1.0)));
        let mut way = Toward::new(way, vec![1.0, -2.0], 0.5);
        let mut values = vec![0.0, 0.0];
        let mut optimizer = Optimizer::new(Rule::Sgd { momentum: 0.0 }, 0.0, 2);
        way.step(&[0.0, 0.4], &mut values, &mut optimizer, 0.1);
        assert!(
            (values[0] - 0.05).abs() < 1e-6 && (values[1] + 0.14).abs() < 1e-6,
            "{values:?}"
        );
        for _ in 0..500 {
            way.step(&[0.0, 0.0], &mut values, &mut optimizer, 0.1);
        }
        assert!(
            (values[0] - 1.0).abs() < 1e-4 && (values[1] + 2.0).abs() < 1e-4,
            "{values:?}"
        );
    }
}
