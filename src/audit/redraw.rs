//! Whether the records are what the trained model draws: each stands in the journal of the draws, and some of those are
//! drawn again.
//!
//! Sampling is seeded, so the same model and settings give the same records, as long as the same arithmetic computes them:
//! another processor or card rounds another way, and a token in a hundred thousand falls differently. There most must be the
//! same. Nothing private is read.

use std::collections::HashMap;
use std::sync::Mutex;

use rand::seq::IndexedRandom;

use super::Stop;
use crate::config::RunConfig;
pub use crate::documents::Redraw;
use crate::documents::{self, Sampled};
use crate::machine::workers::Workers;
use crate::models::{LanguageModel, device};
use crate::records::Vocabulary;
use crate::run::stamp::Stamp;
use crate::run::{RunPaths, Stage, lifting_of, steering_of, table};
use crate::sampling::decode::Request;
use crate::sampling::drawn::{self, Drawn};
use crate::sampling::queue::Queue;
use crate::sampling::refine::TRIES;
use crate::{Error, Result};

/// Records that are drawn again: where one in twenty is foreign, one of so many is with 95 %.
const RECORDS: usize = 60;
/// How many of ten must be the same where other arithmetic computes them.
const OF_TEN: usize = 9;

/// What is drawn from, as the stage `sample` had it.
pub struct Redrawing<'a> {
    pub config: &'a RunConfig,
    pub folder: &'a RunPaths,
    pub vocabulary: &'a Vocabulary,
    pub prompts: &'a [Vec<u32>],
}

impl Redrawing<'_> {
    /// Draws some records of an arm again by `model`.
    ///
    /// # Errors
    /// Data: shards or a journal cannot be read. [`Error::interrupted`].
    pub fn run(&self, arm: &'static str, model: &LanguageModel, stop: Stop) -> Result<Redraw> {
        let records = table::read_shards(&self.folder.shards(arm), self.config)?;
        let journal = self.journal(arm)?;
        let by_text = journal.iter().filter_map(|drawn| Some((drawn.text.as_deref()?, drawn)));
        let of_label: HashMap<(&str, usize), &Drawn> = by_text
            .clone()
            .map(|(text, drawn)| ((text, drawn.label), drawn))
            .collect();
        let of_any: HashMap<&str, &Drawn> = by_text.collect();
        // Records of a label that were drawn for another one: as many as were relabelled, and no more.
        let mut relabelled = self.relabelled(arm)?;
        let known: Vec<&Drawn> = (records.iter())
            .filter_map(|record| {
                let text = record.text.as_str();
                let drawn_for_it = of_label.get(&(text, record.label)).copied();
                drawn_for_it.or_else(|| {
                    let left = relabelled.get_mut(record.label).filter(|left| **left > 0)?;
                    let drawn = of_any.get(text).copied()?;
                    *left -= 1;
                    Some(drawn)
                })
            })
            .collect();
        let chosen: Vec<&Drawn> = known.sample(&mut rand::rng(), RECORDS).copied().collect();
        let again = self.draw(arm, model, &chosen, stop)?;
        let same = chosen
            .iter()
            .filter(|drawn| again.get(&(drawn.id, drawn.round)) == drawn.text.as_ref());
        let then = Stamp::read(self.folder, Stage::Sample)?.map(|stamp| stamp.machine);
        Ok(Redraw {
            arm: arm.into(),
            records: records.len(),
            not_drawn: records.len() - known.len(),
            drawn_again: chosen.len(),
            same: same.count(),
            same_arithmetic: then == Some(device::arithmetic(self.config.device)?),
        })
    }

    /// Of each label, how many records it was given that were drawn for another.
    fn relabelled(&self, arm: &str) -> Result<Vec<usize>> {
        let sampled: Option<Sampled> = documents::read_if_there(&self.folder.sampled(arm))?;
        let labels = sampled.map_or(Vec::new(), |sampled| sampled.labels);
        Ok(labels.iter().map(|of_label| of_label.relabelled).collect())
    }

    fn journal(&self, arm: &str) -> Result<Vec<Drawn>> {
        let path = self.folder.journal(arm);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Then no record is known to have been drawn.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The text of each, by place and round.
    fn draw(
        &self,
        arm: &str,
        model: &LanguageModel,
        chosen: &[&Drawn],
        stop: Stop,
    ) -> Result<HashMap<(u64, u64), String>> {
        let steering = steering_of(self.folder, arm, self.config)?;
        let evidence = lifting_of(self.folder, arm, self.config)?;
        let decoder = drawn::decoder(
            self.config,
            model,
            self.vocabulary,
            self.prompts,
            steering,
            evidence.as_ref(),
        )?;
        let requests = chosen.iter().map(|drawn| Request {
            id: drawn.id,
            attempt: drawn.round * TRIES,
            label: drawn.label,
        });
        let found = Mutex::new(HashMap::new());
        let keep = |request: Request, tokens: Vec<u32>| {
            let text = drawn::text(self.vocabulary, &tokens)?;
            let round = request.attempt / TRIES;
            // As it was then: a blank one was tried again.
            if text.is_empty() && request.attempt + 1 < (round + 1) * TRIES {
                return Ok(Some(Request {
                    attempt: request.attempt + 1,
                    ..request
                }));
            }
            found
                .lock()
                .expect("nobody panics with it in hand")
                .insert((request.id, round), text);
            Ok(None)
        };
        let workers = Workers::on(&model.device());
        let side_by_side = chosen.len().div_ceil(workers.count()).max(1);
        let queue = Queue::new(requests).until(stop.0);
        let ends = decoder.run_on(&workers, &queue, side_by_side, keep);
        ends.into_iter().collect::<Result<Vec<_>>>()?;
        stop.check()?;
        Ok(found.into_inner().expect("nobody panics with it in hand"))
    }
}

impl Redraw {
    /// What speaks against the records being the model's; none where they are.
    pub fn contradiction(&self) -> Option<String> {
        let most = 10 * self.same >= OF_TEN * self.drawn_again;
        let as_drawn = match self.same_arithmetic {
            true => self.same == self.drawn_again,
            false => most,
        };
        match () {
            () if self.not_drawn > 0 => Some(format!(
                "{} of {} records in {}/ stand in no journal of what was drawn",
                self.not_drawn, self.records, self.arm
            )),
            () if !as_drawn => Some(format!(
                "of {} records in {}/ that were drawn again {} came out the same",
                self.drawn_again, self.arm, self.same
            )),
            () => None,
        }
    }
}
