//! JSON: objects one after the other (JSON Lines among them), or one list of objects.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::rc::Rc;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::finite::{Finite, TOO_LONG};
use super::names::{Header, Names};
use super::text;
use super::value::{Place, Row, Value};
use super::{Each, Table, Wanted};
use crate::{Error, Result};

/// Rows from which the columns are learnt where they are asked for: JSON declares none.
pub const LOOKED_AT: u64 = 1000;

/// Gives each row's `wanted` cells to `each`. Every other key is passed over, whatever it holds.
pub fn rows(table: &Table, wanted: &Wanted, each: &mut Each) -> Result<()> {
    let open = Open::new(table)?;
    let mut cells = Cells {
        columns: &wanted.columns,
        seen: vec![false; wanted.columns.len()],
        rows: 0,
        line: open.line.clone(),
        each,
        failed: None,
    };
    let outcome = open.read(&mut cells);
    if let Some(error) = cells.failed {
        return Err(error);
    }
    outcome?;
    match cells.seen.iter().position(|seen| !seen) {
        // Of a file without rows nothing is known.
        Some(missing) if cells.rows > 0 => Err(missing_key(table, wanted, wanted.columns[missing], cells.rows)?),
        _ => Ok(()),
    }
}

/// The keys of the first [`LOOKED_AT`] rows, in the order in which they appear, and what they hold there first.
pub fn keys(table: &Table) -> Result<Vec<(String, &'static str)>> {
    first_keys(table, LOOKED_AT)
}

fn first_keys(table: &Table, rows: u64) -> Result<Vec<(String, &'static str)>> {
    let mut keys = Keys {
        keys: Vec::new(),
        known: HashMap::new(),
        rows: 0,
        enough: rows,
    };
    let outcome = Open::new(table)?.read(&mut keys);
    match outcome {
        Err(error) if keys.rows < keys.enough => Err(error),
        _ => Ok(keys.keys),
    }
}

/// What lists are usually called that hold the records of a file.
const LISTS: [&str; 12] = [
    "train",
    "test",
    "validation",
    "data",
    "records",
    "rows",
    "items",
    "examples",
    "instances",
    "results",
    "documents",
    "entries",
];

/// Why there is no such key, by what the first row holds. Keys may be private: of those that nobody named, the ones that are
/// plain words are shown, and only where a wanted one stands beside them.
fn missing_key(table: &Table, wanted: &Wanted, column: &str, rows: u64) -> Result<Error> {
    let path = table.path.display();
    let keys = first_keys(table, 1)?;
    let lists: Vec<&str> = keys
        .iter()
        .filter(|(_, holds)| *holds == "a list")
        .map(|(name, _)| name.as_str())
        .collect();
    if rows == 1 && !lists.is_empty() {
        let usual = lists.iter().find(|name| LISTS.contains(name));
        let key = usual.copied().unwrap_or("KEY");
        let such_as = usual.map(|name| format!(", such as `{name}`")).unwrap_or_default();
        return Ok(Error::data(format!(
            "{path} is one object, and the records are in a list inside it{such_as}"
        ))
        .hint(format!("write the list itself: jq -c '.\"{key}\"[]' FILE > FILE.jsonl")));
    }
    let names: Vec<String> = keys.into_iter().map(|(name, _)| name).collect();
    let header = Header {
        path: &table.path,
        names: &names,
        kind: Names::Keys,
    };
    Ok(header.missing(column, wanted))
}

/// A file that is open, and where its reader is.
struct Open<'a> {
    table: &'a Table,
    source: Deserializer<serde_json::de::IoRead<Box<dyn Read>>>,
    line: Rc<Cell<u64>>,
    is_list: bool,
}

impl<'a> Open<'a> {
    fn new(table: &'a Table) -> Result<Self> {
        let mut reader = table.text()?;
        let begins = reader.fill_buf().map_err(|e| text::damaged(&table.path, &e))?;
        let is_list = begins.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
        let line = Rc::new(Cell::new(1));
        let source = Deserializer::from_reader(Box::new(Finite::new(reader, line.clone())) as Box<dyn Read>);
        Ok(Open {
            table,
            source,
            line,
            is_list,
        })
    }

    fn read(mut self, rows: &mut impl Rows) -> Result<()> {
        let outcome = match self.is_list {
            true => self.source.deserialize_seq(List(rows)).and_then(|()| self.source.end()),
            false => loop {
                // Looks for what comes next and leaves it where it is.
                if self.source.end().is_ok() {
                    break Ok(());
                }
                if let Err(e) = Object(rows).deserialize(&mut self.source) {
                    break Err(e);
                }
            },
        };
        outcome.map_err(|e| self.broken(&e))
    }

    /// The error in the program's own words: `serde_json` quotes what it did not expect, which may be private.
    fn broken(&self, error: &serde_json::Error) -> Error {
        let path = self.table.path.display();
        // The line break at which a line was found wanting is read already.
        let line = match (error.line() as u64, error.column()) {
            (0, _) => self.line.get(),
            (line, 0) => (line - 1).max(1),
            (line, _) => line,
        };
        let said = error.to_string();
        let what = said.split(" at line ").next().unwrap_or_default();
        let records =
            "a record is an object such as {\"text\": \"…\", \"label\": \"…\"}: one on each line, or all in one list";
        match error.classify() {
            Category::Eof => Error::data(format!("{path} ends in the middle of a record, in line {line}"))
                .hint("the file may be cut off; fetch or write it again"),
            Category::Io if said.contains(TOO_LONG) => {
                Error::data(format!("line {} of {path} holds {TOO_LONG}", self.line.get())).hint("is a quote missing?")
            }
            Category::Io => Error::data(format!("cannot read {path}: {what}"))
                .hint("the file may be cut off; fetch or write it again"),
            _ if what.contains("invalid unicode code point") => text::not_utf8(&self.table.path, line),
            Category::Data => {
                Error::data(format!("line {line} of {path} holds something other than a record")).hint(records)
            }
            Category::Syntax => Error::data(format!("line {line} of {path} is not JSON: {what}"))
                .hint(format!("{records}; a line break within a text is \\n")),
        }
    }
}

/// What is made of a row.
trait Rows {
    fn row<'de, A: MapAccess<'de>>(&mut self, row: A) -> std::result::Result<(), A::Error>;
}

/// The wanted cells.
struct Cells<'a, 'e, 'f> {
    columns: &'a [&'a str],
    /// Whether a column was in any row.
    seen: Vec<bool>,
    rows: u64,
    line: Rc<Cell<u64>>,
    each: &'e mut Each<'f>,
    /// What `each` said.
    failed: Option<Error>,
}

impl Rows for Cells<'_, '_, '_> {
    fn row<'de, A: MapAccess<'de>>(&mut self, mut row: A) -> std::result::Result<(), A::Error> {
        let place = Place::Line(self.line.get());
        let mut values = vec![Value::Missing; self.columns.len()];
        while let Some(column) = row.next_key_seed(Column(self.columns))? {
            match column {
                Some(column) => {
                    let raw: Box<RawValue> = row.next_value()?;
                    values[column] = value(raw.get());
                    self.seen[column] = true;
                }
                None => drop(row.next_value::<IgnoredAny>()?),
            }
        }
        self.rows += 1;
        (self.each)(Row { place, values }).map_err(|error| {
            self.failed = Some(error);
            A::Error::custom("refused")
        })
    }
}

/// The keys, and what each holds where it is met first.
struct Keys {
    keys: Vec<(String, &'static str)>,
    /// Where each stands.
    known: HashMap<String, usize>,
    rows: u64,
    enough: u64,
}

/// Keys that are listed, at most: some files have keys of their own in each row.
const MOST_KEYS: usize = 1000;

impl Rows for Keys {
    fn row<'de, A: MapAccess<'de>>(&mut self, mut row: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = row.next_key_seed(AnyKey)? {
            let holds = row.next_value_seed(Holds)?;
            match self.known.get(&key) {
                Some(at) if self.keys[*at].1 == "nothing" => self.keys[*at].1 = holds,
                Some(_) => {}
                None if self.keys.len() == MOST_KEYS => {}
                None => {
                    self.known.insert(key.clone(), self.keys.len());
                    self.keys.push((key, holds));
                }
            }
        }
        self.rows += 1;
        match self.rows < self.enough {
            true => Ok(()),
            false => Err(A::Error::custom("enough")),
        }
    }
}

/// A key, whatever it is.
struct AnyKey;

impl<'de> DeserializeSeed<'de> for AnyKey {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> std::result::Result<String, D::Error> {
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for AnyKey {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> std::result::Result<String, E> {
        Ok(String::from_utf8_lossy(key).into_owned())
    }
}

/// What stands where a cell is, written out.
fn value(raw: &str) -> Value {
    match raw.as_bytes() {
        [b'"', ..] => Value::Text(decode(raw)),
        [b't', ..] => Value::Boolean(true),
        [b'f', ..] => Value::Boolean(false),
        [b'n', ..] => Value::Missing,
        [b'[', ..] => Value::Nested("a list"),
        [b'{', ..] => Value::Nested("an object"),
        _ => Value::Number(raw.to_string()),
    }
}

/// A JSON string, quotes included, as text. Half a surrogate pair, as is left of an emoji that was cut in the middle,
/// becomes U+FFFD.
fn decode(raw: &str) -> String {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    // Asked for bytes, `serde_json` hands on half a pair as its three bytes ED A0..BF 80..BF, which no UTF-8 text holds.
    let bytes = Deserializer::from_str(raw).deserialize_bytes(Bytes).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let mut out = String::new();
        let mut rest = e.as_bytes();
        while !rest.is_empty() {
            let valid = match std::str::from_utf8(rest) {
                Ok(text) => text.len(),
                Err(e) => e.valid_up_to(),
            };
            out.push_str(&String::from_utf8_lossy(&rest[..valid]));
            rest = &rest[valid..];
            if !rest.is_empty() {
                out.push('\u{fffd}');
                rest = &rest[rest.len().min(3)..];
            }
        }
        out
    })
}

/// A row: an object.
struct Object<'r, R>(&'r mut R);

impl<'de, R: Rows> DeserializeSeed<'de> for Object<'_, R> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, R: Rows> Visitor<'de> for Object<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, row: A) -> std::result::Result<(), A::Error> {
        self.0.row(row)
    }
}

/// All rows, in one list.
struct List<'r, R>(&'r mut R);

impl<'de, R: Rows> Visitor<'de> for List<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> std::result::Result<(), A::Error> {
        while rows.next_element_seed(Object(self.0))?.is_some() {}
        Ok(())
    }
}

/// The position of a key among the wanted ones.
struct Column<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Column<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        // Not as text: half a surrogate pair in a key that nobody asked for breaks nothing.
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Column<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> std::result::Result<Self::Value, E> {
        Ok(self.0.iter().position(|column| column.as_bytes() == key))
    }
}

/// What a value is, whatever it says.
struct Holds;

impl<'de> DeserializeSeed<'de> for Holds {
    type Value = &'static str;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Holds {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok("nothing")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok("true or false")
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok("integers")
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok("integers")
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok("numbers")
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self::Value, E> {
        Ok("text")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok("a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok("an object")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_becomes_one_replacement_character() {
        assert_eq!(decode(r#""cut \ud83d and on""#), "cut \u{fffd} and on");
        assert_eq!(decode(r#""\ude00\ud83d""#), "\u{fffd}\u{fffd}");
        assert_eq!(decode(r#""whole \ud83d\ude00 é\n""#), "whole 😀 é\n");
    }
}
