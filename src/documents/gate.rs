//! `sampling/copy_gate.json`: how many training units share a phrase with a record that is to leave, counted with noise.

use std::collections::BTreeMap;

use crate::document;

document! {
    /// What the gate counted, once: its noise is charged, so that all of it may leave.
    #[derive(Clone, Debug, PartialEq)]
    pub struct GateCount {
        /// Of the count, a part of the run's.
        public epsilon: f64,
        /// Units that share so many words in a row with a record were counted.
        public shared_words: usize,
        /// With exact discrete Laplace noise of scale 1/epsilon, so that it may be below 0.
        charged noisy_matched_units: i64,
        /// SHA-256 of the shards whose records were looked for, by file name.
        post_processing shards: BTreeMap<String, String>,
    }
}
