//! What a plan may release. A mechanism is a file here: what it costs, what it says of itself, and what a use of it hands
//! out. Its line in [`Mechanism`] makes it known to plans, ledgers and statements.

mod discrete_laplace;
mod subsampled_gaussian;
#[cfg(test)]
mod unproven;

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use discrete_laplace::{ChargedCounts, LabelCounts};
pub use subsampled_gaussian::{ChargedStep, StepNoise, SubsampledGaussian, Truncation};

use super::accountant::Phase;
use super::keys::KeySource;
use super::plan::PrivacyPlan;
use crate::{Error, Result};

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

    /// What a guarantee says of it after `uses` uses.
    fn state(&self, uses: u64, plan: &PrivacyPlan) -> Vec<(&'static str, Value)>;
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

    /// What a guarantee says of it after `uses` uses.
    pub(super) fn state(&self, uses: u64, plan: &PrivacyPlan) -> Vec<(&'static str, Value)> {
        self.described().state(uses, plan)
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

/// A guarantee as files have it: `model/privacy.json`, and what is made of it.
type Guarantee = Map<String, Value>;

/// Names of values, and the values for a person.
type Terms = Vec<(&'static str, String)>;

/// What a mechanism says of itself in a guarantee: by keys of its own beside epsilon and delta, which are read back here too.
pub(super) struct Says {
    /// Its keys.
    keys: &'static [&'static str],
    /// What they are to the accountant.
    phase: fn(&Guarantee) -> Result<Phase>,
    /// In a line (P10).
    words: fn(&Guarantee) -> String,
    /// One by one, for a table.
    terms: fn(&Guarantee) -> Terms,
}

/// Of every mechanism, in the order in which a guarantee has them.
const SAYS: [Says; 2] = [subsampled_gaussian::SAYS, discrete_laplace::SAYS];

impl Says {
    fn speaks(&self, guarantee: &Guarantee) -> bool {
        self.keys.iter().any(|key| guarantee.contains_key(*key))
    }
}

/// The keys by which mechanisms say what they did: all of them follow from the plan.
pub fn keys() -> impl Iterator<Item = &'static str> {
    SAYS.iter().flat_map(|says| says.keys).copied()
}

/// The releases that a guarantee speaks of, for the accountant.
///
/// # Errors
/// Usage: numbers that the accountant refuses, values that no plan has, or a sampler without what it samples for.
pub fn stated(guarantee: &Guarantee) -> Result<Vec<Phase>> {
    let samples = guarantee.get("sampler").and_then(Value::as_str) != Some("none");
    if samples != SAYS[0].speaks(guarantee) {
        return Err(Error::usage(
            "it names a sampler and no training, or training and no sampler",
        ));
    }
    let speaking = SAYS.iter().filter(|says| says.speaks(guarantee));
    speaking.map(|says| (says.phase)(guarantee)).collect()
}

/// What a guarantee says of its releases, in a line; of one that says nothing of any, that training is not known.
pub fn words(guarantee: &Guarantee) -> String {
    let speaking: Vec<String> = (SAYS.iter())
        .filter(|says| says.speaks(guarantee))
        .map(|says| (says.words)(guarantee))
        .collect();
    match speaking.is_empty() {
        true => (SAYS[0].words)(guarantee),
        false => speaking.join("; "),
    }
}

/// The same one by one.
pub fn terms(guarantee: &Guarantee) -> Terms {
    SAYS.iter().flat_map(|says| (says.terms)(guarantee)).collect()
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
    pub(super) plan: &'a PrivacyPlan,
    pub(super) keys: &'a KeySource,
    #[cfg(test)]
    pub(super) resumed_at: u64,
}
