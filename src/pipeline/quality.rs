//! The last part of stage 4: what the records are like, beside real ones.

use std::sync::atomic::Ordering;

use burn::tensor::Device;

use super::files::{read_json, write_atomically};
use super::{Pipeline, RunPaths, stamp};
use crate::Result;
use crate::evaluation::Example;
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::evaluation::quality::{Measurement, Memorisation, Quality, Sides, measure};

/// Measures what is asked for and not yet in the folder; each measure is kept as it is done.
pub fn run(
    p: &Pipeline,
    sides: Sides<&[Example]>,
    num_labels: usize,
    encoder: Option<&EncoderFiles>,
    device: &Device,
) -> Result<()> {
    let config = &p.config.evaluate;
    let write = |quality: &Option<&Quality>| write_atomically(&p.folder.quality(), stamp::text(quality).as_bytes());
    if !config.quality.enabled {
        return write(&None);
    }
    let open = || match encoder {
        Some(files) => SentenceEncoder::open(files, config.encoder_max_tokens, device).map(Some),
        None => Ok(None),
    };
    let mut keep = |quality: &Quality| write(&Some(quality));
    let stop = || p.stop.load(Ordering::Relaxed);
    let measurement = Measurement {
        sides,
        num_labels,
        config: &config.quality,
        encoder: &open,
    };
    let quality = measure(&measurement, read(&p.folder)?, &mut keep, &stop, p.progress)?;
    keep(&quality)
}

/// What was measured so far; none where it is switched off.
pub fn read(folder: &RunPaths) -> Result<Option<Quality>> {
    let path = folder.quality();
    if path.exists() { read_json(&path) } else { Ok(None) }
}

/// The same without the words of private records.
pub fn for_report(folder: &RunPaths) -> Result<Option<Quality>> {
    Ok(read(folder)?.map(|quality| Quality {
        memorisation: quality.memorisation.map(Memorisation::without_texts),
        ..quality
    }))
}
