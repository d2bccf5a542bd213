//! A run's folder: who may write in it, and where everything stands.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::{Stage, stamp};
use crate::config::{self, DatasetConfig, ExtraArm, Profile, RunConfig, Task};
use crate::evaluation::ReferenceName;
use crate::files::write_atomically;
use crate::sampling::shards;
use crate::{Error, Result};

/// The arm that is trained without privacy.
pub const NON_PRIVATE: &str = "non_private";

/// Where everything stands in a run's folder: enough to read it.
pub struct RunPaths {
    root: PathBuf,
    name: String,
}

/// The folder of a run, locked as long as this value lives: its owner may write.
pub struct RunFolder {
    paths: RunPaths,
    _lock: File,
}

impl Deref for RunFolder {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

impl RunFolder {
    /// Opens or makes `<runs>/<name>-<profile>`.
    ///
    /// Sampling and evaluation may change between commands: they cost no privacy and their stages run again.
    ///
    /// # Errors
    /// Another program has it open, or its configuration trains something else.
    pub fn open(runs: &Path, config: &RunConfig, profile: Profile) -> Result<Self> {
        let name = format!("{}-{}", config.name, profile.name());
        let root = runs.join(&name);
        std::fs::create_dir_all(&root).map_err(|e| Error::io("make the run's folder", &root, e))?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).map_err(|e| Error::io("open", &lock_path, e))?;
        let mut locked = lock.try_lock();
        if let Err(std::fs::TryLockError::WouldBlock) = locked {
            // Perhaps only someone who looked ([`RunPaths::is_busy`]), for a moment.
            std::thread::sleep(std::time::Duration::from_millis(50));
            locked = lock.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(
                    Error::other(format!("another program is running in {}", root.display()))
                        .hint("wait for it, or give this run another name: --set name=another"),
                );
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(Error::io("lock", &lock_path, e)),
        }
        let folder = RunFolder {
            paths: RunPaths { root, name },
            _lock: lock,
        };
        folder.agree(config)?;
        Ok(folder)
    }

    /// Refuses a folder whose private part was configured otherwise; writes the resolved configuration.
    fn agree(&self, config: &RunConfig) -> Result<()> {
        let path = self.root.join("config.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        if let Some(text) = text {
            let earlier = config::resolved(&path, &text)?;
            let parts = |c: &RunConfig| {
                [
                    ("dataset", stamp::text(&trained_on(c))),
                    ("model", stamp::text(&c.model)),
                    ("prompt", stamp::text(&c.prompt.of_labels())),
                    ("prepare", stamp::text(&c.prepare)),
                    ("lexicon", stamp::text(&c.lexicon)),
                    ("finetune", stamp::text(&c.finetune)),
                    ("audit", stamp::text(&c.audit)),
                    ("task", stamp::text(&c.task)),
                ]
            };
            let differs: Vec<&str> = parts(&earlier)
                .iter()
                .zip(parts(config))
                .filter(|(a, b)| a.1 != b.1)
                .map(|(a, _)| a.0)
                .collect();
            // Until training begins there is nothing in the folder that another configuration could spoil.
            if !differs.is_empty() && self.is_training_begun() {
                return Err(Error::usage(format!(
                    "{} holds a run with another configuration: [{}] {}",
                    self.root.display(),
                    differs.join("], ["),
                    if differs.len() == 1 { "differs" } else { "differ" }
                ))
                .hint("give this run another name (--set name=another), or delete that folder; what it charged stays charged"));
            }
            if stamp::text(&earlier) == stamp::text(config) {
                return Ok(());
            }
        }
        let text = toml::to_string_pretty(config)
            .map_err(|e| Error::other(format!("the configuration cannot be written: {e}")))?;
        write_atomically(&path, text.as_bytes())
    }
}

impl RunPaths {
    /// Of the run in `root`, to look at it while another program may be at work there.
    pub fn of(root: &Path) -> Self {
        let full = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
        RunPaths {
            root: root.to_path_buf(),
            name: full.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Whether the ledger may know of the run: it has a name there, or something that was trained.
    pub fn is_training_begun(&self) -> bool {
        let of_model = [self.ledger_run(), self.checkpoint(), self.trained()];
        // A run of `dp_direct` that was planned and is not begun keeps nothing else.
        let of_classifier = [self.direct("settings.json"), self.direct("checkpoint.safetensors")];
        of_model.iter().chain(&of_classifier).any(|path| path.exists())
    }

    /// Whether a program is at work in the folder: it holds the lock as long as it lives.
    pub fn is_busy(&self) -> bool {
        let lock = File::open(self.root.join("lock"));
        // Let go of at once.
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
    }

    /// `<name>-<profile>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file of the reference `dp_direct`. Not an output of the evaluation: what is paid for is kept.
    pub fn direct(&self, file: &str) -> PathBuf {
        self.internal("dp_direct").join(file)
    }

    /// Where what reads private records is kept; never released (P9).
    pub fn internal(&self, file: &str) -> PathBuf {
        self.root.join("internal").join(file)
    }

    /// Cleaned training records.
    pub fn train_records(&self) -> PathBuf {
        self.internal("train.parquet")
    }

    /// Their tokens.
    pub fn tokens(&self) -> PathBuf {
        self.internal("tokens.arrow")
    }

    /// Cleaned test records.
    pub fn test_records(&self) -> PathBuf {
        self.internal("test.parquet")
    }

    /// Records that could have trained and did not, for the audit.
    pub fn audit_records(&self) -> PathBuf {
        self.internal("audit.parquet")
    }

    /// Which ones these are: drawn once.
    pub fn holdout_key(&self) -> PathBuf {
        self.internal("holdout-key")
    }

    /// What its rows and units are known by, sorted.
    pub fn rows(&self) -> PathBuf {
        self.internal("rows")
    }

    /// What came of reading, and the dataset's identity.
    pub fn preparation(&self) -> PathBuf {
        self.internal("prepare.json")
    }

    /// The run's name in the ledger.
    pub fn ledger_run(&self) -> PathBuf {
        self.internal("run-id")
    }

    /// Training state.
    pub fn checkpoint(&self) -> PathBuf {
        self.internal("checkpoint.safetensors")
    }

    /// The keys of who takes part in the steps that are left of a round, where batches are drawn by random allocation, and of
    /// noise that goes together over steps; gone once training is done.
    pub fn rounds(&self) -> PathBuf {
        self.internal("round.json")
    }

    /// The run's name in the ledger, for what comes of it.
    pub fn own_run(&self, task: Task) -> PathBuf {
        match task {
            Task::Synthesise => self.ledger_run(),
            Task::Classify => self.direct("run-id"),
        }
    }

    /// The guarantee of what comes of it.
    pub fn own_guarantee(&self, task: Task) -> PathBuf {
        match task {
            Task::Synthesise => self.guarantee(),
            Task::Classify => self.direct("privacy.json"),
        }
    }

    /// A line a step.
    pub fn training_log(&self) -> PathBuf {
        self.internal("training.jsonl")
    }

    /// What was trained: an adapter, or all weights.
    pub fn trained(&self) -> PathBuf {
        self.root.join("model").join("trained.safetensors")
    }

    /// What private training began with, where that was a warm start.
    pub fn warm_start(&self) -> PathBuf {
        self.root.join("model").join("warm_start.safetensors")
    }

    /// Its guarantee.
    pub fn guarantee(&self) -> PathBuf {
        self.root.join("model").join("privacy.json")
    }

    /// Noisy counts of tokens by label, where the plan has them: part of what may leave, like what was trained.
    pub fn lexicon(&self) -> PathBuf {
        self.root.join("model").join("lexicon.json")
    }

    /// The same of the labels themselves.
    pub fn label_counts(&self) -> PathBuf {
        self.root.join("model").join("label_counts.json")
    }

    /// A file of the arm `non_private`. Internal for good (P9).
    pub fn non_private(&self, file: &str) -> PathBuf {
        self.internal(NON_PRIVATE).join(file)
    }

    /// What the language model says of each test record.
    pub fn posterior(&self, name: ReferenceName) -> PathBuf {
        self.internal(&format!("{name}.jsonl"))
    }

    /// Where an arm's files stand. What is drawn without privacy never leaves `internal/`.
    fn of_arm(&self, arm: &str) -> PathBuf {
        match arm {
            NON_PRIVATE => self.non_private(""),
            _ => self.root.clone(),
        }
    }

    /// Records sampled so far for an arm, a line each.
    pub fn journal(&self, arm: &str) -> PathBuf {
        self.of_arm(arm).join("work").join(format!("{arm}.jsonl"))
    }

    /// Their scores so far, a line each.
    pub fn score_journal(&self, arm: &str) -> PathBuf {
        self.of_arm(arm).join("work").join(format!("{arm}-scores.jsonl"))
    }

    /// What was drawn to try `what` (`guidance 2`, say) for an arm, and its scores, a line each.
    pub fn pilot_journals(&self, arm: &str, what: &str) -> [PathBuf; 2] {
        let of = |kind: &str| format!("{}-{kind}.jsonl", what.replace(' ', "-"));
        ["drawn", "scores"].map(|kind| self.pilots(arm).join(of(kind)))
    }

    /// Where those of an arm stand.
    fn pilots(&self, arm: &str) -> PathBuf {
        self.of_arm(arm).join("work").join(format!("{arm}-guidance"))
    }

    /// What came of sampling an arm: how many were drawn, kept, dropped, and how well labels show.
    pub fn sampled(&self, arm: &str) -> PathBuf {
        self.of_arm(arm).join("sampling").join(format!("{arm}.json"))
    }

    /// How much likelier private records are to have the lexicon's tokens than drawn ones, where that lifts them.
    pub fn domain(&self) -> PathBuf {
        self.root.join("sampling").join("domain.json")
    }

    /// What the copy gate counted, where the plan has one: drawn once, with the charge.
    pub fn copy_gate(&self) -> PathBuf {
        self.root.join("sampling").join("copy_gate.json")
    }

    /// A folder of Parquet shards.
    pub fn shards(&self, arm: &str) -> PathBuf {
        self.of_arm(arm).join(arm)
    }

    /// Scores of the classifiers that are trained so far, a line each.
    pub fn scores(&self) -> PathBuf {
        self.internal("scores.jsonl")
    }

    /// The table of the evaluation.
    pub fn utility(&self) -> PathBuf {
        self.internal("utility.json")
    }

    /// What the records are like.
    pub fn quality(&self) -> PathBuf {
        self.internal("quality.json")
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.json")
    }

    /// The report as a page to look at. Internal, as the report is (P9).
    pub fn page(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The page that may leave.
    pub fn public_page(&self) -> PathBuf {
        self.root.join("report-public.html")
    }

    /// What the audit found. Internal (P9).
    pub fn audit(&self) -> PathBuf {
        self.internal("audit.json")
    }

    /// The stamp of a stage.
    pub fn stamp(&self, stage: Stage) -> PathBuf {
        self.internal("stamps").join(format!("{}.json", stage.name()))
    }

    /// What is there when a stage is done; of the references only what `config` asks for, where it can be read.
    pub fn results(&self, stage: Stage, config: Option<&RunConfig>) -> Vec<PathBuf> {
        match stage {
            Stage::Prepare => vec![self.train_records(), self.test_records(), self.preparation()],
            Stage::Finetune => vec![self.trained(), self.guarantee()],
            Stage::Sample => vec![self.shards("synthetic"), self.shards("zero_shot")],
            Stage::References => {
                let asks = |arm| config.is_some_and(|c| c.evaluate.asks(arm));
                let direct = asks(ExtraArm::DpDirect).then(|| self.direct("privacy.json"));
                let non_private = asks(ExtraArm::NonPrivate).then(|| self.shards(NON_PRIVATE));
                direct.into_iter().chain(non_private).collect()
            }
            Stage::Evaluate if config.is_some_and(|c| c.task == Task::Classify) => vec![self.utility()],
            Stage::Evaluate => vec![self.utility(), self.quality()],
        }
    }

    /// The files of a stage that others read, as far as they are there.
    ///
    /// # Errors
    /// Other: a folder of shards cannot be read.
    pub fn written(&self, stage: Stage) -> Result<Vec<PathBuf>> {
        let mut out = match stage {
            Stage::Prepare => self.outputs(stage),
            Stage::Finetune => vec![self.trained(), self.guarantee(), self.label_counts(), self.lexicon()],
            Stage::Sample => vec![self.sampled("synthetic"), self.sampled("zero_shot"), self.domain()],
            Stage::References | Stage::Evaluate => Vec::new(),
        };
        if stage == Stage::Sample {
            for arm in ["synthetic", "zero_shot"] {
                out.extend(shards::files(&self.shards(arm))?);
            }
        }
        out.retain(|path| path.exists());
        Ok(out)
    }

    /// Whether `stage` reads a file of an earlier one, by its path in the folder: drawing records reads no private one.
    pub fn is_read_by(stage: Stage, file: &str) -> bool {
        stage != Stage::Sample || !file.starts_with("internal/") || file == "internal/prepare.json"
    }

    /// What a stage writes, besides its stamp.
    pub fn outputs(&self, stage: Stage) -> Vec<PathBuf> {
        match stage {
            Stage::Prepare => {
                vec![
                    self.train_records(),
                    self.tokens(),
                    self.test_records(),
                    self.rows(),
                    self.audit_records(),
                    self.preparation(),
                ]
            }
            Stage::Finetune => {
                vec![
                    self.ledger_run(),
                    self.checkpoint(),
                    self.rounds(),
                    self.training_log(),
                    self.warm_start(),
                    self.label_counts(),
                    self.lexicon(),
                    self.copy_gate(),
                    self.trained(),
                    self.guarantee(),
                    self.internal(NON_PRIVATE),
                ]
            }
            Stage::Sample => ["synthetic", "zero_shot", NON_PRIVATE]
                .iter()
                .flat_map(|a| {
                    [
                        self.pilots(a),
                        self.journal(a),
                        self.score_journal(a),
                        self.sampled(a),
                        self.shards(a),
                    ]
                })
                .chain([self.domain()])
                .collect(),
            // What was paid for is kept, and the other knows by itself whether it is what is asked for.
            Stage::References => Vec::new(),
            Stage::Evaluate => {
                let posteriors = [ReferenceName::ModelPosterior, ReferenceName::ZeroShotPosterior];
                let mut out = vec![self.scores(), self.utility(), self.quality()];
                out.extend(posteriors.map(|name| self.posterior(name)));
                out
            }
        }
    }
}

/// The dataset as far as it decides what is trained: the budget is the ledger's matter.
pub fn trained_on(config: &RunConfig) -> DatasetConfig {
    DatasetConfig {
        total_epsilon: None,
        ..config.dataset.clone()
    }
}
