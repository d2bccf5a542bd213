//! The clipped sum of per-example gradients by book-keeping: one forward, one backward, no per-example gradient stored.
//!
//! For a map y = x·W the input `a [B,T,d]` is kept and the output's gradient `g [B,T,p]` is caught by a probe; example i's
//! gradient is aᵢᵀgᵢ. Its squared norm is ‖aᵢᵀgᵢ‖²_F (cheap at LoRA's rank), then Σᵢ cᵢ·aᵢᵀgᵢ is one product with the rows
//! of g scaled by cᵢ. Rules touched: P5 (each record contributes at most C), P3 (sums of micro-batches only add up).

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::cross_entropy::{cross_entropy, read};
use super::probe::probe;
use crate::config::Clipping;
use crate::models::llama::{Linear, Llama, Map};
use crate::models::lora::Adapter;
use crate::records::Encoded;

/// Stabiliser of AUTO-S (Bu et al. 2023, "Automatic clipping"): g·C / (‖g‖ + γ).
const AUTO_S: f64 = 0.01;

/// The factor a record's gradient of norm `norm` is multiplied by. A norm that is not finite contributes nothing (P5).
pub fn clip_factor(clipping: Clipping, max_grad_norm: f64, norm: f64) -> f64 {
    if !norm.is_finite() {
        return 0.0;
    }
    match clipping {
        Clipping::Automatic => max_grad_norm / (norm + AUTO_S),
        Clipping::Flat => (max_grad_norm / norm.max(f64::MIN_POSITIVE)).min(1.0),
    }
}

/// What one set of records contributes.
pub struct ClippedSum {
    /// Σᵢ cᵢ·gᵢ over the adapter's values.
    pub sum: Vec<f64>,
    /// ‖gᵢ‖ before clipping, in the order of the records. Private: internal use only.
    pub norms: Vec<f64>,
    /// Mean loss per token of each record. Private: internal use only.
    pub losses: Vec<f64>,
}

/// How gradients are bounded.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    pub clipping: Clipping,
    pub max_grad_norm: f64,
}

/// A linear map with LoRA whose inputs and output gradients are kept.
struct Tapped<'a> {
    /// A and B of each map, in order of layers and [`Map::ALL`].
    factors: &'a [(Tensor<2>, Tensor<2>)],
    scale: f64,
    device: &'a Device,
    taps: Vec<Tap>,
}

/// One product a·W inside the forward: its input, and the tag that will hold its output's gradient.
struct Tap {
    input: Tensor<2>,
    tag: Tensor<2>,
}

impl Linear for Tapped<'_> {
    fn apply(&mut self, layer: usize, map: Map, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let (a, b) = &self.factors[layer * Map::ALL.len() + map as usize];
        let base = x.clone().matmul(weight.clone().transpose());
        let down = self.tap(x, a);
        let up = self.tap(down * self.scale, b);
        base + up
    }
}

impl Tapped<'_> {
    fn tap(&mut self, x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
        let (y, tag) = probe(x.clone().matmul(weight.clone()), self.device);
        self.taps.push(Tap { input: x.inner(), tag });
        y
    }
}

/// The model and adapter as training sees them: on the tape's device, the base untracked.
pub struct Trainee {
    model: Llama,
    device: Device,
}

impl Trainee {
    /// `model`'s weights are shared, not copied.
    pub fn new(model: &Llama) -> Self {
        Trainee {
            model: model.clone(),
            device: model.device().autodiff(),
        }
    }

    /// The clipped sum over `records`, which are all the members of one micro-batch.
    ///
    /// A record whose loss or norm is not finite contributes nothing; the others are then summed without it.
    pub fn clipped_sum(&self, adapter: &Adapter, records: &[&Encoded], clip: Clip) -> ClippedSum {
        let mut out = self.attempt(adapter, records, clip);
        let broken: Vec<usize> = (0..records.len()).filter(|i| !usable(&out, *i)).collect();
        if !broken.is_empty() {
            // 0 · ∞ is not 0: the sum is taken again without the broken records.
            let kept: Vec<&Encoded> = records
                .iter()
                .enumerate()
                .filter(|(i, _)| !broken.contains(i))
                .map(|(_, r)| *r)
                .collect();
            out.sum = match kept.is_empty() {
                true => vec![0.0; adapter.len()],
                false => self.attempt(adapter, &kept, clip).sum,
            };
        }
        out
    }

    fn attempt(&self, adapter: &Adapter, records: &[&Encoded], clip: Clip) -> ClippedSum {
        let batch = Batch::new(records, &self.device);
        let factors = adapter.tensors(&self.device);
        let mut linear = Tapped {
            factors: &factors,
            scale: adapter.scale(),
            device: &self.device,
            taps: Vec::new(),
        };
        let hidden = self.model.hidden(batch.tokens, None, &mut linear);
        let predicting = hidden.select(0, batch.predicting);
        let loss = cross_entropy(predicting, &self.model.head(), &batch.targets, &batch.weights);
        let gradients = loss.surrogate.backward();

        let rows = records.len();
        let examples = |t: &Tensor<2>| {
            let width = t.dims()[1];
            t.clone().reshape([rows, batch.len, width])
        };
        let pairs: Vec<(Tensor<2>, Tensor<2>)> = linear
            .taps
            .iter()
            .map(|tap| {
                (
                    tap.input.clone(),
                    tap.tag.grad(&gradients).expect("each tap lies on the way to the loss"),
                )
            })
            .collect();
        drop(gradients);

        // Of each pair, ‖aᵢᵀgᵢ‖² of every record; a record's norm is over all pairs at once.
        let squares: Vec<Vec<f32>> = pairs
            .iter()
            .map(|(input, gradient)| {
                let each = examples(input).swap_dims(1, 2).matmul(examples(gradient));
                let [_, d, p] = each.dims();
                read(each.square().reshape([rows, d * p]).sum_dim(1))
            })
            .collect();
        let norm = |record: usize| squares.iter().map(|s| f64::from(s[record])).sum::<f64>().sqrt();
        let norms: Vec<f64> = (0..rows).map(norm).collect();

        let factors = |norms: &[f64]| {
            let factor = |n: &f64| clip_factor(clip.clipping, clip.max_grad_norm, *n) as f32;
            let factors = TensorData::new(norms.iter().map(factor).collect::<Vec<f32>>(), [rows, 1, 1]);
            Tensor::<3>::from_data(factors, &pairs[0].0.device())
        };
        #[cfg(test)]
        if let Some(sum) = mutated::sum(&pairs, &squares, rows, clip, &factors) {
            let losses = records_mean(&loss.losses, &batch.counts);
            return ClippedSum { sum, norms, losses };
        }
        let factors = factors(&norms);
        let mut sum = Vec::with_capacity(adapter.len());
        for (input, gradient) in pairs {
            let p = gradient.dims()[1];
            let scaled = (examples(&gradient) * factors.clone()).reshape([rows * batch.len, p]);
            sum.extend(read(input.transpose().matmul(scaled)).into_iter().map(f64::from));
        }
        let losses = records_mean(&loss.losses, &batch.counts);
        ClippedSum { sum, norms, losses }
    }
}

fn usable(s: &ClippedSum, i: usize) -> bool {
    s.norms[i].is_finite() && s.losses[i].is_finite()
}

fn records_mean(losses: &[f32], counts: &[usize]) -> Vec<f64> {
    let mut rest = losses;
    let mut out = Vec::with_capacity(counts.len());
    for n in counts {
        let (mine, others) = rest.split_at(*n);
        rest = others;
        out.push(mine.iter().map(|l| f64::from(*l)).sum::<f64>() / (*n).max(1) as f64);
    }
    out
}

/// Records as one padded block of tokens.
struct Batch {
    /// `[rows, len]`, padded on the right: no token looks at what comes after it, so padding changes nothing.
    tokens: Tensor<2, Int>,
    len: usize,
    /// Flat positions whose next token belongs to a record.
    predicting: Tensor<1, Int>,
    targets: Vec<u32>,
    /// One over the record's own number of targets: a record's loss is its own mean.
    weights: Vec<f32>,
    counts: Vec<usize>,
}

impl Batch {
    fn new(records: &[&Encoded], device: &Device) -> Self {
        // The last token is only ever a target.
        let len = records.iter().map(|r| r.tokens.len() - 1).max().unwrap_or(0);
        let mut tokens = vec![0i32; records.len() * len];
        let (mut predicting, mut targets, mut weights, mut counts) = (vec![], vec![], vec![], vec![]);
        for (row, r) in records.iter().enumerate() {
            for (t, id) in r.tokens[..r.tokens.len() - 1].iter().enumerate() {
                tokens[row * len + t] = *id as i32;
            }
            let n = r.tokens.len() - r.prompt;
            for t in r.prompt - 1..r.tokens.len() - 1 {
                predicting.push((row * len + t) as i32);
                targets.push(r.tokens[t + 1]);
                weights.push(1.0 / n as f32);
            }
            #[cfg(test)]
            if crate::mutation::is(crate::mutation::Mutation::PaddingLeaks) {
                for t in r.tokens.len() - 1..len {
                    predicting.push((row * len + t) as i32);
                    targets.push(0);
                    weights.push(1.0 / n as f32);
                }
            }
            counts.push(n);
        }
        let n = predicting.len();
        Batch {
            tokens: Tensor::from_data(TensorData::new(tokens, [records.len(), len]), device),
            len,
            predicting: Tensor::from_data(TensorData::new(predicting, [n]), device),
            targets,
            weights,
            counts,
        }
    }
}

#[cfg(test)]
mod mutated {
    use super::*;
    use crate::mutation::{Mutation, current};

    /// The sum with the mistake in clipping that is switched on.
    pub fn sum(
        pairs: &[(Tensor<2>, Tensor<2>)],
        squares: &[Vec<f32>],
        rows: usize,
        clip: Clip,
        factors: &dyn Fn(&[f64]) -> Tensor<3>,
    ) -> Option<Vec<f64>> {
        let scaled = |factors: [Tensor<3>; 2]| -> Vec<f64> {
            let each = pairs.iter().enumerate().flat_map(|(i, (input, gradient))| {
                let [n, p] = gradient.dims();
                let g = gradient.clone().reshape([rows, n / rows, p]) * factors[i % 2].clone();
                read(input.clone().transpose().matmul(g.reshape([n, p])))
            });
            each.map(f64::from).collect()
        };
        match current()? {
            Mutation::ClipAfterMean => {
                // A flat factor for norm 0 is 1: nothing is clipped yet.
                let whole = Tensor::ones_like(&factors(&vec![0.0; rows]));
                let mut sum = scaled([whole.clone(), whole]);
                let mean = sum.iter().map(|s| (s / rows as f64).powi(2)).sum::<f64>().sqrt();
                let factor = clip_factor(clip.clipping, clip.max_grad_norm, mean);
                sum.iter_mut().for_each(|s| *s *= factor);
                Some(sum)
            }
            Mutation::FactorsClippedApart => {
                let norms = |first: usize| -> Vec<f64> {
                    let of = |record: usize| squares.iter().skip(first).step_by(2).map(move |s| f64::from(s[record]));
                    (0..rows).map(|record| of(record).sum::<f64>().sqrt()).collect()
                };
                Some(scaled([factors(&norms(0)), factors(&norms(1))]))
            }
            _ => None,
        }
    }
}
