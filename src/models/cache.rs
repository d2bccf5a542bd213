//! Keys and values of the tokens that a model has seen, for many rows that end and begin at different times.
//!
//! A row is a prompt, whose keys and values all its rows share, and the row's own tokens behind it. Rows never wait for
//! one another: each has its own position, and a row that is given a new prompt only forgets what it held.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::fused::{Heads, Rotary, causal_attention, rotate};
use super::shape::Shape;

pub mod behind;
mod memory;
mod tensors;

/// How sampling computes beside the model's products: chosen in [`Way::of`] and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// On a CPU: kernels of our own over plain memory.
    Memory,
    /// On a GPU: tensor operations, so that neither keys nor logits leave the device.
    Tensors,
}

impl Way {
    /// What serves a model on `device` best.
    pub fn of(device: &Device) -> Self {
        if *device == Device::flex() {
            Way::Memory
        } else {
            Way::Tensors
        }
    }
}

/// What the tokens at hand come after: it says where they stand and what they see, and keeps their keys and values.
pub trait Past {
    /// Position of each token at hand in its row: `[rows · tokens]`.
    fn positions(&self) -> Tensor<1, Int>;

    /// Keeps `k` and `v [rows · tokens, kv_heads · head_width]`, not yet rotated, and gives what `q [rows · tokens,
    /// heads · head_width]`, not yet rotated either, sees. `rotary` has the angles of [`Self::positions`].
    fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
    ) -> Tensor<2>;

    /// Counts the tokens at hand as seen, after the last layer.
    fn advance(&mut self);
}

/// Keys and values of a prompt: the [`Past`] of the forward pass over its one row, then a start for any number of rows.
pub struct Prompt {
    /// `[1, kv_heads, len, head_width]` for each layer, keys rotated.
    keys: Vec<Tensor<4>>,
    values: Vec<Tensor<4>>,
    len: usize,
    device: Device,
}

impl Prompt {
    /// For a prompt of `len` tokens that has yet to pass through the model.
    pub fn new(len: usize, device: &Device) -> Self {
        Prompt {
            keys: Vec::new(),
            values: Vec::new(),
            len,
            device: device.clone(),
        }
    }
}

impl Past for Prompt {
    fn positions(&self) -> Tensor<1, Int> {
        indices(0..self.len, &self.device)
    }

    fn attend(
        &mut self,
        _: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
    ) -> Tensor<2> {
        self.keys.push(rotate(shape.split(k.clone(), shape.kv_heads), rotary));
        self.values.push(shape.split(v.clone(), shape.kv_heads));
        causal_attention(q, k, v, shape, rotary)
    }

    fn advance(&mut self) {}
}

/// One row: the prompt that it continues, and how many tokens of its own it holds behind it.
#[derive(Clone, Copy, Default)]
struct Row {
    prompt: usize,
    held: usize,
}

/// Keys and values of a number of rows, allocated once.
pub struct Cache {
    rows: Vec<Row>,
    /// Tokens of each prompt.
    lengths: Vec<usize>,
    /// Tokens of its own that a row can hold.
    capacity: usize,
    /// Fewest rows in a step.
    fewest: usize,
    /// Bytes of keys and values of one token.
    token_bytes: usize,
    storage: Storage,
    device: Device,
}

enum Storage {
    /// Plain memory, read by a kernel of our own.
    Memory(memory::Memory),
    /// Tensors, for devices that a CPU cannot write to.
    Tensors(Box<tensors::Tensors>),
}

impl Cache {
    /// `rows` rows that each hold up to `capacity` tokens behind one of `prompts`.
    pub fn new(model: &Shape, prompts: &[Prompt], rows: usize, capacity: usize, device: &Device) -> Self {
        Cache::by(Way::of(device), model, prompts, rows, capacity, device)
    }

    /// The same in the storage of another way of device, so that what a GPU computes can be tested without one.
    pub fn by(way: Way, model: &Shape, prompts: &[Prompt], rows: usize, capacity: usize, device: &Device) -> Self {
        let fewest = match way {
            Way::Memory => fewest_rows(model),
            Way::Tensors => 1,
        };
        let rows = rows.max(fewest);
        Cache {
            rows: vec![Row::default(); rows],
            lengths: prompts.iter().map(|p| p.len).collect(),
            capacity,
            fewest,
            token_bytes: model.held_per_token() * size_of::<f32>(),
            storage: match way {
                Way::Memory => Storage::Memory(memory::Memory::new(model, prompts, rows, capacity)),
                Way::Tensors => {
                    Storage::Tensors(Box::new(tensors::Tensors::new(model, prompts, rows, capacity, device)))
                }
            },
            device: device.clone(),
        }
    }

    /// Lets `row` forget what it held and stand behind `prompt`.
    pub fn begin(&mut self, row: usize, prompt: usize) {
        self.rows[row] = Row { prompt, held: 0 };
    }

    /// The past of one more token in each of `rows` (ascending), and in others where the storage wants more of them:
    /// [`Step::rows`] says in which. A row that is left out of a step begins anew before it is named again.
    pub fn step(&mut self, rows: &[usize]) -> Step<'_> {
        let rows = match &self.storage {
            Storage::Tensors(_) => (0..self.rows.len()).collect(),
            Storage::Memory(_) if rows.len() >= self.fewest => rows.to_vec(),
            Storage::Memory(_) => {
                let idle = (0..self.rows.len()).filter(|r| !rows.contains(r));
                let mut rows: Vec<usize> = idle
                    .take(self.fewest - rows.len())
                    .chain(rows.iter().copied())
                    .collect();
                rows.sort_unstable();
                rows
            }
        };
        for row in &rows {
            // Only a row that nobody reads can be full.
            if self.rows[*row].held == self.capacity {
                self.rows[*row].held = 0;
            }
        }
        let at: Vec<Row> = rows.iter().map(|r| self.rows[*r]).collect();
        match &mut self.storage {
            Storage::Memory(_) => {}
            Storage::Tensors(t) => t.look(&at, &self.lengths),
        }
        Step { cache: self, rows, at }
    }
}

/// One token more in some rows of a cache.
pub struct Step<'a> {
    cache: &'a mut Cache,
    rows: Vec<usize>,
    at: Vec<Row>,
}

impl Step<'_> {
    /// The rows that take a token, ascending.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Bytes of keys and values that the step's rows see, the prompts' among them.
    pub fn bytes(&self) -> usize {
        let seen: usize = self.at.iter().map(|r| self.cache.lengths[r.prompt] + r.held + 1).sum();
        seen * self.cache.token_bytes
    }
}

impl Past for Step<'_> {
    fn positions(&self) -> Tensor<1, Int> {
        let positions = self.at.iter().map(|r| self.cache.lengths[r.prompt] + r.held);
        indices(positions, &self.cache.device)
    }

    fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
    ) -> Tensor<2> {
        match &mut self.cache.storage {
            Storage::Memory(memory) => memory.attend(layer, q, k, v, shape, rotary, &self.rows, &self.at),
            Storage::Tensors(tensors) => tensors.attend(layer, q, k, v, shape, rotary),
        }
    }

    fn advance(&mut self) {
        for row in &self.rows {
            self.cache.rows[*row].held += 1;
        }
        if let Storage::Tensors(tensors) = &mut self.cache.storage {
            tensors.advance();
        }
    }
}

/// The fewest rows whose products round as those of any larger number do: what a row draws may not depend on how many
/// others there are.
///
/// gemm 0.19 sums over the inner width in one order for all numbers of rows, but for vectors, for results of at most
/// 16 · 16 numbers, and for results of at most 64 · 64 whose inner width is over 512.
fn fewest_rows(model: &Shape) -> usize {
    let narrowest = model.maps().map(|(_, [_, out])| out).min().unwrap_or(1);
    let blocked = model.maps().any(|(_, [input, out])| input > 512 && out <= 64);
    let beyond_blocks = if blocked { 65 } else { 2 };
    (256 / narrowest + 1).max(beyond_blocks)
}

fn indices(values: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}
