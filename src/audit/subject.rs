//! Which files an audit was of: what is released must be what was audited.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::assets::sha256_file;
use crate::pipeline::RunPaths;
use crate::sampling::shards;
use crate::{Error, Result};

/// Hashes of what a run would hand out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// SHA-256 of the trained adapter or weights.
    pub trained: String,
    /// SHA-256 of each shard of synthetic records, by file name; none before sampling.
    pub shards: BTreeMap<String, String>,
}

impl Subject {
    /// Of the run in `folder`.
    ///
    /// # Errors
    /// Other: nothing is trained, or a file cannot be read.
    pub fn of(folder: &RunPaths) -> Result<Self> {
        let hash = |path: &Path| sha256_file(path).map_err(|e| Error::io("read", path, e));
        let synthetic = folder.shards("synthetic");
        let files = match synthetic.exists() {
            true => shards::files(&synthetic)?,
            false => Vec::new(),
        };
        let mut hashes = BTreeMap::new();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            hashes.insert(name, hash(&file)?.0);
        }
        Ok(Subject {
            trained: hash(&folder.trained())?.0,
            shards: hashes,
        })
    }
}
