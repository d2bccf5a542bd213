//! The ledger of a run's private records, and those of other datasets that share some of them (rule P8).

use std::collections::BTreeSet;

use super::rows::{Rows, Shared};
use super::stamp::Stamp;
use super::{Places, Preparation, RunPaths, Stage};
use crate::config::{Files, RunConfig};
use crate::error::Kind;
use crate::privacy::{Ledger, PrivacyPlan};
use crate::tables::{self, Split};
use crate::{Error, Result};

/// A run's ledger, open, which charges the ledgers of datasets that share rows as well.
pub struct Opened {
    pub ledger: Ledger,
    /// Those others; none where the dataset was declared to share nobody with any.
    pub charged_too: Vec<Shared>,
    rows: Rows,
    own: String,
}

impl Opened {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Ledger::open`]; data: what is known of rows is damaged.
    pub fn open(
        places: &Places,
        folder: &RunPaths,
        config: &RunConfig,
        preparation: &Preparation,
        plan: &PrivacyPlan,
    ) -> Result<Self> {
        let own = preparation.ledger();
        let total = config.dataset.total_epsilon.unwrap_or(config.finetune.epsilon);
        let open = |name: &str| Ledger::open(&places.ledgers, name, total, plan.delta(), plan.unit());
        let mut rows = Rows::of_run(&places.ledgers, folder, trained_files(folder, config)?.into_iter())?;
        let mut ledger = open(&own)?;
        let mut charged_too = Vec::new();
        if config.dataset.disjoint {
            ledger = ledger.disjoint();
        } else {
            charged_too = rows.shared(&own)?;
        }
        for shared in &charged_too {
            ledger = ledger.beside(open(&shared.ledger).map_err(|e| beside(e, shared))?);
        }
        Ok(Opened {
            ledger,
            charged_too,
            rows,
            own,
        })
    }

    /// The ledger, and what to call once a run of it has begun: from then on other datasets are held against its rows.
    pub fn take(self) -> (Ledger, Belonging) {
        (
            self.ledger,
            Belonging {
                rows: self.rows,
                own: self.own,
            },
        )
    }
}

/// Rows that are not yet beside their ledger.
#[must_use]
pub struct Belonging {
    rows: Rows,
    own: String,
}

impl Belonging {
    /// Puts them there.
    ///
    /// # Errors
    /// Other: the folder of ledgers cannot be written.
    pub fn belong(mut self) -> Result<()> {
        self.rows.belong(&self.own)
    }
}

fn beside(error: dpsynth_privacy::Error, shared: &Shared) -> Error {
    let error = Error::from(error);
    match error.kind() {
        Kind::Usage => error.hint(format!(
            "its dataset shares {} rows, units or files with this one, so that this run costs both; \
             `--disjoint` declares that they share nobody, and the release says so",
            shared.rows
        )),
        _ => error,
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
