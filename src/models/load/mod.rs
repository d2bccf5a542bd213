//! File formats that hold weights.

pub mod gguf;
pub mod hub;
