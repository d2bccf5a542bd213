//! Private training beside weights of a few bits: what is packed is what bitsandbytes and ggml have, and what is trained beside
//! it is what would be trained beside the same numbers unpacked (rule P5).

use burn::tensor::DType;
use dpsynth::config::{Clipping, FinetuneConfig, Method, Precision};
use dpsynth::models::load::Held;
use dpsynth::models::nf4::Nf4;
use dpsynth::models::packed::Packed;
use dpsynth::models::{LanguageModel, ModelFiles, Plain};
use dpsynth::records::Encoded;
use dpsynth::training::clip::Clip;
use dpsynth::training::gradients::{Compute, Trainee};
use dpsynth::training::objective::Objective;
use dpsynth::training::trainable;
use safetensors::SafeTensors;

use crate::common::Place;
use crate::parity::{beside, numbers};
use crate::support::{block, device, fixture, furthest, values};

const FAMILIES: [&str; 6] = ["llama3", "llama_bias", "mistral", "qwen2", "qwen3", "gemma3"];

fn packed(name: &str) -> LanguageModel {
    let files = ModelFiles::open(&beside(name)).expect("opens");
    files.packed_model(&device()).expect("a model")
}

#[test]
fn nf4_is_that_of_bitsandbytes_bit_for_bit() {
    let file = std::fs::read(beside("nf4.safetensors")).expect("reads");
    let tensors = SafeTensors::deserialize(&file).expect("safetensors");
    let cases: Vec<&str> = tensors
        .names()
        .into_iter()
        .filter_map(|n| n.strip_suffix(".values"))
        .collect();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let floats = |name: &str| -> Vec<f32> {
            let of = numbers(&tensors, &format!("{case}.{name}"));
            of.into_iter().map(|v| v as f32).collect()
        };
        let (values, theirs) = (floats("values"), floats("numbers"));
        let mean = floats("offset")[0];
        let own = Nf4::around(mean, &values).numbers();
        assert_eq!(own.len(), theirs.len(), "{case}");
        let differs =
            (own.iter().zip(&theirs).enumerate()).find(|(_, (own, theirs))| own.to_bits() != theirs.to_bits());
        assert_eq!(differs, None, "{case}");
        // Our own mean is rounded once.
        let own = Nf4::of(&values).numbers();
        for (own, theirs) in own.iter().zip(&theirs) {
            assert!(
                (own - theirs).abs() <= 3e-7 * mean.max(theirs.abs()),
                "{case}: {own} and {theirs}"
            );
        }
    }
}

/// A file's own blocks are neither rounded again nor unpacked, rows that it interleaves included. Maps that it has whole become
/// NF4: here V and up.
#[test]
fn what_a_gguf_packs_stays_as_it_is() {
    let files = ModelFiles::open(&fixture("model.gguf")).expect("opens");
    let whole = files.model(&device()).expect("a model");
    let packed = files.packed_model(&device()).expect("a model");
    assert!(packed.is_packed() && !whole.is_packed());
    let (own, kept) = (whole.values(), packed.values());
    let (mut at, mut rounded) = (0, Vec::new());
    for slot in &whole.shape().slots {
        let range = at..at + slot.len();
        at = range.end;
        if own[range.clone()] != kept[range.clone()] {
            rounded.push(slot.module().rsplit('.').next().expect("a name").to_string());
            let off = furthest(own[range.clone()].to_vec(), kept[range.clone()].to_vec());
            let largest = own[range].iter().fold(0f32, |most, v| v.abs().max(most));
            assert!(off < 0.2 * f64::from(largest), "{}: {off}", slot.name);
        }
    }
    assert_eq!(rounded, ["v_proj", "up_proj"].repeat(2));
    assert!(packed.bytes_read() < whole.bytes_read());
}

#[test]
fn a_packed_map_takes_about_half_a_byte_a_weight() {
    let weights: Vec<f32> = (0..256 * 1024).map(|i| (i as f32).sin()).collect();
    let packed = Packed::new(Held::Numbers(weights), [256, 1024], &device());
    assert!((packed.bytes() as f64 / (256.0 * 1024.0) - 0.5159).abs() < 0.001);
    assert_eq!(packed.unpacked().dims(), [256, 1024]);
    assert_eq!(packed.into_type(DType::BF16).unpacked().dtype(), DType::BF16);
}

/// Forward, decoding's caches aside, and each record's clipped gradient: those of the same weights unpacked.
#[test]
fn p5_what_is_trained_beside_packed_weights_is_what_is_beside_the_same_numbers() {
    for name in FAMILIES {
        let packed = packed(name);
        let whole = packed.unpacked();
        assert!(packed.is_packed() && !whole.is_packed(), "{name}");
        let tokens: Vec<u32> = (0..9).map(|i| (i * 7 + 3) % 60).collect();
        let logits = |model: &LanguageModel| values(model.logits(model.hidden(block(&[&tokens]), None, &mut Plain)));
        assert_eq!(logits(&packed), logits(&whole), "{name}");

        let record = |i: u32| Encoded {
            tokens: (0..6 + 4 * i).map(|t| (t * (i + 2) + 5) % 60).collect(),
            prompt: 3,
            label: 0,
        };
        let records: Vec<Encoded> = (0..3).map(record).collect();
        let all: Vec<&Encoded> = records.iter().collect();
        let config = FinetuneConfig {
            method: Method::Qlora,
            rank: 2,
            ..FinetuneConfig::default()
        };
        let mut adapter = trainable::initial(&config, &packed);
        // B begins at 0, where A has no gradient.
        adapter
            .values_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v += 0.05 * (i as f32).sin());
        let clipped = |model: &LanguageModel| {
            let trainee = Trainee::with(model, Compute::of(&config), Objective::text());
            let clip = Clip::new(Clipping::Flat, 0.5);
            trainee.clipped_sum(&trainee.place(adapter.as_ref()), &all, clip)
        };
        let (own, theirs) = (clipped(&packed), clipped(&whole));
        for (own, theirs) in own.norms.iter().zip(&theirs.norms) {
            assert!(
                *own > 0.0 && (own / theirs - 1.0).abs() < 1e-5,
                "{name}: {own} and {theirs}"
            );
        }
        let off = furthest(own.values(), theirs.values().into_iter().map(f64::from));
        assert!(off < 1e-5, "{name}: {off:e} off");
        let merged = adapter.merged(&packed);
        assert!(
            !merged.is_packed() && merged.values() == adapter.merged(&whole).values(),
            "{name}"
        );
    }
}

/// A half-precision forward unpacks into it, and stays packed in between.
#[test]
fn packed_weights_stay_packed_in_any_precision() {
    let packed = packed("llama3");
    let config = FinetuneConfig {
        method: Method::Qlora,
        precision: Precision::Bf16,
        ..FinetuneConfig::default()
    };
    let placed = trainable::initial(&config, &packed).place(&packed, config.precision);
    assert!(placed.model.is_packed());
    assert_eq!(placed.model.bytes_read(), packed.bytes_read());
}

/// A run beside packed weights, to its audit and its export: what is exported is the base as it was trained beside.
#[test]
#[cfg(unix)]
fn a_run_beside_packed_weights_goes_the_whole_way() {
    let place = Place::new();
    let model = format!("model.path={}", fixture("model.gguf").display());
    let set = ["--set", model.as_str(), "--set", "finetune.method=qlora"];
    place.done("run", &set);
    place.audit();
    let said = place.ok(&["export", "runs/tiny-quick", "--to", "out", "--with-base"]);
    assert!(
        said.stderr.is_empty() || !said.stderr.contains("warning"),
        "{}",
        said.stderr
    );
    let base = LanguageModel::open(&place.path("out/base"), &device()).expect("the base");
    let packed = ModelFiles::open(&fixture("model.gguf")).expect("opens");
    let packed = packed.packed_model(&device()).expect("a model").values();
    let off = furthest(base.values(), packed);
    // Exports are bfloat16 by default.
    assert!(off < 0.02, "{off}");
    let card = std::fs::read_to_string(place.path("out/README.md")).expect("a card");
    assert!(card.contains("few bits"), "{card}");
}
