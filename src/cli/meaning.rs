//! What an epsilon means: without this the number says nothing (P10).

use std::fmt;

use clap::ValueEnum;
use dpsynth::privacy::accountant::{self, Phase};
use dpsynth::{Error, Result};
use serde::Serialize;

/// Adjacency as scripts name it.
#[derive(Clone, Copy, ValueEnum)]
pub enum Adjacency {
    /// One record is added or removed.
    AddRemove,
    /// One record takes another's place.
    Replace,
}

impl Adjacency {
    /// As the library has it.
    pub fn known(self) -> accountant::Adjacency {
        match self {
            Adjacency::AddRemove => accountant::Adjacency::AddOrRemoveOne,
            Adjacency::Replace => accountant::Adjacency::ReplaceOne,
        }
    }
}

/// How batches are drawn, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Sampler {
    /// Each record is in or out of each batch by a coin of its own.
    Poisson,
    /// Steps come in rounds of one over the sampling rate; each record is in one of each round.
    RandomAllocation,
}

impl Sampler {
    fn name(self) -> &'static str {
        match self {
            Sampler::Poisson => "poisson",
            Sampler::RandomAllocation => "random allocation",
        }
    }

    /// Steps of a round, where there are rounds.
    ///
    /// # Errors
    /// Usage: a sampling rate that is not one over a whole number of steps.
    pub fn slots(self, sampling_rate: f64) -> Result<Option<u64>> {
        let slots = 1.0 / sampling_rate;
        match self {
            Sampler::Poisson => Ok(None),
            // What is no rate at all is the accountant's to refuse.
            Sampler::RandomAllocation if !(slots >= 1.0 && slots.is_finite()) => Ok(None),
            Sampler::RandomAllocation if (slots - slots.round()).abs() > (1e-3 * slots).min(0.05) => Err(Error::usage(
                format!("a round of random allocation has a whole number of steps, not 1/{sampling_rate} = {slots:.3}"),
            )
            .hint(format!(
                "--sampling-rate {} is one over {}",
                1.0 / slots.round(),
                slots.round()
            ))),
            Sampler::RandomAllocation => Ok(Some(slots.round() as u64)),
        }
    }
}

/// A phase, of rounds of `slots` steps where there are rounds.
///
/// # Errors
/// Usage: a number out of range.
pub fn phase(
    slots: Option<u64>,
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u64,
) -> dpsynth::privacy::Result<Phase> {
    match slots {
        None => Phase::new(sampling_rate, noise_multiplier, steps),
        Some(slots) => Phase::allocated(slots, noise_multiplier, steps),
    }
}

/// What holds for every epsilon that a call prints; serialised as scripts name it, displayed for people.
#[derive(Clone, Copy, Serialize)]
pub struct Meaning {
    accountant: &'static str,
    #[serde(serialize_with = "flag")]
    adjacency: Adjacency,
    unit: &'static str,
    sampler: &'static str,
}

impl Meaning {
    /// For records that are drawn into batches.
    pub fn new(accountant: &'static str, adjacency: Adjacency, sampler: Sampler) -> Self {
        Meaning {
            accountant,
            adjacency,
            unit: "record",
            sampler: sampler.name(),
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "adjacency {}, unit {}, sampler {}, accountant {}",
            self.adjacency.known().name(),
            self.unit,
            self.sampler,
            self.accountant
        )
    }
}

/// As given on the command line.
fn flag<S: serde::Serializer>(adjacency: &Adjacency, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(match adjacency {
        Adjacency::AddRemove => "add-remove",
        Adjacency::Replace => "replace",
    })
}
