//! How well a run's model writes its records, before and after training: the loss of a token on training records. Of two labels
//! also how well it tells them apart: p(label | text) ∝ p(text | label). Internal: it reads private records.
//!
//! `cargo run --release --example label_signal -- runs/movie-snippets-quick …`; `RECORDS` says how many, 400 by default.
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

use std::path::Path;

use dpsynth::assets::{self, Locations};
use dpsynth::config::RunConfig;
use dpsynth::machine::workers::Workers;
use dpsynth::models::device;
use dpsynth::models::{LanguageModel, ModelFiles};
use dpsynth::progress::Silent;
use dpsynth::records::{Encoded, LabelSpace, Record, Vocabulary, fixed_sample, prompt, read};
use dpsynth::training::gradients::Trainee;
use dpsynth::training::trainable::{self, Trainable};
use dpsynth::{Error, Result};

fn main() -> Result<()> {
    let count = std::env::var("RECORDS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(400);
    println!("run, state, loss a token, AUC, spread in nats");
    for run in std::env::args().skip(1) {
        show(Path::new(&run), count)?;
    }
    Ok(())
}

fn show(run: &Path, count: usize) -> Result<()> {
    let path = run.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let c: RunConfig = toml::from_str(&text).map_err(|e| Error::usage(e.to_string()))?;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    let places = Locations::from_env();
    let data = assets::dataset(&c.dataset, &places, &Silent)?;
    let file = assets::language_model(&c.model, &places, &Silent)?;
    let files = ModelFiles::open(&file.language_model()?.path)?;
    let vocabulary = Vocabulary::of(&files)?;
    let base = files.model(&device::choose(c.device)?)?;
    let records = fixed_sample(read(&data.train[0], &c.dataset, &labels, &c.prepare)?.0, Some(count));
    let prompts = prompt::prompts(&c.prompt, &labels, vocabulary.chat_template())?;
    let prompts = prompts
        .iter()
        .map(|t| vocabulary.prompt(t))
        .collect::<Result<Vec<_>>>()?;
    let behind = |label: &dyn Fn(&Record) -> usize| {
        let alike = records.iter().map(|r| Record {
            label: label(r),
            ..r.clone()
        });
        vocabulary.records(&alike.collect::<Vec<_>>(), &prompts, c.prepare.max_tokens)
    };
    let own = behind(&|record| record.label)?;
    let other = match labels.len() {
        2 => Some(behind(&|record| 1 - record.label)?),
        _ => None,
    };

    let trained = trainable::load(&c.finetune, &base, &run.join("model/trained.safetensors"))?;
    for (name, state) in [("base", trainable::initial(&c.finetune, &base)), ("trained", trained)] {
        let of_own = losses(&base, state.as_ref(), &own);
        let loss = of_own.iter().sum::<f64>() / records.len() as f64;
        let apart = other.as_ref().map(|other| {
            let of_other = losses(&base, state.as_ref(), other);
            // log p(text | second) − log p(text | first), of the records of each label.
            let of = |label: usize| -> Vec<f64> {
                let mine = (0..records.len()).filter(|i| records[*i].label == label);
                let sign = if label == 1 { 1.0 } else { -1.0 };
                mine.map(|i| sign * (of_other[i] - of_own[i]) * (own[i].tokens.len() - own[i].prompt) as f64)
                    .collect()
            };
            apart(&of(0), &of(1))
        });
        let said = apart.map_or("-, -".to_string(), |(auc, spread)| format!("{auc:.4}, {spread:.2}"));
        println!("{}, {name}, {loss:.4}, {said}", run.display());
    }
    Ok(())
}

/// AUC of these ratios, and their standard deviation.
fn apart(low: &[f64], high: &[f64]) -> (f64, f64) {
    let above: usize = high.iter().map(|h| low.iter().filter(|l| h > l).count()).sum();
    let all = [low, high].concat();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let spread = (all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
    (above as f64 / (low.len() * high.len()) as f64, spread)
}

/// Mean loss per token of each text.
fn losses(base: &LanguageModel, state: &dyn Trainable, texts: &[Encoded]) -> Vec<f64> {
    let (trainee, workers) = (Trainee::new(base), Workers::on(&base.device()));
    let placed = trainee.place(state);
    let texts: Vec<&Encoded> = texts.iter().collect();
    let batches: Vec<&[&Encoded]> = texts.chunks(8).collect();
    workers.map(&batches, |batch| trainee.losses(&placed, batch)).concat()
}
