//! Tables in the files that people have: recognised, and read row by row, never whole.
//!
//! What a row says depends on its own bytes and on what is declared, never on another row: a row more or less in a file is
//! that row's record more or less, and changes no other. "Adding or removing one record" rests on it (docs/privacy.md).

mod batches;
mod csv;
mod find;
mod finite;
mod inspect;
mod json;
mod names;
mod recognise;
mod strict;
mod text;
mod value;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs::Encoding;

pub use csv::shown_separator;
pub use find::{Split, find, is_pattern, missing_shards};
pub use inspect::{ColumnSeen, Inspection, inspect};
pub use names::is_name;
pub use recognise::{Format, Packing};
pub use value::{Place, Row, Value, short, whole};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a quote within quotes is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Escape {
    /// `""`, as RFC 4180 has it.
    Doubled,
    /// `\"`, as Spark writes it; a backslash is then `\\`, and one before anything else is itself.
    Backslash,
}

/// What is declared of a text file.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    pub separator: Option<u8>,
    pub quote: Option<bool>,
    pub escape: Option<Escape>,
    pub header: bool,
    /// Names of the columns of a file without a header.
    pub columns: Vec<String>,
    pub encoding: Option<&'static Encoding>,
}

impl Default for Declared {
    fn default() -> Self {
        Declared {
            separator: None,
            quote: None,
            escape: None,
            header: true,
            columns: Vec::new(),
            encoding: None,
        }
    }
}

/// Which columns, and what their names cannot be.
pub struct Wanted<'a> {
    pub columns: Vec<&'a str>,
    /// Whether a cell of the first line is a label: then that line is no header.
    pub is_label: &'a dyn Fn(&str) -> bool,
}

/// What is done with a row.
pub type Each<'a> = dyn FnMut(Row) -> Result<()> + 'a;

/// A column as a file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Its type; of CSV, which has none, nothing.
    pub kind: Option<String>,
}

/// A file that was recognised.
pub struct Table {
    path: PathBuf,
    format: Format,
    packing: Packing,
    declared: Declared,
    size: u64,
    read: Arc<AtomicU64>,
}

impl Table {
    /// Looks at the first bytes of `path`.
    ///
    /// # Errors
    /// Data: it cannot be read, is empty, or is of a format that is not read.
    pub fn open(path: &Path, declared: &Declared) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?.len();
        let (format, packing) = recognise::recognise(path, declared.separator.is_some())?;
        Ok(Table {
            path: path.to_path_buf(),
            format,
            packing,
            declared: declared.clone(),
            size,
            read: Arc::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many of its bytes were read so far, counted over all passes; about, for Parquet.
    pub fn read_bytes(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// Gives the wanted cells of each row to `each`, in the order of the file. Other columns are not looked at.
    ///
    /// # Errors
    /// Data: the file is damaged or cannot be read in one way alone, or has no such column; else what `each` says.
    pub fn rows(&self, wanted: &Wanted, each: &mut Each) -> Result<()> {
        self.read.store(0, Ordering::Relaxed);
        match self.format {
            Format::Csv | Format::Tsv => csv::Csv::open(self, &wanted.columns)?.rows(wanted, each),
            Format::Json => json::rows(self, wanted, each),
            Format::Parquet | Format::Arrow | Format::ArrowStream => batches::rows(self, wanted, each),
        }
    }

    /// All columns; of JSON, which declares none, those of the first thousand rows.
    ///
    /// # Errors
    /// As [`Table::rows`].
    pub fn columns(&self) -> Result<Vec<Column>> {
        let of = |name: String, kind: Option<String>| Column { name, kind };
        Ok(match self.format {
            Format::Csv | Format::Tsv => {
                let names = csv::Csv::open(self, &[])?.names;
                names.into_iter().map(|name| of(name, None)).collect()
            }
            Format::Json => {
                let keys = json::keys(self)?;
                keys.into_iter()
                    .map(|(name, holds)| of(name, Some(holds.into())))
                    .collect()
            }
            Format::Parquet | Format::Arrow | Format::ArrowStream => {
                let schema = batches::schema(self)?;
                let fields = schema.fields().iter();
                fields
                    .map(|f| of(f.name().clone(), Some(batches::type_name(f.data_type()))))
                    .collect()
            }
        })
    }

    /// What separates cells; none where nothing does.
    ///
    /// # Errors
    /// As [`Table::rows`].
    pub fn separator(&self) -> Result<Option<u8>> {
        match self.format {
            Format::Csv | Format::Tsv => Ok(Some(csv::Csv::open(self, &[])?.quoting.separator)),
            _ => Ok(None),
        }
    }

    /// The encoding of a text file: declared, or by its mark; none for UTF-8 and for formats that are no text.
    ///
    /// # Errors
    /// As [`Table::rows`].
    pub fn encoding(&self) -> Result<Option<&'static Encoding>> {
        match self.is_text() {
            true => Ok(self.open_text()?.marked.or(self.declared.encoding)),
            false => Ok(None),
        }
    }

    /// Whether another encoding is declared, and the file begins as UTF-8 does.
    ///
    /// # Errors
    /// As [`Table::rows`].
    pub fn is_misdeclared(&self) -> Result<bool> {
        let other = self.declared.encoding.is_some_and(|e| e != encoding_rs::UTF_8);
        Ok(other && self.is_text() && self.open_text()?.looks_utf8)
    }

    fn is_text(&self) -> bool {
        matches!(self.format, Format::Csv | Format::Tsv | Format::Json)
    }

    fn text(&self) -> Result<Box<dyn BufRead>> {
        Ok(self.open_text()?.reader)
    }

    fn open_text(&self) -> Result<text::Text> {
        let declared = &self.declared;
        let header = declared.header || self.format == Format::Json;
        text::open(&self.path, self.packing, declared.encoding, header, self.read.clone())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::data(format!("cannot read {}: {error}", path.display())).hint("data/README.md tells where datasets go")
}
