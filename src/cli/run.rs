//! `dpsynth run` and the stages by name.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use dpsynth::config::{self, Profile, RunConfig, Task};
use dpsynth::models::device;
use dpsynth::page;
use dpsynth::pipeline::Pipeline;
use dpsynth::progress::Progress;
use dpsynth::run::risk::within_risk;
use dpsynth::run::{Places, Stage, run_in};
use dpsynth::{Error, Result};

use super::{Ui, show};

/// Which run: shared by every command that takes a configuration.
#[derive(Args)]
pub struct Which {
    /// A TOML file, such as pipelines/imdb.toml, or a run's folder, such as runs/imdb-quick, to go on as it was begun
    pub(super) config: PathBuf,
    /// How much work: `quick` takes minutes on two CPU cores, `overnight` hours, `full` is for a GPU [default: full with a GPU, else quick]
    #[arg(long, value_enum)]
    pub(super) profile: Option<ProfileName>,
    /// Overrides a value of the configuration, such as `finetune.epsilon=3`; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Declares that nobody in the dataset is in another one: `--set dataset.disjoint=true`
    #[arg(long)]
    pub(super) disjoint: bool,
    /// Allows methods without a proof: the run is NOT A DP GUARANTEE, and nothing of it can be released: `--set research=true`
    #[arg(long)]
    pub(super) research: bool,
    /// Folder of local datasets
    #[arg(long, value_name = "DIR", env = "DPSYNTH_DATA", default_value = "data")]
    pub(super) data_dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ProfileName {
    Quick,
    Overnight,
    Full,
}

impl Which {
    /// The resolved configuration.
    pub fn load(&self) -> Result<(RunConfig, Profile)> {
        self.find(Path::new("")).map(|(config, profile, _)| (config, profile))
    }

    /// Tokens of the longest text that is worth looking at: what the file declares beside its profiles.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn longest_text(&self) -> Result<usize> {
        if self.config.is_dir() {
            let (config, ..) = run_in(&self.config)?;
            let drawn = config.sample.max_tokens.unwrap_or_default();
            return Ok(config.prepare.max_tokens.max(drawn));
        }
        // The profile that leaves lengths alone.
        let config = config::load(&self.config, Profile::Full, &self.overrides(), &self.data_dir)?;
        Ok(config.prepare.max_tokens)
    }

    /// What `--set` says, and the flags that stand for it.
    fn overrides(&self) -> Vec<String> {
        let flags = [
            (self.disjoint, "dataset.disjoint=true"),
            (self.research, "research=true"),
        ];
        let given = flags.into_iter().filter(|(given, _)| *given);
        let flags = given.map(|(_, setting)| setting.to_string());
        self.overrides.iter().cloned().chain(flags).collect()
    }

    /// The resolved configuration, and the folder of runs: a run's folder stands in its own, a TOML file's are in `runs`.
    pub fn find(&self, runs: &Path) -> Result<(RunConfig, Profile, PathBuf)> {
        if self.config.is_dir() {
            if self.profile.is_some() || self.disjoint || self.research || !self.overrides.is_empty() {
                return Err(Error::usage(
                    "a run's folder says all there is: `--profile`, `--set`, `--disjoint` and `--research` go with a TOML file",
                )
                .hint(format!("leave them out: {}", self.config.display())));
            }
            return run_in(&self.config);
        }
        let profile = match self.profile {
            Some(ProfileName::Quick) => Profile::Quick,
            Some(ProfileName::Overnight) => Profile::Overnight,
            Some(ProfileName::Full) => Profile::Full,
            None if device::has_cuda() => Profile::Full,
            None => Profile::Quick,
        };
        let config = config::load(&self.config, profile, &self.overrides(), &self.data_dir)?;
        Ok((within_risk(config)?, profile, runs.to_path_buf()))
    }
}

/// Runs every stage: prepare, finetune, sample, references, evaluate, report.
///
/// Stages that are done are kept; a run that was stopped or killed goes on from where it was.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

/// One stage of a run; the stages before it must be done.
#[derive(Args)]
pub struct OneStage {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Output {
    /// Runs are kept here, a folder each
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Prints the report as one JSON object
    #[arg(long)]
    json: bool,
}

impl Run {
    /// Runs every stage and shows the report.
    pub fn run(self, ui: &Ui) -> Result<()> {
        with_pipeline(&self.which, &self.output, ui, |p| p.run_until(Stage::Evaluate))
    }
}

impl OneStage {
    /// Runs `stage` and shows what is known so far.
    pub fn run(self, stage: Stage, ui: &Ui) -> Result<()> {
        with_pipeline(&self.which, &self.output, ui, |p| p.run_only(stage))
    }
}

fn with_pipeline(which: &Which, output: &Output, ui: &Ui, work: impl FnOnce(&Pipeline) -> Result<()>) -> Result<()> {
    let (config, profile, runs) = which.find(&output.runs_dir)?;
    let places = Places::from_env(&runs)?;
    let pipeline = Pipeline::open(config, profile, &places, interrupts()?, ui)?;
    let outcome = work(&pipeline);
    let report = pipeline.report();
    // A classifier has no page: what there is to see is a line.
    let draws = pipeline.config().task == Task::Synthesise;
    let page = report
        .as_ref()
        .ok()
        .filter(|_| draws)
        .map(|report| page::write_internal(pipeline.folder(), pipeline.config(), report, &places.ledgers));
    outcome?;
    let report = report?;
    if let Some(Err(e)) = page {
        // The page is for looking: what came of hours of work stands without it.
        ui.note(&format!("warning: the page was not written: {e}"));
    }
    if output.json {
        if show::has_page(&report) {
            ui.note(&format!("page: {} (internal)", pipeline.folder().page().display()));
        }
        ui.print_json(&report)
    } else {
        ui.print(&show::report(&report, pipeline.config(), pipeline.folder()))
    }
}

/// Set by the first Ctrl-C (or SIGTERM); the second ends the program at once.
pub fn interrupts() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    static HANDLER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        let _ = writeln!(
            std::io::stderr(),
            "stopping at the next safe point; once more to stop at once"
        );
    };
    let set = HANDLER.get_or_init(|| ctrlc::set_handler(handler).map_err(|e| e.to_string()));
    set.clone()
        .map_err(|e| Error::other(format!("cannot listen for Ctrl-C: {e}")))?;
    Ok(&STOP)
}
