//! Cross-entropy over a frozen head, in chunks: no more than a chunk's logits exist at any time.
//!
//! With the head frozen, the gradient by the hidden state is (softmax(h·Eᵀ) − onehot)·E in closed form; it is computed
//! beside the loss and handed to the tape through a linear surrogate, so that the tape holds no logits at all.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{Int, Tensor, TensorData, activation};
use rayon::prelude::*;

use crate::models::fused::cpu::{contiguous, tensor};
use crate::models::fused::gemm::{Matrix, product};
use crate::models::fused::has_kernel;
use crate::models::fused::lanes::{Softmax, vectorised};
use crate::models::product::matmul;
use crate::models::{read, read_all};

#[cfg(feature = "cuda-plain")]
pub(super) mod gpu;

/// Rows of logits that exist at once, on each thread.
const CHUNK: usize = 256;

/// Σ_n weights[n] · −log softmax(hidden·headᵀ)[n, targets[n]], where the weights may depend on the losses.
pub struct CrossEntropy {
    /// −log p of each target, unweighted.
    pub losses: Vec<f32>,
    /// A scalar on the tape of `hidden` with the gradient of the weighted sum. Its value means nothing.
    pub surrogate: Tensor<1>,
}

/// `hidden [n, width]` on the tape, `head [vocabulary, width]` untracked, `n` targets; `weigh` makes n weights, which are
/// constants to the gradient, of n losses.
///
/// In f32 each thread of a CPU holds one chunk of logits, and a GPU one; a row's result depends on no other row's values.
pub fn cross_entropy(
    hidden: Tensor<2>,
    head: &Tensor<2>,
    targets: &[u32],
    weigh: impl FnOnce(&[f32]) -> Vec<f32>,
) -> CrossEntropy {
    let (h, head) = (hidden.clone().inner(), head.clone().inner());
    let (losses, gradient) = match has_kernel(&h) && has_kernel(&head) {
        true => fused(h, head, targets),
        false => composed(h, head, targets),
    };
    let weights = TensorData::new(weigh(&losses), [losses.len(), 1]);
    let gradient = gradient * Tensor::from_data(weights, &hidden.clone().inner().device());
    CrossEntropy {
        losses,
        surrogate: (hidden * Tensor::from_inner(gradient)).sum(),
    }
}

fn fused(h: Tensor<2>, head: Tensor<2>, targets: &[u32]) -> (Vec<f32>, Tensor<2>) {
    let (h, head) = (h.into_dispatch(), head.into_dispatch());
    let (losses, gradient) = <Dispatch as Head>::cross_entropy(h, head, targets.to_vec());
    (
        read(Tensor::<2>::from_dispatch(losses)),
        Tensor::from_dispatch(gradient),
    )
}

#[cfg_attr(not(feature = "cuda-plain"), backend_extension(Flex))]
#[cfg_attr(feature = "cuda-plain", backend_extension(Flex, Cube))]
trait Head: Backend {
    /// The losses `[n, 1]`, and the gradient by `hidden` of their sum.
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl Head for Flex {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [vocabulary, width] = [0, 1].map(|i| head.layout().shape()[i]);
        let (hidden, head) = (contiguous(hidden), contiguous(head));
        let head = Matrix::new(head.storage(), [vocabulary, width], width);
        let n = targets.len();
        let (mut losses, mut gradient) = (vec![0f32; n], vec![0f32; n * width]);
        // Whole chunks for each thread, so that results are the same on any number of them.
        let share = n.div_ceil(rayon::current_num_threads()).next_multiple_of(CHUNK);
        let shares = gradient
            .par_chunks_mut(share * width)
            .zip(losses.par_chunks_mut(share))
            .zip(hidden.storage::<f32>().par_chunks(share * width))
            .zip(targets.par_chunks(share));
        shares.for_each(|(((gradient, losses), hidden), targets)| {
            // One for all chunks: fresh memory costs the kernel a page each 4 KiB.
            let mut logits = vec![0f32; CHUNK.min(targets.len()) * vocabulary];
            let chunks = gradient
                .chunks_mut(CHUNK * width)
                .zip(losses.chunks_mut(CHUNK))
                .zip(hidden.chunks(CHUNK * width))
                .zip(targets.chunks(CHUNK));
            for (((gradient, losses), hidden), targets) in chunks {
                let rows = targets.len();
                let logits = &mut logits[..rows * vocabulary];
                residuals(logits, losses, hidden, head, targets);
                product(gradient, Matrix::new(logits, [rows, vocabulary], vocabulary), head);
            }
        });
        (tensor(losses, 1), tensor(gradient, width))
    }
}

/// softmax(h·headᵀ) − onehot of each row into `out [rows, vocabulary]`, and −log p of each target.
///
/// A row's results depend on no other row's values.
pub(super) fn residuals(out: &mut [f32], losses: &mut [f32], hidden: &[f32], head: Matrix, targets: &[u32]) {
    let [vocabulary, width] = head.dims();
    product(
        out,
        Matrix::new(hidden, [targets.len(), width], width),
        head.transposed(),
    );
    for ((row, loss), target) in out.chunks_exact_mut(vocabulary).zip(losses).zip(targets) {
        let target = *target as usize;
        let wanted = row[target];
        *loss = vectorised(Softmax, &mut *row) - wanted;
        row[target] -= 1.0;
    }
}

/// Losses and gradient by Burn's operations: what runs in other element types than f32.
pub fn composed(h: Tensor<2>, head: Tensor<2>, targets: &[u32]) -> (Vec<f32>, Tensor<2>) {
    let device = h.device();
    let [n, width] = h.dims();
    let vocabulary = head.dims()[0];
    // Read at the end: a GPU would be waited for with each chunk.
    let mut picked = Vec::with_capacity(n.div_ceil(CHUNK));
    let mut gradients = Vec::with_capacity(n.div_ceil(CHUNK));
    for start in (0..n).step_by(CHUNK) {
        let end = (start + CHUNK).min(n);
        let logits = matmul(h.clone().slice([start..end, 0..width]), head.clone().transpose());
        let log_p = activation::log_softmax(logits, 1);
        let ids: Vec<i32> = targets[start..end].iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [end - start, 1]), &device);
        picked.push(log_p.clone().gather(1, ids.clone()).neg().flatten::<1>(0, 1));
        // p·E − E[target]: the one-hot product is a row lookup.
        let rows = head.clone().select(0, ids.reshape([end - start]));
        debug_assert_eq!(log_p.dims()[1], vocabulary);
        gradients.push(matmul(log_p.exp(), head.clone()) - rows);
    }
    (read_all(picked).concat(), Tensor::cat(gradients, 0))
}

/// −log softmax(hidden·headᵀ) at each of `n` targets, and nothing else.
pub fn token_losses(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32]) -> Vec<f32> {
    let piece = |(i, targets): (usize, &[u32])| {
        let h = hidden.clone().narrow(0, i * CHUNK, targets.len());
        let log_p = activation::log_softmax(matmul(h, head.clone().transpose()), 1);
        let ids: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [targets.len(), 1]), &hidden.device());
        log_p.gather(1, ids).neg().flatten::<1>(0, 1)
    };
    read_all(targets.chunks(CHUNK).enumerate().map(piece)).concat()
}
