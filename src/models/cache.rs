//! Keys and values of the tokens that a model has seen.

use burn::tensor::{Bool, Device, Int, Tensor};

use super::fused::{Heads, Rotary, attention, rotate};
use super::llama::LlamaConfig;

/// Keys and values of the tokens seen so far, allocated once.
#[derive(Clone)]
pub struct Cache {
    /// `[rows, kv_heads, capacity, head_width]` for each layer.
    keys: Vec<Option<Tensor<4>>>,
    values: Vec<Option<Tensor<4>>>,
    len: usize,
}

impl Cache {
    /// Room for `capacity` tokens in each of `rows` rows.
    pub fn new(config: &LlamaConfig, rows: usize, capacity: usize, device: &Device) -> Self {
        let shape = [rows, config.kv_heads, capacity, config.head_width()];
        let fresh = || (0..config.layers).map(|_| Some(Tensor::zeros(shape, device))).collect();
        Cache {
            keys: fresh(),
            values: fresh(),
            len: 0,
        }
    }

    /// One row whose first `padding` positions are taken but empty: they must be hidden from every token.
    pub fn padded(config: &LlamaConfig, capacity: usize, padding: usize, device: &Device) -> Self {
        Cache {
            len: padding,
            ..Cache::new(config, 1, capacity, device)
        }
    }

    /// Caches of the same length, one under the other.
    pub fn stack(caches: Vec<Cache>) -> Self {
        let len = caches.first().map_or(0, |c| c.len);
        assert!(
            caches.iter().all(|c| c.len == len),
            "stacked caches hold equally many tokens"
        );
        let layers = caches.first().map_or(0, |c| c.keys.len());
        let join = |part: fn(&Cache) -> &Vec<Option<Tensor<4>>>| {
            (0..layers)
                .map(|l| Some(Tensor::cat(caches.iter().map(|c| held(&part(c)[l])).collect(), 0)))
                .collect()
        };
        Cache {
            keys: join(|c| &c.keys),
            values: join(|c| &c.values),
            len,
        }
    }

    /// A new cache of the named rows, with room for `capacity` tokens.
    pub fn rows(&self, rows: &Tensor<1, Int>, capacity: usize) -> Self {
        let grow = |slot: &Option<Tensor<4>>| {
            let chosen = held(slot).select(0, rows.clone());
            let [n, heads, len, width] = chosen.dims();
            let room = Tensor::zeros([n, heads, capacity, width], &chosen.device());
            Some(room.slice_assign([0..n, 0..heads, 0..len, 0..width], chosen))
        };
        Cache {
            keys: self.keys.iter().map(grow).collect(),
            values: self.values.iter().map(grow).collect(),
            len: self.len,
        }
    }

    /// Tokens held for each row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps only `rows`, in that order; a row may be named more than once.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        for slot in self.keys.iter_mut().chain(&mut self.values) {
            *slot = slot.take().map(|t| t.select(0, rows.clone()));
        }
    }

    /// Counts the tokens that every layer has appended.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Appends `[rows, kv_heads, tokens, head_width]` and returns all that is held.
    fn append(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, tokens, width] = k.dims();
        let end = self.len + tokens;
        let write = |slot: &mut Option<Tensor<4>>, new: Tensor<4>| {
            // Taken out of its slot, so that the tensor has one owner and is written in place.
            let held = slot.take().expect("a slot is filled between calls");
            let held = held.slice_assign([0..rows, 0..heads, self.len..end, 0..width], new);
            let view = held.clone().slice([0..rows, 0..heads, 0..end, 0..width]);
            *slot = Some(held);
            view
        };
        (write(&mut self.keys[layer], k), write(&mut self.values[layer], v))
    }
}

fn held(slot: &Option<Tensor<4>>) -> Tensor<4> {
    slot.clone().expect("a slot is filled between calls")
}

/// What the tokens at hand come after.
pub struct Past<'a> {
    pub cache: &'a mut Cache,
    /// True where a token may not look: `[rows or 1, 1, tokens or 1, past + tokens]`.
    pub hidden_from: Tensor<4, Bool>,
}

impl Past<'_> {
    pub(super) fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
    ) -> Tensor<2> {
        let k = rotate(shape.split(k, shape.kv_heads), rotary);
        let v = shape.split(v, shape.kv_heads);
        let (k, v) = self.cache.append(layer, k, v);
        attention(q, k, v, shape, rotary, self.hidden_from.clone())
    }
}

/// Which positions a token may not look at: those after it. `[1, 1, tokens, tokens]`.
pub fn causal(tokens: usize, device: &Device) -> Tensor<4, Bool> {
    Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, device).unsqueeze::<4>()
}
