//! File formats that hold weights.

pub mod blocks;
pub mod gguf;
pub mod hub;
pub mod shard;

use blocks::Blocks;

/// A weight's numbers, as a file has them.
pub enum Held {
    Numbers(Vec<f32>),
    Blocks(Blocks),
}

impl Held {
    /// The numbers.
    pub fn numbers(self) -> Vec<f32> {
        match self {
            Held::Numbers(numbers) => numbers,
            Held::Blocks(blocks) => blocks.numbers(),
        }
    }
}
