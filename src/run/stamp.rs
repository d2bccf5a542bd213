//! What says that a stage is done: a hash of its configuration, its inputs and the stage before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{RunFolder, RunPaths, Stage};
use crate::files::write_atomically;
use crate::hash::{hex, sha256_file};
use crate::{Error, Result};

/// The state of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// Of everything the stage depends on.
    pub key: String,
    /// The key of the stage before it; empty where an earlier version of the program did not say.
    #[serde(default)]
    pub before: String,
    /// What the configuration said of it, where that may change between commands; empty where an earlier version of the
    /// program did not say.
    #[serde(default)]
    pub section: String,
    /// Hashes of the files the configuration names, each under its path; kept so that a stage that is done stays done
    /// when the private files have gone away.
    #[serde(default)]
    pub inputs: BTreeMap<PathBuf, String>,
    /// SHA-256 of what the stages before it had written when it began; empty where an earlier version of the program did
    /// not say.
    #[serde(default)]
    pub read: String,
    /// SHA-256 of each file that it wrote and that others read, by its path in the run's folder.
    #[serde(default)]
    pub written: BTreeMap<String, String>,
    /// What computed: another machine may round another way.
    #[serde(default)]
    pub machine: String,
    /// False while the stage runs, and after it was cut off.
    pub done: bool,
    /// Wall time over all attempts that ended in order.
    pub seconds: f64,
    /// Peak memory of the process when the stage ended.
    pub peak_rss_bytes: u64,
}

impl Stamp {
    /// The stage's stamp, if it has one.
    pub fn read(folder: &RunPaths, stage: Stage) -> Result<Option<Self>> {
        let path = folder.stamp(stage);
        match std::fs::read(&path) {
            // A stamp that does not parse is no stamp: the stage runs again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    /// Whether it began on what hashes to `read`; an earlier version of the program did not say.
    pub fn has_read(&self, read: &str) -> bool {
        self.read.is_empty() || self.read == read
    }

    /// Refuses those of the files that `looked_at` names which are not what the stage wrote.
    ///
    /// # Errors
    /// Data: one of them was changed or is gone. Other: one cannot be read.
    pub fn require_written(&self, folder: &RunPaths, stage: Stage, looked_at: impl Fn(&str) -> bool) -> Result<()> {
        for (file, sha256) in self.written.iter().filter(|(file, _)| looked_at(file)) {
            let path = folder.root().join(file);
            if !path.exists() || hash_of(&path)? != *sha256 {
                return Err(Error::data(format!(
                    "{} is not what the stage `{}` wrote",
                    path.display(),
                    stage.name()
                ))
                .hint("put it back as it was; records that were drawn can be drawn again: delete synthetic/ and zero_shot/"));
            }
        }
        Ok(())
    }

    /// Writes the stage's stamp.
    pub fn write(&self, folder: &RunFolder, stage: Stage) -> Result<()> {
        write_atomically(&folder.stamp(stage), text(self).as_bytes())
    }
}

/// SHA-256 of what `stages` wrote, one after the other.
pub fn read_of<'a>(stages: impl IntoIterator<Item = &'a Stamp>) -> String {
    let written: Vec<&BTreeMap<String, String>> = stages.into_iter().map(|stamp| &stamp.written).collect();
    sha256(text(&written).as_bytes())
}

/// A value as the text that is hashed.
pub fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("configurations serialise")
}

/// SHA-256 of a file.
///
/// # Errors
/// Other: it cannot be read.
pub fn hash_of(path: &Path) -> Result<String> {
    let (hash, _) = sha256_file(path).map_err(|e| Error::io("read", path, e))?;
    Ok(hash)
}

/// The key of `stage` after a stage with key `before`.
pub fn key(stage: &str, before: &str, section: &str) -> String {
    sha256(format!("{stage}\n{before}\n{section}").as_bytes())
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
