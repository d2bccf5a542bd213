//! `internal/prepare.json`: what was read.

use super::RunPaths;
use crate::records::ReadReport;
use crate::{Result, document, documents};

document! {
    /// What the later stages need to know of the records. Internal (P9).
    #[derive(Clone, Debug)]
    pub struct Preparation {
        /// Identity of the private dataset in the ledger: of the records as they stand in the files, before cleaning.
        internal dataset_hash: String,
        /// The population that it was declared to be of; then all of its datasets share a ledger.
        #[serde(default)]
        public population: Option<String>,
        internal train: ReadReport,
        internal test: ReadReport,
        /// Held-out records that are kept for evaluation.
        internal test_kept: usize,
        /// Texts that stand in both splits.
        internal shared_texts: usize,
        /// Training records that were cut at the longest length.
        internal cut: usize,
        /// The prompt of each joint label, in tokens.
        internal prompts: Vec<Vec<u32>>,
        /// SHA-256 of the language model's file.
        internal model_sha256: String,
    }
}

impl Preparation {
    /// What its ledger is called: by the population, or by the dataset.
    pub fn ledger(&self) -> String {
        match &self.population {
            Some(population) => format!("population-{population}"),
            None => self.dataset_hash.clone(),
        }
    }

    /// What the stage wrote.
    pub fn read(folder: &RunPaths) -> Result<Self> {
        documents::read(&folder.preparation())
    }
}
