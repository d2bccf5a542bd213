//! What a run came to: one JSON object, read back from what the stages wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::evaluate;
use super::files::{read_json, write_atomically};
use super::prepare::Preparation;
use super::stamp::{self, Stamp};
use super::{Pipeline, RunFolder, RunPaths, Stage, compare, quality};
use crate::config::RunConfig;
use crate::evaluation::quality::Quality;
use crate::evaluation::{Reference, Utility, UtilityRow};
use crate::privacy::{PlanRequest, PrivacyPlan, Unit, find_ledger};
use crate::{Error, Result};

/// `report.json`. Internal: utility and counts read private records (P9).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub run: String,
    /// "internal": this file is not part of a release.
    pub classification: &'static str,
    /// The guarantee of the trained model and of everything sampled from it; none before training.
    pub privacy: Option<Value>,
    /// Arms at equal sizes and steps.
    pub utility: Vec<UtilityRow>,
    /// The synthetic arm with all its records.
    pub all_synthetic: Vec<UtilityRow>,
    /// The linear classifier by number of records.
    pub size_curve: Vec<UtilityRow>,
    /// Classifiers that are not trained on an arm.
    pub references: Vec<Reference>,
    /// What came of drawing each arm's records: how many were kept, dropped and relabelled.
    pub sampling: BTreeMap<String, Value>,
    /// What the records are like, beside real ones; none where it was not measured.
    pub quality: Option<Quality>,
    pub records: Option<Records>,
    /// What all runs on these records have spent.
    pub ledger: Option<Spent>,
    /// Wall time of each stage in order, over all attempts that ended in order.
    pub timings_s: Map<String, Value>,
    /// The largest of the stages' peaks.
    pub peak_rss_bytes: u64,
    /// SHA-256 of the resolved configuration.
    pub config_hash: String,
    pub program_version: &'static str,
}

/// The dataset's ledger. Adjacency, unit, sampler and accountant are those of the run's own guarantee.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    pub path: PathBuf,
    /// Of all runs composed.
    pub charged_epsilon: f64,
    /// What they may spend together.
    pub total_epsilon: f64,
    pub delta: f64,
}

/// What came of reading.
#[derive(Clone, Debug, Serialize)]
pub struct Records {
    pub train: Counts,
    pub test: Counts,
    /// Held-out records that were kept for evaluation.
    pub test_evaluated: usize,
    /// Texts in both splits.
    pub shared_texts: usize,
    /// Training records cut at `prepare.max_tokens`.
    pub cut: usize,
}

/// Rows of a file.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    pub read: usize,
    pub kept: usize,
    /// By reason.
    pub dropped: BTreeMap<String, usize>,
}

/// The plan that `config` asks for, from public numbers alone.
pub fn privacy_plan(config: &RunConfig) -> Result<PrivacyPlan> {
    PrivacyPlan::calibrate(&plan_request(config))
}

/// What `config` asks a plan for.
pub fn plan_request(config: &RunConfig) -> PlanRequest {
    let f = &config.finetune;
    let size = config.dataset.public_size;
    let by_epochs = (f.epochs * size as f64 / f.expected_batch_size as f64).ceil() as u64;
    PlanRequest {
        target_epsilon: f.epsilon,
        delta: f.delta,
        public_size: size,
        expected_batch_size: f.expected_batch_size,
        steps: f.steps.unwrap_or(by_epochs),
        max_grad_norm: f.max_grad_norm,
        noise: f.noise,
        unit: match &config.dataset.unit {
            None => Unit::Record,
            Some(unit) => Unit::Group {
                column: unit.column.clone(),
                max_records: unit.max_records as u64,
            },
        },
        max_batch_size: f.max_batch_size,
        label_histogram_epsilon: f.label_histogram_epsilon,
        seed: f.seed,
    }
}

/// The guarantee as Parquet metadata: epsilon never without the rest (P10).
pub fn guarantee_metadata(p: &Pipeline) -> Result<Vec<(String, String)>> {
    let guarantee =
        guarantee(&p.folder)?.ok_or_else(|| Error::other("the trained model has no guarantee beside it"))?;
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    let mut out: Vec<(String, String)> = guarantee
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (format!("dp.{k}"), text(v)))
        .collect();
    out.push(("dp.run".into(), p.folder.name().to_string()));
    out.push(("dp.base_model".into(), p.config.model.asset.clone()));
    Ok(out)
}

pub fn guarantee(folder: &RunPaths) -> Result<Option<Value>> {
    let path = folder.guarantee();
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::data(format!("{} is damaged: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", &path, e)),
    }
}

impl Report {
    /// Whether the stage is done.
    pub fn is_done(&self, stage: Stage) -> bool {
        self.timings_s.contains_key(stage.name())
    }

    /// The report of the run in `folder` as it stands: nothing is locked or written, and another program may be at work.
    ///
    /// # Errors
    /// A file of the run is damaged.
    pub fn read(config: &RunConfig, folder: &RunPaths, ledgers: &Path) -> Result<Self> {
        let names = compare::done(folder, Some(config))?;
        let done: Vec<Stage> = Stage::ALL.into_iter().filter(|s| names.contains(&s.name())).collect();
        gather(config, folder, ledgers, &done)
    }
}

/// Gathers what is done and writes `report.json`.
pub fn write(config: &RunConfig, folder: &RunFolder, ledgers: &Path, done: &[Stage]) -> Result<Report> {
    let report = gather(config, folder, ledgers, done)?;
    let text = serde_json::to_string_pretty(&report).expect("a report serialises");
    write_atomically(&folder.report(), text.as_bytes())?;
    Ok(report)
}

fn gather(config: &RunConfig, folder: &RunPaths, ledgers: &Path, done: &[Stage]) -> Result<Report> {
    let mut timings_s = Map::new();
    let mut peak_rss_bytes = 0;
    for stage in done {
        if let Some(stamp) = Stamp::read(folder, *stage)? {
            timings_s.insert(stage.name().to_string(), stamp.seconds.into());
            peak_rss_bytes = peak_rss_bytes.max(stamp.peak_rss_bytes);
        }
    }
    let records = match done.contains(&Stage::Prepare) {
        true => {
            let p = Preparation::read(folder)?;
            let counts = |r: crate::records::ReadReport| Counts {
                read: r.read,
                kept: r.kept,
                dropped: r.dropped,
            };
            Some(Records {
                train: counts(p.train),
                test: counts(p.test),
                test_evaluated: p.test_kept,
                shared_texts: p.shared_texts,
                cut: p.cut,
            })
        }
        false => None,
    };
    let utility = match done.contains(&Stage::Evaluate) {
        true => evaluate::utility(folder)?,
        false => Utility::default(),
    };
    Ok(Report {
        run: folder.name().to_string(),
        classification: "internal",
        privacy: if done.contains(&Stage::Finetune) {
            guarantee(folder)?
        } else {
            None
        },
        utility: utility.rows,
        all_synthetic: utility.all_synthetic,
        size_curve: utility.size_curve,
        references: utility.references,
        sampling: if done.contains(&Stage::Sample) {
            sampling(folder)?
        } else {
            BTreeMap::new()
        },
        quality: if done.contains(&Stage::Evaluate) {
            quality::for_report(folder)?
        } else {
            None
        },
        records,
        ledger: if done.contains(&Stage::Finetune) {
            spent(folder, ledgers)?
        } else {
            None
        },
        timings_s,
        peak_rss_bytes,
        config_hash: stamp::sha256(stamp::text(config).as_bytes()),
        program_version: env!("CARGO_PKG_VERSION"),
    })
}

fn sampling(folder: &RunPaths) -> Result<BTreeMap<String, Value>> {
    let mut out = BTreeMap::new();
    for arm in ["synthetic", "zero_shot"] {
        // Runs of earlier versions of the program have none.
        let path = folder.sampled(arm);
        if path.exists() {
            out.insert(arm.to_string(), read_json(&path)?);
        }
    }
    Ok(out)
}

/// What the ledger of the run's dataset says; none where it is not on this machine.
fn spent(folder: &RunPaths, ledgers: &Path) -> Result<Option<Spent>> {
    let Some((path, view)) = find_ledger(ledgers, &Preparation::read(folder)?.dataset_hash)? else {
        return Ok(None);
    };
    Ok(Some(Spent {
        charged_epsilon: view.charged_epsilon()?,
        total_epsilon: view.total_epsilon,
        delta: view.delta,
        path,
    }))
}
