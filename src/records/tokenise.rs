//! Text to tokens and back, with the tokenizer that the model's own file brings.

use std::collections::HashSet;

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::described;
use crate::files::guarded;
use crate::models::ModelFiles;
use crate::models::load::gguf::Gguf;
use crate::models::load::hub::Checkpoint;
use crate::records::Record;
use crate::records::prompt::{self, ChatTemplate, Form};
use crate::{Error, Result};

/// What stands in for a chat template where a model has none: what stands before a record, as it is put.
const PLAIN: &str = "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'system' and message['content'] %}{{ '\n' }}{% endif %}{% endfor %}";

/// The same, behind the token that begins a text where the tokenizer puts one there by itself.
fn plain(begins_with_bos: bool) -> String {
    match begins_with_bos {
        true => format!("{{{{ bos_token }}}}{PLAIN}"),
        false => PLAIN.into(),
    }
}

/// One record as the model sees it: prompt, then record, then (unless cut off) the end token.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt; the loss is on the rest.
    pub prompt: usize,
    /// Joint label.
    pub label: usize,
}

/// The tokenizer of a causal language model.
pub struct Vocabulary {
    /// Reads control tokens where they are written: for prompts, which are ours.
    prompts: Tokenizer,
    /// Takes control tokens for plain text: for records, which may hold anything.
    records: Tokenizer,
    /// Numbers of the control tokens.
    control: HashSet<u32>,
    special: SpecialTokens,
    chat_template: ChatTemplate,
}

/// A token that means something to the model: its number and how it is written.
pub type Token = (u32, String);

/// The tokens with a role.
#[derive(Clone, Debug)]
pub struct SpecialTokens {
    /// Ends a record: what closes a turn in the chat template, else what ends a document.
    pub eos: Token,
    pub bos: Option<Token>,
    pub unk: Option<Token>,
    /// Fills batches up.
    pub pad: Option<Token>,
}

impl Vocabulary {
    /// Of a model's files.
    ///
    /// # Errors
    /// Data: a tokenizer that is not supported, or that is broken.
    pub fn of(files: &ModelFiles) -> Result<Self> {
        match files {
            ModelFiles::Gguf(gguf) => Vocabulary::from_gguf(gguf),
            ModelFiles::Checkpoint(checkpoint) => {
                guarded(checkpoint.folder(), || Vocabulary::from_checkpoint(checkpoint))
            }
        }
    }

    /// Reads a checkpoint's `tokenizer.json`, and from `tokenizer_config.json` which tokens have a role.
    fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let file = |name: &str| checkpoint.folder().join(name);
        let broken = |name: &str, e: &dyn std::fmt::Display| {
            Error::data(format!("{} cannot be read: {e}", file(name).display())).hint("fetch the model again")
        };
        let mut prompts = Tokenizer::from_file(file("tokenizer.json")).map_err(|e| broken("tokenizer.json", &e))?;
        // As transformers does: what was cut or filled up when the file was saved says nothing of a text here.
        prompts
            .with_truncation(None)
            .map_err(|e| broken("tokenizer.json", &e))?
            .with_padding(None);
        let name = "tokenizer_config.json";
        let text = std::fs::read_to_string(file(name)).map_err(|e| Error::io("read", &file(name), e))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| broken(name, &e))?;
        let token = |role: &str| -> Option<Token> {
            let named = &config[format!("{role}_token")];
            let text = named.as_str().or_else(|| named["content"].as_str())?;
            Some((prompts.token_to_id(text)?, text.to_string()))
        };
        let added = prompts.get_added_tokens_decoder();
        let control = added
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        let special = SpecialTokens {
            eos: token("eos").ok_or_else(|| broken(name, &"it names no token that ends a text"))?,
            bos: token("bos"),
            unk: token("unk"),
            pad: token("pad"),
        };
        let in_a_file = std::fs::read_to_string(file("chat_template.jinja")).ok();
        let named = |templates: &'_ Value| {
            let all = templates.as_array()?.iter();
            all.filter(|t| t["name"] == "default")
                .find_map(|t| t["template"].as_str())
                .map(str::to_string)
        };
        let inside = &config["chat_template"];
        let template = in_a_file
            .or_else(|| inside.as_str().map(str::to_string))
            .or_else(|| named(inside));
        let first = prompts
            .encode("a", true)
            .ok()
            .and_then(|e| e.get_ids().first().copied());
        let begins_with_bos = special.bos.as_ref().is_some_and(|bos| first == Some(bos.0));
        Ok(Vocabulary::new(prompts, control, special, template, begins_with_bos))
    }

    /// `begins_with_bos`: the tokenizer puts its first token before a text by itself.
    fn new(
        prompts: Tokenizer,
        control: HashSet<u32>,
        special: SpecialTokens,
        chat_template: Option<String>,
        begins_with_bos: bool,
    ) -> Self {
        let mut records = prompts.clone();
        records.set_encode_special_tokens(true);
        let text = |token: Option<&Token>| token.map(|(_, text)| text.clone()).unwrap_or_default();
        let chat_template = ChatTemplate {
            form: match chat_template {
                Some(_) => Form::Turn,
                None => Form::Beginning,
            },
            text: chat_template.unwrap_or_else(|| plain(begins_with_bos)),
            bos_token: text(special.bos.as_ref()),
            eos_token: text(Some(&special.eos)),
        };
        let special = SpecialTokens {
            eos: closing(&prompts, &control, &chat_template).unwrap_or(special.eos),
            ..special
        };
        Vocabulary {
            chat_template,
            prompts,
            records,
            control,
            special,
        }
    }

    /// Builds the tokenizer that a GGUF describes.
    ///
    /// # Errors
    /// Data: one of another kind, or that is broken.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let tokens = gguf.texts("tokenizer.ggml.tokens")?;
        let (prompts, control) = described::tokenizer(gguf)?;
        let token = |role: &str| -> Result<Option<Token>> {
            let id = gguf.count(&format!("tokenizer.ggml.{role}_token_id"))?;
            Ok(tokens.get(id).map(|text| (id as u32, text.clone())))
        };
        let optional = |role: &str| token(role).ok().flatten();
        let special = SpecialTokens {
            eos: token("eos")?.ok_or_else(|| {
                Error::data("the model's end token is not in its vocabulary").hint("fetch the model again")
            })?,
            bos: optional("bos"),
            unk: optional("unknown"),
            pad: optional("padding"),
        };
        let scored = gguf.text("tokenizer.ggml.model").is_ok_and(|kind| kind == "llama");
        let begins_with_bos = gguf.flag("tokenizer.ggml.add_bos_token").unwrap_or(scored);
        let template = gguf.text("tokenizer.chat_template").ok().map(str::to_string);
        Ok(Vocabulary::new(prompts, control, special, template, begins_with_bos))
    }

    /// The largest token that a text can hold, or that ends one; none where there are none.
    pub fn largest(&self) -> Option<u32> {
        let written = self.prompts.get_added_tokens_decoder().into_iter();
        let written = written.filter(|(_, token)| !token.special).map(|(id, _)| id);
        let ordinary = self.prompts.get_vocab(false).into_values();
        ordinary.chain(written).chain([self.end()]).max()
    }

    /// The token that ends a record.
    pub fn end(&self) -> u32 {
        self.special.eos.0
    }

    /// The tokens with a role.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The model's chat template.
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.chat_template
    }

    /// The tokenizer as Hugging Face's `tokenizer.json`: it reads control tokens where they are written.
    ///
    /// # Errors
    /// Other: it does not serialise.
    pub fn to_json(&self) -> Result<String> {
        self.prompts
            .to_string(false)
            .map_err(|e| Error::other(format!("the tokenizer cannot be written: {e}")))
    }

    /// A prompt's tokens.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.prompts, text)
    }

    /// How many control tokens a prompt would hold where `text` stands in it.
    ///
    /// # Errors
    /// Other: it cannot be tokenised.
    pub fn control_tokens(&self, text: &str) -> Result<usize> {
        let as_prompt = encode(&self.prompts, text)?;
        Ok(as_prompt.iter().filter(|token| self.control.contains(token)).count())
    }

    /// Each record behind its label's prompt, cut off at `max_tokens` tokens of its own.
    pub fn records(&self, records: &[Record], prompts: &[Vec<u32>], max_tokens: usize) -> Result<Vec<Encoded>> {
        records
            .par_iter()
            .map(|r| {
                let prompt = &prompts[r.label];
                let mut own = encode(&self.records, beginning(&r.text, max_tokens))?;
                own.push(self.end());
                own.truncate(max_tokens);
                let tokens = [prompt.as_slice(), &own].concat();
                Ok(Encoded {
                    tokens,
                    prompt: prompt.len(),
                    label: r.label,
                })
            })
            .collect()
    }

    /// The first `max_tokens` tokens of a record's text.
    ///
    /// # Errors
    /// Other: it cannot be tokenised.
    pub fn text(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>> {
        let mut tokens = encode(&self.records, beginning(text, max_tokens))?;
        tokens.truncate(max_tokens);
        Ok(tokens)
    }

    /// Whether a token is a control token, which stands for no text.
    pub fn is_control(&self, token: u32) -> bool {
        self.control.contains(&token)
    }

    /// Tokens to text; bytes that are no UTF-8 become replacement characters.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.prompts
            .decode(tokens, true)
            .map_err(|e| Error::other(format!("the sampled tokens cannot be decoded: {e}")))
    }
}

/// The control token with which the template closes a turn: some models' is another than the one that ends a document.
fn closing(prompts: &Tokenizer, control: &HashSet<u32>, template: &ChatTemplate) -> Option<Token> {
    let after = encode(prompts, &prompt::after_a_turn(template).ok()?).ok()?;
    let token = after.into_iter().find(|token| control.contains(token))?;
    Some((token, prompts.id_to_token(token)?))
}

/// As much of a text as `max_tokens` tokens can come of, up to a blank, where words are split in any case: tokenising a text
/// of many megabytes would take gigabytes.
fn beginning(text: &str, max_tokens: usize) -> &str {
    /// Bytes of a token, at most, and some more.
    const LONGEST: usize = 256;
    let most = text.floor_char_boundary((max_tokens + 1).saturating_mul(LONGEST));
    match text[..most].rfind(char::is_whitespace) {
        _ if most == text.len() => text,
        Some(blank) if blank > most / 2 => &text[..blank],
        _ => &text[..most],
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false);
    let encoding = encoding.map_err(|e| Error::other(format!("a text cannot be tokenised: {e}")))?;
    Ok(encoding.get_ids().to_vec())
}
