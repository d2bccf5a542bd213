//! What texts are worth to a model under each label: log p(x|y), by which p(y|x) is judged without another classifier.
//!
//! A score depends on the text, the label and the model alone, bit for bit on a CPU, whatever else is scored with it.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Int, Tensor, TensorData};

use crate::Result;
use crate::machine::workers::Workers;
use crate::models::cache::behind::Prompts;
use crate::models::cache::{Prompt, Way};
use crate::models::fused::gemm::{Matrix, product};
use crate::models::fused::lanes::{Softmax, vectorised};
use crate::models::read;
use crate::models::{LanguageModel, Plain};
use crate::records::Encoded;
use crate::training::batch::Batch;
use crate::training::cross_entropy::token_losses;
use crate::training::shapes::Shapes;

/// A text and the labels under which it is scored.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Its own tokens, with the end token unless it was cut off.
    pub tokens: &'a [u32],
    /// Joint labels.
    pub labels: &'a [usize],
}

/// A model and the labels' prompts, ready to score texts.
pub struct Scorer {
    model: LanguageModel,
    prompts: Vec<Vec<u32>>,
    by: By,
}

/// How it computes, as in [`Way`].
enum By {
    /// Each prompt passes through the model once; texts stand behind it without padding.
    Memory {
        held: Prompts,
        /// Logits after each prompt.
        first: Vec<Vec<f32>>,
        /// `[vocabulary, width]`.
        head: Vec<f32>,
    },
    /// Prompt and text together, padded.
    Tensors,
}

/// Rows of logits that exist at once, on each thread.
const CHUNK: usize = 128;

impl Scorer {
    /// Runs each label's prompt through the model once. The weights are shared, not copied, but for the head.
    pub fn new(model: &LanguageModel, prompts: &[Vec<u32>]) -> Self {
        Scorer::by(Way::of(&model.device()), model, prompts)
    }

    /// The same by the ways of another kind of device, so that what a GPU computes can be tested without one.
    pub fn by(way: Way, model: &LanguageModel, prompts: &[Vec<u32>]) -> Self {
        let model = model.unpacked();
        Scorer {
            by: match way {
                Way::Memory => by_memory(&model, prompts),
                Way::Tensors => By::Tensors,
            },
            model,
            prompts: prompts.to_vec(),
        }
    }

    /// log p(text | prompt of label), in nats, summed over the text's own tokens: for each text one value a label.
    /// A text of no token has log-likelihood 0.
    ///
    /// # Panics
    /// Where a prompt and a text together are longer than the model's context, or a label has no prompt.
    pub fn score(&self, texts: &[Text]) -> Vec<Vec<f64>> {
        let of_text =
            |t: &Text| -> Vec<(usize, Vec<u32>)> { t.labels.iter().map(|l| (*l, t.tokens.to_vec())).collect() };
        let all: Vec<(usize, Vec<u32>)> = texts.iter().flat_map(of_text).collect();
        let context = self.model.shape().context;
        let fits = |(label, tokens): &(usize, Vec<u32>)| self.prompts[*label].len() + tokens.len() <= context;
        assert!(all.iter().all(fits), "prompt and text fit the model's context");
        let mut values = match &self.by {
            By::Memory { held, first, head } => self.by_memory(&all, held, first, head),
            By::Tensors => self.by_tensors(&all),
        }
        .into_iter();
        texts
            .iter()
            .map(|t| values.by_ref().take(t.labels.len()).collect())
            .collect()
    }

    /// [`Scorer::score`] of many texts by all of `workers`, similar lengths together; `take` is given each text's index
    /// and values as they come. `false` where `stop` was set before all were scored.
    ///
    /// # Errors
    /// The first of `take`; nothing more is scored then.
    pub fn score_on(
        &self,
        workers: &Workers,
        texts: &[Text],
        stop: &AtomicBool,
        mut take: impl FnMut(usize, Vec<f64>) -> Result<()> + Send,
    ) -> Result<bool> {
        // The longest first, so that no worker is left alone with them at the end.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(texts[*i].tokens.len()));
        let at_once = match self.by {
            By::Memory { .. } => 512,
            By::Tensors => 16_384,
        };
        let (mut batches, mut size): (Vec<Vec<usize>>, usize) = (Vec::new(), 0);
        for i in order {
            let tokens = texts[i].tokens.len() * texts[i].labels.len();
            if batches.is_empty() || size + tokens > at_once {
                batches.push(Vec::new());
                size = 0;
            }
            size += tokens;
            batches.last_mut().expect("there is one now").push(i);
        }
        let refused = AtomicBool::new(false);
        let leave = || stop.load(Ordering::Relaxed) || refused.load(Ordering::Relaxed);
        let score = |batch: &Vec<usize>| {
            let texts: Vec<Text> = batch.iter().map(|i| texts[*i]).collect();
            (!leave()).then(|| self.score(&texts))
        };
        let (mut outcome, mut whole) = (Ok(()), true);
        workers.each(&batches, score, |batch, values| match values {
            Some(values) if outcome.is_ok() => {
                outcome = batch.iter().zip(values).try_for_each(|(i, values)| take(*i, values));
                refused.store(outcome.is_err(), Ordering::Relaxed);
            }
            _ => whole = false,
        });
        outcome.map(|()| whole)
    }

    fn by_memory(&self, texts: &[(usize, Vec<u32>)], held: &Prompts, first: &[Vec<f32>], head: &[f32]) -> Vec<f64> {
        // The first token follows the prompt, each other one its predecessor.
        let begin = |(label, tokens): &(usize, Vec<u32>)| match tokens.first() {
            Some(token) => f64::from(log_p(&mut first[*label].clone(), *token)),
            None => 0.0,
        };
        let mut out: Vec<f64> = texts.iter().map(begin).collect();
        let pairs = |(_, tokens): &(usize, Vec<u32>)| -> Vec<(u32, u32)> {
            tokens.windows(2).map(|pair| (pair[0], pair[1])).collect()
        };
        let own: Vec<(usize, Vec<(u32, u32)>)> = texts.iter().map(|t| (t.0, pairs(t))).collect();
        let mut spans: Vec<(usize, usize)> = own.iter().map(|(label, pairs)| (*label, pairs.len())).collect();
        let mut steps: Vec<(u32, u32)> = own.into_iter().flat_map(|(_, pairs)| pairs).collect();
        if steps.is_empty() {
            return out;
        }
        while steps.len() < held.fewest_tokens() {
            spans.push((0, 1));
            steps.push((0, 0));
        }
        let ids: Vec<i32> = steps.iter().map(|(input, _)| *input as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, steps.len()]), &self.model.device());
        let hidden = read(self.model.hidden(ids, Some(&mut held.behind(&spans)), &mut Plain));

        let (width, vocabulary) = (self.model.shape().width, self.model.shape().vocabulary);
        let head = Matrix::new(head, [vocabulary, width], width).transposed();
        // Even chunks: a last one of a single row would be a vector, whose product rounds otherwise.
        let rows = steps.len().div_ceil(steps.len().div_ceil(CHUNK));
        let mut logits = vec![0f32; rows * vocabulary];
        let mut found = Vec::with_capacity(steps.len());
        for (hidden, steps) in hidden.chunks(rows * width).zip(steps.chunks(rows)) {
            let logits = &mut logits[..steps.len() * vocabulary];
            product(logits, Matrix::new(hidden, [steps.len(), width], width), head);
            let rows = logits.chunks_exact_mut(vocabulary).zip(steps);
            found.extend(rows.map(|(row, (_, target))| log_p(row, *target)));
        }
        let mut found = found.into_iter();
        for (sum, (_, n)) in out.iter_mut().zip(&spans) {
            *sum += found.by_ref().take(*n).map(f64::from).sum::<f64>();
        }
        out
    }

    fn by_tensors(&self, texts: &[(usize, Vec<u32>)]) -> Vec<f64> {
        let record = |(label, tokens): &(usize, Vec<u32>)| Encoded {
            tokens: [self.prompts[*label].as_slice(), tokens].concat(),
            prompt: self.prompts[*label].len(),
            label: *label,
        };
        let records: Vec<Encoded> = texts.iter().map(record).collect();
        let device = self.model.device();
        let batch = Batch::new(&records.iter().collect::<Vec<_>>(), 1, Shapes::AsNeeded, &device);
        let hidden = self.model.hidden(batch.tokens.clone(), None, &mut Plain);
        let losses = token_losses(
            hidden.select(0, batch.predicting.clone()),
            &self.model.head(),
            &batch.targets,
        );
        let mut losses = losses.into_iter();
        let sum = |n: &usize| losses.by_ref().take(*n).map(|loss| -f64::from(loss)).sum();
        batch.counts.iter().map(sum).collect()
    }
}

fn by_memory(model: &LanguageModel, prompts: &[Vec<u32>]) -> By {
    let device = model.device();
    let (mut known, mut first) = (Vec::new(), Vec::new());
    for tokens in prompts {
        let n = tokens.len();
        let ids: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, n]), &device);
        let mut prompt = Prompt::new(n, &device);
        let hidden = model.hidden(ids, Some(&mut prompt), &mut Plain);
        first.push(read(model.logits(hidden.narrow(0, n - 1, 1))));
        known.push(prompt);
    }
    By::Memory {
        held: Prompts::new(model.shape(), &known, &device),
        first,
        head: read(model.head()),
    }
}

/// log p of `target` under a row of logits, which is used up.
fn log_p(logits: &mut [f32], target: u32) -> f32 {
    let own = logits[target as usize];
    own - vectorised(Softmax, logits)
}
