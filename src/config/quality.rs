//! What is measured of the records themselves.

use serde::{Deserialize, Serialize};

/// Measuring what synthetic records are like, beside real ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { enabled = false }")]
pub struct QualityConfig {
    /// Whether it is measured at all.
    pub enabled: bool,
    /// At most so many records of each side; fewer where a side has fewer. Memorisation looks at all.
    pub records: usize,
    /// At most so many of them where the encoder is needed, which reads every text; it is used where
    /// `evaluate.encoder` is on.
    pub encoder_records: usize,
    /// Records that share at least so many words in a row with a training record are counted.
    pub shared_words: usize,
}

impl Default for QualityConfig {
    fn default() -> Self {
        QualityConfig {
            enabled: true,
            records: 2_000,
            encoder_records: 2_000,
            shared_words: 10,
        }
    }
}
