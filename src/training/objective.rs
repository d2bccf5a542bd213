//! What a record's loss rewards: its text, and that the text carries its label.
//!
//! A record becomes several rows, which stand side by side in a micro-batch: the text behind its own label's prompt, the
//! same text behind other labels' prompts, and the text with the question for its label. Its gradient is one weighted sum over its rows, bounded as one (rule P5).

use std::borrow::Cow;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::Result;
use crate::config::{ObjectiveConfig, RunConfig};
use crate::records::{Encoded, LabelSpace, Question, Vocabulary};

/// The loss of a record of n tokens, with ℓ(y) its mean loss per token behind the prompt of label y:
///
/// ℓ(own) + contrast · −(1/n)·log p(own | text) − mismatch · mean ℓ(other) + label_words · ℓ(label's words),
///
/// where p(y | text) = softmax over own and other labels of −n·ℓ(y): a generative classifier's posterior under a uniform
/// prior, trained as such. The mismatch term is that of Mattern et al. 2022. The last is the mean loss of the words that name
/// the label, behind the text and a [`Question`].
#[derive(Clone, Debug)]
pub struct Objective {
    contrast: f64,
    mismatch: f64,
    /// Other labels beside a record's own.
    others: usize,
    prompts: Vec<Vec<u32>>,
    /// With the weight of its answer.
    question: Option<(f64, Question)>,
}

impl Objective {
    /// The text alone.
    pub fn text() -> Self {
        Objective {
            contrast: 0.0,
            mismatch: 0.0,
            others: 0,
            prompts: Vec::new(),
            question: None,
        }
    }

    /// That of a run, over labels with these `prompts`.
    ///
    /// # Errors
    /// Usage: a question that cannot be asked.
    pub fn of(config: &RunConfig, prompts: &[Vec<u32>], vocabulary: &Vocabulary) -> Result<Self> {
        let objective = &config.finetune.objective;
        let labels = LabelSpace::from_config(&config.dataset.labels)?;
        let question = match objective.label_words > 0.0 {
            true => Some(Question::new(&config.prompt, &labels, vocabulary)?),
            false => None,
        };
        Ok(Self::new(objective, prompts, question))
    }

    /// As `config` says, over labels with these `prompts`; `question` is what `config.label_words` weighs.
    pub fn new(config: &ObjectiveConfig, prompts: &[Vec<u32>], question: Option<Question>) -> Self {
        Objective {
            contrast: config.contrast,
            mismatch: config.mismatch,
            others: config.other_labels(prompts.len()),
            prompts: prompts.to_vec(),
            question: question.map(|question| (config.label_words, question)),
        }
    }

    /// Whether it is the text alone.
    pub fn is_text(&self) -> bool {
        self.rows_per_record() == 1
    }

    /// Rows that a record takes, the same for all.
    pub fn rows_per_record(&self) -> usize {
        1 + self.others + usize::from(self.question.is_some())
    }

    /// Each record's rows: its own, then those of other labels, then the question.
    ///
    /// Which others depends on the record alone: with or without a neighbour, the rows of all other records are the same.
    pub fn rows<'a>(&self, records: &[&'a Encoded]) -> Vec<Cow<'a, Encoded>> {
        let mut rows = Vec::with_capacity(records.len() * self.rows_per_record());
        for record in records {
            rows.push(Cow::Borrowed(*record));
            rows.extend(self.other_labels(record).map(|label| {
                let prompt = &self.prompts[label];
                Cow::Owned(Encoded {
                    tokens: [prompt, &record.tokens[record.prompt..]].concat(),
                    prompt: prompt.len(),
                    label,
                })
            }));
            rows.extend(
                self.question
                    .iter()
                    .map(|(_, question)| Cow::Owned(question.ask(record))),
            );
        }
        rows
    }

    fn other_labels(&self, record: &Encoded) -> impl Iterator<Item = usize> + use<> {
        let others = self.prompts.len().saturating_sub(1);
        let chosen: Vec<usize> = match self.others {
            all if all == others => (0..others).collect(),
            some => {
                let bytes: Vec<u8> = record.tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
                let seed = Sha256::digest(bytes).into();
                index::sample(&mut ChaCha8Rng::from_seed(seed), others, some).into_vec()
            }
        };
        let own = record.label;
        chosen.into_iter().map(move |o| if o < own { o } else { o + 1 })
    }

    /// The factors of the rows' losses in their records' gradients, from the rows' losses ℓ (means over `counts` tokens).
    pub fn factors(&self, losses: &[f64], counts: &[usize]) -> Vec<f64> {
        let (rows, texts) = (self.rows_per_record(), 1 + self.others);
        let of_record = |(losses, counts): (&[f64], &[usize])| {
            let log_p: Vec<f64> = losses[..texts]
                .iter()
                .zip(counts)
                .map(|(l, n)| -l * *n as f64)
                .collect();
            let peak = log_p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = log_p.iter().map(|l| (l - peak).exp()).sum();
            let factor = |(row, log_p): (usize, &f64)| {
                let posterior = (log_p - peak).exp() / total;
                match row {
                    0 => 1.0 + self.contrast * (1.0 - posterior),
                    _ => -self.contrast * posterior - self.mismatch / self.others as f64,
                }
            };
            let answer = self.question.as_ref().map(|(weight, _)| *weight);
            log_p.iter().enumerate().map(factor).chain(answer).collect::<Vec<f64>>()
        };
        losses
            .chunks(rows)
            .zip(counts.chunks(rows))
            .flat_map(of_record)
            .collect()
    }
}
