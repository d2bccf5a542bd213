//! What a plan may release. A mechanism is a file here: what it costs, what it says of itself, and what a use of it hands
//! out. Its entry in the table of [`Mechanism`] makes it known to plans, ledgers and statements.

mod discrete_laplace;
mod label_scorer;
mod label_tokens;
mod subsampled_gaussian;
mod unit_count;
#[cfg(test)]
mod unproven;
mod whole_sums;

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use discrete_laplace::{ChargedCounts, LabelCounts, LabelCountsStated};
pub use label_scorer::{LabelScorer, LabelScorerStated};
pub use label_tokens::{LabelTokens, LabelTokensStated};
pub use subsampled_gaussian::{
    ChargedStep, Sampler, StepNoise, SubsampledGaussian, SubsampledGaussianStated, Truncation,
};
pub use unit_count::{ChargedCount, UnitCount, UnitCountStated};
#[cfg(test)]
pub use unproven::{Unproven, UnprovenStated};
pub use whole_sums::ChargedSums;

use super::accountant::Phase;
use super::bands::Strand;
use super::class::Document;
use super::keys::{Key, KeySource};
use super::noise;
use super::secrets::Due;
use super::unit::Unit;
use crate::Result;
use crate::number::significant;

/// From one table: the mechanisms, what they say in a guarantee, the names of their releases, and what stands behind their
/// epsilon.
macro_rules! mechanisms {
    ($(
        $(#[doc = $doc:expr])*
        $(#[cfg($cfg:meta)])?
        $mechanism:ident($numbers:ty) says $stated:ty,
        released as $constant:ident = $name:literal,
        proof $proof:expr;
    )*) => {
        /// A mechanism with everything that its cost depends on: what the ledger writes down of it.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "mechanism", rename_all = "kebab-case")]
        pub enum Mechanism {
            $( $(#[doc = $doc])* $(#[cfg($cfg)])? $mechanism($numbers), )*
        }

        /// What a release says of itself in a guarantee.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Stated {
            $( $(#[cfg($cfg)])? $mechanism($stated), )*
        }

        $(
            $(#[doc = $doc])*
            $(#[cfg($cfg)])?
            pub const $constant: Named<$numbers> = Named::new($name);

            $(#[cfg($cfg)])?
            impl Kind for $numbers {
                fn of(mechanism: &Mechanism) -> Option<&Self> {
                    match mechanism {
                        Mechanism::$mechanism(numbers) => Some(numbers),
                        _ => None,
                    }
                }
            }

            $(#[cfg($cfg)])?
            impl From<$numbers> for Mechanism {
                fn from(numbers: $numbers) -> Self {
                    Mechanism::$mechanism(numbers)
                }
            }
        )*

        impl Mechanism {
            fn described(&self) -> &dyn Describe {
                match self {
                    $( $(#[cfg($cfg)])? Mechanism::$mechanism(numbers) => numbers, )*
                }
            }

            /// What stands behind its epsilon (P11).
            pub fn proof(&self) -> Proof {
                match self {
                    $( $(#[cfg($cfg)])? Mechanism::$mechanism(numbers) => {
                        numbers.for_research().map_or($proof, Proof::Research)
                    } )*
                }
            }
        }

        impl Stated {
            fn said(&self) -> &dyn Says {
                match self {
                    $( $(#[cfg($cfg)])? Stated::$mechanism(stated) => stated, )*
                }
            }

            /// The release, as the ledger has it.
            pub fn release(&self) -> &'static str {
                match self {
                    $( $(#[cfg($cfg)])? Stated::$mechanism(_) => $name, )*
                }
            }

            /// What stands behind its epsilon (P11).
            pub fn proof(&self) -> Proof {
                match self {
                    $( $(#[cfg($cfg)])? Stated::$mechanism(stated) => {
                        stated.for_research().map_or($proof, Proof::Research)
                    } )*
                }
            }

            /// The keys by which releases say what they did, in the order in which a guarantee has them.
            pub(super) fn keys() -> impl Iterator<Item = &'static str> {
                let fields = [ $( $(#[cfg($cfg)])? <$stated>::FIELDS, )* ];
                fields.into_iter().flatten().map(|field| field.name)
            }

            /// Takes out of a guarantee what its releases say.
            ///
            /// # Errors
            /// A release says one of its values and not another, or one of another type.
            pub(super) fn take_all(guarantee: &mut Map<String, Value>) -> std::result::Result<Vec<Self>, String> {
                let mut out = Vec::new();
                $( $(#[cfg($cfg)])? out.extend(take(guarantee)?.map(Stated::$mechanism)); )*
                Ok(out)
            }

            /// As a guarantee has it, key by key.
            pub(super) fn values(&self) -> Map<String, Value> {
                let value = match self {
                    $( $(#[cfg($cfg)])? Stated::$mechanism(stated) => serde_json::to_value(stated), )*
                };
                match value {
                    Ok(Value::Object(values)) => values,
                    _ => unreachable!("a struct is an object"),
                }
            }
        }

        /// Whether a plan of this program has a release like `release`: by its name, mechanism and number of uses.
        pub(super) fn is_known(release: &Release) -> bool {
            let (mechanism, times) = (&release.mechanism, release.times);
            let kind = match release.name.as_str() {
                $( $(#[cfg($cfg)])? $name => <$numbers>::of(mechanism).is_some(), )*
                _ => false,
            };
            kind && match mechanism.described().repeats() {
                true => times > 0,
                false => times == 1,
            }
        }
    };
}

mechanisms! {
    /// The steps of training.
    SubsampledGaussian(SubsampledGaussian) says SubsampledGaussianStated,
    released as TRAINING = "training",
    proof Proof::Certified(
        "Zhu, Dong and Wang 2022: dominating pairs of the Poisson-subsampled Gaussian mechanism; of random allocation Chua et \
         al. 2025, balls and bins; of noise that goes together over steps Choquette-Choo et al. 2023; of Laplace noise \
         docs/privacy.md"
    );

    /// The noisy counts of the labels.
    DiscreteLaplace(LabelCounts) says LabelCountsStated,
    released as LABELS = "labels",
    proof Proof::Certified("Canonne, Kamath and Steinke 2020: the discrete Laplace mechanism");

    /// The noisy count of units that share phrases with records that are to leave.
    UnitCount(UnitCount) says UnitCountStated,
    released as COPY_GATE = "copy-gate",
    proof Proof::Certified("Canonne, Kamath and Steinke 2020: the discrete Laplace mechanism");

    /// The noisy counts of tokens by label.
    LabelTokens(LabelTokens) says LabelTokensStated,
    released as LEXICON = "lexicon",
    proof Proof::Certified("Balle and Wang 2018: the Gaussian mechanism");

    /// The scorers of labels.
    LabelScorer(LabelScorer) says LabelScorerStated,
    released as SCORER = "scorer",
    proof Proof::Certified("Dong, Roth and Su 2022: composition of Gaussian mechanisms");

    /// What P11 is about; no program has it.
    #[cfg(test)]
    Unproven(Unproven) says UnprovenStated,
    released as TOY = "toy",
    proof Proof::Research("nobody");
}

/// A mechanism by its type.
pub trait Kind: Sized {
    /// `mechanism`, where it is this one.
    fn of(mechanism: &Mechanism) -> Option<&Self>;
}

/// What each file here says of its mechanism.
pub(super) trait Describe {
    /// `times` ≥ 1 uses, for the accountant.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    fn phase(&self, times: u64) -> Result<Phase>;

    /// How units are drawn for a use, as written in output; none where all of them take part. The accountant reads a
    /// guarantee's sampler as that of training: no other mechanism may draw yet.
    fn sampler(&self) -> Option<String> {
        None
    }

    /// Its numbers, for a person.
    fn describe(&self) -> String;

    /// What its uses are called: "steps".
    fn uses(&self) -> &'static str;

    /// Whether a plan may use it more than once.
    fn repeats(&self) -> bool {
        false
    }

    /// Where numbers like these are proposed, if no proof stands behind them (P11).
    fn for_research(&self) -> Option<&'static str> {
        None
    }

    /// Whether a plan may have it that protects `unit` with `target_epsilon` in all.
    ///
    /// # Errors
    /// Usage: a number that has no meaning, or one that leaves nothing for training.
    fn admit(&self, unit: &Unit, target_epsilon: f64) -> Result<()>;

    /// What a guarantee says of it after `uses` uses, where training has `training` for its noise.
    fn state(&self, uses: u64, training: &noise::Mechanism) -> Stated;
}

impl Mechanism {
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

    /// Whether a plan may have it that protects `unit` with `target_epsilon` in all.
    ///
    /// # Errors
    /// Usage: a number that has no meaning, or one that leaves nothing for training.
    pub(super) fn admit(&self, unit: &Unit, target_epsilon: f64) -> Result<()> {
        self.described().admit(unit, target_epsilon)
    }

    /// What a guarantee says of it after `uses` uses, where training has `training` for its noise.
    pub(super) fn state(&self, uses: u64, training: &noise::Mechanism) -> Stated {
        self.described().state(uses, training)
    }

    /// What its uses are called: "steps".
    pub fn uses(&self) -> &'static str {
        self.described().uses()
    }
}

/// Names of values, and the values for a person.
type Terms = Vec<(&'static str, String)>;

/// What each file here reads out of what it says. In a guarantee the keys of all releases lie side by side: each is a name
/// of its own, such as `label_histogram_epsilon`.
trait Says {
    /// Uses that were charged.
    fn uses(&self) -> u64;

    /// What they are called: "steps".
    fn uses_are(&self) -> &'static str;

    /// What they are to the accountant, where units are drawn by `sampler`: the same as [`Describe::phase`] of so many uses.
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

    /// Where it is for research: epsilon at `delta` by the account of those who propose it; else none.
    fn claimed_epsilon(&self, _delta: f64) -> Option<f64> {
        None
    }

    /// The same as [`Describe::for_research`].
    fn for_research(&self) -> Option<&'static str> {
        None
    }
}

impl Stated {
    pub(super) fn training(&self) -> Option<&SubsampledGaussianStated> {
        match self {
            Stated::SubsampledGaussian(stated) => Some(stated),
            _ => None,
        }
    }

    /// What it is to the accountant, where units are drawn by `sampler`.
    ///
    /// # Errors
    /// Usage: numbers that the accountant refuses, or values that no plan has.
    pub(super) fn phase(&self, sampler: &str) -> Result<Phase> {
        self.said().phase(sampler)
    }

    /// What is to be said of the epsilon of a release for research, and of the one that those claim who propose it.
    pub(super) fn own_account(&self, delta: f64) -> String {
        let claimed = self.said().claimed_epsilon(delta);
        claimed.map_or(String::new(), |claimed| {
            format!(
                "; by that account training alone would cost epsilon {}; the epsilon here is an estimate: what a difference \
                 shows that is spread over very many coordinates",
                significant(claimed, 4)
            )
        })
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

    /// `times` uses of it, for a plan.
    pub fn planned(&self, mechanism: M, times: u64) -> Release
    where
        M: Into<Mechanism>,
    {
        Release {
            name: self.name.into(),
            mechanism: mechanism.into(),
            times,
        }
    }
}

/// A mechanism at work.
pub trait Charge: Kind + Copy {
    /// What one use may do: its members and its one draw of noise. It is consumed by being used.
    type Use;

    /// The use that was just charged.
    ///
    /// # Errors
    /// Other: the operating system gives no random numbers.
    #[doc(hidden)]
    fn hand_out(&self, at: Charged) -> Result<Self::Use>;

    /// What use `index` rests on beside its own randomness; none where on nothing.
    #[doc(hidden)]
    fn due(&self, _index: u64) -> Option<Due> {
        None
    }
}

/// A use that is in the ledger: where it stands, and what it may draw from. Only [`super::PrivateRun`] makes one.
pub struct Charged<'a> {
    pub(super) release: &'static str,
    pub(super) index: u64,
    pub(super) units: usize,
    /// Most records of a unit.
    pub(super) max_records: u64,
    /// Training's; a mechanism beside it has noise of its own.
    pub(super) training_noise: noise::Mechanism,
    pub(super) keys: &'a KeySource,
    /// Of the round that the use is in.
    pub(super) round_key: Option<&'a Key>,
    /// Where noise goes together over uses.
    pub(super) strand: Option<&'a Arc<Mutex<Strand>>>,
    #[cfg(mutants)]
    pub(super) resumed_at: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::ledger::RunParameters;
    use super::super::mixture::Mixture;
    use super::super::noise::Law;
    use super::super::statement::Guarantee;
    use super::*;

    /// One release of each entry of the table.
    fn examples() -> [Release; 6] {
        let gaussian = SubsampledGaussian {
            sampling_rate: 0.01,
            noise_multiplier: 0.9,
            truncation: None,
            slots: None,
            bands: None,
            laplace: false,
            laplace_mixture: None,
        };
        [
            TRAINING.planned(gaussian, 7),
            LABELS.planned(LabelCounts { epsilon: 0.25 }, 1),
            COPY_GATE.planned(UnitCount { epsilon: 0.125 }, 1),
            LEXICON.planned(
                LabelTokens {
                    noise_multiplier: 4.0,
                    max_norm: 6.0,
                },
                1,
            ),
            SCORER.planned(
                LabelScorer {
                    noise_multiplier: 20.0,
                    steps: 40,
                    max_norm: 1.0,
                },
                1,
            ),
            TOY.planned(Unproven {}, 3),
        ]
    }

    /// The first of them, with noise that has no proof.
    fn for_research() -> (Release, Law) {
        let mixture = Mixture {
            gamma_shape: 2.0,
            gamma_scale: 0.1,
            exponential_mean: 0.1,
            uniform_low: 0.0,
            uniform_high: 0.2,
        };
        let [mut training, ..] = examples();
        let Mechanism::SubsampledGaussian(numbers) = &mut training.mechanism else {
            panic!("training comes first")
        };
        numbers.laplace_mixture = Some(mixture);
        numbers.noise_multiplier = mixture.counted_multiplier();
        (training, Law::LaplaceMixture(mixture))
    }

    /// The first of them, with Laplace noise.
    fn with_laplace_noise() -> (Release, Law) {
        let [mut training, ..] = examples();
        let Mechanism::SubsampledGaussian(numbers) = &mut training.mechanism else {
            panic!("training comes first")
        };
        numbers.laplace = true;
        (training, Law::ExactLaplace)
    }

    /// The first of them, with noise that goes together over steps.
    fn with_noise_together() -> (Release, Law) {
        let [mut training, ..] = examples();
        let Mechanism::SubsampledGaussian(numbers) = &mut training.mechanism else {
            panic!("training comes first")
        };
        numbers.bands = Some(3);
        (training, Law::ExactGaussian)
    }

    fn training_noise(law: Law) -> noise::Mechanism {
        noise::Mechanism {
            law,
            noise_multiplier: 0.9,
            max_grad_norm: 1.0,
            expected_batch_size: 10,
            bands: 1,
        }
    }

    /// What a guarantee says costs what the plan was charged for, for every mechanism that there is, and is read back.
    #[test]
    fn p8_what_each_mechanism_says_costs_what_it_was_charged_for() {
        let certified = examples().map(|release| (release, Law::ExactGaussian));
        for (release, law) in certified
            .into_iter()
            .chain([with_laplace_noise(), with_noise_together(), for_research()])
        {
            let stated = release.mechanism.state(release.times, &training_noise(law));
            let charged = release.phase(release.times).expect("accounted for").expect("uses");
            let sampler = release.mechanism.sampler().unwrap_or("none".into());
            assert_eq!(
                stated.phase(&sampler).expect("accounted for"),
                charged,
                "{}",
                release.name
            );
            assert_eq!(stated.uses(), release.times, "{}", release.name);
            assert_eq!(stated.uses_are(), release.mechanism.uses());
            assert_eq!(
                (stated.release(), stated.proof()),
                (release.name.as_str(), release.mechanism.proof())
            );
            let back = Stated::take_all(&mut stated.values()).expect("reads");
            assert_eq!(back, [stated], "{}", release.name);
        }
    }

    /// Keys lie side by side in a guarantee, names side by side in a ledger.
    #[test]
    fn p9_no_two_mechanisms_share_a_key_or_a_name() {
        let mut keys = BTreeSet::new();
        assert!(Guarantee::keys().all(|key| keys.insert(key)), "a key is taken twice");
        let examples = examples();
        let names: BTreeSet<&str> = examples.iter().map(|release| release.name.as_str()).collect();
        assert_eq!(names.len(), examples.len());
    }

    /// A ledger's line says everything of a release, and reads back: a number called `times` or `name` would be lost.
    #[test]
    fn p7_a_ledger_reads_back_every_release() {
        for releases in [
            examples().into(),
            vec![with_laplace_noise().0],
            vec![with_noise_together().0],
            vec![for_research().0],
        ] {
            let parameters = RunParameters {
                delta: 1e-5,
                private: true,
                releases,
            };
            assert_eq!(parameters.strange(), None);
            let line = serde_json::to_string(&parameters).expect("serialises");
            let read: RunParameters = serde_json::from_str(&line).expect("reads");
            assert_eq!(read, parameters);
        }
    }
}
