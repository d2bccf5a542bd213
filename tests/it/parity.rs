//! Each family of models by `parity/families.py`: the same numbers as transformers, PEFT and PyTorch's autograd.

use std::path::PathBuf;

use crate::support::{block, device, floats, furthest, ids, norm, values};
use dpsynth::config::{Clipping, Precision};
use dpsynth::models::cache::Way;
use dpsynth::models::load::blocks::Format;
use dpsynth::models::load::gguf::Gguf;
use dpsynth::models::lora::Adapter;
use dpsynth::models::weights::Weights;
use dpsynth::models::{LanguageModel, Plain};
use dpsynth::records::{Encoded, Record, Vocabulary};
use dpsynth::sampling::choose::Choice;
use dpsynth::sampling::decode::{Decoder, Decoding, Request};
use dpsynth::sampling::score::{Scorer, Text};
use dpsynth::training::clip::Clip;
use dpsynth::training::gradients::{Compute, Trainee};
use dpsynth::training::objective::Objective;
use dpsynth::training::trainable::Trainable;
use safetensors::SafeTensors;
use serde_json::Value;

/// Norm, loss and direction of each record's gradient, in a batch with the others and with padding.
pub fn held_against(model: &LanguageModel, trained: &dyn Trainable, of: &Value, theirs: &[Vec<f64>]) {
    let record = |r: &Value| Encoded {
        tokens: ids(&r["tokens"]),
        prompt: r["prompt"].as_u64().expect("a count") as usize,
        label: 0,
    };
    let records: Vec<Encoded> = of["records"].as_array().expect("records").iter().map(record).collect();
    let all: Vec<&Encoded> = records.iter().collect();
    for activation_checkpointing in [false, true] {
        let compute = Compute {
            precision: Precision::F32,
            activation_checkpointing,
        };
        let trainee = Trainee::with(model, compute, Objective::text());
        let clip = |max_grad_norm| Clip::new(Clipping::Flat, max_grad_norm);
        let placed = trainee.place(trained);
        let got = trainee.clipped_sum(&placed, &all, clip(1e9));
        for (i, own) in of["records"].as_array().expect("records").iter().enumerate() {
            let number = |key: &str| own[key].as_f64().expect("a number");
            assert!((got.losses[i] - number("loss")).abs() < 1e-5, "record {i}");
            assert!((got.norms[i] / number("norm") - 1.0).abs() < 1e-5, "record {i}");
        }
        for (i, wanted) in theirs.iter().enumerate() {
            // Alone and bounded to 0.5.
            let got = trainee.clipped_sum(&placed, &all[i..=i], clip(0.5)).values();
            let factor = 0.5 / norm(wanted.iter().copied());
            let off = furthest(got, wanted.iter().map(|g| g * factor));
            assert!(off < 1e-5, "record {i}: {off:e} off");
        }
        // Together and bounded: each by its own norm.
        let got = trainee.clipped_sum(&placed, &all, clip(0.5)).values();
        let sum = |at: usize| -> f64 {
            let of = |g: &Vec<f64>| g[at] * 0.5 / norm(g.iter().copied());
            theirs.iter().map(of).sum()
        };
        let off = furthest(got, (0..theirs[0].len()).map(sum));
        assert!(off < 1e-5, "the sum is {off:e} off");
    }
}

/// A tensor of f32.
pub fn numbers(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    let data = tensors.tensor(name).expect("a tensor").data().to_vec();
    let four = data.chunks_exact(4);
    four.map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four bytes"))))
        .collect()
}

/// A folder of `parity`.
struct Family {
    folder: PathBuf,
    model: LanguageModel,
    expected: Value,
}

impl Family {
    fn open(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/parity")
            .join(name);
        let expected = std::fs::read(folder.join("expected.json")).expect("reads");
        Family {
            model: LanguageModel::open(&folder, &device()).expect("a model"),
            expected: serde_json::from_slice(&expected).expect("JSON"),
            folder,
        }
    }

    fn adapter(&self) -> Adapter {
        let of = &self.expected["lora"];
        let (rank, alpha) = (
            of["rank"].as_u64().expect("a rank"),
            of["alpha"].as_f64().expect("a number"),
        );
        let file = self.folder.join("adapter.safetensors");
        Adapter::load(&file, self.model.shape(), rank as usize, alpha).expect("an adapter")
    }

    fn gradients(&self, of: impl Fn(&SafeTensors, usize) -> Vec<f64>) -> Vec<Vec<f64>> {
        let file = std::fs::read(self.folder.join("gradients.safetensors")).expect("reads");
        let tensors = SafeTensors::deserialize(&file).expect("safetensors");
        (0..3).map(|i| of(&tensors, i)).collect()
    }

    /// All that transformers, PEFT and autograd say.
    fn hold(&self) {
        self.hold_logits();
        self.hold_going_on();
        self.hold_worth_behind_a_prompt();
        let adapter = self.adapter();
        let merged = self.model.merged(|slot| adapter.delta(slot, &device()));
        let tokens = ids(&self.expected["texts"][0]["tokens"]);
        let off = furthest(logits(&merged, &tokens), floats(&self.expected["lora"]["logits"]));
        assert!(off < 1e-4, "logits with the adapter are {off:e} off");
        let theirs = self.gradients(|t, i| numbers(t, &format!("lora.{i}")));
        held_against(&self.model, &adapter, &self.expected["lora"], &theirs);
        let slots = &self.model.shape().slots;
        let theirs = self.gradients(|t, i| {
            let of_slots = slots.iter().map(|slot| numbers(t, &format!("base.{i}.{}", slot.name)));
            of_slots.flatten().collect()
        });
        held_against(&self.model, &Weights::of(&self.model), &self.expected["base"], &theirs);
    }

    fn texts(&self) -> &[Value] {
        self.expected["texts"].as_array().expect("texts")
    }

    fn hold_logits(&self) {
        for text in self.texts() {
            let off = furthest(logits(&self.model, &ids(&text["tokens"])), floats(&text["logits"]));
            assert!(off < 1e-4, "logits are {off:e} off");
        }
    }

    /// Through the caches: the likeliest tokens behind a prompt.
    fn hold_going_on(&self) {
        let of = &self.expected["greedy"];
        let (prompt, continuation) = (ids(&of["prompt"]), ids(&of["continuation"]));
        let likeliest = Decoding {
            choice: Choice {
                temperature: 1e-3,
                ..Choice::PLAIN
            },
            guidance_end: None,
            contrasts: 0,
            max_tokens: continuation.len(),
            end: 63,
            seed: 0,
        };
        let request = |id| Request {
            id,
            attempt: 0,
            label: (id % 2) as usize,
        };
        let requests: Vec<Request> = (0..4).map(request).collect();
        for way in [Way::Memory, Way::Tensors] {
            // Beside a prompt of another length.
            let prompts = [prompt.clone(), prompt[..2].to_vec()];
            let decoder = Decoder::by(way, &self.model, &prompts, likeliest).expect("a decoder");
            for (request, drawn) in requests.iter().zip(decoder.decode(&requests, 3)) {
                match request.label {
                    0 => assert_eq!(drawn, continuation, "{way:?}"),
                    _ => assert!(!drawn.is_empty()),
                }
            }
        }
    }

    /// By the cache in memory and by the one of tensors, where positions begin behind the prompt.
    fn hold_worth_behind_a_prompt(&self) {
        for text in self.texts() {
            let tokens = ids(&text["tokens"]);
            let wanted = text["log_probability"].as_f64().expect("a number");
            for way in [Way::Memory, Way::Tensors] {
                let scorer = Scorer::by(way, &self.model, &[tokens[..1].to_vec()]);
                let scored = scorer.score(&[Text {
                    tokens: &tokens[1..],
                    labels: &[0],
                }]);
                assert!((scored[0][0] - wanted).abs() < 1e-3, "{way:?}: {scored:?} and {wanted}");
            }
        }
    }
}

fn logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    values(model.logits(model.hidden(block(&[tokens]), None, &mut Plain)))
}

/// Llama 3's positions, heads wider than the width over their number, a head of its own.
#[test]
fn p5_llama3_is_that_of_transformers() {
    Family::open("llama3").hold();
}

/// Biases in attention, positions slowed down evenly.
#[test]
fn p5_a_llama_with_biases_is_that_of_transformers() {
    Family::open("llama_bias").hold();
}

#[test]
fn p5_mistral_is_that_of_transformers() {
    Family::open("mistral").hold();
}

/// Biases on queries, keys and values; shards of float16.
#[test]
fn p5_qwen2_is_that_of_transformers() {
    Family::open("qwen2").hold();
}

/// Normed queries and keys, a head of its own; shards of bfloat16.
#[test]
fn p5_qwen3_is_that_of_transformers() {
    Family::open("qwen3").hold();
}

/// A window shorter than the text, two kinds of rotary positions, gains less one.
#[test]
fn p5_gemma3_is_that_of_transformers() {
    Family::open("gemma3").hold();
}

pub fn beside(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/parity")
        .join(name)
}

fn of_gguf() -> Value {
    serde_json::from_slice(&std::fs::read(beside("gguf.json")).expect("reads")).expect("JSON")
}

/// The same models as llama.cpp's files hold them.
#[test]
fn a_gguf_gives_the_logits_of_its_checkpoint() {
    for name in ["llama3", "qwen2", "qwen3"] {
        let model = LanguageModel::open(&beside(&format!("{name}.gguf")), &device()).expect("a model");
        let family = Family::open(name);
        for text in family.texts() {
            let off = furthest(logits(&model, &ids(&text["tokens"])), floats(&text["logits"]));
            assert!(off < 1e-4, "{name}: logits are {off:e} off");
        }
        let (own, theirs) = (model.architecture().config(), family.model.architecture().config());
        for key in [
            "model_type",
            "hidden_size",
            "head_dim",
            "tie_word_embeddings",
            "num_key_value_heads",
        ] {
            let same = key == "head_dim" && theirs[key].is_null() || own[key] == theirs[key];
            assert!(same, "{name}: {key} is {} and {}", own[key], theirs[key]);
        }
    }
    let model = LanguageModel::open(&beside("gemma3.gguf"), &device()).expect("a model");
    for text in of_gguf()["gemma3"].as_array().expect("texts") {
        let off = furthest(logits(&model, &ids(&text["tokens"])), floats(&text["logits"]));
        assert!(off < 1e-4, "gemma3: logits are {off:e} off");
    }
}

#[test]
fn blocks_hold_the_numbers_that_ggml_says() {
    let file = std::fs::read(beside("blocks.safetensors")).expect("reads");
    let tensors = SafeTensors::deserialize(&file).expect("safetensors");
    let formats = [
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q5_0", 6),
        ("Q5_1", 7),
        ("Q8_0", 8),
        ("Q4_K", 12),
        ("Q5_K", 13),
        ("Q6_K", 14),
    ];
    for (name, id) in formats {
        let format = Format::from_id(id).expect("a format");
        let own = format.numbers(tensors.tensor(name).expect("blocks").data());
        let theirs = numbers(&tensors, &format!("{name}.numbers"));
        assert_eq!(own.len(), theirs.len(), "{name}");
        let differs = own
            .iter()
            .zip(&theirs)
            .find(|(own, theirs)| f64::from(**own) != **theirs);
        assert_eq!(differs, None, "{name}");
    }
}

#[test]
fn tokens_of_scored_pieces_are_those_of_sentence_piece() {
    let vocabulary = Vocabulary::from_gguf(&Gguf::open(&beside("pieces.gguf")).expect("opens")).expect("a tokenizer");
    for text in of_gguf()["pieces"].as_array().expect("texts") {
        let own = text["text"].as_str().expect("a text");
        let record = Record {
            text: own.to_string(),
            label: 0,
            unit: 0,
        };
        let encoded = vocabulary.records(&[record], &[vec![2]], 1000).expect("tokens");
        let tokens = &encoded[0].tokens[1..];
        assert_eq!(tokens[..tokens.len() - 1], ids(&text["tokens"]), "{own:?}");
        assert_eq!(tokens.last(), Some(&1));
        assert_eq!(vocabulary.decode(&tokens[..tokens.len() - 1]).expect("a text"), own);
    }
    // Control tokens are read where a prompt has them; a model without a template begins with its own first token.
    assert_eq!(vocabulary.prompt("<s>").expect("tokens").len(), 1);
    assert!(vocabulary.chat_template().text.starts_with("{{ bos_token }}"));
    // It is asked by `prompt.plain` as it stands, else by the request and a line's end.
    let labels: Vec<dpsynth::config::LabelConfig> =
        serde_json::from_str(r#"[{"column": "label", "names": ["bad", "good"]}]"#).expect("labels");
    let labels = dpsynth::records::LabelSpace::from_config(&labels).expect("labels");
    let asked = |plain: Option<&str>, system: Option<&str>| {
        let config = dpsynth::config::PromptConfig {
            system: system.map(str::to_string),
            user: "A {{ label }} review.".into(),
            plain: plain.map(str::to_string),
            marginal: None,
            question: None,
        };
        let made = dpsynth::records::prompt::prompts(&config, &labels, vocabulary.chat_template());
        made.expect("prompts").swap_remove(1)
    };
    assert_eq!(asked(None, Some("")), "<s>A good review.\n");
    assert_eq!(asked(None, Some("Reviews.")), "<s>Reviews.\nA good review.\n");
    assert_eq!(asked(Some("{{ label }}:"), None), "<s>good:");
}

#[test]
fn a_missing_shard_a_wrong_shape_and_a_shard_elsewhere_are_told_by_name() {
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity/qwen3");
    let copy = tempfile::tempdir().expect("a folder");
    let fresh = || {
        for file in std::fs::read_dir(&from).expect("reads") {
            let file = file.expect("a file").path();
            std::fs::copy(&file, copy.path().join(file.file_name().expect("a name"))).expect("copies");
        }
    };
    let refused = || {
        let error = LanguageModel::open(copy.path(), &device()).err().expect("refused");
        assert_eq!(error.exit_code(), 3, "{error}");
        error.to_string()
    };
    let edit = |name: &str, from: &str, to: &str| {
        let path = copy.path().join(name);
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.contains(from), "{name} has {from}");
        std::fs::write(path, text.replace(from, to)).expect("writes");
    };
    fresh();
    std::fs::remove_file(copy.path().join("model-00002-of-00002.safetensors")).expect("there was one");
    assert!(refused().contains("model-00002-of-00002.safetensors"));
    fresh();
    edit("config.json", "\"head_dim\": 6", "\"head_dim\": 8");
    let told = refused();
    assert!(
        told.contains("self_attn.q_proj.weight") && told.contains("[24, 16]"),
        "{told}"
    );
    fresh();
    edit(
        "model.safetensors.index.json",
        "model-00002-of-00002.safetensors",
        "../model.safetensors",
    );
    assert!(refused().contains("../model.safetensors"));
    fresh();
    let cut = copy.path().join("model-00001-of-00002.safetensors");
    let bytes = std::fs::read(&cut).expect("reads");
    std::fs::write(&cut, &bytes[..bytes.len() - 2]).expect("writes");
    assert!(refused().contains("model-00001-of-00002.safetensors"));
    std::fs::write(&cut, [0xff; 64]).expect("writes");
    assert!(refused().contains("header"));
    fresh();
    edit("config.json", "\"default\"", "\"yarn\"");
    assert!(refused().contains("yarn"));
    // What declares too much is refused before anything is made of it.
    for (from, to) in [
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1048576"),
        ("\"head_dim\": 6", "\"head_dim\": 262144"),
        ("\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -5.0"),
        ("\"rope_theta\": 1000.0", "\"rope_theta\": 0.0"),
        ("\"full_attention\",\n", ""),
        ("full_attention", "chunked_attention"),
    ] {
        fresh();
        edit("config.json", from, to);
        refused();
    }
    fresh();
    edit(
        "config.json",
        "\"max_position_embeddings\": 48",
        "\"max_position_embeddings\": 1048576",
    );
    assert_eq!(
        LanguageModel::open(copy.path(), &device())
            .expect("a model")
            .shape()
            .context,
        1 << 15
    );
    fresh();
    edit("model.safetensors.index.json", "model-0000", "none-0000");
    assert!(refused().contains("none-0000"));
}

/// Tokens that the model has not were found in a training worker, after the charge, by their numbers.
#[test]
fn a_tokenizer_of_another_model_was_found_in_private_records() {
    let copy = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(beside("llama3").join(file), copy.path().join(file)).expect("copies");
    }
    let other = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(other.join(file), copy.path().join(file)).expect("copies");
    }
    let place = crate::common::Place::new();
    let said = place.call(&[
        "plan",
        "tiny.toml",
        "--profile",
        "quick",
        "--set",
        &format!("model={}", copy.path().display()),
    ]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stderr.contains("the tokenizer has token"), "{said:?}");
}

/// A repository's branch is no name of bytes: between two stages other weights may stand behind it.
#[test]
fn a_repository_that_moved_under_a_run_was_drawn_from() {
    let place = crate::common::Place::new();
    let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2");
    let repository = place.path("hf/hub/models--someone--model");
    let snapshot = |commit: &str, change: u8| {
        let folder = repository.join("snapshots").join(commit);
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
        ] {
            let mut bytes = std::fs::read(fixture.join(file)).expect("reads");
            if file == "model.safetensors" {
                // A low bit of the last value.
                let last = bytes.len() - 4;
                bytes[last] ^= change;
            }
            std::fs::write(folder.join(file), bytes).expect("writes");
        }
    };
    let points_to = |commit: &str| {
        std::fs::create_dir_all(repository.join("refs")).expect("a folder");
        std::fs::write(repository.join("refs/main"), commit).expect("writes");
    };
    snapshot("aaaa", 0);
    snapshot("bbbb", 1);
    points_to("aaaa");
    let stage = |stage: &str| {
        let mut command = place.command(&[stage, "tiny.toml", "--profile", "quick", "--set", "model=someone/model"]);
        let command = command.env("HF_HOME", place.path("hf")).env("HF_HUB_OFFLINE", "1");
        crate::common::Said::from(command.output().expect("starts"))
    };
    let prepared = stage("prepare");
    assert_eq!(prepared.code, Some(0), "{prepared:?}");
    points_to("bbbb");
    for next in ["finetune", "finetune"] {
        let said = stage(next);
        assert_eq!(said.code, Some(3), "{said:?}");
        assert!(said.stderr.contains("is not the model that was trained"), "{said:?}");
    }
    let untouched = !place.path("ledgers").exists() || place.ledgers() == 0;
    assert!(untouched, "nothing is charged");
    points_to("aaaa");
    assert_eq!(stage("finetune").code, Some(0));
    points_to("bbbb");
    assert_eq!(stage("sample").code, Some(3));
}

/// Chat templates call methods of Python's texts, and refuse in words of their own.
#[test]
fn templates_that_call_pythons_methods_did_not_render() {
    let vocabulary = Vocabulary::from_gguf(&Gguf::open(&beside("pieces.gguf")).expect("opens")).expect("a tokenizer");
    let template = |text: &str| dpsynth::records::prompt::ChatTemplate {
        text: text.into(),
        ..vocabulary.chat_template().clone()
    };
    let after = |text: &str| dpsynth::records::prompt::after_a_turn(&template(text));
    let python = "{% for m in messages %}{% if m['content'].strip().startswith('ab') %}{{ m.content.split('x')[0] }}!\
                  {% endif %}{% endfor %}{% if enable_thinking is defined and enable_thinking is false %}?{% endif %}";
    assert_eq!(after(python).expect("renders"), "!?");
    let error = after("{{ raise_exception('no assistant here') }}").unwrap_err();
    assert!(error.to_string().contains("no assistant here"), "{error}");
}
