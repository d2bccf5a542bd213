//! The parts of a block between its matrix products: norm, rotation, attention, gate.
//!
//! On the CPU in f32 each is one kernel with its own backward; elsewhere it is [`composed`] of Burn's operations.

mod attention;
pub(crate) mod cached;
mod causal;
pub mod composed;
pub(crate) mod cpu;
pub(crate) mod exp;
mod gate;
pub(crate) mod gemm;
pub(crate) mod lanes;
mod norm;
mod rotary;

pub use attention::{Heads, attention};
pub use causal::causal_attention;
pub use composed::layer_norm;
pub use gate::{geglu, swiglu};
pub use norm::rms_norm;
pub use rotary::{Rotary, rotate};
