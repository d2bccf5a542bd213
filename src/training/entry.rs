//! The gradient of one weight, record by record, in the cheaper of two forms (mixed ghost clipping, Bu et al. 2022).

use burn::tensor::Tensor;

use super::tied::Tied;
use crate::models::fused::cpu::runs_here;

/// Gradients gᵢ of one weight for each record i of a micro-batch.
#[allow(
    clippy::large_enum_variant,
    reason = "tensors are handles, and there are a few hundred entries"
)]
pub enum Entry {
    /// The gradients themselves, `[rows, n]`.
    Whole(Tensor<2>),
    /// gᵢ = leftᵢᵀ·rightᵢ, never formed: `left [rows, T, a]`, `right [rows, T, b]`.
    Product { left: Tensor<3>, right: Tensor<3> },
    /// Of an embedding that is the head too.
    Tied(Box<Tied>),
}

impl Entry {
    /// gᵢ = leftᵢᵀ·rightᵢ of `left [rows, T, a]` and `right [rows, T, b]`.
    ///
    /// Whole, a·b values a record and T·a·b products; as inner products, T·(a + b) values and T²·(a + b) products: the
    /// shapes decide, for time and memory alike. LoRA's factors are whole, long before full maps are.
    pub fn of(left: Tensor<3>, right: Tensor<3>) -> Self {
        let ([rows, tokens, a], b) = (left.dims(), right.dims()[2]);
        if a * b <= tokens * (a + b) {
            return Entry::Whole(left.swap_dims(1, 2).matmul(right).reshape([rows, a * b]));
        }
        Entry::Product { left, right }
    }

    /// ‖gᵢ‖² of each record, `[rows]`.
    pub fn squares(&self) -> Tensor<1> {
        match self {
            Entry::Whole(each) => each.clone().square().sum_dim(1).squeeze_dim(1),
            Entry::Product { left, right } => {
                // ‖ΣₜlₜrₜT‖² = Σₜₛ (lₜ·lₛ)(rₜ·rₛ).
                let inner = |x: &Tensor<3>| x.clone().matmul(x.clone().swap_dims(1, 2));
                let [rows, tokens, _] = left.dims();
                let pairs = (inner(left) * inner(right)).reshape([rows, tokens * tokens]);
                pairs.sum_dim(1).squeeze_dim(1)
            }
            Entry::Tied(tied) => tied.squares(),
        }
    }

    /// Σᵢ factorsᵢ·gᵢ for `factors` of each record, flat.
    pub fn sum(self, factors: &[f32]) -> Tensor<1> {
        match self {
            Entry::Whole(each) => {
                let factors = Tensor::<1>::from_data(factors, &each.device());
                match runs_here(&each) {
                    true => factors.unsqueeze::<2>().matmul(each).flatten(0, 1),
                    // Value by value: a product may round to TF32 what the norms were taken of.
                    false => (each * factors.unsqueeze_dim(1)).sum_dim(0).flatten(0, 1),
                }
            }
            Entry::Product { left, right } => {
                let [rows, tokens, a] = left.dims();
                let b = right.dims()[2];
                let factors = Tensor::<1>::from_data(factors, &left.device()).reshape([rows, 1, 1]);
                let left = left.reshape([rows * tokens, a]);
                let right = (right * factors).reshape([rows * tokens, b]);
                left.transpose().matmul(right).flatten(0, 1)
            }
            Entry::Tied(tied) => tied.sum(factors),
        }
    }
}
