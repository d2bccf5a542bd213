//! A bundle that someone else received: whether each byte is what it was, and whether its files say the same.
//!
//! It needs no run. It does not say who made the bundle: a signature of the manifest does.

mod prose;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use super::claim::{Claim, SCHEMA};
use super::{croissant, manifest, registry};
use crate::documents::ShardMetadata;
use crate::facts::wording;
use crate::hash::sha256_file;
use crate::privacy::Guarantee;
use crate::{Error, Result};

/// What a bundle must have beside its records.
const NEEDED: [&str; 8] = [
    "README.md",
    manifest::SUMS,
    "croissant.json",
    "deployment.yaml",
    manifest::MANIFEST,
    "privacy.json",
    "privacy.schema.json",
    "report.html",
];

/// What git and the Hugging Face hub add to a folder that they carry.
const BESIDE: [&str; 3] = [".git", ".gitattributes", ".cache"];

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub files: usize,
    pub bytes: u64,
    /// Synthetic records.
    pub records: u64,
    /// None where `privacy.json` has none.
    pub guarantee: Option<Guarantee>,
    /// The same whole in a line (P10).
    pub statement: String,
    /// What a hub or git keeps beside a bundle, and no part of it.
    pub left_out: Vec<String>,
    /// What was looked at.
    pub checked: Vec<&'static str>,
    /// What is wrong; empty where the bundle is whole.
    pub failures: Vec<Failure>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Failure {
    pub path: String,
    pub what: String,
}

impl Verified {
    /// Refuses a bundle with a failure.
    ///
    /// # Errors
    /// Data: each bad file with what is wrong with it.
    pub fn require_whole(&self) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let each: Vec<String> = (self.failures.iter())
            .map(|f| format!("\n  - {}: {}", f.path, f.what))
            .collect();
        Err(
            Error::data(format!("the bundle is not what was released:{}", each.concat()))
                .hint("download it again from its publisher"),
        )
    }
}

/// Looks at the bundle in `folder`.
///
/// # Errors
/// Usage: it is no folder, or nothing in it says that it is a bundle. Other: it cannot be read. What is wrong with a bundle
/// is no error here: see [`Verified::require_whole`].
pub fn verify(folder: &Path) -> Result<Verified> {
    if !folder.is_dir() {
        return Err(
            Error::usage(format!("there is no folder {}", folder.display())).hint("name the folder of a bundle")
        );
    }
    if !folder.join(manifest::MANIFEST).exists() && !folder.join(manifest::SUMS).exists() {
        return Err(Error::usage(format!("{} holds no bundle", folder.display()))
            .hint("`dpsynth release` writes one; it has a manifest.json"));
    }
    let mut look = Look {
        folder,
        found: BTreeMap::new(),
        left_out: Vec::new(),
        bytes: 0,
        failures: BTreeSet::new(),
    };
    look.walk(folder, "")?;
    look.hashes()?;
    let (guarantee, records) = look.agreement()?;
    Ok(Verified {
        files: look.found.len(),
        bytes: look.bytes,
        records,
        statement: guarantee.as_ref().map(Guarantee::to_string).unwrap_or_default(),
        guarantee,
        left_out: look.left_out,
        checked: vec![
            "every file is in manifest.json and SHA256SUMS with its SHA-256, and no other file is there beside .git, .gitattributes and .cache",
            "the metadata of shards, privacy.json, manifest.json and deployment.yaml say the same guarantee; README.md, croissant.json and report.html hold its sentence; other prose is not read",
            "croissant.json names the records' files with their SHA-256, and their columns",
            "epsilon is no less, but for a thousandth, than its noise, sampling rate, steps and delta give by this program's accountant",
            "epsilon is stated with delta, adjacency, unit, sampler and accountant; each value is one that this program gives, and fits the others",
            "the sentences about the guarantee in privacy.json and README.md are those that its values give",
        ],
        failures: look.failures.into_iter().collect(),
    })
}

struct Look<'a> {
    folder: &'a Path,
    /// SHA-256 by path.
    found: BTreeMap<String, String>,
    left_out: Vec<String>,
    bytes: u64,
    failures: BTreeSet<Failure>,
}

impl Look<'_> {
    fn fail(&mut self, path: &str, what: impl Into<String>) {
        self.failures.insert(Failure {
            path: path.into(),
            what: what.into(),
        });
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
            let entry = entry.map_err(|e| Error::io("read", folder, e))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|e| Error::io("read", &path, e))?;
            let Ok(name) = entry.file_name().into_string() else {
                self.fail(&format!("{prefix}{}", path.display()), "its name is no text");
                continue;
            };
            let name = format!("{prefix}{name}");
            if BESIDE.contains(&name.as_str()) {
                self.left_out.push(name);
                continue;
            }
            if kind.is_dir() {
                self.walk(&path, &format!("{name}/"))?;
            } else if kind.is_file() {
                let (hash, bytes) = sha256_file(&path).map_err(|e| Error::io("read", &path, e))?;
                self.bytes += bytes;
                self.found.insert(name, hash);
            } else {
                self.fail(&name, "a link or a device, not a file");
            }
        }
        Ok(())
    }

    /// Files, manifest and sums, each against the others.
    fn hashes(&mut self) -> Result<()> {
        for needed in NEEDED {
            if !self.found.contains_key(needed) {
                self.fail(needed, "missing");
            }
        }
        let stated = self.bytes_of(manifest::MANIFEST)?.map(|bytes| manifest::read(&bytes));
        if matches!(stated, Some(None)) {
            self.fail(manifest::MANIFEST, "no in-toto statement of a release");
        }
        let stated = stated.flatten().map(|s| s.files).unwrap_or_default();
        let sums = self.bytes_of(manifest::SUMS)?;
        let summed = sums.as_ref().map(|b| manifest::read_sums(&String::from_utf8_lossy(b)));
        let summed = summed.unwrap_or_default();

        let mut named: BTreeSet<&String> = self.found.keys().chain(stated.keys()).chain(summed.keys()).collect();
        let last = manifest::SUMS.to_string();
        named.remove(&last);
        let mut failures = Vec::new();
        for path in named {
            let by_sums = summed.get(path);
            let by_manifest = stated.get(path);
            let is_manifest = path == manifest::MANIFEST;
            match self.found.get(path) {
                None => failures.push((path.clone(), "missing")),
                Some(_) if by_sums.is_none() && by_manifest.is_none() => {
                    failures.push((path.clone(), "not part of the bundle"));
                }
                Some(hash) => match (by_sums == Some(hash), is_manifest || by_manifest == Some(hash)) {
                    (true, true) => {}
                    (true, false) => failures.push((manifest::MANIFEST.into(), "disagrees with a file and SHA256SUMS")),
                    // Only the sums cover the manifest: which of the two was changed nobody can tell.
                    (false, _) if is_manifest => failures.extend([
                        (path.clone(), "changed, or SHA256SUMS was: its SHA-256 differs"),
                        (last.clone(), "changed, or manifest.json was: they disagree"),
                    ]),
                    (false, true) => failures.push((manifest::SUMS.into(), "disagrees with a file and manifest.json")),
                    (false, false) => failures.push((path.clone(), "changed: SHA-256 differs")),
                },
            }
        }
        for (path, what) in failures {
            self.fail(&path, what);
        }
        // Byte for byte: a changed space or line end is a change too.
        let mut files = self.found.clone();
        files.remove(manifest::SUMS);
        if self.failures.is_empty() && sums.is_some_and(|sums| sums != manifest::sums(&files).as_bytes()) {
            self.fail(manifest::SUMS, "changed: it is not what the files make it");
        }
        Ok(())
    }

    /// Whether all files say one guarantee; it, and the number of records.
    fn agreement(&mut self) -> Result<(Option<Guarantee>, u64)> {
        if self
            .bytes_of("privacy.schema.json")?
            .is_some_and(|bytes| bytes != SCHEMA.as_bytes())
        {
            self.fail(
                "privacy.schema.json",
                "is not the schema of this version of the program",
            );
        }
        let said = match self.bytes_of("privacy.json")?.map(|bytes| Claim::read(&bytes)) {
            Some(Ok(said)) => said,
            Some(Err(why)) => {
                self.fail(
                    "privacy.json",
                    format!("no claim as this version of the program makes it: {why}"),
                );
                return Ok((None, 0));
            }
            None => return Ok((None, 0)),
        };
        let guarantee = &said.guarantee.parameters;
        let lacking = wording::lacking(guarantee);
        if !lacking.is_empty() {
            self.fail("privacy.json", format!("epsilon without {} (P10)", lacking.join(", ")));
        }
        if !guarantee.private {
            self.fail("privacy.json", "NOT PRIVATE");
        }
        let said_in_words = guarantee.to_string();
        if said.guarantee.statement != said_in_words {
            self.fail("privacy.json", "its statement is not what its parameters say");
        }
        if let Some(bytes) = self.bytes_of(manifest::MANIFEST)?
            && manifest::read(&bytes).is_some_and(|m| m.guarantee != *guarantee || m.statement != said_in_words)
        {
            self.fail(manifest::MANIFEST, "says another guarantee than privacy.json");
        }
        let mut columns = None;
        if let Some(bytes) = self.bytes_of("croissant.json")? {
            let records = (self.found.iter()).filter(|(path, _)| path.ends_with(".parquet"));
            let records = records.map(|(path, hash)| (path.clone(), hash.clone())).collect();
            match croissant::read(&bytes) {
                Some(named) if named.files == records => columns = Some(named.columns),
                _ => self.fail("croissant.json", "names other records than those that are there"),
            }
        }
        // A page escapes what has a meaning in HTML: a column of such a name is not looked for there.
        let plain = !said_in_words.contains(['<', '>', '&', '"', '\'', '/']);
        let page = plain.then_some("report.html");
        for file in ["README.md", "croissant.json"].into_iter().chain(page) {
            if let Some(bytes) = self.bytes_of(file)?
                && !String::from_utf8_lossy(&bytes).contains(&said_in_words)
            {
                self.fail(file, "says another guarantee than privacy.json");
            }
        }
        if let Some(bytes) = self.bytes_of("deployment.yaml")?
            && !registry::says(&String::from_utf8_lossy(&bytes), guarantee)
        {
            self.fail("deployment.yaml", "says another epsilon or delta than privacy.json");
        }
        match values::wrong(&said) {
            Some(wrong) => self.fail("privacy.json", wrong),
            // What its values give in words.
            None => self.prose(&said)?,
        }
        let expected = ShardMetadata {
            guarantee: guarantee.clone(),
            run: said.run.clone(),
            base_model: said.algorithm.base_model.name.clone(),
        };
        let expected: BTreeMap<String, String> = expected.pairs().into_iter().collect();
        let shards: Vec<String> = (self.found.keys().filter(|p| p.ends_with(".parquet")))
            .cloned()
            .collect();
        if shards.is_empty() {
            self.fail("data/", "no records");
        }
        let mut records = 0;
        for shard in shards {
            // What is damaged is not read, and is told of already.
            if self.failures.iter().any(|f| f.path == shard) {
                continue;
            }
            match look_into(&self.folder.join(&shard)) {
                Some(found) => {
                    records += found.rows;
                    if found.metadata != expected {
                        self.fail(&shard, "its metadata says another guarantee than privacy.json");
                    }
                    if columns.as_ref().is_some_and(|named| *named != found.columns) {
                        self.fail(&shard, "has other columns than croissant.json names");
                    }
                }
                None => self.fail(&shard, "no Parquet file, or its schema says more than the file does"),
            }
        }
        Ok((Some(said.guarantee.parameters), records))
    }

    /// Whether the sentences about the guarantee are those that its values give.
    fn prose(&mut self, said: &Claim) -> Result<()> {
        for wrong in prose::differs(said) {
            self.fail("privacy.json", wrong);
        }
        if let Some(card) = self.bytes_of("README.md")? {
            let card = String::from_utf8_lossy(&card).into_owned();
            if let Some(sentence) = prose::of_card(said)
                .into_iter()
                .find(|sentence| !card.contains(sentence))
            {
                self.fail(
                    "README.md",
                    format!("does not say what privacy.json makes it say: {sentence}"),
                );
            }
        }
        Ok(())
    }

    /// None where there is no such file.
    fn bytes_of(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if !self.found.contains_key(path) {
            return Ok(None);
        }
        let path = self.folder.join(path);
        fs::read(&path).map(Some).map_err(|e| Error::io("read", &path, e))
    }
}

/// What a shard says of itself.
struct Found {
    metadata: BTreeMap<String, String>,
    columns: Vec<String>,
    rows: u64,
}

/// None where it is no Parquet file.
fn look_into(path: &Path) -> Option<Found> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).ok()?).ok()?;
    let file = reader.metadata().file_metadata();
    let in_file = file.key_value_metadata().into_iter().flatten();
    let in_file: BTreeMap<String, String> = in_file
        .filter(|pair| pair.key != "ARROW:schema")
        .map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default()))
        .collect();
    let in_schema: BTreeMap<String, String> = reader.schema().metadata().clone().into_iter().collect();
    let fields = reader.schema().fields();
    // pyarrow shows the one, DuckDB the other.
    (in_schema == in_file && fields.iter().all(|f| f.metadata().is_empty())).then(|| Found {
        metadata: in_file,
        columns: fields.iter().map(|f| f.name().clone()).collect(),
        rows: file.num_rows().max(0) as u64,
    })
}
