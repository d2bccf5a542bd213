//! What a run writes down and reads back: each file is a struct, each of its fields has a class (rule P9).
//!
//! | file | type |
//! |---|---|
//! | `model/privacy.json` | [`Guarantee`](crate::privacy::Guarantee) |
//! | `model/lexicon.json` | [`Lexicon`] |
//! | `sampling/<arm>.json` | [`Sampled`] |
//! | `sampling/domain.json` | [`Domain`] |
//! | `sampling/copy_gate.json` | [`GateCount`] |
//! | `internal/audit.json` | [`Findings`] |
//! | `report.json` | [`Report`] |
//! | `internal/training.jsonl` | [`StepLog`], a line each |
//! | metadata of a shard | [`ShardMetadata`] |
//!
//! A key that a type does not know is refused: nobody has said why it may leave.

mod findings;
mod gate;
mod report;
mod sampled;
mod shard;
mod stage;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use crate::sampling::domain::Domain;
pub use crate::sampling::guide::{Found, FoundWeight, Tried, TriedWeight};
pub use crate::sampling::lexicon::Lexicon;
pub use crate::training::trainer::StepLog;
pub use findings::{
    AtRate, Auc, Claimed, Contamination, Design, Dirac, Echo, EchoAt, Findings, Losses, LowerBound, Measured,
    Membership, Names, OnTheCurve, OneRun, Probe, Rate, Redraw, Replay, Settings, Subject, TrainerSteps, Verdict,
};
pub use gate::GateCount;
pub use report::{Counts, Records, Report, Spent};
pub use sampled::{Sampled, SampledLabel};
pub use shard::{ShardMetadata, texts};
pub use stage::Stage;

use crate::privacy::Guarantee;
use crate::privacy::class::{Document, leaves};
use crate::{Error, Result};

// What leaves has nothing internal in it.
const _: () = assert!(leaves(Guarantee::FIELDS));
const _: () = assert!(leaves(GateCount::FIELDS));
const _: () = assert!(leaves(Sampled::FIELDS) && leaves(SampledLabel::FIELDS));
const _: () = assert!(leaves(Lexicon::FIELDS) && leaves(Domain::FIELDS));
const _: () = assert!(leaves(Found::FIELDS) && leaves(Tried::FIELDS));
const _: () = assert!(leaves(FoundWeight::FIELDS) && leaves(TriedWeight::FIELDS));
const _: () = assert!(leaves(ShardMetadata::FIELDS));

/// Reads the document in `path`.
///
/// # Errors
/// Data: it is damaged, or has a key that the type does not know. Other: it cannot be read.
pub fn read<T: Document + DeserializeOwned>(path: &Path) -> Result<T> {
    let (document, unknown) = look(path)?;
    match unknown.is_empty() {
        true => Ok(document),
        false => Err(damaged(path, &format!("nobody knows `{}`", unknown.join("`, `")))),
    }
}

/// The same; none where there is no such file.
///
/// # Errors
/// As [`read`].
pub fn read_if_there<T: Document + DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read(path)).transpose()
}

/// Reads the document in `path` and names its keys that the type does not know, instead of refusing them.
///
/// # Errors
/// Data: it is damaged. Other: it cannot be read.
pub fn look<T: Document + DeserializeOwned>(path: &Path) -> Result<(T, Vec<String>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let mut unknown = Vec::new();
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e.to_string()))?;
    let document = serde_ignored::deserialize(value, |key| unknown.push(key.to_string()));
    Ok((document.map_err(|e| damaged(path, &e.to_string()))?, unknown))
}

/// The guarantee in `path`, and the keys of it that nobody knows.
///
/// # Errors
/// As [`look`].
pub fn look_at_guarantee(path: &Path) -> Result<(Guarantee, Vec<String>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let values = serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e.to_string()))?;
    Guarantee::read(values).map_err(|e| damaged(path, &e))
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::data(format!("{} is damaged: {why}", path.display()))
        .hint("delete it: the command that made it makes it again")
}
