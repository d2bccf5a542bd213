//! What synthetic records are worth: train on synthetic, test on real (TSTR; Esteban et al. 2017).
//!
//! Classifiers are trained on equally many records of each arm and tested on the same real records. The scores read
//! private test records, and those of the real arm private training records: they are internal (rule P9).

pub mod embed;
pub mod encoder;
mod features;
pub mod linear;
pub mod metrics;
pub mod quality;

use std::fmt;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::EvaluateConfig;
use crate::progress::{Progress, Unit};
use crate::{Error, Result};
use encoder::{EncoderClassifier, EncoderFiles};
use linear::LinearClassifier;
use metrics::{Confusion, Interval};

/// A labelled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text a classifier sees.
    pub text: String,
    /// Its label, an index below the number of labels.
    pub label: usize,
}

/// Where training records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmName {
    /// The private training records: what is lost against them is the price of privacy.
    Real,
    /// Records drawn from the privately fine-tuned model.
    Synthetic,
    /// Records drawn from the model as it came: what is won over them is owed to the private data.
    ZeroShot,
}

impl fmt::Display for ArmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ArmName::Real => "real",
            ArmName::Synthetic => "synthetic",
            ArmName::ZeroShot => "zero-shot",
        })
    }
}

/// Which classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Classifier {
    /// [`LinearClassifier`].
    Linear,
    /// [`EncoderClassifier`].
    Encoder,
}

impl fmt::Display for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Classifier::Linear => "linear",
            Classifier::Encoder => "encoder",
        })
    }
}

/// A set of training records under its name.
#[derive(Clone, Copy, Debug)]
pub struct Arm<'a> {
    /// Where they come from.
    pub name: ArmName,
    /// The records, from which each seed takes its own.
    pub examples: &'a [Example],
}

/// What is compared, on what.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// One or more arms, each under another name.
    pub arms: &'a [Arm<'a>],
    /// Real held-out records, in random order.
    pub test: &'a [Example],
    /// Labels are below this number.
    pub num_labels: usize,
    /// Sizes and settings.
    pub config: &'a EvaluateConfig,
    /// The encoder to fine-tune; without one only the linear classifier is trained.
    pub encoder: Option<&'a EncoderFiles>,
    /// Where the encoder computes; a plain device.
    pub device: &'a Device,
}

/// The scores of one fit: what a caller keeps, so that an interrupted comparison goes on where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    pub arm: ArmName,
    pub classifier: Classifier,
    pub seed: u64,
    /// Training records.
    pub records: usize,
    /// Test records.
    pub test_records: usize,
    /// Share of right predictions, 0 to 1.
    pub accuracy: f64,
    /// F1 averaged over labels, 0 to 1.
    pub macro_f1: f64,
}

/// The scores of a classifier on an arm, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UtilityRow {
    pub arm: ArmName,
    pub classifier: Classifier,
    /// Training records behind each fit; the same for all arms.
    pub records: usize,
    /// Test records behind each score.
    pub test_records: usize,
    /// Share of right predictions.
    pub accuracy: Interval,
    /// F1 averaged over labels.
    pub macro_f1: Interval,
}

/// Trains each classifier on each arm with `config.seeds` seeds, and tests it on real records.
///
/// Each seed takes `config.records` records of each arm, at most as many as the smallest arm has; by default four fifths of
/// that, so that seeds differ in every arm. Fits that are in
/// `finished`, with the same numbers of records, are not done again; `done` hears of each other fit as it ends.
/// `stop` is asked between fits and between the encoder's steps. Rows come arm by arm.
///
/// # Errors
/// An empty arm or test set, a label out of range, fewer than two seeds; an encoder that cannot be read;
/// [`Error::interrupted`] after `stop` said so; whatever `done` returns.
pub fn tstr(
    comparison: &Comparison,
    finished: &[Finished],
    done: &mut dyn FnMut(&Finished) -> Result<()>,
    stop: &dyn Fn() -> bool,
    progress: &dyn Progress,
) -> Result<Vec<UtilityRow>> {
    comparison.check()?;
    let records = comparison.records();
    let mut rows = Vec::new();
    for arm in comparison.arms {
        for classifier in comparison.classifiers() {
            let test = comparison.test_for(classifier);
            let (mut accuracy, mut macro_f1) = (Vec::new(), Vec::new());
            for seed in 0..comparison.config.seeds as u64 {
                let known = finished.iter().find(|f| {
                    (f.arm, f.classifier, f.seed, f.records, f.test_records)
                        == (arm.name, classifier, seed, records, test.len())
                });
                let fit = match known {
                    Some(known) => known.clone(),
                    None => {
                        check_stop(stop)?;
                        let confusion = comparison.fit(arm, classifier, seed, stop, progress)?;
                        let fit = Finished {
                            arm: arm.name,
                            classifier,
                            seed,
                            records,
                            test_records: test.len(),
                            accuracy: confusion.accuracy(),
                            macro_f1: confusion.macro_f1(),
                        };
                        done(&fit)?;
                        fit
                    }
                };
                accuracy.push(fit.accuracy);
                macro_f1.push(fit.macro_f1);
            }
            let interval = |scores: &[f64]| Interval::over_seeds(scores).ok_or_else(too_few_seeds);
            rows.push(UtilityRow {
                arm: arm.name,
                classifier,
                records,
                test_records: test.len(),
                accuracy: interval(&accuracy)?,
                macro_f1: interval(&macro_f1)?,
            });
        }
    }
    Ok(rows)
}

impl<'a> Comparison<'a> {
    fn check(&self) -> Result<()> {
        if self.config.seeds < 2 {
            return Err(too_few_seeds());
        }
        if self.arms.is_empty() || self.records() == 0 {
            return Err(Error::data("there are no records to train a classifier on")
                .hint("check that every arm has records, and `evaluate.records`"));
        }
        if self.classifiers().any(|c| self.test_for(c).is_empty()) {
            return Err(Error::data("there are no records to test a classifier on")
                .hint("check the test set and `evaluate.encoder_test_records`"));
        }
        let all = self.arms.iter().flat_map(|a| a.examples).chain(self.test);
        match all.map(|e| e.label).find(|&l| l >= self.num_labels) {
            Some(label) => Err(
                Error::data(format!("a record has label {label}, but there are {}", self.num_labels))
                    .hint("check the declared label values"),
            ),
            None => Ok(()),
        }
    }

    /// Records each arm trains on.
    fn records(&self) -> usize {
        let smallest = self.arms.iter().map(|a| a.examples.len()).min().unwrap_or(0);
        // Were it all of the smallest arm, its seeds would train on the same records and its interval would claim too much.
        let most = (smallest * 4).div_ceil(5);
        self.config.records.unwrap_or(most).min(smallest)
    }

    fn classifiers(&self) -> impl Iterator<Item = Classifier> + use<> {
        [Some(Classifier::Linear), self.encoder.map(|_| Classifier::Encoder)]
            .into_iter()
            .flatten()
    }

    fn test_for(&self, classifier: Classifier) -> &'a [Example] {
        let limit = match classifier {
            Classifier::Linear => None,
            Classifier::Encoder => self.config.encoder_test_records,
        };
        &self.test[..limit.unwrap_or(usize::MAX).min(self.test.len())]
    }

    fn fit(
        &self,
        arm: &Arm,
        classifier: Classifier,
        seed: u64,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<Confusion> {
        let train = subsample(arm.examples, self.records(), seed);
        let test = self.test_for(classifier);
        let name = format!(
            "{classifier} classifier, {} records, seed {} of {}",
            arm.name,
            seed + 1,
            self.config.seeds
        );
        let predicted = match (classifier, self.encoder) {
            (Classifier::Encoder, Some(files)) => {
                let fitting = progress.begin(&name, encoder::steps(train.len(), self.config) as u64, Unit::Steps);
                let model = EncoderClassifier::fit(
                    files,
                    &train,
                    self.num_labels,
                    self.config,
                    seed,
                    self.device,
                    &mut |step| {
                        fitting.set(step as u64, "");
                        check_stop(stop)
                    },
                )?;
                drop(fitting);
                let testing = progress.begin(&format!("test of the {name}"), test.len() as u64, Unit::Records);
                model.predict(test, &mut |texts| {
                    testing.set(texts as u64, "");
                    check_stop(stop)
                })?
            }
            _ => {
                let _fitting = progress.begin(&name, train.len() as u64, Unit::Records);
                LinearClassifier::fit(&train, self.num_labels, seed).predict(test)
            }
        };
        Ok(Confusion::new(
            test.iter().map(|e| e.label),
            &predicted,
            self.num_labels,
        ))
    }
}

/// `count` of the examples at random.
fn subsample(examples: &[Example], count: usize, seed: u64) -> Vec<Example> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let (chosen, _) = order.partial_shuffle(&mut ChaCha8Rng::seed_from_u64(seed), count);
    chosen.iter().map(|&i| examples[i].clone()).collect()
}

fn check_stop(stop: &dyn Fn() -> bool) -> Result<()> {
    if stop() {
        return Err(
            Error::interrupted("stopped while classifiers were trained; finished fits are kept")
                .hint("run the same command again to go on"),
        );
    }
    Ok(())
}

fn too_few_seeds() -> Error {
    Error::usage("`evaluate.seeds` must be at least 2, since an interval needs them").hint("--set evaluate.seeds=3")
}
