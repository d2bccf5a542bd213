//! Grouped-query attention (Ainslie et al. 2023).

use burn::tensor::{Bool, Tensor, activation};

use super::rotary::{Rotary, rotate};
use crate::models::product::matmul;

/// How flat activations split into heads.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub rows: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    /// A token sees itself and those before it, so many in all; none: all of them.
    pub window: Option<usize>,
}

impl Heads {
    /// The first of the positions that a token at `position` sees.
    #[inline(always)]
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// `[rows · tokens, heads · head_width]` as `[rows, heads, tokens, head_width]`.
    pub fn split(&self, x: Tensor<2>, heads: usize) -> Tensor<4> {
        x.reshape([self.rows, self.tokens, heads, self.head_width])
            .swap_dims(1, 2)
    }
}

/// `q [rows · tokens, heads · head_width]`, not yet rotated; `k`, rotated, and `v [rows, kv_heads, seen, head_width]`; true in `hidden_from [rows or 1, 1, tokens or
/// 1, seen]` is what a token may not look at.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<4>,
    v: Tensor<4>,
    shape: Heads,
    rotary: &Rotary,
    hidden_from: Tensor<4, Bool>,
) -> Tensor<2> {
    let Heads {
        rows,
        tokens,
        heads,
        kv_heads,
        head_width,
        ..
    } = shape;
    let seen = k.dims()[2];
    let groups = heads / kv_heads;
    // Heads that share keys stand together, so that no key is copied.
    let q = rotate(shape.split(q, heads), rotary).reshape([rows, kv_heads, groups * tokens, head_width]);
    let scores = matmul(q, k.swap_dims(2, 3)) / (head_width as f64).sqrt();
    let scores = scores
        .reshape([rows, heads, tokens, seen])
        .mask_fill(hidden_from, f32::NEG_INFINITY);
    let weights = activation::softmax(scores, 3).reshape([rows, kv_heads, groups * tokens, seen]);
    let mixed = matmul(weights, v).reshape([rows, heads, tokens, head_width]);
    mixed.swap_dims(1, 2).reshape([rows * tokens, heads * head_width])
}
