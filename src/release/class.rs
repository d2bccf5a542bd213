//! Rule P9: each value that leaves is public, charged, or computed from what is.
//!
//! What a run's files say beyond these lists is not published: nobody has said why it may be.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Serialize;
use serde_json::Value;

use crate::config::RunConfig;
use crate::privacy::mechanisms;
use crate::{Error, Result};

/// Why a value may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Fixed or declared before any record was read.
    Public,
    /// An output of the mechanism that the ledger was charged for.
    Charged,
    /// Computed from public and charged values alone.
    PostProcessing,
}

impl Class {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Class::Public => "public",
            Class::Charged => "charged",
            Class::PostProcessing => "post-processing",
        }
    }
}

/// What `model/privacy.json` may hold, and every shard under `dp.`: all of it follows from the plan.
fn guarantee_keys() -> Vec<&'static str> {
    let own = [
        "caveat",
        "epsilon",
        "epsilon_lower",
        "delta",
        "adjacency",
        "unit",
        "sampler",
        "accountant",
        "private",
    ];
    own.into_iter().chain(mechanisms::keys()).collect()
}

/// What a shard's metadata may hold besides.
const SHARD: [&str; 3] = ["dp.run", "dp.base_model", "ARROW:schema"];

/// What `sampling/<arm>.json` may hold: counts and scores of synthetic records by the model that drew them.
const SAMPLED: [&str; 15] = [
    "arm",
    "guidance",
    "wanted",
    "drawn",
    "kept",
    "dropped",
    "relabelled",
    "missing",
    "blank",
    "refine",
    "rounds",
    "agreement",
    "mean_posterior",
    "kept_mean_posterior",
    "labels",
];

/// The same of each label.
const SAMPLED_LABEL: [&str; 9] = [
    "name",
    "wanted",
    "drawn",
    "kept",
    "relabelled",
    "dropped",
    "missing",
    "blank",
    "bias",
];

/// Keys of a guarantee that nobody has classified.
pub fn of_guarantee(guarantee: &Value) -> Vec<String> {
    unknown(guarantee, &guarantee_keys())
}

/// Keys of a summary of sampling that nobody has classified.
pub fn of_sampling(sampled: &Value) -> Vec<String> {
    let labels = sampled["labels"].as_array().into_iter().flatten();
    let mut out = unknown(sampled, &SAMPLED);
    out.extend(
        labels
            .flat_map(|label| unknown(label, &SAMPLED_LABEL))
            .map(|key| format!("labels.{key}")),
    );
    let tried = sampled["guidance"]["tried"].as_array().into_iter().flatten();
    out.extend(
        (unknown(&sampled["guidance"], &["guidance", "tried"]).into_iter())
            .chain(tried.flat_map(|tried| unknown(tried, &["guidance", "mean_posterior"])))
            .map(|key| format!("guidance.{key}")),
    );
    out.dedup();
    out
}

/// Columns and metadata of a shard that nobody has classified.
///
/// # Errors
/// Data: it is no Parquet file.
pub fn of_shard(path: &Path, config: &RunConfig) -> Result<Vec<String>> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let reader = SerializedFileReader::new(file)
        .map_err(|e| Error::data(format!("{} is damaged: {e}", path.display())).hint("draw the records again"))?;
    let metadata = reader.metadata().file_metadata();
    let dataset = &config.dataset;
    let declared = |name: &str| {
        name == "id" || name == dataset.text.written() || dataset.labels.iter().any(|label| label.written() == name)
    };
    let columns = metadata.schema().get_fields().iter().map(|f| f.name());
    let mut out: Vec<String> = columns
        .filter(|name| !declared(name))
        .map(|name| format!("column `{name}`"))
        .collect();
    let guarantee = guarantee_keys();
    let known = |key: &str| SHARD.contains(&key) || key.strip_prefix("dp.").is_some_and(|k| guarantee.contains(&k));
    let keys = metadata.key_value_metadata().into_iter().flatten().map(|kv| &kv.key);
    out.extend(keys.filter(|key| !known(key)).map(|key| format!("metadata `{key}`")));
    Ok(out)
}

fn unknown(value: &Value, known: &[&str]) -> Vec<String> {
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| key);
    keys.filter(|key| !known.contains(&key.as_str())).cloned().collect()
}
