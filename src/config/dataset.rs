//! Which records, and what they look like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rules;
use super::rules::is_default;
use crate::tables::{Declared, Escape, is_name, short, whole};
use crate::{Error, Result};

/// Which records, and what they look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// Name of a dataset in `pipelines/assets.toml`; or give `train` and `test`.
    #[serde(default)]
    pub asset: Option<String>,
    /// Training records: a file, a list of files, a pattern, a folder, or `hf://datasets/ORG/NAME/PATTERN`. Looked for as
    /// given, beside the TOML, in `data/` beside it, and under the data folder.
    #[serde(default)]
    pub train: Option<Files>,
    /// Held-out records of the same form, or the share of the training file's units that is held out and never trains.
    #[serde(default)]
    pub test: Option<HeldOut>,
    /// Column that holds the text.
    #[serde(default = "default_text")]
    pub text: TextColumn,
    /// Column that holds the second text of a pair: a record is then both, with `␟` (U+241F) between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_text: Option<String>,
    /// One or more label columns, each with its declared (public) values.
    pub labels: Vec<LabelConfig>,
    /// Who is protected: default, each record; or everything that shares a value of a column, such as a person's records.
    #[serde(default)]
    pub unit: Option<UnitConfig>,
    /// The number of training records (or units, where `unit` is given), declared public (rule P2). Never read off the
    /// data.
    pub public_size: u64,
    /// Epsilon that all runs on this dataset may spend together (rule P8); default: this run's epsilon.
    /// Written into the ledger when it is created.
    #[serde(default)]
    pub total_epsilon: Option<f64>,
    /// A name for whose records these are: all datasets of one population share a ledger, whatever their files. Default: a
    /// ledger for exactly these texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub population: Option<String>,
    /// Declares that nobody in this dataset is in another one, whatever rows they share: runs are then charged to its own
    /// ledger alone, and a release says so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disjoint: bool,
    /// What separates the cells of a CSV file: one character. Default: a tab in .tsv files, else what the header shows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub separator: Option<char>,
    /// Whether quotes around a cell are the format's. Default: yes, and no in .tsv files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quote: Option<bool>,
    /// How a quote within quotes is written: `"doubled"` or `"backslash"`. Default: doubled, and a backslash before a quote is
    /// refused.
    #[serde(default, skip_serializing_if = "is_default")]
    pub escape: Option<Escape>,
    /// Whether the first line of a CSV file names its columns. Without one they are `column_1`, `column_2`, or `columns`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub header: bool,
    /// Names of the columns of a CSV file without a header.
    #[serde(default, skip_serializing_if = "is_default")]
    pub columns: Vec<String>,
    /// Encoding of text files that are not UTF-8, by its name on the web: `"windows-1252"`, `"utf-16le"`, `"shift_jis"`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Option<String>,
    /// Folders in which relative paths were looked for, for an error message: no setting.
    #[serde(skip)]
    pub looked_in: Vec<PathBuf>,
}

impl Default for DatasetConfig {
    fn default() -> Self {
        DatasetConfig {
            asset: None,
            train: None,
            test: None,
            text: default_text(),
            second_text: None,
            labels: Vec::new(),
            unit: None,
            public_size: 0,
            total_epsilon: None,
            population: None,
            disjoint: false,
            separator: None,
            quote: None,
            escape: None,
            header: true,
            columns: Vec::new(),
            encoding: None,
            looked_in: Vec::new(),
        }
    }
}

fn default_text() -> TextColumn {
    TextColumn::from("text")
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// Whether a population may be called so.
pub fn is_population(name: &str) -> bool {
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

impl DatasetConfig {
    /// The same for files that name no units: held-out records.
    pub fn without_unit(&self) -> Self {
        DatasetConfig {
            unit: None,
            ..self.clone()
        }
    }

    /// What synthetic records look like: columns by the names that they are written under, in Parquet, and no units.
    pub fn as_written(&self) -> Self {
        let written = |label: &LabelConfig| LabelConfig {
            column: label.written().into_owned(),
            written_as: None,
            ..label.clone()
        };
        DatasetConfig {
            text: TextColumn::from(self.text.written().as_ref()),
            labels: self.labels.iter().map(written).collect(),
            ..DatasetConfig::default()
        }
    }

    /// Records that a unit of privacy may contribute.
    pub fn max_records_per_unit(&self) -> usize {
        self.unit.as_ref().map_or(1, |u| u.max_records)
    }

    /// How its text files are to be read.
    ///
    /// # Errors
    /// Usage: a separator of more than a byte, an encoding that is not known, names of columns beside a header.
    pub fn declared(&self) -> Result<Declared> {
        let separator = match self.separator {
            Some(c) if !c.is_ascii() || "\"\\\r\n".contains(c) => {
                return Err(Error::usage(format!("`dataset.separator` cannot be {c:?}"))
                    .hint("it is one character, such as \";\" or \"\\t\""));
            }
            separator => separator.map(|c| c as u8),
        };
        let encoding = match &self.encoding {
            None => None,
            Some(name) => Some(encoding_rs::Encoding::for_label(name.as_bytes()).ok_or_else(|| {
                Error::usage(format!("`dataset.encoding` {name:?} is not known"))
                    .hint("it may be \"windows-1252\", \"utf-16le\", \"shift_jis\", \"gbk\" or another of the Encoding Standard's")
            })?),
        };
        if self.header && !self.columns.is_empty() {
            return Err(Error::usage(
                "`dataset.columns` names the columns of files without a header, and `dataset.header` is true",
            )
            .hint("dataset.header = false, or leave `dataset.columns` out"));
        }
        Ok(Declared {
            separator,
            quote: self.quote,
            escape: self.escape,
            header: self.header,
            columns: self.columns.clone(),
            encoding,
        })
    }

    /// Refuses counts of nothing, and files that are not all named or of two datasets.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check_whole(&self) -> Result<()> {
        rules::at_least_one(&[
            ("dataset.public_size", self.public_size as usize),
            ("dataset.unit.max_records", self.max_records_per_unit()),
        ])?;
        if self.labels.is_empty() {
            return Err(Error::usage("`dataset.labels` is empty").hint("name at least one label column and its values"));
        }
        if self.asset.is_some() == self.train.is_some() {
            return Err(Error::usage("a dataset is either an `asset` or a pair of files")
                .hint("give `dataset.asset`, or `dataset.train` and `dataset.test`"));
        }
        if self.asset.is_some() && self.test.is_some() {
            return Err(
                Error::usage("`dataset.test` is given beside `dataset.asset`, which brings its own").hint(
                    "remove `dataset.test`, or give both `dataset.train` and `dataset.test` in place of the asset",
                ),
            );
        }
        if self.train.is_some() && self.test.is_none() {
            return Err(Error::usage("`dataset.test` is missing")
                .hint("held-out records are what the synthetic ones are judged by: a file, or dataset.test = 0.2, which holds out a fifth of the training file's"));
        }
        Ok(())
    }

    /// Names that cannot be written, found before anything is read.
    ///
    /// # Errors
    /// Usage: names of columns that two of them would bear, that synthetic records have for themselves, or that read like a
    /// record.
    pub fn check(&self) -> Result<()> {
        self.declared()?;
        if let Some(population) = self.population.as_ref().filter(|name| !is_population(name)) {
            return Err(Error::usage(format!("`dataset.population` cannot be {:?}", short(population))).hint(
                "it names a ledger: lower-case letters, digits and `-`, beginning with a letter, at most 40 of them, such as acme-reviews",
            ));
        }
        let columns = (self.labels.iter().map(|l| ("label", &l.column, &l.written_as))).chain([(
            "text",
            &self.text.column,
            &self.text.written_as,
        )]);
        if let Some(unit) = self
            .unit
            .as_ref()
            .filter(|unit| !is_name(&unit.column) && whole(&unit.column).is_none())
        {
            return Err(
                Error::usage(format!("the unit's column cannot be {:?}", short(&unit.column))).hint(
                    "the guarantee says its name: it reads like a sentence; give the column a short name in the file",
                ),
            );
        }
        for (what, column, written_as) in columns {
            let hint = match what {
                "text" => "text = { column = \"…\", as = \"text\" } names it for what is written",
                _ => "labels = [{ column = \"…\", as = \"topic\", … }] names it for the prompt and for what is written",
            };
            match written_as {
                Some(name) if !is_plain(name) => {
                    return Err(Error::usage(format!("`as` cannot be {name:?}")).hint(
                        "it is made of letters, digits and `_`, begins with a letter, and has at most 40 of them",
                    ));
                }
                None if !is_name(column) && whole(column).is_none() => {
                    // Every synthetic file would say it.
                    return Err(Error::usage(format!(
                        "the {what} column's name reads like a sentence, and every synthetic file would bear it"
                    ))
                    .hint(format!(
                        "where a CSV file has no header: dataset.header = false; else {hint}"
                    )));
                }
                _ => {}
            }
            if written(column, written_as).eq_ignore_ascii_case("id") {
                return Err(Error::usage(format!(
                    "the {what} column would be written as `id`, the column that numbers synthetic records"
                ))
                .hint(hint));
            }
        }
        let mut names: Vec<String> = self.labels.iter().map(|l| l.written().into_owned()).collect();
        names.push(self.text.written().into_owned());
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.to_lowercase())) {
            return Err(Error::usage(format!("two columns would be written as `{twice}`"))
                .hint("give one of them a name of its own, such as as = \"topic\""));
        }
        let held_out = self.test.as_ref().and_then(HeldOut::files);
        for (key, files) in [("train", self.train.as_ref()), ("test", held_out)] {
            if files.is_some_and(|files| files.paths().is_empty()) {
                return Err(Error::usage(format!("`dataset.{key}` names no file"))
                    .hint("a path, a pattern, a folder, or a list of them"));
            }
        }
        if let Some(total) = self.total_epsilon.filter(|total| !(*total > 0.0 && total.is_finite())) {
            return Err(
                Error::usage(format!("`dataset.total_epsilon` must be a number above 0, not {total}"))
                    .hint("it is what all runs on the dataset may spend together"),
            );
        }
        if let Some(HeldOut::Share(share)) = self.test
            && !(share > 0.0 && share < 1.0)
        {
            return Err(Error::usage(format!(
                "`dataset.test` must be files or a share between 0 and 1, not {share}"
            ))
            .hint("dataset.test = 0.2 holds out a fifth"));
        }
        Ok(())
    }
}

/// One file, or several that are read as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a path, a pattern or a list of them")]
pub enum Files {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl Files {
    /// The paths as they are written.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Files::One(path) => std::slice::from_ref(path),
            Files::Many(paths) => paths,
        }
    }

    /// The same, to change them.
    pub fn paths_mut(&mut self) -> &mut [PathBuf] {
        match self {
            Files::One(path) => std::slice::from_mut(path),
            Files::Many(paths) => paths,
        }
    }
}

impl<P: Into<PathBuf>> From<P> for Files {
    fn from(path: P) -> Self {
        Files::One(path.into())
    }
}

/// Records that never train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a path, a pattern, a list of them, or a share such as 0.2"
)]
pub enum HeldOut {
    /// Of the units in the training file: those whose hash is below it.
    Share(f64),
    Files(Files),
}

impl HeldOut {
    /// The files, where it is any.
    pub fn files(&self) -> Option<&Files> {
        match self {
            HeldOut::Share(_) => None,
            HeldOut::Files(files) => Some(files),
        }
    }

    /// The same, to change them.
    pub fn files_mut(&mut self) -> Option<&mut Files> {
        match self {
            HeldOut::Share(_) => None,
            HeldOut::Files(files) => Some(files),
        }
    }
}

impl<P: Into<PathBuf>> From<P> for HeldOut {
    fn from(path: P) -> Self {
        HeldOut::Files(path.into().into())
    }
}

/// The text column: its name in the file, and the one that it is written under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a column's name, or { column = \"…\", as = \"text\" }"
)]
enum TextForm {
    Name(String),
    Named(Named),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    column: String,
    #[serde(rename = "as")]
    written_as: Option<String>,
}

/// The column that holds the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "TextForm", into = "TextForm")]
pub struct TextColumn {
    /// In the file.
    pub column: String,
    /// In synthetic records; default: as in the file, made plain.
    pub written_as: Option<String>,
}

impl TextColumn {
    /// The name in synthetic records.
    pub fn written(&self) -> std::borrow::Cow<'_, str> {
        written(&self.column, &self.written_as)
    }
}

impl From<&str> for TextColumn {
    fn from(column: &str) -> Self {
        TextColumn {
            column: column.into(),
            written_as: None,
        }
    }
}

impl From<TextForm> for TextColumn {
    fn from(form: TextForm) -> Self {
        match form {
            TextForm::Name(column) => TextColumn {
                column,
                written_as: None,
            },
            TextForm::Named(Named { column, written_as }) => TextColumn { column, written_as },
        }
    }
}

impl From<TextColumn> for TextForm {
    fn from(text: TextColumn) -> Self {
        match text.written_as {
            None => TextForm::Name(text.column),
            written_as => TextForm::Named(Named {
                column: text.column,
                written_as,
            }),
        }
    }
}

/// A unit of privacy that may have several records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table such as { column = \"customer\", max_records = 8 }"
)]
pub struct UnitConfig {
    /// Column whose value the records of a unit share, of any type.
    pub column: String,
    /// Of each unit the first this many records are used, the others are left out.
    pub max_records: usize,
}

/// How a label column is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Strings.
    #[default]
    Text,
    /// Integers: the declared values, else the names where they are integers, else the position of the name.
    Integer,
}

/// A label column. Its values are declared, since reading them off private records would leak rare ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelConfig {
    /// Column name in the file.
    pub column: String,
    /// Its name in the prompt and in synthetic records; default: the column's, made plain.
    #[serde(rename = "as", default, skip_serializing_if = "is_default")]
    pub written_as: Option<String>,
    /// Names of the labels as the prompt says them. Without `values`, entry `i` also names the integer `i`, unless the names
    /// are integers themselves.
    #[serde(default)]
    pub names: Vec<String>,
    /// A JSON list of names, in place of `names`.
    #[serde(default)]
    pub names_file: Option<PathBuf>,
    /// How synthetic labels are written: as text (the declared values, else the names) or as integers. Declared, since
    /// the type that a private file happens to have can turn on a single record.
    #[serde(rename = "type", default)]
    pub kind: ColumnKind,
    /// The values as they stand in the file, where they differ from the names.
    #[serde(default)]
    pub values: Option<Vec<String>>,
}

impl LabelConfig {
    /// The name in the prompt and in synthetic records.
    pub fn written(&self) -> std::borrow::Cow<'_, str> {
        written(&self.column, &self.written_as)
    }
}

pub(super) fn written<'a>(column: &'a str, written_as: &'a Option<String>) -> std::borrow::Cow<'a, str> {
    match written_as {
        Some(name) => name.as_str().into(),
        None if is_plain(column) => column.into(),
        None => plain(column).into(),
    }
}

/// Whether a template can name it and every reader of Parquet takes it.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && name.chars().count() <= 40
}

/// `Class Index` as `Class_Index`, and 2 as `column_2`.
fn plain(name: &str) -> String {
    let plain: String = name
        .trim()
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .collect();
    match plain.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        true => plain,
        false => format!("column_{plain}"),
    }
}
