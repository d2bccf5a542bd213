//! The four sets of records that are measured, and what is said of three of them.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The same of each set of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sides<T> {
    /// Private training records.
    pub training: T,
    /// Private records that nothing was trained on.
    pub held_out: T,
    /// Records drawn from the privately fine-tuned model.
    pub synthetic: T,
    /// Records drawn from the model as it came.
    pub zero_shot: T,
}

impl<T> Sides<T> {
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(&'a T) -> U) -> Sides<U> {
        Sides {
            training: f(&self.training),
            held_out: f(&self.held_out),
            synthetic: f(&self.synthetic),
            zero_shot: f(&self.zero_shot),
        }
    }

    /// What `f` says of synthetic, zero-shot and training records against the held-out ones; none where it says nothing
    /// of one of them.
    pub fn to_held_out<U>(&self, f: impl Fn(&T, &T) -> Option<U>) -> Option<Compared<U>> {
        Some(Compared {
            synthetic: f(&self.synthetic, &self.held_out)?,
            zero_shot: f(&self.zero_shot, &self.held_out)?,
            reference: f(&self.training, &self.held_out)?,
        })
    }
}

/// A measure of synthetic and of zero-shot records, and its reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared<T> {
    pub synthetic: T,
    pub zero_shot: T,
    /// Real records: each measure says which.
    pub reference: T,
}

impl<T> Compared<T> {
    /// In the order synthetic, zero-shot, reference.
    pub fn each(&self) -> [&T; 3] {
        [&self.synthetic, &self.zero_shot, &self.reference]
    }
}

/// `count` of the records, of at least so many, by a fixed shuffle of their places.
pub fn sample<T: Clone>(records: &[T], count: usize) -> Vec<T> {
    let mut places: Vec<usize> = (0..records.len()).collect();
    let (chosen, _) = places.partial_shuffle(&mut ChaCha8Rng::seed_from_u64(0), count);
    chosen.iter().map(|i| records[*i].clone()).collect()
}
