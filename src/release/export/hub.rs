//! The JSON files beside the weights, as transformers 4 and 5 and PEFT read them.

use serde_json::{Map, Value, json};

use super::Dtype;
use crate::Result;
use crate::config::RunConfig;
use crate::models::llama::{LlamaConfig, Map as LinearMap};
use crate::models::load::gguf::Gguf;
use crate::release::facts::BaseModel;

/// A token that means something to the model: its number and how it is written.
type Token = (u32, String);

/// The tokens with a role.
pub struct Special {
    /// Ends a record.
    eos: Token,
    bos: Option<Token>,
    unk: Option<Token>,
    /// Fills batches up; where the model names none, [`Special::eos`].
    pad: Token,
}

impl Special {
    /// As a GGUF names them.
    ///
    /// # Errors
    /// Data: it names none that ends a text.
    pub fn of(gguf: &Gguf) -> Result<Self> {
        let tokens = gguf.texts("tokenizer.ggml.tokens")?;
        let token = |role: &str| -> Result<Option<Token>> {
            let id = gguf.count(&format!("tokenizer.ggml.{role}_token_id"))?;
            Ok(tokens.get(id).map(|text| (id as u32, text.clone())))
        };
        let optional = |role: &str| token(role).ok().flatten();
        let eos = token("eos")?.ok_or_else(|| {
            crate::Error::data("the model's end token is not in its vocabulary").hint("fetch the model again")
        })?;
        Ok(Special {
            bos: optional("bos"),
            unk: optional("unknown"),
            pad: optional("padding").unwrap_or_else(|| eos.clone()),
            eos,
        })
    }

    fn roles(&self) -> [(&'static str, Option<&Token>); 4] {
        [
            ("bos", self.bos.as_ref()),
            ("eos", Some(&self.eos)),
            ("pad", Some(&self.pad)),
            ("unk", self.unk.as_ref()),
        ]
    }

    /// `bos_token_id` and so on, of the roles that generation knows.
    fn ids(&self) -> Map<String, Value> {
        let roles = self.roles().into_iter().filter(|(role, _)| *role != "unk");
        roles
            .map(|(role, token)| (format!("{role}_token_id"), json!(token.map(|t| t.0))))
            .collect()
    }

    /// `bos_token` and so on.
    fn texts(&self) -> Map<String, Value> {
        let given = self
            .roles()
            .into_iter()
            .filter_map(|(role, token)| Some((role, token?)));
        given
            .map(|(role, token)| (format!("{role}_token"), json!(token.1)))
            .collect()
    }
}

fn with(value: Value, more: Map<String, Value>) -> Value {
    let mut out = value.as_object().cloned().unwrap_or_default();
    out.extend(more);
    Value::Object(out)
}

/// `config.json`. What transformers 4 and 5 name differently stands under both names.
pub fn config(shape: &LlamaConfig, special: &Special, dtype: Dtype) -> Value {
    let own = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "dtype": dtype.torch(),
        "head_dim": shape.head_width(),
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "initializer_range": 0.02,
        "intermediate_size": shape.hidden,
        "max_position_embeddings": shape.context,
        "mlp_bias": false,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": epsilon(shape.norm_epsilon),
        "rope_parameters": { "rope_type": "default", "rope_theta": shape.rope_base },
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": true,
        "torch_dtype": dtype.torch(),
        "use_cache": true,
        "vocab_size": shape.vocabulary,
    });
    with(own, special.ids())
}

/// GGUF holds it as f32: 1e-5 comes back as 9.999999747378752e-6, which is the same f32.
fn epsilon(value: f64) -> Value {
    let short: f64 = format!("{}", value as f32).parse().unwrap_or(value);
    json!(short)
}

/// `generation_config.json`: draws as the run did, but for guidance and refinement.
pub fn generation(config: &RunConfig, special: &Special) -> Value {
    let sample = &config.sample;
    let own = json!({
        "do_sample": true,
        "temperature": sample.temperature,
        "top_p": sample.top_p,
        // Unset, transformers would keep the 50 likeliest tokens alone.
        "top_k": 0,
        "max_new_tokens": sample.max_tokens.unwrap_or(config.prepare.max_tokens),
    });
    with(own, special.ids())
}

/// `tokenizer_config.json`, with the chat template. The class is the one that takes `tokenizer.json` as it is: others
/// build their own splitting of the text and would part digits otherwise.
pub fn tokenizer(shape: &LlamaConfig, special: &Special, chat_template: &str) -> Value {
    let own = json!({
        "add_prefix_space": false,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": false,
        "model_max_length": shape.context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    with(own, special.texts())
}

/// `special_tokens_map.json`.
pub fn special_tokens(special: &Special) -> Value {
    Value::Object(special.texts())
}

/// `adapter_config.json`.
pub fn adapter(rank: usize, alpha: f64, base: &BaseModel) -> Value {
    let name = |map: &LinearMap| map.hub_name().rsplit('.').next().unwrap_or_default().to_string();
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
        "target_modules": LinearMap::ALL.iter().map(name).collect::<Vec<_>>(),
        "modules_to_save": null,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "use_dora": false,
        "use_rslora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}
