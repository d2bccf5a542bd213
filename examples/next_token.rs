//! The logits of the token behind each text, by a run's own model: what `tests/interop/model.py` holds exports against.
//!
//! `cargo run --release --example next_token -- runs/imdb-quick < texts.json`, where `texts.json` is a list of texts; prints
//! a JSON object a text: its tokens, and the logits before (`base`) and after training (`trained`).
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use dpsynth::assets::{self, Locations};
use dpsynth::config::{DeviceChoice, RunConfig};
use dpsynth::models::ModelFiles;
use dpsynth::models::{LanguageModel, Plain};
use dpsynth::models::{device, read};
use dpsynth::progress::Silent;
use dpsynth::records::Vocabulary;
use dpsynth::training::trainable;
use dpsynth::{Error, Result};

fn main() -> Result<()> {
    let run = std::env::args()
        .nth(1)
        .ok_or_else(|| Error::usage("name a run's folder"))?;
    let run = Path::new(&run);
    let path = run.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let c: RunConfig = toml::from_str(&text).map_err(|e| Error::usage(e.to_string()))?;
    let texts: Vec<String> =
        serde_json::from_reader(std::io::stdin()).map_err(|e| Error::usage(format!("no list of texts: {e}")))?;

    let file = assets::language_model(&c.model, &Locations::from_env(), &Silent)?;
    let files = ModelFiles::open(&file.language_model()?.path)?;
    let vocabulary = Vocabulary::of(&files)?;
    let base = files.model(&device::choose(DeviceChoice::Cpu)?)?;
    let trained = trainable::load(&c.finetune, &base, &run.join("model/trained.safetensors"))?.merged(&base);
    for text in texts {
        let tokens = vocabulary.prompt(&text)?;
        let answer = serde_json::json!({
            "tokens": tokens,
            "base": next_token(&base, &tokens),
            "trained": next_token(&trained, &tokens),
        });
        println!("{answer}");
    }
    Ok(())
}

fn next_token(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    let ids: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
    let row: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [1, tokens.len()]), &model.device());
    let last = model.hidden(row, None, &mut Plain).narrow(0, tokens.len() - 1, 1);
    read(model.logits(last))
}
