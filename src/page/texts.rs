//! Records of several arms: how long they are, which words they use, and some of them side by side. Reads what it is
//! given and nothing else: the internal page hands real records in, the public one synthetic and zero-shot ones.

use super::charts::{self, Axis, Curve, Frame, Point, Scale, Series, thousands};
use super::view::{Block, Sample, SampleArm, SampleGroup, Samples, Table};
use crate::evaluation::Example;
use crate::evaluation::quality::lengths::{quantile, sorted};
use crate::evaluation::quality::ngrams::distinct;
use crate::evaluation::quality::words::{Lexicon, Words};
use crate::number::percent;
use crate::records::LabelSpace;

/// The records of an arm.
#[derive(Debug)]
pub struct Arm {
    pub series: Series,
    pub examples: Vec<Example>,
}

/// At most so many records of each arm are counted.
const COUNTED: usize = 2_000;
/// Rows of samples, all labels together.
const ROWS: usize = 240;
/// Rows of a label that are seen before it is unfolded.
const FIRST: usize = 4;
/// Characters of a record that are shown.
const SHOWN: usize = 360;

/// Evenly spread over all of `items`, at most `count` of them.
pub fn spread<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    let taken = count.min(items.len());
    (0..taken).map(move |i| &items[i * items.len() / taken])
}

/// The words of equally many records of each arm.
pub struct Counted {
    lexicon: Lexicon,
    arms: Vec<(Series, Vec<Words>)>,
    records: usize,
}

impl Counted {
    /// None where an arm is empty.
    pub fn of(arms: &[Arm]) -> Option<Self> {
        let records = arms.iter().map(|a| a.examples.len()).min()?.min(COUNTED);
        let mut lexicon = Lexicon::default();
        let arms = arms.iter().map(|arm| {
            let texts: Vec<&str> = spread(&arm.examples, records).map(|e| e.text.as_str()).collect();
            (arm.series, lexicon.read(texts))
        });
        let arms = arms.collect();
        (records > 0).then_some(Counted { lexicon, arms, records })
    }

    /// How long records are, in words.
    pub fn lengths(&self) -> Block {
        let lengths: Vec<(Series, Vec<f64>)> = self
            .arms
            .iter()
            .map(|(series, records)| (*series, sorted(records.iter().map(|w| w.len() as f64))))
            .collect();
        let longest = lengths
            .iter()
            .filter_map(|(_, l)| l.last())
            .fold(1.0, |a: f64, b| a.max(*b));
        // 1, 2, 3, 4, 6, 8, 12, …: short and long texts on one axis.
        let mut edges = vec![0.0, 1.0];
        let mut step = 2.0;
        while *edges.last().expect("is not empty") <= longest {
            edges.extend([step, 1.5 * step]);
            step *= 2.0;
        }
        let bin = |l: f64| edges.partition_point(|e| *e <= l).saturating_sub(1);
        let (first, last) = lengths.iter().fold((edges.len(), 0), |(f, l), (_, v)| {
            let at = |v: Option<&f64>| v.map(|v| bin(*v));
            (f.min(at(v.first()).unwrap_or(f)), l.max(at(v.last()).unwrap_or(0)))
        });
        let first = first.min(last);
        let names: Vec<String> = edges[first..=last].iter().map(|e| format!("{e:.0}")).collect();
        let shares: Vec<(Series, Vec<f64>)> = lengths
            .iter()
            .map(|(series, values)| {
                let mut shares = vec![0.0; last - first + 1];
                values
                    .iter()
                    .for_each(|v| shares[bin(*v) - first] += 1.0 / values.len() as f64);
                (*series, shares)
            })
            .collect();
        let arms: Vec<&str> = shares.iter().map(|(s, _)| s.name()).collect();
        let head = [&["words"], arms.as_slice()].concat();
        let mut table = Table::new("Length of records in words, and share of records by length", &head, 1);
        let mut row = |name: String, cell: &dyn Fn(usize) -> String| {
            let cells = (0..lengths.len()).map(cell);
            table.rows.push(std::iter::once(name).chain(cells).collect());
        };
        row("mean".into(), &|arm| {
            let values = &lengths[arm].1;
            format!("{:.1}", values.iter().sum::<f64>() / values.len() as f64)
        });
        for (name, share) in [("5 % have at most", 0.05), ("median", 0.5), ("95 % have at most", 0.95)] {
            row(name.into(), &|arm| format!("{:.0}", quantile(&lengths[arm].1, share)));
        }
        for (bin, name) in names.iter().enumerate() {
            let words = match edges.get(first + bin + 1) {
                Some(next) if *next > edges[first + bin] + 1.0 => format!("{name} to {:.0}", next - 1.0),
                _ => name.clone(),
            };
            row(words, &|arm| percent(shares[arm].1[bin]));
        }
        let medians: Vec<String> = lengths
            .iter()
            .map(|(s, v)| format!("{} {:.0}", s.name(), quantile(v, 0.5)))
            .collect();
        Block::Plot {
            plot: charts::strips(
                Frame {
                    id: "lengths",
                    title: "How long records are".into(),
                    description: format!("Share of records by length in words. Medians: {}.", medians.join(", ")),
                },
                &names,
                &shares,
                "words in a record, bins grow with length",
            ),
            table,
            note: Some(format!(
                "Of {} records of each. Medians: {}.",
                thousands(self.records as u64),
                medians.join(", ")
            )),
        }
    }

    /// How often the words of each rank are used.
    pub fn ranks(&self, n: usize) -> Block {
        let (id, title, what) = match n {
            1 => ("words", "How often words are used", "word"),
            _ => ("pairs-of-words", "How often pairs of words are used", "pair"),
        };
        let shares: Vec<(Series, Vec<f64>)> = self
            .arms
            .iter()
            .map(|(series, records)| (*series, ranked(records, n)))
            .collect();
        let most = shares.iter().map(|(_, s)| s.len()).max().unwrap_or(1).max(2);
        let ranks: Vec<usize> = (0..)
            .flat_map(|p| [1, 2, 5].map(|m| m * 10usize.pow(p)))
            .take_while(|r| *r <= most)
            .collect();
        let curves: Vec<Curve> = shares
            .iter()
            .map(|(series, shares)| Curve {
                series: *series,
                joined: true,
                marked: true,
                points: ranks
                    .iter()
                    .filter(|r| **r <= shares.len())
                    .map(|r| Point {
                        x: *r as f64,
                        y: shares[r - 1],
                        interval: None,
                        tip: format!("{}: rank {r}, {}", series.name(), small(shares[r - 1])),
                    })
                    .collect(),
            })
            .collect();
        let (low, high) = charts::range(curves.iter().flat_map(|c| c.points.iter().map(|p| p.y)));
        let mut table = Table::new(
            format!("Share of all {what}s that is the {what} of each rank"),
            &["rank"],
            1,
        );
        table.head.extend(shares.iter().map(|(s, _)| s.name().to_string()));
        for rank in &ranks {
            let mut row = vec![rank.to_string()];
            row.extend(
                shares
                    .iter()
                    .map(|(_, s)| s.get(rank - 1).map_or("–".into(), |v| small(*v))),
            );
            table.rows.push(row);
        }
        let mut row = vec![format!("different {what}s")];
        row.extend(shares.iter().map(|(_, s)| thousands(s.len() as u64)));
        table.rows.push(row);
        Block::Plot {
            plot: charts::curves(
                Frame {
                    id,
                    title: title.into(),
                    description: format!(
                        "Share of all {what}s against the rank of the {what}, both logarithmic, a curve for each arm."
                    ),
                },
                &Scale {
                    axis: Axis::logarithmic(1.0, most as f64),
                    name: format!("rank of the {what}, the most used first"),
                    show: charts::plain,
                },
                &Scale {
                    axis: Axis::logarithmic(low, high),
                    name: format!("share of all {what}s"),
                    show: small,
                },
                &curves,
            ),
            table,
            note: Some(
                "A steeper curve repeats a few more often; one that ends early has fewer different ones.".into(),
            ),
        }
    }

    /// Different n-grams over all, in equally many words of each arm.
    pub fn variety(&self) -> Table {
        let mut table = Table::new(
            "Different runs of words over all, in equally many words of each",
            &["", "distinct words", "distinct pairs", "distinct triples"],
            1,
        );
        let total = |records: &[Words]| records.iter().map(Vec::len).sum::<usize>();
        let words = self.arms.iter().map(|(_, r)| total(r)).min().unwrap_or(0);
        for (series, records) in &self.arms {
            let mut row = vec![series.name().to_string()];
            row.extend([1, 2, 3].map(|n| distinct(records, n, words).map_or("–".into(), percent)));
            table.rows.push(row);
        }
        table
    }

    /// The words that tell two arms apart the most: log odds over their standard error (Monroe, Colaresi and Quinn 2008,
    /// "Fightin' words", with half a count added to each).
    pub fn telling(&self, ours: Series, theirs: Series) -> Option<Table> {
        let counts = |wanted: Series| {
            let (_, records) = self.arms.iter().find(|(s, _)| *s == wanted)?;
            let mut counts = vec![0u64; records.iter().flatten().max().map_or(0, |w| *w as usize + 1)];
            records.iter().flatten().for_each(|w| counts[*w as usize] += 1);
            Some(counts)
        };
        let (ours_counts, theirs_counts) = (counts(ours)?, counts(theirs)?);
        let total = |c: &[u64]| c.iter().sum::<u64>() as f64;
        let (a_all, b_all) = (total(&ours_counts), total(&theirs_counts));
        let words = ours_counts.len().max(theirs_counts.len());
        let count = |c: &[u64], w: usize| c.get(w).copied().unwrap_or(0) as f64;
        let mut scored: Vec<(f64, u32)> = (0..words)
            .filter(|w| count(&ours_counts, *w) + count(&theirs_counts, *w) >= 5.0)
            .map(|w| {
                let (a, b) = (count(&ours_counts, w) + 0.5, count(&theirs_counts, w) + 0.5);
                let odds = (a / (a_all - a + 1.0)).ln() - (b / (b_all - b + 1.0)).ln();
                (odds / (1.0 / a + 1.0 / b).sqrt(), w as u32)
            })
            .collect();
        scored.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        let half = 8.min(scored.len() / 2);
        if half == 0 {
            return None;
        }
        let mut table = Table::new(
            format!(
                "Words that {} records use more, and less, than {} ones",
                ours.name(),
                theirs.name()
            ),
            &["word", "used", ours.name(), theirs.name()],
            2,
        );
        let of = |(_, word): &(f64, u32), used: &str| {
            let per = |c: &[u64], all: f64| format!("{:.1}", 1e4 * count(c, *word as usize) / all.max(1.0));
            vec![
                self.lexicon.text(&[*word]),
                used.into(),
                per(&ours_counts, a_all),
                per(&theirs_counts, b_all),
            ]
        };
        let (more, less) = (&scored[..half], &scored[scored.len() - half..]);
        table.rows.extend(more.iter().map(|w| of(w, "more")));
        table.rows.extend(less.iter().rev().map(|w| of(w, "less")));
        Some(table)
    }
}

/// Shares of the n-grams, the most used first.
fn ranked(records: &[Words], n: usize) -> Vec<f64> {
    let mut all: Vec<&[u32]> = records.iter().flat_map(|record| record.windows(n)).collect();
    all.sort_unstable();
    let total = all.len() as f64;
    let mut shares: Vec<f64> = all
        .chunk_by(|a, b| a == b)
        .map(|run| run.len() as f64 / total)
        .collect();
    shares.sort_by(|a, b| b.total_cmp(a));
    shares
}

/// A share that may be tiny.
fn small(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        p if p >= 1.0 => format!("{} %", charts::plain(p)),
        p if p >= 0.001 => format!("{} %", format!("{p:.4}").trim_end_matches('0')),
        p => format!("{p:.0e} %"),
    }
}

/// Some records of each label, the arms side by side.
pub fn samples(arms: &[Arm], labels: &LabelSpace) -> Block {
    let rows = (ROWS / labels.len()).clamp(3, 40);
    let mut shown = 0;
    let groups = (0..labels.len()).map(|label| {
        let columns: Vec<Vec<Sample>> = arms
            .iter()
            .enumerate()
            .map(|(column, arm)| {
                let of_label: Vec<&Example> = arm.examples.iter().filter(|e| e.label == label).collect();
                let chosen = spread(&of_label, rows);
                chosen
                    .map(|e| {
                        let text: String = e.text.chars().take(SHOWN).collect();
                        Sample {
                            series: arm.series,
                            name: arm.series.name(),
                            column: column + 1,
                            cut: text.len() < e.text.len(),
                            text,
                        }
                    })
                    .collect()
            })
            .collect();
        let longest = columns.iter().map(Vec::len).max().unwrap_or(0);
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        let mut row = || columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>();
        let first: Vec<Sample> = (0..longest.min(FIRST)).flat_map(|_| row()).collect();
        let more: Vec<Sample> = (FIRST..longest).flat_map(|_| row()).collect();
        shown += first.len() + more.len();
        SampleGroup {
            label: labels.name(label),
            more_rows: longest.saturating_sub(FIRST),
            first,
            more,
        }
    });
    let groups = groups.collect();
    Block::Samples(Samples {
        arms: arms
            .iter()
            .map(|arm| SampleArm {
                series: arm.series,
                name: arm.series.name(),
                records: thousands(arm.examples.len() as u64),
            })
            .collect(),
        groups,
        shown,
    })
}
