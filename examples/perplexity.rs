//! What a model makes of public texts, to be held against transformers by `tests/parity/perplexity.py`: a line of JSON for each
//! of the first IMDb test reviews, with its tokens and their mean loss in nats.
//!
//! `cargo run --release --example perplexity -- MODEL [REVIEWS]`, where MODEL is a GGUF or the folder of a checkpoint.
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

use std::path::Path;

use burn::tensor::Device;
use dpsynth::assets::{self, Locations};
use dpsynth::config::{self, Profile};
use dpsynth::models::ModelFiles;
use dpsynth::progress::Silent;
use dpsynth::records::{Encoded, LabelSpace, Vocabulary, read};
use dpsynth::training::gradients::Trainee;
use dpsynth::training::trainable;
use dpsynth::{Error, Result};
use serde_json::json;

/// Tokens of a review that are looked at.
const LONGEST: usize = 256;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .ok_or_else(|| Error::usage("no model is named").hint("perplexity MODEL [REVIEWS]"))?;
    let count = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    let config = config::load(Path::new("pipelines/imdb.toml"), Profile::Quick, &[], Path::new("data"))?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?;
    let data = assets::dataset(&config.dataset, &Locations::from_env(), &Silent)?;
    let test = &data.test.expect("IMDb has test reviews")[0];
    let (records, _) = read(test, &config.dataset, &labels, &config.prepare)?;

    let files = ModelFiles::open(Path::new(&model))?;
    let vocabulary = Vocabulary::of(&files)?;
    let base = files.model(&Device::flex())?;
    let trainee = Trainee::new(&base);
    let placed = trainee.place(trainable::initial(&config.finetune, &base).as_ref());
    for record in records.iter().take(count) {
        let begin = vocabulary.special().bos.as_ref().unwrap_or(&vocabulary.special().eos).0;
        let tokens = [vec![begin], vocabulary.text(&record.text, LONGEST)?].concat();
        let encoded = Encoded {
            tokens: tokens.clone(),
            prompt: 1,
            label: 0,
        };
        let nats = trainee.losses(&placed, &[&encoded])[0];
        println!("{}", json!({ "text": record.text, "tokens": tokens, "nats": nats }));
    }
    Ok(())
}
