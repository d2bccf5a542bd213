//! A drawn record as a journal keeps it, and how its tokens become its text.

use serde::{Deserialize, Serialize};

use super::choose::Choice;
use super::decode::{Decoder, Decoding};
use super::evidence::Evidence;
use super::guide::Steering;
use crate::config::{Contrast, RunConfig};
use crate::models::LanguageModel;
use crate::records::{Vocabulary, prompt};
use crate::{Error, Result};

/// A line of the journal: a record, or what is left of one that stayed blank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drawn {
    pub id: u64,
    pub label: usize,
    #[serde(default, skip_serializing_if = "is_first")]
    pub round: u64,
    /// None where every try was blank.
    pub text: Option<String>,
    /// As drawn, with the end token unless it was cut off; kept only where they are scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
}

fn is_first(round: &u64) -> bool {
    *round == 0
}

/// The text of drawn tokens, without blanks around it and without a last character that was cut off.
///
/// # Errors
/// Data: a token is none of the vocabulary's.
pub fn text(vocabulary: &Vocabulary, tokens: &[u32]) -> Result<String> {
    let text = vocabulary.decode(tokens)?;
    Ok(text.trim_end_matches(char::REPLACEMENT_CHARACTER).trim().to_string())
}

/// The decoder that a configuration asks for, steered by `steering`, by `evidence` where there is some; `prompts`
/// are those of the labels.
///
/// # Errors
/// Usage: records longer than the model's context. Data: the marginal prompt is none; `evidence` is of another model.
pub fn decoder(
    c: &RunConfig,
    model: &LanguageModel,
    vocabulary: &Vocabulary,
    prompts: &[Vec<u32>],
    steering: Steering,
    evidence: Option<&Evidence>,
) -> Result<Decoder> {
    let s = &c.sample;
    let decoding = Decoding {
        choice: Choice {
            temperature: s.temperature,
            top_p: s.top_p,
            guidance: steering.guidance,
            plausibility: s.guidance_plausibility,
        },
        guidance_end: s.guidance_end,
        contrasts: s.guidance_labels,
        max_tokens: c.drawn_tokens(),
        end: vocabulary.end(),
        seed: s.seed,
    };
    let mut decoder = Decoder::new(model, prompts, decoding)?;
    if let Some(evidence) = evidence {
        let vocabulary = model.shape().vocabulary;
        if evidence.tokens().iter().any(|t| *t as usize >= vocabulary) {
            return Err(Error::data("the lexicon has tokens that are none of the model's")
                .hint("put model/lexicon.json back as it was"));
        }
        decoder = decoder.lifted(evidence.clone(), steering.lexicon_weight);
    }
    match prompt::marginal(&c.prompt, vocabulary.chat_template())? {
        Some(text) if s.guidance_contrast == Contrast::Marginal => decoder.against(&vocabulary.prompt(&text)?),
        _ => Ok(decoder),
    }
}
