//! Full fine-tuning of an embedding E that is the head too: its gradient comes from both ends of the model.
//!
//! At the head, record i's gradient is gᵢᵀhᵢ of the logits' gradient g `[n, vocabulary]` and the hidden states h `[n, width]`;
//! at the embedding, row x_t gains e_t, the gradient of the embedding's output. The squared norm of their sum has a
//! cross term: Σ (g·gᵀ)(h·hᵀ) + Σ_{t,s} [x_t = x_s] e_t·e_s + 2·Σ_{s,t} g_s[x_t]·(h_s·e_t).
//! Logits exist for a few records at a time; the sum takes them a second time.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::batch::Batch;
use super::cross_entropy::CrossEntropy;
use super::logits::Rows;
use crate::models::product;

/// Rows of logits that exist at once, at least a record's: the fewer pieces, the more rarely a product reads all of E.
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

#[allow(clippy::large_enum_variant, reason = "there is one")]
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
    pub fn new(
        hidden: Tensor<2>,
        table: &Tensor<2>,
        batch: &Batch,
        weights: Vec<f32>,
        bounded: bool,
    ) -> (CrossEntropy, Head) {
        let tokens = batch.tokens_by_record();
        let [_, len] = tokens.dims();
        let mut head = Head {
            table: table.clone().inner(),
            hidden: hidden.clone().inner(),
            targets: batch.targets.clone(),
            weights,
            counts: batch.counts_by_record(),
            seen: Seen::Records(Vec::new()),
        };
        let (mut losses, mut gradients) = (Vec::with_capacity(head.targets.len()), Vec::new());
        let (mut records, mut sum) = (Vec::new(), None);
        for piece in head.pieces() {
            let (start, end) = (piece.start, piece.start + piece.counts.iter().sum::<usize>());
            let h = head.hidden.clone().narrow(0, start, end - start);
            let rows = Rows {
                hidden: h.clone(),
                table: &head.table,
                targets: &head.targets[start..end],
                weights: &head.weights[start..end],
            };
            let (piece_losses, g) = rows.gradient();
            losses.extend(piece_losses);
            gradients.push(product(g.clone(), head.table.clone()));
            if bounded {
                let mut at = 0;
                for (i, n) in piece.counts.iter().enumerate() {
                    let (h, g) = (h.clone().narrow(0, at, *n), g.clone().narrow(0, at, *n));
                    let inner = |x: &Tensor<2>| x.clone().matmul(x.clone().transpose());
                    let ids = tokens.clone().narrow(0, piece.record + i, 1);
                    records.push((
                        (inner(&g) * inner(&h)).sum_dim(1).sum(),
                        g.select(1, ids.reshape([len])),
                    ));
                    at += n;
                }
            } else {
                let part = g.transpose().matmul(h);
                sum = Some(match sum {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
        }
        head.seen = match sum {
            Some(sum) => Seen::Sum(sum),
            None => Seen::Records(records),
        };
        let gradient = Tensor::cat(gradients, 0);
        let surrogate = (hidden * Tensor::from_inner(gradient)).sum();
        (CrossEntropy { losses, surrogate }, head)
    }
}

/// Consecutive records whose logits exist at once.
struct Piece<'a> {
    /// The first.
    record: usize,
    /// Its first row.
    start: usize,
    /// Rows of each.
    counts: &'a [usize],
}

impl Head {
    /// All records, in pieces of [`CHUNK`] rows at most, or of one record.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let (mut out, mut record, mut start) = (Vec::new(), 0, 0);
        while record < self.counts.len() {
            let mut rows = self.counts[record];
            let mut end = record + 1;
            while end < self.counts.len() && rows + self.counts[end] <= CHUNK {
                rows += self.counts[end];
                end += 1;
            }
            out.push(Piece {
                record,
                start,
                counts: &self.counts[record..end],
            });
            (record, start) = (end, start + rows);
        }
        out
    }
}

/// Both ends.
pub struct Tied {
    head: Head,
    tokens: Tensor<2, Int>,
    gradient: Tensor<2>,
}

impl Tied {
    /// Joins the embedding's end: `tokens [records, T]` and the `gradient [records · T, width]` of their embeddings.
    pub fn new(head: Head, tokens: Tensor<2, Int>, gradient: Tensor<2>) -> Self {
        Tied { head, tokens, gradient }
    }

    /// Squared norm of each record's gradient.
    pub fn squares(&self) -> Tensor<1> {
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
            let at_embedding = (e.clone().matmul(e.clone().transpose()) * same.float())
                .sum_dim(1)
                .sum();
            let cross = (h.matmul(e.transpose()) * at_tokens.clone()).sum() * 2.0;
            each.push(at_head.clone() + at_embedding + cross);
            start += n;
        }
        // Rounding may leave less than nothing where both ends cancel.
        Tensor::cat(each, 0).clamp_min(0.0)
    }

    /// Σᵢ factorsᵢ·gᵢ, `[vocabulary · width]`; one factor where records are not bounded.
    pub fn sum(self, factors: &[f32]) -> Tensor<1> {
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
        at_head.select_assign(0, ids, e, IndexingUpdateOp::Add).flatten(0, 1)
    }
}

impl Head {
    /// Σᵢ factorsᵢ·gᵢᵀhᵢ, with the logits taken anew.
    fn weighted(&self, factors: &[f32]) -> Tensor<2> {
        let of_rows = self.counts.iter().zip(factors).flat_map(|(n, f)| vec![*f; *n]);
        let weights: Vec<f32> = self.weights.iter().zip(of_rows).map(|(w, f)| w * f).collect();
        let rows = Rows {
            hidden: self.hidden.clone(),
            table: &self.table,
            targets: &self.targets,
            weights: &weights,
        };
        rows.outer()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData, activation};

    use super::*;
    use crate::models::read;

    /// Records of more rows than a piece holds, beside short ones, against gradients written out in full.
    #[test]
    fn p5_a_tied_embeddings_norms_and_sum_are_those_of_its_whole_gradients() {
        let device = Device::flex();
        let (vocabulary, width, len) = (40, 6, CHUNK + 90);
        let counts = vec![7, CHUNK + 60, 300, 11];
        let (rows, n) = (counts.len(), counts.iter().sum::<usize>());
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let ids: Vec<i32> = (0..rows * len).map(|i| (i * i % vocabulary) as i32).collect();
        let batch = Batch {
            tokens: Tensor::from_data(TensorData::new(ids.clone(), [rows, len]), &device.clone().autodiff()),
            len,
            predicting: Tensor::from_data(TensorData::new(vec![0i32; n], [n]), &device),
            targets: (0..n).map(|i| (i * 7 % vocabulary) as u32).collect(),
            counts: counts.clone(),
            rows_per_record: 1,
        };
        let weights = batch.weights(&vec![1.0; rows]);
        let (hidden, table, e) = (
            random([n, width]),
            random([vocabulary, width]),
            random([rows * len, width]),
        );
        let taped = Tensor::from_inner(hidden.clone()).require_grad();
        let (_, head) = Head::new(taped, &table, &batch, weights.clone(), true);
        let tied = Tied::new(head, batch.tokens.clone().inner(), e.clone());

        let p = activation::softmax(hidden.clone().matmul(table.transpose()), 1);
        let [p, hidden, e] = [p, hidden, e].map(read);
        let mut whole = vec![vec![0f64; vocabulary * width]; rows];
        let mut row = 0;
        for (record, gradient) in whole.iter_mut().enumerate() {
            for _ in 0..counts[record] {
                for token in 0..vocabulary {
                    let hit = f64::from(u8::from(batch.targets[row] as usize == token));
                    let g = (f64::from(p[row * vocabulary + token]) - hit) * f64::from(weights[row]);
                    for w in 0..width {
                        gradient[token * width + w] += g * f64::from(hidden[row * width + w]);
                    }
                }
                row += 1;
            }
            for t in record * len..(record + 1) * len {
                for w in 0..width {
                    gradient[ids[t] as usize * width + w] += f64::from(e[t * width + w]);
                }
            }
        }
        let squares = read(tied.squares());
        for (square, whole) in squares.iter().zip(&whole) {
            let exact: f64 = whole.iter().map(|g| g * g).sum();
            assert!((f64::from(*square) / exact - 1.0).abs() < 1e-5, "{square} and {exact}");
        }
        let factors = [0.5, -1.0, 0.0, 2.0];
        for (i, sum) in read(tied.sum(&factors)).into_iter().enumerate() {
            let exact: f64 = whole.iter().zip(factors).map(|(g, f)| g[i] * f64::from(f)).sum();
            assert!((f64::from(sum) - exact).abs() < 1e-3, "{sum} and {exact}");
        }
    }
}
