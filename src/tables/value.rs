//! A cell, and where its row stands.

use std::borrow::Cow;
use std::fmt;

/// A cell as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Null, not a number, or a key that is not there. An empty CSV cell is an empty text.
    Missing,
    Text(String),
    /// As it is written, digit by digit: a number of any width.
    Number(String),
    Boolean(bool),
    /// A date, a time or the like, as text.
    Date(String),
    /// Bytes that are no text, in hexadecimal: a person's number, for example.
    Bytes(String),
    /// Something with parts: what it is, such as "a list".
    Nested(&'static str),
}

impl Value {
    /// What it is, for a message that must not say what stands in it.
    pub fn what(&self) -> &'static str {
        match self {
            Value::Missing => "nothing",
            Value::Text(_) => "text",
            Value::Number(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date(_) => "dates or times",
            Value::Bytes(_) => "bytes",
            Value::Nested(what) => what,
        }
    }

    /// The same text for the same value in every format: `5`, `5.0` and `5.00` are `5`. None for what is missing or has
    /// parts.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Value::Missing | Value::Nested(_) => None,
            Value::Text(text) | Value::Date(text) | Value::Bytes(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(match (whole(number), number.parse::<f64>()) {
                (Some(integer), _) => Cow::Borrowed(integer),
                // 1e3 is 1000, and 1e17 what floating point has for it.
                (None, Ok(value)) if value.fract() == 0.0 && value.abs() < 1e30 => Cow::Owned(format!("{value:.0}")),
                _ => Cow::Borrowed(number),
            }),
            Value::Boolean(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        }
    }
}

/// The integer that a number with nothing but zeros behind its point is: `5.0` is `5`, and `5` itself.
pub fn whole(number: &str) -> Option<&str> {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (integer, zeros) = number.split_once('.').unwrap_or((number, "0"));
    let unsigned = integer.strip_prefix('-').unwrap_or(integer);
    let whole = digits(unsigned) && digits(zeros) && zeros.bytes().all(|b| b == b'0');
    // There is one zero.
    whole.then_some(if unsigned == "0" { "0" } else { integer })
}

/// Where a row stands in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line that it begins in.
    Line(u64),
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// A row: the cells of the columns that were asked for, in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub place: Place,
    pub values: Vec<Value>,
}

/// At most 40 characters of a label or of a column's name, for a message. Never for a text: what it says is private.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_one_name() {
        for (written, name) in [
            ("5", "5"),
            ("5.0", "5"),
            ("-3.00", "-3"),
            ("18446744073709551616", "18446744073709551616"),
        ] {
            assert_eq!(Value::Number(written.into()).name().unwrap(), name);
        }
        for other in ["5.5", "1e3", ".0", "5.", "-", "", "0x5", "5.0.0"] {
            assert_eq!(whole(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_message_shows_has_a_bound_and_no_control_characters() {
        assert_eq!(short("good"), "good");
        assert_eq!(short(&"x".repeat(41)), "x".repeat(40) + "…");
        assert_eq!(short("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
