//! What the records are worth: scores, their growth with the number of records, confusions, measures of quality.

use super::charts::{self, Axis, Curve, Frame, Point, Row, Scale, Series, thousands};
use super::data::Data;
use super::guarantee::ShownGuarantee;
use super::view::{Block, Heat, HeatCell, HeatRow, Section, Table};
use super::words::{classifier, ends, series};
use crate::evaluation::groups::Group;
use crate::evaluation::metrics::Interval;
use crate::evaluation::quality::{Compared, Quality};
use crate::evaluation::{ArmConfusion, ArmName, Classifier, GroupRow, UtilityRow};
use crate::number::percent;
use crate::records::LabelSpace;

/// More labels than this are drawn as a picture, not as a table of counts.
const READABLE: usize = 12;

/// Accuracy by arm and classifier: the picture of the answer.
pub fn scores(d: &Data) -> Option<Block> {
    let r = d.report;
    if r.utility.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    let mut table = Table::new(
        "Scores on real held-out records, 95 % intervals over seeds; of one fit, over test records",
        &["trained on", "classifier", "records", "accuracy", "macro-F1"],
        2,
    );
    for c in [Classifier::Linear, Classifier::Encoder] {
        let of_arm = r.utility.iter().filter(|row| row.classifier == c);
        let all = (r.all_real.iter().chain(&r.all_synthetic)).filter(|row| row.classifier == c);
        for (row, all) in of_arm.map(|row| (row, false)).chain(all.map(|row| (row, true))) {
            let records = thousands(row.records as u64);
            let name = match all {
                true => format!("all {records} {}", series(row.arm).name()),
                false => format!("{records} {}", series(row.arm).name()),
            };
            // All there is: by one fit, or by seeds of an earlier version, which take the same records.
            let once = row.accuracy.seeds == 1;
            let cell = |i: &Interval| match (all, once) {
                (true, false) => format!("{} (one set)", percent(i.mean)),
                (true, true) => format!("{} ({}, one fit)", percent(i.mean), ends(i)),
                (false, _) => format!("{} ({})", percent(i.mean), ends(i)),
            };
            rows.push(Row {
                group: format!("{}, {} test records", classifier(c), thousands(row.test_records as u64)),
                series: series(row.arm),
                value: row.accuracy.mean,
                interval: (!all || once).then_some((row.accuracy.low, row.accuracy.high)),
                text: percent(row.accuracy.mean),
                name: name.clone(),
            });
            table.rows.push(vec![
                name,
                c.to_string(),
                records,
                cell(&row.accuracy),
                cell(&row.macro_f1),
            ]);
        }
    }
    for reference in &r.references {
        rows.push(Row {
            group: "For reference".into(),
            series: Series::Plain,
            value: reference.accuracy,
            interval: None,
            text: percent(reference.accuracy),
            name: reference.name.to_string(),
        });
        table.rows.push(vec![
            reference.name.to_string(),
            reference.what.clone(),
            "–".into(),
            percent(reference.accuracy),
            percent(reference.macro_f1),
        ]);
    }
    let of = |arm: ArmName| {
        let mut rows = r.utility.iter();
        rows.find(|row| row.arm == arm)
            .map_or("–".into(), |row| percent(row.accuracy.mean))
    };
    Some(Block::Plot {
        plot: charts::intervals(
            Frame {
                id: "accuracy",
                title: "Accuracy on real held-out records".into(),
                description: format!(
                    "Accuracy with 95 % intervals by what a classifier was trained on. Real {}, synthetic {}, zero-shot {}; all scores are in the table.",
                    of(ArmName::Real),
                    of(ArmName::Synthetic),
                    of(ArmName::ZeroShot)
                ),
            },
            &rows,
            charts::percent,
        ),
        table,
        note: None,
    })
}

pub fn usefulness(d: &Data) -> Section {
    let mut blocks = Vec::new();
    let r = d.report;
    for reference in r.references.iter().filter_map(|x| Some((x, x.privacy.as_ref()?))) {
        let (reference, privacy) = reference;
        blocks.push(Block::Text {
            text: format!(
                "{} has spent a budget of its own, besides the run's: {}.",
                reference.name,
                ShownGuarantee::of(privacy).sentence
            ),
        });
    }
    blocks.extend(size_curve(&r.size_curve));
    blocks.extend(groups(&d.groups));
    blocks.extend(confusions(&d.confusions, &d.labels));
    if let Some(quality) = &r.quality {
        blocks.push(Block::Table {
            table: qualities(quality),
            note: Some("The column real: training records measured against held-out ones; for labels and for shared words held-out records, for variety training records.".into()),
            folded: false,
        });
    }
    Section {
        id: "usefulness",
        title: "Usefulness",
        intro: "The same classifiers on equally many real, synthetic and zero-shot records, all tested on real held-out ones. Zero-shot records are the untouched model's: guided by their labels, and kept as drawn where synthetic ones are judged by what was learned privately.".into(),
        mark: None,
        blocks,
    }
}

fn size_curve(rows: &[UtilityRow]) -> Option<Block> {
    let mut arms: Vec<ArmName> = Vec::new();
    rows.iter().for_each(|r| {
        if !arms.contains(&r.arm) {
            arms.push(r.arm)
        }
    });
    let mut sizes: Vec<usize> = rows.iter().map(|r| r.records).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else {
        return None;
    };
    let curve = |arm: ArmName| {
        let mut points: Vec<Point> = (rows.iter().filter(|r| r.arm == arm))
            .map(|r| Point {
                x: r.records as f64,
                y: r.accuracy.mean,
                interval: Some((r.accuracy.low, r.accuracy.high)),
                tip: format!("{}: {} records, {}", r.arm, r.records, percent(r.accuracy.mean)),
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Curve {
            series: series(arm),
            points,
            joined: true,
            marked: true,
        }
    };
    let curves: Vec<Curve> = arms.iter().map(|arm| curve(*arm)).collect();
    let (low, high) = charts::range(rows.iter().flat_map(|r| [r.accuracy.low, r.accuracy.high]));
    let mut table = Table::new(
        "Accuracy of the linear classifier by number of records",
        &["records"],
        0,
    );
    table.head.extend(arms.iter().map(|a| series(*a).name().to_string()));
    for size in &sizes {
        let mut line = vec![thousands(*size as u64)];
        line.extend(arms.iter().map(|arm| {
            let row = rows.iter().find(|r| r.arm == *arm && r.records == *size);
            row.map_or("–".into(), |r| {
                format!("{} ({})", percent(r.accuracy.mean), ends(&r.accuracy))
            })
        }));
        table.rows.push(line);
    }
    Some(Block::Plot {
        plot: charts::curves(
            Frame {
                id: "sizes",
                title: "Accuracy by number of records".into(),
                description: format!(
                    "Accuracy of the linear classifier against the number of records it is trained on, from {first} to {last}, a curve for each arm."
                ),
            },
            &Scale {
                axis: Axis::logarithmic(*first as f64, *last as f64),
                name: "records trained on".into(),
                show: charts::plain,
            },
            &Scale {
                axis: Axis::linear(low, high, 4),
                name: "accuracy".into(),
                show: charts::percent,
            },
            &curves,
        ),
        table,
        note: Some("Synthetic records cost no privacy, so there may be more of them than real ones.".into()),
    })
}

/// Accuracy in parts of the test records: where synthetic records serve worse than on the whole.
fn groups(rows: &[GroupRow]) -> Option<Block> {
    let mut arms: Vec<ArmName> = Vec::new();
    let mut lines: Vec<(Classifier, Group, usize)> = Vec::new();
    for row in rows {
        let line = (row.classifier, row.group, row.test_records);
        if !arms.contains(&row.arm) {
            arms.push(row.arm);
        }
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|(classifier, ..)| *classifier as usize);
    let mut table = Table::new(
        "Accuracy in parts of the test records, trained on equally many records",
        &["part", "classifier", "test records"],
        2,
    );
    table.head.extend(arms.iter().map(|a| series(*a).name().to_string()));
    for (classifier, group, records) in &lines {
        let mut line = vec![group.to_string(), classifier.to_string(), thousands(*records as u64)];
        line.extend(arms.iter().map(|arm| {
            let row = rows
                .iter()
                .find(|r| (r.arm, r.classifier, r.group) == (*arm, *classifier, *group));
            row.map_or("–".into(), |r| {
                format!("{} ({})", percent(r.accuracy.mean), ends(&r.accuracy))
            })
        }));
        table.rows.push(line);
    }
    (!table.rows.is_empty()).then_some(Block::Table {
        table,
        note: None,
        folded: false,
    })
}

fn confusions(all: &[ArmConfusion], labels: &LabelSpace) -> Vec<Block> {
    let sized = |c: &&ArmConfusion| c.counts.len() == labels.len() && c.counts.iter().all(|r| r.len() == labels.len());
    let mut shown: Vec<&ArmConfusion> = all.iter().filter(sized).collect();
    // A classifier's arms stand beside each other.
    shown.sort_by_key(|c| c.classifier as usize);
    let title = |c: &ArmConfusion| format!("{}, trained on {}", classifier(c.classifier), series(c.arm).name());
    let shares = |c: &ArmConfusion| -> Vec<Vec<f64>> {
        let share = |row: &Vec<f64>| {
            let total: f64 = row.iter().sum();
            row.iter().map(|n| if total > 0.0 { n / total } else { 0.0 }).collect()
        };
        c.counts.iter().map(share).collect()
    };
    if shown.is_empty() {
        return Vec::new();
    }
    if labels.len() > READABLE {
        return shown.iter().map(|c| large(c, &shares(c), &title(c), labels)).collect();
    }
    let names: Vec<String> = (0..labels.len()).map(|label| labels.name(label)).collect();
    let heat = |c: &&ArmConfusion| {
        let shares = shares(c);
        let cell = |label: usize, said: usize| HeatCell {
            count: format!("{:.0}", c.counts[label][said]),
            share: percent(shares[label][said]),
            strength: (100.0 * shares[label][said]).round() / 100.0,
            right: label == said,
        };
        let row = |label: usize| HeatRow {
            name: names[label].clone(),
            cells: (0..labels.len()).map(|said| cell(label, said)).collect(),
        };
        Heat {
            caption: title(c),
            head: names.clone(),
            rows: (0..labels.len()).map(row).collect(),
        }
    };
    vec![Block::Heats {
        title: "Which labels are confused".into(),
        note: "True label by row, predicted label by column: the share of the row, and the mean count over seeds. Blue is right, orange is wrong.".into(),
        heats: shown.iter().map(heat).collect(),
    }]
}

/// A matrix of many labels: a picture, and a row a label, the most confused first.
fn large(c: &ArmConfusion, shares: &[Vec<f64>], title: &str, labels: &LabelSpace) -> Block {
    let said = |label: usize| -> f64 { c.counts.iter().map(|row| row[label]).sum() };
    let mut table = Table::new(
        format!("{title}: labels, the worst found first"),
        &["label", "test records", "found", "right when said", "said instead"],
        1,
    );
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| shares[*a][*a].total_cmp(&shares[*b][*b]).then(a.cmp(b)));
    for label in order {
        let total: f64 = c.counts[label].iter().sum();
        let mut others: Vec<(usize, f64)> = c.counts[label].iter().copied().enumerate().collect();
        others.retain(|(other, n)| *other != label && *n > 0.0);
        others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let others: Vec<String> = (others.iter())
            .map(|(other, n)| format!("{} {}", labels.name(*other), charts::plain(*n)))
            .collect();
        let predicted = said(label);
        table.rows.push(vec![
            labels.name(label),
            charts::plain(total),
            percent(shares[label][label]),
            match predicted > 0.0 {
                true => percent(c.counts[label][label] / predicted),
                false => "never said".into(),
            },
            match others.is_empty() {
                true => "–".into(),
                false => others.join(", "),
            },
        ]);
    }
    let id: &'static str = match (c.arm, c.classifier) {
        (ArmName::Real, Classifier::Linear) => "matrix-real-linear",
        (ArmName::Real, Classifier::Encoder) => "matrix-real-encoder",
        (ArmName::Synthetic, Classifier::Linear) => "matrix-synthetic-linear",
        (ArmName::Synthetic, Classifier::Encoder) => "matrix-synthetic-encoder",
        (ArmName::ZeroShot, Classifier::Linear) => "matrix-zero-shot-linear",
        (ArmName::ZeroShot, Classifier::Encoder) => "matrix-zero-shot-encoder",
        (ArmName::NonPrivate, Classifier::Linear) => "matrix-non-private-linear",
        (ArmName::NonPrivate, Classifier::Encoder) => "matrix-non-private-encoder",
    };
    let right: f64 = (0..labels.len()).map(|l| c.counts[l][l]).sum();
    let total: f64 = c.counts.iter().flatten().sum();
    Block::Matrix {
        matrix: charts::matrix(
            Frame {
                id,
                title: title.to_string(),
                description: format!(
                    "Confusion matrix of {} labels, true label down, predicted label across; {} of the test records are on the diagonal.",
                    labels.len(),
                    percent(right / total.max(1.0))
                ),
            },
            shares,
            |truth, said| format!("{}, said {}: {}", labels.name(truth), labels.name(said), percent(shares[truth][said])),
        ),
        table,
        note: Some("True label down, predicted label across, in the declared order; the diagonal is right. Every number is in the table, the worst found label first.".into()),
    }
}

fn qualities(q: &Quality) -> Table {
    let mut table = Table::new(
        "What the records are like",
        &["measured", "synthetic", "zero-shot", "real"],
        1,
    );
    let mut row = |name: &str, values: [String; 3]| {
        table
            .rows
            .push(std::iter::once(name.to_string()).chain(values).collect());
    };
    fn each<T>(compared: &Compared<T>, show: impl Fn(&T) -> String) -> [String; 3] {
        compared.each().map(show)
    }
    let number = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.3}"));
    if let Some(c) = &q.label_fidelity {
        row(
            "records whose label a classifier trained on real ones finds",
            each(c, |f| percent(f.agreement)),
        );
    }
    if let Some(c) = &q.lengths {
        row("words, median", each(c, |l| format!("{:.0}", l.quantiles[2])));
        row(
            "distance of lengths, in words",
            each(c, |l| format!("{:.1}", l.wasserstein)),
        );
    }
    if let Some(c) = &q.divergence {
        row("divergence of words, 0 to 1", each(c, |d| number(d.unigrams)));
        row("divergence of pairs of words, 0 to 1", each(c, |d| number(d.bigrams)));
    }
    if let Some(c) = &q.meaning {
        row("MAUVE, 1 is alike", each(c, |m| number(m.mauve.map(|m| m.plain))));
        row("MAUVE, smoothed", each(c, |m| number(m.mauve.map(|m| m.smoothed))));
        row("Fréchet distance, 0 is alike", each(c, |m| number(m.frechet)));
    }
    if let Some(c) = &q.variety {
        for n in 1..=3 {
            row(
                &format!("different runs of {n} over all"),
                each(c, |v| v.distinct[n - 1].map_or("–".into(), percent)),
            );
        }
        row("records with a near duplicate", each(c, |v| percent(v.near_duplicates)));
    }
    if let Some(m) = &q.memorisation {
        let name = format!("share {} words in a row or more with a training record", m.limit);
        row(&name, each(&m.spans, |s| percent(s.share_over_limit())));
        row("most words in a row shared", each(&m.spans, |s| s.longest.to_string()));
        row(
            "copies of a training record",
            each(&m.spans, |s| s.exact_copies.to_string()),
        );
    }
    table
}
