//! `sampling/<arm>.json`: counts and scores of synthetic records, by the model that drew them.

use crate::config::RefineConfig;
use crate::document;
use crate::sampling::guide::{Found, FoundWeight};

document! {
    /// How many records of an arm were drawn, kept and dropped, and how well labels show in them.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Sampled {
        /// `synthetic`, `zero_shot` or `non_private`.
        public arm: String,
        /// How γ was found; none where it was given.
        post_processing guidance: Option<Found>,
        /// How the lexicon's weight was found; none where it was given, or there is no lexicon.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        post_processing lexicon_weight: Option<FoundWeight>,
        /// Places for records, all labels together.
        public wanted: usize,
        post_processing drawn: usize,
        /// Records in the shards.
        post_processing kept: usize,
        post_processing dropped: usize,
        post_processing relabelled: usize,
        post_processing missing: usize,
        /// Candidates that stayed blank.
        post_processing blank: usize,
        public refine: RefineConfig,
        /// Rounds that were drawn.
        post_processing rounds: u64,
        /// See [`Outcome`](crate::sampling::refine::Outcome), as the next two.
        post_processing agreement: Option<f64>,
        post_processing mean_posterior: Option<f64>,
        post_processing kept_mean_posterior: Option<f64>,
        post_processing labels: Vec<SampledLabel>,
    }
}

document! {
    /// The same of a label.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SampledLabel {
        public name: String,
        /// Records that the prior wants: it is declared, or charged.
        charged wanted: usize,
        /// Requests for it in all rounds; each draws one candidate, blank or not.
        post_processing drawn: usize,
        /// Records that bear it in the end.
        post_processing kept: usize,
        /// Of those, how many were asked for under another label.
        post_processing relabelled: usize,
        /// Candidates asked for under it that nobody took.
        post_processing dropped: usize,
        /// Places that stayed empty.
        post_processing missing: usize,
        /// In nats; none where nothing was centred.
        post_processing bias: Option<f64>,
    }
}
