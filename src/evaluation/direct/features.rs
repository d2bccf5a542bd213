//! Softmax regression on frozen sentence vectors: the parameters are few and the vectors are public functions of a text, so this
//! is what private training does best (Mehta et al. 2022, arXiv 2205.02973).
//!
//! A record is embedded by itself, so its vector depends on no other record (P5).

use std::collections::HashMap;
use std::sync::Mutex;

use burn::tensor::Device;

use super::{Learner, Placed};
use crate::Result;
use crate::evaluation::Example;
use crate::evaluation::embed::SentenceEncoder;
use crate::machine::workers::Workers;
use crate::training::scorer::softmax;

/// p(label | vector) = softmax(W·vector + b).
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax {
    width: usize,
    /// `[labels, width + 1]`, the bias last in each row.
    values: Vec<f32>,
}

impl Softmax {
    /// How many values there are for so many labels and vectors of `width`.
    pub fn len(num_labels: usize, width: usize) -> usize {
        num_labels * (width + 1)
    }

    /// All labels equally likely everywhere.
    pub fn zeros(num_labels: usize, width: usize) -> Self {
        Softmax {
            width,
            values: vec![0.0; Self::len(num_labels, width)],
        }
    }

    /// From values `[labels, width + 1]`, as a checkpoint holds them.
    pub fn of(width: usize, values: Vec<f32>) -> Self {
        Softmax { width, values }
    }

    /// `[labels, width + 1]`, the bias last in each row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    fn scores(&self, vector: &[f32]) -> Vec<f64> {
        let rows = self.values.chunks(self.width + 1);
        let score = |row: &[f32]| {
            let products = row.iter().zip(vector).map(|(w, x)| f64::from(*w) * f64::from(*x));
            products.sum::<f64>() + f64::from(row[self.width])
        };
        rows.map(score).collect()
    }

    /// p(label | vector) of each label.
    pub fn probabilities(&self, vector: &[f32]) -> Vec<f64> {
        let mut all = self.scores(vector);
        softmax(&mut all);
        all
    }

    /// The gradient of −log p(label | vector) by the values: (p − e_label) ⊗ (vector, 1).
    pub fn gradient(&self, vector: &[f32], label: usize) -> Vec<f32> {
        let mut errors = self.probabilities(vector);
        errors[label] -= 1.0;
        let of_label = |error: &f64| {
            let error = *error;
            let inputs = vector.iter().map(|x| f64::from(*x)).chain([1.0]);
            inputs.map(move |x| (error * x) as f32)
        };
        errors.iter().flat_map(of_label).collect()
    }
}

/// The regression, with the encoder by whose vectors it reads.
pub struct Features {
    encoder: SentenceEncoder,
    num_labels: usize,
    /// Vectors of texts that were read before; none of those that cannot be.
    read: Mutex<HashMap<String, Option<Vec<f32>>>>,
}

impl Features {
    pub fn new(encoder: SentenceEncoder, num_labels: usize) -> Self {
        Features {
            encoder,
            num_labels,
            read: Mutex::default(),
        }
    }

    /// Each text goes through the encoder by itself: side by side, rounding would let one record move another's vector.
    fn vector(&self, text: &str) -> Option<Vec<f32>> {
        let known = |texts: &HashMap<String, _>| texts.get(text).cloned();
        let read = || self.read.lock().expect("nobody panics with the vectors in hand");
        if let Some(vector) = known(&read()) {
            return vector;
        }
        let vectors = self.encoder.embed([text], &mut |_| Ok(()));
        let vector = vectors.ok().and_then(|mut vectors| vectors.pop());
        read().insert(text.to_string(), vector.clone());
        vector
    }
}

/// The regression with its values.
struct At<'a> {
    features: &'a Features,
    model: Softmax,
}

impl Placed for At<'_> {
    fn gradient(&self, example: &Example) -> Option<Vec<f32>> {
        let vector = self.features.vector(&example.text)?;
        Some(self.model.gradient(&vector, example.label))
    }

    fn loss(&self, example: &Example) -> Option<f64> {
        let vector = self.features.vector(&example.text)?;
        Some(-self.model.probabilities(&vector)[example.label].ln())
    }

    fn features(&self, example: &Example) -> Option<Vec<f32>> {
        self.features.vector(&example.text)
    }
}

impl Learner for Features {
    /// All labels equally likely everywhere.
    fn initial(&self) -> Vec<f32> {
        Softmax::zeros(self.num_labels, self.encoder.width()).values
    }

    fn place(&self, values: &[f32]) -> Box<dyn Placed + '_> {
        Box::new(At {
            features: self,
            model: Softmax::of(self.encoder.width(), values.to_vec()),
        })
    }

    fn probabilities(
        &self,
        values: &[f32],
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let model = Softmax::of(self.encoder.width(), values.to_vec());
        let vectors = self
            .encoder
            .embed(examples.iter().map(|e| e.text.as_str()), each_batch)?;
        let of = |vector: &Vec<f32>| model.probabilities(vector).into_iter().map(|p| p as f32).collect();
        Ok(vectors.iter().map(of).collect())
    }

    fn workers(&self) -> Workers {
        Workers::on(&Device::flex())
    }
}
