//! Results as text for a terminal.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use dpsynth::evaluation::UtilityRow;
use dpsynth::evaluation::metrics::Interval;
use dpsynth::pipeline::{Report, RunFolder};
use serde_json::Value;

/// The report: utility, guarantee, where things are.
pub fn report(report: &Report, folder: &RunFolder) -> String {
    let mut out = Vec::new();
    if !report.utility.is_empty() {
        out.push(utility(&report.utility).to_string());
    }
    if let Some(p) = &report.privacy {
        out.push(guarantee(p));
    }
    if let Some(r) = &report.records {
        let dropped: usize = r.train.dropped.values().sum();
        out.push(format!(
            "records: {} read, {} kept, {dropped} dropped; {} held out for evaluation; {} texts stand in both splits",
            r.train.read, r.train.kept, r.test_evaluated, r.shared_texts
        ));
    }
    if let Some(l) = &report.ledger {
        out.push(format!(
            "ledger: all runs on these records together epsilon {} of {} at delta {}: {}",
            up(l.charged_epsilon),
            l.total_epsilon,
            delta(l.delta),
            l.path.display()
        ));
    }
    let timings: Vec<String> = report
        .timings_s
        .iter()
        .map(|(stage, s)| format!("{stage} {:.0} s", s.as_f64().unwrap_or_default()))
        .collect();
    out.push(format!(
        "{}; peak memory {:.1} GB",
        timings.join(", "),
        report.peak_rss_bytes as f64 / 1e9
    ));
    let synthetic = folder.shards("synthetic");
    if synthetic.exists() {
        out.push(format!("synthetic records: {}", synthetic.display()));
    }
    out.push(format!("report: {}", folder.report().display()));
    out.join("\n")
}

fn utility(rows: &[UtilityRow]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "trained on",
        "classifier",
        "records",
        "accuracy (95 %)",
        "macro-F1 (95 %)",
    ]);
    // The arms of a classifier stand together: they are what is compared.
    let mut rows: Vec<&UtilityRow> = rows.iter().collect();
    rows.sort_by_key(|r| r.classifier as usize);
    for r in rows {
        table.add_row([
            r.arm.to_string(),
            r.classifier.to_string(),
            r.records.to_string(),
            interval(&r.accuracy),
            interval(&r.macro_f1),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn interval(i: &Interval) -> String {
    format!("{:.3} ({:.3}–{:.3})", i.mean, i.low, i.high)
}

/// Epsilon with everything without which it means nothing (P10).
fn guarantee(p: &Value) -> String {
    let number = |key: &str| p[key].as_f64().unwrap_or(f64::NAN);
    let text = |key: &str| p[key].as_str().unwrap_or("?").to_string();
    let mark = p["caveat"].as_str().map(|c| format!("{c}; ")).unwrap_or_default();
    format!(
        "{mark}epsilon {} (at least {}) at delta {}; adjacency {}, unit {}, sampler {}, accountant {}; noise multiplier {:.4}, sampling rate {:.5}, {} steps",
        up(number("epsilon")),
        down(number("epsilon_lower")),
        delta(number("delta")),
        text("adjacency"),
        text("unit"),
        text("sampler"),
        text("accountant"),
        number("noise_multiplier"),
        number("sampling_rate"),
        p["steps"]
    )
}

/// Three decimals, rounded up, so that no printed epsilon claims more than was computed.
pub fn up(value: f64) -> String {
    format!("{:.3}", (value * 1e3).ceil() / 1e3)
}

/// Three decimals, rounded down: for the lower end of the bracket.
pub fn down(value: f64) -> String {
    format!("{:.3}", (value * 1e3).floor() / 1e3)
}

/// Three digits, rounded up.
pub fn delta(value: f64) -> String {
    let unit = 10f64.powi(value.log10().floor() as i32 - 2);
    // A hair less, so that a value of three digits is not raised by its own rounding.
    format!("{:.2e}", (value / unit * (1.0 - 1e-12)).ceil() * unit)
}
