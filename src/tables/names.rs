//! Names of columns: the wanted ones among those that a file has.
//!
//! The first line of a CSV file may be a record: no message says what stands in it unless it is a header beyond doubt.

use std::path::Path;

use super::Wanted;
use super::value::{short, whole};
use crate::{Error, Result};

/// Where names come from, and so what they may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// The first line of a CSV file, which may be a record.
    FirstLine,
    /// Numbers, or the configuration: the file has none.
    Declared,
    /// A schema.
    Schema,
    /// The keys of a JSON object.
    Keys,
}

/// What a file calls its columns.
pub struct Header<'a> {
    pub path: &'a Path,
    pub names: &'a [String],
    pub kind: Names,
}

impl Header<'_> {
    /// Where each wanted column stands.
    ///
    /// # Errors
    /// Data: there is no such column, or there are two.
    pub fn find(&self, wanted: &Wanted) -> Result<Vec<usize>> {
        wanted
            .columns
            .iter()
            .map(|column| self.position(column, wanted))
            .collect()
    }

    fn position(&self, column: &str, wanted: &Wanted) -> Result<usize> {
        let numbered = format!("column_{column}");
        let is_it = |name: &String| name == column || (self.kind == Names::Declared && *name == numbered);
        let mut found = (0..self.names.len()).filter(|i| is_it(&self.names[*i]));
        match (found.next(), found.next()) {
            (Some(at), None) => Ok(at),
            (Some(_), Some(_)) => {
                Err(
                    Error::data(format!("{} has two columns `{}`", self.path.display(), short(column)))
                        .hint("give each column a name of its own"),
                )
            }
            (None, _) => Err(self.missing(column, wanted)),
        }
    }

    /// There is no such column. What a first line or keys say is shown only where a wanted column stands among them: else
    /// they may be a record.
    pub fn missing(&self, column: &str, wanted: &Wanted) -> Error {
        let error = Error::data(format!("{} has no column `{}`", self.path.display(), short(column)));
        let known = wanted.columns.iter().any(|c| self.names.iter().any(|name| name == c));
        let may_be_private = matches!(self.kind, Names::FirstLine | Names::Keys) && !known;
        let inspect = format!(
            "dpsynth inspect {} shows what is there, to you alone",
            self.path.display()
        );
        match self.kind {
            _ if !may_be_private => {}
            Names::FirstLine if self.names.len() == 1 && wanted.columns.len() > 1 => {
                return error.hint(format!(
                    "its first line has one cell: dataset.separator = \";\" names what separates cells; {inspect}"
                ));
            }
            // Said without a word of it.
            Names::FirstLine if self.is_record(wanted) => {
                return error.hint(format!(
                    "its first line, of {} cells, looks like a record and not like names of columns; where there is no header: \
                     dataset.header = false, and columns are named column_1, column_2 or by dataset.columns = [\"…\", \"…\"]",
                    self.names.len()
                ));
            }
            _ => {
                return error.hint(format!(
                    "none of the wanted columns is among its {}: set `dataset.text`, `dataset.labels` and `dataset.unit` to what \
                     there is; {inspect}; where a CSV file has no header: dataset.header = false",
                    self.names.len()
                ));
            }
        }
        let alike = |name: &String| strsim::jaro_winkler(&name.to_lowercase(), &column.to_lowercase());
        let nearest = self
            .names
            .iter()
            .map(|name| (alike(name), name))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let nearest = nearest.filter(|(alike, name)| *alike > 0.8 && is_name(name));
        let nearest = nearest
            .map(|(_, name)| format!("did you mean `{}`? ", short(name)))
            .unwrap_or_default();
        error.hint(format!(
            "{nearest}its columns are {}; set `dataset.text`, `dataset.labels` and `dataset.unit` to what there is",
            self.shown()
        ))
    }

    /// The names as far as they are names.
    fn shown(&self) -> String {
        const SHOWN: usize = 30;
        let mut out: Vec<String> = self.names.iter().take(SHOWN).map(|name| shown(name)).collect();
        if self.names.len() > SHOWN {
            out.push(format!("{} more", self.names.len() - SHOWN));
        }
        out.join(", ")
    }

    /// Whether the first line may be a record: a label stands in it, or something that is no plain word.
    fn is_record(&self, wanted: &Wanted) -> bool {
        let plain = |name: &String| is_word(name) && !(wanted.is_label)(name);
        !self.names.iter().all(plain)
    }
}

/// A name, or dots in place of what is more like a text.
pub fn shown(name: &str) -> String {
    match is_name(name) {
        true => short(name),
        false => "…".into(),
    }
}

/// Whether it reads like the name of a column: few words, no number, no sentence.
pub fn is_name(name: &str) -> bool {
    let letters = name.chars().any(char::is_alphabetic);
    letters
        && name.chars().count() <= 40
        && name.split_whitespace().count() <= 3
        && !name.contains(['!', '?', ',', ';', '"'])
        && !name.contains(". ")
        && !name.ends_with('.')
        && whole(name).is_none()
}

/// Whether a first line reads like a record: some cell of it cannot be a column's name.
pub fn looks_like_record(names: &[String]) -> bool {
    let plain = |name: &String| name.is_empty() || is_name(name);
    !names.iter().all(plain)
}

fn is_word(name: &str) -> bool {
    is_name(name) && name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c))
}
