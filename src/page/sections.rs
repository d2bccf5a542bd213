//! Parts that both pages have.

use super::charts::Series;
use super::guarantee::ShownGuarantee;
use super::view::{Block, Table};
use crate::documents::Sampled;

/// The guarantee, a row each term.
pub fn terms(guarantee: &ShownGuarantee) -> Table {
    let mark = if guarantee.private { "" } else { "NOT PRIVATE: " };
    let mut table = Table::new("The guarantee in full", &["term", "value"], 2);
    table
        .rows
        .push(vec!["epsilon".into(), format!("{mark}{}", guarantee.epsilon)]);
    let rest = guarantee
        .terms
        .iter()
        .map(|(term, value)| vec![(*term).to_string(), value.clone()]);
    table.rows.extend(rest);
    table
}

/// Settings, a row each.
pub fn settings<K: ToString>(settings: &[(K, String)]) -> Table {
    let mut table = Table::new("Settings", &["setting", "value"], 2);
    let rows = settings.iter().map(|(key, value)| vec![key.to_string(), value.clone()]);
    table.rows.extend(rows);
    table
}

/// How many records of each arm were drawn and kept: a table of the arms, and one by label where records were refined.
pub fn sampling<'a>(arms: impl Iterator<Item = (Series, &'a Sampled)>) -> Vec<Block> {
    let mut whole = Table::new(
        "Records drawn, kept and dropped",
        &[
            "",
            "wanted",
            "drawn",
            "kept",
            "dropped",
            "relabelled",
            "mean posterior",
            "guidance found",
        ],
        1,
    );
    let mut by_label = Table::new(
        "The same by label",
        &["label", "arm", "wanted", "drawn", "kept", "dropped"],
        2,
    );
    let number = |v: Option<f64>, decimals: usize| v.map_or("–".into(), |p| format!("{p:.decimals$}"));
    for (series, sampled) in arms {
        let counts = [
            sampled.wanted,
            sampled.drawn,
            sampled.kept,
            sampled.dropped,
            sampled.relabelled,
        ];
        let mut row = vec![series.name().to_string()];
        row.extend(counts.map(|n| n.to_string()));
        row.push(number(sampled.mean_posterior, 3));
        row.push(number(sampled.guidance.as_ref().map(|found| found.guidance), 2));
        whole.rows.push(row);
        for label in &sampled.labels {
            let mut row = vec![label.name.clone(), series.name().into()];
            row.extend([label.wanted, label.drawn, label.kept, label.dropped].map(|n| n.to_string()));
            by_label.rows.push(row);
        }
    }
    if whole.rows.is_empty() {
        return Vec::new();
    }
    let mut out = vec![Block::Table {
        table: whole,
        note: Some("Dropped records did not show their label well enough to the model that wrote them. Drawing costs no privacy.".into()),
        folded: false,
    }];
    if !by_label.rows.is_empty() {
        // Labels beside each other, arm by arm within.
        by_label.rows.sort_by(|a, b| a[0].cmp(&b[0]));
        out.push(Block::Table {
            table: by_label,
            note: None,
            folded: true,
        });
    }
    out
}
