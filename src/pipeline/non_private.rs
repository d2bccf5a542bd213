//! The arm `non_private`, asked for by `evaluate.arms`: the same language model, trained on the same records without
//! privacy (epsilon ∞) and sampled with the same settings. NOT PRIVATE: everything stays under `internal/` (P9).

use super::Pipeline;
use super::sample::sample_arm;
use crate::files::write_atomically;
use crate::models::LanguageModel;
use crate::records::Vocabulary;
use crate::run::Preparation;
use crate::run::{NON_PRIVATE, stamp, table};
use crate::training::objective::Objective;
use crate::training::plain::{Passes, PlainTraining};
use crate::training::trainable;
use crate::{Error, Result};

/// Version of what is made here; raised when its meaning changes.
const PLAIN: u32 = 1;

const MARK: &str = "NOT PRIVATE: the model in this folder was trained without privacy on private records, and its samples \
                    may repeat them. Nothing of it may be released.\n";

/// Makes the arm's records, unless they are there.
///
/// # Errors
/// [`Error::interrupted`]; a full disk.
pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let (settings, folder) = (stamp::text(&(PLAIN, &c.evaluate.non_private)), p.folder.non_private(""));
    let path = p.folder.non_private("settings.json");
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&settings) {
        // Made with other settings, or not made: it costs no budget to make it anew.
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &folder, e)),
            _ => {}
        }
        write_atomically(&p.folder.non_private("NOT_PRIVATE.txt"), MARK.as_bytes())?;
        write_atomically(&path, settings.as_bytes())?;
    }
    if p.folder.shards(NON_PRIVATE).exists() {
        return Ok(());
    }
    let (vocabulary, base) = p.language_model()?;
    let weights = p.folder.non_private("NOT_PRIVATE-trained.safetensors");
    if !weights.exists() {
        train(p, &base, &vocabulary)?.save(&weights)?;
    }
    let tuned = trainable::load(&c.finetune, &base, &weights)?.merged(&base);
    drop(base);
    let metadata = vec![
        (
            "dp.mechanism".to_string(),
            "NOT PRIVATE: trained without privacy".to_string(),
        ),
        ("dp.private".to_string(), "false".to_string()),
    ];
    sample_arm(p, NON_PRIVATE, &tuned, &vocabulary, c.sample.records, metadata)
}

fn train(p: &Pipeline, base: &LanguageModel, vocabulary: &Vocabulary) -> Result<Box<dyn trainable::Trainable>> {
    let c = &p.config;
    let plain = &c.evaluate.non_private;
    let units = table::units(&p.folder, c.dataset.max_records_per_unit())?.load()?;
    let mut trained = trainable::begun(&c.finetune, base, &p.folder.warm_start())?;
    let training = PlainTraining {
        model: base,
        config: &c.finetune,
        objective: Objective::of(c, &Preparation::read(&p.folder)?.prompts, vocabulary)?,
        stop: p.stop,
        progress: p.progress,
        name: "training without privacy (non_private)",
    };
    let passes = Passes {
        epochs: plain.epochs,
        batch_size: plain.batch_size,
        learning_rate: plain.learning_rate,
        seed: 0,
    };
    training.train(trained.as_mut(), units.all(), passes)?;
    Ok(trained)
}
