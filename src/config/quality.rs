//! `[evaluate.quality]`: what is measured of the records themselves.

use serde::{Deserialize, Serialize};

use super::rules::{self, refuse};
use crate::Result;

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

impl QualityConfig {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        rules::at_least_one(&[
            ("evaluate.quality.records", self.records),
            ("evaluate.quality.encoder_records", self.encoder_records),
            ("evaluate.quality.shared_words", self.shared_words),
        ])?;
        match self.shared_words > 50 {
            // A copy gate that looks for longer ones finds nothing.
            true => refuse(
                "evaluate.quality.shared_words",
                "at most 50",
                self.shared_words.to_string(),
            ),
            false => Ok(()),
        }
    }
}
