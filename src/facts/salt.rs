//! What hides the private dataset's hash in what is published.

use std::path::{Path, PathBuf};

use rand::RngExt;

use crate::files::write_atomically;
use crate::hash::hex;
use crate::hash::sha256;
use crate::{Error, Result};

/// 32 random bytes, drawn once for a run and never published: with them each release of a run names the dataset alike,
/// without them nobody can tell whether a guess of it is right.
pub struct Salt {
    path: PathBuf,
    value: String,
}

impl Salt {
    /// The one at `path`, or a new one; nothing is written.
    ///
    /// # Errors
    /// Data: it is damaged. Other: it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let value = match std::fs::read_to_string(path) {
            Ok(value) if value.trim().len() == 64 => value.trim().to_string(),
            Ok(_) => {
                return Err(Error::data(format!("{} is damaged", path.display()))
                    .hint("delete it: the next release then names the dataset by another commitment"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => hex(&rand::rng().random::<[u8; 32]>()),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        Ok(Salt {
            path: path.into(),
            value,
        })
    }

    /// SHA-256 of salt and the dataset's content hash.
    pub fn commitment(&self, dataset_hash: &str) -> String {
        sha256(format!("dpsynth dataset\n{}\n{dataset_hash}", self.value).as_bytes())
    }

    /// Writes it down, for the next release of the run.
    ///
    /// # Errors
    /// Other: it cannot be written.
    pub fn keep(&self) -> Result<()> {
        write_atomically(&self.path, self.value.as_bytes())
    }
}
