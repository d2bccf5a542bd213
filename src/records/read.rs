//! From data files to records: cleaned, labelled, and with an account of what was left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::labels::{LabelSpace, SEVERAL};
use crate::config::{DatasetConfig, PrepareConfig};
use crate::tables::{Declared, Place, Table, Value, Wanted, short, whole};
use crate::{Error, Result};

/// Stands between the two texts of a pair, as the symbol for a unit's end.
pub const PAIR: char = '\u{241F}';

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

/// What came of reading. Its counts are of private records: internal, never part of a release (rule P9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReport {
    /// Rows in the files.
    pub read: usize,
    /// Records that came of them.
    pub kept: usize,
    /// Rows that were left out, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Kept records of each joint label.
    pub per_label: Vec<usize>,
    /// What a person should know though it stops nothing, a sentence each.
    pub warnings: Vec<String>,
    /// Whether a label was stored as a number.
    #[serde(skip)]
    numbers: bool,
    /// Whether one was true or false.
    #[serde(skip)]
    booleans: bool,
}

/// A row of the files.
pub struct RowRead<'a> {
    /// The text as it stands in the file; none where there is none, or only blanks.
    pub raw: Option<&'a str>,
    /// What its unit of privacy is known by: a hash of its cell, or of the text where the record is a unit itself. None where
    /// it has none.
    pub unit: Option<[u8; 32]>,
    /// The record; none where the row was left out. Its `unit` is not numbered yet.
    pub record: Option<Record>,
}

/// Reads files as one dataset, row by row: nothing of them is kept.
pub struct Reader<'a> {
    pub dataset: &'a DatasetConfig,
    pub labels: &'a LabelSpace,
    pub prepare: &'a PrepareConfig,
    /// Told how many of the bytes of all files were read.
    pub progress: &'a dyn Fn(u64),
}

/// How often a reader says how far it is, in rows.
const TELL: usize = 4096;

impl Reader<'_> {
    /// Gives each row of `files` to `each`, in order.
    ///
    /// A row without text, without a declared label or, where `dataset.unit` names a column, without a unit is left out and
    /// counted: that it is there must not stop what goes on without it (P9).
    ///
    /// # Errors
    /// Usage: a column that is declared to be two things. Data: a file that is missing, empty, damaged, of an unknown format
    /// or cannot be read in one way alone; a missing column; a text that is none.
    pub fn read(&self, files: &[PathBuf], each: &mut dyn FnMut(RowRead) -> Result<()>) -> Result<ReadReport> {
        let declared = self.dataset.declared()?;
        let mut tally = Tally {
            report: ReadReport {
                read: 0,
                kept: 0,
                dropped: BTreeMap::new(),
                per_label: vec![0; self.labels.len()],
                warnings: Vec::new(),
                numbers: false,
                booleans: false,
            },
            encoded: declared.encoding.is_some(),
            undeclared: None,
            replaced: 0,
            control: 0,
        };
        let mut before = 0;
        for file in files {
            before += self.read_file(file, &declared, before, &mut tally, each)?;
        }
        Ok(tally.report())
    }

    /// The size of the file.
    fn read_file(
        &self,
        path: &Path,
        declared: &Declared,
        before: u64,
        tally: &mut Tally,
        each: &mut dyn FnMut(RowRead) -> Result<()>,
    ) -> Result<u64> {
        let columns = self.columns()?;
        let is_label = |cell: &str| self.labels.columns().iter().any(|column| column.is_declared(cell));
        let wanted = Wanted {
            columns,
            is_label: &is_label,
        };
        let table = Table::open(path, declared)?;
        if let Some(encoding) = table.encoding()?.filter(|_| declared.encoding.is_none()) {
            tally
                .report
                .warnings
                .push(format!("it is {} by its mark, and was read as that", encoding.name()));
        }
        if table.is_misdeclared()? {
            tally.report.warnings.push(
                "it begins as UTF-8 does, and `dataset.encoding` says otherwise: letters beyond ASCII may be garbled"
                    .into(),
            );
        }
        let read_bytes = table.read_bytes();
        let labels = 1..1 + self.labels.columns().len();
        table.rows(&wanted, &mut |row| {
            let mut values = row.values;
            let mut raw = self.text(path, row.place, &mut values[0])?;
            if self.dataset.second_text.is_some() {
                let last = values.len() - 1;
                raw = paired(raw, self.text(path, row.place, &mut values[last])?);
            }
            tally.look(raw.as_deref(), &values[labels.clone()]);
            let text = raw
                .as_deref()
                .map(|raw| self.clean(raw))
                .filter(|text| !text.trim().is_empty());
            let label = match text {
                None => Labelled::Not,
                Some(_) => self.joint_label(path, row.place, &values[labels.clone()])?,
            };
            let unit = match &self.dataset.unit {
                None => raw.as_deref().map(|raw| Sha256::digest(raw).into()),
                Some(_) => unit_hash(&values[labels.end]),
            };
            let record = match (text, label, unit) {
                (None, ..) => Err("no text"),
                (_, Labelled::Not, _) => Err("no label"),
                (_, Labelled::Otherwise(said), _) => {
                    tally.undeclared.get_or_insert(said);
                    Err(UNDECLARED)
                }
                (_, _, None) => Err("no unit"),
                (Some(text), Labelled::As(label), Some(_)) => Ok(Record {
                    text: text.into_owned(),
                    label,
                    unit: 0,
                }),
            };
            tally.count(&record);
            if tally.report.read.is_multiple_of(TELL) {
                (self.progress)(before + read_bytes.load(Ordering::Relaxed).min(table.size()));
            }
            each(RowRead {
                raw: raw.as_deref(),
                unit,
                record: record.ok(),
            })
        })?;
        (self.progress)(before + table.size());
        Ok(table.size())
    }

    /// Gives the text of each row of `path` to `each`, as a record has it; none where there is none. Nothing else is looked at.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn texts(&self, path: &Path, each: &mut dyn FnMut(Option<String>) -> Result<()>) -> Result<()> {
        let (first, second) = (&self.dataset.text.column, &self.dataset.second_text);
        let wanted = Wanted {
            columns: std::iter::once(first).chain(second).map(String::as_str).collect(),
            is_label: &|_| false,
        };
        Table::open(path, &self.dataset.declared()?)?.rows(&wanted, &mut |mut row| {
            let mut raw = self.text(path, row.place, &mut row.values[0])?;
            if second.is_some() {
                raw = paired(raw, self.text(path, row.place, &mut row.values[1])?);
            }
            let text = raw.map(|raw| self.clean(&raw).into_owned());
            each(text.filter(|text| !text.trim().is_empty()))
        })
    }

    /// The text, the labels, then the unit and the second text where there are such.
    fn columns(&self) -> Result<Vec<&str>> {
        let mut columns = vec![self.dataset.text.column.as_str()];
        columns.extend(self.labels.columns().iter().map(|c| c.source()));
        if columns[1..].contains(&columns[0]) {
            return Err(Error::usage(format!(
                "column `{}` is declared both text and label",
                short(columns[0])
            ))
            .hint("set `dataset.text` and `dataset.labels` to different columns"));
        }
        if let Some(unit) = &self.dataset.unit {
            if columns.contains(&unit.column.as_str()) {
                return Err(Error::usage(format!(
                    "column `{}` is declared the unit of privacy, and text or label too",
                    short(&unit.column)
                ))
                .hint("`dataset.unit` names who a record belongs to, such as a customer number"));
            }
            columns.push(&unit.column);
        }
        if let Some(second) = &self.dataset.second_text {
            if columns.contains(&second.as_str()) {
                return Err(Error::usage(format!(
                    "column `{}` is declared the second text of a pair, and something else too",
                    short(second)
                ))
                .hint("`dataset.second_text` names a column of its own"));
            }
            columns.push(second);
        }
        Ok(columns)
    }

    /// The text of a row; none where it is blank.
    fn text(&self, path: &Path, place: Place, value: &mut Value) -> Result<Option<String>> {
        match std::mem::replace(value, Value::Missing) {
            Value::Missing => Ok(None),
            Value::Text(text) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
            other => Err(Error::data(format!(
                "{place} of {}: column `{}` holds {}, not text",
                path.display(),
                short(&self.dataset.text.column),
                other.what()
            ))
            .hint("name the column that holds the text in `dataset.text`")),
        }
    }

    fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.prepare.replace_html_breaks {
            true => replace_breaks(text),
            false => Cow::Borrowed(text),
        }
    }

    /// The joint label of a row.
    fn joint_label(&self, path: &Path, place: Place, values: &[Value]) -> Result<Labelled> {
        let mut parts = Vec::with_capacity(values.len());
        for (column, value) in self.labels.columns().iter().zip(values) {
            let at = || {
                format!(
                    "{place} of {}: column `{}` holds",
                    path.display(),
                    short(column.source())
                )
            };
            if let Value::Nested(what) = value {
                return Ok(Labelled::Otherwise(format!("{} {what}; {SEVERAL}", at())));
            }
            let Some(name) = value.name().filter(|name| !name.trim().is_empty()) else {
                return Ok(Labelled::Not);
            };
            let Some(part) = column.label_of(value) else {
                // What is longer than labels are may be a text: nothing of it is shown.
                let shown = match name.chars().count() {
                    n if n > 40 || name.split_whitespace().count() > 3 => format!("a text of {n} characters"),
                    _ => format!("`{}`", short(&name)),
                };
                return Ok(Labelled::Otherwise(format!(
                    "{} {shown}; declared are {}; {}",
                    at(),
                    column.declared(),
                    column.advice(value)
                )));
            };
            parts.push(part);
        }
        Ok(Labelled::As(self.labels.join(&parts)))
    }
}

/// Two texts as a record has them; none where one is missing.
fn paired(first: Option<String>, second: Option<String>) -> Option<String> {
    // The mark parts them once.
    let plain = |text: String| text.replace(PAIR, " ");
    first
        .zip(second)
        .map(|(first, second)| format!("{}{PAIR}{}", plain(first), plain(second)))
}

/// What a row's label cells say.
enum Labelled {
    /// The joint label.
    As(usize),
    /// A cell is empty.
    Not,
    /// A cell holds what is not declared: where and what, and how to mend it, for the owner.
    Otherwise(String),
}

/// Why such a row is left out.
const UNDECLARED: &str = "a label that is not declared";

/// The records of one file, all at once.
///
/// # Errors
/// As [`Reader::read`]; Data: no record is left.
pub fn read(
    path: &Path,
    dataset: &DatasetConfig,
    labels: &LabelSpace,
    prepare: &PrepareConfig,
) -> Result<(Vec<Record>, ReadReport)> {
    let reader = Reader {
        dataset,
        labels,
        prepare,
        progress: &|_| {},
    };
    let (mut records, mut units) = (Vec::new(), UnitNumbers::new(dataset.unit.is_some()));
    let report = reader.read(&[path.to_path_buf()], &mut |row| {
        if let (Some(mut record), Some(unit)) = (row.record, row.unit) {
            record.unit = units.of(&unit);
            records.push(record);
        }
        Ok(())
    })?;
    report.require_records(&path.display().to_string())?;
    Ok((records, report.look_at_labels(labels)))
}

/// Numbers the units of privacy in the order in which they appear.
pub struct UnitNumbers {
    /// None where every record is a unit of its own, whatever it says.
    known: Option<HashMap<[u8; 16], u32>>,
    next: u32,
}

impl UnitNumbers {
    /// `grouped` where several records may have one unit.
    pub fn new(grouped: bool) -> Self {
        UnitNumbers {
            known: grouped.then(HashMap::new),
            next: 0,
        }
    }

    /// The number of the unit with this hash.
    pub fn of(&mut self, unit: &[u8; 32]) -> u32 {
        let new = self.next;
        let number = match &mut self.known {
            None => new,
            Some(known) => {
                let start: [u8; 16] = unit[..16].try_into().expect("half of it");
                *known.entry(start).or_insert(new)
            }
        };
        self.next += u32::from(number == new);
        number
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.next as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }
}

/// Any value names a unit: what it says is not read as a number.
fn unit_hash(value: &Value) -> Option<[u8; 32]> {
    // A list or an object names nobody.
    let name = value.name()?;
    // A person is one unit, however a file writes the number.
    let trimmed = name.trim();
    let number =
        trimmed.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && trimmed.parse::<f64>().is_ok();
    let written = Value::Number(trimmed.to_string());
    let name = written.name().filter(|_| number).unwrap_or(Cow::Borrowed(trimmed));
    (!name.is_empty()).then(|| Sha256::digest(name.as_bytes()).into())
}

/// Counts as rows pass.
struct Tally {
    report: ReadReport,
    /// Whether an encoding is declared.
    encoded: bool,
    /// The first label that is not declared.
    undeclared: Option<String>,
    /// Texts with characters that stand for what could not be read.
    replaced: usize,
    /// Texts with control characters that Windows' code page has letters for.
    control: usize,
}

impl Tally {
    fn look(&mut self, text: Option<&str>, labels: &[Value]) {
        let boolean = |label: &Value| {
            label
                .name()
                .is_some_and(|n| ["true", "false"].iter().any(|b| n.trim().eq_ignore_ascii_case(b)))
        };
        self.report.booleans |= labels.iter().any(boolean);
        self.report.numbers |= labels
            .iter()
            .any(|label| label.name().is_some_and(|name| whole(&name).is_some()));
        let has = |range: std::ops::RangeInclusive<char>| text.is_some_and(|t| t.chars().any(|c| range.contains(&c)));
        self.replaced += usize::from(has('\u{fffd}'..='\u{fffd}'));
        self.control += usize::from(has('\u{80}'..='\u{9f}'));
    }

    fn count(&mut self, record: &std::result::Result<Record, &'static str>) {
        let report = &mut self.report;
        report.read += 1;
        match record {
            Ok(record) => {
                report.kept += 1;
                report.per_label[record.label] += 1;
            }
            Err(reason) => *report.dropped.entry(reason.to_string()).or_insert(0) += 1,
        }
    }

    fn report(self) -> ReadReport {
        let mut report = self.report;
        let texts = |n: usize| match n {
            1 => "1 text has".to_string(),
            n => format!("{n} texts have"),
        };
        if let Some(first) = self.undeclared {
            let rows = match report.dropped.get(UNDECLARED).copied().unwrap_or_default() {
                1 => format!("1 row has {UNDECLARED} and is left out"),
                n => format!("{n} rows have {UNDECLARED} and are left out"),
            };
            report.warnings.push(format!("(internal) {rows}; the first: {first}"));
        }
        if self.replaced > 0 {
            report.warnings.push(format!(
                "{} the character U+FFFD in it, which stands for what could not be read",
                texts(self.replaced)
            ));
        }
        if self.control > 0 && !self.encoded {
            report.warnings.push(format!(
                "{} control characters U+0080 to U+009F in it: what was WINDOWS-1252 may have been taken for LATIN1; \
                 dataset.encoding = \"windows-1252\" reads the file as it was before",
                texts(self.control)
            ));
        }
        report
    }
}

impl ReadReport {
    /// This without the records that are held out of it, and those: `per_label` counts them.
    pub fn split(mut self, per_label: Vec<usize>) -> (Self, Self) {
        let kept = per_label.iter().sum();
        for (all, held_out) in self.per_label.iter_mut().zip(&per_label) {
            *all -= held_out;
        }
        self.read -= kept;
        self.kept -= kept;
        let held_out = ReadReport {
            read: kept,
            kept,
            dropped: BTreeMap::new(),
            per_label,
            warnings: Vec::new(),
            numbers: self.numbers,
            booleans: self.booleans,
        };
        (self, held_out)
    }

    /// The same, with a word on labels that have fewer than two records.
    pub fn look_at_labels(mut self, labels: &LabelSpace) -> Self {
        self.warnings.extend(few_records(labels, &self.per_label));
        if self.booleans {
            self.warnings
                .extend(labels.columns().iter().filter_map(|column| column.counts_booleans()));
        }
        for (at, column) in labels.columns().iter().enumerate().filter(|_| self.numbers) {
            let mut of_column = vec![0; column.names().len()];
            for (joint, count) in self.per_label.iter().enumerate() {
                of_column[labels.split(joint)[at]] += count;
            }
            self.warnings.extend(column.counts_from_one(&of_column));
        }
        self
    }

    /// # Errors
    /// Data: no record came of `what`.
    pub fn require_records(&self, what: &str) -> Result<()> {
        if self.kept > 0 {
            return Ok(());
        }
        if self.read == 0 {
            return Err(Error::data(format!("{what} has no records")).hint("fetch or write it again"));
        }
        let reasons: Vec<String> = (self.dropped.iter())
            .map(|(reason, count)| format!("{count} with {reason}"))
            .collect();
        Err(Error::data(format!(
            "none of the {} rows of {what} can be used: {}",
            self.read,
            reasons.join(", ")
        ))
        .hint(match self.warnings.iter().find(|w| w.contains(UNDECLARED)) {
            Some(undeclared) => undeclared.clone(),
            None => "check `dataset.text` and `dataset.labels`".into(),
        }))
    }
}

/// Labels with fewer than two records: a line for those without any and one for the others, however many they are.
fn few_records(labels: &LabelSpace, per_label: &[usize]) -> Vec<String> {
    const SHOWN: usize = 5;
    let of = |count: usize, one: &str, several: &str| {
        let few: Vec<usize> = (0..per_label.len())
            .filter(|label| per_label[*label] == count)
            .collect();
        let mut names: Vec<String> = (few.iter().take(SHOWN))
            .map(|label| format!("`{}`{}", short(&labels.name(*label)), labels.stored(*label)))
            .collect();
        if few.len() > SHOWN {
            names.push(format!("{} more", few.len() - SHOWN));
        }
        let names = names.join(", ");
        match few.len() {
            0 => None,
            1 => Some(format!("the declared label {names} has {one}")),
            n => Some(format!("{n} declared labels have {several}: {names}")),
        }
    };
    let none = of(0, "no record", "no record");
    none.into_iter()
        .chain(of(1, "only one record", "only one record each"))
        .collect()
}

/// Replaces HTML line breaks (`<br>`, `<br/>`, `<BR />`) by line breaks.
fn replace_breaks(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        // No break is longer: a text of many `<` is read once, not once for each.
        let end = rest.as_bytes()[at..].iter().take(32).position(|b| *b == b'>');
        let tag = end.map(|end| &rest[at..=at + end]);
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
