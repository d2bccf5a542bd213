//! Sums over all units, of vectors that are bounded in norm, with Gaussian noise: what a lexicon and a scorer are made of.

use std::fmt;
use std::vec;

use super::Charged;
use crate::accountant::gdp::mu_within;
use crate::keys::{Key, Purpose};
#[cfg(mutants)]
use crate::mutation::{Mutation, current};
use crate::noise;
use crate::{Error, Result};

/// The noise multiplier with which `uses` sums over all units together cost (`epsilon`, `delta`): their μ² add up (Dong, Roth
/// and Su 2022, corollary 2).
pub(super) fn gaussian_within(epsilon: f64, delta: f64, uses: u64) -> f64 {
    (uses as f64).sqrt() / mu_within(epsilon, delta)
}

/// Sums that have been paid for: one draw of noise for each.
#[must_use = "the sums are charged whether they are taken or not"]
pub struct ChargedSums {
    mechanism: noise::Mechanism,
    keys: vec::IntoIter<Key>,
}

impl ChargedSums {
    /// `sums` of them, with `noise_multiplier`, for vectors of norm at most `max_norm` a unit.
    pub(super) fn of(at: &Charged, noise_multiplier: f64, max_norm: f64, sums: u64) -> Result<Self> {
        let first = at.index * sums;
        let keys: Vec<Key> = (first..first + sums)
            .map(|index| at.keys.key(at.release, index, Purpose::Noise))
            .collect::<Result<_>>()?;
        Ok(ChargedSums {
            mechanism: noise::Mechanism {
                law: at.training_noise.law.beside(),
                noise_multiplier,
                max_grad_norm: max_norm,
                expected_batch_size: 1,
                bands: 1,
            },
            keys: keys.into_iter(),
        })
    }

    /// The largest norm of a unit's vector.
    pub fn max_norm(&self) -> f64 {
        self.mechanism.max_grad_norm
    }

    /// Standard deviation of the noise in each coordinate of a sum.
    pub fn deviation(&self) -> f64 {
        self.mechanism.noise_multiplier * self.mechanism.max_grad_norm
    }

    /// Sums that may still be taken.
    pub fn left(&self) -> usize {
        self.keys.len()
    }

    /// The sum [d] over all units of vectors with norm at most [`ChargedSums::max_norm`] each, with its one draw of noise:
    /// as [`super::ChargedStep::privatize`], undivided.
    ///
    /// # Errors
    /// Budget: all of them are taken. Other: a coordinate is not finite or beyond what bounded units can add up to.
    pub fn privatize(&mut self, sum: &[f64]) -> Result<Vec<f32>> {
        let key = self.keys.next().ok_or_else(|| {
            Error::budget("all sums that were paid for are taken").hint("plan a new run; it composes with this one")
        })?;
        #[cfg(mutants)]
        if current() == Some(Mutation::SumsWithoutNoise) {
            return Ok(sum.iter().map(|s| *s as f32).collect());
        }
        self.mechanism.privatize(sum, &key)
    }
}

// Says nothing of the noise.
impl fmt::Debug for ChargedSums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChargedSums")
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}
