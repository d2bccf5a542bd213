//! Where things are outside a run's folder.

use std::path::{Path, PathBuf};

use crate::assets::Locations;
use crate::{Error, Result};

/// Where things are outside the run's folder.
#[derive(Clone, Debug)]
pub struct Places {
    /// Runs are kept here, a folder each.
    pub runs: PathBuf,
    /// Privacy ledgers are kept here, a file a dataset. Outside the runs: deleting a run refunds nothing.
    pub ledgers: PathBuf,
    /// Where assets are looked for.
    pub assets: Locations,
}

impl Places {
    /// Ledgers in `DPSYNTH_LEDGERS`, else in `dpsynth/ledgers` in the user's data folder, which the system knows where no
    /// variable names it.
    ///
    /// # Errors
    /// Usage: there is no place for ledgers. One beside the runs would begin a second budget for records that have one.
    pub fn from_env(runs: &Path) -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || std::env::home_dir().filter(|home| home.is_absolute());
        let data = || set("XDG_DATA_HOME").or_else(|| home().map(|h| h.join(".local/share")));
        let ledgers = set("DPSYNTH_LEDGERS").or_else(|| data().map(|d| d.join("dpsynth/ledgers")));
        Ok(Places {
            runs: runs.to_path_buf(),
            ledgers: ledgers.ok_or_else(|| {
                Error::usage("there is no home folder in which ledgers could be kept").hint(
                    "set HOME, or set DPSYNTH_LEDGERS to a folder that stays: it knows what each dataset has spent",
                )
            })?,
            assets: Locations::from_env(),
        })
    }
}
