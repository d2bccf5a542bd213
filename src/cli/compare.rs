//! `dpsynth compare`: several runs side by side.

use std::path::PathBuf;

use clap::Args;
use dpsynth::Result;
use dpsynth::evaluation::metrics::Interval;
use dpsynth::evaluation::{ArmName, Classifier, UtilityRow};
use dpsynth::run::compare::{Gap, SideBySide, Standing, compare};
use serde_json::Value;

use super::number::{delta, up};
use super::table::table;
use super::{Ui, show};

/// Shows runs side by side: guarantee against accuracy, and the settings in which they differ
///
/// Runs are sorted by epsilon. An unfinished run is shown as far as it got. Scores are computed from private records:
/// what this prints is not for release.
#[derive(Args)]
pub struct Compare {
    /// Folders of runs, such as runs/imdb-quick
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Prints everything as one JSON object
    #[arg(long)]
    json: bool,
}

impl Compare {
    /// Reads the runs and shows them.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let compared = compare(&self.runs)?;
        match self.json {
            true => ui.print_json(&compared),
            false => ui.print(&text(&compared)),
        }
    }
}

fn text(c: &SideBySide) -> String {
    let mut out = vec![scores(&c.runs).to_string()];
    for run in &c.runs {
        let budget = match run.utility.rows.is_empty() {
            true => show::OWN,
            false => show::BESIDE,
        };
        let references = run.utility.references.iter();
        out.extend(references.map(|r| format!("{}: {}", run.run, show::reference(r, budget))));
    }
    if !c.differing.is_empty() {
        out.push(format!("settings that differ:\n{}", settings(c)));
    }
    for run in &c.runs {
        if let Some(caveat) = run.privacy.as_ref().and_then(|p| p.caveat.as_ref()) {
            out.push(format!("caveat: {}: {caveat}", run.run));
        }
    }
    out.extend(c.warnings.iter().map(|w| format!("warning: {w}")));
    out.join("\n")
}

/// A column of scores: an arm at equal sizes, or with all it has.
#[derive(Clone, Copy, PartialEq)]
enum Column {
    Arm(ArmName),
    AllSynthetic,
}

impl Column {
    fn of(self, run: &Standing, classifier: Classifier) -> Option<&UtilityRow> {
        let (rows, arm) = match self {
            Column::Arm(arm) => (&run.utility.rows, arm),
            Column::AllSynthetic => (&run.utility.all_synthetic, ArmName::Synthetic),
        };
        rows.iter().find(|r| r.arm == arm && r.classifier == classifier)
    }
}

fn scores(runs: &[Standing]) -> comfy_table::Table {
    let mut columns: Vec<Column> = Vec::new();
    for row in runs.iter().flat_map(|r| &r.utility.rows) {
        if !columns.contains(&Column::Arm(row.arm)) {
            columns.push(Column::Arm(row.arm));
        }
    }
    if runs.iter().any(|r| !r.utility.all_synthetic.is_empty()) {
        columns.push(Column::AllSynthetic);
    }
    let mut header: Vec<String> = ["run, config", "guarantee", "classifier", "records", "score (95 %)"]
        .map(String::from)
        .into();
    header.extend(columns.iter().map(|c| match c {
        Column::Arm(arm) => arm.to_string(),
        Column::AllSynthetic => "all synthetic".into(),
    }));
    header.push("real − synthetic".into());
    let mut table = table(header, 5..);
    for run in runs {
        let of_run = [
            format!("{}\n{}", run.run, run.config_hash.chars().take(12).collect::<String>()),
            guarantee(run),
        ];
        let mut lead = of_run.clone();
        for classifier in [Classifier::Linear, Classifier::Encoder] {
            let rows: Vec<Option<&UtilityRow>> = columns.iter().map(|c| c.of(run, classifier)).collect();
            let Some(first) = rows.iter().flatten().next() else {
                continue;
            };
            let mut line = lead.to_vec();
            // Said once a run.
            lead = [String::new(), String::new()];
            line.extend([
                classifier.to_string(),
                format!("{}\ntest {}", first.records, first.test_records),
                "accuracy\nmacro-F1".into(),
            ]);
            for (column, row) in columns.iter().zip(rows) {
                line.push(match (column, row) {
                    (_, None) => "–".into(),
                    (Column::Arm(_), Some(r)) => {
                        format!("{}\n{}", show::interval(&r.accuracy), show::interval(&r.macro_f1))
                    }
                    (Column::AllSynthetic, Some(r)) => format!(
                        "{}\n{}\n{} records",
                        show::whole(&r.accuracy),
                        show::whole(&r.macro_f1),
                        r.records
                    ),
                });
            }
            let gap = run.gaps.iter().find(|g| g.classifier == classifier);
            line.push(gap.map_or("–".into(), gap_cell));
            table.add_row(line);
        }
        if run.utility.rows.is_empty() {
            let mut line = of_run.to_vec();
            line.push(match run.done.last() {
                Some(_) if !run.utility.references.is_empty() => "a classifier: below".into(),
                Some(stage) => format!("not evaluated; done: {stage}"),
                None => "nothing done yet".into(),
            });
            table.add_row(line);
        }
    }
    table
}

fn gap_cell(gap: &Gap) -> String {
    let signed = |i: &Interval| format!("{:+.3} ({:+.3} to {:+.3})", i.mean, i.low, i.high);
    format!("{}\n{}", signed(&gap.accuracy), signed(&gap.macro_f1))
}

/// Epsilon with everything without which it means nothing (P10).
fn guarantee(run: &Standing) -> String {
    let Some(p) = &run.privacy else {
        return "not trained yet".into();
    };
    let mark = p.mark();
    format!(
        "{mark}epsilon {} at delta {}\nadjacency {}\nunit {}\nsampler {}\naccountant {}",
        up(p.epsilon, 3),
        delta(p.delta, 2),
        p.adjacency,
        p.unit,
        p.sampler,
        p.accountant
    )
}

fn settings(c: &SideBySide) -> comfy_table::Table {
    let mut header = vec!["setting".to_string()];
    header.extend(c.runs.iter().map(|r| r.run.clone()));
    let mut table = table(header, 1..);
    for key in &c.differing {
        let mut line = vec![key.clone()];
        line.extend(c.runs.iter().map(|r| match r.settings.get(key) {
            Some(Some(Value::String(text))) => text.clone(),
            Some(Some(value)) => value.to_string(),
            _ => "–".into(),
        }));
        table.add_row(line);
    }
    table
}
