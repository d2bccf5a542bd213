//! GPT-2 by `fixtures/gpt2.py`: the same numbers as transformers, PEFT and PyTorch's autograd.

use std::path::PathBuf;

use crate::parity::{held_against, numbers};
use crate::support::{block, device, floats, furthest, ids, values};
use dpsynth::models::cache::Way;
use dpsynth::models::lora::Adapter;
use dpsynth::models::shape::Kind;
use dpsynth::models::weights::Weights;
use dpsynth::models::{LanguageModel, ModelFiles, Plain};
use dpsynth::records::{Record, Vocabulary};
use dpsynth::sampling::score::{Scorer, Text};
use safetensors::SafeTensors;
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn model() -> LanguageModel {
    LanguageModel::open(&folder("gpt2"), &device()).expect("a model")
}

fn vocabulary() -> Vocabulary {
    Vocabulary::of(&ModelFiles::open(&folder("gpt2")).expect("opens")).expect("a tokenizer")
}

fn expected() -> Value {
    let text = std::fs::read(folder("gpt2").join("expected.json")).expect("reads");
    serde_json::from_slice(&text).expect("JSON")
}

fn adapter(model: &LanguageModel) -> Adapter {
    Adapter::load(&folder("gpt2").join("adapter.safetensors"), model.shape(), 2, 6.0).expect("an adapter")
}

fn logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    values(model.logits(model.hidden(block(&[tokens]), None, &mut Plain)))
}

/// PyTorch's gradients, tensor by tensor.
fn gradients(wanted: &dyn Fn(&SafeTensors) -> Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let file = std::fs::read(folder("gpt2").join("gradients.safetensors")).expect("reads");
    wanted(&SafeTensors::deserialize(&file).expect("safetensors"))
}

#[test]
fn tokens_are_those_of_transformers() {
    let (vocabulary, expected) = (vocabulary(), expected());
    for text in expected["texts"].as_array().expect("texts") {
        let own = text["text"].as_str().expect("a text");
        assert_eq!(
            vocabulary.prompt(own).expect("tokens"),
            ids(&text["ids_as_prompt"]),
            "{own}"
        );
        let record = Record {
            text: own.to_string(),
            label: 0,
            unit: 0,
        };
        let encoded = vocabulary.records(&[record], &[vec![1]], 1000).expect("tokens");
        let mut wanted = ids(&text["ids_as_record"]);
        wanted.push(vocabulary.end());
        assert_eq!(encoded[0].tokens[1..], wanted, "{own}");
    }
    assert_eq!(u64::from(vocabulary.end()), expected["config"]["end"]);
}

#[test]
fn logits_are_those_of_transformers() {
    let (model, expected) = (model(), expected());
    for text in &expected["texts"].as_array().expect("texts")[..2] {
        let off = furthest(logits(&model, &ids(&text["ids_as_record"])), floats(&text["logits"]));
        assert!(off < 3e-5, "logits are {off:e} off");
    }
}

#[test]
fn a_sequence_goes_on_token_by_token_as_in_transformers() {
    let (model, expected) = (model(), expected());
    let mut tokens = ids(&expected["greedy"]["prompt"]);
    for wanted in ids(&expected["greedy"]["continuation"]) {
        let all = logits(&model, &tokens);
        let last = &all[all.len() - model.shape().vocabulary..];
        let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]));
        assert_eq!(best, Some(wanted as usize));
        tokens.push(wanted);
    }
}

/// By the cache in memory and by the one of tensors, where positions begin behind the prompt.
#[test]
fn texts_behind_a_prompt_are_worth_what_transformers_says() {
    let (model, expected) = (model(), expected());
    for text in expected["texts"].as_array().expect("texts") {
        let tokens = ids(&text["ids_as_record"]);
        let wanted = text["log_probability"].as_f64().expect("a number");
        for way in [Way::Memory, Way::Tensors] {
            let scorer = Scorer::by(way, &model, &[tokens[..1].to_vec()]);
            let scored = scorer.score(&[Text {
                tokens: &tokens[1..],
                labels: &[0],
            }]);
            assert!((scored[0][0] - wanted).abs() < 1e-3, "{way:?}: {scored:?} and {wanted}");
        }
    }
}

#[test]
fn an_adapter_that_peft_saved_gives_pefts_logits() {
    let (model, expected) = (model(), expected());
    let adapter = adapter(&model);
    let merged = model.merged(|slot| adapter.delta(slot, &device()));
    let tokens = ids(&expected["texts"][0]["ids_as_record"]);
    let off = furthest(logits(&merged, &tokens), floats(&expected["lora"]["logits"]));
    assert!(off < 1e-4, "logits are {off:e} off");
}

#[test]
fn p5_each_records_gradient_by_the_adapter_is_autograds() {
    let adapter = adapter(&model());
    let theirs = gradients(&|t| (0..3).map(|i| numbers(t, &format!("lora.{i}"))).collect());
    held_against(&model(), &adapter, &expected()["lora"], &theirs);
}

/// Biases, gains, shifts, positions, and a head that is the embedding.
#[test]
fn p5_each_records_gradient_by_all_weights_is_autograds() {
    let model = model();
    let theirs = gradients(&|tensors| {
        let of = |i: usize| {
            let slots = model.shape().slots.iter();
            let values = slots.flat_map(|slot| {
                let theirs = numbers(tensors, &format!("base.{i}.{}", slot.name));
                match (&slot.kind, &slot.shape[..]) {
                    // Conv1D holds [in, out].
                    (Kind::Map(_), [out, input]) => (0..theirs.len())
                        .map(|k| theirs[(k % input) * out + k / input])
                        .collect(),
                    _ => theirs,
                }
            });
            values.collect()
        };
        (0..3).map(of).collect()
    });
    held_against(&model, &Weights::of(&model), &expected()["base"], &theirs);
}

#[test]
fn weights_go_back_into_the_form_of_checkpoints() {
    let model = model();
    let file = std::fs::read(folder("gpt2").join("model.safetensors")).expect("reads");
    let theirs = SafeTensors::deserialize(&file).expect("safetensors");
    let weights = Weights::of(&model);
    for (slot, own) in weights.by_slot() {
        let (shape, stored) = slot.stored(own);
        assert_eq!(
            theirs.tensor(&slot.name).expect("a tensor").shape(),
            shape,
            "{}",
            slot.name
        );
        let theirs = numbers(&theirs, &slot.name);
        assert_eq!(furthest(stored.to_vec(), theirs), 0.0, "{}", slot.name);
    }
}

#[test]
fn a_head_of_its_own_gives_transformers_logits() {
    let model = LanguageModel::open(&folder("gpt2_untied"), &device()).expect("a model");
    let expected = expected();
    let tokens = ids(&expected["texts"][0]["ids_as_record"]);
    let off = furthest(logits(&model, &tokens), floats(&expected["untied"]["logits"]));
    assert!(off < 3e-5, "logits are {off:e} off");
}

#[test]
fn a_tensor_that_would_be_ignored_is_refused() {
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(folder("gpt2").join(file), copy.path().join(file)).expect("copies");
    }
    let config = std::fs::read_to_string(copy.path().join("config.json")).expect("reads");
    let other = config.replace("\"n_layer\": 2", "\"n_layer\": 1");
    assert_ne!(config, other);
    std::fs::write(copy.path().join("config.json"), other).expect("writes");
    let error = LanguageModel::open(copy.path(), &device()).err().expect("refused");
    assert!(
        error.to_string().contains("does not apply: transformer.h.1."),
        "{error}"
    );
}
