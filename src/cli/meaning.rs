//! What an epsilon means: without this the number says nothing (P10).

use std::fmt;

use clap::ValueEnum;
use dpsynth::privacy::accountant;
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
    /// For records drawn into Poisson batches.
    pub fn new(accountant: &'static str, adjacency: Adjacency) -> Self {
        Meaning {
            accountant,
            adjacency,
            unit: "record",
            sampler: "poisson",
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
fn flag<S: serde::Serializer>(adjacency: &Adjacency, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match adjacency {
        Adjacency::AddRemove => "add-remove",
        Adjacency::Replace => "replace",
    })
}
