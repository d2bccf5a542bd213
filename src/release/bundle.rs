//! The bundle: a folder with the synthetic records and everything that says what they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::class::Class;
use super::clearance::Cleared;
use super::records::Records;
use super::{card, claim, croissant, manifest, registry, wording};
use crate::pipeline::stamp::sha256;
use crate::{Error, Result};

/// A file of a bundle, and why it may leave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Piece {
    /// In the bundle, with `/`.
    pub path: String,
    #[serde(skip)]
    pub bytes: Vec<u8>,
    /// How many.
    #[serde(rename = "bytes")]
    pub size: usize,
    pub sha256: String,
    /// The least public thing that is in it.
    pub class: Class,
    /// Why it may leave.
    pub why: &'static str,
}

/// All files of a release, made of a cleared run alone (P9). The same run makes the same bytes.
pub struct Bundle {
    pieces: Vec<Piece>,
    sentence: String,
    missing: Vec<String>,
}

impl Bundle {
    /// Of a run that may leave.
    ///
    /// # Errors
    /// Refused: a shard holds what nobody classified. Data: a file of the run is damaged.
    pub fn of(cleared: &Cleared) -> Result<Self> {
        let facts = cleared.facts();
        let records = Records::of(facts)?;
        let mut pieces = vec![
            Piece::new(
                "README.md",
                card::render(facts, &records)?.into_bytes(),
                Class::PostProcessing,
                "settings and the plan's guarantee, and statistics of the synthetic records alone",
            ),
            Piece::json(
                "croissant.json",
                &croissant::render(facts, &records),
                Class::PostProcessing,
                "settings and the plan's guarantee, and hashes of the files that are published",
            ),
            Piece::new(
                "deployment.yaml",
                registry::render(facts)?.into_bytes(),
                Class::Public,
                "settings, and what the plans of all runs cost",
            ),
            Piece::json(
                "privacy.json",
                &claim::render(facts),
                Class::Public,
                "settings, and what the plans of all runs cost",
            ),
            Piece::new(
                "privacy.schema.json",
                claim::SCHEMA.as_bytes().to_vec(),
                Class::Public,
                "the same for every run",
            ),
        ];
        pieces.extend(records.shards.into_iter().map(|shard| {
            Piece::new(
                &shard.path,
                shard.bytes,
                Class::PostProcessing,
                "synthetic records: drawn from the model whose training was charged",
            )
        }));
        let manifest = manifest::render(facts, &hashes(&pieces))?;
        pieces.push(Piece::json(
            manifest::MANIFEST,
            &manifest,
            Class::PostProcessing,
            "settings, hashes of the files that are published, a salted commitment to the private dataset",
        ));
        let sums = manifest::sums(&hashes(&pieces));
        pieces.push(Piece::new(
            manifest::SUMS,
            sums.into_bytes(),
            Class::PostProcessing,
            "hashes of the files that are published",
        ));
        pieces.sort_by(|a, b| a.path.cmp(&b.path));
        let missing = registry::missing(facts).into_iter();
        Ok(Bundle {
            pieces,
            sentence: wording::sentence(&facts.guarantee),
            missing: missing
                .map(|(key, field)| format!("{key} is not set: deployment.yaml lacks {field}"))
                .collect(),
        })
    }

    /// The files, by path.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The guarantee whole (P10), in a line.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What the configuration does not say and a file would need.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Writes the bundle to `to`: all of it, on disk, or nothing.
    ///
    /// # Errors
    /// Usage: there is something at `to`. Interrupted: `stop` was set. Other: it cannot be written.
    pub fn write(&self, to: &Path, stop: &AtomicBool) -> Result<()> {
        let to = target(to)?;
        // Built where a rename reaches the target: beside it, or beside the first of its folders that is not there yet.
        let parent = to.ancestors().skip(1).find(|p| p.is_dir()).unwrap_or(Path::new("/"));
        let building = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent);
        let building = building.map_err(|e| Error::io("make a folder in", parent, e))?;
        let inside = building.path().join("bundle");
        for piece in &self.pieces {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::interrupted("stopped; nothing was written").hint("the same command begins anew"));
            }
            write_synced(&inside.join(&piece.path), &piece.bytes)?;
        }
        sync_folders(&inside)?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
        }
        // Onto an empty folder or into nothing; were something put there meanwhile, this fails.
        fs::rename(&inside, &to).map_err(|e| Error::io("move the bundle to", &to, e))?;
        let folder = to.parent().unwrap_or(Path::new("/"));
        sync(folder)
    }
}

/// Where a bundle would be written.
///
/// # Errors
/// Usage: there is a file or a folder that is not empty.
pub fn target(to: &Path) -> Result<PathBuf> {
    let taken = |what: &str| {
        Err(Error::usage(format!("{} {what}", to.display()))
            .hint("name a folder that is not there yet: a bundle is never written over another"))
    };
    if to.is_dir() {
        let mut entries = fs::read_dir(to).map_err(|e| Error::io("read", to, e))?;
        return match entries.next() {
            Some(_) => taken("is not empty"),
            // Itself, not a link to it.
            None => fs::canonicalize(to).map_err(|e| Error::io("find", to, e)),
        };
    }
    if to.symlink_metadata().is_ok() {
        return taken("is there already");
    }
    let full = std::path::absolute(to).map_err(|e| Error::io("find", to, e))?;
    match full.ancestors().skip(1).find(|p| p.exists()).filter(|p| !p.is_dir()) {
        Some(file) => Err(Error::usage(format!(
            "{} is below {}, which is no folder",
            to.display(),
            file.display()
        ))
        .hint("name a folder that is not there yet")),
        None => Ok(full),
    }
}

impl Piece {
    fn new(path: &str, bytes: Vec<u8>, class: Class, why: &'static str) -> Self {
        Piece {
            path: path.into(),
            size: bytes.len(),
            sha256: sha256(&bytes),
            bytes,
            class,
            why,
        }
    }

    fn json(path: &str, value: &Value, class: Class, why: &'static str) -> Self {
        let mut text = serde_json::to_string_pretty(value).expect("a value serialises");
        text.push('\n');
        Piece::new(path, text.into_bytes(), class, why)
    }
}

fn hashes(pieces: &[Piece]) -> BTreeMap<String, String> {
    pieces.iter().map(|p| (p.path.clone(), p.sha256.clone())).collect()
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    let mut file = File::create_new(path).map_err(|e| Error::io("write", path, e))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| Error::io("write", path, e))
}

/// The names in a folder and in those below it are on disk too.
fn sync_folders(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
        let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.map_err(|e| Error::io("write", folder, e))
}
