//! From what is done, and how often, to epsilon: above all for the Poisson-subsampled Gaussian mechanism.
//!
//! A [`Phase`] is a [`Mechanism`] and how often it is used; phases compose adaptively. Sensitivities are 1 throughout.
//! [`pld`] spends budget; [`rdp`] does so as a filter, once something was charged. [`gdp`] and [`edgeworth`] stand beside
//! them for comparison.

mod allocation;
mod cells;
mod compose;
pub mod edgeworth;
pub mod estimate;
mod gaussian;
pub mod gdp;
mod laplace;
mod pairs;
pub mod pld;
pub mod rdp;
pub mod tradeoff;

use serde::{Deserialize, Serialize};

use crate::bands::MAX_BANDS;
use crate::{Error, Result};

/// Below this the loss of one record is hundreds of nats and no number here means anything.
pub const MIN_NOISE_MULTIPLIER: f64 = 0.05;

/// Above this nothing is left of a signal, and the numbers that account for it lose their meaning.
pub const MAX_NOISE_MULTIPLIER: f64 = 1e12;

/// The largest epsilon of one pure mechanism.
pub const MAX_PURE: f64 = 100.0;

/// A round of more steps is not accounted for.
pub const MAX_SLOTS: u64 = 1_000_000;

/// More steps than this would need too much memory to compose finely.
pub const MAX_STEPS: u64 = 100_000_000;

/// Which datasets are neighbours: what one record's presence may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjacency {
    /// One record is added or removed.
    AddOrRemoveOne,
    /// One record takes another's place; the number of records stays.
    ReplaceOne,
}

impl Adjacency {
    /// As written in output.
    pub fn name(self) -> &'static str {
        match self {
            Adjacency::AddOrRemoveOne => "add-or-remove-one",
            Adjacency::ReplaceOne => "replace-one",
        }
    }
}

/// What is done once. Every `sampling_rate` is in (0, 1]; every `noise_multiplier` is at least [`MIN_NOISE_MULTIPLIER`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Each record is drawn with probability `sampling_rate`; the sum of the drawn records' contributions (norm at
    /// most 1) gets Gaussian noise of standard deviation `noise_multiplier`.
    Gaussian {
        /// q.
        sampling_rate: f64,
        /// σ: the noise's standard deviation over the sensitivity.
        noise_multiplier: f64,
    },
    /// The same, but where more than `max_batch_size` records are drawn a uniformly random subset of that size is
    /// kept. Holds for datasets of at most `most_records` records.
    TruncatedGaussian {
        /// q.
        sampling_rate: f64,
        /// σ: the noise's standard deviation over the sensitivity.
        noise_multiplier: f64,
        /// Most records in a batch, at least 1.
        max_batch_size: u64,
        /// Declared public bound on the number of records, at least 1.
        most_records: u64,
    },
    /// A step of a round of `slots`, in one of which each record takes part, uniformly at random; the sum of those records'
    /// contributions (norm at most 1) gets Gaussian noise of standard deviation `noise_multiplier`. Steps count from a
    /// round's first on.
    AllocatedGaussian {
        /// t: steps of a round, at least 1.
        slots: u64,
        /// σ: the noise's standard deviation over the sensitivity.
        noise_multiplier: f64,
    },
    /// Noise that goes together over `bands` steps: each record has its turn in every `bands`-th step, is drawn then with
    /// probability `sampling_rate`, and moves the steps from there on, before its next turn, by s/‖s‖ (`bands.rs`). Steps count from a record's
    /// first turn on; which steps are its turns may be known.
    BandedGaussian {
        /// b: 2 to [`MAX_BANDS`].
        bands: u64,
        /// Of a record whose turn it is.
        sampling_rate: f64,
        /// σ: the standard deviation of a step's own noise over the sensitivity, all that a record moves by one turn.
        noise_multiplier: f64,
    },
    /// Laplace noise of scale `scale` > 0 on a scalar that one added or removed record moves by at most 1.
    Laplace {
        /// The noise's mean absolute value over the sensitivity.
        scale: f64,
    },
    /// Each record is drawn with probability `sampling_rate`; the sum of the drawn records' numbers (at most 1 in size) gets
    /// Laplace noise of scale `scale`.
    SampledLaplace {
        /// q.
        sampling_rate: f64,
        /// The noise's mean absolute value over the sensitivity.
        scale: f64,
    },
    /// Anything that is (epsilon, 0)-private when one record is added or removed.
    Pure {
        /// Above 0.
        epsilon: f64,
    },
}

/// A mechanism that is used `steps` times, adaptively.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Phase {
    mechanism: Mechanism,
    steps: u64,
}

impl Phase {
    /// Poisson-subsampled Gaussian: sampling rate in (0, 1], noise multiplier at least [`MIN_NOISE_MULTIPLIER`],
    /// steps from 1 to [`MAX_STEPS`].
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn new(sampling_rate: f64, noise_multiplier: f64, steps: u64) -> Result<Self> {
        check_gaussian(sampling_rate, noise_multiplier)?;
        let mechanism = Mechanism::Gaussian {
            sampling_rate,
            noise_multiplier,
        };
        Self::repeated(mechanism, steps)
    }

    /// The same with batches cut to `max_batch_size` ≥ 1 records, for datasets of at most `most_records` ≥ 1 records.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn truncated(
        sampling_rate: f64,
        noise_multiplier: f64,
        steps: u64,
        max_batch_size: u64,
        most_records: u64,
    ) -> Result<Self> {
        check_gaussian(sampling_rate, noise_multiplier)?;
        if max_batch_size == 0 || most_records == 0 {
            return Err(
                Error::usage("the largest batch and the largest number of records must be at least 1, not 0")
                    .hint("a largest batch of 1.5 times the expected one is hardly ever reached"),
            );
        }
        let mechanism = Mechanism::TruncatedGaussian {
            sampling_rate,
            noise_multiplier,
            max_batch_size,
            most_records,
        };
        Self::repeated(mechanism, steps)
    }

    /// Random allocation: each record takes part in one of every `slots` ≥ 1 steps. `steps` count from a round's first on.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn allocated(slots: u64, noise_multiplier: f64, steps: u64) -> Result<Self> {
        if slots == 0 || slots > MAX_SLOTS {
            return Err(
                Error::usage(format!("a round has from 1 to {MAX_SLOTS} steps, not {slots}"))
                    .hint("it is the number of records over the expected batch size"),
            );
        }
        check_gaussian(1.0 / slots as f64, noise_multiplier)?;
        let mechanism = Mechanism::AllocatedGaussian {
            slots,
            noise_multiplier,
        };
        Self::repeated(mechanism, steps)
    }

    /// Noise that goes together over `bands` steps, 2 to [`MAX_BANDS`]; each record is drawn with `sampling_rate` in (0, 1] in
    /// each of its turns.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn banded(bands: u64, sampling_rate: f64, noise_multiplier: f64, steps: u64) -> Result<Self> {
        if !(2..=MAX_BANDS).contains(&bands) {
            return Err(Error::usage(format!(
                "noise goes together over 2 to {MAX_BANDS} steps, not over {bands}"
            ))
            .hint("4 to 8 are usual"));
        }
        check_gaussian(sampling_rate, noise_multiplier)?;
        let mechanism = Mechanism::BandedGaussian {
            bands,
            sampling_rate,
            noise_multiplier,
        };
        Self::repeated(mechanism, steps)
    }

    /// Laplace noise of scale `scale` on a scalar of sensitivity 1, used `times` times.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn laplace(scale: f64, times: u64) -> Result<Self> {
        check_scale(scale)?;
        Self::repeated(Mechanism::Laplace { scale }, times)
    }

    /// Laplace noise of scale `scale` on one number of a batch: sampling rate in (0, 1], steps from 1 to [`MAX_STEPS`].
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn sampled_laplace(sampling_rate: f64, scale: f64, steps: u64) -> Result<Self> {
        check_sampling_rate(sampling_rate)?;
        check_scale(scale)?;
        Self::repeated(Mechanism::SampledLaplace { sampling_rate, scale }, steps)
    }

    /// Any mechanism that is (epsilon, 0)-private when one record is added or removed, used `times` times.
    ///
    /// # Errors
    /// Usage, naming the value.
    pub fn pure(epsilon: f64, times: u64) -> Result<Self> {
        if !(epsilon > 0.0 && epsilon <= MAX_PURE) {
            return Err(Error::usage(format!(
                "a pure epsilon must be above 0 and at most {MAX_PURE}, not {epsilon}"
            ))
            .hint("values from 0.01 to 1 are usual"));
        }
        Self::repeated(Mechanism::Pure { epsilon }, times)
    }

    fn repeated(mechanism: Mechanism, steps: u64) -> Result<Self> {
        if steps == 0 {
            return Err(
                Error::usage("the number of steps must be at least 1, not 0").hint("nothing is spent before a step")
            );
        }
        if steps > MAX_STEPS {
            return Err(Error::usage(format!(
                "{steps} steps are more than the accountant composes ({MAX_STEPS})"
            ))
            .hint("steps are optimizer steps, not records"));
        }
        Ok(Phase { mechanism, steps })
    }

    /// The same with `factor` times the noise.
    ///
    /// # Errors
    /// Usage: more or less noise than is accounted for.
    pub(crate) fn at_noise(&self, factor: f64) -> Result<Self> {
        let steps = self.steps;
        match self.mechanism {
            Mechanism::Gaussian {
                sampling_rate,
                noise_multiplier,
            } => Self::new(sampling_rate, factor * noise_multiplier, steps),
            Mechanism::TruncatedGaussian {
                sampling_rate,
                noise_multiplier,
                max_batch_size,
                most_records,
            } => Self::truncated(
                sampling_rate,
                factor * noise_multiplier,
                steps,
                max_batch_size,
                most_records,
            ),
            Mechanism::AllocatedGaussian {
                slots,
                noise_multiplier,
            } => Self::allocated(slots, factor * noise_multiplier, steps),
            Mechanism::BandedGaussian {
                bands,
                sampling_rate,
                noise_multiplier,
            } => Self::banded(bands, sampling_rate, factor * noise_multiplier, steps),
            Mechanism::Laplace { scale } => Self::laplace(factor * scale, steps),
            Mechanism::SampledLaplace { sampling_rate, scale } => {
                Self::sampled_laplace(sampling_rate, factor * scale, steps)
            }
            Mechanism::Pure { epsilon } => Self::pure(epsilon / factor, steps),
        }
    }

    /// What is done in a step.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// T: how often it is done.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

fn check_scale(scale: f64) -> Result<()> {
    if scale >= 1.0 / MAX_PURE && scale.is_finite() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the Laplace scale must be a number from {} up, not {scale}",
        1.0 / MAX_PURE
    ))
    .hint("it is the noise's scale over the sensitivity: 1/epsilon"))
}

fn check_sampling_rate(sampling_rate: f64) -> Result<()> {
    if sampling_rate > 0.0 && sampling_rate <= 1.0 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the sampling rate must be above 0 and at most 1, not {sampling_rate}"
    ))
    .hint("it is the expected batch size over the number of records"))
}

fn check_gaussian(sampling_rate: f64, noise_multiplier: f64) -> Result<()> {
    check_sampling_rate(sampling_rate)?;
    if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
        return Err(Error::usage(format!(
            "the noise multiplier must be a number above 0, not {noise_multiplier}"
        ))
        .hint("it is the noise's standard deviation over the clipping norm, often 0.4 to 4"));
    }
    if noise_multiplier > MAX_NOISE_MULTIPLIER {
        return Err(Error::usage(format!(
            "a noise multiplier of {noise_multiplier:e} is more than is accounted for; {MAX_NOISE_MULTIPLIER:e} is the most"
        ))
        .hint("it is the noise's standard deviation over the clipping norm, often 0.4 to 4"));
    }
    if noise_multiplier < MIN_NOISE_MULTIPLIER {
        return Err(Error::usage(format!(
            "a noise multiplier of {noise_multiplier} gives no privacy worth a number; {MIN_NOISE_MULTIPLIER} is the least"
        ))
        .hint("it is the noise's standard deviation over the clipping norm, often 0.4 to 4"));
    }
    Ok(())
}

/// Which neighbour is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The record was there and is taken away.
    Remove,
    /// The record was not there and is added.
    Add,
    /// Both cost the same.
    Both,
}

impl Direction {
    /// As written in output.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Remove => "remove",
            Direction::Add => "add",
            Direction::Both => "both",
        }
    }
}

/// Epsilon between two certain values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bracket {
    /// Pessimistic: the mechanism is (epsilon, delta)-private.
    pub epsilon: f64,
    /// Optimistic: it is not private with less than this.
    pub epsilon_lower: f64,
    /// The neighbour that decides.
    pub direction: Direction,
}

/// Refuses a delta outside (0, 1).
///
/// # Errors
/// Usage, naming the value.
pub fn check_delta(delta: f64) -> Result<()> {
    if delta > 0.0 && delta < 1.0 {
        return Ok(());
    }
    Err(Error::usage(format!("delta must be above 0 and below 1, not {delta}"))
        .hint("it should be well below one over the number of records"))
}

/// Refuses an epsilon that is negative or not a number.
fn check_epsilon(epsilon: f64) -> Result<()> {
    if epsilon >= 0.0 && epsilon.is_finite() {
        return Ok(());
    }
    Err(Error::usage(format!("epsilon must be 0 or more, not {epsilon}")).hint("values from 0.1 to 10 are usual"))
}

fn check_phases(phases: &[Phase]) -> Result<()> {
    if phases.is_empty() {
        return Err(Error::usage("nothing to account for: no steps were given"));
    }
    Ok(())
}
