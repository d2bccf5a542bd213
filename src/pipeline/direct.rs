//! The reference `dp_direct`, asked for by `evaluate.arms`: a run of its own in the dataset's ledger.
//!
//! What it leaves stays when the evaluation is done anew: it was paid for.

use std::collections::HashSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Pipeline, account};

use crate::assets::{self, ModelFiles};
use crate::config::{
    Batching, DatasetConfig, DirectMethod, DpDirectConfig, ExtraArm, HeldOut, ReferenceValues, RunConfig, Task, Update,
};
use crate::documents;
use crate::evaluation::direct::encoder::DirectEncoder;
use crate::evaluation::direct::features::Features;
use crate::evaluation::direct::layers;
use crate::evaluation::direct::{self, Learner, Training};
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::evaluation::metrics::Confusion;
use crate::evaluation::{Example, Reference, ReferenceName};
use crate::files::write_atomically;
use crate::models::bert::BertConfig;
use crate::models::bert::classifier::{Layers, Trained};
use crate::models::device;
use crate::privacy::{Guarantee, PrivacyPlan, RunRecord, find_ledger};
use crate::records::{LabelSpace, Record, TextHash, Units, read, text_hash};
use crate::run::Preparation;
use crate::run::direct_request;
use crate::run::{stamp, table, trained_on};
use crate::training::checkpoint::Checkpoint;
use crate::training::clip::Clip;
use crate::training::optimizer::Optimizer;
use crate::training::ways::normal_equations::NormalEquations;
use crate::training::ways::toward::Toward;
use crate::training::ways::{self, Public, Way};
use crate::{Error, Result, document};

/// Version of what is trained here; raised when its meaning changes.
const DIRECT: u32 = 1;

/// Public records that are looked at, at most.
const PUBLIC: usize = 1000;

/// An encoder, and what of it is trained for so many labels.
pub struct Subject {
    model: ModelFiles,
    pub learner: Box<dyn Learner>,
    /// Values that are trained.
    len: usize,
    num_labels: usize,
    /// Layers that have a prefix, where they were chosen.
    prefixes: Option<Vec<usize>>,
}

impl Subject {
    fn open(p: &Pipeline) -> Result<Self> {
        let (e, direct) = (&p.config.evaluate, &p.config.evaluate.dp_direct);
        let num_labels = LabelSpace::from_config(&p.config.dataset.labels)?.len();
        let model = assets::encoder(&e.direct_encoder(), &p.places.assets, p.progress)?;
        let (files, device) = (EncoderFiles::of(&model)?, device::choose(p.config.device)?);
        let mut prefixes = None;
        let learner: Box<dyn Learner> = match trained(direct) {
            None => {
                let sentences = SentenceEncoder::open(&files, e.encoder_max_tokens, &device)?;
                Box::new(Features::new(sentences, num_labels))
            }
            Some(trained) => {
                let open = |trained| DirectEncoder::open(&files, e.encoder_max_tokens, num_labels, trained, &device);
                let encoder = match (trained, direct.prefix_layers) {
                    (Trained::Prefix { tokens, .. }, Some(wanted)) => {
                        let prefixed = |layers| open(Trained::Prefix { tokens, layers });
                        let chosen = prefix_layers(p, &files, wanted, prefixed)?;
                        let encoder = prefixed(Layers::of(chosen.iter().copied()))?;
                        prefixes = Some(chosen);
                        encoder
                    }
                    (trained, _) => open(trained)?,
                };
                Box::new(encoder)
            }
        };
        Ok(Subject {
            model,
            len: learner.initial().len(),
            learner,
            num_labels,
            prefixes,
        })
    }

    /// An optimizer before its first step, for gradients whose noise has `noise_deviation` in each coordinate.
    fn optimizer(&self, c: &RunConfig, noise_deviation: f64) -> Optimizer {
        Optimizer::of(&c.finetune, noise_deviation, self.len)
    }

    /// The classifier as far as it is trained, with an `optimizer` that goes on from there.
    fn saved(&self, p: &Pipeline, optimizer: Optimizer) -> Result<Option<Checkpoint>> {
        let checkpoint = p.folder.direct("checkpoint.safetensors");
        let load = || Checkpoint::load(&checkpoint, optimizer);
        checkpoint.exists().then(load).transpose()
    }

    /// How steps are taken, with `public` records where that takes some.
    fn way<'a>(&'a self, c: &RunConfig, plan: &PrivacyPlan, public: &'a [Example]) -> Box<dyn Way + 'a> {
        let (len, clip) = (self.len, Clip::of(&c.finetune));
        let settings = &c.evaluate.dp_direct;
        let learner = self.learner.as_ref();
        let way: Box<dyn Way> = match settings.update {
            Update::NormalEquations {} => {
                let (labels, deviation) = (self.num_labels, plan.gradient_noise_deviation());
                Box::new(NormalEquations::new(labels, len / labels, clip, deviation))
            }
            update => {
                // No more than there are directions for.
                let some = &public[..public.len().min(update.directions())];
                let gradients: Public = Box::new(|values| direct::public(learner, some, values));
                ways::of(update, len, clip, gradients)
            }
        };
        match settings.toward {
            None => way,
            Some(toward) => {
                let reference = match toward.reference {
                    ReferenceValues::Initial => learner.initial(),
                    ReferenceValues::Public => direct::trained_on(learner, public, settings.learning_rate()),
                };
                Box::new(Toward::new(way, reference, toward.strength))
            }
        }
    }
}

document! {
    /// The layers that get a prefix.
    #[derive(Debug)]
    pub struct PrefixLayers {
        /// From 0.
        public layers: Vec<usize>,
    }
}

/// The layers that get a prefix: chosen on public records before training begins, and kept for whoever goes on from it.
///
/// # Errors
/// Usage: more are wanted than there are; training began with others. As [`public`] and [`layers::choose`].
fn prefix_layers(
    p: &Pipeline,
    files: &EncoderFiles,
    wanted: usize,
    open: impl Fn(Layers) -> Result<DirectEncoder>,
) -> Result<Vec<usize>> {
    let all = BertConfig::read(&files.config)?.num_hidden_layers;
    if wanted > all {
        return Err(Error::usage(format!(
            "`evaluate.dp_direct.prefix_layers` is {wanted}, and the encoder has {all} layers"
        ))
        .hint("half of them or fewer is usual"));
    }
    let path = p.folder.direct("layers.json");
    // Training has begun: its values are of these layers. That they are the ones is held by its settings.
    if p.folder.direct("settings.json").exists() {
        let kept = path
            .exists()
            .then(|| documents::read::<PrefixLayers>(&path))
            .transpose()?;
        return match kept.map(|kept| kept.layers) {
            Some(layers) if layers.len() == wanted && layers.iter().all(|layer| *layer < all) => Ok(layers),
            _ => Err(with_other_settings(p)),
        };
    }
    let rate = p.config.evaluate.dp_direct.learning_rate();
    let chosen = layers::choose(wanted, all, &public(p)?, rate, open, &|| {
        p.check_stop("choosing layers by public records")
    })?;
    p.progress.note(&format!(
        "dp_direct: prefixes in layers {chosen:?} of {all}, by public records"
    ));
    let kept = PrefixLayers { layers: chosen };
    write_atomically(&path, stamp::text(&kept).as_bytes())?;
    Ok(kept.layers)
}

/// What of the encoder is trained; none: nothing, its vectors are features.
fn trained(direct: &DpDirectConfig) -> Option<Trained> {
    Some(match direct.method {
        DirectMethod::Features => return None,
        DirectMethod::Lora => Trained::Lora {
            rank: direct.rank(),
            alpha: direct.alpha(),
        },
        DirectMethod::LoraFa => Trained::LoraFa {
            rank: direct.rank(),
            alpha: direct.alpha(),
        },
        DirectMethod::Ia3 => Trained::Ia3,
        DirectMethod::Full => Trained::Full,
        DirectMethod::Bitfit => Trained::BitFit,
        DirectMethod::LastLayer => Trained::LastLayer,
        DirectMethod::Prefix => Trained::Prefix {
            tokens: direct.prefix_tokens(),
            layers: Layers::ALL,
        },
    })
}

/// What is trained, for people.
fn what(method: DirectMethod) -> String {
    let trained = match method {
        DirectMethod::Features => {
            return "softmax regression on frozen sentence vectors, trained privately on the real records".into();
        }
        DirectMethod::Lora => "factors of low rank beside an encoder's maps",
        DirectMethod::LoraFa => "the second factors of low rank beside an encoder's maps",
        DirectMethod::Ia3 => "factors of an encoder's keys, values and inner activations",
        DirectMethod::Full => "all weights of an encoder",
        DirectMethod::Bitfit => "an encoder's biases",
        DirectMethod::LastLayer => "a head of two layers on a frozen encoder",
        DirectMethod::Prefix => "keys and values before an encoder's own",
    };
    format!("{trained}, trained privately on the real records")
}

/// The classifier that [`train`] left: its values, and its guarantee.
///
/// # Errors
/// Usage: there is none yet, or it was trained with other settings.
pub fn trained_subject(p: &Pipeline) -> Result<(Subject, Vec<f32>, Guarantee)> {
    let path = p.folder.direct("privacy.json");
    if !path.exists() {
        let hint = match p.config.evaluate.asks(ExtraArm::DpDirect) {
            true => "`dpsynth run` with the same configuration trains it, or goes on with it",
            false => "a run has one where `task` is \"classify\", or where `evaluate.arms` has \"dp_direct\"",
        };
        return Err(Error::usage(format!("the run {} has no trained classifier", p.folder.name())).hint(hint));
    }
    let guarantee: Guarantee = documents::read(&path)?;
    let subject = Subject::open(p)?;
    // The encoder's files among them: another one's score would stand beside this guarantee.
    require_same(p, &settings(p, &subject, &Preparation::read(&p.folder)?.dataset_hash))?;
    // It takes no more steps.
    let model = subject.saved(p, subject.optimizer(&p.config, 0.0))?;
    let model = model.ok_or_else(|| Error::data("dp_direct has a guarantee and no classifier beside it"))?;
    Ok((subject, model.values, guarantee))
}

/// Tests the classifier that [`train`] left.
///
/// # Errors
/// As [`trained_subject`].
pub fn test(p: &Pipeline, test: &[Example]) -> Result<Reference> {
    let (subject, values, guarantee) = trained_subject(p)?;
    let task = p
        .progress
        .begin("test of dp_direct", test.len() as u64, crate::progress::Unit::Records);
    let predicted = subject.learner.predict(&values, test, &mut |texts| {
        task.set(texts as u64, "");
        p.check_stop("testing dp_direct")
    })?;
    let confusion = Confusion::new(test.iter().map(|e| e.label), &predicted, subject.num_labels);
    Ok(Reference {
        name: ReferenceName::DpDirect,
        what: what(p.config.evaluate.dp_direct.method),
        test_records: test.len(),
        accuracy: confusion.accuracy(),
        macro_f1: confusion.macro_f1(),
        confusion: confusion.rows(),
        privacy: Some(guarantee),
    })
}

/// Trains the classifier, unless it is trained.
///
/// # Errors
/// Budget: the dataset's total epsilon does not allow a second run (P8). Usage: it was trained with other settings.
pub fn train(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let subject = Subject::open(p)?;
    let plan = PrivacyPlan::calibrate(&direct_request(&p.config))?;
    let preparation = Preparation::read(&p.folder)?;
    let settings = settings(p, &subject, &preparation.dataset_hash);
    require_same(p, &settings)?;
    let checkpoint = p.folder.direct("checkpoint.safetensors");
    let rounds = p.folder.direct("round.json");
    let optimizer = subject.optimizer(c, plan.gradient_noise_deviation());
    let resume = subject.saved(p, optimizer.clone())?;
    if resume.is_some() && p.folder.direct("privacy.json").exists() {
        p.progress.note("dp_direct: trained before, kept; nothing is charged");
        return account::forget(&rounds);
    }

    let (ledger, belonging) = account::open(p, &preparation, &plan)?;
    let run_id = run_id(p)?;
    if let Some(saved) = &resume
        && let Some(steps) = account::check(&ledger, &run_id, saved, &checkpoint)?
    {
        write_guarantee(p, plan.statement(steps), saved.on_gpu)?;
        return account::forget(&rounds);
    }
    let spends = match c.task {
        Task::Synthesise => "dp_direct spends budget of its own, besides the language model's",
        Task::Classify => "training a classifier",
    };
    p.progress.note(&format!("{spends}: {}", plan.statement(plan.steps())));
    let records = table::read_records(&p.folder.train_records())?;
    let units = units(records, c.dataset.max_records_per_unit());
    let on_gpu = subject.learner.computes_elsewhere() || resume.as_ref().is_some_and(|saved| saved.on_gpu);
    let public = public(p)?;
    let mut run = plan
        .begin(ledger, &run_id, units.len())?
        .keeping_secrets_in(rounds.clone());
    account::belong(p, &preparation, belonging)?;
    write_atomically(&p.folder.direct("settings.json"), settings.as_bytes())?;
    let training = Training {
        units: &units,
        learning_rate: c.evaluate.dp_direct.learning_rate(),
        checkpoint: &checkpoint,
        checkpoint_every: match c.evaluate.dp_direct.method {
            // A step takes seconds, and so does a checkpoint.
            DirectMethod::Features => 1,
            _ => c.finetune.checkpoint_every,
        },
        stop: p.stop,
        progress: p.progress,
    };
    training.train(
        subject.learner.as_ref(),
        subject.way(c, &plan, &public),
        optimizer,
        &mut run,
        resume,
    )?;
    write_guarantee(p, run.statement(), on_gpu)?;
    account::forget(&rounds)?;
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
        plan: PrivacyPlan::calibrate(&direct_request(&p.config))?,
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
        let plan = PrivacyPlan::calibrate(&direct_request(&p.config))?;
        let (ledger, _) = account::open(p, &preparation, &plan)?;
        ledger.give_back(&run)?;
        std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    Ok(())
}

fn run_id(p: &Pipeline) -> Result<String> {
    account::run_id(&p.folder.direct("run-id"), &format!("{}-dp-direct", p.folder.name()))
}

/// What the trained classifier depends on: with other settings it would be another run, and another charge.
fn settings(p: &Pipeline, subject: &Subject, dataset_hash: &str) -> String {
    let c = &p.config;
    let f = &c.finetune;
    let files: Vec<&String> = subject.model.files.iter().map(|f| &f.sha256).collect();
    let settings = stamp::text(&(
        (DIRECT, dataset_hash),
        trained_on(c),
        &c.prepare,
        (f.epsilon, f.delta, f.expected_batch_size, f.steps, f.epochs),
        (f.clipping, f.max_grad_norm, f.noise, f.max_batch_size, f.seed),
        c.evaluate.dp_direct.resolved(),
        c.evaluate.encoder_max_tokens,
        files,
    ));
    // What came later, left out where it has the value that it had before.
    let later = (
        f.optimizer,
        f.momentum,
        f.weight_decay,
        f.clipping_regularizer,
        f.sampler,
    );
    let mut settings = match later == (Default::default(), 0.0, 0.0, None, Batching::Poisson) {
        true => settings,
        false => settings + &stamp::text(&later),
    };
    settings.extend(f.bands.map(|bands| stamp::text(&bands)));
    match &subject.prefixes {
        None => settings,
        Some(layers) => settings + &stamp::text(layers),
    }
}

fn with_other_settings(p: &Pipeline) -> Error {
    Error::usage(format!(
        "dp_direct was trained with other settings, records or another encoder in {}; to train it anew would be charged again",
        p.folder.direct("").display()
    ))
    .hint("set them back, or delete that folder; what it charged stays charged")
}

/// Refuses to train anew, and be charged again, unless the person deletes what is there.
fn require_same(p: &Pipeline, settings: &str) -> Result<()> {
    let path = p.folder.direct("settings.json");
    match std::fs::read_to_string(&path) {
        Ok(earlier) if earlier != settings => Err(with_other_settings(p)),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("read", &path, e)),
    }
}

/// The public records that steps are taken by; none where they are taken without.
///
/// # Errors
/// Usage: they are the private ones. Data: they cannot be read.
fn public(p: &Pipeline) -> Result<Vec<Example>> {
    let (c, direct) = (&p.config, &p.config.evaluate.dp_direct);
    let Some(named) = direct.public.as_ref().filter(|_| direct.needs_public()) else {
        return Ok(Vec::new());
    };
    let files = |config: &DatasetConfig| assets::dataset(config, &p.places.assets, p.progress);
    let of_public = DatasetConfig {
        asset: None,
        train: Some(named.clone()),
        test: Some(HeldOut::Share(0.5)),
        unit: None,
        ..c.dataset.clone()
    };
    let (public, private) = (files(&of_public)?.train, files(&c.dataset)?);
    // Whole files first: they are named.
    let hashes: Vec<String> = public.iter().map(|path| stamp::hash_of(path)).collect::<Result<_>>()?;
    for path in private.train.iter().chain(private.test.iter().flatten()) {
        if public.contains(path) || hashes.contains(&stamp::hash_of(path)?) {
            return Err(are_private(&format!(
                "names {}, which is a file of the private dataset",
                path.display()
            )));
        }
    }
    let labels = LabelSpace::from_config(&of_public.labels)?;
    let mut out = Vec::new();
    for path in &public {
        out.extend(read(path, &of_public, &labels, &c.prepare)?.0);
    }
    let private: HashSet<TextHash> = (table::read_records(&p.folder.train_records())?.iter())
        .map(|record| text_hash(&record.text))
        .collect();
    if out.iter().any(|record| private.contains(&text_hash(&record.text))) {
        return Err(are_private("has texts that private records have too"));
    }
    // Mixed: files are often sorted by label.
    out.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
    Ok(out.into_iter().take(PUBLIC).map(example).collect())
}

fn are_private(what: &str) -> Error {
    Error::usage(format!("`evaluate.dp_direct.public` {what}"))
        .hint("directions that private gradients span are not private; name records that anyone may see")
}

fn example(record: Record) -> Example {
    Example {
        text: record.text,
        label: record.label,
    }
}

fn units(records: Vec<Record>, max_records: usize) -> Units<Example> {
    let unit_of: Vec<u32> = records.iter().map(|r| r.unit).collect();
    let examples = records.into_iter().map(example);
    Units::of_groups(examples.collect(), &unit_of, max_records)
}

fn write_guarantee(p: &Pipeline, guarantee: Guarantee, on_gpu: bool) -> Result<()> {
    let guarantee = guarantee.told(on_gpu);
    write_atomically(&p.folder.direct("privacy.json"), stamp::text(&guarantee).as_bytes())
}
