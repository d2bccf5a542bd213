//! What a run keeps secret from one process to the next (rules P1 and P3).
//!
//! All steps of a round share the key that says in which of them each unit takes part (random allocation), and all steps of a
//! run the one that shares its units out among parts. It has to outlast the process that drew it: a record that chose anew in
//! the middle of a round could take part twice, which the account does not pay for. Where noise goes together over steps, that
//! of the steps before is needed too, and so are the keys that it came from.
//!
//! Both lie in a file beside the run's private records, which is written before the first step that rests on it is charged,
//! and gives way to the next round's. The ledger knows the latest by its SHA-256: with older keys a run does not go on. Who reads it learns who took part in which step; where noise goes together also the noise,
//! and so what was hidden by it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::bands::{self, Strand};
use super::keys::{Key, KeySource, Purpose};
use super::ledger::hash;
use crate::{Error, Result};

/// What is at work of it, and where it is kept.
#[derive(Default)]
pub struct Secrets {
    kept_in: Option<PathBuf>,
    round: Option<(u64, Key)>,
    strand: Option<Arc<Mutex<Strand>>>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    run: String,
    release: String,
    round: u64,
    units: usize,
    key: [u8; 32],
    /// Keys of noise that goes together, each with the first step that it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    noise: Vec<(u64, [u8; 32])>,
}

impl Kept {
    /// What the ledger knows it by.
    fn sha256(&self) -> String {
        let text = serde_json::to_vec(self).expect("numbers and text serialise");
        hash(&text)
    }

    fn is_of(&self, whose: Whose, round: u64) -> bool {
        self.run == whose.run && self.release == whose.release && self.round == round && self.units == whose.units
    }
}

/// Whose round it is.
#[derive(Clone, Copy)]
pub struct Whose<'a> {
    pub run: &'a str,
    pub release: &'a str,
    /// How many units are shared out.
    pub units: usize,
}

/// What a use rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The round that it is in. Where noise goes together, all steps of a run are in one.
    pub round: u64,
    /// Whether it is the round's first.
    pub is_first: bool,
    /// Its index, where noise goes together over steps.
    pub noise: Option<u64>,
}

impl Secrets {
    /// Keeps keys in `file` from now on.
    pub fn keep_in(&mut self, file: PathBuf) {
        self.kept_in = Some(file);
    }

    /// The keys of the round of `due`: new ones where its first use is due, else the latest that the ledger knows of, which is
    /// `known`. Where something is kept anew: what the ledger has to know it by from now on.
    ///
    /// # Errors
    /// Data: a use within a round is due whose keys are lost, or older than the ledger's. Other: the file cannot be written, or
    /// there is no randomness.
    pub fn enter(&mut self, whose: Whose, keys: &KeySource, due: Due, known: Option<&str>) -> Result<Option<String>> {
        let round = due.round;
        if self.round.as_ref().is_some_and(|(at, _)| *at == round) {
            return Ok(None);
        }
        let strand = |keys| due.noise.map(|_| Arc::new(Mutex::new(Strand::new(keys))));
        if let KeySource::Seeded(_) = keys {
            // The same at any time. A step's own draw has its key of the purpose to sample.
            let purpose = match due.noise {
                Some(_) => Purpose::Parts,
                None => Purpose::Sample,
            };
            self.round = Some((round, keys.key(whose.release, round, purpose)?));
            self.strand = strand(bands::Keys::Seeded(*keys));
            return Ok(None);
        }
        let mut now = match due.is_first {
            // Nothing rests on what a process kept that died before it charged.
            true => Kept {
                run: whose.run.into(),
                release: whose.release.into(),
                round,
                units: whose.units,
                key: keys.key(whose.release, round, Purpose::Sample)?.bytes(),
                noise: Vec::new(),
            },
            false => self.latest(whose, due, known)?,
        };
        if let Some(index) = due.noise {
            // Never the noise of another process: who has a copy of its folder has its keys.
            let own = keys.key(whose.release, index, Purpose::Noise)?;
            now.noise.push((index, own.bytes()));
        }
        let anew = match &self.kept_in {
            Some(file) if due.is_first || due.noise.is_some() => {
                write(file, &now)?;
                Some(now.sha256())
            }
            _ => None,
        };
        self.round = Some((round, Key::of(now.key)));
        let noise = now.noise.iter().map(|(from, key)| (*from, Key::of(*key)));
        self.strand = strand(bands::Keys::Kept(noise.collect()));
        Ok(anew)
    }

    /// What the file has of the round, without keys that no use was charged with.
    ///
    /// A copy of the folder that went on by itself took keys that this one has not, and so did a process before an older file
    /// was put back: what was drawn with them would be drawn anew, and noise taken off that nobody had added.
    fn latest(&self, whose: Whose, due: Due, known: Option<&str>) -> Result<Kept> {
        let mut kept = self.kept(whose, due.round)?.ok_or_else(|| self.lost(whose))?;
        let mut is_latest = known == Some(&kept.sha256());
        if let Some(index) = due.noise {
            kept.noise.retain(|(from, _)| *from < index);
            is_latest |= known == Some(&kept.sha256());
        }
        is_latest.then_some(kept).ok_or_else(|| self.lost(whose))
    }

    /// The key of the round that was entered last.
    pub fn key(&self) -> Option<&Key> {
        self.round.as_ref().map(|(_, key)| key)
    }

    /// Where noise goes together over steps: what draws it.
    pub fn strand(&self) -> Option<&Arc<Mutex<Strand>>> {
        self.strand.as_ref()
    }

    /// What the file has of the round.
    fn kept(&self, whose: Whose, round: u64) -> Result<Option<Kept>> {
        let Some(file) = &self.kept_in else {
            return Ok(None);
        };
        let kept = match std::fs::read(file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io("read", file, e))?,
        };
        let kept: Option<Kept> = serde_json::from_slice(&kept).ok();
        Ok(kept.filter(|kept| kept.is_of(whose, round)))
    }

    fn lost(&self, whose: Whose) -> Error {
        let file = self.kept_in.as_ref();
        Error::data(format!(
            "run `{}` stands within a round, and the latest keys that its next step rests on are not in {}",
            whose.run,
            file.map_or("a file".to_string(), |file| file.display().to_string())
        ))
        .hint("go on in the folder that it went on in last, or start a new run, which composes with this one in the ledger")
    }
}

/// On disk, for the owner's eyes alone, when this returns.
fn write(file: &Path, kept: &Kept) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write", file, e);
    let kept = serde_json::to_vec(kept).map_err(|e| failed(e.into()))?;
    let beside = file.with_extension("new");
    // Left by a process that died.
    let _ = std::fs::remove_file(&beside);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&beside).map_err(failed)?;
    out.write_all(&kept).map_err(failed)?;
    out.sync_all().map_err(failed)?;
    std::fs::rename(&beside, file).map_err(failed)?;
    // A name is on disk once its folder is.
    match file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) if cfg!(unix) => std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed),
        _ => Ok(()),
    }
}
