//! How well a run's model tells two labels apart, before and after training: p(label | text) ∝ p(text | label) on training
//! records. Internal: it reads private records.
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
    if labels.len() != 2 {
        return Err(Error::usage("AUC is of two labels").hint("name runs over two labels"));
    }
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
    let behind = |label: usize| {
        let alike: Vec<Record> = records.iter().map(|r| Record { label, ..r.clone() }).collect();
        vocabulary.records(&alike, &prompts, c.prepare.max_tokens)
    };
    let encoded = [behind(0)?, behind(1)?];

    let trained = trainable::load(&c.finetune, &base, &run.join("model/trained.safetensors"))?;
    for (name, state) in [("base", trainable::initial(&c.finetune, &base)), ("trained", trained)] {
        let [first, second] = [0, 1].map(|label: usize| losses(&base, state.as_ref(), &encoded[label]));
        let own: f64 = records
            .iter()
            .enumerate()
            .map(|(i, r)| [first[i], second[i]][r.label])
            .sum();
        // log p(text | second) − log p(text | first).
        let ratio = |i: usize| (first[i] - second[i]) * (encoded[0][i].tokens.len() - encoded[0][i].prompt) as f64;
        let of = |label: usize| -> Vec<f64> {
            let mine = records.iter().enumerate().filter(|(_, r)| r.label == label);
            mine.map(|(i, _)| ratio(i)).collect()
        };
        let (low, high) = (of(0), of(1));
        let above: usize = high.iter().map(|h| low.iter().filter(|l| h > l).count()).sum();
        let auc = above as f64 / (low.len() * high.len()) as f64;
        let all = [low, high].concat();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let spread = (all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        let loss = own / records.len() as f64;
        println!("{}, {name}, {loss:.4}, {auc:.4}, {spread:.2}", run.display());
    }
    Ok(())
}

/// Mean loss per token of each text.
fn losses(base: &LanguageModel, state: &dyn Trainable, texts: &[Encoded]) -> Vec<f64> {
    let (trainee, workers) = (Trainee::new(base), Workers::on(&base.device()));
    let placed = trainee.place(state);
    let texts: Vec<&Encoded> = texts.iter().collect();
    let batches: Vec<&[&Encoded]> = texts.chunks(8).collect();
    workers.map(&batches, |batch| trainee.losses(&placed, batch)).concat()
}
