//! What the lexicon that a run counted says of labels, for the arm that may use it.

use super::RunPaths;
use crate::config::RunConfig;
use crate::documents::{self, Lexicon};
use crate::records::LabelSpace;
use crate::sampling::evidence::Evidence;
use crate::{Error, Result};

/// The lexicon that a run of `config` counted; none where none is planned or there.
///
/// # Errors
/// Data: it is damaged.
pub fn lexicon_of(folder: &RunPaths, config: &RunConfig) -> Result<Option<Lexicon>> {
    if !config.lexicon.is_on() {
        return Ok(None);
    }
    let path = folder.lexicon();
    let lexicon: Option<Lexicon> = documents::read_if_there(&path)?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?.len();
    match lexicon.as_ref().and_then(|lexicon| lexicon.strange(labels)) {
        None => Ok(lexicon),
        Some(what) => Err(Error::data(format!("{} is damaged: {what}", path.display())).hint("put it back as it was")),
    }
}

/// What the records of an arm are drawn by: only the synthetic ones know the lexicon, which is of private records. None where
/// there is no lexicon, or no token stands out in it.
///
/// # Errors
/// Data: it is damaged.
pub fn evidence_of(folder: &RunPaths, arm: &str, config: &RunConfig) -> Result<Option<Evidence>> {
    let lexicon = match arm {
        "synthetic" => lexicon_of(folder, config)?,
        _ => None,
    };
    let evidence = lexicon.map(|lexicon| Evidence::new(lexicon.evidence()));
    Ok(evidence.filter(|evidence| !evidence.tokens().is_empty()))
}
