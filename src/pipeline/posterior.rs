//! The references `model_posterior` and `zero_shot_posterior`, asked for by `evaluate.arms`: the language model itself as
//! a classifier of the real test records, p(label | text) ∝ p(text | label). Nothing is trained and no budget is spent;
//! the scores read private test records (P9).

use serde::{Deserialize, Serialize};

use super::Pipeline;
use super::journal::Journal;
use crate::Result;
use crate::documents::{self, Sampled};
use crate::evaluation::metrics::Confusion;
use crate::evaluation::{Reference, ReferenceName};
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::progress::Unit;
use crate::records::Encoded;
use crate::run::Preparation;
use crate::run::table;
use crate::sampling::refine::{Score, most_likely as largest, posterior};
use crate::sampling::score::{Scorer, Text};
use crate::training::trainable;

/// A test record's log p(text | label), in nats, of each label.
#[derive(Serialize, Deserialize)]
struct Scored {
    record: usize,
    log_p: Vec<f64>,
}

/// The privately trained model and the one as it came, on as many test records as the encoder is tested on.
///
/// # Errors
/// [`crate::Error::interrupted`]; a full disk.
pub fn run(p: &Pipeline, num_labels: usize) -> Result<Vec<Reference>> {
    let c = &p.config;
    let preparation = Preparation::read(&p.folder)?;
    let (vocabulary, base) = p.language_model()?;
    let mut test = table::read_records(&p.folder.test_records())?;
    test.truncate(c.evaluate.encoder_test_records.unwrap_or(usize::MAX));
    let texts = vocabulary.records(&test, &preparation.prompts, c.prepare.max_tokens)?;

    let tuned = trainable::load(&c.finetune, &base, &p.folder.trained())?.merged(&base);
    let of = |name, what: &str, model: &LanguageModel, arm: &str| -> Result<Reference> {
        let bias = bias(p, arm, num_labels)?;
        let scored = scores(p, name, model, &preparation.prompts, &texts)?;
        let predicted: Vec<usize> = scored.iter().map(|log_p| most_likely(log_p, &bias)).collect();
        let confusion = Confusion::new(test.iter().map(|r| r.label), &predicted, num_labels);
        let centred = match bias.is_empty() {
            true => "",
            false => ", less its leaning to labels on its own samples",
        };
        Ok(Reference {
            name,
            what: format!("{what}, p(label | text) ∝ p(text | label){centred}"),
            test_records: test.len(),
            accuracy: confusion.accuracy(),
            macro_f1: confusion.macro_f1(),
            confusion: confusion.rows(),
            privacy: None,
        })
    };
    Ok(vec![
        of(
            ReferenceName::ModelPosterior,
            "the run's own private model as a classifier",
            &tuned,
            "synthetic",
        )?,
        of(
            ReferenceName::ZeroShotPosterior,
            "the model as it came as a classifier",
            &base,
            "zero_shot",
        )?,
    ])
}

/// What sampling found of the model's leaning to labels, on its own samples: empty where nothing was scored.
fn bias(p: &Pipeline, arm: &str, num_labels: usize) -> Result<Vec<f64>> {
    let sampled: Option<Sampled> = documents::read_if_there(&p.folder.sampled(arm))?;
    let labels = sampled.map(|s| s.labels).unwrap_or_default();
    let bias: Option<Vec<f64>> = labels.iter().map(|l| l.bias).collect();
    Ok(bias.filter(|b| b.len() == num_labels).unwrap_or_default())
}

fn most_likely(log_p: &[f64], bias: &[f64]) -> usize {
    let score = |(label, log_p): (usize, &f64)| Score { label, log_p: *log_p };
    let scores: Vec<Score> = log_p.iter().enumerate().map(score).collect();
    largest(&posterior(&scores, bias)).0
}

/// Of each text, under every label; kept line by line, so that a run that stops goes on where it was.
fn scores(
    p: &Pipeline,
    name: ReferenceName,
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    records: &[Encoded],
) -> Result<Vec<Vec<f64>>> {
    let mut journal: Journal<Scored> = Journal::open(&p.folder.posterior(name))?;
    let mut found: Vec<Option<Vec<f64>>> = vec![None; records.len()];
    for line in journal.lines() {
        if let Some(place) = found.get_mut(line.record) {
            *place = Some(line.log_p.clone());
        }
    }
    let labels: Vec<usize> = (0..prompts.len()).collect();
    let open: Vec<usize> = (0..records.len()).filter(|i| found[*i].is_none()).collect();
    let text = |i: &usize| Text {
        tokens: &records[*i].tokens[records[*i].prompt..],
        labels: &labels,
    };
    let texts: Vec<Text> = open.iter().map(text).collect();
    let task = p.progress.begin(&name.to_string(), records.len() as u64, Unit::Records);
    let task = std::sync::Mutex::new(task);
    let mut done = records.len() - open.len();
    let scorer = Scorer::new(model, prompts);
    let whole = scorer.score_on(&Workers::on(&model.device()), &texts, p.stop, |i, log_p| {
        journal.add(Scored {
            record: open[i],
            log_p: log_p.clone(),
        })?;
        found[open[i]] = Some(log_p);
        done += 1;
        let task = task.lock().expect("showing progress does not panic");
        task.set(done as u64, "");
        Ok(())
    })?;
    journal.sync()?;
    if !whole {
        p.check_stop(&format!("test records were scored ({name})"))?;
    }
    Ok(found.into_iter().map(Option::unwrap_or_default).collect())
}
