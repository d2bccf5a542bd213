//! What synthetic records are like, beside real ones: each measure against independent numbers, and how it behaves.

use std::path::PathBuf;

use burn::tensor::Device;
use dpsynth::evaluation::embed::SentenceEncoder;
use dpsynth::evaluation::encoder::EncoderFiles;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).unwrap()).unwrap()
}

fn encoder() -> SentenceEncoder {
    SentenceEncoder::open(&EncoderFiles::in_folder(&fixture("bert")), 24, &Device::flex()).unwrap()
}

// ---- sentence vectors

#[test]
fn a_sentence_vector_is_the_mean_of_pytorchs_hidden_states_at_length_1() {
    let expected = json("bert/expected.json");
    let texts: Vec<&str> = expected["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    let ours = encoder().embed(texts, &mut |_| Ok(())).unwrap();
    for (ours, states) in ours.iter().zip(expected["hidden_states"].as_array().unwrap()) {
        let states = states.as_array().unwrap();
        let mean: Vec<f64> = (0..encoder().width())
            .map(|j| states.iter().map(|s| s[j].as_f64().unwrap()).sum::<f64>() / states.len() as f64)
            .collect();
        let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (ours, mean) in ours.iter().zip(&mean) {
            assert!(
                (f64::from(*ours) - mean / length).abs() < 1e-4,
                "{ours} {}",
                mean / length
            );
        }
    }
}

#[test]
fn a_sentence_vector_does_not_depend_on_the_texts_beside_it() {
    let texts = ["the film was great", "", "it was not very good, and the story so bad!"];
    let encoder = encoder();
    let together = encoder.embed(texts, &mut |_| Ok(())).unwrap();
    for (text, together) in texts.into_iter().zip(&together) {
        let alone = &encoder.embed([text], &mut |_| Ok(())).unwrap()[0];
        assert!(alone.iter().zip(together).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
