//! Full fine-tuning of an embedding E that is the head too: its gradient comes from both ends of the model.
//!
//! At the head, record i's gradient is gᵢᵀhᵢ of the logits' gradient g `[n, vocabulary]` and the hidden states h `[n, width]`;
//! at the embedding, row x_t gains e_t, the gradient of the embedding's output. The squared norm of their sum has a
//! cross term: Σ (g·gᵀ)(h·hᵀ) + Σ_{t,s} [x_t = x_s] e_t·e_s + 2·Σ_{s,t} g_s[x_t]·(h_s·e_t).
//! Logits exist for one record, or one chunk of rows, at a time; the sum takes them a second time.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};

use super::batch::Batch;
use super::cross_entropy::CrossEntropy;
use crate::models::{product, read};

/// Rows of logits that exist at once where the norms are known: each chunk adds up a gradient as large as E.
const CHUNK: usize = 512;

/// What the head knows before the backward pass.
pub struct Head {
    /// E, `[vocabulary, width]`.
    table: Tensor<2>,
    /// `[n, width]`, record after record.
    hidden: Tensor<2>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    counts: Vec<usize>,
    seen: Seen,
}

enum Seen {
    /// For each record: Σ (g·gᵀ)(h·hᵀ) as `[1]`, and g's columns at the record's tokens, `[n, T]`.
    Records(Vec<(Tensor<1>, Tensor<2>)>),
    /// Σ gᵀh over all rows, `[vocabulary, width]`: no record is bounded.
    Sum(Tensor<2>),
}

impl Head {
    /// The loss of `hidden [n, width]` on the tape, and what the gradient by `table` will need.
    ///
    /// With `bounded`, each record's norm can be asked for later; without, records are only added up.
    pub fn new(hidden: Tensor<2>, table: &Tensor<2>, batch: &Batch, bounded: bool) -> (CrossEntropy, Head) {
        let mut head = Head {
            table: table.clone().inner(),
            hidden: hidden.clone().inner(),
            targets: batch.targets.clone(),
            weights: batch.weights.clone(),
            counts: batch.counts.clone(),
            seen: Seen::Records(Vec::new()),
        };
        let n = head.targets.len();
        let (mut losses, mut gradients, mut start) = (Vec::with_capacity(n), Vec::new(), 0);
        let (mut records, mut sum) = (Vec::new(), None);
        let pieces: Vec<usize> = match bounded {
            true => head.counts.clone(),
            false => (0..n).step_by(CHUNK).map(|at| CHUNK.min(n - at)).collect(),
        };
        for (record, len) in pieces.into_iter().enumerate() {
            let (h, weights) = (
                head.hidden.clone().narrow(0, start, len),
                &head.weights[start..start + len],
            );
            let (piece_losses, g) = head.logits_gradient(start, weights);
            losses.extend(piece_losses);
            gradients.push(product(g.clone(), head.table.clone()));
            if bounded {
                let inner = |x: &Tensor<2>| x.clone().matmul(x.clone().transpose());
                let ids = batch.tokens.clone().inner().narrow(0, record, 1).reshape([batch.len]);
                records.push(((inner(&g) * inner(&h)).sum(), g.select(1, ids)));
            } else {
                let part = g.transpose().matmul(h);
                sum = Some(match sum {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
            start += len;
        }
        head.seen = match sum {
            Some(sum) => Seen::Sum(sum),
            None => Seen::Records(records),
        };
        let gradient = Tensor::cat(gradients, 0);
        let surrogate = (hidden * Tensor::from_inner(gradient)).sum();
        (CrossEntropy { losses, surrogate }, head)
    }

    /// −log p of the targets of `weights.len()` rows from `start` on, and the weighted loss's gradient by their logits.
    fn logits_gradient(&self, start: usize, weights: &[f32]) -> (Vec<f32>, Tensor<2>) {
        let (n, device) = (weights.len(), self.hidden.device());
        let logits = product(self.hidden.clone().narrow(0, start, n), self.table.clone().transpose());
        let log_p = activation::log_softmax(logits, 1);
        let ids: Vec<i32> = self.targets[start..start + n].iter().map(|t| *t as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &device);
        let losses = read(log_p.clone().gather(1, ids.clone()).neg());
        let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [n, 1]), &device);
        let p = log_p.exp() * weights.clone();
        (losses, p.scatter(1, ids, weights.neg(), IndexingUpdateOp::Add))
    }
}

/// Both ends.
pub struct Tied {
    head: Head,
    tokens: Tensor<2, Int>,
    gradient: Tensor<2>,
}

impl Tied {
    /// Joins the embedding's end: `tokens [rows, T]` and the `gradient [rows · T, width]` of their embeddings.
    pub fn new(head: Head, tokens: Tensor<2, Int>, gradient: Tensor<2>) -> Self {
        Tied { head, tokens, gradient }
    }

    /// Squared norm of each record's gradient.
    pub fn squares(&self) -> Vec<f32> {
        let Seen::Records(records) = &self.head.seen else {
            unreachable!("norms are asked for where records are bounded");
        };
        let [_, len] = self.tokens.dims();
        let (mut start, mut each) = (0, Vec::with_capacity(records.len()));
        for (record, ((at_head, at_tokens), n)) in records.iter().zip(&self.head.counts).enumerate() {
            let h = self.head.hidden.clone().narrow(0, start, *n);
            let e = self.gradient.clone().narrow(0, record * len, len);
            let ids = self.tokens.clone().narrow(0, record, 1);
            let same = ids.clone().transpose().expand([len, len]).equal(ids.expand([len, len]));
            let at_embedding = (e.clone().matmul(e.clone().transpose()) * same.float()).sum();
            let cross = (h.matmul(e.transpose()) * at_tokens.clone()).sum() * 2.0;
            each.push(at_head.clone() + at_embedding + cross);
            start += n;
        }
        // Rounding may leave less than nothing where both ends cancel.
        read(Tensor::cat(each, 0).clamp_min(0.0))
    }

    /// Σᵢ factorsᵢ·gᵢ, `[vocabulary · width]`; one factor where records are not bounded.
    pub fn sum(self, factors: &[f32]) -> Vec<f32> {
        let [rows, len] = self.tokens.dims();
        let width = self.gradient.dims()[1];
        let device = self.gradient.device();
        let of_rows: Vec<f32> = match &self.head.seen {
            Seen::Records(_) => factors.to_vec(),
            Seen::Sum(_) => vec![factors[0]; rows],
        };
        let at_head = match &self.head.seen {
            Seen::Sum(sum) => sum.clone() * factors[0],
            Seen::Records(_) => self.head.weighted(factors),
        };
        let scale = Tensor::<1>::from_data(of_rows.as_slice(), &device).reshape([rows, 1, 1]);
        let e = (self.gradient.reshape([rows, len, width]) * scale).reshape([rows * len, width]);
        let ids = self.tokens.reshape([rows * len]);
        read(at_head.select_assign(0, ids, e, IndexingUpdateOp::Add))
    }
}

impl Head {
    /// Σᵢ factorsᵢ·gᵢᵀhᵢ, with the logits taken anew.
    fn weighted(&self, factors: &[f32]) -> Tensor<2> {
        let of_rows = self.counts.iter().zip(factors).flat_map(|(n, f)| vec![*f; *n]);
        let weights: Vec<f32> = self.weights.iter().zip(of_rows).map(|(w, f)| w * f).collect();
        let n = weights.len();
        let part = |start: usize| {
            let len = CHUNK.min(n - start);
            let (_, g) = self.logits_gradient(start, &weights[start..start + len]);
            g.transpose().matmul(self.hidden.clone().narrow(0, start, len))
        };
        let parts = (0..n).step_by(CHUNK).map(part);
        parts.reduce(|sum, part| sum + part).expect("records have targets")
    }
}
