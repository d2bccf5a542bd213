//! Low-dimensional sets of a language model's weights: gains and biases, and the second of two factors of low rank.
#![cfg(unix)]

use dpsynth::config::{Clipping, FinetuneConfig, Method, Precision};
use dpsynth::models::ia3::Scales;
use dpsynth::models::lora::Adapter;
use dpsynth::models::lora_fa::SecondFactors;
use dpsynth::models::shape::{Kind, Slot};
use dpsynth::models::soft_prompt::SoftPrompt;
use dpsynth::models::vectors::Vectors;
use dpsynth::models::weights::Weights;
use dpsynth::models::{LanguageModel, ModelFiles};
use dpsynth::records::Encoded;
use dpsynth::training::clip::Clip;
use dpsynth::training::gradients::{Compute, Trainee};
use dpsynth::training::objective::Objective;
use dpsynth::training::trainable::{self, Trainable};

use crate::common::Place;
use crate::parity::beside;
use crate::support::{device, furthest};

const FAMILIES: [&str; 7] = ["llama3", "llama_bias", "mistral", "qwen2", "qwen3", "gemma3", "gpt2"];

fn model(family: &str) -> LanguageModel {
    let folder = match family {
        "gpt2" => beside("../fixtures/gpt2"),
        _ => beside(family),
    };
    let files = ModelFiles::open(&folder).expect("opens");
    files.model(&device()).expect("a model")
}

fn records() -> Vec<Encoded> {
    let record = |i: u32| Encoded {
        tokens: (0..6 + 3 * i).map(|t| 3 + (7 * t + 11 * i) % 50).collect(),
        prompt: 1 + i as usize,
        label: 0,
    };
    (0..3).map(record).collect()
}

fn trainee(model: &LanguageModel, activation_checkpointing: bool) -> Trainee {
    let compute = Compute {
        precision: Precision::F32,
        activation_checkpointing,
    };
    Trainee::with(model, compute, Objective::text())
}

/// Each record's norm is that of its gradient taken alone.
fn assert_norms<T: Into<f64>>(
    of: &str,
    trainee: &Trainee,
    trained: &dyn Trainable,
    members: &[&Encoded],
    alone: impl Fn(&[&Encoded]) -> Vec<T>,
) {
    let clipped = trainee.clipped_sum(&trainee.place(trained), members, Clip::new(Clipping::Flat, 0.5));
    for (i, norm) in clipped.norms.iter().enumerate() {
        let squares = alone(&members[i..=i]).into_iter().map(|v| v.into().powi(2));
        let theirs = squares.sum::<f64>().sqrt();
        assert!((norm / theirs - 1.0).abs() < 1e-4, "{of}: {norm} and {theirs}");
    }
}

/// What is trained in a few weights is what they have among all, which is held against other tools: each record's norm and the
/// sum, with and without activations kept.
#[test]
fn p5_fewer_weights_have_the_gradients_that_they_have_among_all() {
    let records = records();
    let members: Vec<&Encoded> = records.iter().collect();
    for family in FAMILIES {
        let model = model(family);
        let (all, vectors) = (Weights::of(&model), Vectors::of(&model));
        let mut adapter = Adapter::new(model.shape(), 2, 4.0, 1);
        let wave = |(i, v): (usize, &mut f32)| *v += 0.05 * (i as f32).sin();
        adapter.values_mut().iter_mut().enumerate().for_each(wave);
        let second = SecondFactors::of(adapter.clone());
        assert_eq!(second.adapter(), adapter, "{family}");
        for checkpointed in [false, true] {
            let trainee = trainee(&model, checkpointed);
            let sum =
                |trained: &dyn Trainable, of: &[&Encoded]| trainee.plain_sum(&trainee.place(trained), of).values();
            let of_vectors = |of: &[&Encoded]| -> Vec<f32> {
                let (whole, mut at) = (sum(&all, of), 0);
                let mut out = Vec::new();
                for slot in &model.shape().slots {
                    let own = &whole[at..at + slot.len()];
                    at += slot.len();
                    if slot.is_vector() {
                        out.extend_from_slice(own);
                    }
                }
                out
            };
            let of_seconds = |of: &[&Encoded]| -> Vec<f32> {
                let whole = sum(&adapter, of);
                adapter.seconds().flat_map(|at| whole[at].to_vec()).collect()
            };
            type Reference<'a> = &'a dyn Fn(&[&Encoded]) -> Vec<f32>;
            let sets: [(&str, &dyn Trainable, Reference); 2] = [
                ("vectors", &vectors, &of_vectors),
                ("second factors", &second, &of_seconds),
            ];
            for (name, trained, reference) in sets {
                let wanted = reference(&members);
                let own = sum(trained, &members);
                assert_eq!(
                    (own.len(), own.len()),
                    (wanted.len(), trained.values().len()),
                    "{family}, {name}"
                );
                let largest = wanted.iter().fold(0f32, |most, v| v.abs().max(most));
                let off = furthest(own, wanted);
                assert!(off < 1e-5 * f64::from(largest).max(1.0), "{family}, {name}: {off}");
                assert_norms(&format!("{family}, {name}"), &trainee, trained, &members, reference);
            }
        }
    }
}

/// What multiplies the numbers of a map is in the map's weights, so its gradient is theirs by the chain rule: of what comes out
/// Σᵢ W′ⱼᵢ·∂W′ⱼᵢ/lⱼ with what is added behind, of what goes in Σⱼ W′ⱼᵢ·∂W′ⱼᵢ/lᵢ.
#[test]
fn p5_scales_have_the_gradients_of_the_weights_that_hold_them() {
    let records = records();
    let members: Vec<&Encoded> = records.iter().collect();
    for family in FAMILIES {
        let model = model(family);
        let mut scales = Scales::of(&model);
        let wave = |(i, v): (usize, &mut f32)| *v += 0.2 * (i as f32).sin();
        scales.values_mut().iter_mut().enumerate().for_each(wave);
        let merged = scales.merged(&model);
        let all = Weights::of(&merged);
        for checkpointed in [false, true] {
            let reference = |of: &[&Encoded]| -> Vec<f64> {
                let trainee = trainee(&merged, checkpointed);
                let gradients = trainee.plain_sum(&trainee.place(&all), of).values();
                let (mut at, mut products) = (0, Vec::new());
                for (slot, values) in all.by_slot() {
                    let own = values.iter().zip(&gradients[at..]);
                    products.push(own.map(|(w, g)| f64::from(w * g)).collect::<Vec<f64>>());
                    at += slot.len();
                }
                let slots = &model.shape().slots;
                let (mut out, mut scale) = (Vec::new(), scales.values().iter());
                for (i, slot) in slots.iter().enumerate() {
                    let (Some([input, output]), module) = (slot.map(), slot.module()) else {
                        continue;
                    };
                    let rows = products[i].chunks(input);
                    let sums: Vec<f64> = if module.ends_with(".down_proj") || module.ends_with("mlp.c_proj") {
                        (0..input)
                            .map(|column| rows.clone().map(|row| row[column]).sum())
                            .collect()
                    } else if [".k_proj", ".v_proj", ".c_attn"]
                        .iter()
                        .any(|end| module.ends_with(end))
                    {
                        let behind = |row: usize| match slots.get(i + 1).filter(|next| next.name.ends_with(".bias")) {
                            Some(_) => products[i + 1][row],
                            None => 0.0,
                        };
                        let of_rows = rows.clone().map(|row| row.iter().sum::<f64>()).enumerate();
                        of_rows.map(|(row, sum)| sum + behind(row)).collect()
                    } else {
                        continue;
                    };
                    assert!(sums.len() == input || sums.len() == output, "{family}");
                    out.extend(sums.iter().map(|sum| sum / f64::from(*scale.next().expect("a scale"))));
                }
                assert!(scale.next().is_none(), "{family}");
                out
            };
            let trainee = trainee(&model, checkpointed);
            let own = trainee.plain_sum(&trainee.place(&scales), &members).values();
            let wanted = reference(&members);
            assert_eq!(own.len(), wanted.len(), "{family}");
            let largest = wanted.iter().fold(0f64, |most, v| v.abs().max(most));
            for (own, wanted) in own.iter().zip(&wanted) {
                assert!(
                    (f64::from(*own) - wanted).abs() < 1e-5 * largest.max(1.0),
                    "{family}: {own}, not {wanted}"
                );
            }
            assert_norms(family, &trainee, &scales, &members, reference);
        }
    }
}

/// What is added to the embeddings of the first tokens: of GPT-2 it has the gradient of its table of positions there, and of every
/// family what the loss does along a direction.
#[test]
fn p5_a_soft_prompt_has_the_gradient_of_what_it_adds() {
    let records = records();
    let members: Vec<&Encoded> = records.iter().collect();
    for family in FAMILIES {
        let model = model(family);
        let mut prompt = SoftPrompt::new(model.shape(), 3);
        let wave = |(i, v): (usize, &mut f32)| *v += 0.1 * (i as f32).sin();
        prompt.values_mut().iter_mut().enumerate().for_each(wave);
        for checkpointed in [false, true] {
            let trainee = trainee(&model, checkpointed);
            let of = |of: &[&Encoded]| trainee.plain_sum(&trainee.place(&prompt), of).values();
            let own = of(&members);
            assert_eq!(own.len(), 3 * model.shape().width, "{family}");
            if family == "gpt2" {
                let merged = prompt.merged(&model);
                let all = Weights::of(&merged);
                let whole = self::trainee(&merged, checkpointed);
                let whole = whole.plain_sum(&whole.place(&all), &members).values();
                let slots = model.shape().slots.iter();
                let before: usize = slots
                    .take_while(|slot| slot.kind != Kind::Positions)
                    .map(Slot::len)
                    .sum();
                let largest = own.iter().fold(0f32, |most, v| v.abs().max(most));
                let off = furthest(own.clone(), whole[before..before + own.len()].to_vec());
                assert!(off < 1e-5 * f64::from(largest).max(1.0), "{off}");
            }
            // Along the direction of the gradient itself, by the losses of both sides.
            for member in &members {
                let own = of(&[member]);
                let norm = own.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                let loss = |by: f64| {
                    let moved: Vec<f32> = (prompt.values().iter().zip(&own))
                        .map(|(v, g)| v + (by * f64::from(*g) / norm) as f32)
                        .collect();
                    trainee.losses(&trainee.place(prompt.with(&moved).as_ref()), &[member])[0]
                };
                let slope = (loss(1e-3) - loss(-1e-3)) / 2e-3;
                assert!((slope / norm - 1.0).abs() < 1e-2, "{family}: {slope}, not {norm}");
            }
            assert_norms(family, &trainee, &prompt, &members, of);
        }
    }
}

/// What is trained is saved, read back, and merged into the model that training saw.
#[test]
fn few_weights_are_read_back_as_they_were_trained() {
    let folder = tempfile::tempdir().expect("a folder");
    for family in FAMILIES {
        let model = model(family);
        for method in [Method::LoraFa, Method::Bitfit, Method::Ia3, Method::SoftPrompt] {
            let config = FinetuneConfig {
                method,
                rank: 2,
                ..FinetuneConfig::default()
            };
            let mut trained = trainable::initial(&config, &model);
            assert_eq!(
                trained.values().len(),
                trainable::count(&config, model.shape()),
                "{family}"
            );
            assert_eq!(
                trained.merged(&model).values(),
                model.values(),
                "{family}: nothing is changed yet"
            );
            let wave = |(i, v): (usize, &mut f32)| *v += 0.1 * (i as f32).cos();
            trained.values_mut().iter_mut().enumerate().for_each(wave);
            let path = folder.path().join(format!("{family}-{method:?}.safetensors"));
            trained.save(&path).expect("writes");
            let read = trainable::load(&config, &model, &path).expect("reads");
            assert_eq!(read.values(), trained.values(), "{family} {method:?}");
            // A soft prompt is no weight: what it changes is what the model computes.
            let losses = |model: &LanguageModel| {
                let (trainee, records) = (trainee(model, false), records());
                let nothing = trainable::initial(&FinetuneConfig::default(), model);
                trainee.losses(&trainee.place(nothing.as_ref()), &records.iter().collect::<Vec<_>>())
            };
            let merged = losses(&read.merged(&model));
            assert_eq!(merged, losses(&trained.merged(&model)));
            assert_ne!(merged, losses(&model), "{family} {method:?}");
        }
    }
}

/// The whole way: trained, drawn from, audited, exported.
#[test]
fn few_weights_go_the_whole_way() {
    for method in ["lora-fa", "bitfit", "ia3", "soft-prompt"] {
        let place = Place::new().with_tiny_model();
        let own = format!("finetune.method={method}");
        let set: Vec<&str> = [
            own.as_str(),
            "finetune.steps=2",
            "sample.records=8",
            "sample.tokens=200",
        ]
        .into_iter()
        .flat_map(|setting| ["--set", setting])
        .collect();
        for stage in ["prepare", "finetune", "sample"] {
            place.done(stage, &set);
        }
        place.audit();
        let export = ["export", "runs/tiny-quick", "--to", "exported"];
        if method == "soft-prompt" {
            place.call(&export).refused(2, &["no weight of the model"]);
            continue;
        }
        place.ok(&export);
        assert!(place.path("exported/model.safetensors").exists(), "{method}");
        assert_eq!(place.path("exported/adapter").exists(), method == "lora-fa");
    }
}
