//! Attention on a GPU: products, and between them the rotation and the softmax in a kernel each.
//!
//! As on the CPU only the inputs are kept for the way back. Scores `[rows, heads, tokens, tokens]` are there while a
//! layer is computed.

use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::zspace::metadata::Metadata;

use super::Causal;
use crate::models::fused::Heads;
use crate::models::fused::gpu::{by_row, by_value, columns, like, own_row, shaped, warp_max, warp_sum};
use crate::models::product::exact::on_gpu as product;

/// `x [rows, heads, tokens, head_width]`, each pair turned by its token's angle times `sign`: a thread a pair.
#[cube(launch, address_type = "dynamic")]
fn turn(x: &Tensor<f32>, cos: &Tensor<f32>, sin: &Tensor<f32>, y: &mut Tensor<f32>, sign: f32) {
    let (half, tokens, heads) = (x.shape(3) / 2, x.shape(2), x.shape(1));
    if ABSOLUTE_POS >= x.shape(0) * heads * tokens * half {
        terminate!();
    }
    let pair = ABSOLUTE_POS % half;
    let head = ABSOLUTE_POS / half % heads;
    let token = ABSOLUTE_POS / (half * heads) % tokens;
    let row = ABSOLUTE_POS / (half * heads * tokens);
    let from = row * x.stride(0) + head * x.stride(1) + token * x.stride(2) + pair;
    let to = row * y.stride(0) + head * y.stride(1) + token * y.stride(2) + pair;
    let (cos, sin) = (cos[token * half + pair], sign * sin[token * half + pair]);
    let (a, b) = (x[from], x[from + half]);
    y[to] = a * cos - b * sin;
    y[to + half] = b * cos + a * sin;
}

/// The first of its sequence's tokens that `token` sees.
#[cube]
fn first_seen(token: usize, window: usize) -> usize {
    let mut first = 0usize.runtime();
    if token + 1 > window {
        first = token + 1 - window;
    }
    first
}

/// Softmax of `scale`·scores `[.., tokens, tokens]` over what each token sees, 0 for the others: a warp a row.
#[cube(launch, address_type = "dynamic")]
fn causal_softmax(scores: &Tensor<f32>, weights: &mut Tensor<f32>, scale: f32, tokens: usize, window: usize) {
    let row = own_row();
    let (start, token) = (row * tokens, row % tokens);
    if start >= weights.len() {
        terminate!();
    }
    // Products may leave gaps behind each row.
    let scored = row * scores.stride(2);
    let first = first_seen(token, window);
    let mut peak = f32::min_value();
    let mut i = first + UNIT_POS_X as usize;
    while i <= token {
        peak = max(peak, scores[scored + i]);
        i += CUBE_DIM_X as usize;
    }
    let peak = warp_max(peak);
    let mut sum = 0.0f32;
    let mut i = first + UNIT_POS_X as usize;
    while i <= token {
        sum += ((scores[scored + i] - peak) * scale).exp();
        i += CUBE_DIM_X as usize;
    }
    let share = 1.0 / warp_sum(sum);
    let mut i = UNIT_POS_X as usize;
    while i < tokens {
        let mut weight = 0.0f32;
        if i >= first && i <= token {
            weight = ((scores[scored + i] - peak) * scale).exp() * share;
        }
        weights[start + i] = weight;
        i += CUBE_DIM_X as usize;
    }
}

/// The gradient by scores: scale·w·(g − Σ g·w).
#[cube(launch, address_type = "dynamic")]
fn causal_softmax_backward(
    weights: &Tensor<f32>,
    gradient: &Tensor<f32>,
    by_scores: &mut Tensor<f32>,
    scale: f32,
    tokens: usize,
) {
    let row = own_row();
    let start = row * tokens;
    if start >= weights.len() {
        terminate!();
    }
    let given = row * gradient.stride(2);
    let mut dot = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < tokens {
        dot += weights[start + i] * gradient[given + i];
        i += CUBE_DIM_X as usize;
    }
    let dot = warp_sum(dot);
    let mut i = UNIT_POS_X as usize;
    while i < tokens {
        by_scores[start + i] = scale * weights[start + i] * (gradient[given + i] - dot);
        i += CUBE_DIM_X as usize;
    }
}

/// Cosines and sines, `[tokens, head_width / 2]` each.
struct Angles {
    cos: CubeTensor,
    sin: CubeTensor,
}

impl Angles {
    fn turn(&self, x: CubeTensor, into: CubeTensor, sign: f32) -> CubeTensor {
        let (blocks, threads) = by_value(x.meta.num_elements() / 2);
        turn::launch(
            &into.client,
            blocks,
            threads,
            x.required_address_type(),
            x.into_tensor_arg(),
            self.cos.clone().into_tensor_arg(),
            self.sin.clone().into_tensor_arg(),
            into.clone().into_tensor_arg(),
            sign,
        );
        into
    }
}

/// A layer's inputs: heads that share keys stand together, so that no key is copied.
struct Inputs {
    /// Rotated, `[rows, kv_heads, groups · tokens, head_width]`.
    q: CubeTensor,
    /// Rotated, `[rows, kv_heads, tokens, head_width]`.
    k: CubeTensor,
    /// `[rows, kv_heads, tokens, head_width]`.
    v: CubeTensor,
    angles: Angles,
    shape: Heads,
}

impl Inputs {
    fn new(q: CubeTensor, k: CubeTensor, v: CubeTensor, cos: CubeTensor, sin: CubeTensor, shape: Heads) -> Self {
        let Heads {
            rows,
            tokens,
            heads,
            kv_heads,
            head_width,
            ..
        } = shape;
        let angles = Angles {
            cos: into_contiguous(cos),
            sin: into_contiguous(sin),
        };
        let turned = |x: CubeTensor, heads: usize| {
            let into = shaped(&x, [rows, heads, tokens, head_width]);
            angles.turn(split(x, shape, heads), into, 1.0)
        };
        let q = turned(q, heads);
        Inputs {
            q: reshape(q, [rows, kv_heads, heads / kv_heads * tokens, head_width].into()),
            k: turned(k, kv_heads),
            v: into_contiguous(split(v, shape, kv_heads)),
            angles,
            shape,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_width as f32).sqrt()
    }

    /// What each query gives each token, `[rows, kv_heads, groups · tokens, tokens]`.
    fn weights(&self) -> CubeTensor {
        let scores = product(self.q.clone(), Cube::float_swap_dims(self.k.clone(), 2, 3));
        let (tokens, weights) = (self.shape.tokens, like(&scores));
        let (blocks, threads) = by_row(scores.meta.num_elements() / tokens);
        causal_softmax::launch(
            &weights.client,
            blocks,
            threads,
            scores.required_address_type(),
            scores.into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            self.scale(),
            tokens,
            self.shape.window.unwrap_or(tokens),
        );
        weights
    }

    /// The gradient by scores of that by weights.
    fn by_scores(&self, weights: CubeTensor, by_weights: CubeTensor) -> CubeTensor {
        let (tokens, by_scores) = (self.shape.tokens, like(&weights));
        let (blocks, threads) = by_row(weights.meta.num_elements() / tokens);
        causal_softmax_backward::launch(
            &by_scores.client,
            blocks,
            threads,
            weights.required_address_type().max(by_weights.required_address_type()),
            weights.into_tensor_arg(),
            by_weights.into_tensor_arg(),
            by_scores.clone().into_tensor_arg(),
            self.scale(),
            tokens,
        );
        by_scores
    }

    /// The gradient by queries or keys before they were turned, `[rows · tokens, heads · head_width]`.
    fn turned_back(&self, gradient: CubeTensor, heads: usize) -> CubeTensor {
        let Heads {
            rows,
            tokens,
            head_width,
            ..
        } = self.shape;
        let gradient = reshape(gradient, [rows, heads, tokens, head_width].into());
        let out = shaped(&gradient, [rows * tokens, heads * head_width]);
        self.angles.turn(gradient, split(out.clone(), self.shape, heads), -1.0);
        out
    }
}

/// `[rows · tokens, heads · head_width]` as `[rows, heads, tokens, head_width]`, without a copy.
fn split(x: CubeTensor, shape: Heads, heads: usize) -> CubeTensor {
    let Heads {
        rows: of,
        tokens,
        head_width,
        ..
    } = shape;
    let mut x = columns(x);
    let row = x.meta.strides()[0];
    x.meta = Box::new(Metadata::new(
        [of, heads, tokens, head_width],
        [tokens * row, head_width, row, 1],
    ));
    x
}

/// The way back: `[rows, heads, tokens, head_width]`, whatever stands together, as `[rows · tokens, heads · head_width]`.
fn joined(x: CubeTensor, shape: Heads, heads: usize) -> CubeTensor {
    let Heads {
        rows,
        tokens,
        head_width,
        ..
    } = shape;
    let x = Cube::float_swap_dims(reshape(x, [rows, heads, tokens, head_width].into()), 1, 2);
    reshape(x, [rows * tokens, heads * head_width].into())
}

impl Causal for Cube {
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
    ) -> FloatTensor<Self> {
        let inputs = Inputs::new(q, k, v, cos, sin, shape);
        joined(product(inputs.weights(), inputs.v), shape, shape.heads)
    }

    fn causal_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = Inputs::new(q, k, v, cos, sin, shape);
        let weights = inputs.weights();
        let gradient = reshape(split(gradient, shape, shape.heads), inputs.q.meta.shape().clone());
        let by_v = product(Cube::float_swap_dims(weights.clone(), 2, 3), gradient.clone());
        let by_weights = product(gradient, Cube::float_swap_dims(inputs.v.clone(), 2, 3));
        let by_scores = inputs.by_scores(weights, by_weights);
        let by_q = product(by_scores.clone(), inputs.k.clone());
        let by_k = product(Cube::float_swap_dims(by_scores, 2, 3), inputs.q.clone());
        (
            inputs.turned_back(by_q, shape.heads),
            inputs.turned_back(by_k, shape.kv_heads),
            joined(by_v, shape, shape.kv_heads),
        )
    }
}
