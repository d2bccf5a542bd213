//! Records as one padded block of tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::records::Encoded;

/// A micro-batch.
pub struct Batch {
    /// `[rows, len]`, padded on the right: no token looks at what comes after it, so padding changes nothing.
    pub tokens: Tensor<2, Int>,
    pub len: usize,
    /// Flat positions whose next token belongs to a record, record after record.
    pub predicting: Tensor<1, Int>,
    pub targets: Vec<u32>,
    /// One over the record's own number of targets: a record's loss is its own mean.
    pub weights: Vec<f32>,
    /// Targets of each record.
    pub counts: Vec<usize>,
}

impl Batch {
    /// `records` side by side.
    pub fn new(records: &[&Encoded], device: &Device) -> Self {
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

    /// The mean over each record's own of one value for each target.
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
