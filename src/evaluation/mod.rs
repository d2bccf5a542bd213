//! What synthetic records are worth: classifiers trained on them, tested on real ones.
mod features;
pub mod linear;
pub mod metrics;

/// A labelled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text a classifier sees.
    pub text: String,
    /// Its label, an index below the number of labels.
    pub label: usize,
}
