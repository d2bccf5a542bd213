//! Parquet and Arrow: batches of typed columns.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::names::{Header, Names};
use super::value::{Place, Row, Value};
use super::{Each, Format, Table, Wanted, unreadable};
use crate::files::guarded;
use crate::hash::hex;
use crate::{Error, Result};

/// Rows that are in memory at once.
const ROWS: usize = 1024;

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>>>;

/// Names and types of the columns.
pub fn schema(table: &Table) -> Result<SchemaRef> {
    guarded(&table.path, || read_schema(table))
}

fn read_schema(table: &Table) -> Result<SchemaRef> {
    let path = table.path.as_path();
    let file = open(path)?;
    match table.format {
        Format::Parquet => Ok(parquet(path, file)?.schema().clone()),
        Format::Arrow => FileReader::try_new(file, None)
            .map(|r| r.schema())
            .map_err(|e| broken(path, &e)),
        _ => StreamReader::try_new(file, None)
            .map(|r| r.schema())
            .map_err(|e| broken(path, &e)),
    }
}

/// Gives each row's `wanted` cells to `each`; no other column is read.
pub fn rows(table: &Table, wanted: &Wanted, each: &mut Each) -> Result<()> {
    let path = table.path.as_path();
    let names: Vec<String> = schema(table)?.fields().iter().map(|f| f.name().clone()).collect();
    let header = Header {
        path,
        names: &names,
        kind: Names::Schema,
    };
    let at = header.find(wanted)?;
    let (mut batches, total) = guarded(path, || batches(table, &at))?;
    let mut row = 0;
    loop {
        // What is done with a row is not guarded: its mistakes are ours.
        let columns = guarded(path, || match batches.next() {
            None => Ok(None),
            Some(batch) => cells(path, &batch.map_err(|e| broken(path, &e))?, wanted).map(Some),
        })?;
        let Some((rows, columns)) = columns else {
            break;
        };
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for _ in 0..rows {
            row += 1;
            let values = columns
                .iter_mut()
                .map(|column| column.next().expect("as many as rows"))
                .collect();
            each(Row {
                place: Place::Row(row),
                values,
            })?;
        }
        if let Some(share) = (table.size * row).checked_div(total) {
            table.read.store(share, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The wanted columns of a batch, and how many rows it has.
fn cells(path: &Path, batch: &RecordBatch, wanted: &Wanted) -> Result<(usize, Vec<Vec<Value>>)> {
    let columns = (wanted.columns.iter())
        .map(|name| batch.column_by_name(name).expect("it was asked for"))
        .map(|array| values(array).map_err(|e| broken(path, &e)))
        .collect::<Result<_>>()?;
    Ok((batch.num_rows(), columns))
}

/// The columns at `at`, batch by batch, and the number of rows where the file says it.
fn batches(table: &Table, at: &[usize]) -> Result<(Batches, u64)> {
    let path = table.path.as_path();
    let file = open(path)?;
    // In the file's own order, each once.
    let mut at = at.to_vec();
    at.sort_unstable();
    at.dedup();
    let failed = |e: ArrowError| broken(path, &e);
    Ok(match table.format {
        Format::Parquet => {
            let builder = parquet(path, file)?;
            let total = builder.metadata().file_metadata().num_rows();
            let mask = ProjectionMask::roots(builder.parquet_schema(), at);
            let reader = builder.with_projection(mask).with_batch_size(ROWS).build();
            (
                Box::new(reader.map_err(|e| failed(e.into()))?),
                u64::try_from(total).unwrap_or(0),
            )
        }
        Format::Arrow => (
            Box::new(FileReader::try_new(BufReader::new(file), Some(at)).map_err(failed)?),
            0,
        ),
        _ => (
            Box::new(StreamReader::try_new(BufReader::new(file), Some(at)).map_err(failed)?),
            0,
        ),
    })
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| unreadable(path, &e))
}

fn parquet(path: &Path, file: File) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    // The types are Parquet's own: what Arrow said of other columns when it wrote them can break nothing.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|e| broken(path, &e.into()))
}

/// Cell by cell.
fn values(array: &ArrayRef) -> std::result::Result<Vec<Value>, ArrowError> {
    use DataType::*;
    let text = |array: &ArrayRef| {
        // Not to null what cannot be: bytes that are no UTF-8 are an error.
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let strings = cast_with_options(array, &LargeUtf8, &strict)?;
        let cells = strings.as_string::<i64>().iter();
        Ok(cells
            .map(|cell| cell.map_or(Value::Missing, |t| Value::Text(t.to_string())))
            .collect())
    };
    match array.data_type() {
        Utf8 | LargeUtf8 | Utf8View => text(array),
        // Impala and older Spark write text as bytes.
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => {
            let bytes = cast_with_options(array, &LargeBinary, &CastOptions::default())?;
            let cell = |bytes: &[u8]| match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_string()),
                Err(_) => Value::Bytes(hex(bytes)),
            };
            let cells = bytes.as_binary::<i64>().iter();
            Ok(cells.map(|bytes| bytes.map_or(Value::Missing, cell)).collect())
        }
        Dictionary(_, held) => {
            let plain = cast_with_options(array, held, &CastOptions::default())?;
            values(&plain)
        }
        Null => Ok(vec![Value::Missing; array.len()]),
        Boolean => {
            let cells = array.as_boolean().iter();
            Ok(cells.map(|cell| cell.map_or(Value::Missing, Value::Boolean)).collect())
        }
        List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_) => Ok(nested(array, "a list")),
        Struct(_) | Map(..) | Union(..) => Ok(nested(array, "an object")),
        number if number.is_numeric() => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            let written = |i: usize| match array.is_null(i) {
                true => Value::Missing,
                false => match formatter.value(i).to_string() {
                    n if matches!(n.as_str(), "NaN" | "inf" | "-inf") => Value::Missing,
                    n => Value::Number(n),
                },
            };
            Ok((0..array.len()).map(written).collect())
        }
        // The same moment, as UTC: names of zones are not needed for it.
        Timestamp(unit, Some(_)) => {
            let data = array
                .to_data()
                .into_builder()
                .data_type(Timestamp(*unit, None))
                .build()?;
            values(&arrow::array::make_array(data))
        }
        _ => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default().with_display_error(false))?;
            let written = |i: usize| match array.is_null(i) {
                true => Value::Missing,
                // An error would show the cell.
                false => (formatter.value(i).try_to_string()).map_or(Value::Nested("a date out of range"), Value::Date),
            };
            Ok((0..array.len()).map(written).collect())
        }
    }
}

fn nested(array: &ArrayRef, what: &'static str) -> Vec<Value> {
    let cell = |i: usize| {
        if array.is_null(i) {
            Value::Missing
        } else {
            Value::Nested(what)
        }
    };
    (0..array.len()).map(cell).collect()
}

fn broken(path: &Path, error: &ArrowError) -> Error {
    let message = error.to_string();
    let first: String = message.lines().next().unwrap_or_default().chars().take(120).collect();
    Error::data(format!("cannot read {}: {first}", path.display()))
        .hint("the file may be cut off or of another format than its extension says; fetch or write it again")
}

/// A column's type, for a person.
pub fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Boolean => "true or false".into(),
        DataType::Dictionary(_, held) => type_name(held),
        DataType::List(_) | DataType::LargeList(_) => "a list".into(),
        DataType::Struct(_) => "an object".into(),
        other => other.to_string().to_lowercase(),
    }
}
