//! CSV of which every row can be read in one way alone, handed on as RFC 4180 has it.
//!
//! The `csv` crate reads whatever it is given: what follows a closing quote is joined to the field, and a quote that is never
//! closed takes the rest of the file into one record. Here such a file ends in an error with its line, so that no row is read
//! otherwise for what stands in another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use super::Escape;

/// Why a file cannot be read in one way alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A quoted field is open where the file ends.
    Unclosed,
    /// Something other than a separator follows a closing quote.
    BehindQuote,
    /// A backslash before a quote, and nothing says what it means.
    Backslash,
    /// A quote after blanks at the beginning of a field.
    BlankBeforeQuote,
    /// A row longer than [`LONGEST_ROW`].
    TooLong,
}

/// Bytes of a row, at most: a quote that is never closed must not take the rest of a large file into memory.
pub const LONGEST_ROW: u64 = 1 << 26;

/// What the reader of the rows may ask: it is behind by as much as is buffered.
#[derive(Default)]
pub struct Seen {
    /// The line in which each row begins that was not asked for yet.
    pub lines: VecDeque<u64>,
    /// What is wrong, and in which line.
    pub fault: Option<(Fault, u64)>,
}

/// How cells are told apart.
#[derive(Clone, Copy, Debug)]
pub struct Quoting {
    pub separator: u8,
    /// Whether quotes mean anything.
    pub quotes: bool,
    /// How a quote within quotes is written; none: doubled, and a backslash before it is refused.
    pub escape: Option<Escape>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between rows: line ends here are blank lines.
    Row,
    Field,
    /// Blanks stand at the beginning of a field.
    Blanks,
    Unquoted,
    Quoted,
    /// After a backslash within quotes.
    Escaped,
    /// After a quote within quotes.
    Quote,
}

/// Reads `inner` and hands on RFC 4180.
pub struct Strict<R> {
    inner: R,
    quoting: Quoting,
    state: State,
    line: u64,
    after_return: bool,
    /// Bytes of the row so far.
    length: u64,
    opened: u64,
    /// Bytes to hand on, and how many of them were.
    ready: Vec<u8>,
    handed: usize,
    ended: bool,
    seen: Rc<RefCell<Seen>>,
}

impl<R: BufRead> Strict<R> {
    /// `line` is that of the first byte.
    pub fn new(inner: R, quoting: Quoting, line: u64, seen: Rc<RefCell<Seen>>) -> Self {
        Strict {
            inner,
            quoting,
            state: State::Row,
            line,
            after_return: false,
            length: 0,
            opened: line,
            ready: Vec::new(),
            handed: 0,
            ended: false,
            seen,
        }
    }

    /// Takes a byte; what it is handed on as is in `ready`.
    fn take(&mut self, byte: u8) -> Result<(), (Fault, u64)> {
        let q = self.quoting;
        if self.state == State::Row && !matches!(byte, b'\r' | b'\n') {
            self.seen.borrow_mut().lines.push_back(self.line);
            self.state = State::Field;
            self.length = 0;
        }
        self.length += 1;
        if self.length > LONGEST_ROW {
            return Err(match self.state {
                State::Quoted | State::Escaped => (Fault::Unclosed, self.opened),
                _ => (Fault::TooLong, self.line),
            });
        }
        let between = |byte| match byte {
            b'\r' | b'\n' => State::Row,
            _ if byte == q.separator => State::Field,
            _ => State::Unquoted,
        };
        let backslash = byte == b'\\' && q.escape != Some(Escape::Doubled);
        let (next, handed): (State, &[u8]) = match (self.state, byte) {
            (State::Field, b'"') if q.quotes => {
                self.opened = self.line;
                (State::Quoted, b"\"")
            }
            (State::Blanks, b'"') if q.quotes => return Err((Fault::BlankBeforeQuote, self.line)),
            (State::Field | State::Blanks, b' ' | b'\t') if byte != q.separator => (State::Blanks, &[byte]),
            (State::Quoted, b'"') => (State::Quote, b""),
            (State::Quoted, b'\\') if backslash => (State::Escaped, b""),
            (State::Quoted, _) => (State::Quoted, &[byte]),
            (State::Escaped, b'"') if q.escape.is_none() => return Err((Fault::Backslash, self.line)),
            (State::Escaped, b'"') => (State::Quoted, b"\"\""),
            (State::Escaped, b'\\') if q.escape.is_some() => (State::Quoted, b"\\"),
            // It escapes a quote and itself, and stands for itself before anything else.
            (State::Escaped, b'\\') => (State::Escaped, b"\\"),
            (State::Escaped, _) => (State::Quoted, &[b'\\', byte]),
            (State::Quote, b'"') => (State::Quoted, b"\"\""),
            (State::Quote, _) => match between(byte) {
                State::Unquoted => return Err((Fault::BehindQuote, self.line)),
                next => {
                    self.ready.push(b'"');
                    (next, &[byte])
                }
            },
            (State::Row, _) => (State::Row, &[byte]),
            (State::Field | State::Blanks | State::Unquoted, _) => (between(byte), &[byte]),
        };
        self.ready.extend_from_slice(handed);
        self.state = next;
        self.line += u64::from(byte == b'\r' || (byte == b'\n' && !self.after_return));
        self.after_return = byte == b'\r';
        Ok(())
    }

    fn end(&mut self) -> Result<(), (Fault, u64)> {
        self.ended = true;
        match self.state {
            State::Quoted | State::Escaped => Err((Fault::Unclosed, self.opened)),
            State::Quote => {
                self.ready.push(b'"');
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Strict<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.handed == self.ready.len() && !self.ended {
            self.ready.clear();
            self.handed = 0;
            let bytes = self.inner.fill_buf()?.to_vec();
            let taken = match bytes.is_empty() {
                true => self.end(),
                false => bytes.iter().try_for_each(|byte| self.take(*byte)),
            };
            self.inner.consume(bytes.len());
            if let Err(fault) = taken {
                self.ended = true;
                self.seen.borrow_mut().fault = Some(fault);
            }
        }
        if self.handed == self.ready.len() && self.seen.borrow().fault.is_some() {
            return Err(io::Error::other("not to be read in one way alone"));
        }
        let read = (&self.ready[self.handed..]).read(buf)?;
        self.handed += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, quotes: bool, escape: Option<Escape>) -> (String, Option<(Fault, u64)>, Vec<u64>) {
        let quoting = Quoting {
            separator: b',',
            quotes,
            escape,
        };
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut out = Vec::new();
        // A small buffer: what a row means must not turn on where a block ends.
        let inner = io::BufReader::with_capacity(3, text.as_bytes());
        let _ = Strict::new(inner, quoting, 1, seen.clone()).read_to_end(&mut out);
        let seen = seen.borrow();
        (
            String::from_utf8(out).unwrap(),
            seen.fault,
            seen.lines.iter().copied().collect(),
        )
    }

    #[test]
    fn what_is_plain_is_handed_on_as_it_is() {
        for text in [
            "a,b\r\n\r\n\"x,\"\"y\"\"\nz\",5\" nail\n",
            "a\n",
            "a, b\n",
            "",
            "\"\"",
            "a,\"b\"",
            "C:\\dir,\"\\n\"\n",
        ] {
            let (out, fault, _) = read(text, true, None);
            assert_eq!((out.as_str(), fault), (text, None));
        }
        assert_eq!(read("a\r\n\r\n\"x\ny\",b\n\nc", true, None).2, [1, 3, 6]);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_with_its_line() {
        for (text, fault) in [
            ("a\n\"x\ny", (Fault::Unclosed, 2)),
            ("a\n\"x\"y\n", (Fault::BehindQuote, 2)),
            ("a\n\"x\ny\\\"\n", (Fault::Backslash, 3)),
            ("a\n\"x\\\\\"\n", (Fault::Backslash, 2)),
            ("a\nb, \"x\"\n", (Fault::BlankBeforeQuote, 2)),
        ] {
            assert_eq!(read(text, true, None).1, Some(fault), "{text}");
            assert_eq!(read(text, false, None), (text.into(), None, read(text, false, None).2));
        }
    }

    #[test]
    fn a_declared_backslash_escapes_quotes_and_itself_and_nothing_else() {
        let backslash = Some(Escape::Backslash);
        assert_eq!(read(r#""a \"b\", \\ \n""#, true, backslash).0, r#""a ""b"", \ \n""#);
        assert_eq!(read(r#"\"a,\N"#, true, backslash).0, r#"\"a,\N"#);
        assert_eq!(read(r#""C:\dir\",b"#, true, Some(Escape::Doubled)).0, r#""C:\dir\",b"#);
    }
}
