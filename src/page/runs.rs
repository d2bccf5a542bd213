//! A run beside others on the same records.

use super::charts::{self, Axis, Curve, Frame, Point, Scale};
use super::data::Data;
use super::guarantee::ShownGuarantee;
use super::privacy::at;
use super::view::{Block, Section, Table};
use super::words::{classifier, ends, series};
use crate::evaluation::{ArmName, Classifier, Utility};
use crate::number::percent;

/// This run beside others on the same records.
pub fn runs(d: &Data) -> Option<Section> {
    let all = d.siblings.as_ref()?;
    let score = |utility: &Utility, arm: ArmName, c: Classifier| {
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
        let guarantee = run.privacy.as_ref().map(ShownGuarantee::of);
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
        let means_something = guarantee.is_some_and(|g| g.private && g.proven);
        let Some(epsilon) = run.epsilon().filter(|e| means_something && e.is_finite()) else {
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
            let own = d.report.privacy.as_ref().map(ShownGuarantee::of);
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
