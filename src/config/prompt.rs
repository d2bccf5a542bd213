//! `[prompt]`: how a label becomes a request to the model.

use serde::{Deserialize, Serialize};

/// How a label becomes a request to the model, through the model's own chat template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// System turn; default: the one the chat template brings.
    #[serde(default)]
    pub system: Option<String>,
    /// User turn, a template over the label columns: "Write a movie review that is {{ label }}."
    pub user: String,
    /// What stands before a record where the model has no chat template, over the label columns, line's end and all:
    /// "{{ label }} movie review:\n"; default: `user`, and a line's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// The same turn without any label, "Write a movie review.": what `sample.guidance_contrast = "marginal"` contrasts
    /// with. Only sampling uses it, so that it may change after training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marginal: Option<String>,
    /// The user turn that asks for a text's label, with `{{ text }}` where it goes: what `finetune.objective.label_words`
    /// trains the answer to; default: "{{ text }}", a blank line, "What is the label of this text?".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

impl PromptConfig {
    /// [`PromptConfig::question`], or its default.
    pub fn question(&self) -> &str {
        self.question
            .as_deref()
            .unwrap_or("{{ text }}\n\nWhat is the label of this text?")
    }

    /// The prompts that training sees.
    pub fn of_labels(&self) -> Self {
        PromptConfig {
            marginal: None,
            ..self.clone()
        }
    }
}
