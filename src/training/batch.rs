//! Records as one padded block of tokens.

use std::borrow::Borrow;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::shapes::Shapes;
use crate::records::Encoded;

/// A micro-batch.
pub struct Batch {
    /// `[rows, len]`, padded on the right: no token looks at what comes after it, so padding changes nothing.
    pub tokens: Tensor<2, Int>,
    pub len: usize,
    /// Flat positions whose next token belongs to a record, record after record.
    pub predicting: Tensor<1, Int>,
    pub targets: Vec<u32>,
    /// Targets of each row.
    pub counts: Vec<usize>,
    /// Rows of a record, which stand side by side; all records have as many.
    pub rows_per_record: usize,
}

impl Batch {
    /// `rows` side by side.
    pub fn new<R: Borrow<Encoded>>(rows: &[R], rows_per_record: usize, shapes: Shapes, device: &Device) -> Self {
        let rows: Vec<&Encoded> = rows.iter().map(Borrow::borrow).collect();
        // The last token is only ever a target.
        let len = rows.iter().map(|r| r.tokens.len() - 1).max().unwrap_or(0);
        let len = shapes.padded(len);
        let mut tokens = vec![0i32; rows.len() * len];
        let (mut predicting, mut targets, mut counts) = (vec![], vec![], vec![]);
        for (row, r) in rows.iter().enumerate() {
            for (t, id) in r.tokens[..r.tokens.len() - 1].iter().enumerate() {
                tokens[row * len + t] = *id as i32;
            }
            for t in r.prompt - 1..r.tokens.len() - 1 {
                predicting.push((row * len + t) as i32);
                targets.push(r.tokens[t + 1]);
            }
            #[cfg(mutants)]
            if dpsynth_privacy::mutation::is(dpsynth_privacy::mutation::Mutation::PaddingLeaks) {
                for t in r.tokens.len() - 1..len {
                    predicting.push((row * len + t) as i32);
                    targets.push(0);
                }
            }
            counts.push(targets.len() - counts.iter().sum::<usize>());
        }
        let n = predicting.len();
        Batch {
            tokens: Tensor::from_data(TensorData::new(tokens, [rows.len(), len]), device),
            len,
            predicting: Tensor::from_data(TensorData::new(predicting, [n]), device),
            targets,
            counts,
            rows_per_record,
        }
    }

    /// A weight for each target: its row's factor over the row's number of targets, since a row's loss is its own mean.
    pub fn weights(&self, factors: &[f64]) -> Vec<f32> {
        #[cfg(mutants)]
        if dpsynth_privacy::mutation::is(dpsynth_privacy::mutation::Mutation::SharedDenominator) {
            let all = self.counts.iter().sum::<usize>() as f64 / self.counts.len() as f64;
            let of_row = |(factor, n): (&f64, &usize)| std::iter::repeat_n((factor / all) as f32, *n);
            return factors.iter().zip(&self.counts).flat_map(of_row).collect();
        }
        let of_row = |(factor, n): (&f64, &usize)| std::iter::repeat_n((factor / *n as f64) as f32, *n);
        factors.iter().zip(&self.counts).flat_map(of_row).collect()
    }

    /// `[records, rows_per_record · len]`.
    pub fn tokens_by_record(&self) -> Tensor<2, Int> {
        let [rows, len] = self.tokens.dims();
        let tokens = self.tokens.clone().inner();
        tokens.reshape([rows / self.rows_per_record, self.rows_per_record * len])
    }

    /// Targets of each record.
    pub fn counts_by_record(&self) -> Vec<usize> {
        let records = self.counts.chunks(self.rows_per_record);
        records.map(|rows| rows.iter().sum()).collect()
    }

    /// The mean over each row's own of one value for each target.
    pub fn means(&self, values: &[f32]) -> Vec<f64> {
        let mut rest = values;
        let mean = |n: &usize| {
            let (own, others) = rest.split_at(*n);
            rest = others;
            own.iter().map(|v| f64::from(*v)).sum::<f64>() / (*n).max(1) as f64
        };
        self.counts.iter().map(mean).collect()
    }
}
