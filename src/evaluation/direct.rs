//! The reference `dp_direct`: a classifier trained privately on the real records themselves, by the same private step as
//! the language model.
//!
//! Softmax regression on frozen sentence vectors: the parameters are few and the vectors are public functions of a text,
//! so this is what private training does best. It gives a classifier and no records, and it *spends budget of its own*:
//! its run is another one in the dataset's ledger.
//!
//! What bounds a record (P5): it is embedded by itself, so its vector depends on no other record; its gradient is clipped
//! to norm C in f64; a unit of several records contributes the mean of theirs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Example;
use super::embed::SentenceEncoder;
use super::linear::argmax;
use crate::Result;
use crate::config::Clipping;
use crate::privacy::PrivateRun;
use crate::progress::Progress;
use crate::records::Units;
use crate::training::checkpoint::Checkpoint;
use crate::training::gradients::clip_factor;
use crate::training::optimizer::AdamW;
use crate::training::private::{Loop, Method};

/// A record as the classifier sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its text's vector.
    pub vector: Vec<f32>,
    /// Its label, below the number of labels.
    pub label: usize,
}

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

    /// The most likely label of a vector.
    pub fn predict(&self, vector: &[f32]) -> usize {
        let scores: Vec<f32> = self.scores(vector).iter().map(|s| *s as f32).collect();
        argmax(&scores)
    }

    fn scores(&self, vector: &[f32]) -> Vec<f64> {
        let rows = self.values.chunks(self.width + 1);
        let score = |row: &[f32]| {
            let products = row.iter().zip(vector).map(|(w, x)| f64::from(*w) * f64::from(*x));
            products.sum::<f64>() + f64::from(row[self.width])
        };
        rows.map(score).collect()
    }

    /// Of −log p(label | vector) with respect to the scores: p − e_label.
    fn errors(&self, point: &Point) -> Vec<f64> {
        let mut errors = self.scores(&point.vector);
        let top = errors.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        errors.iter_mut().for_each(|s| *s = (*s - top).exp());
        let sum: f64 = errors.iter().sum();
        errors.iter_mut().for_each(|s| *s /= sum);
        errors[point.label] -= 1.0;
        errors
    }
}

/// How a record is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub clipping: Clipping,
    /// C.
    pub max_grad_norm: f64,
}

/// Σ over units of the mean of their records' clipped gradients: each of norm at most C (P5). Zeros for none.
///
/// A record's gradient is (p − e_label) ⊗ (vector, 1), of norm ‖p − e_label‖ · √(‖vector‖² + 1); one that is not finite
/// contributes zero.
pub fn clipped_sum(model: &Softmax, units: &[&[Point]], bound: Bound) -> Vec<f64> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let mut sum = vec![0.0; model.values.len()];
    for unit in units {
        for point in *unit {
            let errors = model.errors(point);
            let of_errors = norm(&mut errors.iter().copied());
            let of_vector = norm(&mut point.vector.iter().map(|x| f64::from(*x)).chain([1.0]));
            let factor = clip_factor(bound.clipping, bound.max_grad_norm, of_errors * of_vector) / unit.len() as f64;
            if factor == 0.0 {
                continue;
            }
            for (row, error) in sum.chunks_mut(model.width + 1).zip(&errors) {
                let inputs = point.vector.iter().map(|x| f64::from(*x)).chain([1.0]);
                row.iter_mut().zip(inputs).for_each(|(s, x)| *s += factor * error * x);
            }
        }
    }
    sum
}

/// Private training of a [`Softmax`].
pub struct Direct<'a> {
    pub units: &'a Units<Example>,
    pub num_labels: usize,
    pub encoder: &'a SentenceEncoder,
    pub bound: Bound,
    /// AdamW's step size.
    pub learning_rate: f64,
    /// Written after every step.
    pub checkpoint: &'a Path,
    /// Set when the person asks to stop.
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl Direct<'_> {
    /// Trains from `resume` (or zeros) until `run` has no step left.
    ///
    /// Rules: P2 and P3 by [`crate::privacy::ChargedStep::privatize`], P6 (an empty draw goes the same way), P7 (the
    /// charge is on disk before anything is drawn; a step that was charged and lost is not taken again).
    ///
    /// # Errors
    /// A refused charge, a full disk, or [`Error::interrupted`] when asked to stop.
    pub fn train(&self, run: &mut PrivateRun, resume: Option<Checkpoint>) -> Result<Softmax> {
        let model = Softmax::zeros(self.num_labels, self.encoder.width());
        let mut method = Classifying {
            direct: self,
            optimizer: AdamW::new(model.values.len(), 0.0),
            model,
            embedded: HashMap::new(),
        };
        let mut applied = 0;
        if let Some(saved) = resume {
            method.model.values.copy_from_slice(&saved.values);
            (method.optimizer, applied) = (saved.optimizer, saved.applied_steps);
        }
        let way = Loop {
            task: "private training of a classifier (dp_direct)",
            of: " of dp_direct",
            checkpoint: Some((self.checkpoint, 1)),
            applied,
            on_gpu: false,
            stop: self.stop,
            progress: self.progress,
        };
        way.train(&mut method, run, |_| Ok(String::new()))?;
        Ok(method.model)
    }

    /// The records of a unit. Each goes through the encoder by itself: side by side, rounding would let one record move
    /// another's vector.
    fn embed(&self, unit: usize) -> Vec<Point> {
        let records = self.units.records(unit).iter();
        records
            .map(|record| {
                // What cannot be embedded contributes zero (P5): to stop at it would show that it was drawn.
                let vectors = self.encoder.embed([record.text.as_str()], &mut |_| Ok(()));
                let vector = vectors.ok().and_then(|mut v| v.pop());
                Point {
                    vector: vector.unwrap_or_else(|| vec![f32::NAN; self.encoder.width()]),
                    label: record.label,
                }
            })
            .collect()
    }
}

/// The classifier's part of a private step.
struct Classifying<'a> {
    direct: &'a Direct<'a>,
    model: Softmax,
    optimizer: AdamW,
    /// Units that were drawn before.
    embedded: HashMap<usize, Vec<Point>>,
}

impl Method for Classifying<'_> {
    type Seen = ();

    fn dimensions(&self) -> usize {
        self.model.values.len()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, ())> {
        for unit in members {
            if !self.embedded.contains_key(unit) {
                self.embedded.insert(*unit, self.direct.embed(*unit));
            }
        }
        let drawn: Vec<&[Point]> = members.iter().map(|unit| self.embedded[unit].as_slice()).collect();
        Ok((clipped_sum(&self.model, &drawn, self.direct.bound), ()))
    }

    fn apply(&mut self, noisy: &[f32]) {
        let learning_rate = self.direct.learning_rate as f32;
        self.optimizer.step(&mut self.model.values, noisy, learning_rate, 0.0);
    }

    fn state(&self) -> Option<(&[f32], &AdamW)> {
        Some((&self.model.values, &self.optimizer))
    }
}
