//! `dpsynth report`: a run as a page to look at.

use std::path::{Path, PathBuf};

use clap::Args;
use dpsynth::files::write_atomically;
use dpsynth::page::{self, PublicFacts};
use dpsynth::release::examine;
use dpsynth::run::keys::stages;
use dpsynth::run::run_in;
use dpsynth::run::{Places, RunPaths, Stage, report};
use dpsynth::{Error, Result};
use serde_json::json;

use super::Ui;

/// Writes a run as one HTML page: what it guarantees, what its records are worth, and the records themselves
///
/// The page needs no network and no script. It is internal: it shows scores, losses and some private records. With
/// --public it holds only what may leave: the guarantee, declared settings, and synthetic and zero-shot records; it is
/// refused (exit code 4) where `dpsynth release` would refuse. An
/// unfinished run is shown as far as it got; a run at work is not disturbed.
#[derive(Args)]
pub struct MakeReport {
    /// A run's folder, such as runs/imdb-quick
    run: PathBuf,
    /// Only what may leave
    #[arg(long)]
    public: bool,
    /// Where to write it [default: RUN/report.html, with --public RUN/report-public.html]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Prints what was written as one JSON object
    #[arg(long)]
    json: bool,
}

impl MakeReport {
    /// Writes the page and says where.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let (config, _, runs) = run_in(&self.run)?;
        config.require_records()?;
        let (paths, places) = (RunPaths::of(&self.run), Places::from_env(&runs)?);
        let report = report::read(&config, &paths, &places.ledgers)?;
        let html = match self.public {
            // What may leave is decided where releases are.
            true => page::public(&PublicFacts::of(examine(&self.run, &places)?.clear()?.facts())?)?,
            false => page::internal(&paths, &config, &report, &places.ledgers)?,
        };
        let to = self.to.unwrap_or_else(|| match self.public {
            true => paths.public_page(),
            false => paths.page(),
        });
        if to.is_dir() {
            return Err(Error::usage(format!("{} is a folder", to.display()))
                .hint(format!("name a file: --to {}", to.join("report.html").display())));
        }
        let beside = to
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if !beside.is_dir() {
            return Err(Error::usage(format!("there is no folder {}", beside.display())).hint("make it first"));
        }
        let beside = std::fs::canonicalize(beside).map_err(|e| Error::io("find", beside, e))?;
        if beside
            .ancestors()
            .any(|above| above.join("SHA256SUMS").exists() && above.join("manifest.json").exists())
        {
            return Err(Error::usage(format!("{} holds a bundle", beside.display()))
                .hint("its report.html was made with it; write this one elsewhere"));
        }
        write_atomically(&to, html.as_bytes())?;
        let (done, missing): (Vec<Stage>, Vec<Stage>) = stages(&config).into_iter().partition(|s| report.is_done(*s));
        if self.json {
            return ui.print_json(&json!({
                "run": report.run,
                "page": to,
                "classification": if self.public { "public" } else { "internal" },
                "bytes": html.len(),
                "done": done.iter().map(|s| s.name()).collect::<Vec<_>>(),
                "missing": missing.iter().map(|s| s.name()).collect::<Vec<_>>(),
            }));
        }
        ui.print(&said(&to, self.public, &missing))
    }
}

fn said(to: &Path, public: bool, missing: &[Stage]) -> String {
    let what = match public {
        true => "public: only what may leave",
        false => "internal: it reads private records and shows some",
    };
    let mut out = format!("{} ({what})", to.display());
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.iter().map(|s| s.name()).collect();
        out.push_str(&format!("\nstill to do: {}", missing.join(", ")));
    }
    out
}
