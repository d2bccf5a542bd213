//! Files that are there whole or not at all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use safetensors::{Dtype, SafeTensorError, View};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Writes beside `path`, flushes to disk and renames: a reader sees the old bytes or the new, never a part.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    atomically(path, |file| file.write_all(bytes))
}

/// A tensor to be written as safetensors.
pub struct Values<'a> {
    pub name: &'a str,
    pub shape: Vec<usize>,
    pub values: Cow<'a, [f32]>,
}

/// Writes `tensors` as safetensors, atomically; no more than one tensor's bytes are in memory besides its values.
///
/// # Panics
/// Where a shape does not count its values.
pub fn write_tensors(path: &Path, tensors: Vec<Values>, metadata: HashMap<String, String>) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let counted: usize = tensor.shape.iter().product();
        assert_eq!(counted, tensor.values.len(), "the shape of `{}`", tensor.name);
        views.push((tensor.name, tensor));
    }
    atomically(path, |file| {
        safetensors::serialize_to_file(views, Some(metadata), file.path()).map_err(|e| match e {
            SafeTensorError::IoError(e) => e,
            e => std::io::Error::other(e),
        })
    })
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
            .into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

fn atomically(path: &Path, write: impl FnOnce(&mut NamedTempFile) -> std::io::Result<()>) -> Result<()> {
    // A bare name stands in the working folder.
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    let failed = |e| Error::io("write", path, e);
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .permissions(readable())
        .tempfile_in(folder)
        .map_err(failed)?;
    write(&mut file).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| Error::io("write", path, e.error))?;
    // The name is on disk too, not only the bytes.
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed)
}

/// Reads what a stage wrote as JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::data(format!("{} is damaged: {e}", path.display()))
            .hint("delete it: the command that made it makes it again")
    })
}

/// What an ordinary new file gets, the umask applied; temporary files alone would be the owner's only.
fn readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// Writes one row group with zstd and the given key-value metadata, whole or not at all.
///
/// The metadata stands twice: in the file's own, where DuckDB and others look, and in the Arrow schema, which pyarrow,
/// pandas and `datasets` show in its place.
pub fn write_batch(path: &Path, batch: &RecordBatch, metadata: Vec<(String, String)>) -> Result<()> {
    let seen: HashMap<String, String> = metadata.iter().cloned().collect();
    let schema = batch.schema().as_ref().clone().with_metadata(seen);
    let batch = batch
        .clone()
        .with_schema(Arc::new(schema))
        .expect("only metadata is added");
    let metadata = metadata.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata))
        .build();
    let failed = |e: parquet::errors::ParquetError| Error::other(format!("cannot write {}: {e}", path.display()));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    write_atomically(path, &bytes)
}
