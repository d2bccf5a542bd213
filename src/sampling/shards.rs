//! Synthetic records as Parquet shards that pandas, polars, DuckDB and `datasets.load_dataset` read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::files;
use crate::records::LabelSpace;
use crate::{Error, Result};

/// A synthetic record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Synthetic {
    pub id: u64,
    /// Joint label.
    pub label: usize,
    pub text: String,
}

/// What the shards hold besides the records.
pub struct Schema<'a> {
    /// Name of the text column.
    pub text: &'a str,
    pub labels: &'a LabelSpace,
    /// Key-value metadata of each file.
    pub metadata: Vec<(String, String)>,
}

/// Writes `train-00000-of-0000N.parquet` and so on, then puts the whole folder in place. No record makes one empty shard.
pub fn write(folder: &Path, records: &[Synthetic], shard_records: usize, schema: &Schema) -> Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    let building = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent);
    let building = building.map_err(|e| Error::io("make a folder in", parent, e))?;
    let inside = building.path().join("shards");
    let shards: Vec<&[Synthetic]> = match records.is_empty() {
        true => vec![records],
        false => records.chunks(shard_records).collect(),
    };
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("train-{i:05}-of-{:05}.parquet", shards.len());
        files::write_batch(&inside.join(name), &batch(shard, schema), schema.metadata.clone())?;
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(|e| Error::io("replace", folder, e))?;
    }
    std::fs::rename(&inside, folder).map_err(|e| Error::io("move the shards to", folder, e))
}

/// The shards in `folder`, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("read", folder, e);
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "parquet") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

fn batch(records: &[Synthetic], schema: &Schema) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.id as i64)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(records.iter().map(|r| &r.text)));
    let mut columns = vec![("id".to_string(), ids), (schema.text.to_string(), texts)];
    let labels: Vec<Option<usize>> = records.iter().map(|r| Some(r.label)).collect();
    columns.extend(schema.labels.arrays(&labels));
    RecordBatch::try_from_iter(columns).expect("columns are equally long")
}
