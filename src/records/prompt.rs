//! A label becomes a conversation: the user asks for a record with that label, the assistant's turn is the record.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};

use crate::config::PromptConfig;
use crate::records::LabelSpace;
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
}

/// The text before the record, for each joint label: the model's own chat template around the configured turns.
///
/// # Errors
/// A prompt or template that does not render, or a prompt that names no label column.
pub fn prompts(config: &PromptConfig, labels: &LabelSpace, template: &ChatTemplate) -> Result<Vec<String>> {
    let mut turns = Environment::new();
    turns.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    // Chat templates are written for transformers: blocks trimmed, optional parts (`tools`) undefined.
    let mut chats = Environment::new();
    let trimmed = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    chats.set_syntax(trimmed.expect("the delimiters are the usual ones"));
    let columns: Vec<&str> = labels.columns().iter().map(|c| c.column()).collect();
    let turn = turns
        .template_from_str(&config.user)
        .map_err(|e| bad_prompt(&config.user, &e, &columns))?;
    let chat = chats.template_from_str(&template.text).map_err(|e| bad_template(&e))?;
    let mut out = Vec::with_capacity(labels.len());
    for label in 0..labels.len() {
        let user = turn
            .render(Value::from_pairs(labels.parts(label)))
            .map_err(|e| bad_prompt(&config.user, &e, &columns))?;
        let message = |role: &'static str, content: &str| Value::from_pairs([("role", role), ("content", content)]);
        let system = config.system.iter().map(|s| message("system", s));
        let messages: Value = system.chain([message("user", &user)]).collect();
        let text = chat
            .render(context! {
                messages,
                add_generation_prompt => true,
                bos_token => &template.bos_token,
                eos_token => &template.eos_token,
            })
            .map_err(|e| bad_template(&e))?;
        out.push(text);
    }
    if labels.len() > 1 && out[0] == out[1] {
        return Err(Error::usage(format!(
            "`prompt.user` says the same for every label: {:?}",
            config.user
        ))
        .hint(format!(
            "name the label columns in it: {{{{ {} }}}}",
            columns.join(" }}, {{ ")
        )));
    }
    Ok(out)
}

fn bad_prompt(prompt: &str, error: &minijinja::Error, columns: &[&str]) -> Error {
    Error::usage(format!("`prompt.user` {prompt:?} does not render: {error}"))
        .hint(format!("it may use the label columns: {}", columns.join(", ")))
}

fn bad_template(error: &minijinja::Error) -> Error {
    Error::data(format!("the model's chat template does not render: {error}")).hint("is it a chat model?")
}
