//! Many records at once through a KV cache that is allocated once, each label's prompt computed once.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::choose::{Choice, draw};
use crate::models::cache::{Cache, Past, causal};
use crate::models::llama::{Llama, Plain};
use crate::models::read;
use crate::{Error, Result};

/// One record to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Fixes the record's own randomness, whatever batch it is in.
    pub id: u64,
    /// Which try this is; another try draws something else.
    pub attempt: u64,
    /// Joint label.
    pub label: usize,
}

/// Settings of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    pub choice: Choice,
    /// Other labels in the contrast, at most.
    pub contrasts: usize,
    /// Longest record in tokens.
    pub max_tokens: usize,
    /// The token that ends a record.
    pub end: u32,
    pub seed: u64,
}

/// A model ready to continue each label's prompt.
pub struct Decoder<'a> {
    model: &'a Llama,
    settings: Decoding,
    /// Keys and values of each label's prompt, aligned on the right.
    prefixes: Cache,
    /// Length of the longest prompt.
    longest: usize,
    /// For each label, how many positions before its prompt are empty.
    padding: Vec<usize>,
    /// Logits after each label's prompt.
    first: Vec<Vec<f32>>,
}

/// A record being written: its rows in the batch are its own label's, then the contrasting labels'.
struct Draft {
    /// Index into the requests.
    index: usize,
    rng: ChaCha8Rng,
    rows: usize,
    tokens: Vec<u32>,
}

impl<'a> Decoder<'a> {
    /// Runs each label's prompt through the model once.
    ///
    /// # Errors
    /// Usage: records of no token, or longer than the model's context has room for behind the longest prompt.
    pub fn new(model: &'a Llama, prompts: &[Vec<u32>], settings: Decoding) -> Result<Self> {
        let device = model.device();
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = model.config().context.saturating_sub(longest);
        if !(1..=room).contains(&settings.max_tokens) {
            return Err(Error::usage(format!(
                "records of {} tokens cannot be drawn: the model's context leaves 1 to {room} behind the prompt",
                settings.max_tokens
            ))
            .hint("`sample.max_tokens` sets it, else `prepare.max_tokens`"));
        }
        let padding: Vec<usize> = prompts.iter().map(|p| longest - p.len()).collect();
        let (mut caches, mut first) = (Vec::new(), Vec::new());
        for (prompt, pad) in prompts.iter().zip(&padding) {
            // Positions are counted from the padding on: rotary attention sees only differences.
            let mut cache = Cache::padded(model.config(), longest, *pad, &device);
            let n = prompt.len();
            let ids: Vec<i32> = prompt.iter().map(|t| *t as i32).collect();
            let tokens = Tensor::from_data(TensorData::new(ids, [1, n]), &device);
            let after = causal(n, &device);
            let hidden_from = match pad {
                0 => after,
                pad => Tensor::cat(vec![Tensor::full([1, 1, n, *pad], true, &device), after], 3),
            };
            let hidden = model.hidden(
                tokens,
                Some(Past {
                    cache: &mut cache,
                    hidden_from,
                }),
                &mut Plain,
            );
            first.push(read(model.logits(hidden.narrow(0, n - 1, 1))));
            caches.push(cache);
        }
        Ok(Decoder {
            model,
            settings,
            prefixes: Cache::stack(caches),
            longest,
            padding,
            first,
        })
    }

    /// The tokens of each request, without the end token. A record depends on its request and the seed alone.
    pub fn decode(&self, requests: &[Request]) -> Vec<Vec<u32>> {
        let device = self.model.device();
        let mut out = vec![Vec::new(); requests.len()];
        let (mut drafts, labels) = self.drafts(requests);
        let mut logits: Vec<f32> = labels.iter().flat_map(|l| self.first[*l].iter().copied()).collect();
        let rows = indices(&labels, &device);
        let mut cache = self.prefixes.rows(&rows, self.longest + self.settings.max_tokens);
        let mut padding: Vec<usize> = labels.iter().map(|l| self.padding[*l]).collect();
        let vocabulary = self.model.config().vocabulary;
        loop {
            self.choose(&mut drafts, &logits, vocabulary);
            let done =
                |d: &Draft| d.tokens.last() == Some(&self.settings.end) || d.tokens.len() >= self.settings.max_tokens;
            let finished: Vec<bool> = drafts.iter().map(done).collect();
            if finished.iter().any(|f| *f) {
                let keep = kept_rows(&drafts, &finished);
                for (draft, finished) in std::mem::take(&mut drafts).into_iter().zip(&finished) {
                    if *finished {
                        let mut tokens = draft.tokens;
                        tokens.pop_if(|t| *t == self.settings.end);
                        out[draft.index] = tokens;
                    } else {
                        drafts.push(draft);
                    }
                }
                if drafts.is_empty() {
                    return out;
                }
                cache.select(&indices(&keep, &device));
                padding = keep.iter().map(|r| padding[*r]).collect();
            }
            let next = drafts
                .iter()
                .flat_map(|d| vec![*d.tokens.last().expect("a token was drawn") as i32; d.rows]);
            let next: Vec<i32> = next.collect();
            let tokens = Tensor::from_data(TensorData::new(next, [padding.len(), 1]), &device);
            let hidden_from = padded(&padding, cache.len() + 1, &device);
            let hidden = self.model.hidden(
                tokens,
                Some(Past {
                    cache: &mut cache,
                    hidden_from,
                }),
                &mut Plain,
            );
            logits = read(self.model.logits(hidden));
        }
    }

    /// The drafts, and the label of each row.
    fn drafts(&self, requests: &[Request]) -> (Vec<Draft>, Vec<usize>) {
        let others = self.first.len() - 1;
        let contrasts = if self.settings.choice.guidance > 0.0 {
            self.settings.contrasts.min(others)
        } else {
            0
        };
        let (mut drafts, mut labels) = (Vec::new(), Vec::new());
        for (index, r) in requests.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
            rng.set_stream(r.id);
            // A try has 2³⁶ words of its own: far more than a record can use.
            rng.set_word_pos(u128::from(r.attempt) << 36);
            labels.push(r.label);
            let chosen = index::sample(&mut rng, others, contrasts);
            labels.extend(chosen.iter().map(|o| if o < r.label { o } else { o + 1 }));
            drafts.push(Draft {
                index,
                rng,
                rows: 1 + contrasts,
                tokens: Vec::new(),
            });
        }
        (drafts, labels)
    }

    fn choose(&self, drafts: &mut [Draft], logits: &[f32], vocabulary: usize) {
        let rows = drafts.first().map_or(1, |d| d.rows);
        drafts
            .par_iter_mut()
            .zip(logits.par_chunks(rows * vocabulary))
            .for_each(|(draft, logits)| {
                let (own, others) = logits.split_at(vocabulary);
                let others: Vec<&[f32]> = others.chunks(vocabulary).collect();
                draft
                    .tokens
                    .push(draw(own, &others, self.settings.choice, &mut draft.rng));
            });
    }
}

/// Rows of the drafts that are not finished.
fn kept_rows(drafts: &[Draft], finished: &[bool]) -> Vec<usize> {
    let (mut row, mut keep) = (0, Vec::new());
    for (draft, finished) in drafts.iter().zip(finished) {
        if !finished {
            keep.extend(row..row + draft.rows);
        }
        row += draft.rows;
    }
    keep
}

fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = values.iter().map(|v| *v as i32).collect();
    Tensor::from_data(TensorData::new(ids, [values.len()]), device)
}

/// True where a row's padding stands: `[rows, 1, 1, len]`.
fn padded(padding: &[usize], len: usize, device: &Device) -> Tensor<4, Bool> {
    let cells: Vec<bool> = padding.iter().flat_map(|pad| (0..len).map(move |t| t < *pad)).collect();
    Tensor::from_data(TensorData::new(cells, [padding.len(), 1, 1, len]), device)
}
