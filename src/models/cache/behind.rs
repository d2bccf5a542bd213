//! Whole texts behind prompts in one pass, for a CPU: what a text is worth to the model, where decoding asks for one
//! token at a time.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::{Past, Prompt, fewest_rows, indices};
use crate::models::fused::cached::{Stretch, attend, turn};
use crate::models::fused::lanes::dispatch;
use crate::models::fused::{Heads, Rotary};
use crate::models::read;
use crate::models::shape::Shape;

/// Keys and values of prompts in plain memory.
pub struct Prompts {
    /// Of each layer and prompt: `[kv_heads, len, head_width]` of keys, then of values.
    layers: Vec<Vec<[Vec<f32>; 2]>>,
    lengths: Vec<usize>,
    fewest: usize,
    device: Device,
}

impl Prompts {
    /// Prompts that have passed through the model.
    pub fn new(model: &Shape, prompts: &[Prompt], device: &Device) -> Self {
        let of_layer = |l: usize| {
            let both = |p: &Prompt| [&p.keys[l], &p.values[l]].map(|t| read(t.clone()));
            prompts.iter().map(both).collect()
        };
        Prompts {
            layers: (0..model.layers()).map(of_layer).collect(),
            lengths: prompts.iter().map(|p| p.len).collect(),
            fewest: fewest_rows(model),
            device: device.clone(),
        }
    }

    /// The fewest tokens whose results do not depend on how many others pass with them.
    pub fn fewest_tokens(&self) -> usize {
        self.fewest
    }

    /// The past of one pass over texts that stand one behind the other in its only row: of each the prompt that it
    /// continues and its number of tokens.
    pub fn behind<'a>(&'a self, texts: &'a [(usize, usize)]) -> Behind<'a> {
        Behind { prompts: self, texts }
    }
}

/// Made by [`Prompts::behind`].
pub struct Behind<'a> {
    prompts: &'a Prompts,
    texts: &'a [(usize, usize)],
}

impl Past for Behind<'_> {
    fn positions(&self) -> Tensor<1, Int> {
        let of_text = |(prompt, n): &(usize, usize)| {
            let start = self.prompts.lengths[*prompt];
            start..start + n
        };
        indices(self.texts.iter().flat_map(of_text), &self.prompts.device)
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
        let (device, dims) = (q.device(), q.dims());
        let [mut q, mut k, v] = [q, k, v].map(read);
        let [cos, sin] = [&rotary.cos, &rotary.sin].map(|t| read(t.clone()));
        let mut out = vec![0f32; q.len()];
        let width = shape.head_width;
        let (wide, narrow, half) = (shape.heads * width, shape.kv_heads * width, width / 2);

        let (mut parts, mut start) = (Vec::with_capacity(self.texts.len()), 0);
        let (mut q_left, mut k_left, mut out_left) = (q.as_mut_slice(), k.as_mut_slice(), out.as_mut_slice());
        for (prompt, n) in self.texts {
            let (q, k, out);
            (q, q_left) = q_left.split_at_mut(n * wide);
            (k, k_left) = k_left.split_at_mut(n * narrow);
            (out, out_left) = out_left.split_at_mut(n * wide);
            let angles = start * half..(start + n) * half;
            parts.push(Part {
                prompt: &self.prompts.layers[layer][*prompt],
                q,
                k,
                v: &v[start * narrow..][..n * narrow],
                cos: &cos[angles.clone()],
                sin: &sin[angles],
                out,
            });
            start += n;
        }
        parts.into_par_iter().for_each(|part| {
            dispatch(
                #[inline(always)]
                || part.attend(shape, wide, narrow),
            )
        });
        Tensor::from_data(TensorData::new(out, dims), &device)
    }

    fn advance(&mut self) {}
}

/// One text's share of a block.
struct Part<'a> {
    prompt: &'a [Vec<f32>; 2],
    /// `[n, heads · head_width]`.
    q: &'a mut [f32],
    /// `[n, kv_heads · head_width]`.
    k: &'a mut [f32],
    v: &'a [f32],
    /// `[n, head_width / 2]`.
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl Part<'_> {
    #[inline(always)]
    fn attend(self, shape: Heads, wide: usize, narrow: usize) {
        let width = shape.head_width;
        let (half, n, kv_heads) = (width / 2, self.k.len() / narrow, narrow / width);
        let (group, scale) = (wide / kv_heads, 1.0 / (width as f32).sqrt());
        for t in 0..n {
            let (cos, sin) = (&self.cos[t * half..][..half], &self.sin[t * half..][..half]);
            turn(&mut self.q[t * wide..][..wide], cos, sin);
            turn(&mut self.k[t * narrow..][..narrow], cos, sin);
        }
        self.q.iter_mut().for_each(|q| *q *= scale);
        let [keys, values] = self.prompt;
        let before = keys.len() / kv_heads;
        let (mut own_keys, mut own_values) = (vec![0f32; n * width], vec![0f32; n * width]);
        let mut scores = Vec::with_capacity(before / width + n);
        for head in 0..kv_heads {
            for t in 0..n {
                let (from, to) = (t * narrow + head * width, t * width);
                own_keys[to..to + width].copy_from_slice(&self.k[from..from + width]);
                own_values[to..to + width].copy_from_slice(&self.v[from..from + width]);
            }
            for t in 0..n {
                let first = shape.first_seen(before / width + t) * width;
                let of_prompt = first.min(before)..before;
                let of_own = first.saturating_sub(before)..(t + 1) * width;
                let stretches = [
                    Stretch {
                        keys: &keys[head * before..][of_prompt.clone()],
                        values: &values[head * before..][of_prompt],
                    },
                    Stretch {
                        keys: &own_keys[of_own.clone()],
                        values: &own_values[of_own],
                    },
                ];
                let heads = t * wide + head * group;
                attend(
                    &self.q[heads..heads + group],
                    &stretches,
                    width,
                    &mut scores,
                    &mut self.out[heads..heads + group],
                );
            }
        }
    }
}
