//! What a run came to: one JSON object, read back from what the stages wrote.

use std::collections::BTreeMap;
use std::path::Path;

use super::preparation::Preparation;
use super::stamp::{self, Stamp};
use super::states::done;
use super::{RunFolder, RunPaths, Stage, results};
use crate::Result;
use crate::config::{RunConfig, Task};
use crate::documents::{self, Counts, Records, Report, Sampled, Spent};
use crate::evaluation::Utility;
use crate::files::write_atomically;
use crate::hash::sha256;
use crate::privacy::{Guarantee, find_ledger};

/// The run's guarantee; none before training.
///
/// # Errors
/// Data: it is damaged.
pub fn guarantee(folder: &RunPaths) -> Result<Option<Guarantee>> {
    documents::read_if_there(&folder.guarantee())
}

/// The stage that trains what comes of a run.
pub fn trains(task: Task) -> Stage {
    match task {
        Task::Synthesise => Stage::Finetune,
        Task::Classify => Stage::References,
    }
}

/// The guarantee of what comes of the run; none before it is trained.
///
/// # Errors
/// Data: it is damaged.
pub fn own_guarantee(folder: &RunPaths, task: Task) -> Result<Option<Guarantee>> {
    documents::read_if_there(&folder.own_guarantee(task))
}

/// The report of the run in `folder` as it stands: nothing is locked or written, and another program may be at work.
///
/// # Errors
/// A file of the run is damaged.
pub fn read(config: &RunConfig, folder: &RunPaths, ledgers: &Path) -> Result<Report> {
    let names = done(folder, Some(config))?;
    let done: Vec<Stage> = Stage::ALL.into_iter().filter(|s| names.contains(&s.name())).collect();
    gather(config, folder, ledgers, &done)
}

/// Gathers what is done and writes `report.json`.
pub fn write(config: &RunConfig, folder: &RunFolder, ledgers: &Path, done: &[Stage]) -> Result<Report> {
    let report = gather(config, folder, ledgers, done)?;
    let text = serde_json::to_string_pretty(&report).expect("a report serialises");
    write_atomically(&folder.report(), text.as_bytes())?;
    Ok(report)
}

fn gather(config: &RunConfig, folder: &RunPaths, ledgers: &Path, done: &[Stage]) -> Result<Report> {
    let mut timings_s = BTreeMap::new();
    let mut peak_rss_bytes = 0;
    for stage in done {
        if let Some(stamp) = Stamp::read(folder, *stage)? {
            timings_s.insert(*stage, stamp.seconds);
            peak_rss_bytes = peak_rss_bytes.max(stamp.peak_rss_bytes);
        }
    }
    let records = match done.contains(&Stage::Prepare) {
        true => {
            let p = Preparation::read(folder)?;
            let counts = |r: crate::records::ReadReport| Counts {
                read: r.read,
                kept: r.kept,
                dropped: r.dropped,
            };
            Some(Records {
                train: counts(p.train),
                test: counts(p.test),
                test_evaluated: p.test_kept,
                shared_texts: p.shared_texts,
                cut: p.cut,
            })
        }
        false => None,
    };
    let utility = match done.contains(&Stage::Evaluate) {
        true => results::utility(folder)?,
        false => Utility::default(),
    };
    Ok(Report {
        run: folder.name().to_string(),
        classification: "internal".into(),
        privacy: match done.contains(&trains(config.task)) {
            true => own_guarantee(folder, config.task)?,
            false => None,
        },
        utility: utility.rows,
        all_synthetic: utility.all_synthetic,
        all_real: utility.all_real,
        size_curve: utility.size_curve,
        references: utility.references,
        sampling: if done.contains(&Stage::Sample) {
            sampling(folder)?
        } else {
            BTreeMap::new()
        },
        quality: if done.contains(&Stage::Evaluate) {
            results::quality_for_report(folder)?
        } else {
            None
        },
        records,
        ledger: if done.contains(&trains(config.task)) {
            spent(folder, ledgers)?
        } else {
            None
        },
        timings_s,
        peak_rss_bytes,
        config_hash: sha256(stamp::text(config).as_bytes()),
        program_version: env!("CARGO_PKG_VERSION").into(),
    })
}

fn sampling(folder: &RunPaths) -> Result<BTreeMap<String, Sampled>> {
    let mut out = BTreeMap::new();
    for arm in ["synthetic", "zero_shot"] {
        // Runs of earlier versions of the program have none.
        if let Some(sampled) = documents::read_if_there(&folder.sampled(arm))? {
            out.insert(arm.to_string(), sampled);
        }
    }
    Ok(out)
}

/// What the ledger of the run's dataset says; none where it is not on this machine.
fn spent(folder: &RunPaths, ledgers: &Path) -> Result<Option<Spent>> {
    let Some((path, view)) = find_ledger(ledgers, &Preparation::read(folder)?.ledger())? else {
        return Ok(None);
    };
    Ok(Some(Spent {
        charged_epsilon: view.charged_epsilon()?,
        counted_epsilon: Some(view.counted_before_another()?.epsilon),
        total_epsilon: view.total_epsilon,
        delta: view.delta,
        path,
    }))
}
