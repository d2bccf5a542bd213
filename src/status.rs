//! How far a run is, what it has spent and what comes next, by what stands in its folder.
//!
//! Nothing is written or computed anew, and no lock is kept: a run may be unfinished, at work, damaged, or of an earlier
//! version of the program. Internal, since an audit's verdict comes from private records (P9).

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;

use crate::audit::Subject;
use crate::config::{RunConfig, Task};
use crate::documents::{self, Findings, Verdict};
use crate::privacy::{Guarantee, TRAINING, find_ledger};
use crate::run::Preparation;
use crate::run::compare::configuration;
use crate::run::states::{State, states};
use crate::run::{RunPaths, Stage, report, run_in};
use crate::{Error, Result};

/// How far a run is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The folder's name.
    pub run: String,
    pub folder: PathBuf,
    /// "internal": not for release.
    pub classification: &'static str,
    /// Every stage in order.
    pub stages: Vec<StageStatus>,
    /// The guarantee of what was trained, whole (P10); none before training is done.
    pub privacy: Option<Guarantee>,
    /// What training has charged so far; none before the first step, and once training is done.
    pub charged: Option<Charged>,
    /// What comes of it.
    pub task: Task,
    /// None where there was no audit.
    pub audit: Option<Audited>,
    /// Whether another program is at work in the folder.
    pub at_work: bool,
    pub next: Next,
    /// What could not be read, a sentence each.
    pub problems: Vec<String>,
}

/// How far a stage is.
#[derive(Clone, Debug, Serialize)]
pub struct StageStatus {
    pub stage: &'static str,
    #[serde(flatten)]
    pub state: State,
    /// What its stamp says; none where it has none.
    pub stamp: Option<Stamped>,
}

/// A stamp, as far as a person reads it.
#[derive(Clone, Debug, Serialize)]
pub struct Stamped {
    /// SHA-256 of everything the stage depends on.
    pub key: String,
    /// Wall time over all attempts that ended in order.
    pub seconds: f64,
    /// Peak memory of the process when the stage ended; 0 where the system did not say.
    pub peak_rss_bytes: u64,
    /// When it was written, in seconds since 1970.
    pub at_unix_s: Option<u64>,
}

/// What a run's training has charged so far, with everything without which epsilon means nothing (P10).
#[derive(Clone, Debug, Serialize)]
pub struct Charged {
    pub steps: u64,
    pub planned_steps: u64,
    /// Of the charged steps, at `delta`.
    pub epsilon: f64,
    /// Of the whole plan, as configured; none where the configuration cannot be read.
    pub planned_epsilon: Option<f64>,
    pub delta: f64,
    pub adjacency: &'static str,
    pub unit: String,
    pub sampler: String,
    pub accountant: &'static str,
    /// False where the randomness comes from a fixed seed: then nothing is guaranteed.
    pub private: bool,
    /// False where its training has no proof: then it is NOT A DP GUARANTEE.
    pub proven: bool,
}

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
pub struct Audited {
    pub verdict: Verdict,
    /// Whether it was of the files and the claim that stand there now.
    pub current: bool,
}

/// What to do next.
#[derive(Clone, Debug, Serialize)]
pub struct Next {
    pub what: String,
    /// Ready for a shell; none where there is nothing to do, or it is not known.
    pub command: Option<String>,
}

/// How far the run in `folder` is; `ledgers` is where ledgers are kept.
///
/// # Errors
/// Usage: the folder holds no run. What is damaged is no error: it stands in [`Status::problems`].
pub fn status(folder: &Path, ledgers: &Path) -> Result<Status> {
    if !is_run(folder) {
        return Err(Error::usage(format!("{} is not the folder of a run", folder.display()))
            .hint("name a folder such as runs/imdb-quick; without one, `dpsynth status` lists the runs in ./runs"));
    }
    let paths = RunPaths::of(folder);
    let mut problems = Problems(Vec::new());
    let config = problems.note(configuration(folder)).and_then(|(.., config)| config);
    if config.is_none() && problems.0.is_empty() {
        problems.0.push(format!(
            "{} was written by another version of the program",
            folder.join("config.toml").display()
        ));
    }
    // Before the stamps: a stage that ends in between is not taken for one that was stopped.
    let at_work = paths.is_busy();
    let stages = problems.note(states(&paths, config.as_ref())).unwrap_or_default();
    let is_done = |stage: Stage| stages.iter().any(|(s, state, _)| *s == stage && *state == State::Done);
    for (stage, state, _) in &stages {
        if *state == State::NotBegun && paths.stamp(*stage).exists() {
            problems.0.push(format!(
                "{} is damaged: the stage runs again",
                paths.stamp(*stage).display()
            ));
        }
    }
    let task = config.as_ref().map_or(Task::default(), |c| c.task);
    let trained = is_done(report::trains(task));
    let privacy = problems.note(report::own_guarantee(&paths, task)).flatten();
    let privacy = privacy.filter(|_| trained);
    let charged = match !trained && paths.own_run(task).exists() {
        true => problems.note(charged(&paths, config.as_ref(), ledgers)).flatten(),
        false => None,
    };
    let audit = match trained && paths.internal("audit.json").exists() {
        true => problems.note(audited(&paths, privacy.as_ref())),
        false => None,
    };
    let stages: Vec<StageStatus> = stages
        .into_iter()
        .map(|(stage, state, stamp)| StageStatus {
            stage: stage.name(),
            state,
            stamp: stamp.map(|s| Stamped {
                key: s.key,
                seconds: s.seconds,
                peak_rss_bytes: s.peak_rss_bytes,
                at_unix_s: modified(&paths.stamp(stage)),
            }),
        })
        .collect();
    let mut out = Status {
        run: paths.name().to_string(),
        folder: folder.to_path_buf(),
        classification: "internal",
        task,
        stages,
        privacy,
        charged,
        audit,
        at_work,
        next: Next {
            what: String::new(),
            command: None,
        },
        problems: problems.0,
    };
    out.next = next(&out);
    Ok(out)
}

/// Every run in `runs`, in order of name; none where there is no such folder.
///
/// # Errors
/// The folder cannot be read.
pub fn list(runs: &Path, ledgers: &Path) -> Result<Vec<Status>> {
    let entries = match std::fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", runs, e)),
    };
    let mut folders = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<Vec<PathBuf>>>()
        .map_err(|e| Error::io("read", runs, e))?;
    folders.retain(|f| is_run(f));
    folders.sort();
    folders.iter().map(|f| status(f, ledgers)).collect()
}

/// Whether it is a run's, finished or not.
fn is_run(folder: &Path) -> bool {
    folder.join("config.toml").is_file() || folder.join("internal").is_dir()
}

impl Status {
    /// The first stage that is not done; none where all are.
    pub fn open_stage(&self) -> Option<&StageStatus> {
        self.stages.iter().find(|s| s.state != State::Done)
    }

    /// Whether this stage is being worked on.
    pub fn is_running(&self, stage: &StageStatus) -> bool {
        let open = self.open_stage().map(|s| s.stage);
        self.at_work && stage.state == State::Begun && open == Some(stage.stage)
    }

    /// Whether what was trained is private, as far as its guarantee says.
    fn is_private(&self) -> bool {
        self.privacy.as_ref().is_some_and(|p| p.private)
    }
}

/// Gathers what went wrong, so that the rest is still shown.
struct Problems(Vec<String>);

impl Problems {
    fn note<T>(&mut self, outcome: Result<T>) -> Option<T> {
        outcome.map_err(|e| self.0.push(e.to_string())).ok()
    }
}

fn modified(path: &Path) -> Option<u64> {
    let at = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// What the ledger says of a run that is not trained yet; none before it is entered there.
fn charged(paths: &RunPaths, config: Option<&RunConfig>, ledgers: &Path) -> Result<Option<Charged>> {
    let path = paths.own_run(config.map_or(Task::default(), |c| c.task));
    let id = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let Some((_, view)) = find_ledger(ledgers, &Preparation::read(paths)?.ledger())? else {
        return Err(Error::data(format!(
            "the ledger of the run's dataset is not in {}: what was charged is not known",
            ledgers.display()
        )));
    };
    let Some(run) = view.runs.iter().find(|r| r.run == id.trim()) else {
        return Ok(None);
    };
    let p = &run.parameters;
    Ok(Some(Charged {
        steps: run.charged_steps(),
        planned_steps: p.times(TRAINING.name()),
        epsilon: run.epsilon()?,
        planned_epsilon: config.map(|c| c.finetune.epsilon),
        delta: p.delta,
        adjacency: "add-or-remove-one",
        unit: view.unit.clone(),
        sampler: p.sampler(),
        accountant: "pld",
        private: p.private,
        proven: p.unproven().is_none(),
    }))
}

fn audited(paths: &RunPaths, privacy: Option<&Guarantee>) -> Result<Audited> {
    let found: Findings = documents::read(&paths.audit())?;
    let claimed = privacy.is_some_and(|p| (p.epsilon, p.delta) == (found.claim.epsilon, found.claim.delta));
    Ok(Audited {
        current: claimed && found.subject == Some(Subject::of(paths)?),
        verdict: found.verdict,
    })
}

fn next(s: &Status) -> Next {
    let folder = quoted(&s.folder);
    let audit = |what: &str| Next {
        what: what.into(),
        command: Some(format!("dpsynth audit {folder}")),
    };
    let nothing = |what: &str| Next {
        what: what.into(),
        command: None,
    };
    match (s.open_stage(), &s.audit) {
        (open, _) if s.at_work => nothing(match open {
            Some(_) => "wait: another program is at work here",
            None => "wait: another program is at work here (an audit or a release)",
        }),
        _ if s.stages.is_empty() => nothing("give the run its stamps back, or delete its folder"),
        (Some(_), _) => Next {
            what: format!("go on: {}", missing(s)),
            // Not where another version of the program wrote the configuration, or the folder was renamed.
            command: run_in(&s.folder).ok().map(|_| format!("dpsynth run {folder}")),
        },
        (None, _) if !s.is_private() => nothing("nothing may leave: NOT PRIVATE"),
        (None, _) if s.task == Task::Classify => Next {
            what: "a classifier is trained, its score is in report.json: it labels other texts".into(),
            command: Some(format!("dpsynth predict {folder} FILE --to OUT.parquet")),
        },
        (None, None) => audit("try to break the run's own claim"),
        (None, Some(a)) if !a.current => audit("the audit was of other files: audit again"),
        (None, Some(a)) if a.verdict == Verdict::Fail => audit(
            "the audit refuted the claim (internal/audit.json): a second one tells whether a canary bound was chance",
        ),
        (None, Some(a)) if a.verdict == Verdict::Advice => audit(
            "an attack found more than is claimed (internal/audit.json): a second audit, before you publish, tells whether it was chance",
        ),
        (None, Some(_)) => Next {
            what: "hand it out: the records, or with `dpsynth export` the model".into(),
            command: Some(format!("dpsynth release {folder} --to DIR --dry-run")),
        },
    }
}

fn missing(s: &Status) -> String {
    let open = s.stages.iter().filter(|s| s.state != State::Done).map(|s| s.stage);
    open.collect::<Vec<_>>().join(", ")
}

/// As a shell reads it.
fn quoted(path: &Path) -> String {
    let text = match path.to_string_lossy() {
        empty if empty.is_empty() => ".".into(),
        text => text,
    };
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%~".contains(c);
    match text.chars().all(plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
