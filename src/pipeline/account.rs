//! A stage's run in the dataset's ledger: its name, the ledger it is in, and a saved state held against it (rule P7).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::RngExt;

use super::Pipeline;
use crate::config::{Files, RunConfig};
use crate::files::write_atomically;
use crate::privacy::{Ledger, PrivacyPlan, find_ledger};
use crate::run::Preparation;
use crate::run::compare::configuration;
use crate::run::stamp::Stamp;
use crate::run::{RunPaths, Stage};
use crate::tables::{self, Split};
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

/// The ledger of the private records.
///
/// # Errors
/// As [`Ledger::open`].
pub fn open(p: &Pipeline, preparation: &Preparation, plan: &PrivacyPlan) -> Result<Ledger> {
    let c = &p.config;
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
    let total = c.dataset.total_epsilon.unwrap_or(c.finetune.epsilon);
    own_population(p, preparation)?;
    known_here(p, preparation)?;
    let ledger = Ledger::open(
        &p.places.ledgers,
        &preparation.ledger(),
        total,
        plan.delta(),
        plan.unit(),
    )?;
    Ok(ledger)
}

/// Writes down that the dataset belongs to its population, now that a run of it has begun.
///
/// # Errors
/// Other: the folder of ledgers cannot be written.
pub fn belong(p: &Pipeline, preparation: &Preparation) -> Result<()> {
    match &preparation.population {
        Some(name) => write_atomically(&belonging(p, preparation), name.as_bytes()),
        None => Ok(()),
    }
}

/// Refuses a dataset of another population than is declared, and one that has spent under its own name: each would begin a
/// second budget.
fn own_population(p: &Pipeline, preparation: &Preparation) -> Result<()> {
    let known = std::fs::read_to_string(belonging(p, preparation)).ok();
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
fn belonging(p: &Pipeline, preparation: &Preparation) -> PathBuf {
    p.places
        .ledgers
        .join(format!("{}.population", preparation.dataset_hash))
}

/// Refuses ledgers that do not know of a run beside this one, on the same records: another home, or another
/// `DPSYNTH_LEDGERS`, would begin a second budget for them. Points out a run on the same file that reads it otherwise, by
/// another text column or encoding: that is another dataset to the ledger, of the same people.
fn known_here(p: &Pipeline, preparation: &Preparation) -> Result<()> {
    let ledger = find_ledger(&p.places.ledgers, &preparation.ledger())?;
    let files = trained_files(&p.folder, &p.config)?;
    let knows = |id: &str| ledger.iter().any(|(_, view)| view.runs.iter().any(|run| run.run == id));
    let folders = std::fs::read_dir(&p.places.runs)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok());
    for folder in folders.map(|entry| RunPaths::of(&entry.path())) {
        let Ok(id) = std::fs::read_to_string(folder.ledger_run()) else {
            continue;
        };
        let other = || Some((Preparation::read(&folder).ok()?, configuration(folder.root()).ok()?.2?));
        let Some((other, config)) = other().filter(|_| folder.name() != p.folder.name()) else {
            continue;
        };
        let shared = trained_files(&folder, &config)?.intersection(&files).next().is_some();
        if shared && other.ledger() != preparation.ledger() && other.dataset_hash != preparation.dataset_hash {
            p.progress.note(&format!(
                "warning: {} reads the same file differently and has its own ledger: for the people in it both spendings add up, \
                 and no ledger shows the sum",
                folder.root().display()
            ));
        }
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

/// SHA-256 of the training files that the configuration names, as far as a run's stamp has them.
fn trained_files(folder: &RunPaths, config: &RunConfig) -> Result<BTreeSet<String>> {
    let inputs = Stamp::read(folder, Stage::Prepare)?
        .map(|stamp| stamp.inputs)
        .unwrap_or_default();
    let named = config.dataset.train.iter().flat_map(Files::paths);
    let files = named.flat_map(|path| tables::find(path, Split::Train).unwrap_or_else(|_| vec![path.clone()]));
    Ok(files.filter_map(|file| inputs.get(&file).cloned()).collect())
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
