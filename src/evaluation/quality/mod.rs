//! What synthetic records are like, beside real ones: labels, lengths, words, variety, memory, meaning.
//!
//! Each measure is taken of synthetic and of zero-shot records, and beside them stands its reference: what it comes to
//! for real records, of equally many on each side. All of it reads private records: it is internal (rule P9), and no
//! synthetic record is chosen by it.

mod cloud;
pub mod disclosures;
pub mod duplicates;
mod fidelity;
pub mod frechet;
mod kmeans;
pub mod lengths;
pub mod mauve;
mod meaning;
pub mod memorisation;
pub mod ngrams;
mod sides;
pub mod spans;
mod variety;
pub mod words;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use disclosures::Disclosed;
pub use fidelity::LabelFidelity;
pub use meaning::Meaning;
pub use memorisation::{Memorisation, MemorisationCheck};
pub use sides::{Compared, Sides};
pub use variety::Variety;

use super::Example;
use super::embed::SentenceEncoder;
use crate::config::QualityConfig;
use crate::progress::{Progress, Unit};
use crate::{Error, Result};
use lengths::Lengths;
use ngrams::Divergence;
use sides::sample;
use words::Lexicon;

/// All measures; one is none where it is not taken yet, or there is nothing to take it of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Records of each side, but for `memorisation`, which looks at all, and `meaning`.
    pub records: usize,
    /// Reference: held-out records.
    pub label_fidelity: Option<Compared<LabelFidelity>>,
    /// Against the held-out records; reference: training records.
    pub lengths: Option<Compared<Lengths>>,
    /// Against the held-out records; reference: training records.
    pub divergence: Option<Compared<Divergence>>,
    /// Reference: training records.
    pub variety: Option<Compared<Variety>>,
    /// Reference: held-out records.
    pub memorisation: Option<Memorisation>,
    /// Of all records; by kind of string. None of an earlier version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disclosures: Option<Vec<Disclosed>>,
    /// Records of each side in `meaning`.
    pub meaning_records: usize,
    /// Against the held-out records; reference: training records. None without an encoder.
    pub meaning: Option<Compared<Meaning>>,
}

/// What is measured, and how.
#[derive(Clone, Copy)]
pub struct Measurement<'a> {
    /// The records; labels are below `num_labels`.
    pub sides: Sides<&'a [Example]>,
    /// Training records that chance kept from training; empty where none were.
    pub set_apart: &'a [Example],
    pub num_labels: usize,
    /// Numbers of records, and the limit of spans.
    pub config: &'a QualityConfig,
    /// Opens an encoder where sentence vectors are needed; where it gives none, [`Quality::meaning`] stays none.
    pub encoder: &'a dyn Fn() -> Result<Option<SentenceEncoder>>,
}

/// Takes every measure that `so_far` lacks; `keep` hears of the whole after each. `stop` is asked between measures and
/// often within the long ones.
///
/// # Errors
/// [`Error::interrupted`] after `stop` said so; whatever the encoder and `keep` return.
pub fn measure(
    measurement: &Measurement,
    so_far: Option<Quality>,
    keep: &mut dyn FnMut(&Quality) -> Result<()>,
    stop: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Quality> {
    let Measurement {
        sides,
        set_apart,
        num_labels,
        config,
        encoder,
    } = measurement;
    let sizes = [sides.training, sides.held_out, sides.synthetic, sides.zero_shot].map(<[_]>::len);
    let records = sizes.into_iter().fold(config.records, usize::min);
    let fresh = Quality {
        records,
        meaning_records: config.encoder_records.min(records),
        ..Quality::default()
    };
    let same = |q: &Quality| (q.records, q.meaning_records) == (fresh.records, fresh.meaning_records);
    let mut quality = so_far.filter(same).unwrap_or(fresh);
    if records == 0 {
        return Ok(quality);
    }
    let go_on = || match stop() {
        true => Err(
            Error::interrupted("stopped while the records were measured; finished measures are kept")
                .hint("run the same command again to go on"),
        ),
        false => Ok(()),
    };
    if quality.label_fidelity.is_none() {
        go_on()?;
        let _task = progress.begin("label fidelity", sides.training.len() as u64, Unit::Records);
        quality.label_fidelity = Some(LabelFidelity::of(sides, *num_labels, records));
        keep(&quality)?;
    }
    if quality.variety.is_none() || quality.memorisation.is_none() {
        go_on()?;
        let total: usize = sizes.into_iter().sum();
        let task = progress.begin("words in common", total as u64, Unit::Records);
        let mut lexicon = Lexicon::default();
        let words = sides.map(|examples| lexicon.read(examples.par_iter().map(|e| e.text.as_str())));
        if quality.variety.is_none() {
            let sampled = words.map(|all| sample(all, records));
            quality.lengths = sampled.to_held_out(|a, b| Lengths::between(a, b));
            quality.divergence = sampled.to_held_out(|a, b| Some(Divergence::between(a, b)));
            quality.variety = Some(Variety::of(&sampled));
            keep(&quality)?;
        }
        let mut done = sides.training.len();
        quality.memorisation = Some(Memorisation::of(
            words.map(Vec::as_slice),
            &lexicon,
            config.shared_words,
            &mut |records| {
                done += records;
                task.set(done as u64, "");
                go_on()
            },
        )?);
        keep(&quality)?;
    }
    if quality.disclosures.is_none() {
        go_on()?;
        let _task = progress.begin(
            "strings of one record alone",
            sides.training.len() as u64,
            Unit::Records,
        );
        quality.disclosures = Some(disclosures::disclosures(sides, set_apart));
        keep(&quality)?;
    }
    if quality.meaning.is_none() {
        go_on()?;
        if let Some(encoder) = encoder()? {
            quality.meaning = Meaning::of(sides, quality.meaning_records, &encoder, &go_on, progress)?;
            keep(&quality)?;
        }
    }
    Ok(quality)
}
