//! File formats that hold weights.

pub mod blocks;
pub mod gguf;
pub mod hub;
pub mod shard;
