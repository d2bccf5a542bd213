//! Columns out of a Parquet, CSV or JSON Lines file.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use polars::prelude::{
    ArrowDataType as Arrow, Column, CsvReadOptions, DataFrame, DataType, JsonFormat, JsonReader, ParquetReader,
    PolarsError, SerReader,
};

use crate::{Error, Result};

/// The columns of a label, cell by cell.
pub(super) enum Cells {
    Integer(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
}

/// The columns of a file that a run needs.
pub(super) struct Table {
    frame: DataFrame,
    /// CSV has no types: a label column is one of integers if all its cells are.
    untyped: bool,
}

impl Table {
    /// Reads `columns` of the file at `path`, whose extension tells the format.
    pub fn read(path: &Path, columns: &[&str]) -> Result<Self> {
        let extension = path
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        let size = fs::metadata(path).map_err(|e| unreadable(path, &e))?.len();
        if size == 0 {
            return Err(Error::data(format!("{} is empty", path.display())).hint("fetch or write it again"));
        }
        let frame = match extension.as_str() {
            "parquet" => parquet(path, columns)?,
            "csv" => csv(path)?,
            "jsonl" | "ndjson" | "json" => json(path)?,
            _ => {
                return Err(Error::data(format!("{} is in no known format", path.display()))
                    .hint("the extensions that are read are .parquet, .csv, .jsonl, .ndjson and .json"));
            }
        };
        let present: Vec<&str> = frame.get_column_names().into_iter().map(|name| name.as_str()).collect();
        require(path, columns, &present)?;
        let untyped = extension != "parquet";
        Ok(Table { frame, untyped })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.frame.height()
    }

    /// A column of strings, cell by cell.
    pub fn texts(&self, path: &Path, name: &str) -> Result<Vec<Option<String>>> {
        let column = self.column(path, name)?;
        match column.dtype() {
            t if holds_text(t) => strings(path, column),
            t => Err(
                Error::data(format!("column `{name}` of {} holds {t}, not text", path.display()))
                    .hint("name the column that holds the text in `dataset.text`"),
            ),
        }
    }

    /// A column of integers or strings, cell by cell.
    pub fn labels(&self, path: &Path, name: &str) -> Result<Cells> {
        let column = self.column(path, name)?;
        match column.dtype() {
            t if t.is_integer() => {
                let wide = column.strict_cast(&DataType::Int64).map_err(|e| broken(path, &e))?;
                let cells = wide.i64().map_err(|e| broken(path, &e))?.iter();
                Ok(match self.untyped {
                    true => Cells::Text(cells.map(|c| c.map(|i| i.to_string())).collect()),
                    false => Cells::Integer(cells.collect()),
                })
            }
            t if holds_text(t) => Ok(Cells::Text(strings(path, column)?)),
            t => Err(Error::data(format!(
                "column `{name}` of {} holds {t}; labels and units are integers or strings",
                path.display()
            ))
            .hint("write the column as integers or strings")),
        }
    }

    fn column(&self, path: &Path, name: &str) -> Result<&Column> {
        self.frame.column(name).map_err(|e| broken(path, &e))
    }
}

/// Null is the type of a column without any value.
fn holds_text(dtype: &DataType) -> bool {
    dtype.is_string() || dtype.is_categorical() || dtype.is_enum() || dtype.is_null()
}

fn strings(path: &Path, column: &Column) -> Result<Vec<Option<String>>> {
    let column = column.strict_cast(&DataType::String).map_err(|e| broken(path, &e))?;
    Ok(column
        .str()
        .map_err(|e| broken(path, &e))?
        .iter()
        .map(|cell| cell.map(String::from))
        .collect())
}

fn parquet(path: &Path, columns: &[&str]) -> Result<DataFrame> {
    let file = fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut reader = ParquetReader::new(file);
    let schema = reader.schema().map_err(|e| broken(path, &e))?;
    let present: Vec<&str> = schema.iter_names().map(|name| name.as_str()).collect();
    require(path, columns, &present)?;
    for name in columns {
        let dtype = schema.get(name).map(|field| field.dtype());
        // polars is built without these: each of them adds to every build, and labels are seldom stored in them.
        if let Some(narrow @ (Arrow::Int8 | Arrow::Int16 | Arrow::UInt8 | Arrow::UInt16)) = dtype {
            return Err(Error::data(format!(
                "column `{name}` of {} holds {narrow:?}, which is not read",
                path.display()
            ))
            .hint("write it as 32-bit or 64-bit integers, for example with CAST(label AS INTEGER)"));
        }
    }
    let columns = columns.iter().map(|name| name.to_string()).collect();
    reader
        .with_columns(Some(columns))
        .finish()
        .map_err(|e| broken(path, &e))
}

fn csv(path: &Path) -> Result<DataFrame> {
    let text = utf8(path)?;
    // Nothing is inferred: every column is read as strings.
    let options = CsvReadOptions::default()
        .with_has_header(true)
        .with_infer_schema_length(Some(0));
    options
        .into_reader_with_file_handle(Cursor::new(text))
        .finish()
        .map_err(|e| broken(path, &e))
}

fn json(path: &Path) -> Result<DataFrame> {
    let text = utf8(path)?;
    let format = match text.trim_start().starts_with('[') {
        true => JsonFormat::Json,
        false => JsonFormat::JsonLines,
    };
    let reader = JsonReader::new(Cursor::new(text))
        .with_json_format(format)
        .infer_schema_len(None);
    reader.finish().map_err(|e| broken(path, &e))
}

/// The file as text; polars would not say in which line it stops being UTF-8.
fn utf8(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| unreadable(path, &e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        Error::data(format!("{} is not UTF-8 in line {line}", path.display()))
            .hint("convert it, for example with: iconv -f LATIN1 -t UTF-8")
    })?;
    // Spreadsheets begin a file with a byte order mark, which would become part of the first column's name.
    Ok(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text))
}

fn require(path: &Path, columns: &[&str], present: &[&str]) -> Result<()> {
    match columns.iter().find(|column| !present.contains(column)) {
        None => Ok(()),
        Some(missing) => Err(
            Error::data(format!("{} has no column `{missing}`", path.display())).hint(format!(
                "its columns are {}; set `dataset.text`, `dataset.labels` and `dataset.unit` to what there is",
                present.join(", ")
            )),
        ),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::data(format!("cannot read {}: {error}", path.display())).hint("data/README.md tells where datasets go")
}

fn broken(path: &Path, error: &PolarsError) -> Error {
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default().trim_end_matches(':');
    Error::data(format!("cannot read {}: {first}", path.display()))
        .hint("the file may be cut off or of another format than its extension says; fetch or write it again")
}
