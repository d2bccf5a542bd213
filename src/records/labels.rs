//! The labels that are declared in the configuration, and their joint values where there are several columns.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use serde::Serialize;

use crate::config::{ColumnKind, LabelConfig};
use crate::tables::{Value, short, whole};
use crate::{Error, Result};

/// All joint labels: the Cartesian product of the declared columns, the last column fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSpace {
    columns: Vec<LabelColumn>,
}

/// One label column and its declared labels.
///
/// One rule says which label a stored value is, whatever the file's format: a declared value; else a name; else, where no
/// values are declared and no name is an integer, the position of a name, counted from 0. `5.0` is `5` and true is `true`,
/// else 1. Each cell speaks for itself: what one record says never changes how another is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelColumn {
    source: String,
    column: String,
    names: Vec<String>,
    texts: Option<Vec<String>>,
    by_text: HashMap<String, usize>,
    /// Whether a position may stand for a name.
    positions: bool,
    /// What stands in an integer column.
    integers: Option<Vec<i64>>,
    kind: ColumnKind,
}

/// A label as it stands in a data file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum RawLabel {
    /// In an integer column.
    Integer(i64),
    /// In a string column.
    Text(String),
}

impl LabelColumn {
    fn from_config(config: &LabelConfig) -> Result<Self> {
        let column = config.column.clone();
        let wrong = |what: String| Error::usage(format!("label column `{column}`: {what}"));
        let names = match (&config.names_file, config.names.is_empty()) {
            (Some(file), true) => read_names(file)?,
            (None, false) => config.names.clone(),
            (Some(_), false) => return Err(wrong("`names` and `names_file` are both given".into()).hint("keep one")),
            (None, true) => {
                return Err(wrong("no names are declared".into()).hint("give `names` or `names_file` for the column"));
            }
        };
        if let Some(twice) = duplicate(&names) {
            return Err(wrong(format!("the name `{twice}` is declared twice")).hint("each label has a name of its own"));
        }
        if names.iter().any(|name| name.trim().is_empty()) {
            return Err(wrong("a name is empty".into()).hint("the prompt says the name, so it cannot be empty"));
        }
        if let Some(values) = &config.values {
            if values.len() != names.len() {
                let what = format!("{} values are declared for {} names", values.len(), names.len());
                return Err(wrong(what).hint("`values` lists one entry for each name, in the same order"));
            }
            if let Some(twice) = duplicate(values) {
                return Err(
                    wrong(format!("the value `{twice}` is declared twice")).hint("each label has its own value")
                );
            }
        }
        let integer = |text: &String| text.parse::<i64>().ok();
        let numbers = names.iter().filter(|name| integer(name).is_some()).count();
        let positions = config.values.is_none() && numbers == 0;
        // Names that are integers are what stands in the file: stars 1 to 5 are never the positions 0 to 4.
        let integers: Option<Vec<i64>> = match positions {
            true => Some((0..names.len() as i64).collect()),
            false => config.values.as_ref().unwrap_or(&names).iter().map(integer).collect(),
        };
        if integers.is_none() && config.kind == ColumnKind::Integer {
            let hint = "leave out `type`, or declare integer `values`, one for each name";
            return Err(wrong(match config.values {
                Some(_) => "it is declared an integer column, but its values are no integers".into(),
                None => "it is declared an integer column, and only some of its names are integers".into(),
            })
            .hint(hint));
        }
        // Where a name is another label's value, what stands in the file is a value and never a name.
        let values = config.values.as_deref().unwrap_or_default();
        let mixed =
            (names.iter().enumerate()).any(|(i, name)| values.iter().position(|v| v == name).is_some_and(|j| j != i));
        let mut by_text: HashMap<String, usize> = match mixed {
            true => HashMap::new(),
            false => names.iter().cloned().zip(0..).collect(),
        };
        by_text.extend(config.values.iter().flatten().cloned().zip(0..));
        for (value, label) in config.values.iter().flatten().zip(0..) {
            if let Some(integer) = whole(value) {
                by_text.entry(integer.to_string()).or_insert(label);
            }
        }
        Ok(LabelColumn {
            source: config.column.clone(),
            column: config.written().into_owned(),
            names,
            texts: config.values.clone(),
            by_text,
            positions,
            integers,
            kind: config.kind,
        })
    }

    /// Name of the column in the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Name of the column in the prompt and in synthetic records.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The labels as the prompt says them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How its labels are written.
    pub fn kind(&self) -> ColumnKind {
        self.kind
    }

    /// The label as it stands in a column of this kind. Where the declared values are no integers there is no integer
    /// column they could stand in, and the text is given.
    ///
    /// # Panics
    /// If `label` is not below the number of names.
    pub fn raw(&self, label: usize, kind: ColumnKind) -> RawLabel {
        match (&self.integers, kind) {
            (Some(integers), ColumnKind::Integer) => RawLabel::Integer(integers[label]),
            _ => RawLabel::Text(self.texts.as_ref().unwrap_or(&self.names)[label].clone()),
        }
    }

    /// The label that a stored value is; none where it is not declared.
    pub fn label_of(&self, value: &Value) -> Option<usize> {
        let forms = forms(value);
        let declared = forms.iter().find_map(|form| self.by_text.get(form.as_str()).copied());
        let position = || forms.iter().find_map(|form| position(form, self.names.len()));
        declared.or_else(|| position().filter(|_| self.positions))
    }

    /// Whether a text is one of the declared names or values.
    pub fn is_declared(&self, text: &str) -> bool {
        self.by_text.contains_key(text)
    }

    /// What may stand in the file, for an error message; the first few of many.
    pub(super) fn declared(&self) -> String {
        const SHOWN: usize = 12;
        let shown = |label: usize| {
            let name = short(&self.names[label]);
            match &self.texts {
                _ if self.positions => format!("`{name}` or {label}"),
                Some(values) if values[label] != self.names[label] => format!("`{}` ({name})", short(&values[label])),
                _ => format!("`{name}`"),
            }
        };
        let mut out: Vec<String> = (0..self.names.len().min(SHOWN)).map(shown).collect();
        if self.names.len() > SHOWN {
            out.push(format!("{} more", self.names.len() - SHOWN));
        }
        out.join(", ")
    }

    /// A word for a first name that no record bears where the file's numbers may count from 1.
    pub(super) fn counts_from_one(&self, per_label: &[usize]) -> Option<String> {
        let shifted = self.positions && per_label[0] == 0 && per_label.iter().skip(1).any(|n| *n > 0);
        shifted.then(|| {
            format!(
                "numbers in column `{}` count the names from 0, so that 1 is `{}`, and no record is `{}`: where they count from 1, \
                 give values = [\"1\", \"2\", …], one for each name",
                short(&self.source),
                short(&self.names[1]),
                short(&self.names[0])
            )
        })
    }

    /// A word for booleans that are taken for positions.
    pub(super) fn counts_booleans(&self) -> Option<String> {
        let declared = ["true", "false", "True", "False", "TRUE", "FALSE"]
            .iter()
            .any(|b| self.by_text.contains_key(*b));
        (self.positions && !declared && self.names.len() == 2).then(|| {
            format!(
                "true in column `{}` is taken for 1, which is `{}`: values = [\"false\", \"true\"] says so, or the other way round",
                short(&self.source),
                short(&self.names[1])
            )
        })
    }

    /// How a label stands in the file where that is not its name alone, for a message.
    fn stored(&self, label: usize) -> String {
        match &self.texts {
            _ if self.positions => format!(" (or {label} in the file)"),
            Some(values) if values[label] != self.names[label] => format!(" (`{}` in the file)", short(&values[label])),
            _ => String::new(),
        }
    }

    /// What to do about an undeclared `value`.
    pub(super) fn advice(&self, value: &Value) -> &'static str {
        let name = value.name().unwrap_or_default();
        let several = |separator: char| {
            let parts: Vec<&str> = name.split(separator).map(str::trim).collect();
            parts.len() > 1
                && parts
                    .iter()
                    .all(|part| self.label_of(&Value::Text(part.to_string())).is_some())
        };
        if name.contains(['[', '{']) || [',', ';', '|', '/', '+'].into_iter().any(several) {
            return SEVERAL;
        }
        match whole(&name) {
            Some(_) if self.positions => {
                "without `values` names count from 0: where the file's numbers begin elsewhere, give values = [\"1\", \"2\", …], one for \
                 each name"
            }
            _ => "set `names` and `values` in `dataset.labels`",
        }
    }
}

/// Joint labels, at most.
const MOST_LABELS: usize = 100_000;

/// What to do about a cell with several labels in it.
pub(super) const SEVERAL: &str = "a record has one label a column: where it has several, make a column of each, true or false, and \
                                  declare each in `dataset.labels`; or keep the one that matters most";

/// The texts by which a stored value may be declared, the most literal first.
fn forms(value: &Value) -> Vec<String> {
    let Some(name) = value.name() else {
        return Vec::new();
    };
    let trimmed = name.trim();
    let mut forms = match value {
        Value::Number(number) => vec![number.clone()],
        _ => vec![name.to_string(), trimmed.to_string()],
    };
    forms.extend(whole(trimmed).map(String::from));
    // Booleans as pandas, R and Parquet write them.
    for (text, digit) in [("true", "1"), ("false", "0")] {
        if trimmed.eq_ignore_ascii_case(text) {
            let title = text[..1].to_uppercase() + &text[1..];
            forms.extend([text.into(), title, text.to_uppercase(), digit.into()]);
        }
    }
    forms
}

/// `7`, not `007`.
fn position(form: &str, names: usize) -> Option<usize> {
    form.parse()
        .ok()
        .filter(|at: &usize| *at < names && at.to_string() == form)
}

impl LabelSpace {
    /// Builds the space of the declared labels, reading each `names_file` (a JSON list of strings).
    ///
    /// # Errors
    /// A column that is declared twice or without names; a name or value that appears twice; `values` of another
    /// length; a names file that cannot be read; fewer than 2 joint labels.
    pub fn from_config(labels: &[LabelConfig]) -> Result<Self> {
        let columns = labels
            .iter()
            .map(LabelColumn::from_config)
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = columns.iter().map(|c| c.column.clone()).collect();
        if let Some(twice) = duplicate(&names) {
            return Err(Error::usage(format!("the label column `{twice}` is declared twice")).hint("keep one of them"));
        }
        let space = LabelSpace { columns };
        let joint = (space.columns.iter()).try_fold(1usize, |joint, column| joint.checked_mul(column.names.len()));
        if joint.is_none_or(|joint| joint > MOST_LABELS) {
            return Err(Error::usage(format!(
                "the {} label columns have more than {MOST_LABELS} combinations",
                space.columns.len()
            ))
            .hint("each combination is a label with a prompt of its own: declare the columns that matter most"));
        }
        if space.columns.is_empty() || space.len() < 2 {
            return Err(Error::usage("fewer than 2 labels are declared")
                .hint("a classifier needs at least two: list them in `dataset.labels`"));
        }
        Ok(space)
    }

    /// Number of joint labels, at least 2.
    #[expect(clippy::len_without_is_empty, reason = "a label space is never empty")]
    pub fn len(&self) -> usize {
        self.columns.iter().map(|c| c.names.len()).product()
    }

    /// The columns, as declared.
    pub fn columns(&self) -> &[LabelColumn] {
        &self.columns
    }

    /// A name for people: the columns' names, joined by ` / `.
    ///
    /// # Panics
    /// If `joint` is not below [`LabelSpace::len`].
    pub fn name(&self, joint: usize) -> String {
        let names: Vec<&str> = self.parts(joint).into_iter().map(|(_, name)| name).collect();
        names.join(" / ")
    }

    /// How a joint label stands in the file where that is not its name alone; nothing where there are several columns.
    pub(super) fn stored(&self, joint: usize) -> String {
        match self.columns.as_slice() {
            [only] => only.stored(joint),
            _ => String::new(),
        }
    }

    /// Column and label name of each column, for the prompt template.
    ///
    /// # Panics
    /// If `joint` is not below [`LabelSpace::len`].
    pub fn parts(&self, joint: usize) -> Vec<(&str, &str)> {
        let labels = self.columns.iter().zip(self.split(joint));
        labels
            .map(|(c, label)| (c.column.as_str(), c.names[label].as_str()))
            .collect()
    }

    /// What to write into each label column, as its declared type.
    ///
    /// # Panics
    /// If `joint` is not below [`LabelSpace::len`].
    pub fn raw(&self, joint: usize) -> Vec<RawLabel> {
        let labels = self.columns.iter().zip(self.split(joint));
        labels.map(|(column, label)| column.raw(label, column.kind)).collect()
    }

    /// Joint labels as columns of a table, each under its name and of its type; null where there is none.
    ///
    /// # Panics
    /// If one is not below [`LabelSpace::len`].
    pub fn arrays(&self, joint: &[Option<usize>]) -> Vec<(String, ArrayRef)> {
        let raw: Vec<Option<Vec<RawLabel>>> = joint.iter().map(|joint| joint.map(|joint| self.raw(joint))).collect();
        let of = |(i, column): (usize, &LabelColumn)| {
            let values = raw.iter().map(|raw| raw.as_ref().map(|raw| &raw[i]));
            let array: ArrayRef = match column.kind {
                ColumnKind::Integer => Arc::new(Int64Array::from_iter(values.map(|value| match value? {
                    RawLabel::Integer(n) => Some(*n),
                    RawLabel::Text(_) => None,
                }))),
                ColumnKind::Text => Arc::new(StringArray::from_iter(values.map(|value| match value? {
                    RawLabel::Text(text) => Some(text.as_str()),
                    RawLabel::Integer(_) => None,
                }))),
            };
            (column.column.clone(), array)
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    /// Joint label of one label a column, in the order of the columns.
    ///
    /// # Panics
    /// If a label is not below its column's number of names, or their number is not that of the columns.
    pub fn join(&self, labels: &[usize]) -> usize {
        assert_eq!(labels.len(), self.columns.len(), "one label a column");
        self.columns.iter().zip(labels).fold(0, |joint, (column, &label)| {
            assert!(
                label < column.names.len(),
                "label {label} of `{}` is not declared",
                column.column
            );
            joint * column.names.len() + label
        })
    }

    /// The inverse of [`LabelSpace::join`].
    ///
    /// # Panics
    /// If `joint` is not below [`LabelSpace::len`].
    pub fn split(&self, joint: usize) -> Vec<usize> {
        assert!(joint < self.len(), "joint label {joint} of {}", self.len());
        let mut rest = joint;
        let mut labels: Vec<usize> = Vec::with_capacity(self.columns.len());
        for column in self.columns.iter().rev() {
            labels.push(rest % column.names.len());
            rest /= column.names.len();
        }
        labels.reverse();
        labels
    }
}

fn read_names(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|e| {
        Error::usage(format!("cannot read the label names {}: {e}", file.display())).hint("check `names_file`")
    })?;
    serde_json::from_str(&text).map_err(|e| {
        Error::usage(format!("{} is not a JSON list of names: {e}", file.display()))
            .hint("it looks like [\"negative\", \"positive\"]")
    })
}

fn duplicate(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(*name))
}
