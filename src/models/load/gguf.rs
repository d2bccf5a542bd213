//! Reads GGUF files (version 2 and 3): metadata and tensors, dequantised to f32.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::blocks::{Blocks, Format, NAMES};
use crate::{Error, Result};

/// Lists in lists, at most: a file must not decide how deep the reader's stack goes.
const MAX_DEPTH: usize = 8;

/// A metadata value. Arrays keep only the element types that models use.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

struct Entry {
    /// Outermost dimension first, as in PyTorch.
    shape: Vec<usize>,
    format: Format,
    offset: usize,
    bytes: usize,
}

/// Where the tensors lie.
enum Source {
    Memory(Vec<u8>),
    /// Read where they lie, one at a time: the file may be larger than memory. It stays open, so that another under its name
    /// is not read in its place.
    File(Mutex<File>, PathBuf),
}

/// Bytes of a file that are read at first, to find its header whole in them; then twice as many, and so on.
const FIRST: u64 = 1 << 20;

/// A GGUF file.
pub struct Gguf {
    name: String,
    source: Source,
    data_start: usize,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Entry>,
}

impl Gguf {
    /// Reads and checks the header: a tensor that reaches beyond the file's end is refused here, not when it is used.
    ///
    /// # Errors
    /// Data: the file is missing, cut short, or none of this format.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |e| Error::io("read the model", path, e);
        let mut file = File::open(path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut bytes, mut wanted) = (Vec::new(), FIRST);
        loop {
            let more = wanted - bytes.len() as u64;
            file.by_ref().take(more).read_to_end(&mut bytes).map_err(unreadable)?;
            match Gguf::of(&name, &bytes, len) {
                // It was too little of it.
                Err(Unread::Short) if bytes.len() as u64 == wanted && wanted < len => wanted *= 2,
                read => {
                    let header = read.map_err(|e| e.of(&name, len))?;
                    return Ok(Gguf {
                        source: Source::File(Mutex::new(file), path.to_path_buf()),
                        ..header
                    });
                }
            }
        }
    }

    /// The same from bytes; `name` stands in messages.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let len = bytes.len() as u64;
        let header = Gguf::of(name, &bytes, len).map_err(|e| e.of(name, len))?;
        Ok(Gguf {
            source: Source::Memory(bytes),
            ..header
        })
    }

    /// `bytes` begin a file of `len` bytes; its tensors are nowhere yet.
    fn of(name: &str, bytes: &[u8], len: u64) -> Reading<Self> {
        let mut r = Reader { bytes, at: 0 };
        let (metadata, tensors) = read_header(&mut r)?;
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Integer(a)) if *a > 0 => *a as usize,
            _ => 32,
        };
        let data_start = r.at.checked_next_multiple_of(alignment);
        let data_start = data_start.ok_or_else(|| format!("alignment {alignment} is too large"))?;
        for (tensor, e) in &tensors {
            let end = data_start.checked_add(e.offset).and_then(|s| s.checked_add(e.bytes));
            if end.is_none_or(|end| end as u64 > len) {
                return Err(format!("it is cut short in tensor {tensor} ({len} bytes in all)").into());
            }
        }
        Ok(Gguf {
            name: name.to_string(),
            source: Source::Memory(Vec::new()),
            data_start,
            metadata,
            tensors,
        })
    }

    fn missing(&self, key: &str) -> Error {
        Error::data(format!("{} has no usable `{key}`", self.name))
            .hint("docs/guide/models.md says which models can be read")
    }

    /// A text value, such as `general.architecture`.
    pub fn text(&self, key: &str) -> Result<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(t)) => Ok(t),
            _ => Err(self.missing(key)),
        }
    }

    /// A count, such as `llama.block_count`.
    pub fn count(&self, key: &str) -> Result<usize> {
        match self.metadata.get(key) {
            Some(Value::Integer(i)) if *i >= 0 => Ok(*i as usize),
            _ => Err(self.missing(key)),
        }
    }

    /// A number, such as `llama.rope.freq_base`.
    pub fn number(&self, key: &str) -> Result<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(f)) => Ok(*f),
            Some(Value::Integer(i)) => Ok(*i as f64),
            _ => Err(self.missing(key)),
        }
    }

    /// A list of texts, such as the tokenizer's vocabulary.
    pub fn texts(&self, key: &str) -> Result<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(t)) => Ok(t),
            _ => Err(self.missing(key)),
        }
    }

    /// A list of integers, such as the tokenizer's token types.
    pub fn integers(&self, key: &str) -> Result<&[i64]> {
        match self.metadata.get(key) {
            Some(Value::Integers(t)) => Ok(t),
            _ => Err(self.missing(key)),
        }
    }

    /// A list of numbers, such as the tokenizer's scores.
    pub fn numbers(&self, key: &str) -> Result<&[f64]> {
        match self.metadata.get(key) {
            Some(Value::Floats(t)) => Ok(t),
            _ => Err(self.missing(key)),
        }
    }

    /// A flag, such as `tokenizer.ggml.add_bos_token`; none where it is not declared.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// Refuses a file without these tensors, or with others beside them, but for what `ignored` names.
    ///
    /// # Errors
    /// Data: the first of them.
    pub fn require_exactly(&self, tensors: &[(String, Vec<usize>)], ignored: &[&str]) -> Result<()> {
        for (name, shape) in tensors {
            self.entry(name, shape)?;
        }
        let known: HashSet<&str> = tensors
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(ignored.iter().copied())
            .collect();
        match self.tensors().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::data(format!(
                "the model has a tensor that this program does not apply: {name}"
            ))
            .hint("docs/guide/models.md says which models can be read")),
        }
    }

    /// Names of all tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether the file holds the tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    fn entry(&self, tensor: &str, shape: &[usize]) -> Result<&Entry> {
        let e = self.tensors.get(tensor).ok_or_else(|| self.missing(tensor))?;
        match e.shape == shape {
            true => Ok(e),
            false => Err(Error::data(format!(
                "{}: tensor {tensor} has shape {:?}, the model's configuration wants {shape:?}",
                self.name, e.shape
            ))
            .hint("the file contradicts itself: fetch it again")),
        }
    }

    /// The tensor as it is packed, row after row, checked against `shape` (outermost dimension first).
    ///
    /// # Errors
    /// Data: it is missing, has another shape, or cannot be read any more.
    pub fn tensor(&self, tensor: &str, shape: &[usize]) -> Result<Blocks> {
        let e = self.entry(tensor, shape)?;
        let start = self.data_start + e.offset;
        let bytes = match &self.source {
            Source::Memory(bytes) => bytes[start..start + e.bytes].to_vec(),
            Source::File(file, path) => {
                let mut bytes = vec![0; e.bytes];
                let read = |out: &mut [u8]| {
                    let mut file = file.lock().expect("no reader panics");
                    file.seek(SeekFrom::Start(start as u64))?;
                    file.read_exact(out)
                };
                read(&mut bytes).map_err(|e| Error::io("read the model", path, e))?;
                bytes
            }
        };
        Ok(Blocks {
            format: e.format,
            bytes,
        })
    }
}

/// Why a header was not read.
enum Unread {
    /// The bytes end before it does.
    Short,
    Broken(String),
}

impl Unread {
    /// For a file of `len` bytes.
    fn of(self, name: &str, len: u64) -> Error {
        let what = match self {
            Unread::Short => format!("it is cut short in its header ({len} bytes in all)"),
            Unread::Broken(what) => what,
        };
        Error::data(format!("{name} is not a usable GGUF file: {what}"))
            .hint("it may not be whole: copy or download it again")
    }
}

impl<T: Into<String>> From<T> for Unread {
    fn from(what: T) -> Self {
        Unread::Broken(what.into())
    }
}

type Reading<T> = std::result::Result<T, Unread>;

type Header = (BTreeMap<String, Value>, BTreeMap<String, Entry>);

fn read_header(r: &mut Reader) -> Reading<Header> {
    if r.take(4)? != b"GGUF" {
        return Err("it does not begin with GGUF".into());
    }
    let version = r.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("version {version} is not known").into());
    }
    let (tensor_count, value_count) = (r.u64()?, r.u64()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = r.text()?;
        let kind = r.u32()?;
        if let Some(value) = r.value(kind, 0)? {
            metadata.insert(key, value);
        }
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..tensor_count {
        let name = r.text()?;
        let rank = r.u32()?;
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(usize::try_from(r.u64()?).map_err(|_| format!("tensor {name} is too large"))?);
        }
        shape.reverse();
        let id = r.u32()?;
        let offset = r.u64()? as usize;
        let format =
            Format::from_id(id).ok_or_else(|| format!("tensor {name} has type {id}; {NAMES} are supported"))?;
        let (numbers, bytes) = format.block();
        // A row is whole blocks.
        let rows_are_whole = shape.last().is_none_or(|row| row % numbers == 0);
        let total = shape
            .iter()
            .try_fold(1usize, |a, b| a.checked_mul(*b))
            .filter(|total| rows_are_whole && total % numbers == 0);
        let bytes = total.and_then(|t| (t / numbers).checked_mul(bytes));
        let bytes = bytes.ok_or_else(|| format!("tensor {name} has shape {shape:?}"))?;
        tensors.insert(
            name,
            Entry {
                shape,
                format,
                offset,
                bytes,
            },
        );
    }
    Ok((metadata, tensors))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Reading<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let end = end.ok_or(Unread::Short)?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Reading<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    fn u32(&mut self) -> Reading<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Reading<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Reading<String> {
        let n = self.u64()?;
        let n = usize::try_from(n).map_err(|_| Unread::Short)?;
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }

    /// A scalar, a text or an array, inside `depth` others; nested arrays are skipped over as `None`.
    fn value(&mut self, kind: u32, depth: usize) -> Reading<Option<Value>> {
        Ok(Some(match kind {
            0 => Value::Integer(self.array::<1>()?[0].into()),
            1 => Value::Integer((self.array::<1>()?[0] as i8).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 => {
                let (kind, n) = (self.u32()?, self.u64()?);
                return self.list(kind, n, depth + 1);
            }
            10 => Value::Integer(self.u64()? as i64),
            11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("metadata type {other} is not known").into()),
        }))
    }

    fn list(&mut self, kind: u32, n: u64, depth: usize) -> Reading<Option<Value>> {
        if depth > MAX_DEPTH {
            return Err(format!("its metadata nests lists more than {MAX_DEPTH} deep").into());
        }
        let (mut texts, mut integers, mut floats) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..n {
            match self.value(kind, depth)? {
                Some(Value::Text(t)) => texts.push(t),
                Some(Value::Integer(i)) => integers.push(i),
                Some(Value::Bool(b)) => integers.push(b.into()),
                Some(Value::Float(f)) => floats.push(f),
                _ => {}
            }
        }
        Ok(match kind {
            8 => Some(Value::Texts(texts)),
            6 | 12 => Some(Value::Floats(floats)),
            9 => None,
            _ => Some(Value::Integers(integers)),
        })
    }
}
