//! `internal/training.jsonl`: a line a training step.

use std::path::Path;

use crate::document;

document! {
    /// What a step looked like.
    #[derive(Clone, Debug)]
    pub struct StepLog {
        /// Index of the charge that paid for it.
        public charge: u64,
        /// Units drawn.
        internal drawn: usize,
        /// Mean over the drawn records of their loss per token; none for an empty draw.
        internal mean_loss: Option<f64>,
        /// Mean norm before clipping.
        internal mean_norm: Option<f64>,
        /// Tokens that went through the model.
        internal tokens: usize,
        internal seconds: f64,
    }
}

impl StepLog {
    /// The lines in `path`, without a last one that was cut off; nothing where there is no file.
    pub fn lines(path: &Path) -> Vec<StepLog> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }
}
