//! The JSON files beside the weights, as transformers 4 and 5 and PEFT read them.

use serde_json::{Map, Value, json};

use super::Dtype;
use crate::config::RunConfig;
use crate::facts::BaseModel;
use crate::models::Architecture;
use crate::models::shape::{Kind, Shape, Stored};
use crate::records::tokenise::{SpecialTokens, Token};

fn roles(special: &SpecialTokens) -> [(&'static str, Option<&Token>); 4] {
    [
        ("bos", special.bos.as_ref()),
        ("eos", Some(&special.eos)),
        // Batches are filled up with something.
        ("pad", special.pad.as_ref().or(Some(&special.eos))),
        ("unk", special.unk.as_ref()),
    ]
}

/// `bos_token_id` and so on, of the roles that generation knows.
fn ids(special: &SpecialTokens) -> Map<String, Value> {
    let known = roles(special).into_iter().filter(|(role, _)| *role != "unk");
    known
        .map(|(role, token)| (format!("{role}_token_id"), json!(token.map(|t| t.0))))
        .collect()
}

/// `bos_token` and so on.
fn texts(special: &SpecialTokens) -> Map<String, Value> {
    let given = roles(special)
        .into_iter()
        .filter_map(|(role, token)| Some((role, token?)));
    given
        .map(|(role, token)| (format!("{role}_token"), json!(token.1)))
        .collect()
}

fn with(value: Value, more: Map<String, Value>) -> Value {
    let mut out = value.as_object().cloned().unwrap_or_default();
    out.extend(more);
    Value::Object(out)
}

/// `config.json`. What transformers 4 and 5 name differently is there under both names.
pub fn config(architecture: &dyn Architecture, special: &SpecialTokens, dtype: Dtype) -> Value {
    let own = with(
        architecture.config(),
        [("dtype", dtype), ("torch_dtype", dtype)]
            .map(|(key, dtype)| (key.to_string(), json!(dtype.torch())))
            .into_iter()
            .collect(),
    );
    with(own, ids(special))
}

/// `generation_config.json`: draws as the run did, but for guidance and refinement.
pub fn generation(config: &RunConfig, special: &SpecialTokens) -> Value {
    let sample = &config.sample;
    let own = json!({
        "do_sample": true,
        "temperature": sample.temperature,
        "top_p": sample.top_p,
        // Unset, transformers would keep the 50 likeliest tokens alone.
        "top_k": 0,
        "max_new_tokens": config.drawn_tokens(),
    });
    with(own, ids(special))
}

/// `tokenizer_config.json`, with the chat template. The class is the one that takes `tokenizer.json` as it is: others
/// build their own splitting of the text and would part digits otherwise.
pub fn tokenizer(shape: &Shape, special: &SpecialTokens, chat_template: &str) -> Value {
    let own = json!({
        "add_prefix_space": false,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": false,
        "model_max_length": shape.context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    with(own, texts(special))
}

/// `special_tokens_map.json`.
pub fn special_tokens(special: &SpecialTokens) -> Value {
    Value::Object(texts(special))
}

/// `adapter_config.json`.
pub fn adapter(shape: &Shape, rank: usize, alpha: f64, base: &BaseModel) -> Value {
    let mut modules: Vec<&str> = Vec::new();
    for (slot, _) in shape.maps() {
        let module = shape.slots[slot].module().rsplit('.').next().unwrap_or_default();
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
    let conv1d = shape.slots.iter().any(|slot| slot.kind == Kind::Map(Stored::Conv1d));
    // PEFT and vLLM expect an integer where it is one.
    let alpha = match alpha.fract() == 0.0 && alpha.abs() < 1e15 {
        true => json!(alpha as i64),
        false => json!(alpha),
    };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.repo,
        "revision": base.revision,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": modules,
        "modules_to_save": null,
        "bias": "none",
        "fan_in_fan_out": conv1d,
        "init_lora_weights": true,
        "use_dora": false,
        "use_rslora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}
