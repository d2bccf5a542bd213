//! Full fine-tuning of an embedding E and a head. Where E is the head too, its gradient comes from both ends of the model; where
//! the head has weights of its own, each end is a gradient by itself.
//!
//! At the head, record i's gradient is gᵢᵀhᵢ of the logits' gradient g `[n, vocabulary]` and the hidden states h `[n, width]`;
//! at the embedding, row x_t gains e_t, the gradient of the embedding's output. The squared norm of their sum has a
//! cross term: Σ (g·gᵀ)(h·hᵀ) + Σ_{t,s} [x_t = x_s] e_t·e_s + 2·Σ_{s,t} g_s[x_t]·(h_s·e_t).
//! Logits exist for a few records at a time; the sum takes them a second time.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::batch::Batch;
use super::cross_entropy::CrossEntropy;
use super::logits::Rows;
use crate::models::product::{matmul, product};
use crate::models::read_all;

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
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
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
            losses.push(piece_losses);
            gradients.push(product(g.clone(), head.table.clone()));
            if bounded {
                let mut at = 0;
                for (i, n) in piece.counts.iter().enumerate() {
                    let (h, g) = (h.clone().narrow(0, at, *n), g.clone().narrow(0, at, *n));
                    let inner = |x: &Tensor<2>| matmul(x.clone(), x.clone().transpose());
                    let ids = tokens.clone().narrow(0, piece.record + i, 1);
                    records.push((
                        (inner(&g) * inner(&h)).sum_dim(1).sum(),
                        g.select(1, ids.reshape([len])),
                    ));
                    at += n;
                }
            } else {
                let part = matmul(g.transpose(), h);
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
        let losses = read_all(losses).concat();
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

/// The embedding's end.
pub struct Embedding {
    tokens: Tensor<2, Int>,
    gradient: Tensor<2>,
}

impl Embedding {
    /// `tokens [records, T]` and the `gradient [records · T, width]` of their embeddings.
    pub fn new(tokens: Tensor<2, Int>, gradient: Tensor<2>) -> Self {
        Embedding { tokens, gradient }
    }

    /// Σ_{t,s} [x_t = x_s] e_t·e_s of each record, `[records]`.
    pub fn squares(&self) -> Tensor<1> {
        let records = self.tokens.dims()[0];
        let square = |record: usize| {
            let (e, same) = (self.of(record), self.same(record));
            (matmul(e.clone(), e.transpose()) * same).sum_dim(1).sum()
        };
        Tensor::cat((0..records).map(square).collect(), 0).clamp_min(0.0)
    }

    /// A record's `gradient [T, width]`.
    fn of(&self, record: usize) -> Tensor<2> {
        let [_, len] = self.tokens.dims();
        self.gradient.clone().narrow(0, record * len, len)
    }

    /// 1 where two of a record's tokens are the same, `[T, T]`.
    fn same(&self, record: usize) -> Tensor<2> {
        let [_, len] = self.tokens.dims();
        let ids = self.tokens.clone().narrow(0, record, 1);
        ids.clone()
            .transpose()
            .expand([len, len])
            .equal(ids.expand([len, len]))
            .float()
    }

    /// Σᵢ factorsᵢ·gᵢ added to `sum [vocabulary, width]`; one factor where records are not bounded.
    pub fn add_to(self, sum: Tensor<2>, factors: &[f32]) -> Tensor<2> {
        let ([rows, len], [_, width]) = (self.tokens.dims(), self.gradient.dims());
        let of_rows = match factors {
            [one] => vec![*one; rows],
            each => each.to_vec(),
        };
        let scale = Tensor::<1>::from_data(of_rows.as_slice(), &self.gradient.device()).reshape([rows, 1, 1]);
        let e = (self.gradient.reshape([rows, len, width]) * scale).reshape([rows * len, width]);
        sum.select_assign(0, self.tokens.reshape([rows * len]), e, IndexingUpdateOp::Add)
    }

    /// The same of a table of so many rows, flat.
    pub fn sum(self, vocabulary: usize, factors: &[f32]) -> Tensor<1> {
        let [_, width] = self.gradient.dims();
        let none = Tensor::zeros([vocabulary, width], &self.gradient.device());
        self.add_to(none, factors).flatten(0, 1)
    }
}

/// Both ends.
pub struct Tied {
    head: Head,
    embedding: Embedding,
}

impl Tied {
    /// Joins the ends.
    pub fn new(head: Head, embedding: Embedding) -> Self {
        Tied { head, embedding }
    }

    /// Squared norm of each record's gradient.
    pub fn squares(&self) -> Tensor<1> {
        let (mut start, mut cross) = (0, Vec::with_capacity(self.head.counts.len()));
        for (record, ((_, at_tokens), n)) in self.head.records().iter().zip(&self.head.counts).enumerate() {
            let h = self.head.hidden.clone().narrow(0, start, *n);
            let e = self.embedding.of(record);
            cross.push((matmul(h, e.transpose()) * at_tokens.clone()).sum() * 2.0);
            start += n;
        }
        let all = self.head.squares() + self.embedding.squares() + Tensor::cat(cross, 0);
        // Rounding may leave less than nothing where both ends cancel.
        all.clamp_min(0.0)
    }

    /// Σᵢ factorsᵢ·gᵢ, `[vocabulary · width]`; one factor where records are not bounded.
    pub fn sum(self, factors: &[f32]) -> Tensor<1> {
        let at_head = self.head.weighted(factors);
        self.embedding.add_to(at_head, factors).flatten(0, 1)
    }
}

impl Head {
    fn records(&self) -> &[(Tensor<1>, Tensor<2>)] {
        match &self.seen {
            Seen::Records(records) => records,
            Seen::Sum(_) => unreachable!("norms are asked for where records are bounded"),
        }
    }

    /// Squared norm of each record's gradient at the head, `[records]`.
    pub fn squares(&self) -> Tensor<1> {
        let squares = self.records().iter().map(|(square, _)| square.clone());
        Tensor::cat(squares.collect(), 0)
    }

    /// Σᵢ factorsᵢ·gᵢᵀhᵢ, flat; one factor where records are not bounded.
    pub fn sum(self, factors: &[f32]) -> Tensor<1> {
        self.weighted(factors).flatten(0, 1)
    }

    /// Σᵢ factorsᵢ·gᵢᵀhᵢ, with the logits taken anew where records are bounded.
    fn weighted(&self, factors: &[f32]) -> Tensor<2> {
        if let Seen::Sum(sum) = &self.seen {
            return sum.clone() * factors[0];
        }
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
        let tied = Tied::new(head, Embedding::new(batch.tokens.clone().inner(), e.clone()));

        let p = activation::softmax(matmul(hidden.clone(), table.transpose()), 1);
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
