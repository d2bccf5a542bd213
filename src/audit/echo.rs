//! Canaries that echo, attacked through synthetic text alone, after Meeus et al. 2025 ("The Canary's Echo: Auditing Privacy
//! Risks of LLM-Generated Synthetic Text").
//!
//! A canary begins as held-out records do, so that drawn records may take its way, and ends in tokens that nobody expects. Some
//! are among the training records, once or several times; the private model that comes of it draws records; who reads these
//! says which canaries were in. Three readers: trigrams of the records, calibrated by those of zero-shot ones; the nearest
//! record, as a sentence encoder sees them; and the loss of an auxiliary model that was fine-tuned on the records.
//!
//! The guarantee is for one record. Repetitions show how far it is from where texts do echo: k copies may cost k times as
//! much. Nothing here bounds ε: it is for the owner's eyes (P9).

use rand::RngExt;
use rand::seq::SliceRandom;

use super::Stop;
use super::ngram::Trigrams;
use super::retrain;
use super::threshold::Sides;
use crate::Result;
use crate::config::{FinetuneConfig, RunConfig};
pub use crate::documents::{Echo, EchoAt};
use crate::evaluation::embed::SentenceEncoder;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::progress::Progress;
use crate::records::{Encoded, Vocabulary};
use crate::sampling::decode::Request;
use crate::sampling::drawn;
use crate::sampling::guide::Steering;
use crate::training::objective::Objective;
use crate::training::plain::{Passes, PlainTraining};
use crate::training::trainable::{self, Trainable};

/// How often a canary stands in the data.
const REPETITIONS: [usize; 3] = [1, 4, 16];
/// Canaries of each number of repetitions, about half of them in.
const CANARIES: usize = 32;
/// Tokens of the end that nobody expects.
const SURPRISE: usize = 24;
/// Tokens of the beginning, at most.
const BEGINNING: usize = 24;
/// Synthetic records that are drawn, at most.
const DRAWN: usize = 512;
/// That a core draws side by side.
const SIDE_BY_SIDE: usize = 32;
/// How the auxiliary model reads them.
const READING: Passes = Passes {
    epochs: 3,
    batch_size: 16,
    learning_rate: 1e-3,
    seed: 0,
};

/// What draws and what reads.
pub struct Echoing<'a> {
    pub model: &'a LanguageModel,
    pub config: &'a RunConfig,
    pub vocabulary: &'a Vocabulary,
    pub prompts: &'a [Vec<u32>],
    /// What the run's own records were steered by; a lexicon is not counted anew, and lifts none.
    pub steering: Steering,
    /// Held-out records, whose beginnings canaries have.
    pub held_out: &'a [Encoded],
    /// Zero-shot records: tokens without prompts.
    pub zero_shot: &'a [Vec<u32>],
    pub encoder: Option<&'a SentenceEncoder>,
}

/// Canaries, some of which are in.
pub struct Planted {
    canaries: Vec<Canary>,
}

struct Canary {
    record: Encoded,
    /// Where the end that nobody expects begins.
    surprise: usize,
    repetitions: usize,
    included: bool,
}

impl Planted {
    /// What goes among the training records.
    pub fn records(&self) -> impl Iterator<Item = Encoded> {
        let included = self.canaries.iter().filter(|canary| canary.included);
        included.flat_map(|canary| std::iter::repeat_n(canary.record.clone(), canary.repetitions))
    }
}

impl Echoing<'_> {
    /// Canaries, each in by a fair coin.
    pub fn plant(&self) -> Planted {
        let mut rng = rand::rng();
        let vocabulary = self.model.shape().vocabulary as u32;
        let longest = self.config.prepare.max_tokens.saturating_sub(SURPRISE);
        let mut canary = |repetitions: usize| {
            let from = &self.held_out[rng.random_range(0..self.held_out.len())];
            let own = from.tokens.len() - from.prompt;
            let surprise = from.prompt + own.min(BEGINNING).min(longest);
            let mut tokens = from.tokens[..surprise].to_vec();
            tokens.extend((0..SURPRISE).map(|_| rng.random_range(0..vocabulary)));
            tokens.truncate(from.prompt + self.config.prepare.max_tokens);
            Canary {
                record: Encoded { tokens, ..from.clone() },
                surprise,
                repetitions,
                included: rng.random(),
            }
        };
        let all = REPETITIONS.into_iter().flat_map(|times| vec![times; CANARIES]);
        Planted {
            canaries: all.map(&mut canary).collect(),
        }
    }

    /// Draws records by the model that was trained on what was planted, and reads them.
    ///
    /// # Errors
    /// As sampling's and training's; [`crate::Error::interrupted`].
    pub fn attack(
        &self,
        planted: &Planted,
        trained: &dyn Trainable,
        stop: Stop,
        progress: &dyn Progress,
    ) -> Result<Echo> {
        progress.note("drawing records by the model that was trained with canaries");
        let synthetic = self.draw(&trained.merged(self.model))?;
        stop.check()?;
        let by_trigrams = self.by_trigrams(planted, &synthetic);
        let by_losses = self.by_losses(planted, &synthetic, stop, progress)?;
        let by_similarity = self.by_similarity(planted, &synthetic, stop)?;
        let auc = |scores: &[f64], repetitions: usize| {
            let side = |included: bool| {
                let all = planted.canaries.iter().zip(scores);
                let of = all.filter(|(c, _)| c.repetitions == repetitions && c.included == included);
                of.map(|(_, score)| *score).collect()
            };
            let sides = Sides {
                members: side(true),
                others: side(false),
            };
            (sides.members.len() > 1 && sides.others.len() > 1).then(|| sides.auc())
        };
        let at = |repetitions: usize| {
            Some(EchoAt {
                repetitions,
                canaries: CANARIES,
                trigrams: auc(&by_trigrams, repetitions)?,
                auxiliary_model: auc(&by_losses, repetitions)?,
                similarity: by_similarity.as_ref().and_then(|scores| auc(scores, repetitions)),
            })
        };
        Ok(Echo {
            synthetic: synthetic.len(),
            at: REPETITIONS.into_iter().filter_map(at).collect(),
        })
    }

    /// Prompts and tokens of drawn records, labels in turn.
    fn draw(&self, model: &LanguageModel) -> Result<Vec<Encoded>> {
        let decoder = drawn::decoder(self.config, model, self.vocabulary, self.prompts, self.steering, None)?;
        let count = self.config.sample.records.min(DRAWN);
        let requests: Vec<Request> = (0..count)
            .map(|i| Request {
                id: i as u64,
                attempt: 0,
                label: i % self.prompts.len(),
            })
            .collect();
        let workers = Workers::on(&model.device());
        // Neighbours in length are drawn side by side; in which order does not matter to who reads them.
        let parts: Vec<&[Request]> = requests.chunks(count.div_ceil(workers.count()).max(1)).collect();
        let drawn = workers.map(&parts, |part| decoder.decode(part, part.len().min(SIDE_BY_SIDE)));
        let encoded = requests.iter().zip(drawn.into_iter().flatten()).map(|(request, own)| {
            let prompt = &self.prompts[request.label];
            Encoded {
                tokens: [prompt.as_slice(), &own, &[self.vocabulary.end()]].concat(),
                prompt: prompt.len(),
                label: request.label,
            }
        });
        let mut encoded: Vec<Encoded> = encoded.collect();
        encoded.shuffle(&mut rand::rng());
        Ok(encoded)
    }

    /// How much likelier the synthetic records make each canary's end than zero-shot ones do.
    fn by_trigrams(&self, planted: &Planted, synthetic: &[Encoded]) -> Vec<f64> {
        let size = self.model.shape().vocabulary;
        let read = Trigrams::new(synthetic.iter().map(|r| &r.tokens[r.prompt..]), size);
        let unread = Trigrams::new(self.zero_shot.iter().map(Vec::as_slice), size);
        let score = |canary: &Canary| {
            let end = &canary.record.tokens[canary.surprise..];
            read.mean_log_probability(end) - unread.mean_log_probability(end)
        };
        planted.canaries.iter().map(score).collect()
    }

    /// The cosine of each canary and the synthetic record that is nearest to it.
    fn by_similarity(&self, planted: &Planted, synthetic: &[Encoded], stop: Stop) -> Result<Option<Vec<f64>>> {
        let Some(encoder) = self.encoder else {
            return Ok(None);
        };
        let vectors = |records: &mut dyn Iterator<Item = &Encoded>| -> Result<Vec<Vec<f32>>> {
            let texts: Vec<String> = records
                .map(|r| drawn::text(self.vocabulary, &r.tokens[r.prompt..]))
                .collect::<Result<_>>()?;
            encoder.embed(texts.iter().map(String::as_str), &mut |_| stop.check())
        };
        let drawn = vectors(&mut synthetic.iter())?;
        let canaries = vectors(&mut planted.canaries.iter().map(|canary| &canary.record))?;
        // They are of length 1.
        let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        let nearest = |canary: &Vec<f32>| drawn.iter().map(|d| cosine(canary, d)).fold(-1.0, f64::max);
        Ok(Some(canaries.iter().map(nearest).collect()))
    }

    /// How much the loss of each canary falls where a model has read the synthetic records.
    fn by_losses(
        &self,
        planted: &Planted,
        synthetic: &[Encoded],
        stop: Stop,
        progress: &dyn Progress,
    ) -> Result<Vec<f64>> {
        let config = FinetuneConfig {
            warm_start: Default::default(),
            ..self.config.finetune.clone()
        };
        let mut reader = trainable::begun(&config, self.model, std::path::Path::new(""))?;
        let canaries: Vec<Encoded> = planted.canaries.iter().map(|canary| canary.record.clone()).collect();
        let losses = |state: &dyn Trainable| retrain::losses(self.model, &config, state, &canaries, stop, progress);
        let before = losses(reader.as_ref())?;
        let training = PlainTraining {
            model: self.model,
            config: &config,
            objective: Objective::text(),
            stop: stop.0,
            progress,
            name: "auxiliary model",
        };
        training.train(reader.as_mut(), synthetic, READING)?;
        Ok(retrain::drops(before, losses(reader.as_ref())?))
    }
}
