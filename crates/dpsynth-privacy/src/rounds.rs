//! What says, in secret, in which step of a round each unit takes part (random allocation; rule P1).
//!
//! All steps of a round share one key, so it has to outlast the process that drew it: a record that chose anew in the middle
//! of a round could take part twice, which the account does not pay for. It lies in a file beside the run's private records,
//! is written before the round's first step is charged, and gives way to the next round's. Who reads it learns who took part
//! in which step, and nothing of the noise.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keys::{Key, KeySource, Purpose};
use crate::{Error, Result};

/// The key of the round that is at work, and where it is kept.
#[derive(Default)]
pub struct Rounds {
    kept_in: Option<PathBuf>,
    current: Option<(u64, Key)>,
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
}

impl Kept {
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

impl Rounds {
    /// Keeps keys in `file` from now on.
    pub fn keep_in(&mut self, file: PathBuf) {
        self.kept_in = Some(file);
    }

    /// The key of `round`; a new one where its first step is due.
    ///
    /// # Errors
    /// Data: a step within a round is due whose key is lost. Other: the file cannot be written, or there is no randomness.
    pub fn enter(&mut self, whose: Whose, keys: &KeySource, round: u64, is_first: bool) -> Result<()> {
        if self.current.as_ref().is_some_and(|(at, _)| *at == round) {
            return Ok(());
        }
        let key = match keys {
            // The same at any time.
            KeySource::Seeded(_) => keys.key(whose.release, round, Purpose::Sample)?,
            KeySource::Secure => match (self.kept(whose, round)?, is_first) {
                // Its first step was not charged when the process died: copies of the folder hold the same round.
                (Some(kept), _) => kept,
                (None, false) => return Err(self.lost(whose)),
                (None, true) => {
                    let key = keys.key(whose.release, round, Purpose::Sample)?;
                    if let Some(file) = &self.kept_in {
                        write(file, whose, round, &key)?;
                    }
                    key
                }
            },
        };
        self.current = Some((round, key));
        Ok(())
    }

    /// The key of the round that was entered last.
    pub fn key(&self) -> Option<&Key> {
        self.current.as_ref().map(|(_, key)| key)
    }

    /// The key of the round, where the file has it.
    fn kept(&self, whose: Whose, round: u64) -> Result<Option<Key>> {
        let Some(file) = &self.kept_in else {
            return Ok(None);
        };
        let kept = match std::fs::read(file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io("read", file, e))?,
        };
        let kept: Option<Kept> = serde_json::from_slice(&kept).ok();
        let own = kept.filter(|kept| kept.is_of(whose, round));
        Ok(own.map(|kept| Key::of(kept.key)))
    }

    fn lost(&self, whose: Whose) -> Error {
        Error::data(format!(
            "run `{}` stands within a round of random allocation, and what says who takes part in the steps that are left is lost",
            whose.run
        ))
        .hint(match &self.kept_in {
            Some(file) => format!(
                "put back {}, or start a new run, which composes with this one in the ledger",
                file.display()
            ),
            None => "start a new run; it composes with this one in the ledger".into(),
        })
    }
}

/// On disk, for the owner's eyes alone, when this returns.
fn write(file: &Path, whose: Whose, round: u64, key: &Key) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write", file, e);
    let kept = Kept {
        run: whose.run.into(),
        release: whose.release.into(),
        round,
        units: whose.units,
        key: key.bytes(),
    };
    let kept = serde_json::to_vec(&kept).map_err(|e| failed(e.into()))?;
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
