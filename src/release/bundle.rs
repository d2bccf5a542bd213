//! The bundle: a folder with the synthetic records and everything that says what they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::claim::{Claim, SCHEMA};
use super::clearance::Cleared;
use super::records::Records;
use super::{card, croissant, folder, manifest, registry};
use crate::config::ReleaseConfig;
use crate::facts::Facts;
use crate::hash::sha256;
use crate::page::{self, PublicFacts};
use crate::privacy::Class;
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
                Class::PostProcessing,
                "settings, what all runs in the ledger cost, and the guidance that was found",
            ),
            Piece::json(
                "privacy.json",
                &Claim::of(facts)?,
                Class::PostProcessing,
                "settings, what all runs in the ledger cost, the guidance that was found, the canaries' bounds, and the copy gate's charged count",
            ),
            Piece::new(
                "privacy.schema.json",
                SCHEMA.as_bytes().to_vec(),
                Class::Public,
                "the same for every run",
            ),
        ];
        pieces.push(Piece::new(
            "report.html",
            page::public(&PublicFacts::of(facts)?)?.into_bytes(),
            Class::PostProcessing,
            "settings and the plan's guarantee, synthetic and zero-shot records, and statistics of those alone",
        ));
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
        Ok(Bundle {
            pieces,
            sentence: facts.guarantee.to_string(),
            missing: missing(facts),
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
        folder::write(to, |inside| {
            self.pieces.iter().try_for_each(|piece| {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::interrupted("stopped; nothing was written").hint("the same command begins anew"));
                }
                folder::write_file(&inside.join(&piece.path), &piece.bytes)
            })
        })
    }
}

/// What the configuration does not say: setting, and what lacks it.
fn missing(facts: &Facts) -> Vec<String> {
    let release = &facts.config.release;
    let mut out = Vec::new();
    if release.license == ReleaseConfig::default().license {
        out.push("release.license is not set: nobody can tell what they may do with the records".to_string());
    }
    if release.language.is_empty() {
        out.push("release.language is not set: the dataset card lacks it".into());
    }
    let registry = registry::missing(facts).into_iter();
    out.extend(registry.map(|(key, field)| format!("{key} is not set: deployment.yaml lacks {field}")));
    out
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

    fn json(path: &str, value: &impl Serialize, class: Class, why: &'static str) -> Self {
        let mut text = serde_json::to_string_pretty(value).expect("a value serialises");
        text.push('\n');
        Piece::new(path, text.into_bytes(), class, why)
    }
}

fn hashes(pieces: &[Piece]) -> BTreeMap<String, String> {
    pieces.iter().map(|p| (p.path.clone(), p.sha256.clone())).collect()
}
