//! The exported model: that it is the run's own, that transformers, PEFT and tokenizers read it, what is refused, what is left
//! behind. `make interop-model` shows it to transformers and PEFT themselves.
#![cfg(unix)]

#[allow(unused)]
use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::{Place, Said};
use dpsynth::models::{LanguageModel, Plain};
use half::bf16;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tokenizers::Tokenizer;

const RUN: &str = "runs/tiny-quick";

/// A finished run of the tiny model. `spoil` changes what was trained before the run is audited.
fn audited(more: &[&str], spoil: impl FnOnce(&Place)) -> Place {
    let place = Place::new();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let set: Vec<&str> = [model.as_str()].iter().chain(more).flat_map(|s| ["--set", s]).collect();
    place.done("run", &set);
    spoil(&place);
    place.done("sample", &set);
    place.audit();
    place
}

/// One whose adapter is the one that PEFT saved.
fn with_pefts_adapter() -> Place {
    audited(&["finetune.rank=2", "finetune.alpha=6"], |place| {
        fs::copy(
            support::fixture("adapter.safetensors"),
            place.run("model/trained.safetensors"),
        )
        .expect("copies");
        place.charge_to_what_is_there();
    })
}

fn export(place: &Place, more: &[&str]) -> Said {
    place.ok(&[&["export", RUN], more].concat())
}

/// Type, shape and values of each tensor.
fn tensors(path: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(path).expect("reads");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    let format = header.metadata().as_ref().and_then(|m| m.get("format").cloned());
    // Without it transformers 4 refuses the file.
    assert_eq!(format.unwrap_or("pt".into()), "pt");
    let read = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |dtype: Dtype, data: &[u8]| -> Vec<f32> {
        match dtype {
            Dtype::F32 => data
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            Dtype::BF16 => data
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
                .collect(),
            Dtype::F16 => data
                .chunks_exact(2)
                .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32())
                .collect(),
            other => panic!("{other:?}"),
        }
    };
    let of = |(name, t): (String, safetensors::tensor::TensorView)| {
        (name, (t.dtype(), t.shape().to_vec(), values(t.dtype(), t.data())))
    };
    read.tensors().into_iter().map(of).collect()
}

/// The fixture's shape with the weights of an exported file, by their names in Hugging Face checkpoints.
fn loaded(path: &Path) -> LanguageModel {
    let base = support::model();
    let mut held = tensors(path);
    let mut values = Vec::new();
    for slot in &base.shape().slots {
        let name = &slot.name;
        let (_, own, weights) = held.remove(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(own, slot.shape, "{name}");
        values.extend(weights);
    }
    assert!(held.is_empty(), "transformers would not know {:?}", held.keys());
    base.with_values(&values)
}

/// Of the token behind `tokens`.
fn next_token(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    let hidden = model.hidden(support::block(&[tokens]), None, &mut Plain);
    let last = hidden.narrow(0, tokens.len() - 1, 1);
    support::values(model.logits(last))
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).expect("a folder").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                let name = entry
                    .strip_prefix(folder)
                    .expect("is below")
                    .to_string_lossy()
                    .into_owned();
                out.insert(name, fs::read(&entry).expect("reads"));
            }
        }
    }
    out
}

#[test]
fn the_exported_model_and_adapter_are_what_transformers_and_peft_make_of_the_same() {
    let place = with_pefts_adapter();
    export(&place, &["--to", "out", "--with-base"]);
    let expected = support::expected();
    let (lora, hub) = (&expected["lora"], &expected["hub"]);

    let merged = place.path("out/model.safetensors");
    let logits = next_token(&loaded(&merged), &support::ids(&expected["sequence"]));
    let furthest = support::furthest(logits, support::floats(&lora["logits"]));
    assert!(furthest < 1e-3, "PEFT's next-token logits are {furthest} away");
    let shapes: BTreeMap<String, Vec<usize>> = tensors(&merged)
        .into_iter()
        .map(|(n, (_, shape, _))| (n, shape))
        .collect();
    assert_eq!(
        serde_json::to_value(shapes).expect("JSON"),
        hub["tensors"],
        "as save_pretrained names them"
    );

    let peft = tensors(&support::fixture("adapter.safetensors"));
    assert_eq!(tensors(&place.path("out/adapter/adapter_model.safetensors")), peft);
    assert_eq!(
        loaded(&place.path("out/base/model.safetensors")).values(),
        support::model().values()
    );

    // Keys that save_pretrained writes have its values; those that it writes and we do not are known.
    let same = |ours: Value, theirs: &Value, left_out: &[&str], other: &[&str]| {
        for (key, value) in theirs.as_object().expect("an object") {
            match ours.get(key) {
                None => assert!(left_out.contains(&key.as_str()), "{key}"),
                Some(own) => assert!(
                    other.contains(&key.as_str()) || own == value,
                    "{key}: {own}, not {value}"
                ),
            }
        }
    };
    // It names no padding token, and does not know its base.
    same(
        place.json("out/config.json"),
        &hub["config"],
        &["pretraining_tp"],
        &["pad_token_id"],
    );
    let defaults: Vec<&str> = hub["adapter_config"]
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let needed = [
        "peft_type",
        "r",
        "lora_alpha",
        "target_modules",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
    ];
    let optional: Vec<&str> = defaults.into_iter().filter(|k| !needed.contains(k)).collect();
    let mut adapter = place.json("out/adapter/adapter_config.json");
    let maps = adapter["target_modules"].as_array_mut().expect("a list");
    maps.sort_by_key(|m| m.to_string());
    same(adapter, &hub["adapter_config"], &optional, &["task_type"]);

    let generation = place.json("out/generation_config.json");
    assert_eq!(
        (
            &generation["top_k"],
            &generation["max_new_tokens"],
            &generation["eos_token_id"]
        ),
        (&0.into(), &8.into(), &2.into())
    );
}

#[test]
fn the_exported_tokenizer_gives_the_ids_that_transformers_gave() {
    let place = with_pefts_adapter();
    export(&place, &["--to", "out"]);
    let tokenizer = Tokenizer::from_file(place.path("out/tokenizer.json")).expect("tokenizers reads it");
    let expected = support::expected();
    let ids = |text: &str| tokenizer.encode(text, true).expect("encodes").get_ids().to_vec();
    for text in expected["texts"].as_array().expect("a list") {
        let words = text["text"].as_str().expect("text");
        assert_eq!(ids(words), support::ids(&text["ids_as_prompt"]), "{words:?}");
    }
    let (settings, prompts) = (place.json("out/tokenizer_config.json"), &expected["prompts"]);
    assert_eq!(settings["chat_template"], prompts[0]["template"]);
    for (text, own) in prompts[0]["prompts"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(prompts[0]["ids"].as_array().expect("a list"))
    {
        assert_eq!(ids(text.as_str().expect("text")), support::ids(own));
    }
    assert_eq!(settings["tokenizer_class"], "PreTrainedTokenizerFast");
    for (role, token) in [
        ("bos_token", "<|im_start|>"),
        ("eos_token", "<|im_end|>"),
        ("pad_token", "<|im_end|>"),
    ] {
        assert_eq!(settings[role], token, "{role}");
        assert_eq!(place.json("out/special_tokens_map.json")[role], token, "{role}");
    }
    let written = place.json("out/tokenizer.json");
    let special = |t: &&Value| t["special"] == true;
    let control = written["added_tokens"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(special)
        .count();
    assert_eq!(control, 3, "left out when a text is decoded");
}

#[test]
fn half_precision_rounds_the_merged_weights_alone() {
    let place = with_pefts_adapter();
    export(&place, &["--to", "f32"]);
    export(&place, &["--to", "bf16", "--dtype", "bf16"]);
    export(&place, &["--to", "f16", "--dtype", "f16"]);
    let [f32, rounded, half] =
        ["f32", "bf16", "f16"].map(|to| tensors(&place.path(&format!("{to}/model.safetensors"))));
    for (name, (_, shape, values)) in f32 {
        let expected: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        assert_eq!(rounded[&name], (Dtype::BF16, shape.clone(), expected), "{name}");
        let expected: Vec<f32> = values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
        assert_eq!(half[&name], (Dtype::F16, shape, expected), "{name}");
    }
    assert_eq!(place.json("bf16/config.json")["torch_dtype"], "bfloat16");
    let adapter = |to: &str| fs::read(place.path(&format!("{to}/adapter/adapter_model.safetensors"))).expect("reads");
    assert_eq!(adapter("bf16"), adapter("f32"));
}

#[test]
fn a_fully_fine_tuned_model_has_no_adapter() {
    let place = audited(&["finetune.method=full", "finetune.learning_rate=0.00001"], |_| {});
    export(&place, &["--to", "out"]);
    assert_eq!(
        tensors(&place.path("out/model.safetensors")),
        tensors(&place.run("model/trained.safetensors"))
    );
    assert!(!place.path("out/adapter").exists());
    let card = place.text("out/README.md");
    assert!(!card.contains("adapter") && !card.contains("peft"), "{card}");
}

#[test]
fn p10_the_model_card_says_the_guarantee_whole_and_names_no_file_of_this_machine() {
    let place = with_pefts_adapter();
    let said = export(&place, &["--to", "out", "--with-base"]).stdout;
    let card = place.text("out/README.md");
    let claimed = place.json(&format!("{RUN}/model/privacy.json"))["epsilon"].as_f64();
    let epsilon = format!(
        "epsilon {} (at least ",
        dpsynth::number::up(claimed.expect("a number"), 3)
    );
    for part in [
        "---\nlibrary_name: transformers\n",
        "\n---\n\n# tiny-quick: a language model fine-tuned under differential privacy",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "\"content\":\"Write a negative film review.\"",
        "| positive | Write a positive film review. |",
        "PeftModel.from_pretrained(base",
        "In plain words: This model tells only so much about whether one record",
        &epsilon,
        "at delta 9.44e-4; adjacency add-or-remove-one, unit record, sampler poisson, accountant pld",
        "may have seen public benchmarks",
        "cut at 16 tokens",
    ] {
        assert!(card.contains(part), "no {part:?} in\n{card}");
    }
    assert!(
        said.contains("at delta 9.44e-4; adjacency add-or-remove-one, unit record, sampler poisson, accountant pld")
    );
    let claim = place.json("out/privacy.json");
    assert_eq!(
        claim["guarantee"]["parameters"],
        place.json(&format!("{RUN}/model/privacy.json"))
    );
    let hash = place.json(&format!("{RUN}/internal/prepare.json"))["dataset_hash"].to_string();
    let here = [
        place.path("").display().to_string(),
        env!("CARGO_MANIFEST_DIR").to_string(),
        hash.replace('"', ""),
    ];
    for (name, bytes) in files(&place.path("out")) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(here.iter().all(|private| !text.contains(private.as_str())), "{name}");
    }
}

#[test]
fn p9_each_file_is_classified_and_a_dry_run_writes_none() {
    let place = with_pefts_adapter();
    let listed = |more: &[&str]| -> Value {
        let said = export(&place, &[&["--to", "out/model", "--json"], more].concat()).stdout;
        serde_json::from_str(&said).expect("one JSON object")
    };
    let dry = listed(&["--dry-run"]);
    assert_eq!(dry["written"], false);
    assert!(!place.path("out").exists());
    let wet = listed(&[]);
    assert_eq!((&wet["files"], &wet["statement"]), (&dry["files"], &dry["statement"]));
    let files: BTreeSet<String> = files(&place.path("out/model")).into_keys().collect();
    let parts = wet["files"].as_array().expect("a list");
    assert_eq!(
        parts
            .iter()
            .map(|p| p["path"].as_str().expect("a path").to_string())
            .collect::<BTreeSet<_>>(),
        files
    );
    for part in parts {
        let weights = part["path"].as_str().is_some_and(|p| p.ends_with(".safetensors"));
        assert_eq!(part["class"] == "charged", weights, "{part}");
        assert!(!part["why"].as_str().expect("a reason").is_empty());
    }
}

#[test]
fn the_same_run_gives_the_same_bytes_for_everyone_to_read() {
    let place = with_pefts_adapter();
    export(&place, &["--to", "one", "--with-base"]);
    place.write("ordinary", "");
    let mode = |path: &str| fs::metadata(place.path(path)).expect("is there").permissions().mode();
    for name in files(&place.path("one")).keys() {
        assert_eq!(mode(&format!("one/{name}")), mode("ordinary"), "{name}");
    }
    fs::create_dir(place.path("two")).expect("an empty folder will do");
    export(&place, &["--to", "two", "--with-base"]);
    assert_eq!(files(&place.path("one")), files(&place.path("two")));
}

#[test]
fn what_may_not_leave_is_refused_with_exit_code_4_and_nothing_is_written() {
    let place = audited(&[], |_| {});
    place
        .call(&["export", RUN, "--to", RUN])
        .refused(2, &["runs/tiny-quick is not empty"]);
    place.write("file", "");
    place
        .call(&["export", RUN, "--to", "file"])
        .refused(2, &["file is there already"]);
    // Trained on since the audit.
    let trained = place.run("model/trained.safetensors");
    let mut bytes = fs::read(&trained).expect("reads");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&trained, bytes).expect("writes");
    fs::remove_file(place.ledger()).expect("removes");
    for more in [&[][..], &["--dry-run"]] {
        let said = place.call(&[&["export", RUN, "--to", "out"], more].concat());
        assert_eq!((said.code, said.stdout.as_str()), (Some(4), ""), "{said:?}");
        for reason in [
            "may not be handed out:",
            "the audit was of another model",
            "the ledger ",
        ] {
            assert!(said.stderr.contains(reason), "no {reason:?} in {}", said.stderr);
        }
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_base_model_that_changed_is_refused() {
    let place = Place::new();
    fs::copy(support::fixture("model.gguf"), place.path("base.gguf")).expect("copies");
    place.done("run", &["--set", "model.path=base.gguf"]);
    place.audit();
    let mut bytes = fs::read(place.path("base.gguf")).expect("reads");
    *bytes.last_mut().expect("a byte") ^= 1;
    place.write("base.gguf", bytes);
    place
        .call(&["export", RUN, "--to", "out"])
        .refused(3, &["base.gguf is not the model that was trained"]);
}

#[test]
fn a_disk_that_fills_up_leaves_nothing_behind() {
    let place = with_pefts_adapter();
    let program = place.command(&["export", RUN, "--to", "out/model"]);
    // Files of at most 64 KiB: the weights do not fit. The signal is ignored, so that the write fails as on a full disk.
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    limited
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(place.path(""));
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            limited.env(name, value);
        }
    }
    let said = Said::from(limited.output().expect("starts"));
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.stderr.contains("cannot write "), "{said:?}");
    let left: Vec<_> = fs::read_dir(place.path(""))
        .expect("reads")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    let left: Vec<_> = left
        .iter()
        .filter(|n| n.to_string_lossy().starts_with(".writing-") || *n == "out")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    export(&place, &["--to", "out/model"]);
}
