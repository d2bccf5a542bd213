//! Lines, their hashes, and the file beside the ledger that names the last one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LedgerHead;
use super::parameters::RunParameters;
use crate::{Error, Result};

/// What a line says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// The first line.
    Created {
        dataset: String,
        total_epsilon: f64,
        delta: f64,
        adjacency: String,
        unit: String,
        accountant: String,
    },
    /// A run was admitted.
    Run {
        run: String,
        /// Whether the ledger names each state that it goes on from; the first versions of the program did not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        holds_states: bool,
        /// Whether its dataset was declared to share nobody with any other.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disjoint: bool,
        /// Whether what its rows are known by lies beside the ledger.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rows: bool,
        /// The dataset whose run it is; none where it is this ledger's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        #[serde(flatten)]
        parameters: RunParameters,
    },
    /// What a run has charged whose dataset shares records with this one.
    Known {
        run: String,
        from: String,
        /// Of each of its releases.
        uses: Vec<u64>,
        ended: bool,
        #[serde(flatten)]
        parameters: RunParameters,
    },
    /// A dataset that shares records with this one was declared to share nobody.
    Apart { from: String },
    /// A use of a release was charged: its `index`-th, from 0.
    Use { run: String, release: String, index: u64 },
    /// The same of a training step, as the first version wrote it.
    Step { run: String, index: u64 },
    /// The same of the counts of the labels.
    Histogram { run: String },
    /// A state that the run may go on from, or a count that it keeps: the SHA-256 of it.
    State { run: String, sha256: String },
    /// What the run keeps of its keys from here on: the SHA-256 of it.
    Keys { run: String, sha256: String },
    /// What the run came to: the SHA-256 of the file of trained values.
    Trained { run: String, sha256: String },
    /// A run is over before its last planned step.
    End { run: String },
    /// The total was changed.
    Budget { total_epsilon: f64 },
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    pub prev: String,
    #[serde(flatten)]
    pub entry: Entry,
}

impl Line {
    /// The line as written, without its end.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("strings and finite numbers serialise")
    }
}

/// The hashes of all lines.
#[derive(Debug, Default)]
pub struct Chain {
    hashes: Vec<String>,
}

const ADVICE: &str =
    "restore the ledger from a backup; without it, what was spent is not known and the dataset should not be used";

/// SHA-256, hexadecimal.
pub fn hash(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn sidecar(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

/// Puts a file's directory entry on disk.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(folder) if cfg!(unix) => File::open(if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        })?
        .sync_all(),
        _ => Ok(()),
    }
}

impl Chain {
    /// Reads and checks all lines. The third value is the length of what is whole: a last line that a crash tore (no
    /// line end, or no JSON) is left out.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Self, Vec<Line>, u64)> {
        let mut chain = Chain::default();
        let mut lines = Vec::new();
        let mut length = 0;
        for raw in bytes.split_inclusive(|b| *b == b'\n') {
            let number = chain.hashes.len() + 1;
            let last = length + raw.len() == bytes.len();
            let refuse =
                |what: String| Err(Error::data(format!("line {number} of {} {what}", path.display())).hint(ADVICE));
            let Some(text) = raw.strip_suffix(b"\n") else {
                break;
            };
            let line: Line = match serde_json::from_slice(text) {
                Ok(line) => line,
                Err(_) if last => break,
                Err(e) => return refuse(format!("cannot be read ({e}): it was damaged or edited")),
            };
            if line.seq != chain.hashes.len() as u64 {
                return refuse(format!(
                    "has number {} where {} was due: lines are missing or were moved",
                    line.seq,
                    chain.hashes.len()
                ));
            }
            if line.prev != chain.last_hash() {
                return refuse(format!(
                    "does not continue line {}: one of the two was edited or replaced",
                    number - 1
                ));
            }
            chain.hashes.push(hash(text));
            lines.push(line);
            length += raw.len();
        }
        Ok((chain, lines, length as u64))
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    fn last_hash(&self) -> String {
        self.hashes.last().cloned().unwrap_or_else(|| "0".repeat(64))
    }

    pub fn head(&self) -> LedgerHead {
        LedgerHead {
            seq: (self.hashes.len() as u64).saturating_sub(1),
            hash: self.last_hash(),
        }
    }

    /// The line that would come next.
    pub fn next(&self, entry: Entry) -> Line {
        Line {
            seq: self.hashes.len() as u64,
            prev: self.last_hash(),
            entry,
        }
    }

    pub fn push(&mut self, text: &str) {
        self.hashes.push(hash(text.as_bytes()));
    }

    /// Refuses where the line that `head` names is missing or different; `who` remembers it.
    pub fn require(&self, path: &Path, head: &LedgerHead, who: &str) -> Result<()> {
        let number = head.seq + 1;
        let refuse = |what: String| Err(Error::data(what).hint(ADVICE));
        match self.hashes.get(head.seq as usize) {
            Some(found) if *found == head.hash => Ok(()),
            Some(_) => refuse(format!(
                "line {number} of {} is not the one {who} names: it was edited or replaced",
                path.display()
            )),
            None => refuse(format!(
                "{} ends at line {}, but {who} names line {number}: the file was cut or rolled back",
                path.display(),
                self.hashes.len()
            )),
        }
    }

    /// Compares with the file beside the ledger, which a crash may leave one line behind.
    pub fn check_sidecar(&self, path: &Path) -> Result<()> {
        let beside = sidecar(path);
        let text = match std::fs::read(&beside) {
            Ok(text) => text,
            // The very first line may have been written without it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.hashes.len() <= 1 => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::data(format!("{} is missing, so nothing shows that {} is whole", beside.display(), path.display()))
                    .hint("restore it from a backup, or from the `ledger_head` of the newest checkpoint: {\"seq\":…,\"hash\":\"…\"}"));
            }
            Err(e) => return Err(Error::io("read", &beside, e)),
        };
        let head: LedgerHead = serde_json::from_slice(&text).map_err(|e| {
            Error::data(format!("{} cannot be read: {e}", beside.display())).hint("restore it from a backup")
        })?;
        let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.require(path, &head, &name)?;
        let behind = self.hashes.len() as u64 - (head.seq + 1);
        if behind > 1 {
            return Err(Error::data(format!(
                "{} has {behind} lines after line {}, the last that {name} names: a crash leaves one at most",
                path.display(),
                head.seq + 1
            ))
            .hint("restore the ledger and its .head file from the same backup"));
        }
        Ok(())
    }

    /// Names the last line beside the ledger: a temporary file, then a rename, both on disk when this returns.
    pub fn write_sidecar(&self, path: &Path) -> Result<()> {
        let beside = sidecar(path);
        let mut temporary = beside.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let text = serde_json::to_vec(&self.head()).expect("a number and a string serialise");
        File::create(&temporary)
            .and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_data()))
            .and_then(|()| std::fs::rename(&temporary, &beside))
            .and_then(|()| sync_folder(&beside))
            .map_err(|e| Error::io("write", &beside, e))
    }
}
