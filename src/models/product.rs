//! Products of matrices in the element type that their factors have, on every device.
//!
//! Burn multiplies f32 on a GPU's tensor cores, which read ten bits behind the point (TF32). A record's norm and what it
//! adds to the sum would then be taken of different numbers (rule P5), and f32 would not be f32. All products of the
//! models and of training go through here.

use burn::tensor::{Tensor, module};

#[cfg(feature = "cuda-plain")]
pub(crate) mod exact;
#[cfg(feature = "cuda-plain")]
mod mixed;

/// `a [.., n, k]` · `b [.., k, m]`, the leading axes alike.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "cuda-plain")]
    if exact::is_needed(&a) {
        return exact::matmul(a, b);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "here they are f32 on a CPU, or of a type that a GPU keeps"
    )]
    let product = a.matmul(b);
    product
}

/// `x [n, k]` · `w [k, m]` + `bias [m]`.
pub fn linear(x: Tensor<2>, w: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    #[cfg(feature = "cuda-plain")]
    if exact::is_needed(&x) {
        return exact::matmul(x, w) + bias.unsqueeze();
    }
    #[expect(clippy::disallowed_methods, reason = "here they are f32 on a CPU")]
    let product = module::linear(x, w, Some(bias));
    product
}

/// `x·w`, multiplied in the element type of `w` and given in that of `x`. No gradient by `w` is taken where they differ.
pub fn product(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let (own, inner) = (x.dtype(), w.dtype());
    if own == inner {
        return matmul(x, w);
    }
    #[cfg(feature = "cuda-plain")]
    if mixed::is_needed(&x, &w) {
        return mixed::product(x, w);
    }
    matmul(x.cast(inner), w).cast(own)
}
