//! `[lexicon]`: which tokens labels have, counted privately before training.

use serde::{Deserialize, Serialize};

use super::rules::{self, refuse};
use crate::Result;

/// A lexicon: counts of tokens by label, and a scorer that begins with them. Both are paid from `finetune.epsilon`; decoding
/// is lifted by what they say (`sample.lexicon_weight`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { share = 0.125 }")]
pub struct LexiconConfig {
    /// Share of the run's epsilon that the counts would cost alone, from 0 to below 1; 0: no lexicon, whatever stands below.
    pub share: f64,
    /// The same of all scorers together; 0: the counts alone are used.
    pub scorer_share: f64,
    /// A record's first so many tokens are looked at.
    pub max_tokens: usize,
    /// Largest norm of a unit's vector of tokens.
    pub max_norm: f64,
    /// Steps of each scorer's descent.
    pub scorer_steps: u64,
    /// Tokens that the scorer looks at: the most telling.
    pub scorer_tokens: usize,
    /// Name in `pipelines/assets.toml` of a sentence encoder, on whose vectors a second scorer is trained: it reads whole
    /// texts, and judges drawn records beside the first. `"none"` and by default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// The encoder reads a record's first so many word pieces.
    pub encoder_max_tokens: usize,
}

impl LexiconConfig {
    /// Whether tokens are counted.
    pub fn is_on(&self) -> bool {
        self.share > 0.0
    }

    /// Whether a scorer is trained.
    pub fn has_scorer(&self) -> bool {
        self.is_on() && self.scorer_share > 0.0
    }

    /// How many scorers are trained.
    pub fn scorers(&self) -> u64 {
        match self.has_scorer() {
            false => 0,
            true => 1 + u64::from(self.encoder().is_some()),
        }
    }

    /// The encoder whose vectors a second scorer learns from; none where none is trained.
    pub fn encoder(&self) -> Option<&str> {
        let named = self.encoder.as_deref().filter(|name| *name != "none");
        named.filter(|_| self.has_scorer())
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// Usage, with the key.
    pub fn check(&self) -> Result<()> {
        for (key, share) in [
            ("lexicon.share", self.share),
            ("lexicon.scorer_share", self.scorer_share),
        ] {
            if !(0.0..1.0).contains(&share) {
                return refuse(key, "a share from 0 to below 1", share);
            }
        }
        if self.is_on() && self.share + self.scorer_share >= 1.0 {
            return refuse(
                "lexicon",
                "such that `share` and `scorer_share` leave some of epsilon for training",
                format!("{} and {}", self.share, self.scorer_share),
            );
        }
        rules::above_zero(&[("lexicon.max_norm", self.max_norm)])?;
        rules::at_least_one(&[
            ("lexicon.max_tokens", self.max_tokens),
            ("lexicon.scorer_steps", self.scorer_steps as usize),
            ("lexicon.scorer_tokens", self.scorer_tokens),
            ("lexicon.encoder_max_tokens", self.encoder_max_tokens),
        ])
    }
}

impl Default for LexiconConfig {
    fn default() -> Self {
        LexiconConfig {
            share: 0.0,
            scorer_share: 0.0,
            max_tokens: 1024,
            max_norm: 4.0,
            scorer_steps: 30,
            scorer_tokens: 2000,
            encoder: None,
            encoder_max_tokens: 128,
        }
    }
}
