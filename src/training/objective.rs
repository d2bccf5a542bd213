//! What a record's loss rewards: its text, and that the text carries its label.
//!
//! A record becomes several rows, which stand side by side in a micro-batch: the text behind its own label's prompt, and
//! the same text behind other labels' prompts. Its gradient is one weighted sum over its rows, bounded as one (rule P5).

use std::borrow::Cow;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::config::ObjectiveConfig;
use crate::records::Encoded;

/// The loss of a record of n tokens, with ℓ(y) its mean loss per token behind the prompt of label y:
///
/// ℓ(own) + contrast · −(1/n)·log p(own | text) − mismatch · mean ℓ(other),
///
/// where p(y | text) = softmax over own and other labels of −n·ℓ(y): a generative classifier's posterior under a uniform
/// prior, trained as such. The mismatch term is that of Mattern et al. 2022.
#[derive(Clone, Debug)]
pub struct Objective {
    contrast: f64,
    mismatch: f64,
    /// Other labels beside a record's own.
    others: usize,
    prompts: Vec<Vec<u32>>,
}

impl Objective {
    /// The text alone.
    pub fn text() -> Self {
        Objective {
            contrast: 0.0,
            mismatch: 0.0,
            others: 0,
            prompts: Vec::new(),
        }
    }

    /// As `config` says, over labels with these `prompts`.
    pub fn new(config: &ObjectiveConfig, prompts: &[Vec<u32>]) -> Self {
        Objective {
            contrast: config.contrast,
            mismatch: config.mismatch,
            others: config.rows_per_record(prompts.len()) - 1,
            prompts: prompts.to_vec(),
        }
    }

    /// Whether it is the text alone.
    pub fn is_text(&self) -> bool {
        self.others == 0
    }

    /// Rows that a record takes, the same for all.
    pub fn rows_per_record(&self) -> usize {
        1 + self.others
    }

    /// Each record's rows: its own, then those of other labels.
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
        let rows = self.rows_per_record();
        let of_record = |(losses, counts): (&[f64], &[usize])| {
            let log_p: Vec<f64> = losses.iter().zip(counts).map(|(l, n)| -l * *n as f64).collect();
            let peak = log_p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = log_p.iter().map(|l| (l - peak).exp()).sum();
            let factor = |(row, log_p): (usize, &f64)| {
                let posterior = (log_p - peak).exp() / total;
                match row {
                    0 => 1.0 + self.contrast * (1.0 - posterior),
                    _ => -self.contrast * posterior - self.mismatch / self.others as f64,
                }
            };
            log_p.iter().enumerate().map(factor).collect::<Vec<f64>>()
        };
        losses
            .chunks(rows)
            .zip(counts.chunks(rows))
            .flat_map(of_record)
            .collect()
    }
}
