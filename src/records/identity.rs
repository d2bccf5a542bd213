//! What makes a dataset the same dataset: its records, whatever their order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use sha2::{Digest, Sha256};

use super::Record;
use crate::hash::hex;
use crate::{Error, Result};

/// SHA-256 of a text.
pub type TextHash = [u8; 32];

/// That many hashes are sorted in memory; more go to disk.
const IN_MEMORY: usize = 1 << 20;

/// Hashes of texts, as a multiset that may be larger than memory.
#[derive(Default)]
pub struct TextHashes {
    recent: Vec<TextHash>,
    /// Sorted, on disk. Nobody else sees these files.
    runs: Vec<File>,
}

impl TextHashes {
    /// # Errors
    /// Other: no room for temporary files.
    pub fn add(&mut self, hash: TextHash) -> Result<()> {
        self.recent.push(hash);
        match self.recent.len() < IN_MEMORY {
            true => Ok(()),
            false => self.spill(),
        }
    }

    fn spill(&mut self) -> Result<()> {
        self.recent.sort_unstable();
        let write = || {
            let mut file = BufWriter::new(tempfile::tempfile()?);
            self.recent.iter().try_for_each(|hash| file.write_all(hash))?;
            let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.rewind()?;
            Ok(file)
        };
        self.runs.push(write().map_err(|e| no_room(&e))?);
        self.recent.clear();
        Ok(())
    }

    /// All of them in order.
    pub fn sorted(&mut self) -> Result<Sorted<'_, TextHash>> {
        self.recent.sort_unstable();
        let mut sources: Vec<Box<dyn Iterator<Item = Result<TextHash>> + '_>> =
            vec![Box::new(self.recent.iter().copied().map(Ok))];
        for run in &mut self.runs {
            run.rewind().map_err(|e| no_room(&e))?;
            sources.push(Box::new(Run(BufReader::new(run))));
        }
        Sorted::of(sources)
    }

    /// Hexadecimal sha256 over the texts as a multiset: the sha256 of the sorted sha256 of each. Rows in another order, and
    /// labels declared otherwise, are the same dataset; one text more, fewer, changed or repeated is another.
    ///
    /// # Errors
    /// Other: temporary files cannot be read.
    pub fn content_hash(&mut self) -> Result<String> {
        let mut all = Sha256::new();
        for hash in self.sorted()? {
            all.update(hash?);
        }
        Ok(hex(&all.finalize()))
    }

    /// Number of different texts that are in both.
    ///
    /// # Errors
    /// Other: temporary files cannot be read.
    pub fn shared(&mut self, other: &mut TextHashes) -> Result<usize> {
        shared(self.sorted()?, other.sorted()?)
    }
}

/// Number of different hashes that are in both, each in order.
///
/// # Errors
/// The first of either.
pub fn shared<H: Ord>(
    mut ours: impl Iterator<Item = Result<H>>,
    mut theirs: impl Iterator<Item = Result<H>>,
) -> Result<usize> {
    let (mut a, mut b) = (ours.next().transpose()?, theirs.next().transpose()?);
    let (mut shared, mut last) = (0, None);
    while let (Some(x), Some(y)) = (&a, &b) {
        match x.cmp(y) {
            Ordering::Less => a = ours.next().transpose()?,
            Ordering::Greater => b = theirs.next().transpose()?,
            Ordering::Equal => {
                shared += usize::from(last != a);
                last = std::mem::replace(&mut a, ours.next().transpose()?);
            }
        }
    }
    Ok(shared)
}

/// Several sorted sources as one.
pub struct Sorted<'a, H> {
    sources: Vec<Source<'a, H>>,
    next: BinaryHeap<Reverse<(H, usize)>>,
}

type Source<'a, H> = Box<dyn Iterator<Item = Result<H>> + 'a>;

impl<'a, H: Ord> Sorted<'a, H> {
    /// # Errors
    /// The first of a source.
    pub fn of(sources: Vec<Source<'a, H>>) -> Result<Self> {
        let mut out = Sorted {
            sources,
            next: BinaryHeap::new(),
        };
        (0..out.sources.len()).try_for_each(|source| out.refill(source))?;
        Ok(out)
    }

    fn refill(&mut self, source: usize) -> Result<()> {
        if let Some(hash) = self.sources[source].next() {
            self.next.push(Reverse((hash?, source)));
        }
        Ok(())
    }
}

impl<H: Ord> Iterator for Sorted<'_, H> {
    type Item = Result<H>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((hash, source)) = self.next.pop()?;
        Some(self.refill(source).map(|()| hash))
    }
}

/// A run on disk.
struct Run<'a>(BufReader<&'a mut File>);

impl Iterator for Run<'_> {
    type Item = Result<TextHash>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut hash = [0; 32];
        match self.0.read_exact(&mut hash) {
            Ok(()) => Some(Ok(hash)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
            Err(e) => Some(Err(no_room(&e))),
        }
    }
}

fn no_room(error: &std::io::Error) -> Error {
    Error::other(format!("a temporary file cannot be used: {error}")).hint("TMPDIR names a folder with room for them")
}

/// Hash of a text.
pub fn text_hash(text: &str) -> TextHash {
    Sha256::digest(text).into()
}

/// [`TextHashes::content_hash`] of texts that are in memory.
///
/// # Errors
/// As there.
pub fn content_hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let mut hashes = TextHashes::default();
    texts.into_iter().try_for_each(|text| hashes.add(text_hash(text)))?;
    hashes.content_hash()
}

/// [`FixedSample`] of records that are in memory.
pub fn fixed_sample(records: Vec<Record>, count: Option<usize>) -> Vec<Record> {
    let mut sample = FixedSample::new(count);
    records.into_iter().for_each(|record| sample.add(record));
    sample.records()
}

/// At most `count` records, the same ones whatever the order of the rows: those with the smallest hashes.
pub struct FixedSample {
    count: Option<usize>,
    added: usize,
    all: Vec<Record>,
    /// The largest hash first. Of records with one hash, which are alike but for their unit, the earliest stay.
    kept: BinaryHeap<Hashed>,
}

impl FixedSample {
    /// All records, where there is no `count`.
    pub fn new(count: Option<usize>) -> Self {
        FixedSample {
            count,
            added: 0,
            all: Vec::new(),
            kept: BinaryHeap::new(),
        }
    }

    pub fn add(&mut self, record: Record) {
        let Some(count) = self.count else {
            return self.all.push(record);
        };
        let hashed = Hashed {
            hash: record_hash(&record),
            at: self.added,
            record,
        };
        self.added += 1;
        self.kept.push(hashed);
        if self.kept.len() > count {
            self.kept.pop();
        }
    }

    /// What was kept: by hash where there is a `count`, else as it came.
    pub fn records(self) -> Vec<Record> {
        match self.count {
            None => self.all,
            Some(_) => self.kept.into_sorted_vec().into_iter().map(|h| h.record).collect(),
        }
    }
}

struct Hashed {
    hash: [u8; 32],
    at: usize,
    record: Record,
}

impl Ord for Hashed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.hash, self.at).cmp(&(other.hash, other.at))
    }
}

impl PartialOrd for Hashed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hashed {}

fn record_hash(record: &Record) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update((record.label as u64).to_le_bytes());
    hasher.update(record.text.as_bytes());
    hasher.finalize().into()
}
