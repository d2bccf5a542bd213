//! The last stage: the same classifiers on real, synthetic and zero-shot records, all tested on the real held-out ones.

use std::sync::atomic::Ordering;

use super::journal::Journal;
use super::{Pipeline, direct, posterior, quality};
use crate::config::{ExtraArm, Task};
use crate::evaluation::encoder::EncoderFiles;
use crate::evaluation::quality::Sides;
use crate::evaluation::{Arm, ArmName, Comparison, Example, Finished, Utility, tstr};
use crate::files::write_atomically;
use crate::models::device;
use crate::records::{LabelSpace, Record};
use crate::run::{NON_PRIVATE, stamp, table};
use crate::{Result, assets};

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    if c.task == Task::Classify {
        let test = examples(table::read_records(&p.folder.test_records())?);
        let utility = Utility {
            references: vec![direct::test(p, &test)?],
            ..Utility::default()
        };
        return write_atomically(&p.folder.utility(), stamp::text(&utility).as_bytes());
    }
    let real = examples(table::read_records(&p.folder.train_records())?);
    let test = examples(table::read_records(&p.folder.test_records())?);
    let synthetic = sampled(p, "synthetic")?;
    let zero_shot = sampled(p, "zero_shot")?;
    let asked = |arm: ExtraArm| c.evaluate.asks(arm);
    let device = device::choose(c.device)?;
    let model = match c.evaluate.encoder.is_on() {
        true => Some(assets::encoder(
            &c.evaluate.encoder_name(),
            &p.places.assets,
            p.progress,
        )?),
        false => None,
    };
    let encoder = model.as_ref().map(EncoderFiles::of).transpose()?;
    let tested = &test[..c.evaluate.encoder_test_records.unwrap_or(usize::MAX).min(test.len())];
    let mut references = Vec::new();
    if asked(ExtraArm::DpDirect) {
        references.push(direct::test(p, tested)?);
    }
    if asked(ExtraArm::ModelPosterior) {
        references.extend(posterior::run(p, labels.len())?);
    }
    let non_private = match asked(ExtraArm::NonPrivate) {
        true => Some(sampled(p, NON_PRIVATE)?),
        false => None,
    };
    let mut arms = vec![
        (ArmName::Real, &real),
        (ArmName::Synthetic, &synthetic),
        (ArmName::ZeroShot, &zero_shot),
    ];
    arms.extend(non_private.iter().map(|examples| (ArmName::NonPrivate, examples)));
    let arms: Vec<Arm> = arms
        .into_iter()
        .map(|(name, examples)| Arm { name, examples })
        .collect();
    let mut journal: Journal<Finished> = Journal::open(&p.folder.scores())?;
    let finished = journal.lines().to_vec();
    let mut done = |fit: &Finished| {
        journal.add(fit.clone())?;
        journal.sync()
    };
    let stop = || p.stop.load(Ordering::Relaxed);
    let comparison = Comparison {
        arms: &arms,
        test: &test,
        num_labels: labels.len(),
        config: &c.evaluate,
        encoder: encoder.as_ref(),
        device: &device,
    };
    let utility = Utility {
        references,
        ..tstr(&comparison, &finished, &mut done, &stop, p.progress)?
    };
    write_atomically(&p.folder.utility(), stamp::text(&utility).as_bytes())?;
    let sides = Sides {
        training: real.as_slice(),
        held_out: &test,
        synthetic: &synthetic,
        zero_shot: &zero_shot,
    };
    let set_apart = match p.folder.audit_records().exists() {
        true => examples(table::read_records(&p.folder.audit_records())?),
        false => Vec::new(),
    };
    quality::run(p, sides, &set_apart, labels.len(), encoder.as_ref(), &device)
}

fn examples(records: Vec<Record>) -> Vec<Example> {
    records
        .into_iter()
        .map(|r| Example {
            text: r.text,
            label: r.label,
        })
        .collect()
}

/// The records of an arm.
fn sampled(p: &Pipeline, arm: &str) -> Result<Vec<Example>> {
    Ok(examples(table::read_shards(&p.folder.shards(arm), &p.config)?))
}
