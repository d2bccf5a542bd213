//! Stage 2: private training, charged to the dataset's ledger.

use std::io::Write;

use super::warm_start::WarmStart;
use super::{Pipeline, account, checks, direct, lexicon};
use crate::files::write_atomically;
use crate::models::device;
use crate::privacy::{COPY_GATE, Guarantee, LABELS, PrivateRun, find_ledger};
use crate::records::{Drawable, LabelSpace};
use crate::run::Preparation;
use crate::run::privacy_plan;
use crate::run::tokens::StoredUnits;
use crate::run::{stamp, table};
use crate::training::checkpoint::{self, Checkpoint};
use crate::training::objective::Objective;
use crate::training::optimizer::Optimizer;
use crate::training::trainable;
use crate::training::trainer::{StepLog, Training};
use crate::{Error, Result};

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let preparation = Preparation::read(&p.folder)?;
    if p.folder.guarantee().exists() && p.folder.trained().exists() && is_own(p, &preparation)? {
        // Trained before; only the stamp was missing.
        return account::forget(&p.folder.rounds());
    }
    let units = table::units(&p.folder, c.dataset.max_records_per_unit())?;
    let (vocabulary, model) = p.language_model()?;
    let device = model.device();
    checks::computes(&model, &preparation.prompts)?;
    let objective = Objective::of(c, &preparation.prompts, &vocabulary)?;

    WarmStart {
        config: c,
        model: &model,
        vocabulary: &vocabulary,
        prompts: &preparation.prompts,
        objective: &objective,
        path: &p.folder.warm_start(),
        stop: p.stop,
        progress: p.progress,
    }
    .ensure()?;
    let initial = trainable::begun(&c.finetune, &model, &p.folder.warm_start())?;

    let encoder = lexicon::encoder(p)?;
    let plan = privacy_plan(c)?;
    let (ledger, belonging) = account::open(p, &preparation, &plan)?;
    let known = p.folder.ledger_run().exists();
    let run_id = account::run_id(&p.folder.ledger_run(), p.folder.name())?;
    p.progress.note(&format!(
        "training on {}: {}",
        device::name(&device),
        plan.statement(plan.steps())
    ));
    p.progress.note(&format!("ledger: {}", ledger.path().display()));

    let resume = match p.folder.checkpoint().exists() {
        true => {
            let len = trainable::count(&c.finetune, model.shape());
            let optimizer = Optimizer::of(&c.finetune, plan.gradient_noise_deviation(), len);
            let saved = Checkpoint::load(&p.folder.checkpoint(), optimizer)?;
            if let Some(steps) = account::check(&ledger, &run_id, &saved, &p.folder.checkpoint())? {
                // All steps are paid for and applied; only what was made of them is missing.
                let mut trained = initial;
                trained.values_mut().copy_from_slice(&saved.values);
                trained.save(&p.folder.trained())?;
                write_guarantee(p, plan.statement(steps), saved.on_gpu)?;
                return account::forget(&p.folder.rounds());
            }
            Some(saved)
        }
        false => None,
    };
    // A step that was taken on a GPU stays one, wherever the run is finished.
    let on_gpu = device::name(&device) != "cpu" || resume.as_ref().is_some_and(|saved| saved.on_gpu);
    let mut run = plan.begin(ledger, &run_id, units.units()).inspect_err(|e| {
        if !matches!(e, dpsynth_privacy::Error::System(_)) && !known {
            // Refused before it began: the run may be configured otherwise.
            let _ = std::fs::remove_file(p.folder.ledger_run());
        }
    })?;

    account::belong(p, &preparation, belonging)?;
    if run.charged_steps() == 0
        && let Some(beside) = direct::planned(p)?
    {
        // Planned before anything is charged, it was not chosen by what that gave.
        if let Err(e) = run.require_room(&beside.plan, &beside.run) {
            run.end()?;
            let _ = std::fs::remove_file(p.folder.ledger_run());
            return Err(Error::from(e).hint(
                "`dp_direct` is a second run on the same records: leave it out of `evaluate.arms`, or raise the total by `dpsynth ledger set-budget`",
            ));
        }
        let ledger = beside
            .plan
            .begin(run.into_ledger(), &beside.run, units.units())?
            .into_ledger();
        run = plan.begin(ledger, &run_id, units.units())?;
    }
    run = run.keeping_secrets_in(p.folder.rounds());
    begin_at(&mut run, initial.values(), resume.is_some())?;

    count_labels(p, &mut run, &units)?;
    lexicon::count(p, &mut run, &vocabulary, model.shape().vocabulary, encoder.as_ref())?;

    let log_path = p.folder.training_log();
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| Error::io("open", &log_path, e))?;
    let training = Training {
        model: &model,
        config: &c.finetune,
        objective: &objective,
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
    run.trained(&stamp::hash_of(&p.folder.trained())?)?;
    write_guarantee(p, run.statement(), on_gpu)?;
    account::forget(&p.folder.rounds())?;
    // What is planned for the release is charged then.
    if run.plan().planned(&COPY_GATE) == 0 {
        run.end()?;
    }
    Ok(())
}

/// Whether what was trained is what the ledger says of this run.
fn is_own(p: &Pipeline, preparation: &Preparation) -> Result<bool> {
    let Some((_, view)) = find_ledger(&p.places.ledgers, &preparation.ledger())? else {
        return Ok(true);
    };
    let id = std::fs::read_to_string(p.folder.ledger_run()).unwrap_or_default();
    let Some(record) = view.runs.into_iter().find(|record| record.run == id.trim()) else {
        return Ok(true);
    };
    let now = stamp::hash_of(&p.folder.trained())?;
    Ok(!record.holds_states || record.trained == Some(now))
}

/// Holds the values that training begins with against those that it began with before; they are public, and go into the
/// ledger before the first step.
fn begin_at(run: &mut PrivateRun, initial: &[f32], resumed: bool) -> Result<()> {
    let sha256 = checkpoint::sha256_of(initial);
    let record = run.record();
    let fresh = record
        .as_ref()
        .is_none_or(|record| record.holds_states && record.states.is_empty());
    match record {
        _ if fresh => Ok(run.state(&sha256)?),
        Some(record) if !resumed && !record.has_state(&sha256) => Err(Error::data(
            "what training began with is not there any more: the warm start or the base model was changed",
        )
        .hint("put model/warm_start.safetensors and the model back as they were")),
        _ => Ok(()),
    }
}

/// The noisy histogram of the labels, where one is planned: drawn once, kept beside what was trained.
fn count_labels(p: &Pipeline, run: &mut PrivateRun, units: &StoredUnits) -> Result<()> {
    let path = p.folder.label_counts();
    if run.plan().planned(&LABELS) == 0 {
        return Ok(());
    }
    if account::is_kept(
        run,
        &path,
        "put it back as it was, or delete it: labels are then drawn uniformly",
    )? {
        return Ok(());
    }
    if run.charged(LABELS) > 0 {
        p.progress.note(
            "the noisy label counts were paid for and lost when the run was interrupted: labels will be drawn uniformly",
        );
        return Ok(());
    }
    let counts = units.label_counts(LabelSpace::from_config(&p.config.dataset.labels)?.len())?;
    let noisy = stamp::text(&run.charge(LABELS)?.privatize(&counts));
    run.state(&stamp::sha256(noisy.as_bytes()))?;
    write_atomically(&path, noisy.as_bytes())
}

/// The guarantee, and what must be read before it: `privacy.json` and every shard say it.
fn write_guarantee(p: &Pipeline, guarantee: Guarantee, on_gpu: bool) -> Result<()> {
    let guarantee = guarantee.told(on_gpu);
    write_atomically(&p.folder.guarantee(), stamp::text(&guarantee).as_bytes())
}
