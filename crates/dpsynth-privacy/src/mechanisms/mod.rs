//! What a plan may release. A mechanism is a file here: what it costs, what it says of itself, and what a use of it hands
//! out. Its line in [`Mechanism`] makes it known to plans, ledgers and statements.

mod discrete_laplace;
mod subsampled_gaussian;
#[cfg(test)]
mod unproven;

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use discrete_laplace::{ChargedCounts, LabelCounts, LabelCountsStated};
pub use subsampled_gaussian::{ChargedStep, StepNoise, SubsampledGaussian, SubsampledGaussianStated, Truncation};

use super::accountant::Phase;
use super::class::Document;
use super::keys::KeySource;
use super::noise;
use crate::Result;

/// A mechanism with everything that its cost depends on: what the ledger writes down of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mechanism", rename_all = "kebab-case")]
pub enum Mechanism {
    /// Training steps.
    SubsampledGaussian(SubsampledGaussian),
    /// Noisy counts of the labels.
    DiscreteLaplace(LabelCounts),
    /// What P11 is about; no program has it.
    #[cfg(test)]
    Unproven(unproven::Unproven),
}

/// What each file here says of its mechanism.
pub(super) trait Describe {
    /// `times` ≥ 1 uses, for the accountant.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    fn phase(&self, times: u64) -> Result<Phase>;

    /// How units are drawn for a use, as written in output; none where all of them take part.
    fn sampler(&self) -> Option<String>;

    /// Its numbers, for a person.
    fn describe(&self) -> String;

    /// What its uses are called: "steps".
    fn uses(&self) -> &'static str;

    /// What stands behind its epsilon (P11).
    fn proof(&self) -> Proof;

    /// What a guarantee says of it after `uses` uses; none where it says nothing.
    fn state(&self, uses: u64, noise: &noise::Mechanism) -> Option<Stated>;
}

impl Mechanism {
    fn described(&self) -> &dyn Describe {
        match self {
            Mechanism::SubsampledGaussian(m) => m,
            Mechanism::DiscreteLaplace(m) => m,
            #[cfg(test)]
            Mechanism::Unproven(m) => m,
        }
    }

    /// `times` ≥ 1 uses, for the accountant.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    pub fn phase(&self, times: u64) -> Result<Phase> {
        self.described().phase(times)
    }

    /// How units are drawn for a use, as written in output; none where all of them take part.
    pub fn sampler(&self) -> Option<String> {
        self.described().sampler()
    }

    /// Its numbers, for a person.
    pub fn describe(&self) -> String {
        self.described().describe()
    }

    /// What a guarantee says of it after `uses` uses; none where it says nothing.
    pub(super) fn state(&self, uses: u64, noise: &noise::Mechanism) -> Option<Stated> {
        self.described().state(uses, noise)
    }

    /// What its uses are called: "steps".
    pub fn uses(&self) -> &'static str {
        self.described().uses()
    }

    /// What stands behind its epsilon (P11).
    pub fn proof(&self) -> Proof {
        self.described().proof()
    }
}

/// Names of values, and the values for a person.
type Terms = Vec<(&'static str, String)>;

/// What a release says of itself in a guarantee.
#[derive(Clone, Debug, PartialEq)]
pub enum Stated {
    SubsampledGaussian(SubsampledGaussianStated),
    DiscreteLaplace(LabelCountsStated),
}

/// What each file here reads out of what it says.
trait Says {
    /// The release, as the ledger has it.
    fn release(&self) -> &'static str;

    /// Uses that were charged.
    fn uses(&self) -> u64;

    /// What they are called: "steps".
    fn uses_are(&self) -> &'static str;

    /// What they are to the accountant, where units are drawn by `sampler`.
    ///
    /// # Errors
    /// Usage: numbers that the accountant refuses, or values that no plan has.
    fn phase(&self, sampler: &str) -> Result<Phase>;

    /// In a line (P10).
    fn words(&self) -> String;

    /// One by one, for a table.
    fn terms(&self) -> Terms;

    /// What it counted that would otherwise be declared; none where it counted nothing.
    fn counted(&self) -> Option<&'static str> {
        None
    }
}

impl Stated {
    fn said(&self) -> &dyn Says {
        match self {
            Stated::SubsampledGaussian(s) => s,
            Stated::DiscreteLaplace(s) => s,
        }
    }

    /// The keys by which releases say what they did, in the order in which a guarantee has them.
    pub(super) fn keys() -> impl Iterator<Item = &'static str> {
        let fields = [SubsampledGaussianStated::FIELDS, LabelCountsStated::FIELDS];
        fields.into_iter().flatten().map(|field| field.name)
    }

    /// Takes out of a guarantee what its releases say.
    ///
    /// # Errors
    /// A release says one of its values and not another, or one of another type.
    pub(super) fn take_all(guarantee: &mut Map<String, Value>) -> std::result::Result<Vec<Self>, String> {
        let training = take(guarantee)?.map(Stated::SubsampledGaussian);
        let labels = take(guarantee)?.map(Stated::DiscreteLaplace);
        Ok(training.into_iter().chain(labels).collect())
    }

    /// As a guarantee has it, key by key.
    pub(super) fn values(&self) -> Map<String, Value> {
        let value = match self {
            Stated::SubsampledGaussian(s) => serde_json::to_value(s),
            Stated::DiscreteLaplace(s) => serde_json::to_value(s),
        };
        match value {
            Ok(Value::Object(values)) => values,
            _ => unreachable!("a struct is an object"),
        }
    }

    pub(super) fn training(&self) -> Option<&SubsampledGaussianStated> {
        match self {
            Stated::SubsampledGaussian(s) => Some(s),
            Stated::DiscreteLaplace(_) => None,
        }
    }

    /// What it is to the accountant, where units are drawn by `sampler`.
    ///
    /// # Errors
    /// Usage: numbers that the accountant refuses, or values that no plan has.
    pub(super) fn phase(&self, sampler: &str) -> Result<Phase> {
        self.said().phase(sampler)
    }

    /// The release, as the ledger has it.
    pub fn release(&self) -> &'static str {
        self.said().release()
    }

    /// Uses that were charged.
    pub fn uses(&self) -> u64 {
        self.said().uses()
    }

    /// What they are called: "steps".
    pub fn uses_are(&self) -> &'static str {
        self.said().uses_are()
    }

    /// In a line (P10).
    pub(super) fn words(&self) -> String {
        self.said().words()
    }

    /// The same one by one, for a table.
    pub fn terms(&self) -> Terms {
        self.said().terms()
    }

    /// What it counted that would otherwise be declared; none where it counted nothing.
    pub fn counted(&self) -> Option<&'static str> {
        self.said().counted()
    }
}

/// Takes out the values of one release; none where none of them is there.
fn take<S: Document + serde::de::DeserializeOwned>(
    guarantee: &mut Map<String, Value>,
) -> std::result::Result<Option<S>, String> {
    let own = S::FIELDS
        .iter()
        .filter_map(|field| guarantee.shift_remove_entry(field.name));
    let own: Map<String, Value> = own.collect();
    match own.is_empty() {
        true => Ok(None),
        false => serde_json::from_value(Value::Object(own))
            .map(Some)
            .map_err(|e| e.to_string()),
    }
}

/// What stands behind the epsilon of a mechanism (rule P11), with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// A proof.
    Certified(&'static str),
    /// None: what is printed is NOT A DP GUARANTEE, and nothing of it can be released.
    Research(&'static str),
}

/// A release that a plan makes, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its name in the plan and in the ledger.
    pub name: String,
    #[serde(flatten)]
    pub mechanism: Mechanism,
    /// Uses that are planned.
    pub times: u64,
}

impl Release {
    /// `uses` of it, for the accountant; none where there are none.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    pub fn phase(&self, uses: u64) -> Result<Option<Phase>> {
        (uses > 0).then(|| self.mechanism.phase(uses)).transpose()
    }
}

/// The name of a release, and by its type what a use of it hands out.
pub struct Named<M> {
    name: &'static str,
    mechanism: PhantomData<M>,
}

impl<M> Named<M> {
    const fn new(name: &'static str) -> Self {
        Named {
            name,
            mechanism: PhantomData,
        }
    }

    /// As the ledger has it.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The steps of training.
pub const TRAINING: Named<SubsampledGaussian> = Named::new("training");

/// The noisy counts of the labels.
pub const LABELS: Named<LabelCounts> = Named::new("labels");

/// A mechanism at work.
pub trait Charge: Copy {
    /// What one use may do: its members and its one draw of noise. It is consumed by being used.
    type Use;

    /// `mechanism`, where it is this one.
    fn of(mechanism: &Mechanism) -> Option<&Self>;

    /// The use that was just charged.
    ///
    /// # Errors
    /// Other: the operating system gives no random numbers.
    #[doc(hidden)]
    fn hand_out(&self, at: Charged) -> Result<Self::Use>;
}

/// A use that is in the ledger: where it stands, and what it may draw from. Only [`super::PrivateRun`] makes one.
pub struct Charged<'a> {
    pub(super) release: &'static str,
    pub(super) index: u64,
    pub(super) units: usize,
    /// Most records of a unit.
    pub(super) max_records: u64,
    pub(super) noise: noise::Mechanism,
    pub(super) keys: &'a KeySource,
    #[cfg(mutants)]
    pub(super) resumed_at: u64,
}
