//! Cross-entropy over a frozen head, in chunks: no more than a chunk's logits exist at any time.
//!
//! With the head frozen, the gradient by the hidden state is (softmax(h·Eᵀ) − onehot)·E in closed form; it is computed
//! beside the loss and handed to the tape through a linear surrogate, so that the tape holds no logits at all.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::models::{product, read};

/// Rows of logits that exist at once.
const CHUNK: usize = 128;

/// Σ_n weights[n] · −log softmax(hidden·headᵀ)[n, targets[n]].
pub struct CrossEntropy {
    /// −log p of each target, unweighted.
    pub losses: Vec<f32>,
    /// A scalar on the tape of `hidden` with the gradient of the weighted sum. Its value means nothing.
    pub surrogate: Tensor<1>,
}

/// `hidden [n, width]` on the tape, `head [vocabulary, width]` untracked, `n` targets and weights.
pub fn cross_entropy(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32], weights: &[f32]) -> CrossEntropy {
    let h = hidden.clone().inner();
    let head = head.clone().inner();
    let device = h.device();
    let [n, width] = h.dims();
    let vocabulary = head.dims()[0];
    let mut losses = Vec::with_capacity(n);
    let mut gradients = Vec::with_capacity(n.div_ceil(CHUNK));
    for start in (0..n).step_by(CHUNK) {
        let end = (start + CHUNK).min(n);
        let logits = h.clone().slice([start..end, 0..width]).matmul(head.clone().transpose());
        let log_p = activation::log_softmax(logits, 1);
        let ids: Vec<i32> = targets[start..end].iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [end - start, 1]), &device);
        let picked: Vec<f32> = read(log_p.clone().gather(1, ids.clone()));
        losses.extend(picked.iter().map(|x| -x));
        let w = TensorData::new(weights[start..end].to_vec(), [end - start, 1]);
        let w = Tensor::<2>::from_data(w, &device);
        // w·(p·E − E[target]): the one-hot product is a row lookup.
        let rows = head.clone().select(0, ids.reshape([end - start]));
        debug_assert_eq!(log_p.dims()[1], vocabulary);
        gradients.push((log_p.exp().matmul(head.clone()) - rows) * w);
    }
    let gradient = Tensor::cat(gradients, 0);
    CrossEntropy {
        losses,
        surrogate: (hidden * Tensor::from_inner(gradient)).sum(),
    }
}

/// −log softmax(hidden·headᵀ) at each of `n` targets, and nothing else.
pub fn token_losses(hidden: Tensor<2>, head: &Tensor<2>, targets: &[u32]) -> Vec<f32> {
    let piece = |(i, targets): (usize, &[u32])| {
        let h = hidden.clone().narrow(0, i * CHUNK, targets.len());
        let log_p = activation::log_softmax(product(h, head.clone().transpose()), 1);
        let ids: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [targets.len(), 1]), &hidden.device());
        read(log_p.gather(1, ids).neg())
    };
    targets.chunks(CHUNK).enumerate().flat_map(piece).collect()
}
