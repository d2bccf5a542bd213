//! The gate that a configuration may declare (`release.copy_gate`): how many training units share a phrase with a record
//! that is to leave.
//!
//! Whether a run may leave is an output too (P9), so the gate is paid for: a unit adds 1 to the count at most, whatever its
//! records hold, and the count gets the noise that the plan set aside. It is drawn once; the result is kept.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::clearance::{Check, Refusal};
use crate::config::{CopyGate, RunConfig};
use crate::documents::{self, GateCount, Subject};
use crate::evaluation::quality::spans::SpanIndex;
use crate::evaluation::quality::words::Lexicon;
use crate::files::write_atomically;
use crate::privacy::{COPY_GATE, Ledger};
use crate::records::{Drawable, Record};
use crate::run::{Places, Preparation, RunPaths, privacy_plan, stamp, table};
use crate::{Error, Result};

/// Why the run may not leave, where the gate refuses it; none where it passes, or none is declared.
///
/// # Errors
/// Data: a file of the run is damaged. Budget, other: the ledger does not take the charge.
pub fn refusal(folder: &RunPaths, config: &RunConfig, places: &Places) -> Result<Option<Refusal>> {
    let Some(gate) = config.release.copy_gate else {
        return Ok(None);
    };
    let shards = Subject::of(folder)?.shards;
    let limit = config.evaluate.quality.shared_words;
    let counted = match documents::read_if_there::<GateCount>(&folder.copy_gate())? {
        Some(before) if before.shards != shards || before.shared_words != limit => {
            return Ok(Some(spent(
                "the copy gate counted for other records, or longer or shorter phrases",
            )));
        }
        Some(counted) => counted,
        None => match count(folder, config, gate, places, shards)? {
            Some(counted) => counted,
            None => {
                return Ok(Some(spent(
                    "the copy gate was charged, and its count was lost when the program was stopped",
                )));
            }
        },
    };
    let (noisy, tolerated) = (counted.noisy_matched_units, gate.tolerated_units);
    let many = noisy > i64::try_from(tolerated).unwrap_or(i64::MAX);
    Ok(many.then(|| Refusal {
        check: Check::CopyGate,
        reason: format!(
            "the copy gate counted {noisy} training units, with noise, that share {limit} words or more in a row with a record; {tolerated} are tolerated"
        ),
        mend: "the count is charged, so what follows from it is covered: train at a smaller epsilon, or publish nothing of this run".into(),
    }))
}

fn spent(reason: &str) -> Refusal {
    Refusal {
        check: Check::CopyGate,
        reason: format!("{reason}; the plan pays for one count"),
        mend: "put back the records and settings that were counted for, or train again: that is another run".into(),
    }
}

/// Counts and pays; none where it was paid for before and nothing is left of it.
fn count(
    folder: &RunPaths,
    config: &RunConfig,
    gate: CopyGate,
    places: &Places,
    shards: BTreeMap<String, String>,
) -> Result<Option<GateCount>> {
    let limit = config.evaluate.quality.shared_words;
    let leaving = table::read_shards(&folder.shards("synthetic"), config)?;
    let matched = matched_units(&table::read_records(&folder.train_records())?, &leaving, limit);

    let plan = privacy_plan(config)?;
    let total = config.dataset.total_epsilon.unwrap_or(config.finetune.epsilon);
    let hash = Preparation::read(folder)?.ledger();
    let ledger = Ledger::open(&places.ledgers, &hash, total, plan.delta(), plan.unit())?;
    let path = folder.ledger_run();
    let name = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let units = table::units(folder, config.dataset.max_records_per_unit())?.units();
    let mut run = plan.begin(ledger, name.trim(), units)?;
    if run.charged(COPY_GATE) > 0 {
        return Ok(None);
    }
    let noisy_matched_units = run.charge(COPY_GATE)?.privatize(matched);
    let counted = GateCount {
        epsilon: gate.epsilon,
        shared_words: limit,
        noisy_matched_units,
        shards,
    };
    write_atomically(&folder.copy_gate(), stamp::text(&counted).as_bytes())?;
    run.end()?;
    Ok(Some(counted))
}

/// How many units of `training` have a record that shares `limit` words or more in a row with one of `leaving`. Adding or
/// removing a unit changes it by 1 at most: each is looked at by itself.
pub fn matched_units(training: &[Record], leaving: &[Record], limit: usize) -> u64 {
    let mut lexicon = Lexicon::default();
    let mut read = |records: &[Record]| {
        // An underscore hides no copy: here it separates words.
        let texts: Vec<String> = records.par_iter().map(|r| r.text.replace('_', " ")).collect();
        lexicon.read(texts.par_iter().map(String::as_str))
    };
    let (theirs, ours) = (read(leaving), read(training));
    let index = SpanIndex::new(&theirs);
    let matched = training.par_iter().zip(&ours);
    let matched = matched.filter(|(_, words)| index.longest(words).words >= limit);
    matched.map(|(record, _)| record.unit).collect::<HashSet<u32>>().len() as u64
}
