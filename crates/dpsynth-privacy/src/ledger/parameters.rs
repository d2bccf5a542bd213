//! What a run's cost depends on, as the ledger writes it down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Result;
use crate::accountant::{Phase, check_delta};
use crate::mechanisms::{
    LABELS, LabelCounts, Mechanism, Proof, Release, SubsampledGaussian, TRAINING, Truncation, is_known,
};

/// The releases that a run plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct RunParameters {
    /// The run's own delta.
    pub delta: f64,
    /// False for a run with a fixed seed: recorded, not counted.
    pub private: bool,
    /// In the order in which they are accounted for.
    pub releases: Vec<Release>,
}

/// How many times each release was used, in the order of the plan.
pub type Uses = Vec<u64>;

impl RunParameters {
    /// How batches are drawn, as written in output: each way once.
    pub fn sampler(&self) -> String {
        let mut ways: Vec<String> = self.releases.iter().filter_map(|r| r.mechanism.sampler()).collect();
        ways.dedup();
        match ways.is_empty() {
            true => "none".into(),
            false => ways.join(" and "),
        }
    }

    /// All that the run plans.
    pub fn planned(&self) -> Uses {
        self.releases.iter().map(|release| release.times).collect()
    }

    /// Nothing of it.
    pub fn nothing(&self) -> Uses {
        vec![0; self.releases.len()]
    }

    /// The release of this name, and its place.
    pub fn release(&self, name: &str) -> Option<(usize, &Release)> {
        self.releases
            .iter()
            .enumerate()
            .find(|(_, release)| release.name == name)
    }

    /// The first release that has no proof (P11), and what is known of it.
    pub fn unproven(&self) -> Option<(&str, &'static str)> {
        self.releases
            .iter()
            .find_map(|release| match release.mechanism.proof() {
                Proof::Research(reference) => Some((release.name.as_str(), reference)),
                Proof::Certified(_) => None,
            })
    }

    /// Uses of a release that are planned; 0 where it is not.
    pub fn times(&self, name: &str) -> u64 {
        self.release(name).map_or(0, |(_, release)| release.times)
    }

    /// What `uses` are to the accountant; empty where nothing was used.
    ///
    /// # Errors
    /// Usage: a number that the accountant refuses.
    pub fn phases(&self, uses: &[u64]) -> Result<Vec<Phase>> {
        let phases = self
            .releases
            .iter()
            .zip(uses)
            .map(|(release, uses)| release.phase(*uses));
        phases.filter_map(Result::transpose).collect()
    }
}

/// As a line of this version has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    delta: f64,
    private: bool,
    releases: Vec<Release>,
}

/// Lines of the first version named no releases: there were training steps, and counts of the labels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    sampling_rate: f64,
    noise_multiplier: f64,
    steps: u64,
    delta: f64,
    private: bool,
    #[serde(default)]
    truncation: Option<Truncation>,
    #[serde(default)]
    label_histogram_epsilon: Option<f64>,
}

impl TryFrom<Map<String, Value>> for RunParameters {
    type Error = String;

    fn try_from(line: Map<String, Value>) -> std::result::Result<Self, String> {
        let Some(releases) = line.get("releases").cloned() else {
            let first: First = serde_json::from_value(line.into()).map_err(|e| e.to_string())?;
            return Ok(first.into());
        };
        let read: Written = serde_json::from_value(line.into()).map_err(|e| e.to_string())?;
        // What a release says and nobody reads might count.
        let known = serde_json::to_value(&read.releases).map_err(|e| e.to_string())?;
        let keys = |all: &Value| -> Vec<BTreeSet<String>> {
            let releases = all.as_array().into_iter().flatten();
            releases
                .map(|r| {
                    r.as_object()
                        .into_iter()
                        .flatten()
                        .map(|(key, _)| key.clone())
                        .collect()
                })
                .collect()
        };
        match keys(&known) == keys(&releases) {
            true => Ok(RunParameters {
                delta: read.delta,
                private: read.private,
                releases: read.releases,
            }),
            false => Err("a release says more than is known of it".into()),
        }
    }
}

impl From<First> for RunParameters {
    fn from(first: First) -> Self {
        let training = SubsampledGaussian {
            sampling_rate: first.sampling_rate,
            noise_multiplier: first.noise_multiplier,
            truncation: first.truncation,
            slots: None,
            bands: None,
            laplace: false,
            laplace_mixture: None,
        };
        let release = |name: &str, mechanism: Mechanism, times: u64| Release {
            name: name.into(),
            mechanism,
            times,
        };
        let mut releases = vec![release(
            TRAINING.name(),
            Mechanism::SubsampledGaussian(training),
            first.steps,
        )];
        releases.extend(
            first
                .label_histogram_epsilon
                .map(|epsilon| release(LABELS.name(), Mechanism::DiscreteLaplace(LabelCounts { epsilon }), 1)),
        );
        RunParameters {
            delta: first.delta,
            private: first.private,
            releases,
        }
    }
}

impl RunParameters {
    /// What no plan of this program has; none where it is one.
    pub fn strange(&self) -> Option<&'static str> {
        let mut names = BTreeSet::new();
        for release in &self.releases {
            if release.name.is_empty() || release.times == 0 || !names.insert(&release.name) {
                return Some("plans a release without a name of its own, or without a use");
            }
            if !is_known(release) {
                return Some("plans a release that no plan of this program has");
            }
        }
        let accounted = self.phases(&self.planned()).is_ok() && check_delta(self.delta).is_ok();
        (!accounted).then_some("plans what cannot be accounted for")
    }
}
