//! What the run claims: its `model/privacy.json`, whole.

use crate::documents;
use crate::privacy::Guarantee;
use crate::run::RunFolder;
use crate::{Error, Result};

/// The claim of the run in `folder`.
///
/// # Errors
/// Usage: nothing is trained yet. Data: the file is damaged.
pub fn claim(folder: &RunFolder) -> Result<Guarantee> {
    let path = folder.guarantee();
    if !path.exists() || !folder.trained().exists() || !folder.train_records().exists() {
        return Err(
            Error::usage(format!("{} has no trained model to audit", folder.root().display()))
                .hint("`dpsynth run` or `dpsynth finetune` comes first"),
        );
    }
    documents::read(&path)
}
