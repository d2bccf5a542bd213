//! What training and drawing hold in memory, from above: a model's shape and settings decide, no weight is needed.

use crate::config::{FinetuneConfig, Method, Precision, SampleConfig};
use crate::models::nf4::Nf4;
use crate::models::shape::Shape;
use crate::training::trainable;

/// Bytes held for a token in training, over the bytes of all linear maps' inputs and outputs; measured once with
/// SmolLM2-135M on two cores (docs/results.md).
const TAPE_FACTOR: f64 = 1.1;

/// Rows of logits that a worker has at once.
const LOGITS: f64 = 256.0;

/// Bytes of the program itself, and of what is small beside a model.
const PROGRAM: f64 = 1.8e8;

/// Share of a machine's memory that a run may fill: the rest is the system's.
const SHARE: f64 = 0.9;

/// A model in training, on so many workers side by side.
#[derive(Clone, Copy, Debug)]
pub struct Footprint<'a> {
    pub shape: &'a Shape,
    pub finetune: &'a FinetuneConfig,
    /// Micro-batches that are under way at once.
    pub workers: usize,
    /// Tokens of a record, all the rows of its objective together.
    pub tokens_per_record: f64,
    /// Bytes of a file that packs weights itself, where the model is one.
    pub packed_file: Option<u64>,
}

/// Of `memory`, what a run may fill.
pub fn usable(memory: f64) -> f64 {
    SHARE * memory
}

impl Footprint<'_> {
    /// Bytes that training takes.
    pub fn bytes(&self) -> f64 {
        self.without_records() + self.finetune.micro_batch_size as f64 * self.of_a_record()
    }

    /// Records that fit into a micro-batch where there are `memory` bytes; 0 where the model itself does not fit.
    pub fn most_at_once(&self, memory: f64) -> usize {
        let room = usable(memory) - self.without_records();
        (room / self.of_a_record()).max(0.0) as usize
    }

    /// Whether only a block at a time is kept for its backward pass.
    fn is_checkpointed(&self) -> bool {
        self.finetune.activation_checkpointing || self.is_packed()
    }

    fn is_packed(&self) -> bool {
        self.finetune.method == Method::Qlora
    }

    /// The base and what the forward sees of it; then values, two moments, the sum in f64, the noised one, and each worker's own.
    fn without_records(&self) -> f64 {
        let (shape, workers) = (self.shape, self.workers as f64);
        let in_maps = shape.over_maps(|input, output| input * output);
        let all = shape.parameters() as f64;
        let weights = match (self.is_packed(), self.finetune.precision) {
            // A worker has a block unpacked, and of one map its numbers before they are a tensor.
            (true, _) => {
                let largest = shape.maps().map(|(_, [input, output])| input * output).max();
                let unpacked = self.of_a_block() + largest.unwrap_or(0);
                let packed = (Nf4::bytes(in_maps) as u64).max(self.packed_file.unwrap_or(0));
                4.0 * (all - in_maps as f64) + packed as f64 + workers * 4.0 * unpacked as f64
            }
            (false, Precision::F32) => 8.0 * all,
            (false, Precision::Bf16) => 4.0 * all + 2.0 * in_maps as f64,
        };
        // The head by columns, and a chunk of logits of each worker.
        let head = 4.0 * shape.vocabulary as f64 * (shape.width as f64 + workers * LOGITS);
        // And the noise of the steps before, where it goes together.
        let noise = 8.0 * self.finetune.bands.unwrap_or(0) as f64;
        PROGRAM + weights + head + (24.0 + 4.0 * workers + noise) * trainable::count(self.finetune, shape) as f64
    }

    /// What a record of each worker's micro-batch holds.
    fn of_a_record(&self) -> f64 {
        let shape = self.shape;
        let tape = shape.over_maps(|input, output| input + output) as f64 * TAPE_FACTOR;
        let layers = shape.layers() as f64;
        let kept = match self.is_checkpointed() {
            true => tape / layers + layers * shape.width as f64,
            false => tape,
        };
        self.workers as f64 * self.tokens_per_record * 4.0 * kept
    }

    /// Weights in the maps of a block.
    fn of_a_block(&self) -> usize {
        self.shape.over_maps(|input, output| input * output) / self.shape.layers()
    }
}

/// Bytes that drawing takes: the base, the tuned model, and its copy by columns; then keys, values and logits of what is drawn at
/// once by each of `workers`, `drawn_tokens` and a prompt's each.
pub fn of_drawing(shape: &Shape, sample: &SampleConfig, labels: usize, workers: usize, tokens: usize) -> f64 {
    let rows = workers * sample.batch_size * (1 + sample.contrasts(labels));
    let held = shape.held_per_token() as f64 * 4.0 * tokens as f64;
    12.0 * shape.parameters() as f64 + rows as f64 * (held + 8.0 * shape.vocabulary as f64)
}
