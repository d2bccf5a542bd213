//! What the lexicon that a run counted says of labels, for the arm that may use it.

use super::RunPaths;
use crate::Result;
use crate::documents::{self, Lexicon};
use crate::sampling::evidence::Evidence;

/// What the records of an arm are drawn by: only the synthetic ones know the lexicon, which is of private records. None where
/// there is no lexicon.
///
/// # Errors
/// Data: it is damaged.
pub fn evidence_of(folder: &RunPaths, arm: &str) -> Result<Option<Evidence>> {
    if arm != "synthetic" {
        return Ok(None);
    }
    let lexicon: Option<Lexicon> = documents::read_if_there(&folder.lexicon())?;
    Ok(lexicon.map(|lexicon| Evidence::new(lexicon.evidence())))
}
