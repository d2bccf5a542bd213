//! What a run's cost depends on, as the ledger writes it down.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::privacy::accountant::Phase;
use crate::privacy::mechanisms::{LABELS, LabelCounts, Mechanism, Release, SubsampledGaussian, TRAINING, Truncation};

/// The releases that a run plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
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

/// As a line has it. Lines of the first version named no releases: there were training steps, and counts of the labels.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Releases {
        delta: f64,
        private: bool,
        releases: Vec<Release>,
    },
    First {
        sampling_rate: f64,
        noise_multiplier: f64,
        steps: u64,
        delta: f64,
        private: bool,
        #[serde(default)]
        truncation: Option<Truncation>,
        #[serde(default)]
        label_histogram_epsilon: Option<f64>,
    },
}

impl From<Written> for RunParameters {
    fn from(written: Written) -> Self {
        match written {
            Written::Releases {
                delta,
                private,
                releases,
            } => RunParameters {
                delta,
                private,
                releases,
            },
            Written::First {
                sampling_rate,
                noise_multiplier,
                steps,
                delta,
                private,
                truncation,
                label_histogram_epsilon,
            } => {
                let training = SubsampledGaussian {
                    sampling_rate,
                    noise_multiplier,
                    truncation,
                };
                let release = |name: &str, mechanism: Mechanism, times: u64| Release {
                    name: name.into(),
                    mechanism,
                    times,
                };
                let mut releases = vec![release(TRAINING.name(), Mechanism::SubsampledGaussian(training), steps)];
                releases.extend(
                    label_histogram_epsilon
                        .map(|epsilon| release(LABELS.name(), Mechanism::DiscreteLaplace(LabelCounts { epsilon }), 1)),
                );
                RunParameters {
                    delta,
                    private,
                    releases,
                }
            }
        }
    }
}
