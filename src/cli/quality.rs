//! What records are like, as a table of the terminal.

use comfy_table::Table;
use dpsynth::evaluation::quality::disclosures::CameBack;
use dpsynth::evaluation::quality::{Compared, Quality};

use super::table::table;

/// A row a measure: synthetic, zero-shot, and its real reference.
pub fn quality(q: &Quality) -> Table {
    let mut table = table(["measured", "synthetic", "zero-shot", "real"], 1..);
    let mut row = |name: &str, values: [String; 3]| {
        table.add_row(std::iter::once(name.to_string()).chain(values));
    };
    if let Some(c) = &q.label_fidelity {
        row("label agreement", each(c, |f| number(Some(f.agreement))));
    }
    if let Some(c) = &q.lengths {
        row("words, median", each(c, |l| format!("{:.0}", l.quantiles[2])));
        row("length distance in words", each(c, |l| format!("{:.1}", l.wasserstein)));
    }
    if let Some(c) = &q.divergence {
        row("word divergence", each(c, |d| number(d.unigrams)));
        row("word pair divergence", each(c, |d| number(d.bigrams)));
    }
    if let Some(c) = &q.meaning {
        row("MAUVE", each(c, |m| number(m.mauve.map(|m| m.plain))));
        row("MAUVE, smoothed", each(c, |m| number(m.mauve.map(|m| m.smoothed))));
        row("Fréchet distance", each(c, |m| number(m.frechet)));
    }
    if let Some(c) = &q.variety {
        for n in 1..=3 {
            row(&format!("distinct-{n}"), each(c, |v| number(v.distinct[n - 1])));
        }
        row("near duplicates", each(c, |v| number(Some(v.near_duplicates))));
    }
    if let Some(m) = &q.memorisation {
        let c = &m.spans;
        let share = format!("share {} words or more with a training record", m.limit);
        row(&share, each(c, |s| number(Some(s.share_over_limit()))));
        row("most words in a row shared", each(c, |s| s.longest.to_string()));
        row("copies of a training record", each(c, |s| s.exact_copies.to_string()));
    }
    table
}

/// What one real record alone has and a synthetic one has too; none where it is not looked at yet.
pub fn disclosures(q: &Quality) -> Option<Table> {
    let all = q.disclosures.as_ref()?;
    let header = [
        "of one real record alone (internal)",
        "training",
        "came back",
        "held out",
        "came back",
        "p",
    ];
    let mut table = table(header, 1..);
    for d in all {
        let share = |of: &CameBack| format!("{} ({:.2} %)", of.came_back, 100.0 * of.share());
        table.add_row([
            d.kind.name().to_string(),
            d.training.strings.to_string(),
            share(&d.training),
            d.held_out.strings.to_string(),
            share(&d.held_out),
            format!("{:.3}", d.p_value),
        ]);
    }
    Some(table)
}

fn each<T>(compared: &Compared<T>, show: impl Fn(&T) -> String) -> [String; 3] {
    compared.each().map(show)
}

fn number(value: Option<f64>) -> String {
    value.map_or("–".into(), |v| format!("{v:.3}"))
}
