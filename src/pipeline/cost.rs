//! What a run takes here, from above: its settings, the model's shape and this machine's speed. No record is read.

use burn::tensor::Device;
use serde::Serialize;

use super::footprint::{self, Footprint};
use super::rates::Rates;
use crate::config::{AllReal, Method, RunConfig, Strength, Update};
use crate::machine::workers::Workers;
use crate::models::shape::Shape;
use crate::sampling::guide;
use crate::training::trainable;

/// Tokens of the chat template and the request around a record: an estimate until the records are prepared.
pub const PROMPT_TOKENS: usize = 40;
/// Operations of an encoder of MiniLM's size for a word piece: one is taken for granted.
pub const OF_A_WORD_PIECE: f64 = 21e6;

/// What a run takes, every record at its longest.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub parameters: usize,
    pub trained_parameters: usize,
    pub training_memory_bytes: f64,
    pub sampling_memory_bytes: f64,
    /// Training, the lexicon before it included.
    pub finetune_s: f64,
    /// Units of privacy (records, where nothing else is declared) that training takes in a second, at least.
    pub units_per_second: f64,
    pub sample_s: f64,
    /// Without arms that were asked for besides.
    pub evaluate_s: f64,
    /// Of this machine, measured now.
    pub matmul_flops_per_second: f64,
}

/// Seconds of a run's parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spending {
    /// Vectors of records for the lexicon, and a public warm-up.
    pub before_training_s: f64,
    pub training_s: f64,
    pub synthetic_s: f64,
    pub zero_shot_s: f64,
    pub evaluate_s: f64,
}

impl Spending {
    /// All together.
    pub fn total_s(&self) -> f64 {
        self.before_training_s + self.training_s + self.synthetic_s + self.zero_shot_s + self.evaluate_s
    }
}

/// What a run's time follows from, besides its settings.
#[derive(Clone, Debug)]
pub struct Basis {
    pub shape: Shape,
    /// Joint labels.
    pub labels: usize,
    pub device: Device,
    pub rates: Rates,
    /// Tokens of the longest text that is worth looking at, as far as is declared.
    pub longest_text: usize,
    /// Bytes of a file that packs weights itself, where the model is one.
    pub packed_file: Option<u64>,
}

/// What a run takes, by parts.
#[derive(Clone, Copy)]
pub struct Reckoning<'a> {
    pub config: &'a RunConfig,
    pub basis: &'a Basis,
}

/// How often a token passes through the model in training, in forward passes: forward, backward, and where all weights are
/// trained their gradients and norms; frozen ones need neither.
pub fn passes(config: &RunConfig) -> f64 {
    if let Update::ZerothOrder { directions, .. } = config.finetune.update {
        return 2.0 * directions as f64;
    }
    match config.finetune.method {
        Method::Lora | Method::LoraFa | Method::Bitfit | Method::Ia3 | Method::SoftPrompt => 2.0,
        // Each block's forward is taken twice.
        Method::Qlora => 3.0,
        Method::Full => 3.5,
    }
}

/// Tokens that a record takes in training, all the rows of its objective together, where there are so many labels.
pub fn tokens_per_record(config: &RunConfig, labels: usize) -> f64 {
    let rows = config.finetune.objective.rows_per_record(labels);
    (rows * (PROMPT_TOKENS + config.prepare.max_tokens)) as f64
}

impl Reckoning<'_> {
    /// Of a run of `steps` steps.
    pub fn cost(&self, steps: u64) -> Cost {
        let f = &self.config.finetune;
        let spending = self.spending(steps * f.expected_batch_size, self.synthetic_records());
        Cost {
            parameters: self.basis.shape.parameters(),
            trained_parameters: trainable::count(f, &self.basis.shape),
            training_memory_bytes: self.training_memory(),
            sampling_memory_bytes: self.sampling_memory(),
            finetune_s: spending.before_training_s + spending.training_s,
            units_per_second: self.units_per_second(),
            sample_s: spending.synthetic_s + spending.zero_shot_s,
            evaluate_s: spending.evaluate_s,
            matmul_flops_per_second: self.basis.rates.matmul,
        }
    }

    /// For so many draws of a unit in training, and so many synthetic records.
    pub fn spending(&self, draws: u64, synthetic_records: usize) -> Spending {
        Spending {
            before_training_s: self.lexicon_s() + self.warm_start_s(),
            training_s: draws as f64 / self.units_per_second(),
            synthetic_s: self.drawing_s(synthetic_records, true),
            zero_shot_s: self.drawing_s(self.zero_shot_records(), false),
            evaluate_s: self.evaluate_s(synthetic_records),
        }
    }

    /// Synthetic records that are drawn at least: all of full length.
    pub fn synthetic_records(&self) -> usize {
        let s = &self.config.sample;
        let by_tokens = s.tokens.filter(|_| self.counts_tokens());
        let fit = by_tokens.map_or(0, |tokens| tokens / self.drawn_tokens());
        fit.clamp(s.records, s.most_records())
    }

    /// Whether the number of synthetic records can follow from their tokens: by the length of those that are drawn to find how the
    /// others are steered.
    pub fn counts_tokens(&self) -> bool {
        self.passes_of_pilots(true) > 0
    }

    /// Zero-shot records that are drawn.
    pub fn zero_shot_records(&self) -> usize {
        self.config.sample.zero_shot()
    }

    /// Tokens of a drawn record, at most.
    pub fn drawn_tokens(&self) -> usize {
        self.config.drawn_tokens().max(1)
    }

    /// Units of privacy that training takes in a second, at least.
    pub fn units_per_second(&self) -> f64 {
        let unit = self.config.dataset.max_records_per_unit() as f64 * self.tokens_per_record();
        self.basis.rates.training / (passes(self.config) * self.basis.shape.flops_per_token() * unit)
    }

    /// Seconds for the vectors of all records, which the lexicon's second scorer learns from.
    pub fn lexicon_s(&self) -> f64 {
        let c = self.config;
        let records = c.dataset.public_size as f64 * c.dataset.max_records_per_unit() as f64;
        match c.lexicon.encoder() {
            Some(_) => {
                let length = c.lexicon.encoder_max_tokens.min(self.basis.longest_text);
                records * length as f64 * OF_A_WORD_PIECE / self.basis.rates.reading
            }
            None => 0.0,
        }
    }

    /// Seconds for the public warm-up: drawing it, and learning from it.
    pub fn warm_start_s(&self) -> f64 {
        let warm_start = &self.config.finetune.warm_start;
        let learned = (warm_start.records * warm_start.epochs) as f64 * self.tokens_per_record();
        let drawn = (2 * warm_start.records * self.drawn_tokens()) as f64;
        let forward = self.basis.shape.flops_per_token();
        forward * passes(self.config) * learned / self.basis.rates.training
            + forward * drawn / self.basis.rates.sampling
    }

    /// Seconds for so many records of an arm, and the pilots that find how it is steered; how many are drawn anew is not
    /// known before.
    pub fn drawing_s(&self, records: usize, synthetic: bool) -> f64 {
        let passes = self.passes_of_a_record(synthetic) * records + self.passes_of_pilots(synthetic);
        self.basis.shape.flops_per_token() * (passes * self.drawn_tokens()) as f64 / self.basis.rates.sampling
    }

    /// Seconds for the encoder's fits and what they are tested on; those of the linear classifier are nothing beside them.
    pub fn evaluate_s(&self, synthetic_records: usize) -> f64 {
        let (c, e) = (self.config, &self.config.evaluate);
        if !e.encoder.is_on() {
            return 0.0;
        }
        let real = c.dataset.public_size as usize;
        let smallest = synthetic_records.min(self.zero_shot_records()).min(real);
        let equal = e.records.unwrap_or((4 * smallest).div_ceil(5)).min(smallest);
        let of_text = e.encoder_max_tokens.min(self.basis.longest_text);
        let of_drawn = e.encoder_max_tokens.min(self.drawn_tokens());
        // Of each arm a fit a seed, of all its records one.
        let mut fits = [(equal, of_text), (equal, of_drawn), (equal, of_drawn)].repeat(e.seeds);
        fits.extend(e.all_synthetic.then_some((synthetic_records, of_drawn)));
        fits.extend((e.all_real == AllReal::Both).then_some((real, of_text)));
        let test_records = e.encoder_test_records.or(c.prepare.max_test_records).unwrap_or(real);
        // Forward, and twice that for the gradients; each fit is tested.
        let pieces: usize = fits
            .iter()
            .map(|(records, length)| 3 * e.encoder_epochs * records * length + test_records * of_text)
            .sum();
        pieces as f64 * OF_A_WORD_PIECE / self.basis.rates.reading
    }

    /// Tokens that a record takes in training, all the rows of its objective together.
    fn tokens_per_record(&self) -> f64 {
        tokens_per_record(self.config, self.basis.labels)
    }

    fn by_lexicon(&self, synthetic: bool) -> bool {
        let c = self.config;
        synthetic && c.lexicon.is_on() && c.sample.lexicon_weight != Strength::Fixed(0.0)
    }

    /// Prompts beside its own that a record is contrasted with.
    fn contrasts(&self, synthetic: bool) -> usize {
        let s = &self.config.sample;
        // A guidance that is found is none where a lexicon steers.
        match self.by_lexicon(synthetic) && matches!(s.guidance, Strength::Found(_)) {
            true => 0,
            false => s.contrasts(self.basis.labels),
        }
    }

    /// The model's passes that judge a record: by it each label is one; a lexicon's scorers take next to none.
    fn judging(&self) -> usize {
        1 + self.config.sample.refine.labels.min(self.basis.labels - 1)
    }

    fn passes_of_a_record(&self, synthetic: bool) -> usize {
        let c = self.config;
        let by_the_model = match synthetic {
            true => !c.lexicon.has_scorer(),
            false => !c.keeps_others_as_drawn(),
        };
        let judged = match c.sample.refine.is_on() && by_the_model {
            true => self.judging(),
            false => 0,
        };
        1 + self.contrasts(synthetic) + judged
    }

    /// Passes through the model of records that are drawn to find how an arm is steered; 0 where nothing is to be found.
    fn passes_of_pilots(&self, synthetic: bool) -> usize {
        let (c, s) = (self.config, &self.config.sample);
        let pilot = |least, records| guide::pilot_size(least, records, self.basis.labels);
        let records = match synthetic {
            true => s.records,
            false => s.zero_shot(),
        };
        let is_found = |strength| matches!(strength, Strength::Found(_));
        let drawn = 1 + self.contrasts(synthetic);
        let tried = match (is_found(s.guidance), self.by_lexicon(synthetic)) {
            (true, false) => pilot(guide::GUIDED, records) * (drawn + self.judging()),
            (_, true) if is_found(s.lexicon_weight) => pilot(guide::LIFTED, records) * drawn,
            _ => 0,
        };
        let domain = match synthetic && c.lexicon.is_on() && s.domain_weight > 0.0 {
            true => pilot(guide::LIFTED, records) * drawn,
            false => 0,
        };
        3 * tried + domain
    }

    fn training_memory(&self) -> f64 {
        Footprint {
            shape: &self.basis.shape,
            finetune: &self.config.finetune,
            workers: Workers::on(&self.basis.device).count(),
            tokens_per_record: self.tokens_per_record(),
            packed_file: self.basis.packed_file,
        }
        .bytes()
    }

    fn sampling_memory(&self) -> f64 {
        let workers = Workers::on(&self.basis.device).count();
        let tokens = self.drawn_tokens() + PROMPT_TOKENS;
        footprint::of_drawing(
            &self.basis.shape,
            &self.config.sample,
            self.basis.labels,
            workers,
            tokens,
        )
    }
}
