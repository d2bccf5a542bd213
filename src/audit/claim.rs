//! What the run claims: its `model/privacy.json`, whole.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::pipeline::RunFolder;
use crate::pipeline::files::read_json;
use crate::privacy::sentence;
use crate::{Error, Result};

/// The guarantee as the run wrote it. What the audit does not compute with is kept as it stands (P10).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    pub epsilon: f64,
    pub delta: f64,
    pub noise_multiplier: f64,
    pub sampling_rate: f64,
    pub steps: u64,
    /// False where the randomness came from a fixed seed: then nothing is claimed, and the audit is of what would be.
    pub private: bool,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Claim {
    /// The claim of the run in `folder`.
    ///
    /// # Errors
    /// Usage: nothing is trained yet. Data: the file is damaged.
    pub fn read(folder: &RunFolder) -> Result<Self> {
        let path = folder.guarantee();
        if !path.exists() || !folder.trained().exists() || !folder.train_records().exists() {
            return Err(
                Error::usage(format!("{} has no trained model to audit", folder.root().display()))
                    .hint("`dpsynth run` or `dpsynth finetune` comes first"),
            );
        }
        read_json(&path)
    }

    /// It in a line (P10).
    pub fn sentence(&self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::Object(guarantee)) => sentence(&guarantee),
            _ => "?".into(),
        }
    }

    /// A text of the claim, such as `adjacency`.
    pub fn text(&self, key: &str) -> &str {
        self.rest.get(key).and_then(Value::as_str).unwrap_or("?")
    }
}
