//! What an audit is prepared for.

use serde::{Deserialize, Serialize};

use super::rules::refuse;
use crate::Result;

/// What an audit is prepared for before anything is trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { holdout = 0.05 }")]
pub struct AuditConfig {
    /// Share of the training units, 0 to 0.5, that never train: membership inference holds those that did against them, so
    /// that both are from one distribution. Which ones is up to the operating system's randomness.
    pub holdout: f64,
}

impl AuditConfig {
    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        match (0.0..=0.5).contains(&self.holdout) {
            true => Ok(()),
            false => refuse("audit.holdout", "a share from 0 to 0.5", self.holdout),
        }
    }
}
