//! Results as text for a terminal.

use comfy_table::{ContentArrangement, Table};
use dpsynth::config::{RunConfig, Task};
use dpsynth::documents::{Report, Sampled};
use dpsynth::evaluation::metrics::Interval;
use dpsynth::evaluation::{Reference, UtilityRow};
use dpsynth::release::Class;
use dpsynth::run::keys::stages;
use dpsynth::run::{RunFolder, Stage};

use super::number::{delta, down, up};
use super::quality::{disclosures, quality};
use super::table::table;

/// Files that would leave: path, size, class, and why they may.
pub fn listing<'a>(files: impl Iterator<Item = (&'a str, u64, Class, &'static str)>) -> Table {
    let mut table = table(["file", "bytes", "class", "why it may leave"], 1..2);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(100);
    for (path, bytes, class, why) in files {
        table.add_row([path, &bytes.to_string(), class.name(), why]);
    }
    table
}

const QUALITY_OF_REAL: &str = "real: training records measured against held-out ones; for labels and shared words held-out records, for variety training records";

/// How many of an arm's records refinement kept; nothing where no record was refined.
fn kept(arm: &str, sampled: &Sampled) -> Option<String> {
    sampled.agreement?;
    let found = sampled.guidance.as_ref();
    let found = found
        .map(|found| match found.guidance > 0.0 {
            true => format!("; guided by {:.2}, which was found", found.guidance),
            false => "; not guided: none was found to help".to_string(),
        })
        .unwrap_or_default();
    Some(format!(
        "{}: {} of {} records kept, {} of {} drawn were dropped, {} relabelled{found}",
        arm.replace('_', "-"),
        sampled.kept,
        sampled.wanted,
        sampled.dropped,
        sampled.drawn,
        sampled.relabelled
    ))
}

/// What a dry run says where listing the files would spend.
pub fn gate_is_due(ui: &super::Ui) -> dpsynth::Result<()> {
    ui.print(
        "the run may leave as far as anything is known without counting; the copy gate has not counted yet, and a dry run does \
         not spend: without --dry-run it counts first, for the records as they are now",
    )
}

/// The report: utility, guarantee, where things are.
pub fn report(report: &Report, config: &RunConfig, folder: &RunFolder) -> String {
    let mut out = Vec::new();
    if !report.utility.is_empty() {
        out.push(utility(&report.utility, report.all_real.iter().chain(&report.all_synthetic)).to_string());
    }
    if !report.size_curve.is_empty() {
        out.push(size_curve(&report.size_curve).to_string());
    }
    let budget = match config.task {
        Task::Synthesise => BESIDE,
        Task::Classify => OWN,
    };
    out.extend(report.references.iter().map(|r| reference(r, budget)));
    if let Some(q) = &report.quality {
        out.push(quality(q).to_string());
        out.extend(disclosures(q).map(|table| table.to_string()));
        out.push(QUALITY_OF_REAL.into());
    }
    out.extend(report.sampling.iter().filter_map(|(arm, sampled)| kept(arm, sampled)));
    // A classifier's stands beside its score.
    if let Some(p) = report.privacy.as_ref().filter(|_| config.task == Task::Synthesise) {
        out.push(p.to_string());
    }
    if let Some(r) = &report.records {
        let dropped: usize = r.train.dropped.values().sum();
        out.push(format!(
            "records: {} read, {} kept, {dropped} dropped; {} held out for evaluation; {} texts are in both splits",
            r.train.read, r.train.kept, r.test_evaluated, r.shared_texts
        ));
    }
    if let Some(l) = &report.ledger {
        let left = l.counted_epsilon.map_or(String::new(), |counted| {
            format!(", {} left", down((l.total_epsilon - counted).max(0.0), 3))
        });
        out.push(format!(
            "ledger: all runs on these records have spent epsilon {} of {}{left}, at delta {}: {}",
            up(l.charged_epsilon, 3),
            l.total_epsilon,
            delta(l.delta, 2),
            l.path.display()
        ));
    }
    let timings: Vec<String> = report
        .timings_s
        .iter()
        .map(|(stage, s)| format!("{} {s:.0} s", stage.name()))
        .collect();
    out.push(format!(
        "{}; peak memory {:.1} GB",
        timings.join(", "),
        report.peak_rss_bytes as f64 / 1e9
    ));
    out.extend(to_look_at(report, config, folder));
    out.join("\n")
}

/// What a stage left that is worth looking at, and the command that comes next.
fn to_look_at(report: &Report, config: &RunConfig, folder: &RunFolder) -> Vec<String> {
    let run = folder.root().display();
    let done = |stage: Stage| report.is_done(stage);
    let mut out = Vec::new();
    if done(Stage::Sample) {
        out.push(format!("synthetic records: {}", folder.shards("synthetic").display()));
    }
    if has_page(report) {
        out.push(format!("report: {}", folder.report().display()));
        out.push(format!("page: {} (internal)", folder.page().display()));
    }
    match stages(config).into_iter().find(|stage| !done(*stage)) {
        Some(next) => out.push(format!(
            "next: dpsynth {} {run} (`dpsynth run {run}` does all that is left)",
            next.name()
        )),
        None if config.task == Task::Classify => out.push(format!(
            "classifier: {}\nnext: dpsynth predict {run} FILE --to OUT.parquet, which labels other texts",
            folder.direct("checkpoint.safetensors").display()
        )),
        None => out.push(format!("next: dpsynth audit {run}, which tries to break the claim")),
    }
    out
}

/// Whether the report has something to show yet: before training there are counts alone.
pub fn has_page(report: &Report) -> bool {
    report.is_done(Stage::Finetune)
}

fn utility<'a>(rows: &'a [UtilityRow], all: impl Iterator<Item = &'a UtilityRow>) -> Table {
    let header = [
        "trained on",
        "classifier",
        "records",
        "accuracy (95 %)",
        "macro-F1 (95 %)",
    ];
    let mut table = table(header, 2..);
    // The arms of a classifier stand together: they are what is compared.
    let named = rows
        .iter()
        .map(|r| (r.arm.to_string(), r, interval as fn(&Interval) -> String));
    let all = all.map(|r| {
        let cell: fn(&Interval) -> String = whole;
        (format!("all {}", r.arm), r, cell)
    });
    let mut rows: Vec<_> = named.chain(all).collect();
    rows.sort_by_key(|(_, r, _)| r.classifier as usize);
    for (name, r, cell) in rows {
        table.add_row([
            name,
            r.classifier.to_string(),
            r.records.to_string(),
            cell(&r.accuracy),
            cell(&r.macro_f1),
        ]);
    }
    table
}

/// Whose budget a reference spends.
pub const BESIDE: &str = "its own budget, besides the run's";

/// The same where the run trains nothing else.
pub const OWN: &str = "the run's own budget";

/// A classifier beside the arms, with its own guarantee (P10), of `budget`.
pub fn reference(r: &Reference, budget: &str) -> String {
    let own = r.privacy.as_ref().map(|p| format!("; {budget}: {p}"));
    format!(
        "{}: accuracy {:.3}, macro-F1 {:.3} on {} test records ({}{})",
        r.name,
        r.accuracy,
        r.macro_f1,
        r.test_records,
        r.what,
        own.unwrap_or_default()
    )
}

/// Accuracy of the linear classifier by number of records.
fn size_curve(rows: &[UtilityRow]) -> Table {
    let (mut arms, mut sizes) = (Vec::new(), Vec::new());
    for row in rows {
        if !arms.contains(&row.arm) {
            arms.push(row.arm);
        }
        if !sizes.contains(&row.records) {
            sizes.push(row.records);
        }
    }
    let mut header = vec!["records".to_string()];
    header.extend(arms.iter().map(|arm| format!("{arm}: linear, accuracy (95 %)")));
    let mut table = table(header, 0..);
    for size in sizes {
        let mut line = vec![size.to_string()];
        line.extend(arms.iter().map(|arm| {
            let row = rows.iter().find(|r| r.arm == *arm && r.records == size);
            row.map_or("–".into(), |r| interval(&r.accuracy))
        }));
        table.add_row(line);
    }
    table
}

/// A score of all there is. Of one fit: its interval is by the chance in the test records. Earlier versions fitted it with several
/// seeds, which take the same records: their spread says nothing.
pub fn whole(i: &Interval) -> String {
    match i.seeds {
        1 => format!("{}, one fit", interval(i)),
        _ => format!("{:.3} (one set)", i.mean),
    }
}

/// A score as `0.612 (0.600–0.624)`.
pub fn interval(i: &Interval) -> String {
    format!("{:.3} ({:.3}–{:.3})", i.mean, i.low, i.high)
}
