//! Parts that both pages have.

use serde_json::Value;

use super::charts::Series;
use super::guarantee::Guarantee;
use super::view::{Block, Table};

/// The guarantee, a row each term.
pub fn terms(guarantee: &Guarantee) -> Table {
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

/// What came of drawing each arm: a table of the arms, and one by label where records were refined.
pub fn sampling<'a>(arms: impl Iterator<Item = (Series, &'a Value)>) -> Vec<Block> {
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
    let count = |v: &Value, key: &str| v[key].as_u64().map_or("–".into(), |n| n.to_string());
    let number = |v: &Value, decimals: usize| v.as_f64().map_or("–".into(), |p| format!("{p:.decimals$}"));
    for (series, sampled) in arms {
        whole.rows.push(vec![
            series.name().into(),
            count(sampled, "wanted"),
            count(sampled, "drawn"),
            count(sampled, "kept"),
            count(sampled, "dropped"),
            count(sampled, "relabelled"),
            number(&sampled["mean_posterior"], 3),
            number(&sampled["guidance"]["guidance"], 2),
        ]);
        for label in sampled["labels"].as_array().into_iter().flatten() {
            by_label.rows.push(vec![
                label["name"].as_str().unwrap_or("?").into(),
                series.name().into(),
                count(label, "wanted"),
                count(label, "drawn"),
                count(label, "kept"),
                count(label, "dropped"),
            ]);
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
