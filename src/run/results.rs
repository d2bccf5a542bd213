//! What the evaluation wrote, read back. Internal (P9).

use super::RunPaths;
use crate::evaluation::Utility;
use crate::evaluation::quality::{Memorisation, Quality, disclosures};
use crate::files::read_json;
use crate::{Result, documents};

/// The scores.
pub fn utility(folder: &RunPaths) -> Result<Utility> {
    documents::read(&folder.utility())
}

/// What was measured so far; none where it is switched off.
pub fn quality(folder: &RunPaths) -> Result<Option<Quality>> {
    let path = folder.quality();
    if path.exists() { read_json(&path) } else { Ok(None) }
}

/// The same without the words of private records.
pub fn quality_for_report(folder: &RunPaths) -> Result<Option<Quality>> {
    Ok(quality(folder)?.map(|quality| Quality {
        memorisation: quality.memorisation.map(Memorisation::without_texts),
        disclosures: quality.disclosures.map(disclosures::without_texts),
        ..quality
    }))
}
