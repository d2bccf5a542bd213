//! Private training: per-example norms, one clipped sum, one draw of noise, one step.
//!
//! What may touch private gradients is here; how much noise they get is decided in [`crate::privacy`].

pub mod batch;
pub mod checkpoint;
pub mod clip;
pub mod contribution;
pub mod cross_entropy;
pub mod drawn;
pub mod entry;
pub mod gradients;
pub mod lexicon;
pub mod logits;
pub mod memory;
pub mod objective;
pub mod optimizer;
pub mod pass;
pub mod plain;
pub mod private;
pub mod probe;
mod rows;
pub mod scorer;
pub mod shapes;
pub mod taps;
pub mod tied;
pub mod trainable;
pub mod trainer;
pub mod ways;
