//! Records as Parquet, inside the run's folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, RecordBatch, StringArray, UInt32Array, UInt32Builder};
use arrow::datatypes::UInt32Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::files::write_batch;
use crate::config::{PrepareConfig, RunConfig};
use crate::records::{Encoded, LabelSpace, Record, Units, read};
use crate::sampling::shards;
use crate::{Error, Result};

/// Records with their joint labels; `encoded` adds their tokens and prompt lengths.
pub fn write_records(path: &Path, records: &[Record], encoded: Option<&[Encoded]>) -> Result<()> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(records.iter().map(|r| &r.text)));
    let labels: ArrayRef = Arc::new(UInt32Array::from_iter_values(records.iter().map(|r| r.label as u32)));
    let units: ArrayRef = Arc::new(UInt32Array::from_iter_values(records.iter().map(|r| r.unit)));
    let mut columns = vec![("text", texts), ("label", labels), ("unit", units)];
    if let Some(encoded) = encoded {
        let mut tokens = ListBuilder::new(UInt32Builder::new());
        for e in encoded {
            tokens.values().append_slice(&e.tokens);
            tokens.append(true);
        }
        columns.push(("tokens", Arc::new(tokens.finish())));
        columns.push((
            "prompt",
            Arc::new(UInt32Array::from_iter_values(encoded.iter().map(|e| e.prompt as u32))),
        ));
    }
    let batch = RecordBatch::try_from_iter(columns).expect("columns are equally long");
    write_batch(path, &batch, Vec::new())
}

/// Texts, joint labels and units of what [`write_records`] wrote.
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
pub fn read_shards(folder: &Path, config: &RunConfig, labels: &LabelSpace) -> Result<Vec<Record>> {
    read_files(&shards::files(folder)?, config, labels)
}

/// The records of shards, read as anyone else would read them.
pub fn read_files(files: &[PathBuf], config: &RunConfig, labels: &LabelSpace) -> Result<Vec<Record>> {
    // Synthetic records belong to nobody, and stand as they were written.
    let dataset = config.dataset.without_unit();
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

/// Tokens of what [`write_records`] wrote, by unit of privacy, at most `max_records` of each.
pub fn read_units(path: &Path, max_records: usize) -> Result<Units> {
    let (mut records, mut units) = (Vec::new(), Vec::new());
    for batch in batches(path)? {
        let (labels, prompts) = (column(path, &batch, "label")?, column(path, &batch, "prompt")?);
        let (tokens, unit) = (column(path, &batch, "tokens")?, column(path, &batch, "unit")?);
        let (labels, prompts) = (
            labels.as_primitive::<UInt32Type>(),
            prompts.as_primitive::<UInt32Type>(),
        );
        let tokens = tokens.as_list::<i32>();
        for row in 0..batch.num_rows() {
            records.push(Encoded {
                tokens: tokens.value(row).as_primitive::<UInt32Type>().values().to_vec(),
                prompt: prompts.value(row) as usize,
                label: labels.value(row) as usize,
            });
        }
        units.extend(unit.as_primitive::<UInt32Type>().values());
    }
    Ok(Units::of_groups(records, &units, max_records))
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
