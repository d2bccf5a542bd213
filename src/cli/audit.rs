//! `dpsynth audit`: tries to break a run's privacy claim.

use std::path::PathBuf;

use clap::Args;
use comfy_table::Table;
use dpsynth::audit::{self, Findings, Settings, Verdict};
use dpsynth::config::{Profile, RunConfig};
use dpsynth::documents::Rate;
use dpsynth::progress::Progress;
use dpsynth::run::{Places, RunFolder, report};
use dpsynth::{Error, Result, page};

use super::Ui;
use super::number::{down, up};
use super::run::{ProfileName, Which, interrupts};
use super::table::table;

/// Tries to break a run's own privacy claim: replays, canaries, membership inference
///
/// Prints the claim, what each attack found, and a verdict. A refuted claim ends with exit code 4, and so does an attack
/// that reads private records and found more than is claimed. The findings are kept in the run's `internal/audit.json`:
/// most are computed from private records, and they are not for release. Nothing is charged to the dataset's ledger.
#[derive(Args)]
pub struct Audit {
    /// A run's folder, such as runs/imdb-quick, or its pipeline's TOML file
    run: PathBuf,
    /// Which run of a TOML file [default: full with a GPU, else quick]
    #[arg(long, value_enum)]
    profile: Option<ProfileName>,
    /// Overrides a value of a TOML file, as it was given to `dpsynth run`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Folder of local datasets
    #[arg(long, value_name = "DIR", env = "DPSYNTH_DATA", default_value = "data")]
    data_dir: PathBuf,
    /// Where the runs of a TOML file are kept
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Trains once more with this many canary records, and attacks some by their losses and others through text that the new
    /// model writes (--retrain alone: 512)
    #[arg(long, value_name = "CANARIES", num_args = 0..=1, require_equals = true, default_missing_value = "512", value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    retrain: Option<u32>,
    /// Dirac canaries [default: as many as run in a few seconds, at most 8 million]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=100_000_000))]
    canaries: Option<u32>,
    /// About how long the replay may take; at least one micro-batch for each core is tried
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    replay_seconds: u32,
    /// Prints the findings as one JSON object
    #[arg(long)]
    json: bool,
}

impl Audit {
    /// Audits the run and shows the findings, whatever the verdict.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let (config, profile, runs) = self.find()?;
        let name = format!("{}-{}", config.name, profile.name());
        if !runs.join(&name).is_dir() {
            return Err(
                Error::usage(format!("there is no run in {}", runs.join(&name).display()))
                    .hint("`dpsynth run` makes it; `--runs-dir` and `--profile` tell which one is meant"),
            );
        }
        let places = Places::from_env(&runs)?;
        let folder = RunFolder::open(&places.runs, &config, profile)?;
        let audit = audit::Audit {
            config: &config,
            folder: &folder,
            places: &places,
            settings: Settings {
                replay_seconds: f64::from(self.replay_seconds),
                canaries: self.canaries.map(|n| n as usize),
                retrain: self.retrain.map(|n| n as usize),
            },
            stop: interrupts()?,
            progress: ui,
        };
        let findings = audit.run()?;
        let page = report::read(&config, &folder, &places.ledgers)
            .and_then(|report| page::write_internal(&folder, &config, &report, &places.ledgers));
        let printed = if self.json {
            ui.note(&format!("page: {} (internal)", folder.page().display()));
            ui.print_json(&findings)
        } else {
            ui.print(&format!(
                "{}\nfindings: {}\npage: {} (internal)",
                text(&findings),
                audit.path().display(),
                folder.page().display()
            ))
        };
        // A refuted claim is told whether or not the findings could be printed.
        findings.require_pass().and(printed).and(page.map(drop))
    }

    /// The configuration, profile and folder of runs that `RUN` names.
    fn find(&self) -> Result<(RunConfig, Profile, PathBuf)> {
        let is_toml = || std::fs::read_to_string(&self.run).is_ok_and(|text| text.parse::<toml::Table>().is_ok());
        if !self.run.is_dir() && self.run.extension().is_none_or(|e| e != "toml") && !is_toml() {
            let run = self.run.display();
            return Err(Error::usage(match self.run.exists() {
                true => format!("{run} is neither a run's folder nor a TOML file"),
                false => format!("there is no run {run}"),
            })
            .hint("name a folder such as runs/imdb-quick, or a pipeline such as pipelines/imdb.toml"));
        }
        let which = Which {
            config: self.run.clone(),
            profile: self.profile,
            overrides: self.overrides.clone(),
            disjoint: false,
            research: false,
            data_dir: self.data_dir.clone(),
        };
        which.find(&self.runs_dir)
    }
}

fn text(f: &Findings) -> String {
    let mut out = vec![
        format!("claimed: {}", f.claim),
        bounds(f).to_string(),
        replay(f),
        canaries(f),
    ];
    if let Some(t) = &f.trainer {
        out.insert(
            3,
            format!(
                "training loop: {} steps of {} units, beside what the mechanism released: {}",
                t.steps,
                t.drawn,
                match t.same {
                    true => "the same values".to_string(),
                    false => format!("a value differs by {:e}", t.largest_difference),
                }
            ),
        );
    }
    out.extend(f.redraws.iter().map(|r| {
        format!(
            "{}: {} of {} records that were drawn again came out the same; {} of {} stand in no journal",
            r.arm.replace('_', "-"),
            r.same,
            r.drawn_again,
            r.not_drawn,
            r.records
        )
    }));
    if let Some(l) = &f.losses {
        out.push(format!(
            "losses: {} canary records of {} tokens; mean drop {:.4} where trained on, {:.4} where not",
            l.canaries, l.tokens, l.mean_drop_included, l.mean_drop_excluded
        ));
    }
    for e in f.echo.iter().flat_map(|echo| &echo.at) {
        out.push(format!(
            "echo: of {} canaries that stood {} in the data or not, synthetic text told AUC {:.3} ({:.3}–{:.3}) by trigrams, {:.3} ({:.3}–{:.3}) by an auxiliary model{}",
            e.canaries,
            match e.repetitions {
                1 => "once".to_string(),
                times => format!("{times} times"),
            },
            e.trigrams.value,
            e.trigrams.low,
            e.trigrams.high,
            e.auxiliary_model.value,
            e.auxiliary_model.low,
            e.auxiliary_model.high,
            e.similarity.map_or(String::new(), |auc| format!(
                ", {:.3} ({:.3}–{:.3}) by the nearest record",
                auc.value, auc.low, auc.high
            ))
        ));
    }
    if let Some(m) = &f.membership {
        out.push(format!(
            "membership: AUC {:.3} ({:.3}–{:.3}), blind {:.3} ({:.3}–{:.3}), on {} training records and as many that never trained{}",
            m.auc.value,
            m.auc.low,
            m.auc.high,
            m.blind_auc.value,
            m.blind_auc.low,
            m.blind_auc.high,
            m.records,
            (m.at.iter())
                .map(|a| format!(
                    "; threshold for {} % false positives: {} true, {} false",
                    100.0 * a.false_positive_rate,
                    rate(&a.true_positives),
                    rate(&a.false_positives)
                ))
                .collect::<String>()
        ));
    }
    if let Some(c) = &f.contamination {
        out.push(format!("contamination: {c}"));
    }
    out.extend(f.notes.iter().map(|n| format!("note: {n}")));
    out.push(match f.verdict {
        Verdict::Pass => format!(
            "verdict: pass (no attack refuted epsilon {}; the largest lower bound is {}, with {:.0} % confidence and under the \
             assumptions above)",
            up(f.claim.epsilon, 3),
            down(f.epsilon_lower(), 3),
            100.0 * f.confidence
        ),
        Verdict::Advice => format!(
            "verdict: advice (an attack that reads private records found more than is claimed): {}",
            f.advice.join("; ")
        ),
        Verdict::Fail => format!("verdict: FAIL: {}", f.refutations()),
    });
    out.join("\n")
}

fn bounds(f: &Findings) -> Table {
    let header = [
        "attack".to_string(),
        format!("epsilon at least ({:.0} %)", 100.0 * f.confidence),
        "of the claim".to_string(),
        "rests on".to_string(),
    ];
    let mut table = table(header, 1..3);
    for b in &f.lower_bounds {
        table.add_row([
            b.attack.to_string(),
            down(b.epsilon_lower, 3),
            format!("{:.0} %", 100.0 * b.epsilon_lower / f.claim.epsilon),
            b.rests_on.to_string(),
        ]);
    }
    table
}

fn replay(f: &Findings) -> String {
    let r = &f.replay;
    let (exceeded, within) = (r.worst_ratio - 1.0, |so: bool| if so { "within" } else { "BEYOND" });
    format!(
        "replay: {} records added to batches of {}: the clipped sum moved by at most C·(1 {} {:.1e}), what others contribute by {:.1e}·C; {} the 1e-6 of P5, {} the {:e} that is charged",
        r.probes.len(),
        r.batch,
        if exceeded < 0.0 { "-" } else { "+" },
        exceeded.abs(),
        r.worst_others.unwrap_or_default(),
        within(r.within_p5),
        within(r.within_charge),
        r.charged_allowance
    )
}

fn canaries(f: &Findings) -> String {
    let c = &f.canaries;
    let runs: String = (c.one_run.iter())
        .map(|o| {
            format!(
                "; {} of {} guesses right with {} canaries (true positives {}, false {})",
                o.correct,
                o.guesses,
                o.canaries,
                rate(&o.true_positives),
                rate(&o.false_positives)
            )
        })
        .collect();
    format!("canaries: {} over {} steps{runs}", c.canaries, c.claimed.steps)
}

fn rate(r: &Rate) -> String {
    format!("{:.4} ({:.4}–{:.4})", r.rate, r.low, r.high)
}
