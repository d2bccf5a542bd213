//! The parts of a block between its matrix products: norm, rotation, attention, gate.
//!
//! In f32 each is a kernel with its own backward, on a GPU a few for attention; in other element types it is [`composed`] of
//! Burn's operations.

use burn::tensor::{DType, Device, Tensor};

mod attention;
pub(crate) mod cached;
mod causal;
pub mod composed;
pub(crate) mod cpu;
pub(crate) mod exp;
mod gate;
pub(crate) mod gemm;
#[cfg(feature = "cuda-plain")]
pub(crate) mod gpu;
pub(crate) mod lanes;
mod norm;
mod rotary;

pub use attention::{Heads, attention};
pub use causal::causal_attention;
pub use composed::layer_norm;
pub use gate::{geglu, swiglu};
pub use norm::rms_norm;
pub use rotary::{Rotary, rotate};

/// Whether there is a kernel for this tensor.
pub(crate) fn has_kernel<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && (cfg!(feature = "cuda-plain") || x.device() == Device::flex())
}
