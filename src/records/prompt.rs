//! A label becomes a conversation: the user asks for a record with that label, the assistant's turn is the record.

use std::collections::HashMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};

use crate::config::PromptConfig;
use crate::config::turn::{is_variable, turn};
use crate::records::LabelSpace;
use crate::tables::short;
use crate::{Error, Result};

/// A model's own chat template, as transformers renders it.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    /// Jinja.
    pub text: String,
    /// What the template may call `bos_token`; empty where the model has none.
    pub bos_token: String,
    /// The same for `eos_token`.
    pub eos_token: String,
    /// How what stands before a record is put.
    pub form: Form,
}

/// How what stands before a record is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a user's turn in a chat, `prompt.user`.
    Turn,
    /// As the beginning of a text, `prompt.plain`, for a model without a chat template.
    Beginning,
}

/// The text before the record, for each joint label: the model's own chat template around the configured turns.
///
/// # Errors
/// A prompt or template that does not render, or a prompt that names no label column.
pub fn prompts(config: &PromptConfig, labels: &LabelSpace, template: &ChatTemplate) -> Result<Vec<String>> {
    chats(config, distinct_turns(config, labels, template.form)?, template)
}

/// What the user asks for, for each joint label, and no two of them alike.
///
/// # Errors
/// Usage: one that does not render, or two that are the same.
pub fn distinct_turns(config: &PromptConfig, labels: &LabelSpace, form: Form) -> Result<Vec<String>> {
    let out = turns(config, labels, form)?;
    let mut first = HashMap::new();
    let same = out
        .iter()
        .enumerate()
        .find_map(|(i, text)| Some((first.insert(text, i)?, i)));
    if let Some((one, other)) = same {
        // Such labels could not be told apart, by guidance and by the objective least of all.
        return Err(Error::usage(format!(
            "`{}` says the same for the labels `{}` and `{}`: {:?}",
            key(config, form),
            labels.name(one),
            labels.name(other),
            request(config, form)
        ))
        .hint(format!("name all label columns in it: {}", variables(labels))));
    }
    Ok(out)
}

/// The template of what stands before a record.
pub fn request(config: &PromptConfig, form: Form) -> &str {
    match (form, &config.plain) {
        (Form::Beginning, Some(plain)) => plain,
        _ => &config.user,
    }
}

/// The setting that [`request`] is.
fn key(config: &PromptConfig, form: Form) -> &'static str {
    match (form, &config.plain) {
        (Form::Beginning, Some(_)) => "prompt.plain",
        _ => "prompt.user",
    }
}

/// A request that was not written as the beginning of a text ends its line there.
fn put(text: String, is_beginning: bool, form: Form) -> String {
    match form == Form::Beginning && !is_beginning {
        true => text + "\n",
        false => text,
    }
}

/// What the user asks for, for each joint label: the configured turn alone, or the beginning of a text.
///
/// # Errors
/// One that does not render.
pub fn turns(config: &PromptConfig, labels: &LabelSpace, form: Form) -> Result<Vec<String>> {
    let turn = |label: usize| {
        let parts = labels.parts(label);
        // By the column's name in the file, whatever it is: {{ row["Class Index"] }}.
        let sources = labels.columns().iter().map(|c| c.source());
        let row = Value::from_pairs(sources.zip(parts.iter().map(|(_, name)| *name)));
        let parts = parts.iter().map(|(column, name)| (*column, Value::from(*name)));
        // A column may be called `row` itself.
        let text = turn(
            request(config, form),
            Value::from_pairs([("row", row)].into_iter().chain(parts)),
        )?;
        Ok(put(text, config.plain.is_some(), form))
    };
    let turns: std::result::Result<Vec<String>, minijinja::Error> = (0..labels.len()).map(turn).collect();
    turns.map_err(|e| {
        Error::usage(format!(
            "`{}` {:?} does not render: {e}",
            key(config, form),
            request(config, form)
        ))
        .hint(format!("it may use {}", variables(labels)))
    })
}

/// How a template names each label column.
fn variables(labels: &LabelSpace) -> String {
    let variable = |c: &crate::records::LabelColumn| match c.column() == c.source() {
        _ if !is_variable(c.column()) => format!("{{{{ row[\"{}\"] }}}}", short(c.source())),
        true => format!("{{{{ {} }}}}", c.column()),
        false => format!("{{{{ {} }}}} (the column `{}`)", c.column(), short(c.source())),
    };
    labels.columns().iter().map(variable).collect::<Vec<_>>().join(", ")
}

/// The text before the record of the prompt that names no label, where there is one.
///
/// # Errors
/// A prompt or template that does not render: one that uses a label column does not.
pub fn marginal(config: &PromptConfig, template: &ChatTemplate) -> Result<Option<String>> {
    match without_labels(config)? {
        None => Ok(None),
        Some(turn) => Ok(chats(config, vec![put(turn, false, template.form)], template)?.pop()),
    }
}

/// What the user asks for in it.
///
/// # Errors
/// Usage: it does not render.
pub fn without_labels(config: &PromptConfig) -> Result<Option<String>> {
    let Some(text) = &config.marginal else {
        return Ok(None);
    };
    turn(text, context! {}).map(Some).map_err(|e| {
        Error::usage(format!("`prompt.marginal` {text:?} does not render: {e}"))
            .hint("it is `prompt.user` without its label columns, such as \"Write a movie review.\"")
    })
}

/// The conversation that asks which label `text` bears.
///
/// # Errors
/// A question or template that does not render.
pub fn question(config: &PromptConfig, text: &str, template: &ChatTemplate) -> Result<String> {
    let turn = turn(config.question(), context! { text }).map_err(|e| {
        Error::usage(format!(
            "`prompt.question` {:?} does not render: {e}",
            config.question()
        ))
        .hint("it has {{ text }} where the record goes, and nothing else to fill in")
    })?;
    Ok(chats(config, vec![put(turn, false, template.form)], template)?
        .pop()
        .expect("one turn, one conversation"))
}

/// Each user turn in a conversation of its own.
fn chats(config: &PromptConfig, turns: Vec<String>, template: &ChatTemplate) -> Result<Vec<String>> {
    let render = |user: String| {
        let system = config.system.iter().map(|s| message("system", s));
        render(template, system.chain([message("user", &user)]).collect(), true)
    };
    turns.into_iter().map(render).collect()
}

/// What stands behind an assistant's turn in a conversation, up to whatever comes next.
///
/// # Errors
/// Usage: a template that does not render.
pub fn after_a_turn(template: &ChatTemplate) -> Result<String> {
    // Nothing that a template would take away, or take for its own.
    const TURN: &str = "ab12";
    let text = render(
        template,
        [message("user", "a"), message("assistant", TURN)].into_iter().collect(),
        false,
    )?;
    Ok(text
        .rsplit_once(TURN)
        .map_or(String::new(), |(_, after)| after.to_string()))
}

fn message(role: &'static str, content: &str) -> Value {
    Value::from_pairs([("role", role), ("content", content)])
}

fn render(template: &ChatTemplate, messages: Value, add_generation_prompt: bool) -> Result<String> {
    // Chat templates are written for transformers: blocks trimmed, optional parts (`tools`) undefined.
    let mut chats = Environment::new();
    let trimmed = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    chats.set_syntax(trimmed.expect("the delimiters are the usual ones"));
    chats.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    chats.add_function(
        "raise_exception",
        |why: String| -> std::result::Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why))
        },
    );
    let chat = chats.template_from_str(&template.text).map_err(|e| bad_template(&e))?;
    let text = chat.render(context! {
        messages,
        add_generation_prompt,
        // A record is not thought over.
        enable_thinking => false,
        bos_token => &template.bos_token,
        eos_token => &template.eos_token,
    });
    text.map_err(|e| bad_template(&e))
}

fn bad_template(error: &minijinja::Error) -> Error {
    Error::data(format!("the model's chat template does not render: {error}")).hint("is it a chat model?")
}
