//! The last part of stage 4: what the records are like, beside real ones.

use std::sync::atomic::Ordering;

use burn::tensor::Device;

use super::Pipeline;
use crate::Result;
use crate::evaluation::Example;
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::evaluation::quality::{Measurement, Quality, Sides, measure};
use crate::files::write_atomically;
use crate::run::{results, stamp};

/// Measures what is asked for and not yet in the folder; each measure is kept as it is done.
pub fn run(
    p: &Pipeline,
    sides: Sides<&[Example]>,
    set_apart: &[Example],
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
        set_apart,
        num_labels,
        config: &config.quality,
        encoder: &open,
    };
    let quality = measure(&measurement, results::quality(&p.folder)?, &mut keep, &stop, p.progress)?;
    keep(&quality)
}
