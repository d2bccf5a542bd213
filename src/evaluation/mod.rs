//! What synthetic records are worth: train on synthetic, test on real (TSTR; Esteban et al. 2017).
//!
//! Classifiers are trained on equally many records of each arm and tested on the same real records. The scores read
//! private test records, and those of the real arm private training records: they are internal (rule P9).

pub mod direct;
pub mod embed;
pub mod encoder;
pub(crate) mod features;
pub mod groups;
pub mod linear;
pub mod metrics;
pub mod quality;

use std::fmt;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::config::{AllReal, EvaluateConfig};
use crate::privacy::Guarantee;
use crate::progress::{Progress, Unit};
use crate::{Error, Result, document};
use encoder::{EncoderClassifier, EncoderFiles};
use groups::{Group, GroupScore};
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
    /// Records drawn from the model fine-tuned without privacy: what sampling alone loses. NOT PRIVATE.
    NonPrivate,
}

impl fmt::Display for ArmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ArmName::Real => "real",
            ArmName::Synthetic => "synthetic",
            ArmName::ZeroShot => "zero-shot",
            ArmName::NonPrivate => "non-private (NOT PRIVATE: no epsilon)",
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
    /// Test records by true label (rows) and predicted label.
    pub confusion: Vec<Vec<u64>>,
    /// In parts of the test records; empty where an earlier version of the program did not look.
    #[serde(default)]
    pub groups: Vec<GroupScore>,
}

document! {
    /// The scores of a classifier on an arm, over all seeds.
    #[derive(Clone, Debug, PartialEq)]
    pub struct UtilityRow {
        internal arm: ArmName,
        internal classifier: Classifier,
        /// Training records behind each fit.
        internal records: usize,
        /// Optimizer steps behind each fit: of the encoder, batches; of the linear classifier, visits of a record. 0 where an
        /// earlier version of the program did not say.
        #[serde(default)]
        internal steps: usize,
        /// Test records behind each score.
        internal test_records: usize,
        /// Share of right predictions.
        internal accuracy: Interval,
        /// F1 averaged over labels.
        internal macro_f1: Interval,
    }
}

document! {
    /// What is said of the test records of each label, over all seeds.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ArmConfusion {
        internal arm: ArmName,
        internal classifier: Classifier,
        /// Mean counts over seeds, a row for each true label, a column for each predicted one.
        internal counts: Vec<Vec<f64>>,
    }
}

document! {
    /// The accuracy of a classifier on an arm in a part of the test records, over all seeds.
    #[derive(Clone, Debug, PartialEq)]
    pub struct GroupRow {
        internal arm: ArmName,
        internal classifier: Classifier,
        internal group: Group,
        /// Test records in it.
        internal test_records: usize,
        /// Share of right predictions.
        internal accuracy: Interval,
    }
}

/// A classifier beside the comparison: it is not trained on an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceName {
    /// See [`direct`].
    DpDirect,
    /// The run's own language model, by p(label | text) ∝ p(text | label).
    ModelPosterior,
    /// The same by the model as it came.
    ZeroShotPosterior,
}

impl fmt::Display for ReferenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReferenceName::DpDirect => "dp_direct",
            ReferenceName::ModelPosterior => "model_posterior",
            ReferenceName::ZeroShotPosterior => "zero_shot_posterior",
        })
    }
}

document! {
    /// The scores of a classifier that there is once: no seeds, no interval.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Reference {
        internal name: ReferenceName,
        /// In words.
        internal what: String,
        /// Test records behind the scores.
        internal test_records: usize,
        /// Share of right predictions, 0 to 1.
        internal accuracy: f64,
        /// F1 averaged over labels, 0 to 1.
        internal macro_f1: f64,
        /// Test records by true label (rows) and predicted label.
        internal confusion: Vec<Vec<u64>>,
        /// What it guarantees by itself, whole (P10), besides what the run's own model has spent; none where that is all.
        internal privacy: Option<Guarantee>,
    }
}

document! {
    /// What an evaluation comes to. What an earlier version of the program did not measure is empty. Internal (P9).
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Utility {
        /// Each arm and classifier at equal sizes and equal steps, arm by arm: the comparison.
        internal rows: Vec<UtilityRow>,
        /// The synthetic arm with all its records, where those are more than in `rows`: what a user of the records gets. Seeds
        /// would differ in the order of training alone: one fit, its interval over test records.
        #[serde(default)]
        internal all_synthetic: Vec<UtilityRow>,
        /// The same of the real arm.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        internal all_real: Vec<UtilityRow>,
        /// The linear classifier by number of records, from few to many, every arm that has so many.
        #[serde(default)]
        internal size_curve: Vec<UtilityRow>,
        /// Of each of `rows`.
        #[serde(default)]
        internal confusions: Vec<ArmConfusion>,
        /// Of each of `rows`, by parts of the test records.
        #[serde(default)]
        internal groups: Vec<GroupRow>,
        /// Classifiers that are not trained on an arm.
        #[serde(default)]
        internal references: Vec<Reference>,
    }
}

/// Trains each classifier on each arm with `config.seeds` seeds, and tests it on real records.
///
/// Each seed takes `config.records` records of each arm, at most as many as the smallest arm has; by default four fifths of
/// that, so that seeds differ in every arm. Equally many records are equally many steps. Then come all synthetic records
/// (`config.all_synthetic`), all real ones (`config.all_real`) and the sizes of `config.size_curve`. Fits that are in
/// `finished`, with the same numbers of records, are not done again; `done` hears of each other fit as it ends.
/// `stop` is asked between fits and between the encoder's steps.
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
) -> Result<Utility> {
    comparison.check()?;
    let mut fits = Fits {
        comparison,
        finished: finished.to_vec(),
        done,
        stop,
        progress,
    };
    let mut out = Utility::default();
    let equal = comparison.records();
    for arm in comparison.arms {
        for classifier in comparison.classifiers() {
            let of_seeds = fits.of_seeds(arm, classifier, equal)?;
            out.rows.push(row(&of_seeds, comparison.config)?);
            out.groups.extend(group_rows(&of_seeds));
            out.confusions.push(ArmConfusion {
                arm: arm.name,
                classifier,
                counts: mean_confusion(&of_seeds, comparison.num_labels),
            });
        }
    }
    for (arm, classifier) in comparison.wholes(equal) {
        let row = fits.whole(arm, classifier)?;
        match arm.name {
            ArmName::Real => out.all_real.push(row),
            _ => out.all_synthetic.push(row),
        }
    }
    for size in comparison.sizes() {
        for arm in comparison.arms.iter().filter(|a| a.examples.len() >= size) {
            let row = fits.row(arm, Classifier::Linear, size)?;
            out.size_curve.push(row);
        }
    }
    Ok(out)
}

/// Fits that were done, and doing the others.
struct Fits<'a> {
    comparison: &'a Comparison<'a>,
    finished: Vec<Finished>,
    done: &'a mut dyn FnMut(&Finished) -> Result<()>,
    stop: &'a dyn Fn() -> bool,
    progress: &'a dyn Progress,
}

impl Fits<'_> {
    /// The fits of all seeds, two at least.
    fn of_seeds(&mut self, arm: &Arm, classifier: Classifier, records: usize) -> Result<Vec<Finished>> {
        let seeds = 0..self.comparison.config.seeds as u64;
        seeds.map(|seed| self.fit(arm, classifier, records, seed)).collect()
    }

    /// The scores over all seeds.
    fn row(&mut self, arm: &Arm, classifier: Classifier, records: usize) -> Result<UtilityRow> {
        let fits = self.of_seeds(arm, classifier, records)?;
        row(&fits, self.comparison.config)
    }

    /// The scores of one fit on all of an arm.
    fn whole(&mut self, arm: &Arm, classifier: Classifier) -> Result<UtilityRow> {
        let fit = self.fit(arm, classifier, arm.examples.len(), 0)?;
        let confusion = Confusion::of_rows(&fit.confusion);
        let score = |score| Interval::of_one(&confusion, score);
        Ok(utility_row(
            &fit,
            self.comparison.config,
            score(Confusion::accuracy),
            score(Confusion::macro_f1),
        ))
    }

    /// As it was done before, else done now.
    fn fit(&mut self, arm: &Arm, classifier: Classifier, records: usize, seed: u64) -> Result<Finished> {
        let test_records = self.comparison.test_for(classifier).len();
        let wanted = (arm.name, classifier, seed, records, test_records);
        let same = |f: &&Finished| (f.arm, f.classifier, f.seed, f.records, f.test_records) == wanted;
        if let Some(known) = self.finished.iter().find(same) {
            return Ok(known.clone());
        }
        check_stop(self.stop)?;
        let (confusion, groups) = self
            .comparison
            .fit(arm, classifier, records, seed, self.stop, self.progress)?;
        let fit = Finished {
            arm: arm.name,
            classifier,
            seed,
            records,
            test_records,
            accuracy: confusion.accuracy(),
            macro_f1: confusion.macro_f1(),
            confusion: confusion.rows(),
            groups,
        };
        (self.done)(&fit)?;
        self.finished.push(fit.clone());
        Ok(fit)
    }
}

/// The scores of the fits of all seeds.
fn row(fits: &[Finished], config: &EvaluateConfig) -> Result<UtilityRow> {
    let of = fits.first().ok_or_else(too_few_seeds)?;
    let over_seeds = |score: fn(&Finished) -> f64| {
        let scores: Vec<f64> = fits.iter().map(score).collect();
        Interval::over_seeds(&scores).ok_or_else(too_few_seeds)
    };
    Ok(utility_row(
        of,
        config,
        over_seeds(|f| f.accuracy)?,
        over_seeds(|f| f.macro_f1)?,
    ))
}

/// The row of a fit and others like it.
fn utility_row(of: &Finished, config: &EvaluateConfig, accuracy: Interval, macro_f1: Interval) -> UtilityRow {
    UtilityRow {
        arm: of.arm,
        classifier: of.classifier,
        records: of.records,
        steps: match of.classifier {
            Classifier::Linear => linear::steps(of.records),
            Classifier::Encoder => encoder::steps(of.records, config),
        },
        test_records: of.test_records,
        accuracy,
        macro_f1,
    }
}

/// Their mean confusion.
fn mean_confusion(fits: &[Finished], num_labels: usize) -> Vec<Vec<f64>> {
    let mut counts = vec![vec![0.0; num_labels]; num_labels];
    for confusion in fits.iter().map(|f| &f.confusion) {
        let pairs = counts.iter_mut().flatten().zip(confusion.iter().flatten());
        pairs.for_each(|(mean, count)| *mean += *count as f64 / fits.len() as f64);
    }
    counts
}

/// Their accuracy in each group.
fn group_rows(fits: &[Finished]) -> Vec<GroupRow> {
    let row = |of: &Finished, group: &GroupScore| {
        let scores = fits.iter().flat_map(|fit| &fit.groups);
        let scores: Vec<f64> = scores.filter(|s| s.group == group.group).map(|s| s.accuracy).collect();
        Some(GroupRow {
            arm: of.arm,
            classifier: of.classifier,
            group: group.group,
            test_records: group.records,
            accuracy: Interval::over_seeds(&scores)?,
        })
    };
    let first = fits.iter().take(1);
    first
        .flat_map(|of| of.groups.iter().filter_map(move |group| row(of, group)))
        .collect()
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

    /// Records each arm trains on where arms are compared.
    fn records(&self) -> usize {
        let smallest = self.arms.iter().map(|a| a.examples.len()).min().unwrap_or(0);
        // Were it all of the smallest arm, its seeds would train on the same records and its interval would claim too much.
        let most = (smallest * 4).div_ceil(5);
        self.config.records.unwrap_or(most).min(smallest)
    }

    /// The arms of which all records are trained on, where those are more than are compared, and by which classifiers.
    fn wholes(&self, equal: usize) -> Vec<(&'a Arm<'a>, Classifier)> {
        let wanted = |arm: &Arm, classifier: Classifier| match arm.name {
            ArmName::Synthetic => self.config.all_synthetic,
            ArmName::Real => match self.config.all_real {
                AllReal::None => false,
                AllReal::Linear => classifier == Classifier::Linear,
                AllReal::Both => true,
            },
            ArmName::ZeroShot | ArmName::NonPrivate => false,
        };
        let larger = self.arms.iter().filter(|arm| arm.examples.len() > equal);
        let each = larger.flat_map(|arm| self.classifiers().map(move |classifier| (arm, classifier)));
        each.filter(|(arm, classifier)| wanted(arm, *classifier)).collect()
    }

    /// Sizes of the curve in records, rising.
    fn sizes(&self) -> Vec<usize> {
        let synthetic = self.arms.iter().find(|a| a.name == ArmName::Synthetic);
        let most = synthetic.map_or(0, |a| a.examples.len());
        let size = |asked: &f64| match *asked <= 1.0 {
            true => ((asked * most as f64).round() as usize).max(1),
            false => *asked as usize,
        };
        let mut sizes: Vec<usize> = self.config.size_curve.iter().map(size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
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
        records: usize,
        seed: u64,
        stop: &dyn Fn() -> bool,
        progress: &dyn Progress,
    ) -> Result<(Confusion, Vec<GroupScore>)> {
        let train = subsample(arm.examples, records, seed);
        let test = self.test_for(classifier);
        let name = format!(
            "{classifier} classifier, {records} {} records, seed {} of {}",
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
        let confusion = Confusion::new(test.iter().map(|e| e.label), &predicted, self.num_labels);
        Ok((confusion, groups::scores(test, &predicted, self.num_labels)))
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
