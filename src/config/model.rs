//! `[model]`: which language model is fine-tuned.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which language model is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Name of a model in `pipelines/assets.toml`.
    pub asset: String,
    /// A local file that is used instead; its sha256 is recorded, not checked.
    pub path: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            asset: "smollm2-135m-instruct".into(),
            path: None,
        }
    }
}
