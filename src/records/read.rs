//! From a data file to records: cleaned, labelled, and with an account of what was left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::labels::{LabelColumn, LabelSpace};
use super::table::{Cells, Table};
use crate::config::{ColumnKind, DatasetConfig, PrepareConfig};
use crate::{Error, Result};

/// A labelled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The text, never blank.
    pub text: String,
    /// Joint label, below [`LabelSpace::len`].
    pub label: usize,
    /// Number of the unit of privacy it belongs to; records that are units themselves have one each.
    pub unit: u32,
}

/// What came of reading a file. Its counts are of private records: internal, never part of a release (rule P9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReport {
    /// Rows in the file.
    pub read: usize,
    /// Records that came of them.
    pub kept: usize,
    /// Rows that were left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Kept records of each joint label.
    pub per_label: Vec<usize>,
    /// What a person should know though it stops nothing: declared labels with fewer than two records.
    pub warnings: Vec<String>,
}

/// The texts of all rows as they stand in the file, whatever else is missing there: what a dataset is known by.
///
/// # Errors
/// As [`read`].
pub fn texts(path: &Path, dataset: &DatasetConfig) -> Result<Vec<String>> {
    let cells = Table::read(path, &[&dataset.text])?.texts(path, &dataset.text)?;
    Ok(cells
        .into_iter()
        .flatten()
        .filter(|text| !text.trim().is_empty())
        .collect())
}

/// Reads the records of a Parquet, CSV or JSON Lines file.
///
/// A row without text, without a label or, where `dataset.unit` names a column, without a unit is left out and counted.
///
/// # Errors
/// Of kind data: a file that is missing, empty, cut off, not UTF-8 or of an unknown format; a missing column; a column
/// of the wrong type; a label value that is not declared; no record left.
pub fn read(
    path: &Path,
    dataset: &DatasetConfig,
    labels: &LabelSpace,
    prepare: &PrepareConfig,
) -> Result<(Vec<Record>, ReadReport)> {
    let mut columns = vec![dataset.text.as_str()];
    columns.extend(labels.columns().iter().map(LabelColumn::column));
    if columns[1..].contains(&columns[0]) {
        return Err(
            Error::usage(format!("column `{}` is declared both text and label", columns[0]))
                .hint("set `dataset.text` and `dataset.labels` to different columns"),
        );
    }
    if let Some(unit) = &dataset.unit {
        if columns.contains(&unit.column.as_str()) {
            return Err(Error::usage(format!(
                "column `{}` is declared the unit of privacy, and text or label too",
                unit.column
            ))
            .hint("`dataset.unit` names who a record belongs to, such as a customer number"));
        }
        columns.push(&unit.column);
    }
    columns.sort_unstable();
    columns.dedup();
    let table = Table::read(path, &columns)?;
    let texts = table.texts(path, &dataset.text)?;
    let label_cells = labels
        .columns()
        .iter()
        .map(|c| table.labels(path, c.column()))
        .collect::<Result<Vec<Cells>>>()?;

    let units = dataset.unit.as_ref().map(|u| table.labels(path, &u.column));
    let mut units = UnitNumbers::new(units.transpose()?);

    let mut records = Vec::with_capacity(table.rows());
    let mut dropped = BTreeMap::new();
    for (row, text) in texts.into_iter().enumerate() {
        let outcome = match text.filter(|text| !text.trim().is_empty()) {
            None => Err("no text"),
            Some(text) => joint_label(path, row, labels, &label_cells)?
                .map(|label| (text, label))
                .ok_or("no label"),
        };
        let outcome = outcome.and_then(|(text, label)| {
            let text = if prepare.replace_html_breaks {
                replace_breaks(&text).into_owned()
            } else {
                text
            };
            if text.trim().is_empty() {
                return Err("no text");
            }
            let unit = units.of(row).ok_or("no unit")?;
            Ok(Record { text, label, unit })
        });
        match outcome {
            Ok(record) => records.push(record),
            Err(reason) => *dropped.entry(reason.to_string()).or_insert(0) += 1,
        }
    }
    if records.is_empty() {
        return Err(nothing_left(path, table.rows(), &dropped));
    }

    let mut per_label = vec![0; labels.len()];
    records.iter().for_each(|record| per_label[record.label] += 1);
    let report = ReadReport {
        read: table.rows(),
        kept: records.len(),
        dropped,
        warnings: warnings(labels, &per_label),
        per_label,
    };
    Ok((records, report))
}

/// Numbers the units of privacy in the order in which they appear.
struct UnitNumbers {
    cells: Option<Cells>,
    known: HashMap<String, u32>,
    next: u32,
}

impl UnitNumbers {
    /// `cells` names each row's unit; none makes every row one of its own.
    fn new(cells: Option<Cells>) -> Self {
        UnitNumbers {
            cells,
            known: HashMap::new(),
            next: 0,
        }
    }

    /// The number of the unit that the row belongs to; none where its cell is empty.
    fn of(&mut self, row: usize) -> Option<u32> {
        let mut new = || {
            self.next += 1;
            self.next - 1
        };
        let name = match &self.cells {
            None => return Some(new()),
            Some(Cells::Integer(cells)) => cells[row]?.to_string(),
            Some(Cells::Text(cells)) => cells[row].clone().filter(|name| !name.is_empty())?,
        };
        Some(*self.known.entry(name).or_insert_with(new))
    }
}

impl Cells {
    fn kind(&self) -> ColumnKind {
        match self {
            Cells::Integer(_) => ColumnKind::Integer,
            Cells::Text(_) => ColumnKind::Text,
        }
    }
}

/// The joint label of a row; none where a column has no value.
fn joint_label(path: &Path, row: usize, labels: &LabelSpace, cells: &[Cells]) -> Result<Option<usize>> {
    let mut parts = Vec::with_capacity(cells.len());
    for (column, cells) in labels.columns().iter().zip(cells) {
        let (label, value) = match cells {
            Cells::Integer(cells) => match cells[row] {
                None => return Ok(None),
                Some(value) => (column.of_integer(value), Cow::Owned(value.to_string())),
            },
            Cells::Text(cells) => match cells[row].as_deref() {
                None | Some("") => return Ok(None),
                Some(value) => (column.of_text(value), Cow::Borrowed(value)),
            },
        };
        parts.push(label.ok_or_else(|| {
            let place = format!("row {} of {}", row + 1, path.display());
            Error::data(format!(
                "{place}: `{value}` is not a declared label of column `{}`",
                column.column()
            ))
            .hint(format!(
                "declared are {}; set `names` and `values` in `dataset.labels`",
                column.declared(cells.kind())
            ))
        })?);
    }
    Ok(Some(labels.join(&parts)))
}

/// Replaces HTML line breaks (`<br>`, `<br/>`, `<BR />`) by line breaks.
fn replace_breaks(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let tag = rest[at..].find('>').map(|end| &rest[at..=at + end]);
        match tag.filter(|tag| is_break(tag)) {
            Some(tag) => {
                out.push_str(&rest[..at]);
                out.push('\n');
                rest = &rest[at + tag.len()..];
            }
            None => {
                out.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
            }
        }
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn is_break(tag: &str) -> bool {
    let name = tag[1..tag.len() - 1].trim_end();
    let name = name.strip_suffix('/').unwrap_or(name).trim_end();
    name.eq_ignore_ascii_case("br")
}

fn nothing_left(path: &Path, rows: usize, dropped: &BTreeMap<String, usize>) -> Error {
    if rows == 0 {
        return Error::data(format!("{} has no records", path.display())).hint("fetch or write it again");
    }
    let reasons: Vec<String> = dropped
        .iter()
        .map(|(reason, count)| format!("{count} with {reason}"))
        .collect();
    Error::data(format!(
        "none of the {rows} rows of {} can be used: {}",
        path.display(),
        reasons.join(", ")
    ))
    .hint("check `dataset.text` and `dataset.labels`")
}

fn warnings(labels: &LabelSpace, per_label: &[usize]) -> Vec<String> {
    let few = per_label.iter().enumerate().filter(|(_, count)| **count < 2);
    few.map(|(label, count)| {
        let count = if *count == 0 { "no record" } else { "only one record" };
        format!("the declared label `{}` has {count}", labels.name(label))
    })
    .collect()
}
