//! Shapes that no neighbour decides (rule P5).
//!
//! A GPU's products choose how they add up by the shapes at hand: the longest neighbour and how many there are would decide
//! how a record is rounded. There a micro-batch is padded to a length that each of its records has by itself, and filled up
//! to a number of records that is the same for all. On a CPU padding costs too much; a longer neighbour moves a norm by less
//! than 1e-6, and audits hold that against the declared allowance.

use burn::tensor::Device;

use crate::models::device;
use crate::records::Encoded;

/// Tokens between one length and the next.
const STEP: usize = 64;

/// Who decides the shapes of micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// The records at hand.
    AsNeeded,
    /// Lengths in steps, as far as the model's context goes, and each micro-batch full.
    Fixed { context: usize },
}

impl Shapes {
    /// Those that `device` needs, for a model of this context.
    pub fn of(device: &Device, context: usize) -> Self {
        match device::name(device) == "cpu" {
            true => Shapes::AsNeeded,
            false => Shapes::Fixed { context },
        }
    }

    /// What a row of `len` tokens is padded to, at least.
    pub fn padded(self, len: usize) -> usize {
        match self {
            Shapes::AsNeeded => len,
            Shapes::Fixed { context } => len.next_multiple_of(STEP).min(context).max(len),
        }
    }

    /// Records that a micro-batch is filled up to, where `at_once` go through at once.
    pub fn room(self, at_once: usize) -> usize {
        match self {
            Shapes::AsNeeded => 0,
            Shapes::Fixed { .. } => at_once,
        }
    }
}

/// A row that fills a place: of nobody, with no part in any sum, and shorter than any record's.
pub fn nobody() -> Encoded {
    Encoded {
        tokens: vec![0; 2],
        prompt: 1,
        label: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_lengths_are_a_records_own() {
        let fixed = Shapes::Fixed { context: 200 };
        assert_eq!(
            [1, 64, 65, 190, 200].map(|len| fixed.padded(len)),
            [64, 64, 128, 192, 200]
        );
        // Longer than its context a model may be read all the same.
        assert_eq!(fixed.padded(230), 230);
        assert_eq!(Shapes::AsNeeded.padded(65), 65);
        assert_eq!((fixed.room(32), Shapes::AsNeeded.room(32)), (32, 0));
    }
}
