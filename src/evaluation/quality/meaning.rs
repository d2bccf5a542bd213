//! How far records are from the held-out ones in the space of a sentence encoder.

use serde::{Deserialize, Serialize};

use super::frechet;
use super::mauve::Mauve;
use super::sides::{Compared, Sides, sample};
use crate::Result;
use crate::evaluation::Example;
use crate::evaluation::embed::SentenceEncoder;
use crate::progress::{Progress, Unit};

/// Distances between clouds of sentence vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meaning {
    /// Higher is closer; none with fewer than [`FEWEST`](super::mauve::FEWEST) records.
    pub mauve: Option<Mauve>,
    /// Squared, of vectors of length 1; lower is closer; none with fewer than two records.
    pub frechet: Option<f64>,
}

impl Meaning {
    /// Of `records` of each side against the held-out ones; the reference is the training records.
    ///
    /// # Errors
    /// A text the encoder's tokenizer refuses; whatever `go_on` returns, which is asked after each batch of texts.
    pub fn of(
        sides: &Sides<&[Example]>,
        records: usize,
        encoder: &SentenceEncoder,
        go_on: &dyn Fn() -> Result<()>,
        progress: &dyn Progress,
    ) -> Result<Option<Compared<Self>>> {
        let task = progress.begin("sentence vectors", 4 * records as u64, Unit::Records);
        let mut before = 0;
        let mut embed = |examples: &[Example]| {
            let examples = sample(examples, records);
            let vectors = encoder.embed(examples.iter().map(|e| e.text.as_str()), &mut |done| {
                task.set((before + done) as u64, "");
                go_on()
            });
            before += records;
            vectors
        };
        let vectors = Sides {
            training: embed(sides.training)?,
            held_out: embed(sides.held_out)?,
            synthetic: embed(sides.synthetic)?,
            zero_shot: embed(sides.zero_shot)?,
        };
        drop(task);
        let _task = progress.begin("MAUVE and Fréchet distance", 4 * records as u64, Unit::Records);
        Ok(vectors.to_held_out(|a, b| {
            Some(Meaning {
                mauve: Mauve::between(a, b),
                frechet: frechet::distance(a, b),
            })
        }))
    }
}
