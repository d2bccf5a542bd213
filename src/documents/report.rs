//! `report.json`: what a run came to. Internal: utility and counts are computed from private records (P9).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Sampled;
use super::Stage;
use crate::document;
use crate::evaluation::quality::Quality;
use crate::evaluation::{Reference, UtilityRow};
use crate::privacy::Guarantee;

document! {
    /// What a run came to.
    #[derive(Clone, Debug)]
    pub struct Report {
        public run: String,
        /// "internal": this file is not part of a release.
        public classification: Cow<'static, str>,
        /// The guarantee of the trained model and of everything sampled from it; none before training.
        public privacy: Option<Guarantee>,
        /// Arms at equal sizes and steps.
        internal utility: Vec<UtilityRow>,
        /// The synthetic arm with all its records.
        #[serde(default)]
        internal all_synthetic: Vec<UtilityRow>,
        /// The real arm with all its records.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        internal all_real: Vec<UtilityRow>,
        /// The linear classifier by number of records.
        #[serde(default)]
        internal size_curve: Vec<UtilityRow>,
        /// Classifiers that are not trained on an arm.
        #[serde(default)]
        internal references: Vec<Reference>,
        /// How many of each arm's records were drawn, kept, dropped and relabelled.
        #[serde(default)]
        post_processing sampling: BTreeMap<String, Sampled>,
        /// What the records are like, beside real ones; none where it was not measured.
        #[serde(default)]
        internal quality: Option<Quality>,
        internal records: Option<Records>,
        /// What all runs on these records have spent.
        #[serde(default)]
        internal ledger: Option<Spent>,
        /// Wall time of each stage in order, over all attempts that ended in order.
        internal timings_s: BTreeMap<Stage, f64>,
        /// The largest of the stages' peaks.
        internal peak_rss_bytes: u64,
        /// SHA-256 of the resolved configuration.
        public config_hash: String,
        public program_version: Cow<'static, str>,
    }
}

document! {
    /// The dataset's ledger. Adjacency, unit, sampler and accountant are those of the run's own guarantee.
    #[derive(Clone, Debug)]
    pub struct Spent {
        internal path: PathBuf,
        /// Of all runs composed.
        public charged_epsilon: f64,
        /// What of the total is taken where another run is planned now; none of an earlier version of the program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public counted_epsilon: Option<f64>,
        /// What they may spend together.
        public total_epsilon: f64,
        public delta: f64,
    }
}

document! {
    /// How many records were read.
    #[derive(Clone, Debug)]
    pub struct Records {
        internal train: Counts,
        internal test: Counts,
        /// Held-out records that were kept for evaluation.
        internal test_evaluated: usize,
        /// Texts in both splits.
        internal shared_texts: usize,
        /// Training records cut at `prepare.max_tokens`.
        internal cut: usize,
    }
}

document! {
    /// Rows of a file.
    #[derive(Clone, Debug)]
    pub struct Counts {
        internal read: usize,
        internal kept: usize,
        /// By reason.
        internal dropped: BTreeMap<String, usize>,
    }
}

impl Report {
    /// Whether the stage is done.
    pub fn is_done(&self, stage: Stage) -> bool {
        self.timings_s.contains_key(&stage)
    }
}
