//! The loss's gradient by the logits, g = w·(softmax(h·Eᵀ) − onehot), where the head's own weights are trained.
//!
//! In f32 a kernel; in other element types, Burn's operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};

use super::cross_entropy::residuals;
use crate::models::fused::cpu::{contiguous, tensor};
use crate::models::fused::gemm::{Matrix, add_product};
use crate::models::fused::has_kernel;
use crate::models::product::{matmul, product};

#[cfg(feature = "cuda-plain")]
mod gpu;

/// Rows of logits that exist at once where only a sum over them is wanted.
const CHUNK: usize = 512;

/// Some rows in front of the head.
pub struct Rows<'a> {
    /// `[n, width]`, untracked.
    pub hidden: Tensor<2>,
    /// E, `[vocabulary, width]`, untracked.
    pub table: &'a Tensor<2>,
    pub targets: &'a [u32],
    pub weights: &'a [f32],
}

impl Rows<'_> {
    /// −log p of each target, unweighted, `[n]`, and g `[n, vocabulary]`.
    pub fn gradient(self) -> (Tensor<1>, Tensor<2>) {
        if !(has_kernel(&self.hidden) && has_kernel(self.table)) {
            return self.composed();
        }
        let (losses, g) = <Dispatch as Logits>::logits_gradient(
            self.hidden.into_dispatch(),
            self.table.clone().into_dispatch(),
            self.targets.to_vec(),
            self.weights.to_vec(),
        );
        (
            Tensor::<2>::from_dispatch(losses).flatten(0, 1),
            Tensor::from_dispatch(g),
        )
    }

    /// gᵀ·h, `[vocabulary, width]`.
    pub fn outer(self) -> Tensor<2> {
        if has_kernel(&self.hidden) && has_kernel(self.table) {
            return Tensor::from_dispatch(<Dispatch as Logits>::logits_outer(
                self.hidden.into_dispatch(),
                self.table.clone().into_dispatch(),
                self.targets.to_vec(),
                self.weights.to_vec(),
            ));
        }
        let part = |(i, (targets, weights)): (usize, (&[u32], &[f32]))| {
            let hidden = self.hidden.clone().narrow(0, i * CHUNK, targets.len());
            let rows = Rows {
                hidden: hidden.clone(),
                table: self.table,
                targets,
                weights,
            };
            matmul(rows.composed().1.transpose(), hidden)
        };
        let chunks = self.targets.chunks(CHUNK).zip(self.weights.chunks(CHUNK)).enumerate();
        chunks.map(part).reduce(|sum, part| sum + part).expect("there are rows")
    }

    fn composed(&self) -> (Tensor<1>, Tensor<2>) {
        let (n, device) = (self.targets.len(), self.hidden.device());
        let logits = product(self.hidden.clone(), self.table.clone().transpose());
        let log_p = activation::log_softmax(logits, 1);
        let ids: Vec<i32> = self.targets.iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &device);
        let losses = log_p.clone().gather(1, ids.clone()).neg().flatten(0, 1);
        let weights = Tensor::<2>::from_data(TensorData::new(self.weights.to_vec(), [n, 1]), &device);
        let p = log_p.exp() * weights.clone();
        (losses, p.scatter(1, ids, weights.neg(), IndexingUpdateOp::Add))
    }
}

#[cfg_attr(not(feature = "cuda-plain"), backend_extension(Flex))]
#[cfg_attr(feature = "cuda-plain", backend_extension(Flex, Cube))]
trait Logits: Backend {
    /// [`Rows::gradient`]; the losses are `[n, 1]`.
    fn logits_gradient(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// [`Rows::outer`].
    fn logits_outer(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> FloatTensor<Self>;
}

impl Logits for Flex {
    fn logits_gradient(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [vocabulary, width] = [0, 1].map(|i| table.layout().shape()[i]);
        let (hidden, table) = (contiguous(hidden), contiguous(table));
        let head = Matrix::new(table.storage(), [vocabulary, width], width);
        let (mut losses, mut g) = (vec![0f32; targets.len()], vec![0f32; targets.len() * vocabulary]);
        residuals(&mut g, &mut losses, hidden.storage(), head, &targets);
        weigh(&mut g, vocabulary, &weights);
        (tensor(losses, 1), tensor(g, vocabulary))
    }

    fn logits_outer(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> FloatTensor<Self> {
        let [vocabulary, width] = [0, 1].map(|i| table.layout().shape()[i]);
        let (hidden, table) = (contiguous(hidden), contiguous(table));
        let head = Matrix::new(table.storage(), [vocabulary, width], width);
        let mut sum = vec![0f32; vocabulary * width];
        // One for all chunks: fresh memory costs the kernel a page each 4 KiB.
        let mut logits = vec![0f32; CHUNK.min(targets.len()) * vocabulary];
        let mut losses = [0f32; CHUNK];
        let chunks = hidden
            .storage::<f32>()
            .chunks(CHUNK * width)
            .zip(targets.chunks(CHUNK).zip(weights.chunks(CHUNK)));
        for (hidden, (targets, weights)) in chunks {
            let rows = targets.len();
            let g = &mut logits[..rows * vocabulary];
            residuals(g, &mut losses[..rows], hidden, head, targets);
            weigh(g, vocabulary, weights);
            let g = Matrix::new(g, [rows, vocabulary], vocabulary);
            add_product(&mut sum, g.transposed(), Matrix::new(hidden, [rows, width], width));
        }
        tensor(sum, width)
    }
}

fn weigh(g: &mut [f32], vocabulary: usize, weights: &[f32]) {
    for (row, weight) in g.chunks_exact_mut(vocabulary).zip(weights) {
        row.iter_mut().for_each(|g| *g *= weight);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::models::read;

    #[test]
    fn the_kernel_is_the_composition() {
        let device = Device::flex();
        let (n, vocabulary, width) = (2 * CHUNK + 3, 70, 20);
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 2.0), &device);
        let (hidden, table) = (random([n, width]), random([vocabulary, width]));
        let targets: Vec<u32> = (0..n as u32).map(|i| i * 7 % vocabulary as u32).collect();
        let weights: Vec<f32> = (0..n).map(|i| 1.0 / (1.0 + i as f32)).collect();
        let rows = || Rows {
            hidden: hidden.clone(),
            table: &table,
            targets: &targets,
            weights: &weights,
        };
        let close = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-5 * b.abs().max(1.0));
        let ((losses, g), (their_losses, theirs)) = (rows().gradient(), rows().composed());
        assert!(close(read(losses), read(their_losses)));
        let outer = matmul(theirs.clone().transpose(), hidden.clone());
        assert!(close(read(g), read(theirs)));
        assert!(close(read(rows().outer()), read(outer)));
    }
}
