//! The clipped sum of per-example gradients by book-keeping: one forward, one backward.
//!
//! Where a weight acts, its input and its output's gradient are kept ([`super::taps`]); a record's gradient is their
//! product, formed or not as is cheaper ([`super::entry`]). First the norms over all weights, then the weighted sum.
//! Rules touched: P5 (each record contributes at most C), P3 (sums of micro-batches only add up).

#[cfg(not(mutants))]
use std::iter::repeat;
use std::iter::repeat_n;
use std::time::Instant;

use burn::tensor::Device;
use rayon::prelude::*;

use super::batch::Batch;
use super::clip::{Clip, Factors};
use super::cross_entropy::token_losses;
use super::entry::Entry;
use super::objective::Objective;
use super::pass::Pass;
use super::shapes::Shapes;
use super::taps::Untapped;
use super::trainable::{Placed, Trainable};
use crate::config::{FinetuneConfig, Precision};
use crate::models::LanguageModel;
use crate::models::read_all;
use crate::records::Encoded;

/// What one set of records contributes.
pub struct ClippedSum {
    /// Σᵢ cᵢ·gᵢ of each weight, one after the other over all values.
    pub parts: Vec<Vec<f32>>,
    /// ‖gᵢ‖ before clipping, in the order of the records. Private: internal use only.
    pub norms: Vec<f64>,
    /// Mean loss per token of each record. Private: internal use only.
    pub losses: Vec<f64>,
    pub seconds: Seconds,
}

impl ClippedSum {
    /// Σᵢ cᵢ·gᵢ as one vector.
    pub fn values(&self) -> Vec<f32> {
        self.parts.concat()
    }

    /// Gives every value of the sum to `add` with its place in `out`, on all cores.
    pub fn add_to<T: Send>(&self, out: &mut [T], add: impl Fn(&mut T, f32) + Sync) {
        let mut rest = out;
        for values in &self.parts {
            let (own, others) = rest.split_at_mut(values.len());
            rest = others;
            let pairs = own.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
            pairs.for_each(|(own, values)| own.iter_mut().zip(values).for_each(|(o, v)| add(o, *v)));
        }
    }
}

/// Values that one thread adds up at a time.
const CHUNK: usize = 1 << 16;

/// The model as training sees it.
pub struct Trainee {
    base: LanguageModel,
    compute: Compute,
    objective: Objective,
}

/// How a pass is computed; what it computes is the same.
#[derive(Clone, Copy, Debug)]
pub struct Compute {
    pub precision: Precision,
    /// Whether a block's activations are computed anew for its backward pass in place of being kept.
    pub activation_checkpointing: bool,
}

impl Compute {
    /// As `config` says.
    pub fn of(config: &FinetuneConfig) -> Self {
        Compute {
            precision: config.precision,
            activation_checkpointing: config.activation_checkpointing,
        }
    }
}

/// Seconds of the parts of a pass.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Seconds {
    pub forward: f64,
    pub backward: f64,
    /// Norms, clip factors and the sum they weigh.
    pub norms: f64,
}

impl std::ops::AddAssign for Seconds {
    fn add_assign(&mut self, more: Seconds) {
        self.forward += more.forward;
        self.backward += more.backward;
        self.norms += more.norms;
    }
}

impl Trainee {
    /// `base`'s weights are shared, not copied. For the text alone, in f32, with all activations kept.
    pub fn new(base: &LanguageModel) -> Self {
        let plain = Compute {
            precision: Precision::F32,
            activation_checkpointing: false,
        };
        Trainee::with(base, plain, Objective::text())
    }

    /// `base`'s weights are shared, not copied.
    pub fn with(base: &LanguageModel, compute: Compute, objective: Objective) -> Self {
        Trainee {
            base: base.clone(),
            compute,
            objective,
        }
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.base.device()
    }

    /// `trained` on the device, for the passes of one step.
    pub fn place(&self, trained: &dyn Trainable) -> Placed {
        trained.place(&self.base, self.compute.precision)
    }

    /// The shapes in which it computes.
    pub fn shapes(&self) -> Shapes {
        Shapes::of(&self.device(), self.base.shape().context)
    }

    /// What decides which records go together: the length that a record's longest row is padded to, or nothing.
    pub fn shape_of(&self, record: &Encoded) -> usize {
        let shapes = self.shapes();
        if shapes == Shapes::AsNeeded {
            return 0;
        }
        let rows = self.objective.rows(&[record]);
        let longest = rows.iter().map(|row| row.tokens.len() - 1).max();
        shapes.padded(longest.unwrap_or(0))
    }

    /// The clipped sum over `records`, which are all the members of one micro-batch.
    ///
    /// A record whose loss or norm is not finite contributes nothing; the others are then summed without it.
    pub fn clipped_sum(&self, placed: &Placed, records: &[&Encoded], clip: Clip) -> ClippedSum {
        self.clipped_sum_in(placed, records, self.shapes().room(records.len()), clip)
    }

    /// The same in a micro-batch that is filled up to `room` records of nobody, which have no part in the sum.
    pub fn clipped_sum_in(&self, placed: &Placed, records: &[&Encoded], room: usize, clip: Clip) -> ClippedSum {
        let mut out = self.attempt(placed, records, room, clip);
        let mut kept: Vec<usize> = (0..records.len()).collect();
        loop {
            // 0 · ∞ is not 0: the sum is taken again without the broken records, until none is in it.
            let before = kept.len();
            kept.retain(|i| usable(&out, *i));
            if kept.len() == before {
                return out;
            }
            if kept.is_empty() {
                out.parts.iter_mut().for_each(|part| part.fill(0.0));
                return out;
            }
            let others: Vec<&Encoded> = kept.iter().map(|i| records[*i]).collect();
            let again = self.attempt(placed, &others, room, clip);
            out.parts = again.parts;
            for (i, (norm, loss)) in kept.iter().zip(again.norms.into_iter().zip(again.losses)) {
                (out.norms[*i], out.losses[*i]) = (norm, loss);
            }
        }
    }

    fn attempt(&self, placed: &Placed, records: &[&Encoded], room: usize, clip: Clip) -> ClippedSum {
        let fillers = room.saturating_sub(records.len());
        let rows = records.len() + fillers;
        let mut pass = self.pass(placed, records, fillers, true);
        let begun = Instant::now();
        // A record's norm is over all weights at once.
        let squares = read_all(pass.entries.iter().map(Entry::squares));
        let whole = |parts: &[f32]| parts.iter().map(|s| f64::from(*s)).sum::<f64>();
        let by_record = |parts: Vec<f32>| -> Vec<f64> { parts.chunks(parts.len() / rows).map(whole).collect() };
        let squares: Vec<Vec<f64>> = squares.into_iter().map(by_record).collect();
        let norm = |record: usize| squares.iter().map(|s| s[record]).sum::<f64>().sqrt();
        let mut norms: Vec<f64> = (0..rows).map(norm).collect();
        if norms[records.len()..].iter().any(|norm| !norm.is_finite()) {
            // 0 · ∞ is not 0.
            return self.attempt(placed, records, 0, clip);
        }
        norms.truncate(records.len());
        pass.losses.truncate(records.len());
        let factors = norms
            .iter()
            .map(|n| clip.factor(*n) as f32)
            .chain(repeat_n(0.0, fillers));
        let factors = Factors::new(factors.collect(), &self.device());
        #[cfg(mutants)]
        let factors = mutated::factors(&squares, clip, &self.device()).unwrap_or_else(|| vec![factors; squares.len()]);
        #[cfg(not(mutants))]
        let factors = repeat(factors);
        let entries = pass.entries.into_iter().zip(factors);
        let sum = read_all(entries.map(|(entry, factors)| entry.sum(&factors)));
        #[cfg(mutants)]
        let sum = mutated::sum(sum, rows, clip);
        let mut seconds = pass.seconds;
        seconds.norms += begun.elapsed().as_secs_f64();
        ClippedSum {
            parts: sum,
            norms,
            losses: pass.losses,
            seconds,
        }
    }

    /// Σᵢ gᵢ over `records`, NOT PRIVATE: what training without privacy adds up. For comparison only.
    pub fn plain_sum(&self, placed: &Placed, records: &[&Encoded]) -> ClippedSum {
        let pass = self.pass(placed, records, 0, false);
        let begun = Instant::now();
        let one = Factors::new(vec![1.0], &self.device());
        let sum = read_all(pass.entries.into_iter().map(|entry| entry.sum(&one)));
        let mut seconds = pass.seconds;
        seconds.norms += begun.elapsed().as_secs_f64();
        ClippedSum {
            parts: sum,
            norms: Vec::new(),
            losses: pass.losses,
            seconds,
        }
    }

    fn pass(&self, placed: &Placed, records: &[&Encoded], fillers: usize, bounded: bool) -> Pass {
        let checkpointed = self.compute.activation_checkpointing;
        Pass::new(placed, &self.objective, records, fillers, bounded, checkpointed)
    }

    /// Mean loss per token of each record's text: a forward and nothing else.
    pub fn losses(&self, placed: &Placed, records: &[&Encoded]) -> Vec<f64> {
        let device = self.base.device();
        let batch = Batch::new(records, 1, self.shapes(), &device);
        let hidden = placed.model.hidden(batch.tokens.clone(), None, &mut Untapped(placed));
        let predicting = hidden.select(0, batch.predicting.clone());
        batch.means(&token_losses(predicting, &placed.model.head(), &batch.targets))
    }
}

fn usable(s: &ClippedSum, i: usize) -> bool {
    s.norms[i].is_finite() && s.losses[i].is_finite()
}

#[cfg(mutants)]
mod mutated {
    use super::*;
    use dpsynth_privacy::mutation::{Mutation, current};

    /// For each entry the clip factors, with the mistake that is switched on.
    pub fn factors(squares: &[Vec<f64>], clip: Clip, device: &Device) -> Option<Vec<Factors>> {
        let rows = squares[0].len();
        match current()? {
            // Nothing is clipped yet.
            Mutation::ClipAfterMean => Some(squares.iter().map(|_| Factors::new(vec![1.0; rows], device)).collect()),
            Mutation::FactorsClippedApart => {
                let apart = |first: usize| -> Vec<f32> {
                    let of = |record: usize| squares.iter().skip(first).step_by(2).map(move |s| s[record]);
                    let norm = |record: usize| of(record).sum::<f64>().sqrt();
                    (0..rows).map(|record| clip.factor(norm(record)) as f32).collect()
                };
                let both = [apart(0), apart(1)];
                Some(
                    (0..squares.len())
                        .map(|i| Factors::new(both[i % 2].clone(), device))
                        .collect(),
                )
            }
            _ => None,
        }
    }

    /// The sum with the mistake that is switched on.
    pub fn sum(mut sum: Vec<Vec<f32>>, rows: usize, clip: Clip) -> Vec<Vec<f32>> {
        if current() == Some(Mutation::ClipAfterMean) {
            let squares = sum.iter().flatten().map(|s| (f64::from(*s) / rows as f64).powi(2));
            let factor = clip.factor(squares.sum::<f64>().sqrt()) as f32;
            sum.iter_mut().flatten().for_each(|s| *s *= factor);
        }
        sum
    }
}
