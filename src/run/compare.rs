//! Runs side by side: what each guarantees, what its records are worth, and in which settings they differ.
//!
//! Nothing is locked, written or computed anew: a run may be unfinished, or at work. Internal, since scores read private
//! records (P9).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use toml::Table;

use super::stamp;
use super::states::done;
use super::{Preparation, RunPaths, Stage, report, results, table};
use crate::config::{RunConfig, Task};
use crate::documents::{self, Report};
use crate::evaluation::metrics::Interval;
use crate::evaluation::{ArmName, Classifier, Utility};
use crate::hash::sha256;
use crate::privacy::Guarantee;
use crate::records::content_hash;
use crate::{Error, Result};

/// Runs in order of epsilon, then of name.
#[derive(Clone, Debug, Serialize)]
pub struct SideBySide {
    /// "internal": scores are computed from private records.
    pub classification: &'static str,
    pub runs: Vec<Standing>,
    /// Dotted keys of the settings that are not the same in all runs, besides the name.
    pub differing: Vec<String>,
    /// What a reader must know before comparing.
    pub warnings: Vec<String>,
}

/// Where a run stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The folder's name, or its path where two have the same name.
    pub run: String,
    pub folder: PathBuf,
    /// Stages that are done, in order.
    pub done: Vec<&'static str>,
    /// The guarantee, whole (P10); none before training is done.
    pub privacy: Option<Guarantee>,
    /// Empty before the evaluation is done.
    pub utility: Utility,
    /// What is lost against the real records, a line a classifier.
    pub gaps: Vec<Gap>,
    /// SHA-256 of the resolved configuration, as in the run's report.
    pub config_hash: String,
    /// Identity of the private dataset; none before the records are prepared.
    pub dataset_hash: Option<String>,
    /// The same of the test records and their labels.
    pub test_hash: Option<String>,
    /// Its values of [`SideBySide::differing`]; none where it has no such key.
    pub settings: BTreeMap<String, Option<Value>>,
}

/// Real − synthetic, at equal sizes.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    pub classifier: Classifier,
    pub accuracy: Interval,
    pub macro_f1: Interval,
}

impl Standing {
    /// Epsilon of the guarantee, pessimistic; none before training is done.
    pub fn epsilon(&self) -> Option<f64> {
        Some(self.privacy.as_ref()?.epsilon)
    }
}

/// Reads the runs in `folders`.
///
/// # Errors
/// Usage: a folder holds no run. Data: a file of a run is damaged.
pub fn compare(folders: &[PathBuf]) -> Result<SideBySide> {
    let read = folders.iter().map(|f| standing(f)).collect::<Result<Vec<_>>>()?;
    let (mut runs, mut settings): (Vec<Standing>, Vec<_>) = read.into_iter().unzip();
    let mut differing: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    differing.retain(|key| settings.iter().any(|s| s.get(*key) != settings[0].get(*key)));
    let differing: Vec<String> = differing.into_iter().filter(|k| *k != "name").cloned().collect();
    for (run, settings) in runs.iter_mut().zip(&mut settings) {
        run.settings = differing.iter().map(|k| (k.clone(), settings.remove(k))).collect();
    }
    let names: Vec<String> = runs.iter().map(|r| r.run.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|n| **n == run.run).count() > 1 {
            run.run = run.folder.display().to_string();
        }
    }
    // What is not trained yet has no epsilon and comes last.
    runs.sort_by(|a, b| {
        let epsilon = |r: &Standing| r.epsilon().unwrap_or(f64::INFINITY);
        epsilon(a).total_cmp(&epsilon(b)).then_with(|| a.run.cmp(&b.run))
    });
    Ok(SideBySide {
        classification: "internal",
        warnings: warnings(&runs),
        runs,
        differing,
    })
}

/// The run in `folder`, and all its settings by dotted key.
fn standing(folder: &Path) -> Result<(Standing, BTreeMap<String, Value>)> {
    let paths = RunPaths::of(folder);
    let (config_hash, settings, config) = configuration(folder)?;
    let done = done(&paths, config.as_ref())?;
    let is_done = |stage: Stage| done.contains(&stage.name());
    let task = config.as_ref().map_or(Task::default(), |c| c.task);
    let mut utility = match is_done(Stage::Evaluate) {
        true => results::utility(&paths)?,
        false => Utility::default(),
    };
    // Large where there are many labels, and not for reading side by side.
    utility.confusions.clear();
    utility.groups.clear();
    utility.references.iter_mut().for_each(|r| r.confusion.clear());
    let (dataset_hash, test_hash) = match is_done(Stage::Prepare) {
        true => (
            Some(Preparation::read(&paths)?.dataset_hash),
            Some(test_hash(&paths.test_records())?),
        ),
        false => (None, None),
    };
    // The report's own hash stays the run's, though keys have been added to the configuration since.
    let reported: Option<Report> = match is_done(Stage::Evaluate) {
        true => documents::read_if_there(&paths.report())?,
        false => None,
    };
    let standing = Standing {
        run: paths.name().to_string(),
        folder: folder.to_path_buf(),
        privacy: match is_done(report::trains(task)) {
            true => report::own_guarantee(&paths, task)?,
            false => None,
        },
        gaps: gaps(&utility),
        done,
        utility,
        config_hash: reported.map_or(config_hash, |r| r.config_hash),
        dataset_hash,
        test_hash,
        settings: BTreeMap::new(),
    };
    Ok((standing, settings))
}

/// The configuration's hash, its settings, and itself. One of another version of the program is read as far as it goes.
pub(crate) fn configuration(folder: &Path) -> Result<(String, BTreeMap<String, Value>, Option<RunConfig>)> {
    let path = folder.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::usage(format!("{} is not the folder of a run", folder.display()))
                .hint("name folders such as runs/imdb-quick")
        }
        _ => Error::io("read", &path, e),
    })?;
    let damaged = |e: &dyn std::fmt::Display| {
        Error::data(format!("{} is damaged: {e}", path.display())).hint(
            "leave this run out, or give it its configuration again: the command that made it writes the file anew",
        )
    };
    let written: Table = text.parse().map_err(|e: toml::de::Error| damaged(&e.message()))?;
    // With the defaults of keys that are younger than the run.
    let config: Option<RunConfig> = written.clone().try_into().ok();
    let whole = match &config {
        Some(c) => Table::try_from(c).map_err(|e| damaged(&e))?,
        None => written,
    };
    let mut settings = BTreeMap::new();
    flatten("", whole, &mut settings);
    let hash = match &config {
        Some(c) => sha256(stamp::text(c).as_bytes()),
        None => sha256(text.as_bytes()),
    };
    Ok((hash, settings, config))
}

fn flatten(under: &str, table: Table, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = match under {
            "" => key,
            _ => format!("{under}.{key}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, into),
            value => {
                into.insert(key, serde_json::to_value(value).expect("TOML values are JSON values"));
            }
        }
    }
}

fn test_hash(path: &Path) -> Result<String> {
    let records = table::read_records(path)?;
    let labelled: Vec<String> = records.iter().map(|r| format!("{}\n{}", r.label, r.text)).collect();
    content_hash(labelled.iter().map(String::as_str))
}

fn gaps(utility: &Utility) -> Vec<Gap> {
    let row = |arm, classifier| {
        let mut rows = utility.rows.iter();
        rows.find(|r| r.arm == arm && r.classifier == classifier)
    };
    [Classifier::Linear, Classifier::Encoder]
        .into_iter()
        .filter_map(|classifier| {
            let (real, synthetic) = (row(ArmName::Real, classifier)?, row(ArmName::Synthetic, classifier)?);
            Some(Gap {
                classifier,
                accuracy: real.accuracy.minus(&synthetic.accuracy),
                macro_f1: real.macro_f1.minus(&synthetic.macro_f1),
            })
        })
        .collect()
}

fn warnings(runs: &[Standing]) -> Vec<String> {
    let mut out = Vec::new();
    let mut unlike = |what: &str, of: &dyn Fn(&Standing) -> Option<String>| {
        let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for run in runs {
            if let Some(value) = of(run) {
                groups.entry(value).or_default().push(&run.run);
            }
        }
        if groups.len() > 1 {
            let groups: Vec<String> = groups.values().map(|names| names.join(", ")).collect();
            out.push(format!("{what}: {}", groups.join(" | ")));
        }
    };
    unlike("NOT COMPARABLE: the runs are of different private datasets", &|r| {
        r.dataset_hash.clone()
    });
    unlike("NOT COMPARABLE: the runs have different test records", &|r| {
        r.test_hash.clone()
    });
    for classifier in [Classifier::Linear, Classifier::Encoder] {
        let row = |r: &Standing| r.utility.rows.iter().find(|row| row.classifier == classifier).cloned();
        unlike(
            &format!("NOT COMPARABLE: the {classifier} classifier is tested on different numbers of records"),
            &|r| Some(row(r)?.test_records.to_string()),
        );
        unlike(
            &format!(
                "the {classifier} classifier is trained on different numbers of records, on which scores and gaps depend"
            ),
            &|r| Some(row(r)?.records.to_string()),
        );
    }
    let adjacency = |r: &Standing| Some(r.privacy.as_ref()?.unit.clone());
    unlike("the guarantees protect different units of privacy", &adjacency);
    out
}
