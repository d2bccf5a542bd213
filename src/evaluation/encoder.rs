//! The strong classifier: a pretrained BERT encoder, mean pooling and a linear head, fine-tuned on an arm.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokenizers::{EncodeInput, Encoding, Tokenizer, TruncationParams};

use super::Example;
use super::linear::argmax;
use crate::assets::ModelFiles;
use crate::config::EvaluateConfig;
use crate::files::guarded;
use crate::machine::workers::Workers;
use crate::models::bert::{Bert, BertConfig, TokenBatch};
use crate::models::device::watched;
use crate::models::product::linear;
use crate::records::PAIR;
use crate::{Error, Result};

/// The head starts from nothing, the encoder from a checkpoint: the head's learning rate is this many times higher.
const HEAD_LEARNING_RATE_RATIO: f64 = 20.0;
/// Share of the steps over which the learning rate rises; over the rest it falls to 0 (Devlin et al. 2019).
const WARMUP: f64 = 0.1;
/// Batches are sorted by length within groups of this many, so that little is padded and batches stay random.
const BATCHES_SORTED_TOGETHER: usize = 8;
/// Rows of a batch that go through the encoder together on a CPU, a core each: whole products keep more cores from waiting
/// for each other, and the sum is the same on any number of them.
const CPU_PART: usize = 8;
/// Texts predicted at once.
const PREDICT_BATCH: usize = 32;

/// The three files of an encoder in Hugging Face layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderFiles {
    /// `config.json`
    pub config: PathBuf,
    /// `model.safetensors`
    pub weights: PathBuf,
    /// `tokenizer.json`
    pub tokenizer: PathBuf,
}

impl EncoderFiles {
    /// Of an encoder that was found.
    ///
    /// # Errors
    /// Data: one of the files is missing.
    pub fn of(model: &ModelFiles) -> Result<Self> {
        let path = |name: &str| -> Result<PathBuf> { Ok(model.file(name)?.path.clone()) };
        Ok(EncoderFiles {
            config: path("config.json")?,
            weights: path("model.safetensors")?,
            tokenizer: path("tokenizer.json")?,
        })
    }

    /// The files by their usual names in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        EncoderFiles {
            config: folder.join("config.json"),
            weights: folder.join("model.safetensors"),
            tokenizer: folder.join("tokenizer.json"),
        }
    }
}

/// Turns texts into token ids.
pub(super) struct TextEncoder(Tokenizer);

impl TextEncoder {
    /// Cuts texts to `max_tokens`, special tokens included, or to what `config` allows.
    pub(super) fn open(path: &Path, config: &BertConfig, max_tokens: usize) -> Result<Self> {
        let unusable = |what: String| {
            Error::data(format!("the tokenizer {} cannot be used: {what}", path.display()))
                .hint("it must be the tokenizer.json that belongs to the checkpoint")
        };
        let mut tokenizer = guarded(path, || Tokenizer::from_file(path).map_err(|e| unusable(e.to_string())))?;
        let size = tokenizer
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |id| id as usize + 1);
        if size > config.vocab_size {
            return Err(unusable(format!(
                "it has {size} tokens, the encoder knows {}",
                config.vocab_size
            )));
        }
        let truncation = TruncationParams {
            max_length: max_tokens.min(config.longest()),
            ..Default::default()
        };
        tokenizer
            .with_padding(None)
            .with_truncation(Some(truncation))
            .map_err(|e| unusable(e.to_string()))?;
        // What would stop at every text stops here.
        guarded(path, || {
            for text in ["a text".into(), EncodeInput::from(("a text", "another"))] {
                tokenizer.encode_fast(text, true).map_err(|e| unusable(e.to_string()))?;
            }
            Ok(())
        })?;
        Ok(TextEncoder(tokenizer))
    }

    /// The pieces of each text, at least one.
    pub(super) fn encode<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Pieces>> {
        let inputs: Vec<EncodeInput> = texts.into_iter().map(input).collect();
        let encodings = self.0.encode_batch_fast(inputs, true).map_err(refused)?;
        Ok(encodings.iter().map(Pieces::of).collect())
    }

    /// The same of one text, on the caller's thread.
    pub(super) fn pieces(&self, text: &str) -> Result<Pieces> {
        Ok(Pieces::of(&self.0.encode_fast(input(text), true).map_err(refused)?))
    }
}

/// A text in word pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    /// At least one.
    pub ids: Vec<u32>,
    /// Where the second text of a pair begins; behind all of them where there is none.
    pub second: usize,
}

impl Pieces {
    fn of(encoding: &Encoding) -> Self {
        // A tokenizer without special tokens makes nothing of an empty text.
        let ids = match encoding.get_ids() {
            [] => vec![0],
            ids => ids.to_vec(),
        };
        let second = encoding.get_type_ids().iter().position(|id| *id == 1);
        Pieces {
            second: second.unwrap_or(ids.len()),
            ids,
        }
    }
}

/// A text, or the two of a pair.
fn input(text: &str) -> EncodeInput<'_> {
    match text.split_once(PAIR) {
        Some((first, second)) => (first, second).into(),
        None => text.into(),
    }
}

fn refused(e: tokenizers::Error) -> Error {
    Error::data(format!("the encoder's tokenizer refused a text: {e}")).hint("check that the texts are UTF-8")
}

#[derive(Module, Debug)]
struct Head {
    /// `[hidden, labels]`.
    weight: Param<Tensor<2>>,
    /// `[labels]`.
    bias: Param<Tensor<1>>,
}

impl Head {
    /// Uniform weights of standard deviation 0.02.
    fn random(hidden: usize, num_labels: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let bound = 0.02 * 3f32.sqrt();
        let weight: Vec<f32> = (0..hidden * num_labels)
            .map(|_| rng.random_range(-bound..bound))
            .collect();
        Head {
            weight: Param::from_data(TensorData::new(weight, [hidden, num_labels]), device),
            bias: Param::from_data(TensorData::new(vec![0f32; num_labels], [num_labels]), device),
        }
    }
}

/// The scores of each label before the softmax, `[batch, labels]`.
fn logits(bert: &Bert, head: &Head, batch: &TokenBatch) -> Tensor<2> {
    let pooled = batch.mean(bert.forward(batch));
    linear(pooled, head.weight.val(), head.bias.val())
}

/// The number of optimizer steps for so many training records.
pub fn steps(records: usize, config: &EvaluateConfig) -> usize {
    config.encoder_epochs * records.div_ceil(config.encoder_batch_size)
}

/// A fine-tuned encoder.
pub struct EncoderClassifier {
    text: TextEncoder,
    bert: Bert,
    head: Head,
    device: Device,
}

impl EncoderClassifier {
    /// Fine-tunes all layers and a fresh head with AdamW (Loshchilov and Hutter 2019); embedding tables stay as they are.
    ///
    /// `seed` fixes the head's first weights and the order of the records. `device` is a plain one, without
    /// automatic differentiation. `each_step` hears the number of steps done, of [`steps`], and may stop the work.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together, and whatever `each_step` returns.
    pub fn fit(
        files: &EncoderFiles,
        examples: &[Example],
        num_labels: usize,
        config: &EvaluateConfig,
        seed: u64,
        device: &Device,
        each_step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let fitting = Fitting {
            files,
            num_labels,
            config,
            seed,
            device,
            part: match *device == Device::flex() {
                true => CPU_PART,
                false => config.encoder_batch_size,
            },
            workers: Workers::on(device),
        };
        fitting.run(examples, each_step)
    }
    /// The most likely label of each text.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, and whatever `each_batch` returns; it hears the number of texts done.
    pub fn predict(&self, examples: &[Example], each_batch: &mut dyn FnMut(usize) -> Result<()>) -> Result<Vec<usize>> {
        Ok(self
            .scores(examples, each_batch)?
            .iter()
            .map(|scores| argmax(scores))
            .collect())
    }

    /// The scores of the labels before the softmax, for each text; errors as of [`predict`](Self::predict).
    pub fn scores(
        &self,
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let rows = self.text.encode(examples.iter().map(|e| e.text.as_str()))?;
        vectors(
            &rows,
            &self.device,
            &Workers::on(&self.device),
            |tokens| logits(&self.bert, &self.head, tokens),
            each_batch,
        )
    }
}

/// How an encoder is fine-tuned.
struct Fitting<'a> {
    files: &'a EncoderFiles,
    num_labels: usize,
    config: &'a EvaluateConfig,
    seed: u64,
    device: &'a Device,
    /// Rows of a batch that go through it together, a worker each.
    part: usize,
    workers: Workers,
}

impl Fitting<'_> {
    fn run(&self, examples: &[Example], each_step: &mut dyn FnMut(usize) -> Result<()>) -> Result<EncoderClassifier> {
        let (files, config, device) = (self.files, self.config, self.device);
        let sizes = BertConfig::read(&files.config)?;
        let text = TextEncoder::open(&files.tokenizer, &sizes, config.encoder_max_tokens)?;
        let rows = text.encode(examples.iter().map(|e| e.text.as_str()))?;
        let autodiff = device.clone().autodiff();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut bert = Bert::load(&sizes, &files.weights, &autodiff)?.freeze_embeddings();
        let mut head = Head::random(sizes.hidden_size, self.num_labels, &mut rng, &autodiff);
        let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01).init();
        let total = steps(examples.len(), config);
        let mut done = 0;
        for _ in 0..config.encoder_epochs {
            for batch in shuffled_batches(&rows, config.encoder_batch_size, &mut rng) {
                let parts: Vec<&[usize]> = batch.chunks(self.part).collect();
                let gradients = |part: &&[usize]| {
                    // Leaves of its own: graphs that share one wait for each other.
                    let (bert, head) = (bert.clone().fork(&autodiff), head.clone().fork(&autodiff));
                    let tokens = batch_of(&rows, part, &autodiff);
                    let labels: Vec<usize> = part.iter().map(|&i| examples[i].label).collect();
                    let share = part.len() as f64 / batch.len() as f64;
                    let loss = cross_entropy(logits(&bert, &head, &tokens), &labels, &autodiff) * share;
                    let mut gradients = loss.backward();
                    let of_bert = GradientsParams::from_module(&mut gradients, &bert);
                    (of_bert, GradientsParams::from_module(&mut gradients, &head))
                };
                let (mut of_bert, mut of_head) = (GradientsAccumulator::new(), GradientsAccumulator::new());
                self.workers.each(&parts, gradients, |_, (more_of_bert, more_of_head)| {
                    of_bert.accumulate(&bert, more_of_bert);
                    of_head.accumulate(&head, more_of_head);
                });
                let (of_bert, of_head) = (of_bert.grads(), of_head.grads());
                let rate = config.encoder_learning_rate * schedule(done, total);
                bert = optimizer.step(rate, bert, of_bert);
                head = optimizer.step(rate * HEAD_LEARNING_RATE_RATIO, head, of_head);
                done += 1;
                each_step(done)?;
            }
        }
        Ok(EncoderClassifier {
            text,
            bert: bert.valid(),
            head: head.valid(),
            device: device.clone(),
        })
    }
}

/// What `forward` makes of each row of token ids, rows of similar length together; `each_batch` hears the number done, as often
/// as each of the workers has had a batch.
pub(super) fn vectors(
    rows: &[Pieces],
    device: &Device,
    workers: &Workers,
    forward: impl Fn(&TokenBatch) -> Tensor<2> + Sync,
    each_batch: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<Vec<f32>>> {
    let mut by_length: Vec<usize> = (0..rows.len()).collect();
    by_length.sort_by_key(|&i| rows[i].ids.len());
    let of = |batch: &&[usize]| -> Result<Vec<Vec<f32>>> {
        let (out, width) = watched(device, || {
            let out = forward(&batch_of(rows, batch, device));
            let [_, width] = out.dims();
            (out.try_into_vec_as::<f32>(), width)
        });
        let out = out.map_err(|e| {
            Error::other(format!("the device gave no values back: {e}")).hint("try again with `device = \"cpu\"`")
        })?;
        Ok(out.chunks(width).map(<[f32]>::to_vec).collect())
    };
    let mut all = vec![Vec::new(); rows.len()];
    let mut done = 0;
    for batches in by_length.chunks(PREDICT_BATCH * workers.count()) {
        let each: Vec<&[usize]> = batches.chunks(PREDICT_BATCH).collect();
        for (batch, out) in each.iter().zip(workers.map(&each, of)) {
            for (&i, values) in batch.iter().zip(out?) {
                all[i] = values;
            }
        }
        done += batches.len();
        each_batch(done)?;
    }
    Ok(all)
}

pub(super) fn batch_of(rows: &[Pieces], batch: &[usize], device: &Device) -> TokenBatch {
    let ids: Vec<&[u32]> = batch.iter().map(|&i| rows[i].ids.as_slice()).collect();
    let second: Vec<usize> = batch.iter().map(|&i| rows[i].second).collect();
    TokenBatch::new(&ids, device).with_second(&second)
}

/// Mean of −log p(label).
pub(super) fn cross_entropy(logits: Tensor<2>, labels: &[usize], device: &Device) -> Tensor<1> {
    let labels: Vec<i32> = labels.iter().map(|&l| l as i32).collect();
    let count = labels.len();
    let labels: Tensor<2, Int> = Tensor::from_data(TensorData::new(labels, [count, 1]), device);
    activation::log_softmax(logits, 1).gather(1, labels).mean().neg()
}

/// The learning rate's factor at step `done` of `total`: up from 0 to 1 and down again, both linear.
fn schedule(done: usize, total: usize) -> f64 {
    let (now, total) = (done as f64 + 1.0, total as f64 + 1.0);
    let peak = (WARMUP * total).max(1.0);
    (now / peak).min((total - now) / (total - peak))
}

/// Every row once, in batches of `size` rows of similar length, in random order.
fn shuffled_batches(rows: &[Pieces], size: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.shuffle(rng);
    for group in order.chunks_mut(size * BATCHES_SORTED_TOGETHER) {
        group.sort_by_key(|&i| rows[i].ids.len());
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(size).map(<[usize]>::to_vec).collect();
    batches.shuffle(rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_batch_add_up_to_it_on_any_number_of_workers() {
        let files = EncoderFiles::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert"));
        let text = |i: usize| ["a fine film", "dull", "a dull film and a fine end", "fine fine"][i % 4].to_string();
        let examples: Vec<Example> = (0..40)
            .map(|i| Example {
                text: text(i),
                label: i % 2,
            })
            .collect();
        let config = EvaluateConfig {
            encoder_batch_size: 20,
            encoder_epochs: 2,
            ..EvaluateConfig::default()
        };
        let scores = |part: usize, workers: usize| {
            let fitting = Fitting {
                files: &files,
                num_labels: 2,
                config: &config,
                seed: 1,
                device: &Device::flex(),
                part,
                workers: Workers::with(workers),
            };
            let fitted = fitting.run(&examples, &mut |_| Ok(())).expect("fits");
            fitted.scores(&examples, &mut |_| Ok(())).expect("scores").concat()
        };
        let (whole, parts) = (scores(20, 1), scores(8, 1));
        assert_eq!(parts, scores(8, 3), "the same numbers, whoever computed them");
        let largest = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{largest}");
        assert!(
            whole.windows(2).any(|w| (w[0] - w[1]).abs() > 1e-2),
            "it learned something: {whole:?}"
        );
    }
}
