//! Label-conditioned sampling: post-processing of the trained model, free of privacy cost whatever its settings.
//!
//! This room takes a model, prompts and public settings; it has no handle to private records.

pub mod choose;
pub mod decode;
pub mod prior;
pub mod queue;
pub mod refine;
pub mod score;
pub mod shards;
