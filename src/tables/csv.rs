//! CSV and its like: lines of cells.

use std::cell::RefCell;
use std::io::{BufRead, Cursor, Read};
use std::path::Path;
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};

use super::Escape;
use super::names::{self, Header, Names};
use super::strict::{Fault, Quoting, Seen, Strict};
use super::text;
use super::value::{Place, Row, Value};
use super::{Each, Format, Table, Wanted};
use crate::{Error, Result};

/// Tried, in this order, where no separator is declared and a comma finds no column.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A header that is longer is none.
const LONGEST_HEADER: u64 = 1 << 20;

/// An open file: its columns, and the rows behind them.
pub struct Csv<'a> {
    table: &'a Table,
    rows: csv::Reader<Box<dyn Read>>,
    seen: Rc<RefCell<Seen>>,
    pub quoting: Quoting,
    /// Names of the columns; of a file without a header, by number.
    pub names: Vec<String>,
    /// The first row of a file without a header: it was read to count its cells.
    first: Option<ByteRecord>,
}

impl<'a> Csv<'a> {
    /// Opens `table` and reads its header. `wanted` are the names that a separator must find where none is declared.
    pub fn open(table: &'a Table, wanted: &[&str]) -> Result<Self> {
        let declared = &table.declared;
        let path = table.path.as_path();
        let mut reader = table.text()?;
        let mut line = 1;
        let mut head = first_line(path, &mut reader, &mut line)?;
        let mut separator = declared.separator;
        if let Some(told) = told_separator(&head).filter(|_| declared.header) {
            // Excel's own line, before a header. Where there is none the first line is a record, whatever it says.
            separator = separator.or(Some(told));
            line += 1;
            head = first_line(path, &mut reader, &mut line)?;
        }
        let mut quoting = Quoting {
            separator: separator.unwrap_or(if table.format == Format::Tsv { b'\t' } else { b',' }),
            quotes: declared.quote.unwrap_or(table.format != Format::Tsv),
            escape: declared.escape,
        };
        if declared.header {
            if separator.is_none() && table.format == Format::Csv {
                quoting.separator = found_separator(&head, quoting, wanted);
            }
            if declared.quote.is_none() && !quoting.quotes {
                // Quoted names leave no doubt.
                quoting.quotes = cells(&head, quoting).iter().all(|name| is_quoted(name.as_bytes()));
            }
        }
        let seen = Rc::new(RefCell::new(Seen::default()));
        let strict = Strict::new(Cursor::new(head).chain(reader), quoting, line, seen.clone());
        let rows = builder(quoting).from_reader(Box::new(strict) as Box<dyn Read>);
        let mut csv = Csv {
            table,
            rows,
            seen,
            quoting,
            names: Vec::new(),
            first: None,
        };
        csv.read_names()?;
        Ok(csv)
    }

    fn read_names(&mut self) -> Result<()> {
        let mut first = ByteRecord::new();
        let Some(line) = self.next(&mut first)? else {
            return Ok(());
        };
        if self.table.declared.header {
            // A name that nobody asks for may be anything.
            let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
            self.names = first.iter().map(name).collect();
            return Ok(());
        }
        let declared = &self.table.declared.columns;
        if !declared.is_empty() && declared.len() != first.len() {
            return Err(self
                .at(
                    line,
                    &format!(
                        "has {}, `dataset.columns` names {}",
                        fields(first.len()),
                        declared.len()
                    ),
                )
                .hint(self.separator_hint()));
        }
        self.names = match declared.is_empty() {
            true => (1..=first.len()).map(|i| format!("column_{i}")).collect(),
            false => declared.clone(),
        };
        self.seen.borrow_mut().lines.push_front(line);
        self.first = Some(first);
        Ok(())
    }

    /// Gives each row's `wanted` cells to `each`.
    pub fn rows(mut self, wanted: &Wanted, each: &mut Each) -> Result<()> {
        let header = Header {
            path: &self.table.path,
            names: &self.names,
            kind: if self.table.declared.header {
                Names::FirstLine
            } else {
                Names::Declared
            },
        };
        let at = header.find(wanted)?;
        let mut record = ByteRecord::new();
        if let Some(first) = self.first.take() {
            let line = self.seen.borrow_mut().lines.pop_front().unwrap_or(1);
            each(self.row(&first, line, &at)?)?;
        }
        while let Some(line) = self.next(&mut record)? {
            each(self.row(&record, line, &at)?)?;
        }
        Ok(())
    }

    fn row(&self, record: &ByteRecord, line: u64, at: &[usize]) -> Result<Row> {
        if record.len() != self.names.len() {
            let of = if self.table.declared.header {
                "the header"
            } else {
                "the first line"
            };
            let what = format!("has {}, {of} has {}", fields(record.len()), self.names.len());
            return Err(self.at(line, &what).hint(self.separator_hint()));
        }
        let value = |i: &usize| {
            let bytes = &record[*i];
            if !self.quoting.quotes && self.table.declared.quote.is_none() && may_be_quoted(bytes) {
                return Err(self
                    .at(
                        line,
                        &format!("has a cell in quotes in column `{}`", names::shown(&self.names[*i])),
                    )
                    .hint(
                        "dataset.quote = true where the quotes are the format's, false where they are part of the text",
                    ));
            }
            match std::str::from_utf8(bytes) {
                // MySQL's null.
                Ok("\\N") if self.quoting.escape == Some(Escape::Backslash) => Ok(Value::Missing),
                // Files that were joined have the second one's mark in the middle.
                Ok(text) if *i == 0 => Ok(Value::Text(text.trim_start_matches('\u{feff}').to_string())),
                Ok(text) => Ok(Value::Text(text.to_string())),
                Err(_) => Err(text::not_utf8(&self.table.path, line)),
            }
        };
        Ok(Row {
            place: Place::Line(line),
            values: at.iter().map(value).collect::<Result<_>>()?,
        })
    }

    /// The line that the next row begins in; none at the end.
    fn next(&mut self, record: &mut ByteRecord) -> Result<Option<u64>> {
        let read = self.rows.read_byte_record(record);
        let mut seen = self.seen.borrow_mut();
        match read {
            Ok(true) => Ok(Some(seen.lines.pop_front().unwrap_or(0))),
            Ok(false) => Ok(None),
            Err(e) => match seen.fault {
                Some((fault, line)) => Err(self.fault(fault, line)),
                None => Err(Error::data(format!("cannot read {}: {e}", self.table.path.display()))
                    .hint("the file may be cut off; fetch or write it again")),
            },
        }
    }

    fn fault(&self, fault: Fault, line: u64) -> Error {
        let (what, hint) = match fault {
            Fault::Unclosed => (
                "opens a quote that is not closed in the file, or in 64 MB of it",
                "the file may be cut off there; a quote within quotes is doubled (\"\"); where quotes mean nothing: \
                 dataset.quote = false",
            ),
            Fault::BehindQuote => (
                "has something behind the closing quote of a cell",
                "a quote within quotes is doubled (\"\"); where a backslash escapes it: dataset.escape = \"backslash\"; where \
                 quotes mean nothing: dataset.quote = false",
            ),
            Fault::Backslash => (
                "has a backslash before a quote, which can be read in two ways",
                "dataset.escape = \"backslash\" where it escapes the quote, as Spark writes it; \"doubled\" where it is a \
                 letter like any other",
            ),
            Fault::TooLong => (
                "belongs to a row of more than 64 MB",
                "is it a CSV file, with line ends?",
            ),
            Fault::BlankBeforeQuote => (
                "has a blank before a quote at the beginning of a cell, which can be read in two ways",
                "write the file without blanks behind separators; where quotes mean nothing: dataset.quote = false",
            ),
        };
        self.at(line, what).hint(hint)
    }

    fn at(&self, line: u64, what: &str) -> Error {
        Error::data(format!("line {line} of {} {what}", self.table.path.display()))
    }

    fn separator_hint(&self) -> String {
        if !self.quoting.quotes {
            return format!(
                "cells are separated by {} here, and quotes mean nothing; where cells stand in quotes: dataset.quote = true",
                shown_separator(self.quoting.separator)
            );
        }
        format!(
            "cells are separated by {} here; a text that holds one, or a line break, stands in quotes; dataset.separator names another",
            shown_separator(self.quoting.separator)
        )
    }
}

/// As a person would name it.
pub fn shown_separator(separator: u8) -> String {
    match separator {
        b'\t' => "a tab".into(),
        b',' => "a comma".into(),
        b';' => "a semicolon".into(),
        b'|' => "a bar (|)".into(),
        other => format!("`{}`", char::from(other)),
    }
}

fn fields(n: usize) -> String {
    format!("{n} {}", if n == 1 { "field" } else { "fields" })
}

fn builder(quoting: Quoting) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder
        .delimiter(quoting.separator)
        .quoting(quoting.quotes)
        .has_headers(false)
        .flexible(true);
    builder
}

/// The first line that is not blank, its end included; `line` is its number.
fn first_line(path: &Path, reader: &mut Box<dyn BufRead>, line: &mut u64) -> Result<Vec<u8>> {
    loop {
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut bytes);
        let read = read.map_err(|e| text::damaged(path, &e))?;
        if read == 0 || !matches!(bytes.as_slice(), b"\n" | b"\r\n") {
            return Ok(bytes);
        }
        *line += 1;
    }
}

/// What Excel's `sep=;` names.
fn told_separator(head: &[u8]) -> Option<u8> {
    let line = head.strip_suffix(b"\n").unwrap_or(head);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line
        .strip_prefix(b"\"")
        .and_then(|l| l.strip_suffix(b"\""))
        .unwrap_or(line);
    match line {
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator] => Some(*separator),
        _ => None,
    }
}

/// The comma, unless it finds not all of the wanted columns in the header and one other separator alone does. Goes by the
/// header and by nothing else: no row changes how another is read.
fn found_separator(head: &[u8], quoting: Quoting, wanted: &[&str]) -> u8 {
    let finds = |separator: &u8| {
        let names = cells(
            head,
            Quoting {
                separator: *separator,
                ..quoting
            },
        );
        names.len() > 1 && wanted.iter().all(|name| names.iter().any(|n| n.trim() == *name))
    };
    let found: Vec<u8> = SEPARATORS
        .into_iter()
        .filter(finds)
        .filter(|_| !wanted.is_empty())
        .collect();
    match found.as_slice() {
        [first, ..] if *first == b',' || found.len() == 1 => *first,
        // None finds all of them: the one that finds most cells says best what is there.
        [] => *SEPARATORS
            .iter()
            .rev()
            .max_by_key(|separator| {
                cells(
                    head,
                    Quoting {
                        separator: **separator,
                        ..quoting
                    },
                )
                .len()
            })
            .expect("there are some"),
        _ => b',',
    }
}

/// The cells of one line.
fn cells(line: &[u8], quoting: Quoting) -> Vec<String> {
    let mut record = ByteRecord::new();
    let mut reader = builder(quoting).from_reader(line);
    let _ = reader.read_byte_record(&mut record);
    record
        .iter()
        .map(|cell| String::from_utf8_lossy(cell).into_owned())
        .collect()
}

/// Whether quotes may be the format's: they enclose the cell, or one begins it and is closed in another line.
fn may_be_quoted(cell: &[u8]) -> bool {
    let quotes = cell.iter().filter(|b| **b == b'"').count();
    is_quoted(cell) || (cell.starts_with(b"\"") && quotes % 2 == 1)
}

fn is_quoted(cell: &[u8]) -> bool {
    cell.len() >= 2 && cell.starts_with(b"\"") && cell.ends_with(b"\"")
}
