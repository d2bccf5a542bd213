//! The reference `dp_direct`, asked for by `evaluate.arms`: a run of its own in the dataset's ledger.
//!
//! What it leaves stays when the evaluation is done anew: it was paid for.

use super::{Pipeline, account};
use crate::assets::ModelFiles;
use crate::config::ExtraArm;
use crate::documents;
use crate::evaluation::direct::{Bound, Direct, Softmax};
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::metrics::Confusion;
use crate::evaluation::{Example, Reference, ReferenceName};
use crate::files::write_atomically;
use crate::privacy::{Guarantee, PlanRequest, PrivacyPlan, RunRecord, find_ledger};
use crate::records::{LabelSpace, Record, Units};
use crate::run::Preparation;
use crate::run::plan_request;
use crate::run::{stamp, table, trained_on};
use crate::training::checkpoint::Checkpoint;
use crate::{Error, Result};

/// Version of what is trained here; raised when its meaning changes.
const DIRECT: u32 = 1;

/// Tests the classifier that [`train`] left.
///
/// # Errors
/// Usage: there is none yet.
pub fn test(p: &Pipeline, sentences: &SentenceEncoder, test: &[Example], num_labels: usize) -> Result<Reference> {
    let path = p.folder.direct("privacy.json");
    if !path.exists() {
        return Err(Error::usage("dp_direct is not trained yet").hint("`dpsynth references` trains it"));
    }
    let guarantee: Guarantee = documents::read(&path)?;
    let model = saved(p, sentences, num_labels)?;
    let model = model.ok_or_else(|| Error::data("dp_direct has a guarantee and no classifier beside it"))?;
    let model = Softmax::of(sentences.width(), model.values);
    let task = p
        .progress
        .begin("test of dp_direct", test.len() as u64, crate::progress::Unit::Records);
    let vectors = sentences.embed(test.iter().map(|e| e.text.as_str()), &mut |texts| {
        task.set(texts as u64, "");
        p.check_stop("testing dp_direct")
    })?;
    let predicted: Vec<usize> = vectors.iter().map(|v| model.predict(v)).collect();
    let confusion = Confusion::new(test.iter().map(|e| e.label), &predicted, num_labels);
    Ok(Reference {
        name: ReferenceName::DpDirect,
        what: "softmax regression on frozen sentence vectors, trained privately on the real records".into(),
        test_records: test.len(),
        accuracy: confusion.accuracy(),
        macro_f1: confusion.macro_f1(),
        confusion: confusion.rows(),
        privacy: Some(guarantee),
    })
}

/// The classifier as far as it is trained.
fn saved(p: &Pipeline, sentences: &SentenceEncoder, num_labels: usize) -> Result<Option<Checkpoint>> {
    let checkpoint = p.folder.direct("checkpoint.safetensors");
    let len = Softmax::len(num_labels, sentences.width());
    checkpoint
        .exists()
        .then(|| Checkpoint::load(&checkpoint, len, 0.0))
        .transpose()
}

/// Trains the classifier, unless it is trained.
///
/// # Errors
/// Budget: the dataset's total epsilon does not allow a second run (P8). Usage: it was trained with other settings.
pub fn train(p: &Pipeline, encoder: &ModelFiles, sentences: &SentenceEncoder) -> Result<()> {
    let num_labels = LabelSpace::from_config(&p.config.dataset.labels)?.len();
    let c = &p.config;
    let plan = PrivacyPlan::calibrate(&request(p))?;
    let preparation = Preparation::read(&p.folder)?;
    let settings = settings(p, encoder, &preparation.dataset_hash);
    require_same(p, &settings)?;
    let checkpoint = p.folder.direct("checkpoint.safetensors");
    let resume = saved(p, sentences, num_labels)?;
    if resume.is_some() && p.folder.direct("privacy.json").exists() {
        p.progress.note("dp_direct: trained before, kept; nothing is charged");
        return Ok(());
    }

    let (ledger, belonging) = account::open(p, &preparation, &plan)?;
    let run_id = run_id(p)?;
    if let Some(saved) = &resume
        && let Some(steps) = account::check(&ledger, &run_id, saved, &checkpoint)?
    {
        return write_guarantee(p, plan.statement(steps));
    }
    p.progress.note(&format!(
        "dp_direct spends budget of its own, besides the language model's: {}",
        plan.statement(plan.steps())
    ));
    let records = table::read_records(&p.folder.train_records())?;
    let units = units(records, c.dataset.max_records_per_unit());
    let mut run = plan.begin(ledger, &run_id, units.len())?;
    account::belong(p, &preparation, belonging)?;
    write_atomically(&p.folder.direct("settings.json"), settings.as_bytes())?;
    let training = Direct {
        units: &units,
        num_labels,
        encoder: sentences,
        bound: Bound {
            clipping: c.finetune.clipping,
            max_grad_norm: c.finetune.max_grad_norm,
        },
        learning_rate: c.evaluate.dp_direct.learning_rate,
        checkpoint: &checkpoint,
        stop: p.stop,
        progress: p.progress,
    };
    training.train(&mut run, resume)?;
    write_guarantee(p, run.statement())?;
    run.end()?;
    Ok(())
}

/// A run that is planned and not yet trained.
pub struct Planned {
    pub plan: PrivacyPlan,
    /// Its name in the ledger.
    pub run: String,
}

/// The run of `dp_direct`, where it is asked for and not trained yet.
///
/// # Errors
/// Usage: a plan that there cannot be.
pub fn planned(p: &Pipeline) -> Result<Option<Planned>> {
    if !p.config.evaluate.asks(ExtraArm::DpDirect) || p.folder.direct("privacy.json").exists() {
        return Ok(None);
    }
    Ok(Some(Planned {
        plan: PrivacyPlan::calibrate(&request(p))?,
        run: run_id(p)?,
    }))
}

/// Ends the run of `dp_direct` where it was planned and is not asked for any more: nothing was charged, and it is not
/// reserved any longer.
///
/// # Errors
/// As [`account::open`].
pub fn give_back(p: &Pipeline) -> Result<()> {
    let path = p.folder.direct("run-id");
    if p.config.evaluate.asks(ExtraArm::DpDirect) || !path.exists() {
        return Ok(());
    }
    let preparation = Preparation::read(&p.folder)?;
    let run = run_id(p)?;
    let Some((_, view)) = find_ledger(&p.places.ledgers, &preparation.ledger())? else {
        return Ok(());
    };
    let waits = |record: &RunRecord| record.run == run && !record.has_charged() && !record.ended;
    if view.runs.iter().any(waits) {
        let plan = PrivacyPlan::calibrate(&request(p))?;
        let (ledger, _) = account::open(p, &preparation, &plan)?;
        ledger.give_back(&run)?;
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    Ok(())
}

fn run_id(p: &Pipeline) -> Result<String> {
    account::run_id(&p.folder.direct("run-id"), &format!("{}-dp-direct", p.folder.name()))
}

/// The run's own epsilon, delta, unit, noise and bound, with steps and batches of `evaluate.dp_direct`.
fn request(p: &Pipeline) -> PlanRequest {
    let (c, direct) = (&p.config, &p.config.evaluate.dp_direct);
    let request = plan_request(c);
    PlanRequest {
        expected_batch_size: direct.expected_batch_size.unwrap_or(request.expected_batch_size),
        steps: direct.steps.unwrap_or(request.steps),
        beside: Vec::new(),
        ..request
    }
}

/// What the trained classifier depends on: with other settings it would be another run, and another charge.
fn settings(p: &Pipeline, encoder: &ModelFiles, dataset_hash: &str) -> String {
    let c = &p.config;
    let f = &c.finetune;
    let files: Vec<&String> = encoder.files.iter().map(|f| &f.sha256).collect();
    stamp::text(&(
        (DIRECT, dataset_hash),
        trained_on(c),
        &c.prepare,
        (f.epsilon, f.delta, f.expected_batch_size, f.steps, f.epochs),
        (f.clipping, f.max_grad_norm, f.noise, f.max_batch_size, f.seed),
        &c.evaluate.dp_direct,
        c.evaluate.encoder_max_tokens,
        files,
    ))
}

/// Refuses to train anew, and be charged again, unless the person deletes what is there.
fn require_same(p: &Pipeline, settings: &str) -> Result<()> {
    let path = p.folder.direct("settings.json");
    match std::fs::read_to_string(&path) {
        Ok(earlier) if earlier != settings => Err(Error::usage(format!(
            "dp_direct was trained with other settings in {}; to train it anew would be charged again",
            p.folder.direct("").display()
        ))
        .hint("set them back, or delete that folder; what it charged stays charged")),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("read", &path, e)),
    }
}

fn units(records: Vec<Record>, max_records: usize) -> Units<Example> {
    let unit_of: Vec<u32> = records.iter().map(|r| r.unit).collect();
    let examples = records.into_iter().map(|r| Example {
        text: r.text,
        label: r.label,
    });
    Units::of_groups(examples.collect(), &unit_of, max_records)
}

fn write_guarantee(p: &Pipeline, guarantee: Guarantee) -> Result<()> {
    let guarantee = guarantee.told(false);
    write_atomically(&p.folder.direct("privacy.json"), stamp::text(&guarantee).as_bytes())
}
