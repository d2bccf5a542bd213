//! Files that are there whole or not at all.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Once};

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
    write_views(path, views, metadata)
}

/// The same of tensors of any type.
pub fn write_views<V: View>(path: &Path, views: Vec<(&str, V)>, metadata: HashMap<String, String>) -> Result<()> {
    atomically(path, |file| {
        let permissions = file.as_file().metadata()?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), file.path()).map_err(|e| match e {
            SafeTensorError::IoError(e) => e,
            e => std::io::Error::other(e),
        })?;
        // It puts a file of its own in the place of ours: for the owner only, and not on disk yet.
        let written = std::fs::File::open(file.path())?;
        written.set_permissions(permissions)?;
        written.sync_all()
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
    let mut file = temporary(path)?;
    write(&mut file).map_err(|e| Error::io("write", path, e))?;
    persist(file, path)
}

/// A file beside `path`, to be written and put in its place by [`persist`].
pub fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = beside(path);
    std::fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    tempfile::Builder::new()
        .prefix(".writing-")
        .permissions(readable())
        .tempfile_in(folder)
        .map_err(|e| Error::io("write", path, e))
}

/// Flushes to disk and renames.
pub fn persist(file: NamedTempFile, path: &Path) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_name(path).map_err(failed)
}

/// Renames a file that is on disk to `path`, in the same folder.
pub fn put_in_place(file: &Path, path: &Path) -> Result<()> {
    std::fs::rename(file, path)
        .and_then(|()| sync_name(path))
        .map_err(|e| Error::io("write", path, e))
}

/// The name is on disk too, not only the bytes.
fn sync_name(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(beside(path))?.sync_all()
}

/// The folder that `path` stands in: a bare name's is the working folder.
fn beside(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
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

/// Writes one row group with zstd and the given key-value metadata, whole or not at all; see [`parquet`].
pub fn write_batch(path: &Path, batch: &RecordBatch, metadata: Vec<(String, String)>) -> Result<()> {
    let bytes = parquet(std::slice::from_ref(batch), metadata)
        .map_err(|e| Error::other(format!("cannot write {}: {e}", path.display())))?;
    write_atomically(path, &bytes)
}

/// Batches of one schema as a Parquet file with zstd and the given key-value metadata in place of their own; the same
/// bytes for the same values.
///
/// The metadata stands twice: in the file's own, where DuckDB and others look, and in the Arrow schema, which pyarrow,
/// pandas and `datasets` show in its place.
///
/// # Panics
/// Without a batch.
pub fn parquet(
    batches: &[RecordBatch],
    metadata: Vec<(String, String)>,
) -> std::result::Result<Vec<u8>, parquet::errors::ParquetError> {
    let seen: HashMap<String, String> = metadata.iter().cloned().collect();
    let schema = batches.first().expect("a batch").schema();
    let schema = Arc::new(schema.as_ref().clone().with_metadata(seen));
    let metadata = metadata.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties))?;
    for batch in batches {
        let batch = batch
            .clone()
            .with_schema(schema.clone())
            .expect("only metadata differs");
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok(bytes)
}

/// Runs `work`, which reads a stranger's file. The readers of Parquet, Arrow and tokenizers panic on some that are
/// damaged: that is an error like another.
///
/// # Errors
/// What `work` says. Data: it panicked.
pub fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    thread_local! {
        static READING: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !READING.get() {
                before(info);
            }
        }));
    });
    let outer = READING.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    READING.set(outer);
    outcome.unwrap_or_else(|_| {
        Err(Error::data(format!("{} is damaged", path.display()))
            .hint("the file may be cut off or changed; fetch or write it again"))
    })
}
