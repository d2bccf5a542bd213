//! A cache of tensors, for a GPU.
//!
//! The rows' own tokens lie in a ring: all rows write the column that the time points at, and each sees the last
//! columns that it wrote itself. Attention does not care in which order keys lie, since positions are in the keys.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use super::{Prompt, Row, indices};
use crate::models::fused::{Heads, Rotary, rotate};
use crate::models::product::matmul;
use crate::models::shape::Shape;

pub(super) struct Tensors {
    /// `[prompts, kv_heads, longest, head_width]` for each layer: keys and values.
    prompts: Vec<[Tensor<4>; 2]>,
    /// `[rows, kv_heads, capacity, head_width]` for each layer: keys and values. Empty while a layer writes its own.
    rows: Vec<[Option<Tensor<4>>; 2]>,
    longest: usize,
    capacity: usize,
    /// Steps so far.
    time: usize,
    /// Windows through which layers look, each once.
    windows: Vec<Option<usize>>,
    /// Prompt of each row, and for each of the windows true where a row may not look: `[rows, 1, 1, longest + capacity]`.
    view: Option<(Tensor<1, Int>, Vec<Tensor<4, Bool>>)>,
    device: Device,
}

impl Tensors {
    pub(super) fn new(model: &Shape, prompts: &[Prompt], rows: usize, capacity: usize, device: &Device) -> Self {
        let longest = prompts.iter().map(|p| p.len).max().unwrap_or(0);
        let shape = |l: usize, rows, columns| {
            [
                rows,
                model.attention[l].kv_heads,
                columns,
                model.attention[l].head_width,
            ]
        };
        let stacked = |part: fn(&Prompt) -> &Vec<Tensor<4>>, l: usize| {
            let one = |p: &Prompt| {
                let [n, heads, len, width] = part(p)[l].dims();
                Tensor::zeros(shape(l, 1, longest), device)
                    .slice_assign([0..n, 0..heads, 0..len, 0..width], part(p)[l].clone())
            };
            Tensor::cat(prompts.iter().map(one).collect(), 0)
        };
        let mut windows: Vec<Option<usize>> = Vec::new();
        for attention in &model.attention {
            if !windows.contains(&attention.window) {
                windows.push(attention.window);
            }
        }
        let empty = |l: usize| Some(Tensor::zeros(shape(l, rows, capacity), device));
        Tensors {
            prompts: (0..model.layers())
                .map(|l| [stacked(|p| &p.keys, l), stacked(|p| &p.values, l)])
                .collect(),
            rows: (0..model.layers()).map(|l| [empty(l), empty(l)]).collect(),
            longest,
            capacity,
            time: 0,
            windows,
            view: None,
            device: device.clone(),
        }
    }

    /// Says what each row sees in the step to come.
    pub(super) fn look(&mut self, at: &[Row], lengths: &[usize]) {
        let write = self.time % self.capacity;
        let age = |column: usize| (write + self.capacity - column) % self.capacity;
        let through = |window: &Option<usize>| {
            let mut hidden = Vec::with_capacity(at.len() * (self.longest + self.capacity));
            for row in at {
                let (len, window) = (lengths[row.prompt], window.unwrap_or(usize::MAX));
                hidden.extend((0..self.longest).map(|column| column >= len || len + row.held - column >= window));
                hidden.extend((0..self.capacity).map(|column| age(column) > row.held || age(column) >= window));
            }
            let shape = [at.len(), 1, 1, self.longest + self.capacity];
            Tensor::from_data(TensorData::new(hidden, shape), &self.device)
        };
        let hidden = self.windows.iter().map(through).collect();
        self.view = Some((indices(at.iter().map(|r| r.prompt), &self.device), hidden));
    }

    pub(super) fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
    ) -> Tensor<2> {
        let Heads {
            rows,
            heads,
            kv_heads,
            head_width: width,
            window,
            ..
        } = shape;
        let (prompt, hidden) = self.view.clone().expect("a step looks first");
        let through = self.windows.iter().position(|own| *own == window);
        let hidden = hidden[through.expect("each layer has its window")].clone();
        // Each row has a position of its own: rows stand where a sequence's tokens would.
        let turned = |x: Tensor<2>, heads: usize| {
            let x = x.reshape([1, rows, heads, width]).swap_dims(1, 2);
            rotate(x, rotary).swap_dims(1, 2)
        };
        let q = turned(q, heads).reshape([rows, kv_heads, heads / kv_heads, width]);
        let k = turned(k, kv_heads).reshape([rows, kv_heads, 1, width]);
        let v = v.reshape([rows, kv_heads, 1, width]);
        let write = self.time % self.capacity;
        let mut own = |part: usize, new: Tensor<4>| {
            // Taken out of its slot, so that the tensor has one owner and is written in place.
            let held = self.rows[layer][part].take().expect("a slot is filled between calls");
            let held = held.slice_assign([0..rows, 0..kv_heads, write..write + 1, 0..width], new);
            self.rows[layer][part] = Some(held.clone());
            held
        };
        let (own_keys, own_values) = (own(0, k), own(1, v));
        let [keys, values] = self.prompts[layer].clone().map(|t| t.select(0, prompt.clone()));
        let seen = self.longest + self.capacity;
        let scores = Tensor::cat(
            vec![
                matmul(q.clone(), keys.swap_dims(2, 3)),
                matmul(q, own_keys.swap_dims(2, 3)),
            ],
            3,
        );
        let hidden = hidden.expand([rows, kv_heads, heads / kv_heads, seen]);
        let scores = (scores / (width as f64).sqrt()).mask_fill(hidden, f32::NEG_INFINITY);
        let weights = activation::softmax(scores, 3);
        let of_prompt = matmul(weights.clone().narrow(3, 0, self.longest), values);
        let of_own = matmul(weights.narrow(3, self.longest, self.capacity), own_values);
        (of_prompt + of_own).reshape([rows, heads * width])
    }

    pub(super) fn advance(&mut self) {
        self.time += 1;
    }
}
