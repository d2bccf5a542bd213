//! Which files an audit was of: what is released must be what was audited.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Result;
pub use crate::documents::Subject;
use crate::run::RunPaths;
use crate::run::stamp::hash_of as hash;
use crate::sampling::shards;

impl Subject {
    /// Of the run in `folder`.
    ///
    /// # Errors
    /// Other: nothing is trained, or a file cannot be read.
    pub fn of(folder: &RunPaths) -> Result<Self> {
        Ok(Subject {
            trained: hash(&folder.trained())?,
            shards: hashes(&folder.shards("synthetic"))?,
            zero_shot: hashes(&folder.shards("zero_shot"))?,
            sampled: (["synthetic", "zero_shot"].map(|arm| folder.sampled(arm)).iter())
                .filter(|path| path.exists())
                .map(|path| hash(path))
                .collect::<Result<_>>()?,
            private: vec![hash(&folder.train_records())?, hash(&folder.test_records())?],
        })
    }
}

/// Of the shards in `folder`, by file name.
fn hashes(folder: &Path) -> Result<BTreeMap<String, String>> {
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    let files = shards::files(folder)?;
    let of = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, hash(file)?))
    };
    files.iter().map(of).collect()
}
