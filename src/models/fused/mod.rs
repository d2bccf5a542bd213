//! The parts of a block between its matrix products: norm, rotation, attention, gate.

mod attention;
pub(crate) mod cached;
mod gate;
mod norm;
mod rotary;

pub use attention::{Heads, attention, causal_attention};
pub use gate::swiglu;
pub use norm::rms_norm;
pub use rotary::{Rotary, rotate};
