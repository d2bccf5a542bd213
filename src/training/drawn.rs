//! The drawn units of a language model, as a way of taking steps sees them.

use std::sync::Mutex;

use super::clip::Clip;
use super::contribution::{BatchSum, Contribution};
use super::shapes::Shapes;
use super::trainable::{Placed, Trainable};
use super::ways::{Bounds, Drawn, Record, Shows};
use crate::models::device::watched;
use crate::records::{Encoded, Units};

/// A batch, with what is trained; and what was seen of it on the way.
pub struct Batch<'a> {
    contribution: &'a Contribution<'a>,
    trained: &'a dyn Trainable,
    units: &'a Units,
    seen: Mutex<BatchSum>,
}

impl<'a> Batch<'a> {
    /// All of `units`.
    pub fn new(contribution: &'a Contribution<'a>, trained: &'a dyn Trainable, units: &'a Units) -> Self {
        Batch {
            contribution,
            trained,
            units,
            seen: Mutex::new(BatchSum {
                tokens: units.all().iter().map(|record| record.tokens.len()).sum(),
                ..BatchSum::default()
            }),
        }
    }

    /// What was seen, without the sum. Private: internal use only (P9).
    pub fn seen(self) -> BatchSum {
        self.seen.into_inner().expect("nobody panics with it in hand")
    }

    fn members(&self) -> Vec<usize> {
        (0..self.units.len()).collect()
    }

    /// What is trained, with `values`.
    fn at<T>(&self, values: &[f32], f: impl FnOnce(&dyn Trainable) -> T) -> T {
        match std::ptr::eq(values, self.trained.values()) {
            true => f(self.trained),
            false => f(self.trained.with(values).as_ref()),
        }
    }

    /// Records of like length side by side, each with its unit's size: always in the same order.
    fn sorted(&self) -> Vec<(usize, &Encoded)> {
        let mut all = self.units.of_members(&self.members());
        all.sort_by_key(|(_, record)| record.tokens.len());
        all
    }
}

/// A record on placed values.
struct Shown<'a> {
    batch: &'a Batch<'a>,
    placed: &'a Placed,
    record: &'a Encoded,
}

impl Shown<'_> {
    fn on(&self, placed: &Placed) -> Vec<f32> {
        self.batch
            .contribution
            .trainee
            .plain_sum(placed, &[self.record])
            .values()
    }
}

impl Record for Shown<'_> {
    fn gradient(&self) -> Option<Vec<f32>> {
        Some(self.on(self.placed))
    }

    fn gradient_at(&self, values: &[f32]) -> Option<Vec<f32>> {
        Some(self.on(&self.batch.at(values, |t| self.batch.contribution.trainee.place(t))))
    }

    fn features(&self) -> Option<(Vec<f32>, usize)> {
        None
    }
}

impl Drawn for Batch<'_> {
    fn gradients(&self, values: &[f32], clip: Clip) -> Vec<f64> {
        debug_assert_eq!(clip, self.contribution.clip);
        let members = self.members();
        let mut batch = self.at(values, |trained| self.contribution.sum(trained, self.units, &members));
        let sum = std::mem::take(&mut batch.sum);
        *self.seen.lock().expect("nobody panics with it in hand") = batch;
        sum
    }

    fn sum(&self, values: &[f32], bounds: &Bounds, shows: &Shows) -> Vec<f64> {
        let placed = self.at(values, |trained| self.contribution.trainee.place(trained));
        let device = self.contribution.trainee.device();
        bounds.sum(self.contribution.workers, &self.sorted(), |record| {
            let shown = Shown {
                batch: self,
                placed: &placed,
                record,
            };
            watched(&device, || shows(&shown))
        })
    }

    fn losses(&self, points: [&[f32]; 2]) -> Vec<(usize, Option<[f64; 2]>)> {
        let trainee = self.contribution.trainee;
        let device = trainee.device();
        let placed = points.map(|values| self.at(values, |trained| trainee.place(trained)));
        let records = self.sorted();
        let at_once = self.contribution.micro_batch_size.size();
        let micro_batches: Vec<&[(usize, &Encoded)]> = records.chunks(at_once).collect();
        let losses = self.contribution.workers.map(&micro_batches, |batch| {
            let records: Vec<&Encoded> = batch.iter().map(|(_, record)| *record).collect();
            let at_both = |records: &[&Encoded]| placed.each_ref().map(|placed| trainee.losses(placed, records));
            let at_once = &self.contribution.micro_batch_size;
            at_once.each(&device, Shapes::AsNeeded, &records, at_both)
        });
        let losses = losses.concat();
        let of_record = losses.iter().flat_map(|[a, b]| a.iter().zip(b).map(|(a, b)| [*a, *b]));
        let out: Vec<_> = records
            .iter()
            .zip(of_record)
            .map(|((size, _), of)| (*size, Some(of)))
            .collect();
        let mut seen = self.seen.lock().expect("nobody panics with it in hand");
        seen.losses = out
            .iter()
            .filter_map(|(_, of)| of.map(|[a, b]| 0.5 * (a + b)))
            .collect();
        out
    }
}
