//! What was spent on a dataset (rules P7, P8): an append-only file of hash-chained lines.

mod book;
mod chain;
mod parameters;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use book::Book;
pub(super) use chain::hash;
use chain::{Chain, Entry, Line};
use serde::{Deserialize, Serialize};

pub use book::{Counted, LedgerView, RestsOn, RunRecord};
pub use parameters::{RunParameters, Uses};

use super::unit::Unit;
use crate::{Error, Result};

/// A place in a ledger: the number of a line and its sha256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    /// Number of the line, from 0.
    pub seq: u64,
    /// Its sha256, hexadecimal.
    pub hash: String,
}

/// A ledger that is open for writing. One process at a time holds it.
///
/// `<dataset hash>.jsonl` has one JSON object a line, each with its number, the sha256 of the line before and its own
/// content. `<dataset hash>.jsonl.head` names the last line, so that cutting whole lines off is seen.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    length: u64,
    chain: Chain,
    book: Book,
    broken: bool,
    /// The first line, until a second is written: who is refused leaves no ledger.
    unwritten: Option<Entry>,
    /// Of datasets that share records: they are charged whatever is charged here.
    beside: Vec<Ledger>,
    disjoint: bool,
    rows: bool,
}

/// Reads a ledger without locking or mending it, and checks it whole.
///
/// # Errors
/// Data: a line was edited, is missing, or the file was cut, with the line's number. Other: it cannot be read.
pub fn verify(path: &Path) -> Result<LedgerView> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read the ledger", path, e))?;
    let (chain, lines, _) = Chain::parse(path, &bytes)?;
    chain.check_sidecar(path)?;
    Ok(Book::replay(path, &lines)?.view())
}

/// The ledger of the dataset with this content hash in `dir`, checked whole, and where it is; none where it is not there.
///
/// # Errors
/// As [`verify`].
pub fn find(dir: &Path, dataset_hash: &str) -> Result<Option<(PathBuf, LedgerView)>> {
    let path = file_in(dir, dataset_hash);
    if !path.exists() {
        return Ok(None);
    }
    // Another run may write a line between the ledger's reading and its head's: a second look tells that from tampering.
    let view = verify(&path).or_else(|_| verify(&path))?;
    Ok(Some((path, view)))
}

fn file_in(dir: &Path, dataset_hash: &str) -> PathBuf {
    dir.join(format!("{dataset_hash}.jsonl"))
}

impl Ledger {
    /// Opens the ledger of the dataset with this content hash, creating it with the given total epsilon and delta.
    ///
    /// A last line that a crash left incomplete is cut off: its step was never taken. An existing ledger keeps its own
    /// total and delta, and stays with its unit of privacy.
    ///
    /// # Errors
    /// Usage: the hash is no file name, a number is out of range, or the ledger protects another unit. Data: the ledger
    /// was tampered with. Other: another process holds it, or it cannot be read or written.
    pub fn open(dir: &Path, dataset_hash: &str, default_total_epsilon: f64, delta: f64, unit: &Unit) -> Result<Self> {
        if dataset_hash.is_empty()
            || !dataset_hash
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            return Err(Error::usage(format!("`{dataset_hash}` is not a content hash")).hint("letters and digits only"));
        }
        check_total(default_total_epsilon)?;
        super::accountant::check_delta(delta)?;
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create the ledger folder", dir, e))?;
        let path = file_in(dir, dataset_hash);
        let mut ledger = Self::take(&path, true)?;
        if ledger.chain.is_empty() {
            let created = Entry::Created {
                dataset: dataset_hash.to_string(),
                total_epsilon: default_total_epsilon,
                delta,
                adjacency: "add-or-remove-one".into(),
                unit: unit.to_string(),
                accountant: "pld".into(),
            };
            ledger.book = ledger.book.with(&path, std::slice::from_ref(&created))?;
            ledger.unwritten = Some(created);
        }
        if ledger.book.dataset() != dataset_hash {
            return Err(Error::data(format!(
                "{} is the ledger of dataset {}, not {dataset_hash}",
                path.display(),
                ledger.book.dataset()
            ))
            .hint("a ledger belongs to one dataset and may not be renamed"));
        }
        let kept = ledger.view().unit;
        if kept != unit.to_string() {
            return Err(Error::usage(format!(
                "the ledger of this dataset protects the unit {kept}, this run {unit}: their costs do not add up"
            ))
            .hint("give `dataset.unit` as the dataset's earlier runs had it"));
        }
        Ok(ledger)
    }

    /// Opens an existing ledger by its path.
    ///
    /// # Errors
    /// As [`Ledger::open`], and where there is none.
    pub fn open_file(path: &Path) -> Result<Self> {
        let ledger = Self::take(path, false)?;
        if ledger.chain.is_empty() {
            return Err(Error::data(format!("{} has no complete line", path.display())).hint("it is not a ledger yet"));
        }
        Ok(ledger)
    }

    fn take(path: &Path, create: bool) -> Result<Self> {
        let io = |e| Error::io("open the ledger", path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Error::other(format!("another process has the ledger {} open", path.display()))
                        .hint("runs on one dataset go one after the other: wait for it to end"),
                );
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock the ledger", path, e)),
        }
        if !is_at(&file, path) {
            // Whoever had it open was refused and left nothing.
            return Self::take(path, create);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (chain, lines, length) = Chain::parse(path, &bytes)?;
        chain.check_sidecar(path)?;
        let book = Book::replay(path, &lines)?;
        if length < bytes.len() as u64 {
            file.set_len(length)
                .and_then(|()| file.sync_all())
                .map_err(|e| Error::io("mend the ledger", path, e))?;
        }
        if !chain.is_empty() {
            chain.write_sidecar(path)?;
        }
        Ok(Ledger {
            path: path.to_path_buf(),
            file,
            length,
            chain,
            book,
            broken: false,
            unwritten: None,
            beside: Vec::new(),
            disjoint: false,
            rows: false,
        })
    }

    /// Charges `other` whatever runs are charged here, and holds them against its budget too: the datasets share records.
    pub fn beside(mut self, other: Ledger) -> Self {
        self.beside.push(other);
        self
    }

    /// Writes of runs that are entered that what their rows are known by is kept beside the ledger.
    pub fn knows_rows(mut self) -> Self {
        self.rows = true;
        self
    }

    /// Writes that the dataset `from` shares records and was declared to share nobody; once.
    ///
    /// # Errors
    /// Other: the ledger cannot be written.
    pub fn apart(&mut self, from: &str) -> Result<()> {
        match self.book.view().apart.iter().any(|known| known == from) {
            true => Ok(()),
            false => self.append(Entry::Apart { from: from.to_string() }),
        }
    }

    /// Writes of runs that are entered that their dataset was declared to share nobody with any other.
    pub fn disjoint(mut self) -> Self {
        self.disjoint = true;
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last line.
    pub fn head(&self) -> LedgerHead {
        self.chain.head()
    }

    /// Refuses a ledger that does not contain `head` (of a checkpoint): it was rolled back or replaced since.
    ///
    /// # Errors
    /// Data, saying which line is missing or different.
    pub fn require_head(&self, head: &LedgerHead) -> Result<()> {
        self.chain.require(&self.path, head, "the checkpoint")
    }

    /// What the ledger says.
    pub fn view(&self) -> LedgerView {
        self.book.view()
    }

    /// Sets the epsilon that all runs on the dataset may spend together. It is on record like everything else.
    ///
    /// # Errors
    /// Usage: not a number above 0. Other: the ledger cannot be written.
    pub fn set_budget(&mut self, total_epsilon: f64) -> Result<()> {
        check_total(total_epsilon)?;
        self.append(Entry::Budget { total_epsilon })
    }

    /// Enters a run, or finds it: what it has charged. Checks all budgets both times (rule P8).
    ///
    /// Ledgers of datasets that share records first learn of each other's runs: they cost the same people. Where a crash came
    /// between two ledgers, the one that is behind is charged what the other was.
    pub(super) fn enter(&mut self, run: &str, parameters: &RunParameters) -> Result<Uses> {
        let learned = self.require_room(run, parameters)?;
        let (own, others) = learned.split_first().expect("its own is the first");
        own.iter().try_for_each(|entry| self.append(entry.clone()))?;
        for (other, entries) in self.beside.iter_mut().zip(others) {
            entries.iter().try_for_each(|entry| other.append(entry.clone()))?;
        }
        let mut charged = parameters.nothing();
        for known in self.all().filter_map(|ledger| ledger.book.uses(run)) {
            charged
                .iter_mut()
                .zip(known)
                .for_each(|(most, known)| *most = known.max(*most));
        }
        self.bring_to(run, parameters, &charged, None)?;
        let from = self.book.dataset().to_string();
        for other in &mut self.beside {
            other.bring_to(run, parameters, &charged, Some(&from))?;
        }
        Ok(charged)
    }

    fn all(&self) -> impl Iterator<Item = &Ledger> {
        std::iter::once(self).chain(&self.beside)
    }

    /// Ends a run that has charged nothing, here and beside: it is not reserved any longer.
    ///
    /// # Errors
    /// Data: it has charged something, or there is none. Other: the ledger cannot be written.
    pub fn give_back(mut self, run: &str) -> Result<()> {
        let charged = |ledger: &Ledger| {
            ledger
                .book
                .uses(run)
                .is_none_or(|uses| uses.iter().any(|uses| *uses > 0))
        };
        if charged(&self) {
            return Err(
                Error::data(format!("run `{run}` has charged something, or is not there"))
                    .hint("only what was planned and not begun can be given back"),
            );
        }
        self.beside.retain(|other| !charged(other));
        self.end_run(run)
    }

    /// Refuses what [`Ledger::enter`] would; what each ledger, its own first, has to learn of the others.
    pub(super) fn require_room(&self, run: &str, parameters: &RunParameters) -> Result<Vec<Vec<Entry>>> {
        let own: Vec<Entry> = (self.beside.iter())
            .flat_map(|other| self.book.unknown_of(&other.book))
            .collect();
        self.book.with(&self.path, &own)?.admit(run, parameters)?;
        let mut learned = vec![own];
        for other in &self.beside {
            let mut entries = other.book.unknown_of(&self.book);
            // This very run is charged line by line.
            entries.retain(|entry| !matches!(entry, Entry::Known { run: known, .. } if known == run));
            let book = other.book.with(&other.path, &entries)?;
            book.admit(run, parameters).map_err(|e| e.of(&other.path))?;
            learned.push(entries);
        }
        Ok(learned)
    }

    /// Enters the run where it is not there, and charges what is missing. Its own ledger holds its states; it is another
    /// dataset's where `from` says so.
    fn bring_to(&mut self, run: &str, parameters: &RunParameters, charged: &[u64], from: Option<&str>) -> Result<()> {
        let known = |book: &Book| book.uses(run);
        if known(&self.book).is_none() {
            self.append(Entry::Run {
                run: run.to_string(),
                holds_states: from.is_none(),
                disjoint: self.disjoint,
                rows: self.rows,
                from: from.map(str::to_string),
                parameters: parameters.clone(),
            })?;
        }
        let known = known(&self.book).unwrap_or_default();
        for ((release, known), charged) in parameters.releases.iter().zip(known).zip(charged) {
            for index in known..*charged {
                self.append_use(run, &release.name, index)?;
            }
        }
        Ok(())
    }

    /// Writes the line of the `index`-th use of a release; it is on disk when this returns (rule P7).
    pub(super) fn charge(&mut self, run: &str, release: &str, index: u64) -> Result<()> {
        for other in &mut self.beside {
            other.append_use(run, release, index)?;
        }
        self.append_use(run, release, index)
    }

    fn append_use(&mut self, run: &str, release: &str, index: u64) -> Result<()> {
        self.append(Entry::Use {
            run: run.to_string(),
            release: release.to_string(),
            index,
        })
    }

    /// Writes which state a run may go on from.
    pub(super) fn state(&mut self, run: &str, sha256: &str) -> Result<()> {
        self.append(Entry::State {
            run: run.to_string(),
            sha256: sha256.to_string(),
        })
    }

    /// SHA-256 of the keys that a run keeps, as it was written last.
    pub(super) fn kept_keys(&self, run: &str) -> Option<String> {
        self.book.keys(run).map(str::to_string)
    }

    /// Writes which keys a run keeps from now on.
    pub(super) fn keys(&mut self, run: &str, sha256: &str) -> Result<()> {
        self.append(Entry::Keys {
            run: run.to_string(),
            sha256: sha256.to_string(),
        })
    }

    /// Writes what a run came to.
    pub(super) fn trained(&mut self, run: &str, sha256: &str) -> Result<()> {
        self.append(Entry::Trained {
            run: run.to_string(),
            sha256: sha256.to_string(),
        })
    }

    /// Writes that a run is over.
    pub(super) fn end_run(&mut self, run: &str) -> Result<()> {
        self.append(Entry::End { run: run.to_string() })?;
        // A ledger that a crash leaves out learns of it when both are open again.
        self.beside.iter_mut().try_for_each(|other| other.end_run(run))
    }

    fn append(&mut self, entry: Entry) -> Result<()> {
        if self.broken {
            return Err(
                Error::other(format!("writing to the ledger {} failed before", self.path.display()))
                    .hint("start again: the run goes on from what is on disk"),
            );
        }
        if let Some(created) = self.unwritten.take() {
            self.append(created)?;
        }
        let line: Line = self.chain.next(entry);
        // The book checks the line before it is written, by the rules by which it will be read.
        let mut book = self.book.clone();
        book.apply(&self.path, &line)?;
        let text = line.text();
        // A line that could not be read again would close the ledger for good.
        if serde_json::from_str::<Line>(&text).ok().map(|read| read.text()) != Some(text.clone()) {
            return Err(Error::other(
                "a line for the ledger does not read back as it was written; nothing was charged",
            )
            .hint("this is a mistake of the program: please report it"));
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(format!("{text}\n").as_bytes()))
            .and_then(|()| self.file.sync_data());
        if let Err(e) = written {
            self.broken = true;
            return Err(Error::io("write the ledger", &self.path, e));
        }
        self.length += text.len() as u64 + 1;
        self.chain.push(&text);
        self.book = book;
        self.chain.write_sidecar(&self.path).inspect_err(|_| self.broken = true)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.length == 0 {
            // Nobody was let in: there is nothing to keep.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        matches!((file.metadata(), std::fs::metadata(path)), (Ok(open), Ok(there)) if place(&open) == place(&there))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

fn check_total(total_epsilon: f64) -> Result<()> {
    if total_epsilon > 0.0 && total_epsilon.is_finite() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the total epsilon must be a number above 0, not {total_epsilon}"
    ))
    .hint("it is what all runs on the dataset may spend together"))
}
