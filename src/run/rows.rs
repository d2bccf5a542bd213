//! Which datasets share rows, without any of them at hand: beside each ledger, keyed hashes of every row's text and unit.
//!
//! The key is in the folder of ledgers and readable by its owner alone, so that whoever gets hold of the hashes can test no
//! guess against them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::RunPaths;
use crate::evaluation::quality::words::words;
use crate::files::{persist, put_in_place, temporary};
use crate::privacy::verify;
use crate::records::{Sorted, TextHashes, shared};
use crate::{Error, Result};

/// Bytes of a keyed hash that are kept: among 10^12 rows two are alike by chance once in 10^14.
const KEPT: usize = 16;

type Kept = [u8; KEPT];

/// Stands before the hashes of a file, with a fingerprint of the key and their number.
const MARK: &[u8; 16] = b"dpsynth rows 1\n\0";

/// What a row is known by, to be added to the others of its dataset. Texts that differ only in case, spaces, punctuation or
/// invisible characters are one text, unless they have no words.
pub fn of_text(text: &str) -> [u8; 32] {
    match words(text) {
        none if none.is_empty() => Sha256::digest(text.trim()).into(),
        words => Sha256::digest(words.join(" ")).into(),
    }
}

/// The same of whom it belongs to, by the column that names them.
pub fn of_unit(column: &str, unit: &[u8; 32]) -> [u8; 32] {
    let hash = Sha256::new().chain_update(b"unit\0");
    hash.chain_update(column.to_lowercase())
        .chain_update(b"\0")
        .chain_update(unit)
        .finalize()
        .into()
}

/// The same of a whole file: the same rows, whatever is read of them.
pub fn of_file(sha256: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"file\0")
        .chain_update(sha256)
        .finalize()
        .into()
}

/// Writes each of `rows` once, where [`Rows::of_run`] finds them.
///
/// # Errors
/// Other: no room for files.
pub fn write(folder: &RunPaths, rows: &mut TextHashes) -> Result<()> {
    put(&folder.rows(), &Fingerprint::default(), rows.sorted()?)
}

/// Another ledger, and how many of its rows and units are these too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The ledger's name, without its ending.
    pub ledger: String,
    pub rows: usize,
}

/// Rows of one dataset, keyed.
pub struct Rows {
    ledgers: PathBuf,
    key: Fingerprint,
    keyed: TextHashes,
}

/// Of a key: which one hashes were made with.
type Fingerprint = [u8; 16];

impl Rows {
    /// Of the dataset of a run, and of the files that it was read from; of a run of an earlier version its files alone.
    ///
    /// # Errors
    /// Other: a file cannot be read, or the key cannot be made.
    pub fn of_run(ledgers: &Path, folder: &RunPaths, files: impl Iterator<Item = String>) -> Result<Self> {
        let key = key(ledgers)?;
        let mut keyed = TextHashes::default();
        let mut add = |hash: &[u8]| {
            let mac = <Hmac<Sha256>>::new_from_slice(&key).expect("any length of key will do");
            keyed.add(mac.chain_update(hash).finalize().into_bytes().into())
        };
        let path = folder.rows();
        if path.exists() {
            for hash in Hashes::<32>::open(&path, &Fingerprint::default())? {
                add(&hash?)?;
            }
        }
        for sha256 in files {
            add(&of_file(&sha256))?;
        }
        Ok(Rows {
            ledgers: ledgers.to_path_buf(),
            key: Sha256::digest(key)[..16].try_into().expect("16 of 32 bytes"),
            keyed,
        })
    }

    /// The other ledgers of the folder whose datasets share some.
    ///
    /// # Errors
    /// Data: hashes are missing beside a ledger that had them, or a ledger beside its hashes; they are damaged, or of another
    /// key. Other: a file cannot be read.
    pub fn shared(&mut self, own: &str) -> Result<Vec<Shared>> {
        let mut out = Vec::new();
        for path in with_ending(&self.ledgers, "jsonl")? {
            let rows = path.with_extension("rows");
            if rows.exists() || !verify(&path)?.runs.iter().any(|run| run.rows) {
                continue;
            }
            let staged = Staged::beside(&path);
            if !staged.exists() {
                return Err(Error::data(format!(
                    "{} is missing: without it, datasets that share rows with {} are not recognised",
                    rows.display(),
                    path.display()
                ))
                .hint(
                    "restore it from a backup. Without one no run can begin in this folder; for datasets that share nobody \
                     with those in it, set DPSYNTH_LEDGERS to another folder",
                ));
            }
            // A run was stopped between its ledger's line and its rows.
            put_in_place(&staged, &rows)?;
        }
        for path in with_ending(&self.ledgers, "rows")? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if name == own {
                continue;
            }
            let rows = self.shared_with(&path)?;
            let ledger = path.with_extension("jsonl");
            if rows > 0 && !ledger.exists() {
                return Err(Error::data(format!(
                    "{} is missing, and its dataset shares {rows} rows, units or files with this one: what it has spent is not known",
                    ledger.display()
                ))
                .hint("restore the ledger from a backup"));
            }
            if rows > 0 {
                out.push(Shared { ledger: name, rows });
            }
        }
        Ok(out)
    }

    fn shared_with(&mut self, path: &Path) -> Result<usize> {
        let theirs = Hashes::<KEPT>::open(path, &self.key)?;
        shared(self.kept()?, theirs)
    }

    /// In order.
    fn kept(&mut self) -> Result<impl Iterator<Item = Result<Kept>>> {
        Ok(self.keyed.sorted()?.map(|hash| hash.map(|hash| kept(&hash))))
    }

    /// Writes these, and what is beside the ledger `own` already, to disk. A ledger may say that its rows are known once this
    /// returns: whoever finds them missing beside it finds them here.
    ///
    /// # Errors
    /// As [`Rows::shared`].
    pub fn stage(&mut self, own: &str) -> Result<Staged> {
        let (rows, key) = (self.ledgers.join(format!("{own}.rows")), self.key);
        let earlier = match rows.exists() {
            true => Some(Hashes::<KEPT>::open(&rows, &key)?),
            false => None,
        };
        let both = Sorted::of(vec![Box::new(self.kept()?), Box::new(earlier.into_iter().flatten())])?;
        let path = Staged::beside(&rows);
        put(&path, &key, both)?;
        Ok(Staged {
            path,
            rows,
            begun: false,
        })
    }
}

/// Rows on disk that are not beside their ledger yet. Those of a run that does not begin are deleted.
#[must_use]
pub struct Staged {
    path: PathBuf,
    rows: PathBuf,
    begun: bool,
}

impl Staged {
    /// Where they are, by the path of the ledger or of its rows.
    fn beside(path: &Path) -> PathBuf {
        path.with_extension("rows.new")
    }

    /// Puts them beside their ledger, which says by now that they are there.
    ///
    /// # Errors
    /// Other: the folder of ledgers cannot be written.
    pub fn belong(mut self) -> Result<()> {
        self.begun = true;
        put_in_place(&self.path, &self.rows)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.begun {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn kept(hash: &[u8; 32]) -> Kept {
    hash[..KEPT].try_into().expect("16 of 32 bytes")
}

/// Files of a folder with this ending, in order.
fn with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok())
        .map(|entry| entry.path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.sort();
    Ok(paths)
}

/// The key of a folder of ledgers; made where there is none and nothing was keyed yet.
fn key(ledgers: &Path) -> Result<[u8; 32]> {
    let path = ledgers.join("key");
    fs::create_dir_all(ledgers).map_err(|e| Error::io("create the ledger folder", ledgers, e))?;
    if !path.exists() {
        if let Some(keyed) = with_ending(ledgers, "rows")?.first() {
            return Err(Error::data(format!(
                "{} is missing: without it, datasets that share rows with that of {} are not recognised",
                path.display(),
                keyed.display()
            ))
            .hint(
                "restore the key from a backup. Without one no run can begin in this folder; for datasets that share nobody \
                 with those in it, set DPSYNTH_LEDGERS to another folder",
            ));
        }
        let key: [u8; 32] = rand::rng().random();
        let mut file = private(&path)?;
        file.write_all(&key).map_err(|e| Error::io("write", &path, e))?;
        persist(file, &path)?;
    }
    let key = fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    key.try_into().map_err(|_| {
        Error::data(format!("{} is no key of 32 bytes", path.display()))
            .hint("restore it from a backup; without it no dataset is known to share rows with another")
    })
}

/// A file to be put at `path`, for its owner alone.
fn private(path: &Path) -> Result<NamedTempFile> {
    let file = temporary(path)?;
    #[cfg(unix)]
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(|e| Error::io("write", path, e))?;
    Ok(file)
}

/// Writes hashes that come in order, each once; for the owner alone.
fn put<const N: usize>(path: &Path, key: &Fingerprint, hashes: impl Iterator<Item = Result<[u8; N]>>) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    let file = private(path)?;
    let mut out = BufWriter::new(file.as_file());
    let head = |count: u64| [&MARK[..], key, &count.to_le_bytes()].concat();
    out.write_all(&head(0)).map_err(failed)?;
    let (mut last, mut count) = (None, 0);
    for hash in hashes {
        let hash = hash?;
        if last != Some(hash) {
            out.write_all(&hash).map_err(failed)?;
            last = Some(hash);
            count += 1;
        }
    }
    out.seek(SeekFrom::Start(0))
        .and_then(|_| out.write_all(&head(count)))
        .and_then(|()| out.flush())
        .map_err(failed)?;
    drop(out);
    persist(file, path)
}

/// A file of hashes, in order.
struct Hashes<const N: usize> {
    path: PathBuf,
    file: BufReader<File>,
    left: u64,
}

impl<const N: usize> Hashes<N> {
    fn open(path: &Path, key: &Fingerprint) -> Result<Self> {
        let read = |e| Error::io("read", path, e);
        let file = File::open(path).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        let mut file = BufReader::new(file);
        let (mut mark, mut made_with, mut count) = ([0; 16], Fingerprint::default(), [0; 8]);
        let whole = file
            .read_exact(&mut mark)
            .and_then(|()| file.read_exact(&mut made_with))
            .and_then(|()| file.read_exact(&mut count));
        let left = u64::from_le_bytes(count);
        if whole.is_err() || mark != *MARK || left.checked_mul(N as u64).and_then(|b| b.checked_add(40)) != Some(bytes)
        {
            return Err(Error::data(format!("{} is damaged", path.display()))
                .hint("restore it from a backup: it knows which datasets share rows"));
        }
        if made_with != *key {
            return Err(Error::data(format!("{} was made with another key", path.display()))
                .hint("restore the file `key` beside it from a backup"));
        }
        Ok(Hashes {
            path: path.to_path_buf(),
            file,
            left,
        })
    }
}

impl<const N: usize> Iterator for Hashes<N> {
    type Item = Result<[u8; N]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut hash = [0; N];
        let read = self.file.read_exact(&mut hash);
        Some(read.map(|()| hash).map_err(|e| Error::io("read", &self.path, e)))
    }
}
