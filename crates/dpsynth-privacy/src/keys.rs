//! Where randomness comes from (rule P4): the operating system, anew for every step; or, for tests and rehearsals, a
//! fixed seed, which makes a run NOT PRIVATE. Keys cannot be printed, and but for those of [`super::secrets`] they are never kept.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The first releases that there were; seeded runs of then and now are the same.
const FIRST: [&str; 2] = ["training", "labels"];

/// What a draw is for; the draws of a step are independent.
#[derive(Clone, Copy)]
pub enum Purpose {
    Sample,
    Noise,
    Histogram,
    Parts,
}

/// The source of a run's keys.
#[derive(Clone, Copy)]
pub enum KeySource {
    /// The operating system's generator: no key is ever made twice.
    Secure,
    /// Derived from a seed and the step: two runs with one seed are the same run. Not private.
    Seeded(u64),
}

/// A ChaCha20 key. Its streams are independent of each other.
pub struct Key([u8; 32]);

impl KeySource {
    /// A key for one draw of one use of a release.
    pub fn key(&self, release: &str, step: u64, purpose: Purpose) -> Result<Key> {
        match self {
            #[cfg(mutants)]
            KeySource::Secure if crate::mutation::is(crate::mutation::Mutation::KeyFromClock) => {
                KeySource::Seeded(crate::mutation::seconds()).key(release, step, purpose)
            }
            KeySource::Secure => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|e| {
                    Error::other(format!("the operating system gave no secure random numbers: {e}"))
                        .hint("a private run cannot go on without them; try again once the system has started fully")
                })?;
                Ok(Key(key))
            }
            KeySource::Seeded(seed) => {
                let purpose: &[u8] = match purpose {
                    Purpose::Sample => b"sample",
                    Purpose::Noise => b"noise",
                    Purpose::Histogram => b"histogram",
                    Purpose::Parts => b"parts",
                };
                let mut hash = Sha256::new();
                hash.update(b"dpsynth step key, not private\0");
                hash.update(seed.to_le_bytes());
                hash.update(step.to_le_bytes());
                hash.update(purpose);
                // These have purposes of their own.
                if !FIRST.contains(&release) {
                    hash.update(b"\0");
                    hash.update(release);
                }
                Ok(Key(hash.finalize().into()))
            }
        }
    }
}

impl Key {
    /// The `index`-th stream of random numbers under this key.
    pub fn stream(&self, index: u64) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(self.0);
        rng.set_stream(index);
        rng
    }

    /// A key for tests of the samplers.
    #[cfg(test)]
    pub fn fixed(byte: u8) -> Self {
        Key([byte; 32])
    }

    /// The same from all its bytes.
    pub(super) fn of(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }

    /// Of the key of many steps that of step `index`.
    pub(super) fn of_step(&self, index: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"dpsynth step key of many\0");
        hash.update(self.0);
        hash.update(index.to_le_bytes());
        Key(hash.finalize().into())
    }

    /// All its bytes, for [`super::secrets`], which alone keeps keys.
    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }
}
