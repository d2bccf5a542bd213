//! Stage 2: private training, charged to the dataset's ledger.

use std::io::Write;

use rand::RngExt;

use super::files::write_atomically;
use super::prepare::Preparation;
use super::report::privacy_plan;
use super::warm_start::{self, WarmStart};
use super::{Pipeline, stamp, table};
use crate::models::device;
use crate::models::llama::Llama;
use crate::models::load::gguf::Gguf;
use crate::privacy::{Ledger, PrivacyStatement, PrivateRun};
use crate::records::{LabelSpace, Units, Vocabulary};
use crate::training::checkpoint::Checkpoint;
use crate::training::trainable;
use crate::training::trainer::{StepLog, Training};
use crate::{Error, Result, assets};

pub fn run(p: &Pipeline) -> Result<()> {
    if p.folder.guarantee().exists() && p.folder.trained().exists() {
        // Trained before; only the stamp was missing.
        return Ok(());
    }
    let c = &p.config;
    let preparation = Preparation::read(&p.folder)?;
    let units = table::read_units(&p.folder.train_records(), c.dataset.max_records_per_unit())?;
    let device = device::choose(c.device)?;
    let model = assets::language_model(&c.model, &p.places.assets, p.progress)?;
    let gguf = Gguf::open(&model.with_extension("gguf")?.path)?;
    let model = Llama::from_gguf(&gguf, &device)?;

    WarmStart {
        config: c,
        model: &model,
        vocabulary: &Vocabulary::from_gguf(&gguf)?,
        prompts: &preparation.prompts,
        path: &p.folder.warm_start(),
        stop: p.stop,
        progress: p.progress,
    }
    .ensure()?;
    let initial = warm_start::initial(&c.finetune, &model, &p.folder.warm_start())?;

    let plan = privacy_plan(c)?;
    let run_id = run_id(p)?;
    let total = c.dataset.total_epsilon.unwrap_or(c.finetune.epsilon);
    let ledger = Ledger::open(
        &p.places.ledgers,
        &preparation.dataset_hash,
        total,
        plan.delta(),
        plan.unit(),
    )?;
    p.progress.note(&format!(
        "training on {}: {}",
        device::name(&device),
        plan.statement(plan.steps())
    ));
    p.progress.note(&format!("ledger: {}", ledger.path().display()));

    let resume = match p.folder.checkpoint().exists() {
        true => {
            let len = trainable::count(&c.finetune, model.config());
            let saved = Checkpoint::load(&p.folder.checkpoint(), len, c.finetune.weight_decay as f32)?;
            // P7: a ledger that has forgotten what this state was paid with was rolled back.
            ledger.require_head(&saved.ledger)?;
            Some(saved)
        }
        false => None,
    };
    let view = ledger.view();
    let charged = view.runs.iter().find(|r| r.run == run_id);
    if let Some(saved) = &resume {
        if saved.applied_steps > charged.map_or(0, |r| r.charged_steps) {
            // P7: the state would carry steps that the guarantee does not count.
            return Err(Error::data(format!(
                "{} has more steps applied than this run has charged: it is another run's",
                p.folder.checkpoint().display()
            ))
            .hint("delete the run's folder to begin anew; what it charged stays charged"));
        }
        if let Some(ended) = charged.filter(|r| r.ended) {
            // All steps are paid for and applied; only what was made of them is missing.
            let mut trained = initial;
            trained.values_mut().copy_from_slice(&saved.values);
            trained.save(&p.folder.trained())?;
            return write_guarantee(p, &plan.statement(ended.charged_steps), device::name(&device));
        }
    }
    let mut run = plan.begin(ledger, &run_id, units.len())?;

    count_labels(p, &mut run, &units)?;

    let log_path = p.folder.training_log();
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| Error::io("open", &log_path, e))?;
    let training = Training {
        model: &model,
        config: &c.finetune,
        prompts: &preparation.prompts,
        checkpoint: &p.folder.checkpoint(),
        stop: p.stop,
        progress: p.progress,
    };
    let (trained, applied) = training.train(initial, &mut run, &units, resume, |step: &StepLog| {
        writeln!(log, "{}", stamp::text(step)).map_err(|e| Error::io("write", &log_path, e))
    })?;
    if applied < run.charged_steps() {
        p.progress.note(&format!(
            "{} of {} charged steps were lost to interruptions; they stay charged",
            run.charged_steps() - applied,
            run.charged_steps()
        ));
    }
    trained.save(&p.folder.trained())?;
    write_guarantee(p, &run.statement(), device::name(&device))?;
    run.end()?;
    Ok(())
}

/// The noisy histogram of the labels, where one is planned: drawn once, kept beside what was trained.
fn count_labels(p: &Pipeline, run: &mut PrivateRun, units: &Units) -> Result<()> {
    let path = p.folder.label_counts();
    if run.plan().label_histogram_epsilon().is_none() || path.exists() {
        return Ok(());
    }
    if run.charged_histogram() {
        p.progress.note(
            "the noisy label counts were paid for and lost when the run was interrupted: labels will be drawn uniformly",
        );
        return Ok(());
    }
    let mut counts = vec![0; LabelSpace::from_config(&p.config.dataset.labels)?.len()];
    let records = (0..units.len()).flat_map(|unit| units.records(unit));
    records.for_each(|record| counts[record.label] += 1);
    let noisy = run.noisy_histogram(&counts)?;
    write_atomically(&path, stamp::text(&noisy).as_bytes())
}

/// The guarantee, and what must be read before it: `privacy.json` and every shard say it.
fn write_guarantee(p: &Pipeline, statement: &PrivacyStatement, device: &str) -> Result<()> {
    let mut guarantee = serde_json::Map::new();
    if !statement.private {
        guarantee.insert(
            "caveat".into(),
            "NOT PRIVATE: the randomness came from a fixed seed".into(),
        );
    } else if device != "cpu" {
        guarantee.insert(
            "caveat".into(),
            "trained on a GPU, where the allowance for floating-point error is not tested yet".into(),
        );
    }
    if let serde_json::Value::Object(fields) = serde_json::to_value(statement).expect("a statement serialises") {
        guarantee.extend(fields);
    }
    write_atomically(&p.folder.guarantee(), stamp::text(&guarantee).as_bytes())
}

/// The run's name in the ledger: drawn once, kept in the folder. A folder that is deleted and made anew is another run.
fn run_id(p: &Pipeline) -> Result<String> {
    let path = p.folder.ledger_run();
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_string());
    }
    let id = format!("{}-{:016x}", p.folder.name(), rand::rng().random::<u64>());
    write_atomically(&path, id.as_bytes())?;
    Ok(id)
}
