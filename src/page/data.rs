//! What the internal page is made of, read from a run's folder. All of it is internal (P9).

use std::path::{Path, PathBuf};

use super::charts::Series;
use super::texts::Arm;
use crate::Result;
use crate::config::RunConfig;
use crate::documents::{self, Findings, Lexicon, Report, StepLog};
use crate::evaluation::{ArmConfusion, Example, GroupRow, Utility};
use crate::privacy::{LedgerView, find_ledger};
use crate::records::{LabelSpace, Record};
use crate::run::Preparation;
use crate::run::compare::{SideBySide, compare};
use crate::run::{NON_PRIVATE, RunPaths, Stage, lexicon_of, privacy_plan, results, table};

/// Points of a training curve: each asks the accountant.
const POINTS: usize = 48;
/// Runs that are read beside this one.
const SIBLINGS: usize = 40;

/// Everything there is of a run.
pub struct Data<'a> {
    pub config: &'a RunConfig,
    pub report: &'a Report,
    pub labels: LabelSpace,
    /// Training, synthetic and zero-shot records, as far as they are there.
    pub arms: Vec<Arm>,
    /// Real records that nothing was trained on.
    pub held_out: Vec<Example>,
    pub confusions: Vec<ArmConfusion>,
    /// Scores in parts of the test records.
    pub groups: Vec<GroupRow>,
    /// `model/lexicon.json`.
    pub lexicon: Option<Lexicon>,
    pub steps: Vec<Step>,
    /// Steps in the log.
    pub logged: usize,
    /// `internal/audit.json`.
    pub audit: Option<Findings>,
    pub ledger: Option<LedgerView>,
    /// Runs on the same records in the same folder of runs, this one among them.
    pub siblings: Option<SideBySide>,
    pub ledger_run: Option<String>,
}

/// A training step.
pub struct Step {
    /// Steps charged when it ended.
    pub charged: u64,
    /// Spent by then; none where the accountant cannot say.
    pub epsilon: Option<f64>,
    pub mean_loss: Option<f64>,
    pub mean_norm: Option<f64>,
    pub drawn: usize,
}

impl<'a> Data<'a> {
    /// Reads what the report says is done.
    ///
    /// # Errors
    /// A file of the run is damaged.
    pub fn read(paths: &RunPaths, config: &'a RunConfig, report: &'a Report, ledgers: &Path) -> Result<Self> {
        let labels = LabelSpace::from_config(&config.dataset.labels)?;
        let done = |stage: Stage| report.is_done(stage);
        let mut arms = Vec::new();
        let mut held_out = Vec::new();
        if done(Stage::Prepare) {
            arms.push(Arm {
                series: Series::Real,
                examples: examples(table::read_records(&paths.train_records())?),
            });
            held_out = examples(table::read_records(&paths.test_records())?);
        }
        if done(Stage::Sample) {
            for (series, arm) in [
                (Series::Synthetic, "synthetic"),
                (Series::ZeroShot, "zero_shot"),
                (Series::NonPrivate, NON_PRIVATE),
            ] {
                let shards = paths.shards(arm);
                if shards.exists() {
                    let examples = examples(table::read_shards(&shards, config)?);
                    arms.push(Arm { series, examples });
                }
            }
        }
        let (steps, logged) = match done(Stage::Finetune) {
            true => training(paths, config),
            false => (Vec::new(), 0),
        };
        let preparation = done(Stage::Prepare).then(|| Preparation::read(paths)).transpose()?;
        let utility = match done(Stage::Evaluate) {
            true => results::utility(paths)?,
            false => Utility::default(),
        };
        Ok(Data {
            arms,
            held_out,
            confusions: utility.confusions,
            groups: utility.groups,
            steps,
            logged,
            lexicon: lexicon_of(paths, config)?,
            audit: documents::read_if_there(&paths.audit())?,
            // A ledger that does not verify is said by the commands that spend from it.
            ledger: match &preparation {
                Some(p) => find_ledger(ledgers, &p.ledger()).ok().flatten().map(|(_, view)| view),
                None => None,
            },
            siblings: preparation.and_then(|p| siblings(paths, &p.dataset_hash)),
            ledger_run: std::fs::read_to_string(paths.ledger_run())
                .ok()
                .map(|id| id.trim().to_string()),
            config,
            report,
            labels,
        })
    }

    /// The records of an arm.
    pub fn arm(&self, series: Series) -> Option<&[Example]> {
        let arm = self.arms.iter().find(|a| a.series == series)?;
        Some(&arm.examples)
    }
}

fn examples(records: Vec<Record>) -> Vec<Example> {
    let of = |r: Record| Example {
        text: r.text,
        label: r.label,
    };
    records.into_iter().map(of).collect()
}

/// Some of the logged steps with what was spent by then, and how many are logged.
fn training(paths: &RunPaths, config: &RunConfig) -> (Vec<Step>, usize) {
    let logged = StepLog::lines(&paths.training_log());
    let plan = privacy_plan(config).ok();
    let last = logged.len().saturating_sub(1);
    let chosen = (0..logged.len()).filter(|i| {
        let points = POINTS.min(logged.len());
        *i == last || i * points % logged.len() < points
    });
    let steps = chosen.map(|i| {
        let step = &logged[i];
        let charged = step.charge + 1;
        Step {
            charged,
            epsilon: plan.as_ref().and_then(|p| p.epsilon_after(charged).ok()),
            mean_loss: step.mean_loss,
            mean_norm: step.mean_norm,
            drawn: step.drawn,
        }
    });
    (steps.collect(), logged.len())
}

/// Runs in the same folder on the same records; none where this is the only one. What cannot be read is left out.
fn siblings(paths: &RunPaths, dataset_hash: &str) -> Option<SideBySide> {
    let root = std::path::absolute(paths.root()).ok()?;
    let listing = std::fs::read_dir(root.parent()?).ok()?;
    let mut folders: Vec<PathBuf> = listing.filter_map(|e| Some(e.ok()?.path())).collect();
    let same = |folder: &Path| Preparation::read(&RunPaths::of(folder)).is_ok_and(|p| p.dataset_hash == dataset_hash);
    folders.retain(|f| *f != root && f.join("config.toml").exists() && same(f));
    folders.sort();
    folders.truncate(SIBLINGS);
    folders.retain(|f| compare(std::slice::from_ref(f)).is_ok());
    if folders.is_empty() {
        return None;
    }
    folders.push(root);
    compare(&folders).ok()
}
