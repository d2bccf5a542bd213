//! What a Parquet file of synthetic records says of itself, beside its columns.

use serde_json::Value;

use crate::document;
use crate::privacy::Guarantee;

document! {
    /// Key-value metadata of a shard: each key under `dp.`, the guarantee's own among them.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ShardMetadata {
        public guarantee: Guarantee,
        /// The run's name.
        public run: String,
        /// The language model's name, as the configuration has it.
        public base_model: String,
    }
}

/// What stands before each key.
const PREFIX: &str = "dp.";

impl ShardMetadata {
    /// As Parquet has them, all texts.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let own = [("run", &self.run), ("base_model", &self.base_model)];
        let own = own.map(|(key, text)| (key.to_string(), text.clone()));
        let all = texts(&self.guarantee).into_iter().chain(own);
        all.map(|(key, text)| (format!("{PREFIX}{key}"), text)).collect()
    }

    /// Whether a shard may say `key`.
    pub fn knows(key: &str) -> bool {
        let mut known = Guarantee::keys().chain(["run", "base_model"]);
        key.strip_prefix(PREFIX).is_some_and(|key| known.any(|k| k == key))
    }
}

/// Each value of a guarantee as text, a number as JSON writes it.
pub fn texts(guarantee: &Guarantee) -> Vec<(String, String)> {
    let text = |v: Value| match v {
        Value::String(text) => text,
        other => other.to_string(),
    };
    guarantee.values().into_iter().map(|(key, v)| (key, text(v))).collect()
}
