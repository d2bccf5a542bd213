//! A text file as UTF-8, unpacked on the way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs::Encoding;
use encoding_rs_io::DecodeReaderBytesBuilder;
use flate2::read::MultiGzDecoder;

use super::recognise::Packing;
use super::unreadable;
use crate::{Error, Result};

/// As much is read at once.
const BUFFER: usize = 1 << 16;

/// Counts the bytes that were read of a file, so that its reader can say how far it is.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A text file opened, and what its first bytes say of its encoding.
pub struct Text {
    pub reader: Box<dyn BufRead>,
    /// By a mark that the file begins with; none for UTF-8.
    pub marked: Option<&'static Encoding>,
    /// Whether what it begins with is UTF-8, and more than ASCII.
    pub looks_utf8: bool,
}

/// Opens `path` as text, with a `header` before its records or without: unpacked, decoded where `encoding` is declared or a mark tells, without a byte order mark.
/// Text that is taken for UTF-8 is not checked here: a cell is, where it is used.
///
/// # Errors
/// Data: it cannot be read, or holds what no UTF-8 text does.
pub fn open(
    path: &Path,
    packing: Packing,
    encoding: Option<&'static Encoding>,
    header: bool,
    read: Arc<AtomicU64>,
) -> Result<Text> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut plain = BufReader::with_capacity(BUFFER, unpack(Counted { file, read }, packing));
    let head = plain.fill_buf().map_err(|e| damaged(path, &e))?;
    let marked = match head {
        // What is declared is not overruled by what the first record happens to begin with.
        _ if encoding.is_some() => None,
        [0xff, 0xfe, ..] => Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    };
    let byte_order_mark = head.starts_with(&[0xef, 0xbb, 0xbf]) && (header || encoding.is_none());
    let beyond_ascii = head.iter().any(|b| !b.is_ascii());
    let looks_utf8 = beyond_ascii
        && match std::str::from_utf8(head) {
            Ok(_) => true,
            Err(e) => e.error_len().is_none(),
        };
    // Every other byte of plain text, there; a single one is somebody's character.
    let nuls = head.iter().take(4096).filter(|b| **b == 0).count();
    if encoding.is_none() && marked.is_none() && 4 * nuls > head.len().min(4096) {
        let guess = match head.get(1) {
            Some(0) => "utf-16le",
            _ => "utf-16be",
        };
        return Err(Error::data(format!(
            "{} has NUL bytes: it may be UTF-16 without its mark",
            path.display()
        ))
        .hint(format!("where it is: dataset.encoding = \"{guess}\"")));
    }
    if byte_order_mark {
        // Spreadsheets begin a file with it; it would become part of the first column's name.
        plain.consume(3);
    }
    let reader: Box<dyn BufRead> = match marked.or(encoding).filter(|e| *e != encoding_rs::UTF_8) {
        None => Box::new(plain),
        Some(encoding) => {
            let decoded = DecodeReaderBytesBuilder::new().encoding(Some(encoding)).build(plain);
            Box::new(BufReader::with_capacity(BUFFER, decoded))
        }
    };
    Ok(Text {
        reader,
        marked,
        looks_utf8,
    })
}

/// What is inside.
pub(super) fn unpack(file: impl Read + 'static, packing: Packing) -> Box<dyn Read> {
    match packing {
        Packing::Plain => Box::new(file),
        // Some tools write several members one after the other.
        Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
        Packing::Zstd => match zstd::Decoder::new(file) {
            Ok(decoder) => Box::new(decoder),
            Err(e) => Box::new(Broken(Some(e))),
        },
    }
}

/// Fails at the first read.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// A file whose packing is broken, or that cannot be read on.
pub(super) fn damaged(path: &Path, error: &io::Error) -> Error {
    Error::data(format!("cannot read {}: {error}", path.display()))
        .hint("the file may be cut off; fetch or write it again")
}

/// Bytes that are no UTF-8 in the row that begins in `line`.
pub(super) fn not_utf8(path: &Path, line: u64) -> Error {
    // Not LATIN1, which it is often taken for: bytes 80 to 9F are quotes and letters here, and control characters there.
    Error::data(format!("{} is not UTF-8 in line {line}", path.display())).hint(
        "name its encoding: dataset.encoding = \"windows-1252\" where it comes from Windows or Excel in western Europe or America, \
         else another, such as \"shift_jis\", \"gbk\" or \"windows-1251\"; or convert it: iconv -f WINDOWS-1252 -t UTF-8",
    )
}
