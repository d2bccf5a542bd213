//! The labels that are declared in the configuration, and their joint values where there are several columns.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use crate::config::{ColumnKind, LabelConfig};
use crate::{Error, Result};

/// All joint labels: the Cartesian product of the declared columns, the last column fastest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSpace {
    columns: Vec<LabelColumn>,
}

/// One label column and its declared labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelColumn {
    column: String,
    names: Vec<String>,
    texts: Option<Vec<String>>,
    by_text: HashMap<String, usize>,
    by_integer: HashMap<i64, usize>,
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
        let integers: Option<Vec<i64>> = match &config.values {
            Some(values) => values.iter().map(|value| value.parse().ok()).collect(),
            None => Some((0..names.len() as i64).collect()),
        };
        if integers.is_none() && config.kind == ColumnKind::Integer {
            return Err(
                wrong("it is declared an integer column, but its values are no integers".into())
                    .hint("leave out `type`, or declare integer `values`"),
            );
        }
        let mut by_text: HashMap<String, usize> = names.iter().cloned().zip(0..).collect();
        // Declared values win over names, should one label's value be another's name.
        by_text.extend(config.values.iter().flatten().cloned().zip(0..));
        let by_integer = integers.iter().flatten().copied().zip(0..).collect();
        Ok(LabelColumn {
            column,
            names,
            texts: config.values.clone(),
            by_text,
            by_integer,
            integers,
            kind: config.kind,
        })
    }

    /// Name of the column.
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

    /// The label of a value in a string column: a declared value or a name, else what it is as an integer (`7`, not
    /// `007`). Each cell speaks for itself: what one record says never changes how another is read.
    pub(super) fn of_text(&self, value: &str) -> Option<usize> {
        let integer = || value.parse::<i64>().ok().filter(|i| i.to_string() == value);
        self.by_text.get(value).copied().or_else(|| self.of_integer(integer()?))
    }

    /// The label of a value in an integer column: a declared value or, without those, the position of the name.
    pub(super) fn of_integer(&self, value: i64) -> Option<usize> {
        self.by_integer.get(&value).copied()
    }

    /// The declared labels of a column of this kind, for an error message; the first few of many.
    pub(super) fn declared(&self, kind: ColumnKind) -> String {
        const SHOWN: usize = 12;
        let show = |label: usize| match self.raw(label, kind) {
            RawLabel::Integer(value) => format!("{value} ({})", self.names[label]),
            RawLabel::Text(value) => format!("`{value}`"),
        };
        let mut shown: Vec<String> = (0..self.names.len().min(SHOWN)).map(show).collect();
        if self.names.len() > SHOWN {
            shown.push(format!("{} more", self.names.len() - SHOWN));
        }
        shown.join(", ")
    }
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
