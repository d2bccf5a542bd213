//! Many records at once: a record that ends leaves its rows of the cache to the next one.
//!
//! Each label's prompt passes through the model once. A record's tokens depend on its request and the seed alone,
//! whatever its neighbours, the number of rows, or who draws it.

use burn::tensor::{Int, Tensor, TensorData};
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::choose::{Choice, draw, pick, pick_on_device};
use super::evidence::{Evidence, Lift, Reading};
use super::queue::Queue;
pub use super::queue::Request;
use crate::machine::workers::Workers;
use crate::models::cache::{Cache, Prompt, Way};
use crate::models::product::matmul;
use crate::models::read;
use crate::models::{LanguageModel, Plain};
use crate::{Error, Result};

/// Settings of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// Its guidance is γ at the first token.
    pub choice: Choice,
    /// γ at the last of `max_tokens` tokens, to which it goes linearly from the first; None: it stays as it is.
    pub guidance_end: Option<f64>,
    /// Other labels in the contrast, at most.
    pub contrasts: usize,
    /// Longest record in tokens.
    pub max_tokens: usize,
    /// The token that ends a record.
    pub end: u32,
    pub seed: u64,
}

impl Decoding {
    /// γ at token `t` of a record, from 0.
    pub fn guidance_at(&self, t: usize) -> f64 {
        let begin = self.choice.guidance;
        let Some(end) = self.guidance_end else { return begin };
        let share = t as f64 / self.max_tokens.saturating_sub(1).max(1) as f64;
        // Exact at both ends.
        begin * (1.0 - share) + end * share
    }

    /// How token `t` is drawn.
    fn choice_at(&self, t: usize) -> Choice {
        Choice {
            guidance: self.guidance_at(t),
            ..self.choice
        }
    }

    fn guides(&self) -> bool {
        self.choice.guidance > 0.0 || self.guidance_end.is_some_and(|end| end > 0.0)
    }
}

impl Decoding {
    /// A drawn record's tokens as the model learns and scores them: with the end token, unless it was cut off.
    pub fn ended(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        if tokens.len() < self.max_tokens {
            tokens.push(self.end);
        }
        tokens
    }
}

/// What decoding took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeStats {
    /// Tokens drawn, end tokens among them.
    pub tokens: u64,
    /// Forward passes of a batch.
    pub steps: u64,
    /// Tokens that passed through the model, summed over the steps: guided records take several rows.
    pub rows: u64,
    /// Bytes of weights that the steps read at least.
    pub weight_bytes: u64,
    /// Bytes of keys and values that the steps' rows saw.
    pub cache_bytes: u64,
}

impl std::ops::AddAssign for DecodeStats {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.steps += other.steps;
        self.rows += other.rows;
        self.weight_bytes += other.weight_bytes;
        self.cache_bytes += other.cache_bytes;
    }
}

/// A model ready to continue each label's prompt.
pub struct Decoder {
    model: LanguageModel,
    way: Way,
    /// `[width, vocabulary]`.
    head: Tensor<2>,
    settings: Decoding,
    /// Of each label, then the marginal one where there is one.
    prompts: Vec<Prompt>,
    /// Logits after each prompt.
    first: Vec<Vec<f32>>,
    labels: usize,
    /// What tokens say of labels, and β.
    evidence: Option<(Evidence, f64)>,
}

/// A record being written. Its rows are its own label's, then the contrasting prompts'.
struct Draft {
    request: Request,
    rng: ChaCha8Rng,
    /// The first of its rows in the cache.
    row: usize,
    tokens: Vec<u32>,
    /// How far it is read, where tokens are lifted.
    reading: Option<Reading>,
}

impl Decoder {
    /// Runs each label's prompt through the model once.
    ///
    /// # Errors
    /// Usage: records of no token, or longer than the model's context has room for behind the longest prompt.
    pub fn new(model: &LanguageModel, prompts: &[Vec<u32>], settings: Decoding) -> Result<Self> {
        Decoder::by(Way::of(&model.device()), model, prompts, settings)
    }

    /// The same, but guidance contrasts every label with the prompt `marginal`, which names none, in the place of other
    /// labels' prompts.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn against(self, marginal: &[u32]) -> Result<Self> {
        check_room(&self.model, marginal.len(), self.settings.max_tokens)?;
        let mut this = self;
        this.prompts.truncate(this.labels);
        this.first.truncate(this.labels);
        this.know(marginal);
        Ok(this)
    }

    /// The same, but tokens are lifted by what they say of the record's label, times `beta`, and by what they are lifted by
    /// besides: 0 and nothing besides lift none.
    ///
    /// # Panics
    /// Where the evidence is of other labels, or of tokens that are none of the model's.
    pub fn lifted(self, evidence: Evidence, beta: f64) -> Self {
        assert_eq!(evidence.labels(), self.labels, "evidence is of the decoder's labels");
        let vocabulary = self.model.shape().vocabulary;
        let known = evidence.tokens().iter().all(|t| (*t as usize) < vocabulary);
        assert!(known, "evidence is of the model's tokens");
        Decoder {
            evidence: (beta > 0.0 || evidence.lifts_for_any_label()).then_some((evidence, beta)),
            ..self
        }
    }

    /// The same by the ways of another way of device, so that what a GPU computes can be tested without one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn by(way: Way, model: &LanguageModel, prompts: &[Vec<u32>], settings: Decoding) -> Result<Self> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        check_room(model, longest, settings.max_tokens)?;
        let model = match way {
            Way::Memory => model.with_maps(|_, w| by_columns(w)),
            Way::Tensors => model.unpacked(),
        };
        let head = match way {
            Way::Memory => by_columns(model.head()),
            Way::Tensors => model.head(),
        }
        .transpose();
        let mut this = Decoder {
            model,
            way,
            head,
            settings,
            prompts: Vec::new(),
            first: Vec::new(),
            labels: prompts.len(),
            evidence: None,
        };
        prompts.iter().for_each(|tokens| this.know(tokens));
        Ok(this)
    }

    /// Runs a prompt through the model.
    fn know(&mut self, tokens: &[u32]) {
        let n = tokens.len();
        let mut prompt = Prompt::new(n, &self.model.device());
        let ids = row_of(tokens, [1, n], &self.model);
        let hidden = self.model.hidden(ids, Some(&mut prompt), &mut Plain);
        self.first
            .push(read(matmul(hidden.narrow(0, n - 1, 1), self.head.clone())));
        self.prompts.push(prompt);
    }

    /// Draws requests of `queue`, `records` side by side, until there are none left or the queue is closed.
    ///
    /// `done` is given each record's tokens, without the end token, as it ends, and may ask for another try.
    ///
    /// # Errors
    /// The first of `done`, which closes the queue.
    pub fn run(
        &self,
        queue: &Queue,
        records: usize,
        done: impl Fn(Request, Vec<u32>) -> Result<Option<Request>>,
    ) -> Result<DecodeStats> {
        let rows = 1 + self.contrasts();
        let mut stats = DecodeStats::default();
        let mut cache = Cache::by(
            self.way,
            self.model.shape(),
            &self.prompts,
            records * rows,
            self.settings.max_tokens,
            &self.model.device(),
        );
        let mut free: Vec<usize> = (0..records).rev().map(|i| i * rows).collect();
        let mut drafts: Vec<Draft> = Vec::new();
        loop {
            // Ended drafts give up their rows, free rows take requests, until neither is left.
            loop {
                for draft in drafts.extract_if(.., |d| self.ended(d)) {
                    free.push(draft.row);
                    stats.tokens += draft.tokens.len() as u64;
                    let mut tokens = draft.tokens;
                    tokens.pop_if(|t| *t == self.settings.end);
                    match done(draft.request, tokens) {
                        Ok(None) => {}
                        Ok(Some(again)) => queue.put(again),
                        Err(e) => {
                            queue.close();
                            return Err(e);
                        }
                    }
                }
                if queue.is_closed() {
                    return Ok(stats);
                }
                let Some(row) = free.last().copied() else { break };
                let Some(request) = queue.next() else { break };
                free.pop();
                drafts.push(self.begin(request, row, &mut cache));
            }
            if drafts.is_empty() {
                return Ok(stats);
            }
            drafts.sort_unstable_by_key(|d| d.row);
            self.step(&mut drafts, &mut cache, rows, &mut stats);
        }
    }

    /// [`Decoder::run`] by each of `workers`, and how each ended.
    pub fn run_on(
        &self,
        workers: &Workers,
        queue: &Queue,
        records: usize,
        done: impl Fn(Request, Vec<u32>) -> Result<Option<Request>> + Sync,
    ) -> Vec<Result<DecodeStats>> {
        workers.map(&vec![(); workers.count()], |()| self.run(queue, records, &done))
    }

    /// The tokens of each request, without the end token, `records` side by side.
    pub fn decode(&self, requests: &[Request], records: usize) -> Vec<Vec<u32>> {
        let drawn = std::sync::Mutex::new(std::collections::HashMap::new());
        let queue = Queue::new(requests.iter().copied());
        let keep = |request: Request, tokens: Vec<u32>| {
            drawn.lock().expect("nobody panics").insert(request, tokens);
            Ok(None)
        };
        self.run(&queue, records, keep).expect("nothing was refused");
        let drawn = drawn.into_inner().expect("nobody panics");
        requests.iter().map(|r| drawn[r].clone()).collect()
    }

    /// What it was told.
    pub fn settings(&self) -> Decoding {
        self.settings
    }

    /// Other prompts in each record's contrast.
    fn contrasts(&self) -> usize {
        match self.settings.guides() {
            false => 0,
            true if self.is_against_marginal() => 1,
            true => self.settings.contrasts.min(self.labels - 1),
        }
    }

    fn is_against_marginal(&self) -> bool {
        self.prompts.len() > self.labels
    }

    fn ended(&self, draft: &Draft) -> bool {
        draft.tokens.last() == Some(&self.settings.end) || draft.tokens.len() >= self.settings.max_tokens
    }

    /// A draft in the rows from `row` on, with its first token.
    fn begin(&self, request: Request, row: usize, cache: &mut Cache) -> Draft {
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(request.id);
        // A try has 2³⁶ words of its own: far more than a record can use.
        rng.set_word_pos(u128::from(request.attempt) << 36);
        let others: Vec<usize> = match self.is_against_marginal() {
            true => vec![self.labels; self.contrasts()],
            false => {
                let chosen = index::sample(&mut rng, self.labels - 1, self.contrasts());
                let other = |o: usize| if o < request.label { o } else { o + 1 };
                chosen.iter().map(other).collect()
            }
        };
        let labels: Vec<usize> = std::iter::once(request.label).chain(others).collect();
        for (i, label) in labels.iter().enumerate() {
            cache.begin(row + i, *label);
        }
        let others: Vec<&[f32]> = labels[1..].iter().map(|l| self.first[*l].as_slice()).collect();
        let choice = self.settings.choice_at(0);
        let mut draft = Draft {
            request,
            rng,
            row,
            tokens: Vec::new(),
            reading: self.evidence.as_ref().map(|(evidence, _)| evidence.begin()),
        };
        let values = self.lift(&draft);
        let token = draw(
            &self.first[request.label],
            &others,
            self.lift_by(&values),
            choice,
            &mut draft.rng,
        );
        self.add(&mut draft, token);
        draft
    }

    /// What is added to the log-probabilities of a draft's next token.
    fn lift(&self, draft: &Draft) -> Vec<f32> {
        match (&self.evidence, &draft.reading) {
            (Some((evidence, beta)), Some(reading)) => evidence.lift(reading, draft.request.label, *beta),
            _ => Vec::new(),
        }
    }

    /// The same with the tokens it is for; none where nothing is lifted.
    fn lift_by<'a>(&'a self, values: &'a [f32]) -> Option<Lift<'a>> {
        let (evidence, _) = self.evidence.as_ref()?;
        Some(Lift {
            tokens: evidence.tokens(),
            values,
        })
    }

    fn add(&self, draft: &mut Draft, token: u32) {
        if let (Some((evidence, _)), Some(reading)) = (&self.evidence, &mut draft.reading) {
            evidence.read(reading, token);
        }
        draft.tokens.push(token);
    }

    /// One token more for each draft; they ascend by their rows.
    fn step(&self, drafts: &mut [Draft], cache: &mut Cache, rows: usize, stats: &mut DecodeStats) {
        let active: Vec<usize> = drafts.iter().flat_map(|d| d.row..d.row + rows).collect();
        let mut step = cache.step(&active);
        let taken = step.rows().to_vec();
        let mut last = vec![0; taken.last().map_or(0, |r| r + 1)];
        for draft in drafts.iter() {
            last[draft.row..draft.row + rows].fill(*draft.tokens.last().expect("a draft begins with a token"));
        }
        let tokens: Vec<u32> = taken.iter().map(|r| last[*r]).collect();
        stats.steps += 1;
        stats.rows += taken.len() as u64;
        stats.weight_bytes += self.model.bytes_read() as u64;
        stats.cache_bytes += step.bytes() as u64;

        let tokens = row_of(&tokens, [taken.len(), 1], &self.model);
        let hidden = self.model.hidden(tokens, Some(&mut step), &mut Plain);
        let logits = matmul(hidden, self.head.clone());
        match self.way {
            Way::Memory => {
                let (logits, vocabulary) = (read(logits), self.model.shape().vocabulary);
                drafts.par_iter_mut().for_each(|draft| {
                    let at = taken.partition_point(|r| *r < draft.row);
                    let mut of_rows = logits[at * vocabulary..][..rows * vocabulary].chunks(vocabulary);
                    let own = of_rows.next().expect("a draft has a row");
                    let others: Vec<&[f32]> = of_rows.collect();
                    let choice = self.settings.choice_at(draft.tokens.len());
                    let values = self.lift(draft);
                    let token = pick(own, &others, self.lift_by(&values), choice, draft.rng.random());
                    self.add(draft, token);
                });
            }
            Way::Tensors => {
                let records = taken.len() / rows;
                let (mut uniforms, mut guidance) = (vec![0.5; records], vec![0.0; records]);
                for draft in drafts.iter_mut() {
                    uniforms[draft.row / rows] = draft.rng.random();
                    guidance[draft.row / rows] = self.settings.guidance_at(draft.tokens.len());
                }
                let mut values = Vec::new();
                if let Some((evidence, _)) = &self.evidence {
                    values = vec![0.0; records * evidence.tokens().len()];
                    for draft in drafts.iter() {
                        let of_draft = self.lift(draft);
                        values[draft.row / rows * of_draft.len()..][..of_draft.len()].copy_from_slice(&of_draft);
                    }
                }
                let lift = self.lift_by(&values);
                let tokens = pick_on_device(logits, rows, self.settings.choice, &guidance, lift, &uniforms).into_data();
                let tokens: Vec<i64> = tokens.iter::<i64>().collect();
                for draft in drafts {
                    self.add(draft, tokens[draft.row / rows] as u32);
                }
            }
        }
    }
}

fn check_room(model: &LanguageModel, prompt: usize, max_tokens: usize) -> Result<()> {
    let room = model.shape().context.saturating_sub(prompt);
    if (1..=room).contains(&max_tokens) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "records of {max_tokens} tokens cannot be drawn: the model's context leaves 1 to {room} behind the prompt"
    ))
    .hint("`sample.max_tokens` sets it, else `prepare.max_tokens`"))
}

fn row_of(tokens: &[u32], shape: [usize; 2], model: &LanguageModel) -> Tensor<2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
    Tensor::from_data(TensorData::new(ids, shape), &model.device())
}

/// `weight [out, in]` as it is, but written column by column. gemm reads it so without packing it first, which for a few
/// dozen rows takes as long as the product.
fn by_columns(weight: Tensor<2>) -> Tensor<2> {
    let [output, input] = weight.dims();
    let device = weight.device();
    let columns = TensorData::new(read(weight.transpose()), [input, output]);
    Tensor::<2>::from_data(columns, &device).transpose()
}
