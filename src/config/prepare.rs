//! `[prepare]`: reading, cleaning and tokenising.

use serde::{Deserialize, Serialize};

use super::rules;
use crate::Result;

/// Reading, cleaning and tokenising.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareConfig {
    /// Replaces `<br />` by a line break.
    pub replace_html_breaks: bool,
    /// Longest record in tokens, its end token included; the rest is cut off.
    pub max_tokens: usize,
    /// Keeps only the first this many held-out records (after a fixed shuffle); default: all.
    pub max_test_records: Option<usize>,
}

impl Default for PrepareConfig {
    fn default() -> Self {
        PrepareConfig {
            replace_html_breaks: true,
            max_tokens: 300,
            max_test_records: None,
        }
    }
}

impl PrepareConfig {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        rules::at_least_one(&[("prepare.max_tokens", self.max_tokens)])?;
        rules::at_least_one_if_given(&[("prepare.max_test_records", self.max_test_records)])
    }
}
