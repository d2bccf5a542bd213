//! One safetensors file, of which tensors are read where they lie: its header is checked before anything is taken by it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Error, Result};

/// Bytes of a header, at most, as the format has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open file.
pub struct Shard {
    path: PathBuf,
    tensors: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl Shard {
    /// Reads the header; every tensor it names lies in the file.
    ///
    /// # Errors
    /// Data: the file is missing, cut short, or none of this format.
    pub fn open(path: PathBuf) -> Result<Self> {
        let unreadable = |e| Error::io("read the model", &path, e);
        let mut file = File::open(&path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let wrong = |what: &str| {
            Error::data(format!("{} is no whole safetensors file: {what}", path.display()))
                .hint("it may not be whole: copy or download it again")
        };
        let mut length = [0u8; 8];
        file.read_exact(&mut length)
            .map_err(|_| wrong("it is too short for a header"))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER.min(bytes.saturating_sub(8)) {
            return Err(wrong("its header is longer than the file"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(unreadable)?;
        let tensors: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(&format!("its header: {e}")))?;
        let start = 8 + length;
        match bytes - start == tensors.data_len() as u64 {
            true => Ok(Shard { tensors, start, path }),
            false => Err(wrong(&format!(
                "{} bytes of tensors, not the {} that its header names",
                bytes - start,
                tensors.data_len()
            ))),
        }
    }

    /// What the header says of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.info(name)
    }

    /// All tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.offset_keys()
    }

    /// The bytes of one of its tensors.
    ///
    /// # Errors
    /// Data: the file cannot be read, or is another one by now.
    pub fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>> {
        let (begin, end) = tensor.data_offsets;
        let mut out = vec![0; end - begin];
        let read = |out: &mut [u8]| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.start + begin as u64))?;
            file.read_exact(out)
        };
        read(&mut out).map_err(|e| Error::io("read the model", &self.path, e))?;
        Ok(out)
    }
}
