//! The dataset card: a README with a YAML header as the Hugging Face hub reads it (huggingface.co/docs/hub/datasets-cards).

use serde_json::{Map, Value, json};

use super::records::{Look, Records};
use super::{template, yaml};
use crate::facts::Facts;
use crate::facts::wording;
use crate::{Result, documents};

/// The card of a release.
///
/// # Errors
/// Other: the template does not render, which its test would have shown.
pub fn render(facts: &Facts, records: &Records) -> Result<String> {
    let release = &facts.config.release;
    template::render(
        include_str!("templates/card.md"),
        &json!({
                "header": yaml::text(&header(facts, records))?,
                "title": facts.title(),
                "description": facts.description(),
                "deployer": release.deployer,
                "contact": release.contact,
                "looks": &records.looks,
                "rows": rows(&records.looks.synthetic, records.looks.zero_shot.as_ref()),
                "columns": &records.columns,
                "attacks": wording::attacks(facts.attacks()?, &facts.unit()),
                "plain": wording::plain("This dataset", &facts.unit(), &facts.guarantee),
                "sentence": facts.guarantee.to_string(),
                "guarantee": &facts.guarantee,
                "parameters": documents::texts(&facts.guarantee),
                "neighbours": wording::neighbours(&facts.unit()),
                "declared": wording::declared(facts.config.dataset.public_size, &facts.guarantee),
                "trust": wording::TRUST,
                "outside": wording::OUTSIDE,
                "composition": facts.composed.as_ref().map(wording::composition),
                "base": &facts.base_model,
                "making": wording::making(facts),
                "limits": wording::limits(facts),
                "withheld": wording::WITHHELD,
                "contamination": wording::CONTAMINATION,
                "version": facts.program_version,
        }),
    )
}

fn header(facts: &Facts, records: &Records) -> Value {
    let release = &facts.config.release;
    let mut header = Map::new();
    let mut set = |key: &str, value: Value| header.insert(key.to_string(), value);
    set("license", json!(release.license));
    if !release.language.is_empty() {
        set("language", json!(release.language));
    }
    set("pretty_name", json!(facts.title()));
    set("size_categories", json!([size(records.looks.records)]));
    set("task_categories", json!(["text-classification", "text-generation"]));
    set("annotations_creators", json!(["machine-generated"]));
    set("language_creators", json!(["machine-generated"]));
    set("tags", json!(["synthetic", "differential-privacy", "dpsynth"]));
    set(
        "configs",
        json!([{ "config_name": "default", "data_files": [{ "split": "train", "path": "data/*.parquet" }] }]),
    );
    Value::Object(header)
}

/// The hub's classes of sizes.
fn size(records: usize) -> &'static str {
    match records {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        10_000_000..100_000_000 => "10M<n<100M",
        _ => "100M<n<1B",
    }
}

/// The table of looks: name, synthetic, zero-shot.
fn rows(synthetic: &Look, zero_shot: Option<&Look>) -> Vec<[String; 3]> {
    let row = |name: &str, cell: &dyn Fn(&Look) -> Option<String>| {
        let shown = |look: Option<&Look>| look.and_then(cell).unwrap_or_else(|| "–".into());
        [name.to_string(), shown(Some(synthetic)), shown(zero_shot)]
    };
    let share = |value: Option<f64>| value.map(|v| format!("{v:.3}"));
    vec![
        row("records", &|l| Some(l.records.to_string())),
        row("words a record, mean", &|l| Some(format!("{:.1}", l.mean_words))),
        row("words a record, 5 % / 50 % / 95 %", &|l| {
            let [low, middle, high] = l.quantiles;
            Some(format!("{low:.0} / {middle:.0} / {high:.0}"))
        }),
        row("distinct-1 / -2 / -3", &|l| {
            let shares: Option<Vec<String>> = l.distinct.iter().map(|d| share(*d)).collect();
            Some(shares?.join(" / "))
        }),
        row("wanted label found by the model that wrote the record", &|l| {
            share(l.agreement)
        }),
    ]
}
