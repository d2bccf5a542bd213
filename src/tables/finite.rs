//! JSON as Python writes it, made JSON: `NaN`, `Infinity` and `-Infinity` become `null`. Counts lines on the way.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use super::strict::LONGEST_ROW;

/// What is said of a text that is too long to be one.
pub const TOO_LONG: &str = "a text of more than 64 MB";

/// Reads a byte at a time, as `serde_json` asks.
pub struct Finite<R> {
    inner: R,
    /// Read already: what is to be handed on before anything else, last first.
    ahead: Vec<u8>,
    in_text: bool,
    escaped: bool,
    /// Bytes of the text so far.
    length: u64,
    line: Rc<Cell<u64>>,
}

impl<R: BufRead> Finite<R> {
    /// `line` becomes the number of the line that the last byte stands in.
    pub fn new(inner: R, line: Rc<Cell<u64>>) -> Self {
        line.set(1);
        Finite {
            inner,
            ahead: Vec::new(),
            in_text: false,
            escaped: false,
            length: 0,
            line,
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        if let Some(byte) = self.ahead.pop() {
            return Ok(Some(byte));
        }
        let byte = self.inner.fill_buf()?.first().copied();
        self.inner.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    /// The word that begins with `first`, taken out if it is one of those that are no JSON.
    fn word(&mut self, first: u8) -> io::Result<u8> {
        let rest: &[u8] = match first {
            b'N' => b"aN",
            b'I' => b"nfinity",
            _ => b"Infinity",
        };
        let mut read = Vec::new();
        for expected in rest {
            match self.byte()? {
                Some(byte) => read.push(byte),
                None => break,
            }
            if read.last() != Some(expected) {
                break;
            }
        }
        match read == rest {
            true => {
                self.ahead.extend(b"llu");
                Ok(b'n')
            }
            false => {
                self.ahead.extend(read.iter().rev());
                Ok(first)
            }
        }
    }
}

impl<R: BufRead> Read for Finite<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (Some(slot), Some(mut byte)) = (buf.first_mut(), self.byte()?) else {
            return Ok(0);
        };
        self.length = if self.in_text { self.length + 1 } else { 0 };
        if self.length > LONGEST_ROW {
            return Err(io::Error::other(TOO_LONG));
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            b'\n' => self.line.set(self.line.get() + 1),
            b'N' | b'I' | b'-' if !self.in_text => byte = self.word(byte)?,
            _ => {}
        }
        *slot = byte;
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut out = String::new();
        let inner = io::BufReader::with_capacity(2, text.as_bytes());
        Finite::new(inner, Rc::default()).read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn what_is_no_number_becomes_null_and_texts_stay() {
        assert_eq!(
            read(r#"{"NaN":NaN,"a":[Infinity,-Infinity,-1],"t":"NaN \" Infinity \\"}"#),
            r#"{"NaN":null,"a":[null,null,-1],"t":"NaN \" Infinity \\"}"#
        );
        for other in ["N", "NaM", "Inf", "-Inf1", "-", "null", "\"N"] {
            assert_eq!(read(other), other);
        }
    }
}
