//! Tokenised training records on disk, in an Arrow file: written as they come, and read by number.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, AsArray, ListBuilder, RecordBatch, UInt32Array, UInt32Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use tempfile::NamedTempFile;

use crate::files::{self, temporary};
use crate::records::{Drawable, Encoded, Units};
use crate::{Error, Result};

/// Records a batch: what is read for one member. All batches but the last have as many.
const BATCH: usize = 256;

fn schema() -> SchemaRef {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::UInt32, true)));
    let of = |name: &str, kind| Field::new(name, kind, false);
    Arc::new(Schema::new(vec![
        of("unit", DataType::UInt32),
        of("label", DataType::UInt32),
        of("prompt", DataType::UInt32),
        of("tokens", list),
    ]))
}

/// Writes records one after the other; nothing is there until it is finished.
pub struct TokenWriter {
    path: PathBuf,
    writer: FileWriter<NamedTempFile>,
    waiting: Vec<(u32, Encoded)>,
}

impl TokenWriter {
    /// # Errors
    /// Other: the file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let writer = FileWriter::try_new(temporary(path)?, &schema()).map_err(|e| unwritten(path, e))?;
        Ok(TokenWriter {
            path: path.to_path_buf(),
            writer,
            waiting: Vec::new(),
        })
    }

    /// A record and the number of its unit.
    ///
    /// # Errors
    /// Other: a full disk.
    pub fn add(&mut self, unit: u32, record: Encoded) -> Result<()> {
        self.waiting.push((unit, record));
        match self.waiting.len() < BATCH {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&mut self) -> Result<()> {
        let numbers = |of: fn(&(u32, Encoded)) -> u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(self.waiting.iter().map(of)))
        };
        let mut tokens = ListBuilder::new(UInt32Builder::new());
        for (_, record) in &self.waiting {
            tokens.values().append_slice(&record.tokens);
            tokens.append(true);
        }
        let columns: Vec<ArrayRef> = vec![
            numbers(|(unit, _)| *unit),
            numbers(|(_, r)| r.label as u32),
            numbers(|(_, r)| r.prompt as u32),
            Arc::new(tokens.finish()),
        ];
        let batch = RecordBatch::try_new(schema(), columns).map_err(|e| unwritten(&self.path, e))?;
        self.writer.write(&batch).map_err(|e| unwritten(&self.path, e))?;
        self.waiting.clear();
        Ok(())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Other: a full disk.
    pub fn finish(mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.write()?;
        }
        self.writer.finish().map_err(|e| unwritten(&self.path, e))?;
        let file = self.writer.into_inner().map_err(|e| unwritten(&self.path, e))?;
        files::persist(file, &self.path)
    }
}

/// The units of what [`TokenWriter`] wrote: their numbers are in memory, their records on disk.
pub struct StoredUnits {
    path: PathBuf,
    reader: Mutex<FileReader<File>>,
    /// The records of each unit, unit after unit; none where record `i` is unit `i`.
    rows: Option<Rows>,
    units: usize,
}

struct Rows {
    rows: Vec<u32>,
    /// Where each unit's begin; one entry more than there are units.
    starts: Vec<u32>,
}

impl StoredUnits {
    /// Of each unit the first `max_records` records are used.
    ///
    /// # Errors
    /// Data: the file is damaged.
    pub fn open(path: &Path, max_records: usize) -> Result<Self> {
        let units = column(path, 0)?;
        let own = units.iter().zip(0u32..).all(|(unit, row)| *unit == row);
        let mut rows: Vec<u32> = if own {
            Vec::new()
        } else {
            (0..units.len() as u32).collect()
        };
        // In the order of their units, and within one of the file.
        rows.sort_by_key(|row| units[*row as usize]);
        let (mut kept, mut starts) = (Vec::new(), vec![0]);
        for of_unit in rows.chunk_by(|a, b| units[*a as usize] == units[*b as usize]) {
            kept.extend(of_unit.iter().take(max_records));
            starts.push(kept.len() as u32);
        }
        Ok(StoredUnits {
            path: path.to_path_buf(),
            reader: Mutex::new(open(path, vec![1, 2, 3])?),
            units: if own { units.len() } else { starts.len() - 1 },
            rows: (!own).then_some(Rows { rows: kept, starts }),
        })
    }

    /// Where the records of a unit stand.
    fn rows(&self, unit: usize) -> Vec<u32> {
        match &self.rows {
            None => vec![unit as u32],
            Some(rows) => rows.rows[rows.starts[unit] as usize..rows.starts[unit + 1] as usize].to_vec(),
        }
    }

    /// All records in memory.
    ///
    /// # Errors
    /// Data: the file is damaged.
    pub fn load(&self) -> Result<Units> {
        self.drawn(&(0..self.units).collect::<Vec<_>>())
    }

    /// How many records each of `labels` joint labels has, of those that are used.
    ///
    /// # Errors
    /// Data: the file is damaged.
    pub fn label_counts(&self, labels: usize) -> Result<Vec<u64>> {
        let of_row = column(&self.path, 1)?;
        let mut counts = vec![0; labels];
        match &self.rows {
            None => of_row.iter().for_each(|label| counts[*label as usize] += 1),
            Some(rows) => rows
                .rows
                .iter()
                .for_each(|row| counts[of_row[*row as usize] as usize] += 1),
        }
        Ok(counts)
    }
}

impl Drawable for StoredUnits {
    fn units(&self) -> usize {
        self.units
    }

    fn drawn(&self, members: &[usize]) -> Result<Units> {
        let rows: Vec<Vec<u32>> = members.iter().map(|unit| self.rows(*unit)).collect();
        let mut wanted: Vec<u32> = rows.iter().flatten().copied().collect();
        wanted.sort_unstable();
        let mut reader = self.reader.lock().expect("no panic while reading");
        let mut read = std::collections::HashMap::with_capacity(wanted.len());
        for of_batch in wanted.chunk_by(|a, b| *a as usize / BATCH == *b as usize / BATCH) {
            let first = of_batch[0] as usize / BATCH;
            let failed = |e: &ArrowError| damaged(&self.path, e);
            reader.set_index(first).map_err(|e| failed(&e))?;
            let batch = reader.next().ok_or_else(|| cut(&self.path))?.map_err(|e| failed(&e))?;
            let (labels, prompts) = (numbers(&self.path, &batch, 0)?, numbers(&self.path, &batch, 1)?);
            let tokens = batch.column(2).as_list_opt::<i32>().ok_or_else(|| cut(&self.path))?;
            for row in of_batch {
                let at = *row as usize % BATCH;
                if at >= batch.num_rows() {
                    return Err(cut(&self.path));
                }
                let own = tokens.value(at);
                let own = own.as_primitive_opt::<UInt32Type>().ok_or_else(|| cut(&self.path))?;
                read.insert(
                    *row,
                    Encoded {
                        tokens: own.values().to_vec(),
                        prompt: prompts[at] as usize,
                        label: labels[at] as usize,
                    },
                );
            }
        }
        let mut out = Units::empty();
        for of_unit in rows {
            out.push(of_unit.iter().map(|row| read[row].clone()).collect());
        }
        Ok(out)
    }
}

fn open(path: &Path, columns: Vec<usize>) -> Result<FileReader<File>> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    FileReader::try_new(file, Some(columns)).map_err(|e| damaged(path, &e))
}

/// A column of numbers, of all records.
fn column(path: &Path, column: usize) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for batch in open(path, vec![column])? {
        all.extend(numbers(path, &batch.map_err(|e| damaged(path, &e))?, 0)?);
    }
    Ok(all)
}

fn numbers(path: &Path, batch: &RecordBatch, column: usize) -> Result<Vec<u32>> {
    let column = batch
        .columns()
        .get(column)
        .and_then(|c| c.as_primitive_opt::<UInt32Type>());
    column.map(|c| c.values().to_vec()).ok_or_else(|| cut(path))
}

fn cut(path: &Path) -> Error {
    Error::data(format!("{} is damaged: records are missing", path.display())).hint(AGAIN)
}

fn damaged(path: &Path, error: &ArrowError) -> Error {
    Error::data(format!("{} is damaged: {error}", path.display())).hint(AGAIN)
}

/// What mends it.
const AGAIN: &str = "delete the run's internal/stamps/prepare.json and run again";

fn unwritten(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, e) => Error::io("write", path, e),
        e => Error::other(format!("cannot write {}: {e}", path.display())),
    }
}
