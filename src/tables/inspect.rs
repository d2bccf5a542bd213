//! What stands in a file, for who is about to describe it. Reads private records: for their owner's eyes alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::names::looks_like_record;
use super::{Declared, Table, Value, Wanted, whole};
use crate::Result;

/// Columns with more different values than this are not listed: they are no labels.
const MOST_VALUES: usize = 2000;

/// Values longer than this, in characters, are texts.
const LONGEST_VALUE: usize = 80;

/// What a file is.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    pub path: PathBuf,
    /// "internal": it reads private records.
    pub classification: &'static str,
    pub format: &'static str,
    /// How it is compressed as a whole.
    pub packing: Option<&'static str>,
    pub encoding: Option<&'static str>,
    pub separator: Option<char>,
    pub bytes: u64,
    pub rows: u64,
    /// Whether the first line reads like a record and not like names of columns.
    pub headerless: bool,
    pub columns: Vec<ColumnSeen>,
}

/// What a column holds.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnSeen {
    pub name: String,
    /// As the file declares it, else by what its cells look like.
    pub kind: String,
    /// Rows without a value.
    pub missing: u64,
    /// Of the longest value, in characters.
    pub longest: usize,
    /// Mean length of the values there are, in characters.
    pub mean_length: f64,
    /// The different values and how many rows have each, the most frequent first; none where they are many or long.
    pub values: Option<Vec<(String, u64)>>,
}

/// Reads all of the file at `path`, row by row.
///
/// # Errors
/// As [`Table::open`] and [`Table::rows`].
pub fn inspect(path: &Path, declared: &Declared) -> Result<Inspection> {
    let table = Table::open(path, declared)?;
    let mut columns = table.columns()?;
    // A name that is there twice, or is none, names no column.
    let all: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    columns.retain(|c| !c.name.is_empty() && all.iter().filter(|name| **name == c.name).count() == 1);
    let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
    let mut seen: Vec<Seen> = columns.iter().map(|_| Seen::default()).collect();
    let mut rows = 0;
    let wanted = Wanted {
        columns: names.iter().map(String::as_str).collect(),
        is_label: &|_| false,
    };
    table.rows(&wanted, &mut |row| {
        rows += 1;
        seen.iter_mut()
            .zip(&row.values)
            .for_each(|(seen, value)| seen.look(value));
        Ok(())
    })?;
    let columns = columns.into_iter().zip(seen);
    Ok(Inspection {
        path: path.to_path_buf(),
        classification: "internal",
        format: table.format().name(),
        packing: table.packing().name(),
        encoding: table.encoding()?.map(|e| e.name()),
        separator: table.separator()?.map(char::from),
        bytes: table.size(),
        rows,
        headerless: table.separator()?.is_some() && declared.header && looks_like_record(&all),
        columns: columns
            .map(|(column, seen)| seen.column(column.name, column.kind))
            .collect(),
    })
}

#[derive(Default)]
struct Seen {
    missing: u64,
    present: u64,
    longest: usize,
    characters: u64,
    not_whole: bool,
    nested: bool,
    values: HashMap<String, u64>,
    too_many: bool,
}

impl Seen {
    fn look(&mut self, value: &Value) {
        self.nested |= matches!(value, Value::Nested(_));
        let Some(name) = value.name().filter(|name| !name.trim().is_empty()) else {
            self.missing += 1;
            return;
        };
        let length = name.chars().count();
        self.present += 1;
        self.longest = self.longest.max(length);
        self.characters += length as u64;
        self.not_whole |= whole(&name).is_none();
        if self.too_many || length > LONGEST_VALUE {
            self.too_many = true;
            self.values = HashMap::new();
            return;
        }
        *self.values.entry(name.into_owned()).or_default() += 1;
        self.too_many = self.values.len() > MOST_VALUES;
    }

    fn column(self, name: String, kind: Option<String>) -> ColumnSeen {
        let kind = kind.unwrap_or_else(|| match self.present > 0 && !self.not_whole {
            true => "integers".into(),
            false => "text".into(),
        });
        let mut values: Vec<(String, u64)> = self.values.into_iter().collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ColumnSeen {
            name,
            kind,
            missing: self.missing,
            longest: self.longest,
            mean_length: self.characters as f64 / self.present.max(1) as f64,
            values: (!self.too_many && !self.nested && self.present > 0).then_some(values),
        }
    }
}

impl ColumnSeen {
    /// Whether it may be a label: a few values, each of several rows.
    pub fn is_label(&self, rows: u64) -> bool {
        let values = self.values.as_ref().map_or(0, Vec::len) as u64;
        (2..=100).contains(&values) && values * 4 <= rows.max(8)
    }

    /// Whether all its values are integers.
    pub fn is_integer(&self) -> bool {
        let values = self.values.as_deref().unwrap_or_default();
        !values.is_empty() && values.iter().all(|(value, _)| value.parse::<i64>().is_ok())
    }
}

impl Inspection {
    /// The column that looks most like the text: the longest on average.
    pub fn text(&self) -> Option<&ColumnSeen> {
        self.text_beside(None)
    }

    /// The same of all columns but `label`.
    pub fn text_beside(&self, label: Option<&str>) -> Option<&ColumnSeen> {
        let others = self.columns.iter().filter(|c| Some(c.name.as_str()) != label);
        let texts = others.filter(|c| c.kind == "text" || c.kind.contains("binary"));
        texts.max_by(|a, b| a.mean_length.total_cmp(&b.mean_length))
    }

    /// Columns that may be labels, the fewest values first.
    pub fn labels(&self) -> Vec<&ColumnSeen> {
        let text = self.text().map(|c| c.name.as_str());
        let mut out: Vec<&ColumnSeen> = (self.columns.iter())
            .filter(|c| Some(c.name.as_str()) != text && c.is_label(self.rows))
            .collect();
        let usual = |c: &ColumnSeen| {
            let name = c.name.to_lowercase();
            ![
                "label",
                "class",
                "category",
                "sentiment",
                "topic",
                "target",
                "stars",
                "rating",
            ]
            .iter()
            .any(|n| name.contains(n))
        };
        out.sort_by_key(|c| (usual(c), c.values.as_ref().map_or(0, Vec::len)));
        out
    }
}
