//! Whole gradients, a record a row: their squared norms and their weighted sum.

use burn::tensor::Tensor;

use super::clip::Factors;
use crate::models::product::matmul;

#[cfg(feature = "cuda-plain")]
mod gpu;
#[cfg(feature = "cuda-plain")]
use {
    burn::backend::Dispatch,
    burn::tensor::{DType, Device},
    gpu::OfRows,
};

/// Whether there is a kernel for them: in f32 on a GPU.
#[cfg(feature = "cuda-plain")]
fn has_kernel<const D: usize>(each: &Tensor<D>) -> bool {
    each.dtype() == DType::F32 && each.device() != Device::flex()
}

/// ‖gᵢ‖² of `each [rows, n]`, in equally many parts, `[rows · parts]`: f32 loses precision in a sum of millions.
pub fn squares(each: Tensor<2>) -> Tensor<1> {
    #[cfg(feature = "cuda-plain")]
    if has_kernel(&each) {
        return Tensor::from_dispatch(<Dispatch as OfRows>::squares(each.into_dispatch()));
    }
    each.square().sum_dim(1).squeeze_dim(1)
}

/// Σᵢ factorsᵢ·gᵢ of `each [rows, n]`, `[n]`.
pub fn weighted(each: Tensor<2>, factors: &Factors) -> Tensor<1> {
    let factors = factors.placed();
    #[cfg(feature = "cuda-plain")]
    if has_kernel(&each) {
        let sum = <Dispatch as OfRows>::weighted(each.into_dispatch(), factors.into_dispatch());
        return Tensor::from_dispatch(sum);
    }
    matmul(factors.unsqueeze::<2>(), each).flatten(0, 1)
}

/// Whether the gradients of several weights are formed at once: where kernels then take all of them together.
pub fn stand_together(left: &Tensor<3>) -> bool {
    #[cfg(feature = "cuda-plain")]
    return has_kernel(left);
    #[cfg(not(feature = "cuda-plain"))]
    {
        let _ = left;
        false
    }
}

/// leftᵢᵀ·rightᵢ of each pair `[rows, T, a]` and `[rows, T, b]`, flat: `[rows, a·b]` each, or side by side as one,
/// `[rows, Σ a·b]`, where they [`stand_together`].
pub fn formed(pairs: Vec<[Tensor<3>; 2]>) -> Vec<Tensor<2>> {
    let width = |[left, right]: &[Tensor<3>; 2]| left.dims()[2] * right.dims()[2];
    #[cfg(feature = "cuda-plain")]
    if pairs.iter().flatten().all(has_kernel) {
        let first = &pairs[0][0];
        let all: usize = pairs.iter().map(width).sum();
        let mut out = Tensor::<2>::empty([first.dims()[0], all], &first.device());
        let mut start = 0;
        for pair in pairs {
            let own = width(&pair);
            let [left, right] = pair.map(Tensor::into_dispatch);
            out = Tensor::from_dispatch(<Dispatch as OfRows>::form(left, right, out.into_dispatch(), start));
            start += own;
        }
        return vec![out];
    }
    let form = |pair: [Tensor<3>; 2]| {
        let (rows, own) = (pair[0].dims()[0], width(&pair));
        let [left, right] = pair;
        matmul(left.swap_dims(1, 2), right).reshape([rows, own])
    };
    pairs.into_iter().map(form).collect()
}
