//! File formats that hold weights.

pub mod gguf;
