//! Book-keeping (Bu et al. 2023): where a weight acts, its input is kept and the gradient of its output is caught.

use burn::tensor::{Device, Int, Tensor};

use super::probe::probe;
use super::trainable::{Placed, Trains};
use crate::models::fused::rms_norm;
use crate::models::llama::{Apply, Map};
use crate::models::product;

/// A weight's input `[n, in]`, and the tag that will hold the gradient of its output `[n, out]`.
pub enum Tap {
    /// A linear map; `index` counts layers and [`Map::ALL`].
    Map {
        index: usize,
        input: Tensor<2>,
        tag: Tensor<2>,
    },
    /// A norm's gain; the input is before the norm.
    Gain { input: Tensor<2>, tag: Tensor<2> },
    /// The embedding; its input are the tokens.
    Embedding { tag: Tensor<2> },
}

/// The forward of training.
pub struct Taps<'a> {
    placed: &'a Placed,
    device: Device,
    taps: Vec<Tap>,
}

impl<'a> Taps<'a> {
    /// For a forward on `placed`.
    pub fn new(placed: &'a Placed) -> Self {
        Taps {
            placed,
            device: placed.model.device().autodiff(),
            taps: Vec::new(),
        }
    }

    /// In the order of the forward, which is the order of the flat vector.
    pub fn taken(self) -> Vec<Tap> {
        self.taps
    }

    fn trains_weights(&self) -> bool {
        matches!(self.placed.trains, Trains::Weights)
    }
}

impl Apply for Taps<'_> {
    fn linear(&mut self, layer: usize, map: Map, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let index = layer * Map::ALL.len() + map as usize;
        let input = x.clone().inner();
        let (y, tag) = probe(forward(self.placed, index, weight, x), &self.device);
        self.taps.push(Tap::Map { index, input, tag });
        y
    }

    fn embed(&mut self, table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        let x = table.clone().select(0, ids);
        if !self.trains_weights() {
            return x;
        }
        let (x, tag) = probe(x, &self.device);
        self.taps.push(Tap::Embedding { tag });
        x
    }

    fn norm(&mut self, gain: &Tensor<1>, x: Tensor<2>, epsilon: f64) -> Tensor<2> {
        if !self.trains_weights() {
            return rms_norm(x, gain, epsilon);
        }
        let input = x.clone().inner();
        let (y, tag) = probe(rms_norm(x, gain, epsilon), &self.device);
        self.taps.push(Tap::Gain { input, tag });
        y
    }
}

/// The same forward without taps.
pub struct Untapped<'a>(pub &'a Placed);

impl Apply for Untapped<'_> {
    fn linear(&mut self, layer: usize, map: Map, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        forward(self.0, layer * Map::ALL.len() + map as usize, weight, x)
    }
}

/// x·Wᵀ, and the adapter's part where the weights do not hold it.
fn forward(placed: &Placed, index: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    let base = product(x.clone(), weight.clone().transpose());
    match &placed.trains {
        Trains::Factors {
            factors,
            scale,
            merged: false,
        } => {
            let (a, b) = factors[index].clone();
            base + (x.matmul(a) * *scale).matmul(b)
        }
        _ => base,
    }
}
