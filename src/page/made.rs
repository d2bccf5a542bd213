//! How a run was made: drawing, reading, time, settings.

use serde_json::Value;

use super::charts::{self, Frame, Level, Series, thousands};
use super::data::Data;
use super::sections::{sampling, settings};
use super::view::{Block, Section, Table};
use crate::config::RunConfig;
use crate::number::percent;

pub fn made(d: &Data) -> Section {
    let r = d.report;
    let arm = |name: &str| match name {
        "zero_shot" => Series::ZeroShot,
        _ => Series::Synthetic,
    };
    let mut blocks = sampling(r.sampling.iter().map(|(name, value)| (arm(name), value)));
    if let Some(records) = &r.records {
        let mut table = Table::new("Records read", &["", "training", "held out"], 1);
        let mut row = |name: &str, a: usize, b: String| table.rows.push(vec![name.into(), thousands(a as u64), b]);
        let (train, test) = (&records.train, &records.test);
        row("rows in the file", train.read, thousands(test.read as u64));
        row("kept", train.kept, thousands(test.kept as u64));
        row(
            "dropped",
            train.dropped.values().sum(),
            thousands(test.dropped.values().sum::<usize>() as u64),
        );
        row("cut at the longest length", records.cut, "–".into());
        row(
            "texts that stand in both",
            records.shared_texts,
            thousands(records.shared_texts as u64),
        );
        blocks.push(Block::Table {
            table,
            note: Some(format!(
                "Evaluation is on {} held-out records.",
                thousands(records.test_evaluated as u64)
            )),
            folded: false,
        });
    }
    blocks.extend(timings(d));
    blocks.push(Block::Table {
        table: settings(&flat(d.config)),
        note: Some(format!("SHA-256 of the configuration: {}", r.config_hash)),
        folded: true,
    });
    Section {
        id: "made",
        title: "How it was made",
        intro: "Drawing, reading, time, and every setting.".into(),
        mark: None,
        blocks,
    }
}

fn timings(d: &Data) -> Option<Block> {
    let seconds = d.report.timings_s.iter();
    let seconds: Vec<(String, f64)> = seconds.map(|(stage, s)| (stage.name().to_string(), *s)).collect();
    let total: f64 = seconds.iter().map(|(_, s)| s).sum();
    if total <= 0.0 {
        return None;
    }
    let mut table = Table::new("Wall time by stage", &["stage", "time", "share"], 1);
    let levels = seconds.iter().map(|(stage, s)| {
        table.rows.push(vec![stage.clone(), duration(*s), percent(s / total)]);
        Level {
            name: stage.clone(),
            value: *s,
            text: duration(*s),
            set_aside: *s,
            series: Series::Synthetic,
        }
    });
    let levels: Vec<Level> = levels.collect();
    table.rows.push(vec!["all".into(), duration(total), percent(1.0)]);
    let memory = format!("{:.1} GB", d.report.peak_rss_bytes as f64 / 1e9);
    table.rows.push(vec!["peak memory".into(), memory.clone(), "–".into()]);
    let longest = seconds.iter().map(|(_, s)| *s).fold(0.0, f64::max);
    Some(Block::Plot {
        plot: charts::bars(
            Frame {
                id: "timings",
                title: "Time by stage".into(),
                description: format!("Wall time of each stage; {} in all.", duration(total)),
            },
            &levels,
            longest,
            None,
        ),
        table,
        note: Some(format!(
            "{} in all, over all attempts that ended in order; peak memory {memory}.",
            duration(total)
        )),
    })
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Every setting by its dotted key.
fn flat(config: &RunConfig) -> Vec<(String, String)> {
    fn walk(under: &str, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let key = match under {
                        "" => key.clone(),
                        _ => format!("{under}.{key}"),
                    };
                    walk(&key, value, out);
                }
            }
            Value::Null => {}
            Value::String(text) => out.push((under.into(), text.clone())),
            value => out.push((under.into(), value.to_string())),
        }
    }
    let mut out = Vec::new();
    // Seeds of the noise reach no output (P4).
    let mut shown = config.clone();
    shown.finetune.seed = None;
    walk("", &serde_json::to_value(shown).unwrap_or(Value::Null), &mut out);
    out
}
