//! A cache in plain memory, for a CPU.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::{Prompt, Row};
use crate::models::fused::cached::{Stretch, attend, turn};
use crate::models::fused::lanes::dispatch;
use crate::models::fused::{Heads, Rotary};
use crate::models::read;
use crate::models::shape::Shape;

/// Numbers of each layer.
pub(super) struct Memory {
    layers: Vec<Layer>,
    capacity: usize,
}

struct Layer {
    /// Of each prompt: `[kv_heads, len, head_width]` of keys, then of values.
    prompts: Vec<[Vec<f32>; 2]>,
    /// `[rows, kv_heads, 2, capacity, head_width]`: keys, then values. Memory is taken as it is first written.
    rows: Vec<f32>,
}

impl Memory {
    pub(super) fn new(model: &Shape, prompts: &[Prompt], rows: usize, capacity: usize) -> Self {
        let layer = |l: usize| Layer {
            prompts: prompts
                .iter()
                .map(|p| [&p.keys[l], &p.values[l]].map(|t| read(t.clone())))
                .collect(),
            rows: vec![0.0; rows * 2 * capacity * model.attention[l].kv_heads * model.attention[l].head_width],
        };
        Memory {
            layers: (0..model.layers()).map(layer).collect(),
            capacity,
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a block's three inputs, and where its rows stand"
    )]
    pub(super) fn attend(
        &mut self,
        layer: usize,
        q: Tensor<2>,
        k: Tensor<2>,
        v: Tensor<2>,
        shape: Heads,
        rotary: &Rotary,
        rows: &[usize],
        at: &[Row],
    ) -> Tensor<2> {
        let (device, dims) = (q.device(), q.dims());
        let (width, kv_heads, capacity) = (shape.head_width, shape.kv_heads, self.capacity);
        let [mut q, mut k, v] = [q, k, v].map(read);
        let [cos, sin] = [&rotary.cos, &rotary.sin].map(|t| read(t.clone()));
        let mut out = vec![0f32; q.len()];
        let Layer { prompts, rows: held } = &mut self.layers[layer];

        // The rows at hand of all: both ascend.
        let mut places = rows.iter().peekable();
        let own = held.chunks_exact_mut(kv_heads * 2 * capacity * width).enumerate();
        let own: Vec<&mut [f32]> = own
            .filter_map(|(row, own)| places.next_if(|r| **r == row).map(|_| own))
            .collect();
        let scale = 1.0 / (width as f32).sqrt();
        let per_group = q.len() / rows.len() / kv_heads;
        own.into_par_iter()
            .zip(at)
            .zip(q.par_chunks_exact_mut(shape.heads * width))
            .zip(k.par_chunks_exact_mut(kv_heads * width))
            .zip(v.par_chunks_exact(kv_heads * width))
            .zip(out.par_chunks_exact_mut(shape.heads * width))
            .enumerate()
            .for_each(|(i, (((((own, at), q), k), v), out))| {
                let angles = i * (width / 2)..(i + 1) * (width / 2);
                let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
                dispatch(
                    #[inline(always)]
                    || {
                        turn(q, cos, sin);
                        turn(k, cos, sin);
                        q.iter_mut().for_each(|q| *q *= scale);
                        let [keys, values] = &prompts[at.prompt];
                        let prompt = keys.len() / kv_heads;
                        let mut scores = Vec::with_capacity(prompt / width + at.held + 1);
                        for head in 0..kv_heads {
                            let (own_keys, own_values) = own[head * 2 * capacity * width..][..2 * capacity * width]
                                .split_at_mut(capacity * width);
                            let new = head * width..(head + 1) * width;
                            own_keys[at.held * width..][..width].copy_from_slice(&k[new.clone()]);
                            own_values[at.held * width..][..width].copy_from_slice(&v[new]);
                            let first = shape.first_seen(prompt / width + at.held) * width;
                            let of_prompt = first.min(prompt)..prompt;
                            let of_own = first.saturating_sub(prompt)..(at.held + 1) * width;
                            let stretches = [
                                Stretch {
                                    keys: &keys[head * prompt..][of_prompt.clone()],
                                    values: &values[head * prompt..][of_prompt],
                                },
                                Stretch {
                                    keys: &own_keys[of_own.clone()],
                                    values: &own_values[of_own],
                                },
                            ];
                            let group = head * per_group..(head + 1) * per_group;
                            attend(&q[group.clone()], &stretches, width, &mut scores, &mut out[group]);
                        }
                    },
                );
            });
        Tensor::from_data(TensorData::new(out, dims), &device)
    }
}
