//! The other way round: a text, the question which label it bears, and the label's words for an answer.

use super::prompt;
use super::{Encoded, LabelSpace, Vocabulary};
use crate::config::PromptConfig;
use crate::{Error, Result};

/// A character that no template writes: where the record's tokens go.
const MARK: &str = "\u{E000}";

/// The tokens around a record, and each label's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
    /// Of each joint label: its words, then `end`.
    pub answers: Vec<Vec<u32>>,
    /// The token that ends a record.
    pub end: u32,
}

impl Question {
    /// `prompt.question` in the model's own chat template, answered by the labels' names.
    ///
    /// # Errors
    /// Usage: a question that does not render, or does not hold the text once.
    pub fn new(config: &PromptConfig, labels: &LabelSpace, vocabulary: &Vocabulary) -> Result<Self> {
        let chat = prompt::question(config, MARK, vocabulary.chat_template())?;
        let Some((before, after)) = chat.split_once(MARK).filter(|(_, after)| !after.contains(MARK)) else {
            return Err(Error::usage(format!(
                "`prompt.question` {:?} does not hold the text once",
                config.question()
            ))
            .hint("it has {{ text }} where the record goes"));
        };
        let answer = |label: usize| -> Result<Vec<u32>> {
            let words: Vec<&str> = labels.parts(label).into_iter().map(|(_, name)| name).collect();
            let mut tokens = vocabulary.prompt(&words.join(", "))?;
            tokens.push(vocabulary.end());
            Ok(tokens)
        };
        Ok(Question {
            before: vocabulary.prompt(before)?,
            after: vocabulary.prompt(after)?,
            answers: (0..labels.len()).map(answer).collect::<Result<_>>()?,
            end: vocabulary.end(),
        })
    }

    /// A record with its question and its own label's answer, on which the loss is.
    pub fn ask(&self, record: &Encoded) -> Encoded {
        let own = &record.tokens[record.prompt..];
        let text = own.strip_suffix(&[self.end]).unwrap_or(own);
        let mut tokens = [&self.before, text, &self.after].concat();
        let prompt = tokens.len();
        tokens.extend(&self.answers[record.label]);
        Encoded {
            tokens,
            prompt,
            label: record.label,
        }
    }

    /// The most tokens that stand around a record.
    pub fn most_tokens(&self) -> usize {
        let answer = self.answers.iter().map(Vec::len).max().unwrap_or(0);
        self.before.len() + self.after.len() + answer
    }
}
