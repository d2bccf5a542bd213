//! What the drawn units contribute: each bounded by C, then added up, micro-batch by micro-batch (rules P3, P5).

use super::clip::Clip;
use super::gradients::{Seconds, Trainee};
use super::memory::AtOnce;
use super::trainable::Trainable;
use crate::config::FinetuneConfig;
use crate::machine::workers::Workers;
use crate::records::{Encoded, Units};

/// How a batch becomes one clipped sum.
pub struct Contribution<'a> {
    pub trainee: &'a Trainee,
    pub workers: &'a Workers,
    pub clip: Clip,
    /// Records that go through the model at once; memory grows with it, nothing else does.
    pub micro_batch_size: AtOnce,
}

/// The sum over a batch, and what was seen on the way.
#[derive(Default)]
pub struct BatchSum {
    /// Σ over units of their contributions: vectors over the trained values, of norm at most C.
    pub sum: Vec<f64>,
    /// Norm of each record's gradient before clipping. Private: internal use only.
    pub norms: Vec<f64>,
    /// Mean loss per token of each record. Private: internal use only.
    pub losses: Vec<f64>,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Of all workers together.
    pub seconds: Seconds,
}

impl<'a> Contribution<'a> {
    /// As `config` clips and cuts micro-batches.
    pub fn of(trainee: &'a Trainee, workers: &'a Workers, config: &FinetuneConfig) -> Self {
        Contribution {
            trainee,
            workers,
            clip: Clip::of(config),
            micro_batch_size: AtOnce::new(config.micro_batch_size),
        }
    }

    /// The clipped sum over the units `members`; zeros for none.
    ///
    /// A unit contributes the mean of its records' clipped gradients: of norm at most C however many they are.
    pub fn sum(&self, trained: &dyn Trainable, units: &Units, members: &[usize]) -> BatchSum {
        let mut drawn = units.of_members(members);
        #[cfg(mutants)]
        if dpsynth_privacy::mutation::is(dpsynth_privacy::mutation::Mutation::RecordCountedTwice) {
            drawn.extend(drawn.first().copied());
        }
        // Records of like length go together, and of units of one size, which share a weight; who is in the batch is
        // drawn already.
        drawn.sort_by_cached_key(|(size, record)| (*size, self.trainee.shape_of(record), record.tokens.len()));
        let at_once = self.micro_batch_size.size();
        let shapes = self.trainee.shapes();
        let micro_batches: Vec<(usize, Vec<&Encoded>)> = drawn
            .chunk_by(|a, b| a.0 == b.0 && self.trainee.shape_of(a.1) == self.trainee.shape_of(b.1))
            .flat_map(|alike| alike.chunks(at_once))
            .map(|chunk| (chunk[0].0, chunk.iter().map(|(_, record)| *record).collect()))
            .collect();
        #[cfg(mutants)]
        dpsynth_privacy::mutation::saw_micro_batches(micro_batches.len());
        let mut out = BatchSum {
            sum: vec![0.0; trained.values().len()],
            norms: Vec::with_capacity(drawn.len()),
            losses: Vec::with_capacity(drawn.len()),
            tokens: drawn.iter().map(|(_, record)| record.tokens.len()).sum(),
            seconds: Seconds::default(),
        };
        let (placed, device) = (self.trainee.place(trained), self.trainee.device());
        let clipped = |(_, records): &(usize, Vec<&Encoded>)| {
            let piece = |records: &[&Encoded]| {
                let room = shapes.room(self.micro_batch_size.size());
                self.trainee.clipped_sum_in(&placed, records, room, self.clip)
            };
            self.micro_batch_size.each(&device, shapes, records, piece)
        };
        self.workers.each(&micro_batches, clipped, |(size, _), parts| {
            let share = 1.0 / *size as f64;
            #[cfg(mutants)]
            let share = match dpsynth_privacy::mutation::is(dpsynth_privacy::mutation::Mutation::UnitSummedNotAveraged)
            {
                true => 1.0,
                false => share,
            };
            for part in parts {
                part.add_to(&mut out.sum, |s, v| *s += share * f64::from(v));
                out.norms.extend(&part.norms);
                out.losses.extend(&part.losses);
                out.seconds += part.seconds;
            }
        });
        out
    }
}
