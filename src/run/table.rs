//! Records as Parquet, inside the run's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::NamedTempFile;

use super::RunPaths;
use super::tokens::{StoredUnits, TokenWriter};
use crate::config::{PrepareConfig, RunConfig};
use crate::files;
use crate::records::{Encoded, LabelSpace, Record, read};
use crate::sampling::shards;
use crate::{Error, Result};

/// Records a row group: what the writer holds in memory.
const ROW_GROUP: usize = 1 << 16;

/// Writes records one after the other; nothing is there until it is finished.
pub struct RecordWriter {
    path: PathBuf,
    writer: ArrowWriter<NamedTempFile>,
    waiting: Vec<Record>,
}

impl RecordWriter {
    /// # Errors
    /// Other: the file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .build();
        let schema = batch(&[]).schema();
        let writer = ArrowWriter::try_new(files::temporary(path)?, schema, Some(properties));
        Ok(RecordWriter {
            path: path.to_path_buf(),
            writer: writer.map_err(|e| unwritten(path, &e))?,
            waiting: Vec::new(),
        })
    }

    /// # Errors
    /// Other: a full disk.
    pub fn add(&mut self, record: Record) -> Result<()> {
        self.waiting.push(record);
        match self.waiting.len() < 1024 {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&mut self) -> Result<()> {
        let written = self.writer.write(&batch(&self.waiting));
        self.waiting.clear();
        written.map_err(|e| unwritten(&self.path, &e))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Other: a full disk.
    pub fn finish(mut self) -> Result<()> {
        self.write()?;
        let file = self.writer.into_inner().map_err(|e| unwritten(&self.path, &e))?;
        files::persist(file, &self.path)
    }
}

fn batch(records: &[Record]) -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(records.iter().map(|r| &r.text)));
    let labels: ArrayRef = Arc::new(UInt32Array::from_iter_values(records.iter().map(|r| r.label as u32)));
    let units: ArrayRef = Arc::new(UInt32Array::from_iter_values(records.iter().map(|r| r.unit)));
    RecordBatch::try_from_iter([("text", texts), ("label", labels), ("unit", units)]).expect("columns are equally long")
}

fn unwritten(path: &Path, error: &ParquetError) -> Error {
    Error::other(format!("cannot write {}: {error}", path.display()))
        .hint("free some space there, and run the same command again")
}

/// Texts, joint labels and units of what [`RecordWriter`] wrote.
pub fn read_records(path: &Path) -> Result<Vec<Record>> {
    let mut out = Vec::new();
    for batch in batches(path)? {
        let (texts, labels) = (column(path, &batch, "text")?, column(path, &batch, "label")?);
        let units = column(path, &batch, "unit")?;
        let (labels, units) = (labels.as_primitive::<UInt32Type>(), units.as_primitive::<UInt32Type>());
        let rows = texts.as_string::<i32>().iter().zip(labels.values()).zip(units.values());
        out.extend(rows.map(|((t, l), u)| Record {
            text: t.unwrap_or_default().to_string(),
            label: *l as usize,
            unit: *u,
        }));
    }
    Ok(out)
}

/// The records of an arm's folder of shards.
pub fn read_shards(folder: &Path, config: &RunConfig) -> Result<Vec<Record>> {
    read_files(&shards::files(folder)?, config)
}

/// The records of shards, read as anyone else would read them.
pub fn read_files(files: &[PathBuf], config: &RunConfig) -> Result<Vec<Record>> {
    // Synthetic records belong to nobody, and stand as they were written.
    let dataset = config.dataset.as_written();
    let labels = &LabelSpace::from_config(&dataset.labels)?;
    let as_written = PrepareConfig {
        replace_html_breaks: false,
        ..config.prepare.clone()
    };
    let mut out = Vec::new();
    for file in files {
        out.extend(read(file, &dataset, labels, &as_written)?.0);
    }
    Ok(out)
}

/// The units of a run's training records. Earlier versions of the program kept tokens beside the texts: they are written
/// where they are read from now, once.
pub fn units(folder: &RunPaths, max_records: usize) -> Result<StoredUnits> {
    let path = folder.tokens();
    if !path.exists() {
        tokens_beside_texts(&folder.train_records(), &path)?;
    }
    StoredUnits::open(&path, max_records)
}

fn tokens_beside_texts(from: &Path, to: &Path) -> Result<()> {
    let mut writer = TokenWriter::new(to)?;
    for batch in batches(from)? {
        let (labels, prompts) = (column(from, &batch, "label")?, column(from, &batch, "prompt")?);
        let (tokens, units) = (column(from, &batch, "tokens")?, column(from, &batch, "unit")?);
        let numbers = |array: &ArrayRef| array.as_primitive::<UInt32Type>().values().to_vec();
        let (labels, prompts, units) = (numbers(&labels), numbers(&prompts), numbers(&units));
        let tokens = tokens.as_list::<i32>();
        for row in 0..batch.num_rows() {
            let record = Encoded {
                tokens: numbers(&tokens.value(row)),
                prompt: prompts[row] as usize,
                label: labels[row] as usize,
            };
            writer.add(units[row], record)?;
        }
    }
    writer.finish()
}

fn batches(path: &Path) -> Result<Vec<RecordBatch>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let failed = |what: String| {
        Error::data(format!("{} is damaged: {what}", path.display()))
            .hint("delete the run's internal/stamps/prepare.json and run again")
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| failed(e.to_string()))?;
    let reader = reader.build().map_err(|e| failed(e.to_string()))?;
    reader
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| failed(e.to_string()))
}

fn column(path: &Path, batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let column = batch.column_by_name(name).cloned();
    column.ok_or_else(|| Error::data(format!("{} has no column `{name}`", path.display())))
}
