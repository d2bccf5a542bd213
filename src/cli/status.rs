//! `dpsynth status`: how far a run is.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueHint};
use dpsynth::Result;
use dpsynth::config::Task;
use dpsynth::privacy::mark;
use dpsynth::run::Places;
use dpsynth::run::states::State;
use dpsynth::status::{self, Charged, StageStatus, Stamped, Status};

use super::Ui;
use super::number::{delta, up};
use super::table::table;

/// Shows how far a run is: its stages, what it has spent, and the command that comes next
///
/// Without RUN a line for each run. Read-only: works on running, unfinished, damaged and
/// old runs. An audit's verdict comes from private records: what this prints is not for release.
#[derive(Args)]
pub struct StatusOf {
    /// A run's folder, such as runs/imdb-quick [default: every run in the folder of runs]
    #[arg(value_hint = ValueHint::DirPath)]
    run: Option<PathBuf>,
    /// Where the runs are, without RUN
    #[arg(long, value_name = "DIR", default_value = "runs", value_hint = ValueHint::DirPath)]
    runs_dir: PathBuf,
    /// Prints one JSON object; without RUN a list of them
    #[arg(long)]
    json: bool,
}

impl StatusOf {
    /// Looks and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let ledgers = Places::from_env(&self.runs_dir)?.ledgers;
        if let Some(run) = &self.run {
            let status = status::status(run, &ledgers)?;
            return match self.json {
                true => ui.print_json(&status),
                false => ui.print(&whole(&status)),
            };
        }
        let all = status::list(&self.runs_dir, &ledgers)?;
        match (self.json, all.is_empty()) {
            (true, _) => ui.print_json(&all),
            (false, false) => ui.print(&lines(&all)),
            (false, true) => ui.print(&format!(
                "no runs in {} yet: `dpsynth run pipelines/imdb.toml` makes one",
                self.runs_dir.display()
            )),
        }
    }
}

fn whole(s: &Status) -> String {
    let mut out = vec![("run", format!("{} ({})", s.run, s.folder.display()))];
    out.extend(s.stages.iter().map(|stage| (stage.stage, of_stage(s, stage))));
    if let Some(privacy) = &s.privacy {
        out.push(("guarantee", privacy.to_string()));
    }
    out.extend(s.charged.as_ref().map(|c| ("charged", charged(c))));
    if s.task == Task::Synthesise {
        out.push(("audit", audit(s)));
    }
    if s.at_work {
        out.push(("at work", "another program has the folder".into()));
    }
    out.push((
        "next",
        match &s.next.command {
            Some(command) => format!("{}: {command}", s.next.what),
            None => s.next.what.clone(),
        },
    ));
    out.extend(s.problems.iter().map(|p| ("problem", p.clone())));
    let lines = out.iter().map(|(name, value)| format!("{name:<10} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn of_stage(s: &Status, stage: &StageStatus) -> String {
    let state = match &stage.state {
        State::Done => "done".to_string(),
        State::Begun if s.is_running(stage) => "running".to_string(),
        State::Begun => "begun, not ended".to_string(),
        State::Stale(why) => format!("stale: {why}"),
        State::NotBegun => "not begun".to_string(),
    };
    match (&stage.state, &stage.stamp) {
        (State::Done | State::Stale(_), Some(stamp)) => format!("{state}; {}", stamped(stamp)),
        (State::Begun, Some(stamp)) => format!("{state}; key {}", short(&stamp.key)),
        _ => state,
    }
}

fn stamped(stamp: &Stamped) -> String {
    let ago = |at: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        match now.saturating_sub(at) {
            s @ 0..60 => format!(", {s} s ago"),
            s @ 60..7200 => format!(", {} min ago", s / 60),
            s @ 7200..172_800 => format!(", {} h ago", s / 3600),
            s => format!(", {} days ago", s / 86_400),
        }
    };
    format!(
        "{:.0} s, {:.1} GB, key {}{}",
        stamp.seconds,
        stamp.peak_rss_bytes as f64 / 1e9,
        short(&stamp.key),
        stamp.at_unix_s.map(ago).unwrap_or_default()
    )
}

/// The first digits.
fn short(key: &str) -> String {
    key.chars().take(12).collect()
}

/// Epsilon with everything without which it means nothing (P10).
fn charged(c: &Charged) -> String {
    let why = match (c.private, c.proven) {
        (false, _) => ": the randomness comes from a fixed seed; ",
        (true, false) => ": training has no proof; ",
        (true, true) => "",
    };
    let mark = mark(c.private, c.proven).trim_end();
    let planned = c.planned_epsilon.map(|e| format!(" of {e}")).unwrap_or_default();
    format!(
        "{mark}{why}{} of {} steps; epsilon {}{planned} so far at delta {}; adjacency {}, unit {}, sampler {}, accountant {}",
        c.steps,
        c.planned_steps,
        up(c.epsilon, 3),
        delta(c.delta, 2),
        c.adjacency,
        c.unit,
        c.sampler,
        c.accountant
    )
}

fn audit(s: &Status) -> String {
    match &s.audit {
        None => "not audited".into(),
        Some(a) if a.current => a.verdict.to_string(),
        Some(a) => format!("{}, of files or a claim that have changed since", a.verdict),
    }
}

/// A line a run; epsilon with everything without which it means nothing (P10).
fn lines(all: &[Status]) -> String {
    let header = [
        "run",
        "stages",
        "epsilon",
        "delta",
        "adjacency",
        "unit",
        "sampler",
        "accountant",
        "audit",
    ];
    let mut table = table(header, 2..4);
    for s in all {
        let mut row = vec![s.run.clone(), progress(s)];
        row.extend(match (&s.privacy, &s.charged) {
            (Some(p), _) => [
                format!("{}{}", p.mark(), up(p.epsilon, 3)),
                delta(p.delta, 2),
                p.adjacency.clone(),
                p.unit.clone(),
                p.sampler.clone(),
                p.accountant.clone(),
            ],
            (None, Some(c)) => [
                format!("{}{} so far", mark(c.private, c.proven), up(c.epsilon, 3)),
                delta(c.delta, 2),
                c.adjacency.into(),
                c.unit.clone(),
                c.sampler.clone(),
                c.accountant.into(),
            ],
            (None, None) => [const { String::new() }; 6],
        });
        row.push(match (&s.audit, s.problems.is_empty()) {
            (_, false) => "damaged".into(),
            (None, true) => String::new(),
            (Some(a), true) if a.current => a.verdict.to_string(),
            (Some(a), true) => format!("{} (outdated)", a.verdict),
        });
        table.add_row(row);
    }
    table.to_string()
}

fn progress(s: &Status) -> String {
    let at_work = if s.at_work { ", at work" } else { "" };
    match s.open_stage() {
        None if s.stages.is_empty() => "unknown".into(),
        None => format!("all done{at_work}"),
        Some(open) => {
            let state = match &open.state {
                State::Begun if s.is_running(open) => "running",
                State::Begun => "not ended",
                State::Stale(_) => "stale",
                State::Done | State::NotBegun => "not begun",
            };
            let steps = match (&s.charged, open.stage) {
                (Some(c), "finetune") => format!(" {}/{}", c.steps, c.planned_steps),
                _ => String::new(),
            };
            format!("{} {state}{steps}", open.stage)
        }
    }
}
