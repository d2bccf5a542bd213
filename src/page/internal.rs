//! The page for those who may see the private records: everything a run knows of itself.

use std::path::Path;

use serde_json::Value;

use super::charts::{self, Axis, Curve, Frame, Level, Point, Row, Scale, Series, thousands};
use super::data::Data;
use super::guarantee::Guarantee;
use super::neighbours::{self, Neighbours};
use super::sections::{sampling, settings, terms};
use super::texts::{Counted, samples};
use super::view::{Block, Heat, HeatCell, HeatRow, Missing, Pair, Pairs, Section, Table, Verdict, View};
use crate::Result;
use crate::config::RunConfig;
use crate::evaluation::metrics::Interval;
use crate::evaluation::quality::{Compared, Quality};
use crate::evaluation::{ArmConfusion, ArmName, Classifier, UtilityRow};
use crate::number::{delta, down, percent, up};
use crate::pipeline::{Report, RunPaths, Stage};
use crate::records::LabelSpace;

/// More labels than this are drawn as a picture, not as a table of counts.
const READABLE: usize = 12;
/// Runs that the ledger's picture shows, the latest.
const RUNS_SHOWN: usize = 20;

/// Everything a run knows of itself. Internal: it reads private records, and holds some.
pub struct InternalPage(View);

impl InternalPage {
    /// Of the run in `paths`, as far as `report` says it is done.
    ///
    /// # Errors
    /// A file of the run is damaged.
    pub fn of(paths: &RunPaths, config: &RunConfig, report: &Report, ledgers: &Path) -> Result<Self> {
        let data = Data::read(paths, config, report, ledgers)?;
        Ok(InternalPage(view(&data, paths)))
    }

    /// As one HTML file.
    ///
    /// # Errors
    /// The template does not render: a fault of the program.
    pub fn html(&self) -> Result<String> {
        super::render(&self.0, true)
    }
}

fn view(d: &Data, paths: &RunPaths) -> View {
    let r = d.report;
    let guarantee = r.privacy.as_ref().map(Guarantee::of);
    let verdict = verdict(d, paths);
    let mut marks: Vec<String> = guarantee.iter().filter_map(|g| g.caveat.clone()).collect();
    marks.extend((verdict.as_ref().filter(|v| v.state == "fail")).map(|v| format!("{}: {}", v.headline, v.text)));
    let real = (d.arm(Series::Real), d.arm(Series::Synthetic));
    let near = match real {
        (Some(training), Some(synthetic)) => neighbours::nearest(synthetic, training, &d.held_out),
        _ => None,
    };
    let sections = [
        Some(usefulness(d)),
        Some(privacy(d, guarantee.as_ref())),
        Some(records(d)),
        near.as_ref().map(|n| nearest(n, &d.labels)),
        runs(d),
        Some(made(d)),
    ];
    View {
        title: format!("{}: report", r.run),
        run: r.run.clone(),
        lead: lead(d),
        facts: facts(d),
        marks,
        missing: missing(d),
        guarantee,
        answer: scores(d),
        verdict,
        sections: sections
            .into_iter()
            .flatten()
            .filter(|s| !s.blocks.is_empty())
            .collect(),
        program_version: r.program_version.to_string(),
    }
}

/// The answer in a sentence: of the classifier that learns most from real records.
fn lead(d: &Data) -> String {
    let row = |arm: ArmName, c: Classifier| {
        let mut rows = d.report.utility.iter();
        rows.find(|r| r.arm == arm && r.classifier == c)
    };
    let best = [Classifier::Linear, Classifier::Encoder]
        .into_iter()
        .filter_map(|c| Some((c, row(ArmName::Real, c)?)))
        .max_by(|a, b| a.1.accuracy.mean.total_cmp(&b.1.accuracy.mean));
    if let Some((c, real)) = best
        && let (Some(synthetic), Some(zero_shot)) = (row(ArmName::Synthetic, c), row(ArmName::ZeroShot, c))
    {
        return format!(
            "{} trained on {} synthetic records is right on {} of real held-out records; trained on as many real ones on {}, on zero-shot ones on {}.",
            match c {
                Classifier::Linear => "A linear classifier",
                Classifier::Encoder => "An encoder",
            },
            thousands(synthetic.records as u64),
            percent(synthetic.accuracy.mean),
            percent(real.accuracy.mean),
            percent(zero_shot.accuracy.mean)
        );
    }
    match Stage::ALL.into_iter().filter(|s| d.report.is_done(*s)).next_back() {
        Some(last) => format!("This run is not finished: it is done up to {}.", last.name()),
        None => "This run has not begun.".into(),
    }
}

fn facts(d: &Data) -> Vec<String> {
    let c = d.config;
    let mut out = vec![format!("dataset {}", c.dataset.asset.as_deref().unwrap_or(&c.name))];
    if let Some(r) = &d.report.records {
        out.push(format!("{} training records", thousands(r.train.kept as u64)));
    }
    if let Some(synthetic) = d.arm(Series::Synthetic) {
        out.push(format!("{} synthetic records", thousands(synthetic.len() as u64)));
    }
    out.push(format!("{} labels", d.labels.len()));
    out.push(match &c.model.path {
        Some(path) => format!("base model {}", path.file_name().unwrap_or_default().to_string_lossy()),
        None => format!("base model {}", c.model.asset),
    });
    out
}

fn missing(d: &Data) -> Vec<Missing> {
    let stages = Stage::ALL.into_iter().filter(|s| !d.report.is_done(*s));
    let of = |stage: Stage| Missing {
        stage: stage.name(),
        what: match stage {
            Stage::Prepare => "reads, cleans and tokenises the records",
            Stage::Finetune => "trains the model privately: until then nothing is guaranteed",
            Stage::Sample => "draws synthetic and zero-shot records",
            Stage::Evaluate => "says what the records are worth",
        },
    };
    stages.map(of).collect()
}

fn series(arm: ArmName) -> Series {
    match arm {
        ArmName::Real => Series::Real,
        ArmName::Synthetic => Series::Synthetic,
        ArmName::ZeroShot => Series::ZeroShot,
        ArmName::NonPrivate => Series::NonPrivate,
    }
}

fn classifier(c: Classifier) -> &'static str {
    match c {
        Classifier::Linear => "Linear classifier",
        Classifier::Encoder => "Encoder",
    }
}

fn ends(i: &Interval) -> String {
    format!("{:.1}–{:.1}", 100.0 * i.low, 100.0 * i.high)
}

/// Accuracy by arm and classifier: the picture of the answer.
fn scores(d: &Data) -> Option<Block> {
    let r = d.report;
    if r.utility.is_empty() {
        return None;
    }
    let mut rows = Vec::new();
    let mut table = Table::new(
        "Scores on real held-out records, 95 % intervals over seeds",
        &["trained on", "classifier", "records", "accuracy", "macro-F1"],
        2,
    );
    for c in [Classifier::Linear, Classifier::Encoder] {
        let of_arm = r.utility.iter().filter(|row| row.classifier == c);
        let all = r.all_synthetic.iter().filter(|row| row.classifier == c);
        for (row, all) in of_arm.map(|row| (row, false)).chain(all.map(|row| (row, true))) {
            let records = thousands(row.records as u64);
            let name = match all {
                true => format!("all {records} {}", series(row.arm).name()),
                false => format!("{records} {}", series(row.arm).name()),
            };
            // All there is: its seeds take the same records, so their spread says nothing.
            let cell = |i: &Interval| match all {
                true => format!("{} (one set)", percent(i.mean)),
                false => format!("{} ({})", percent(i.mean), ends(i)),
            };
            rows.push(Row {
                group: format!("{}, {} test records", classifier(c), thousands(row.test_records as u64)),
                series: series(row.arm),
                value: row.accuracy.mean,
                interval: (!all).then_some((row.accuracy.low, row.accuracy.high)),
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
                    "Accuracy with 95 % intervals by what a classifier was trained on. Real {}, synthetic {}, zero-shot {}; the other classifiers are in the table.",
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

fn verdict(d: &Data, paths: &RunPaths) -> Option<Verdict> {
    d.report.privacy.as_ref()?;
    let command = format!("dpsynth audit {}", paths.root().display());
    let Some(audit) = &d.audit else {
        return Some(Verdict {
            state: "none",
            headline: "Not audited yet".into(),
            text: "Nobody has tried to break this claim.".into(),
            command: Some(command),
        });
    };
    if !same_claim(d, audit) {
        return Some(Verdict {
            state: "none",
            headline: "Not audited as it is now".into(),
            text: "The findings that are kept are of another training.".into(),
            command: Some(command),
        });
    }
    let bounds = audit["lower_bounds"].as_array();
    let best = bounds
        .into_iter()
        .flatten()
        .filter_map(|b| b["epsilon_lower"].as_f64())
        .fold(0.0, f64::max);
    Some(match audit["verdict"].as_str() {
        Some("pass") => Verdict {
            state: "pass",
            headline: "The claim stood".into(),
            text: format!(
                "No attack refuted it; the best proved epsilon to be at least {} (at the claim's delta, adjacency, unit, sampler). That is no proof of the claim.",
                down(best, 3)
            ),
            command: None,
        },
        _ => {
            let why = audit["refuted_by"].as_array().into_iter().flatten();
            let why: Vec<&str> = why.filter_map(Value::as_str).collect();
            Verdict {
                state: "fail",
                headline: "THE CLAIM DOES NOT HOLD".into(),
                text: format!("{}. Release nothing of this run.", why.join("; ")),
                command: Some(command),
            }
        }
    })
}

/// Whether the audit was of what the run claims now.
fn same_claim(d: &Data, audit: &Value) -> bool {
    let now = d.report.privacy.as_ref();
    now.is_some_and(|p| {
        ["epsilon", "delta", "noise_multiplier", "steps"]
            .iter()
            .all(|k| audit["claim"][*k] == p[*k])
    })
}

fn usefulness(d: &Data) -> Section {
    let mut blocks = Vec::new();
    let r = d.report;
    for reference in r.references.iter().filter_map(|x| Some((x, x.privacy.as_ref()?))) {
        let (reference, privacy) = reference;
        blocks.push(Block::Text {
            text: format!(
                "{} has spent a budget of its own, besides the run's: {}.",
                reference.name,
                Guarantee::of(privacy).sentence
            ),
        });
    }
    blocks.extend(size_curve(&r.size_curve));
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
        intro: "The same classifiers on equally many real, synthetic and zero-shot records, all tested on real held-out ones.".into(),
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

fn privacy(d: &Data, guarantee: Option<&Guarantee>) -> Section {
    let mut blocks = Vec::new();
    blocks.extend(attacks(d));
    blocks.extend(guarantee.and_then(|g| training(d, g)));
    blocks.extend(budget(d));
    blocks.extend(guarantee.map(|g| Block::Table {
        table: terms(g),
        note: None,
        folded: true,
    }));
    Section {
        id: "privacy",
        title: "Privacy",
        intro: guarantee.map_or("Nothing is guaranteed before the model is trained.".into(), |g| {
            format!("{}.", g.sentence)
        }),
        mark: None,
        blocks,
    }
}

/// What each attack proved, beside the claim.
fn attacks(d: &Data) -> Vec<Block> {
    let Some(audit) = d.audit.as_ref().filter(|a| same_claim(d, a)) else {
        return Vec::new();
    };
    let claim = audit["claim"]["epsilon"].as_f64().unwrap_or(f64::NAN);
    let meaning = Guarantee::of(&audit["claim"]);
    let bounds: Vec<&Value> = audit["lower_bounds"].as_array().into_iter().flatten().collect();
    let mut table = Table::new(
        format!("What each attack proved against {}", meaning.sentence),
        &["attack", "epsilon is at least", "of the claim", "rests on"],
        1,
    );
    let mut levels = Vec::new();
    for bound in &bounds {
        let lower = bound["epsilon_lower"].as_f64().unwrap_or(0.0);
        let name = bound["attack"].as_str().unwrap_or("?").to_string();
        table.rows.push(vec![
            name.clone(),
            down(lower, 3),
            format!("{:.0} %", 100.0 * lower / claim),
            bound["rests_on"].as_str().unwrap_or("?").into(),
        ]);
        levels.push(Level {
            name,
            value: lower,
            text: format!("at least {}", down(lower, 3)),
            set_aside: lower,
            series: Series::Synthetic,
        });
    }
    let most = levels.iter().map(|l| l.value).fold(claim, f64::max);
    let mut out = vec![Block::Plot {
        plot: charts::bars(
            Frame {
                id: "attacks",
                title: "What the attacks proved".into(),
                description: format!(
                    "Lower bounds on epsilon by attack, beside the claim of {}.",
                    meaning.sentence
                ),
            },
            &levels,
            1.08 * most,
            Some((claim, format!("claimed {}", up(claim, 3)))),
        ),
        table,
        note: Some(format!(
            "Together with {:.0} % confidence, at the claim's delta, adjacency, unit and sampler. A bound above the claim would refute it; none below proves it.",
            100.0 * audit["confidence"].as_f64().unwrap_or(0.95)
        )),
    }];
    let replay = &audit["replay"];
    let mut items = Vec::new();
    if let (Some(worst), Some(within)) = (replay["worst_ratio"].as_f64(), replay["within_charge"].as_bool()) {
        items.push(format!(
            "Replay: one record moved the clipped sum by at most {worst:.9} of the clipping norm, {} what is charged.",
            if within { "within" } else { "BEYOND" }
        ));
    }
    if let Some(m) = audit["membership"].as_object() {
        let auc = |key: &str| m[key]["value"].as_f64().map_or("?".into(), |v| format!("{v:.3}"));
        items.push(format!(
            "Membership: from the synthetic texts alone, training records were told from held-out ones with AUC {}; without any synthetic text {}. 0.5 is guessing.",
            auc("auc"),
            auc("blind_auc")
        ));
    }
    let notes = audit["notes"].as_array().into_iter().flatten();
    items.extend(notes.filter_map(Value::as_str).map(str::to_string));
    out.push(Block::List {
        title: "What the audit noted".into(),
        items,
    });
    out
}

/// Loss against what was spent.
fn training(d: &Data, guarantee: &Guarantee) -> Option<Block> {
    let losses: Vec<f64> = d.steps.iter().filter_map(|s| s.mean_loss).collect();
    if losses.is_empty() {
        return None;
    }
    let known = d.steps.iter().all(|s| s.epsilon.is_some_and(f64::is_finite));
    let x = |s: &super::data::Step| match known {
        true => s.epsilon.unwrap_or(0.0),
        false => s.charged as f64,
    };
    let (low, high) = charts::range(losses.iter().copied());
    let most = charts::range(d.steps.iter().map(x)).1;
    let mut table = Table::new(
        format!("Training steps; {}", guarantee.sentence),
        &[
            "step",
            "epsilon by then",
            "mean loss a token",
            "mean norm before clipping",
            "drawn",
        ],
        0,
    );
    let optional = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.4}"));
    for s in &d.steps {
        table.rows.push(vec![
            s.charged.to_string(),
            s.epsilon.map_or("–".into(), |e| up(e, 3)),
            optional(s.mean_loss),
            optional(s.mean_norm),
            s.drawn.to_string(),
        ]);
    }
    let points = (d.steps.iter().filter_map(|s| Some((s, s.mean_loss?)))).map(|(s, loss)| Point {
        x: x(s),
        y: loss,
        interval: None,
        tip: format!("step {}: {loss:.3}", s.charged),
    });
    let points: Vec<Point> = points.collect();
    let marked = points.len() <= 30;
    let mut plot = charts::curves(
        Frame {
            id: "loss",
            title: "Loss against epsilon".into(),
            description: format!(
                "Mean loss a token against the epsilon spent so far: {:.2} after the first step, {:.2} after the last of {}.",
                losses[0],
                losses[losses.len() - 1],
                d.logged
            ),
        },
        &Scale {
            axis: Axis::linear(0.0, most, 4),
            name: match known {
                true => format!("epsilon spent ({})", at(guarantee)),
                false => "steps charged".into(),
            },
            show: charts::plain,
        },
        &Scale {
            axis: Axis::linear(low, high, 4),
            name: "mean loss a token".into(),
            show: charts::plain,
        },
        &[Curve {
            series: Series::Synthetic,
            points,
            joined: true,
            marked,
        }],
    );
    // One curve needs no legend.
    plot.legend.clear();
    Some(Block::Plot {
        plot,
        table,
        note: Some(format!(
            "Losses are of private records, by private batch. {}.",
            guarantee.sentence
        )),
    })
}

/// Without which epsilon at an axis means nothing (P10).
fn at(guarantee: &Guarantee) -> String {
    let term = |name: &str| {
        let mut terms = guarantee.terms.iter();
        terms
            .find(|(term, _)| *term == name)
            .map_or("?", |(_, value)| value.as_str())
    };
    format!("delta {}", term("delta"))
}

/// What all runs on the records have spent, and what is left.
fn budget(d: &Data) -> Option<Block> {
    let ledger = d.ledger.as_ref()?;
    let spent = ledger.charged_epsilon().ok()?;
    let reserved = ledger.reserved_epsilon().ok()?.max(spent);
    let total = ledger.total_epsilon;
    let sampler = ledger.runs.last().map_or("poisson".into(), |r| r.parameters.sampler());
    let meaning = format!(
        "delta {}, adjacency add or remove one, unit {}, sampler {sampler}, accountant pld",
        delta(ledger.delta, 2),
        ledger.unit
    );
    let left = (total - reserved).max(0.0);
    let mut levels = vec![Level {
        name: format!("All runs together: {} spent", up(spent, 3)),
        value: spent,
        set_aside: reserved,
        text: format!("{} left of {}", down(left, 3), charts::plain(total)),
        series: Series::Synthetic,
    }];
    let mut table = Table::new(
        format!("The ledger of these records: epsilon at {meaning}"),
        &["", "epsilon", "steps charged", "state"],
        1,
    );
    table.rows.push(vec![
        "budget".into(),
        charts::plain(total),
        String::new(),
        String::new(),
    ]);
    table.rows.push(vec![
        "all runs together, spent".into(),
        up(spent, 3),
        String::new(),
        String::new(),
    ]);
    if reserved > spent {
        table.rows.push(vec![
            "with open runs as planned".into(),
            up(reserved, 3),
            String::new(),
            String::new(),
        ]);
    }
    table
        .rows
        .push(vec!["left".into(), down(left, 3), String::new(), String::new()]);
    let hidden = ledger.runs.len().saturating_sub(RUNS_SHOWN);
    for run in &ledger.runs[hidden..] {
        let epsilon = run.epsilon().ok();
        let private = run.parameters.private;
        let own = Some(&run.run) == d.ledger_run.as_ref();
        let name = match own {
            true => format!("{} (this run)", run.run),
            false => run.run.clone(),
        };
        table.rows.push(vec![
            name.clone(),
            match (private, epsilon) {
                (false, _) => "NOT PRIVATE: not counted".into(),
                (true, Some(e)) => format!("{} at delta {}", up(e, 3), delta(run.parameters.delta, 2)),
                (true, None) => "?".into(),
            },
            format!("{} of {}", run.charged_steps, run.parameters.steps),
            if run.ended { "ended" } else { "open" }.into(),
        ]);
        if let (true, Some(e)) = (private, epsilon) {
            levels.push(Level {
                name,
                value: e,
                text: up(e, 3),
                set_aside: e,
                series: if own { Series::Synthetic } else { Series::Real },
            });
        }
    }
    let mut note =
        format!("Epsilon at {meaning}. Runs compose: together they cost less than the sum of each by itself.");
    if hidden > 0 {
        note.push_str(&format!(
            " {hidden} earlier runs are not shown one by one; they are counted."
        ));
    }
    Some(Block::Plot {
        plot: charts::bars(
            Frame {
                id: "ledger",
                title: "The budget of these records".into(),
                description: format!(
                    "Of a total epsilon of {} all runs have spent {}, and {} is left, at {meaning}.",
                    charts::plain(total),
                    up(spent, 3),
                    down(left, 3)
                ),
            },
            &levels,
            total,
            None,
        ),
        table,
        note: Some(note),
    })
}

fn records(d: &Data) -> Section {
    let mut blocks = Vec::new();
    if d.arm(Series::Synthetic).is_some() {
        blocks.push(samples(&d.arms, &d.labels));
        if let Some(counted) = Counted::of(&d.arms) {
            blocks.extend([counted.lengths(), counted.ranks(1), counted.ranks(2)]);
            blocks.extend(
                counted
                    .telling(Series::Synthetic, Series::Real)
                    .map(|table| Block::Table {
                        table,
                        note: Some("How often in ten thousand words.".into()),
                        folded: false,
                    }),
            );
        }
    }
    Section {
        id: "records",
        title: "Records",
        intro: "Some records of each label side by side, their lengths, and the words they use.".into(),
        mark: Some("PRIVATE: shows real records"),
        blocks,
    }
}

fn nearest(found: &Neighbours, labels: &LabelSpace) -> Section {
    let pairs = found.closest.iter().map(|pair| {
        let (words, synthetic, training) = neighbours::in_common(&pair.record.text, &pair.training.text);
        Pair {
            similarity: format!("{:.3}", pair.similarity),
            label: labels.name(pair.record.label),
            neighbour_label: labels.name(pair.training.label),
            words,
            synthetic,
            training,
        }
    });
    let mut intro = format!(
        "For {} synthetic records the nearest of {} training records, by the cosine of weighted words and pairs of words. Median {:.3}",
        thousands(found.looked_up as u64),
        thousands(found.among as u64),
        found.median
    );
    intro.push_str(&match found.median_held_out {
        Some(median) => format!("; held-out records, which nothing was learned from, come to {median:.3}."),
        None => ".".into(),
    });
    if found.among < found.training {
        intro.push_str(&format!(
            " {} training records were left out.",
            thousands((found.training - found.among) as u64)
        ));
    }
    Section {
        id: "neighbours",
        title: "Nearest training records",
        intro,
        mark: Some("PRIVATE: shows real records"),
        blocks: vec![Block::Pairs(Pairs { pairs: pairs.collect() })],
    }
}

/// This run beside others on the same records.
fn runs(d: &Data) -> Option<Section> {
    let all = d.siblings.as_ref()?;
    let score = |utility: &crate::evaluation::Utility, arm: ArmName, c: Classifier| {
        let mut rows = utility.rows.iter();
        rows.find(|r| r.arm == arm && r.classifier == c).map(|r| r.accuracy)
    };
    let scored = |c: Classifier| {
        all.runs
            .iter()
            .filter(|r| score(&r.utility, ArmName::Synthetic, c).is_some())
            .count()
    };
    let c = match scored(Classifier::Linear) > 0 {
        true => Classifier::Linear,
        false => Classifier::Encoder,
    };
    let arms = [ArmName::Real, ArmName::Synthetic, ArmName::ZeroShot];
    let mut table = Table::new(
        format!(
            "Runs on these records: {}, accuracy with 95 % intervals",
            classifier(c).to_lowercase()
        ),
        &["run", "guarantee", "real", "synthetic", "zero-shot"],
        2,
    );
    let mut curves: Vec<Curve> = Vec::new();
    for run in &all.runs {
        let own = run.run == d.report.run;
        let guarantee = run.privacy.as_ref().map(Guarantee::of);
        let mut row = vec![
            match own {
                true => format!("{} (this run)", run.run),
                false => run.run.clone(),
            },
            guarantee
                .as_ref()
                .map_or("not trained yet".into(), |g| g.sentence.clone()),
        ];
        row.extend(arms.map(|arm| {
            score(&run.utility, arm, c).map_or("–".into(), |i| format!("{} ({})", percent(i.mean), ends(&i)))
        }));
        table.rows.push(row);
        let private = guarantee.is_some_and(|g| g.private);
        let Some(epsilon) = run.epsilon().filter(|e| private && e.is_finite()) else {
            continue;
        };
        for arm in arms {
            let Some(i) = score(&run.utility, arm, c) else {
                continue;
            };
            let point = Point {
                x: epsilon,
                y: i.mean,
                interval: (arm == ArmName::Synthetic).then_some((i.low, i.high)),
                tip: format!("{}: {}, {}", run.run, series(arm).name(), percent(i.mean)),
            };
            match curves.iter_mut().find(|c| c.series == series(arm)) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve {
                    series: series(arm),
                    points: vec![point],
                    joined: false,
                    marked: true,
                }),
            }
        }
    }
    let points = || curves.iter().flat_map(|c| &c.points);
    let note = match all.warnings.is_empty() {
        true => "Each epsilon with its delta, adjacency, unit, sampler and accountant is in the table.".to_string(),
        false => format!("Read with care: {}.", all.warnings.join("; ")),
    };
    let block = match points().next() {
        None => Block::Table {
            table,
            note: Some(note),
            folded: false,
        },
        Some(_) => {
            let (low, high) = charts::range(points().flat_map(|p| {
                let (low, high) = p.interval.unwrap_or((p.y, p.y));
                [low, high]
            }));
            let (least, most) = charts::range(points().map(|p| p.x));
            let own = d.report.privacy.as_ref().map(Guarantee::of);
            let name = own.map_or("epsilon".into(), |g| format!("epsilon (this run: {})", at(&g)));
            let epsilons = match most > 4.0 * least && least > 0.0 {
                true => Axis::logarithmic(least, most),
                false => Axis::linear(0.0, most * 1.05, 4),
            };
            Block::Plot {
                plot: charts::curves(
                    Frame {
                        id: "runs",
                        title: "Accuracy against epsilon".into(),
                        description: format!(
                            "Accuracy of the {} against epsilon for {} runs on the same records.",
                            classifier(c).to_lowercase(),
                            all.runs.len()
                        ),
                    },
                    &Scale {
                        axis: epsilons,
                        name,
                        show: charts::plain,
                    },
                    &Scale {
                        axis: Axis::linear(low, high, 4),
                        name: format!("accuracy, {}", classifier(c).to_lowercase()),
                        show: charts::percent,
                    },
                    &curves,
                ),
                table,
                note: Some(note),
            }
        }
    };
    Some(Section {
        id: "runs",
        title: "Other runs",
        intro: "Runs on the same private records in the same folder. Each has spent from the same ledger.".into(),
        mark: None,
        blocks: vec![block],
    })
}

fn made(d: &Data) -> Section {
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
    let seconds: Vec<(String, f64)> = (d.report.timings_s.iter())
        .filter_map(|(stage, s)| Some((stage.clone(), s.as_f64()?)))
        .collect();
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
