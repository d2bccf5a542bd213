//! The ledger of a run's private records, and those of other datasets that share some of them (rule P8).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use super::rows::{Rows, Shared, Staged};
use super::stamp::Stamp;
use super::{Places, Preparation, RunPaths, Stage};
use crate::config::{Files, RunConfig};
use crate::error::Kind;
use crate::privacy::{Ledger, PrivacyPlan};
use crate::tables::{self, Split};
use crate::{Error, Result};

/// A run's ledger, open, which charges the ledgers of datasets that share rows as well. While it lives no other process looks
/// for shared rows.
pub struct Opened {
    ledger: Ledger,
    /// Those others; none where the dataset was declared to share nobody with any.
    pub charged_too: Vec<Shared>,
    belonging: Belonging,
}

impl Opened {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Ledger::open`]; data: what is known of rows is missing or damaged.
    pub fn open(
        places: &Places,
        folder: &RunPaths,
        config: &RunConfig,
        preparation: &Preparation,
        plan: &PrivacyPlan,
    ) -> Result<Self> {
        let own = preparation.ledger();
        let total = config.dataset.total_epsilon.unwrap_or_else(|| plan.needed_epsilon());
        let open = |name: &str| Ledger::open(&places.ledgers, name, total, plan.delta(), plan.unit());
        let lock = lock(&places.ledgers)?;
        let mut rows = Rows::of_run(&places.ledgers, folder, trained_files(folder, config)?.into_iter())?;
        let shared = rows.shared(&own)?;
        let disjoint = config.dataset.disjoint;
        // First, so that one that cannot be charged leaves nothing behind. One that shares nobody may protect any unit.
        let others: Vec<Ledger> = (shared.iter())
            .map(|shared| {
                let opened = match disjoint {
                    true => Ledger::open_file(&places.ledgers.join(format!("{}.jsonl", shared.ledger))),
                    false => open(&shared.ledger),
                };
                opened.map_err(|e| beside(e, shared, disjoint))
            })
            .collect::<Result<_>>()?;
        let ledger = open(&own)?.knows_rows();
        // Before the ledger says so: a run that is stopped in between keeps nobody from what it is known by.
        let rows = rows.stage(&own)?;
        let (ledger, charged_too, apart) = match disjoint {
            true => (ledger.disjoint(), Vec::new(), others),
            false => (others.into_iter().fold(ledger, Ledger::beside), shared, Vec::new()),
        };
        Ok(Opened {
            ledger,
            charged_too,
            belonging: Belonging {
                rows,
                own,
                apart,
                _lock: lock,
            },
        })
    }

    /// The ledger, and what to call once a run of it has begun: from then on other datasets are held against its rows.
    pub fn take(self) -> (Ledger, Belonging) {
        (self.ledger, self.belonging)
    }
}

/// Waits for whoever looks for shared rows in the folder.
fn lock(ledgers: &Path) -> Result<File> {
    let path = ledgers.join("lock");
    std::fs::create_dir_all(ledgers).map_err(|e| Error::io("create the ledger folder", ledgers, e))?;
    let file = File::create(&path).map_err(|e| Error::io("open", &path, e))?;
    file.lock().map_err(|e| Error::io("lock", &path, e))?;
    Ok(file)
}

/// Rows that are not yet beside their ledger, and ledgers that are to know that nobody is shared.
#[must_use]
pub struct Belonging {
    rows: Staged,
    own: String,
    apart: Vec<Ledger>,
    _lock: File,
}

impl Belonging {
    /// Puts them there.
    ///
    /// # Errors
    /// Other: the folder of ledgers cannot be written.
    pub fn belong(mut self) -> Result<()> {
        self.rows.belong()?;
        for ledger in &mut self.apart {
            ledger.apart(&self.own)?;
        }
        Ok(())
    }
}

/// What is wrong with the ledger of a dataset that shares rows.
fn beside(error: dpsynth_privacy::Error, shared: &Shared, disjoint: bool) -> Error {
    let said = error.told().message.clone();
    let error = Error::from(error);
    let hint = match error.kind() {
        Kind::Usage => {
            "give `dataset.unit` as that dataset's runs had it; only where the two share nobody, `--disjoint` declares so"
        }
        Kind::Other if disjoint => "wait for it to end: that ledger is to say that the two share nobody",
        Kind::Other => "its runs and this one cost the same people, so they go one after the other",
        _ => return error,
    };
    let whole = format!(
        "the ledger {}, whose dataset shares {} rows, units or files with this one: {said}",
        shared.ledger, shared.rows
    );
    match error.kind() {
        Kind::Usage => Error::usage(whole).hint(hint),
        _ => Error::other(whole).hint(hint),
    }
}

/// SHA-256 of the training files that the configuration names, as far as a run's stamp has them.
pub fn trained_files(folder: &RunPaths, config: &RunConfig) -> Result<BTreeSet<String>> {
    let inputs = Stamp::read(folder, Stage::Prepare)?
        .map(|stamp| stamp.inputs)
        .unwrap_or_default();
    let named = config.dataset.train.iter().flat_map(Files::paths);
    let files = named.flat_map(|path| tables::find(path, Split::Train).unwrap_or_else(|_| vec![path.clone()]));
    Ok(files.filter_map(|file| inputs.get(&file).cloned()).collect())
}
