//! What a file is, by its first bytes where they tell, else by its name.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use super::text;
use super::unreadable;
use crate::{Error, Result};

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of cells; the separator is found or declared.
    Csv,
    /// The same with tabs between cells, and quotes that mean nothing.
    Tsv,
    /// Objects, one after the other or in one list.
    Json,
    Parquet,
    /// An Arrow file, with its batches listed at the end; Feather's second version is one.
    Arrow,
    /// An Arrow stream, as `datasets` saves to disk.
    ArrowStream,
}

impl Format {
    /// As a person calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "CSV",
            Format::Tsv => "TSV",
            Format::Json => "JSON",
            Format::Parquet => "Parquet",
            Format::Arrow => "Arrow",
            Format::ArrowStream => "Arrow stream",
        }
    }
}

/// What is wrapped around a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// As a person calls it; none for plain files.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Packing::Plain => None,
            Packing::Gzip => Some("gzip"),
            Packing::Zstd => Some("zstd"),
        }
    }

    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// Extensions that are read, for a hint.
const KNOWN: &str = "the extensions that are read are .parquet, .csv, .tsv, .jsonl, .ndjson, .json and .arrow, and all but .parquet \
                     and .arrow may be compressed (.gz, .zst)";

/// As much as tells what a file is.
const HEAD: usize = 4096;

/// What the file at `path` is; `separated` where a separator is declared, so that any extension may be CSV.
///
/// # Errors
/// Data: it cannot be read, is empty, or is something that is not read, with what to do about it.
pub fn recognise(path: &Path, separated: bool) -> Result<(Format, Packing)> {
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut head = begin(&mut file).map_err(|e| unreadable(path, &e))?;
    let packing = Packing::of(&head);
    if packing != Packing::Plain {
        file.rewind().map_err(|e| unreadable(path, &e))?;
        head = begin(text::unpack(file, packing)).map_err(|e| text::damaged(path, &e))?;
        if Packing::of(&head) != Packing::Plain {
            return Err(Error::data(format!("{} is compressed twice", path.display())).hint("unpack it once"));
        }
    }
    if head.is_empty() {
        return Err(Error::data(format!("{} is empty", path.display())).hint("fetch or write it again"));
    }
    // A header may begin with the letters by which a binary file is known.
    let is_text = !head.iter().any(|b| *b < 0x20 && !b"\t\n\x0b\x0c\r\x1b".contains(b));
    if let Some((what, hint)) = other(path, &head, is_text) {
        return Err(Error::data(format!("{} is {what}", path.display())).hint(hint));
    }
    let extension = extension(path);
    let by_bytes = match head.as_slice() {
        _ if is_text => None,
        [b'P', b'A', b'R', b'1', ..] => Some(Format::Parquet),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Some(Format::Arrow),
        [0xff, 0xff, 0xff, 0xff, ..] => Some(Format::ArrowStream),
        _ => None,
    };
    let format = match (by_bytes, extension.as_str()) {
        (Some(binary), _) if packing != Packing::Plain => {
            let (name, with) = (binary.name(), packing.name().unwrap_or_default());
            return Err(Error::data(format!("{} is {name} inside {with}", path.display()))
                .hint("unpack it first: Parquet and Arrow are compressed in themselves"));
        }
        (Some(binary), _) => binary,
        (None, "parquet" | "pq" | "arrow" | "feather" | "ipc") => {
            return Err(
                Error::data(format!("{} does not begin as a .{extension} file does", path.display())).hint(
                    "the file may be cut off or of another format than its extension says; fetch or write it again",
                ),
            );
        }
        (None, "csv") => Format::Csv,
        (None, "tsv" | "tab") => Format::Tsv,
        (None, "jsonl" | "ndjson" | "json") => Format::Json,
        (None, _) if separated => Format::Csv,
        (None, _) if matches!(head.trim_ascii_start(), [b'{' | b'[', ..]) => Format::Json,
        (None, _) => {
            return Err(
                Error::data(format!("{} is in no known format", path.display())).hint(format!(
                    "{KNOWN}; text with another extension is read where `dataset.separator` is given"
                )),
            );
        }
    };
    Ok((format, packing))
}

fn begin(mut from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    from.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// In lower case, without that of a packing.
fn extension(path: &Path) -> String {
    let of = |path: &Path| {
        path.extension()
            .map(|e| e.to_string_lossy().to_lowercase())
            .unwrap_or_default()
    };
    let outer = of(path);
    match outer.as_str() {
        // Also of a file that was unpacked and kept its name.
        "gz" | "gzip" | "zst" | "zstd" => of(Path::new(path.file_stem().unwrap_or_default())),
        _ => outer,
    }
}

/// What is not read, and what to do about it.
fn other(path: &Path, head: &[u8], is_text: bool) -> Option<(&'static str, String)> {
    let shown = path.display();
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|w| w == needle);
    let page = String::from_utf8_lossy(&head[..head.len().min(256)])
        .trim_start()
        .to_lowercase();
    let found = match head {
        _ if head.starts_with(b"version https://git-lfs.github.com/spec/") => (
            "a Git LFS pointer, not the file itself",
            "`git lfs pull` in its repository fetches the file".into(),
        ),
        _ if page.starts_with("<!doctype html") || page.starts_with("<html") => (
            "a web page, not data",
            "the download may have led to a page that asks to log in: fetch it again".into(),
        ),
        [b'%', b'P', b'D', b'F', b'-', ..] => ("a PDF", "name a file of records".into()),
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', ..] => (
            "compressed with bzip2, which is not read",
            format!("unpack it: bunzip2 {shown}"),
        ),
        _ if is_text => return None,
        [b'P', b'A', b'R', b'E', ..] => (
            "encrypted Parquet, which is not read",
            "write it without encryption".into(),
        ),
        [b'P', b'K', 3 | 5, ..] if contains(b"xl/") || contains(b"[Content_Types].xml") => (
            "an Excel workbook, which is not read",
            "save the sheet as \"CSV UTF-8\" and name that file".into(),
        ),
        [b'P', b'K', 3 | 5, ..] => (
            "a zip archive, which is not read",
            format!("unpack it and name a file: unzip {shown}"),
        ),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => (
            "an old Office file (.xls), which is not read",
            "save the sheet as \"CSV UTF-8\" and name that file".into(),
        ),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => (
            "compressed with xz, which is not read",
            format!("unpack it: unxz {shown}"),
        ),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7z archive, which is not read", "unpack it and name a file".into()),
        [b'R', b'a', b'r', b'!', ..] => ("a RAR archive, which is not read", "unpack it and name a file".into()),
        [0x80, 2..=5, ..] => (
            "a Python pickle, which is not read: reading one runs the code in it",
            "write it from Python: frame.to_parquet(\"data.parquet\")".into(),
        ),
        [b'O', b'b', b'j', 1, ..] => ("Avro, which is not read", "write it as Parquet".into()),
        [b'O', b'R', b'C', ..] => ("ORC, which is not read", "write it as Parquet".into()),
        [b'F', b'E', b'A', b'1', ..] => (
            "Feather of the first version, which is not read",
            "write it as Parquet".into(),
        ),
        [0x89, b'H', b'D', b'F', ..] => ("HDF5, which is not read", "write it as Parquet".into()),
        _ if head.starts_with(b"SQLite format 3\0") => (
            "an SQLite database, which is not read",
            format!("write a query's answer as CSV: sqlite3 -header -csv {shown} 'select …' > data.csv"),
        ),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => (
            "text in UTF-32, which is not read",
            format!("convert it: iconv -f UTF-32 -t UTF-8 {shown}"),
        ),
        _ => return tar(head).then(|| ("a tar archive, which is not read", "unpack it and name a file".into())),
    };
    Some(found)
}

fn tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}
