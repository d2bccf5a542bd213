//! Where private training begins: at the public initial values, or at a model that has learned from its own guided samples.
//!
//! The warm start reads the model and the prompts, both public, and no private record: it is free of privacy cost.

use crate::config::RunConfig;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::progress::{Progress, Unit};
use crate::records::{Encoded, Vocabulary};
use crate::sampling::choose::Choice;
use crate::sampling::decode::{Decoder, Decoding, Request};
use crate::sampling::prior;
use crate::sampling::queue::Queue;
use crate::training::gradients::Trainee;
use crate::training::objective::Objective;
use crate::training::plain::{Passes, PlainTraining};
use crate::training::trainable::{self, Trainable};
use crate::{Error, Result};

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Samples on which it is checked whether the warm start diverged.
const CHECKED: usize = 64;

/// What the warm start reads and where it keeps what it made.
pub struct WarmStart<'a> {
    pub config: &'a RunConfig,
    pub model: &'a LanguageModel,
    pub vocabulary: &'a Vocabulary,
    /// Each label's, in tokens.
    pub prompts: &'a [Vec<u32>],
    pub objective: &'a Objective,
    pub path: &'a Path,
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl WarmStart<'_> {
    /// Makes the warm start, if one is configured and not made yet: the same for everyone on the same kind of device.
    ///
    /// # Errors
    /// [`crate::Error::interrupted`]; a full disk.
    pub fn ensure(&self) -> Result<()> {
        let c = &self.config.finetune;
        if c.warm_start.records == 0 || self.path.exists() {
            return Ok(());
        }
        let records = self.samples()?;
        let mut trained = trainable::initial(c, self.model);
        let training = PlainTraining {
            model: self.model,
            config: c,
            objective: self.objective.clone(),
            stop: self.stop,
            progress: self.progress,
            name: "warm start",
        };
        let passes = Passes {
            epochs: c.warm_start.epochs,
            batch_size: c.warm_start.batch_size,
            learning_rate: c.warm_start.learning_rate,
            seed: 0,
        };
        let losses = training.train(trained.as_mut(), &records, passes)?;
        self.check(trained.as_ref(), &records, losses[0])?;
        trained.save(self.path)
    }

    /// Refuses a model that its own samples taught to write worse, before a step is paid for from there.
    fn check(&self, trained: &dyn Trainable, records: &[Encoded], before: f64) -> Result<()> {
        let (trainee, workers) = (Trainee::new(self.model), Workers::on(&self.model.device()));
        let placed = trainee.place(trained);
        let records: Vec<&Encoded> = records.iter().take(CHECKED).collect();
        let chunks: Vec<&[&Encoded]> = records.chunks(self.config.finetune.micro_batch_size).collect();
        let losses = workers.map(&chunks, |chunk| trainee.losses(&placed, chunk)).concat();
        let after = losses.iter().sum::<f64>() / losses.len() as f64;
        if after < before + 1.0 {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the warm start diverged: its loss went from {before:.2} to {after:.2} a token"
        ))
        .hint("a smaller finetune.warm_start.learning_rate, or finetune.objective.mismatch = 0"))
    }

    /// Records by the guided model as it came, of labels by the public prior.
    fn samples(&self) -> Result<Vec<Encoded>> {
        let warm_start = &self.config.finetune.warm_start;
        let settings = Decoding {
            choice: Choice {
                guidance: warm_start.guidance,
                ..Choice::PLAIN
            },
            guidance_end: None,
            contrasts: self.config.sample.guidance_labels,
            max_tokens: self.config.prepare.max_tokens,
            end: self.vocabulary.end(),
            seed: 0,
        };
        let decoder = Decoder::new(self.model, self.prompts, settings)?;
        let workers = Workers::on(&self.model.device());
        let prior = &self.config.sample.label_prior;
        let wanted = prior::labels(&prior::counts(prior, None, self.prompts.len(), warm_start.records)?);
        let queue = Queue::new((0..).zip(wanted).map(|(id, label)| Request { id, attempt: 0, label })).until(self.stop);
        let task = self
            .progress
            .begin("samples for the warm start", warm_start.records as u64, Unit::Records);
        let drawn: Mutex<(_, Vec<(u64, Encoded)>)> = Mutex::new((task, Vec::new()));
        let keep = |request: Request, own: Vec<u32>| {
            let prompt = &self.prompts[request.label];
            let record = Encoded {
                tokens: [prompt.as_slice(), &settings.ended(own)].concat(),
                prompt: prompt.len(),
                label: request.label,
            };
            let (task, drawn) = &mut *drawn.lock().expect("nobody panics with the records in hand");
            drawn.push((request.id, record));
            task.set(drawn.len() as u64, "");
            Ok(None)
        };
        for end in decoder.run_on(&workers, &queue, self.config.sample.batch_size, keep) {
            end?;
        }
        let (_, mut drawn) = drawn.into_inner().expect("nobody panics with the records in hand");
        if drawn.len() < warm_start.records {
            return Err(Error::interrupted("stopped in the warm start").hint("the same command begins it anew"));
        }
        drawn.sort_by_key(|(id, _)| *id);
        Ok(drawn.into_iter().map(|(_, record)| record).collect())
    }
}
