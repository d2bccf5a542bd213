//! A stage's run in the dataset's ledger: its name, the ledger it is in, and a saved state held against it (rule P7).

use std::path::{Path, PathBuf};

use rand::RngExt;

use super::Pipeline;
use crate::files::write_atomically;
use crate::privacy::{Ledger, PrivacyPlan, PrivateRun, find_ledger};
use crate::run::Preparation;
use crate::run::RunPaths;
use crate::run::ledgers::{Belonging, Opened};
use crate::run::stamp::hash_of;
use crate::training::checkpoint::Checkpoint;
use crate::{Error, Result};

/// The run's name in the ledger, `prefix` and a random number: drawn once and kept in `path`. A folder that is deleted
/// and made anew is another run.
pub fn run_id(path: &Path, prefix: &str) -> Result<String> {
    if let Ok(id) = std::fs::read_to_string(path) {
        return Ok(id.trim().to_string());
    }
    let id = format!("{prefix}-{:016x}", rand::rng().random::<u64>());
    write_atomically(path, id.as_bytes())?;
    Ok(id)
}

/// The ledger of the private records, and of others that share some; and what to hand to [`belong`].
///
/// # Errors
/// As [`Ledger::open`].
pub fn open(p: &Pipeline, preparation: &Preparation, plan: &PrivacyPlan) -> Result<(Ledger, Belonging)> {
    // Where no home folder was known, earlier versions of the program kept ledgers beside the runs. Not to look there would
    // begin a second budget.
    let beside = p.places.runs.join("ledgers");
    let earlier = beside.join(format!("{}.jsonl", preparation.ledger()));
    if earlier.exists() && !same_folder(&beside, &p.places.ledgers) {
        return Err(Error::usage(format!(
            "what these records have spent is in {}, and ledgers are kept in {} now",
            earlier.display(),
            p.places.ledgers.display()
        ))
        .hint(format!(
            "move that file there, or set DPSYNTH_LEDGERS={}",
            beside.display()
        )));
    }
    own_population(p, preparation)?;
    known_here(p, preparation)?;
    let opened = Opened::open(p.places, &p.folder, &p.config, preparation, plan)?;
    for shared in &opened.charged_too {
        p.progress.note(&format!(
            "(internal) {} rows, units or files are also those of the ledger {}: this run is charged to both; \
             `--disjoint` declares that they share nobody",
            shared.rows, shared.ledger
        ));
    }
    Ok(opened.take())
}

/// Writes down what the dataset is known by, and that it belongs to its population, now that a run of it has begun.
///
/// # Errors
/// Other: the folder of ledgers cannot be written.
pub fn belong(p: &Pipeline, preparation: &Preparation, belonging: Belonging) -> Result<()> {
    belonging.belong()?;
    match &preparation.population {
        Some(name) => write_atomically(&population_file(p, preparation), name.as_bytes()),
        None => Ok(()),
    }
}

/// Refuses a dataset of another population than is declared, and one that has spent under its own name: each would begin a
/// second budget.
fn own_population(p: &Pipeline, preparation: &Preparation) -> Result<()> {
    let known = std::fs::read_to_string(population_file(p, preparation)).ok();
    let own = p.places.ledgers.join(format!("{}.jsonl", preparation.dataset_hash));
    match (&known, &preparation.population) {
        (Some(known), declared) if declared.as_ref() != Some(known) => Err(Error::usage(format!(
            "what these records have spent is in the ledger of the population `{known}`"
        ))
        .hint(format!("declare dataset.population = \"{known}\""))),
        (None, Some(_)) if own.exists() => Err(Error::usage(format!(
            "these records have spent under their own name, in {}",
            own.display()
        ))
        .hint("leave out `dataset.population` for them: a population begins with its first run")),
        _ => Ok(()),
    }
}

/// The file that says so.
fn population_file(p: &Pipeline, preparation: &Preparation) -> PathBuf {
    p.places
        .ledgers
        .join(format!("{}.population", preparation.dataset_hash))
}

/// Refuses ledgers that do not know of a run beside this one, on the same records: another home, or another
/// `DPSYNTH_LEDGERS`, would begin a second budget for them.
fn known_here(p: &Pipeline, preparation: &Preparation) -> Result<()> {
    let ledger = find_ledger(&p.places.ledgers, &preparation.ledger())?;
    let knows = |id: &str| ledger.iter().any(|(_, view)| view.runs.iter().any(|run| run.run == id));
    let folders = std::fs::read_dir(&p.places.runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok());
    for folder in folders.map(|entry| RunPaths::of(&entry.path())) {
        let Ok(id) = std::fs::read_to_string(folder.ledger_run()) else {
            continue;
        };
        let other = Preparation::read(&folder)
            .ok()
            .filter(|_| folder.name() != p.folder.name());
        let Some(other) = other else {
            continue;
        };
        let same = other.dataset_hash == preparation.dataset_hash || other.ledger() == preparation.ledger();
        if same && !knows(id.trim()) {
            return Err(Error::usage(format!(
                "{} was trained on the same records, and no ledger in {} knows of it: their spending is recorded in another folder",
                folder.root().display(),
                p.places.ledgers.display()
            ))
            .hint("set DPSYNTH_LEDGERS to the folder of ledgers that it was charged to; HOME may have been another then"));
        }
    }
    Ok(())
}

/// Whether what was counted and paid for is kept in `path`.
///
/// # Errors
/// Data, with `hint`: what is there is not what the ledger says was counted.
pub fn is_kept(run: &PrivateRun, path: &Path, hint: &'static str) -> Result<bool> {
    if !path.exists() {
        return Ok(false);
    }
    let own = hash_of(path)?;
    match run.record().is_none_or(|record| record.has_state(&own)) {
        true => Ok(true),
        false => Err(Error::data(format!("{} is not what was counted and paid for", path.display())).hint(hint)),
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Holds the state that was `saved` in `path` against what `run` was charged; the charged steps where the run was ended, so
/// that nothing is left but to use the state.
///
/// # Errors
/// Data: the ledger has forgotten what the state was paid with, or the state has steps that were never charged.
pub fn check(ledger: &Ledger, run: &str, saved: &Checkpoint, path: &Path) -> Result<Option<u64>> {
    // A ledger that has forgotten it was rolled back.
    ledger.require_head(&saved.ledger)?;
    let view = ledger.view();
    let charged = view.runs.iter().find(|r| r.run == run);
    if saved.applied_steps > charged.map_or(0, |r| r.charged_steps()) {
        // The state would carry steps that the guarantee does not count.
        return Err(Error::data(format!(
            "{} has more steps applied than its run has charged: it is another run's",
            path.display()
        ))
        .hint("delete the folder it belongs to and begin anew; what it charged stays charged"));
    }
    if charged.is_none_or(|r| !r.has_state(&saved.sha256())) {
        return Err(Error::data(format!(
            "{} is no state that the ledger knows of this run: it was changed, or is another run's",
            path.display()
        ))
        .hint(
            "put it back as it was, or delete the folder it belongs to and begin anew; what it charged stays charged",
        ));
    }
    Ok(charged.filter(|r| r.ended).map(|r| r.charged_steps()))
}

/// Removes what a run kept to go on by, once it need not: who took part in which step is nobody's to know.
///
/// # Errors
/// Other: it is there and stays.
pub fn forget(path: &Path) -> Result<()> {
    // The other is what a process that died was about to put in its place.
    for path in [path, &path.with_extension("new")] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path, e)),
            _ => {}
        }
    }
    Ok(())
}
