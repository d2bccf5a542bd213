//! The gate that a configuration may declare (`release.copy_gate`): how many training units share a phrase with a record
//! that is to leave.
//!
//! Whether a run may leave is an output too (P9), so the gate is paid for: a unit adds 1 to the count at most, whatever its
//! records hold, and the count gets the noise that the plan set aside. It is drawn once; the result is kept.

use std::collections::HashSet;

use rayon::prelude::*;

use super::clearance::{Check, Refusal};
use crate::config::{CopyGate, RunConfig};
use crate::documents::{self, GateCount, Subject};
use crate::evaluation::quality::spans::SpanIndex;
use crate::evaluation::quality::words::Lexicon;
use crate::files::write_atomically;
use crate::privacy::{COPY_GATE, RunRecord, find_ledger};
use crate::records::{Drawable, Record};
use crate::run::ledgers::Opened;
use crate::run::{Places, Preparation, RunPaths, privacy_plan, stamp, table};
use crate::{Error, Result};

/// What is known of the gate before anything is spent.
pub enum Gate {
    /// None is declared, or it lets the records through.
    Open,
    /// It has to count first, which spends.
    Due,
    Closed(Refusal),
}

impl Gate {
    /// Of the run in `folder`, by what was counted before.
    ///
    /// # Errors
    /// Data: a file of the run is damaged, or the ledger was tampered with.
    pub fn look(folder: &RunPaths, config: &RunConfig, places: &Places) -> Result<Self> {
        let Some(gate) = config.release.copy_gate else {
            return Ok(Gate::Open);
        };
        let path = folder.copy_gate();
        let charged = record(folder, places)?.filter(|record| record.uses_of(COPY_GATE.name()) > 0);
        let counted = documents::read_if_there::<GateCount>(&path)?;
        let (counted, record) = match (counted, charged) {
            (None, None) => return Ok(Gate::Due),
            (None, Some(_)) => {
                return Ok(Gate::Closed(spent(
                    "the copy gate was charged, and its count is not there any more",
                    RESTORE,
                )));
            }
            (Some(_), None) => {
                return Ok(Gate::Closed(spent(
                    "the ledger does not know of the copy gate's count in sampling/copy_gate.json",
                    "put back the ledger that the run was charged to, or train again as another run",
                )));
            }
            (Some(counted), Some(record)) => (counted, record),
        };
        if !record.has_state(&stamp::hash_of(&path)?) {
            return Ok(Gate::Closed(spent(
                "sampling/copy_gate.json is not what was counted",
                RESTORE,
            )));
        }
        if counted.shards != Subject::of(folder)?.shards || counted.shared_words != config.evaluate.quality.shared_words
        {
            return Ok(Gate::Closed(spent(
                "the copy gate counted for other records, or longer or shorter phrases",
                "put back the records and settings that were counted for, or train again as another run",
            )));
        }
        Ok(decided(&counted, gate))
    }

    /// Counts, pays and decides.
    ///
    /// # Errors
    /// Budget, other: the ledger does not take the charge.
    pub fn count(folder: &RunPaths, config: &RunConfig, places: &Places) -> Result<Self> {
        match config.release.copy_gate {
            None => Ok(Gate::Open),
            Some(gate) => Ok(decided(&count(folder, config, gate, places)?, gate)),
        }
    }
}

fn record(folder: &RunPaths, places: &Places) -> Result<Option<RunRecord>> {
    let name = std::fs::read_to_string(folder.ledger_run()).unwrap_or_default();
    let view = find_ledger(&places.ledgers, &Preparation::read(folder)?.ledger())?.map(|(_, view)| view);
    Ok(view.and_then(|view| view.runs.into_iter().find(|run| run.run == name.trim())))
}

fn decided(counted: &GateCount, gate: CopyGate) -> Gate {
    let (noisy, tolerated, limit) = (counted.noisy_matched_units, gate.tolerated_units, counted.shared_words);
    if noisy <= i64::try_from(tolerated).unwrap_or(i64::MAX) {
        return Gate::Open;
    }
    Gate::Closed(Refusal {
        check: Check::CopyGate,
        reason: format!(
            "the copy gate counted {noisy} training units, with noise, that share {limit} words or more in a row with a record; {tolerated} are tolerated"
        ),
        mend: "raise `tolerated_units` (published), train again at a smaller epsilon, or publish nothing; the count is charged, so any of these is covered".into(),
    })
}

/// What to do about a count that is lost.
const RESTORE: &str = "restore sampling/copy_gate.json from a backup, or train again as another run";

fn spent(reason: &str, mend: &str) -> Refusal {
    Refusal {
        check: Check::CopyGate,
        reason: format!("{reason}; the plan pays for one count"),
        mend: mend.into(),
    }
}

/// Counts and pays.
fn count(folder: &RunPaths, config: &RunConfig, gate: CopyGate, places: &Places) -> Result<GateCount> {
    let limit = config.evaluate.quality.shared_words;
    let leaving = table::read_shards(&folder.shards("synthetic"), config)?;
    let matched = matched_units(&table::read_records(&folder.train_records())?, &leaving, limit);

    let plan = privacy_plan(config)?;
    let opened = Opened::open(places, folder, config, &Preparation::read(folder)?, &plan)?;
    let (ledger, _) = opened.take();
    let path = folder.ledger_run();
    let name = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let units = table::units(folder, config.dataset.max_records_per_unit())?.units();
    let mut run = plan.begin(ledger, name.trim(), units)?;
    let counted = GateCount {
        epsilon: gate.epsilon,
        shared_words: limit,
        noisy_matched_units: run.charge(COPY_GATE)?.privatize(matched),
        shards: Subject::of(folder)?.shards,
    };
    let text = stamp::text(&counted);
    run.state(&stamp::sha256(text.as_bytes()))?;
    write_atomically(&folder.copy_gate(), text.as_bytes())?;
    run.end()?;
    Ok(counted)
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
