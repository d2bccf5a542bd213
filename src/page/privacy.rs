//! What was claimed, tried and spent: the audit, loss against epsilon, the ledger.

use super::charts::{self, Axis, Curve, Frame, Level, Point, Scale, Series};
use super::data::{Data, Step};
use super::guarantee::ShownGuarantee;
use super::sections::terms;
use super::tradeoff;
use super::view::{self, Block, Section, Table};
use crate::documents::{Findings, Verdict};
use crate::evaluation::quality::disclosures::CameBack;
use crate::facts::attacks::Attacks;
use crate::number::{delta, down, percent, up};
use crate::privacy::{Guarantee, TRAINING};
use crate::run::RunPaths;

/// Runs that the ledger's picture shows, the latest.
const RUNS_SHOWN: usize = 20;

pub fn verdict(d: &Data, paths: &RunPaths) -> Option<view::Verdict> {
    d.report.privacy.as_ref()?;
    let command = format!("dpsynth audit {}", paths.root().display());
    let Some(audit) = &d.audit else {
        return Some(view::Verdict {
            state: "none",
            headline: "Not audited yet".into(),
            text: "Nobody has tried to break this claim.".into(),
            command: Some(command),
        });
    };
    if !same_claim(d, audit) {
        return Some(view::Verdict {
            state: "none",
            headline: "Not audited as it is now".into(),
            text: "The findings that are kept are of a claim with other numbers.".into(),
            command: Some(command),
        });
    }
    Some(match audit.verdict {
        Verdict::Pass => view::Verdict {
            state: "pass",
            headline: "The claim stood".into(),
            text: format!(
                "No attack refuted it. The largest lower bound on epsilon is {} (at the claim's delta, adjacency, unit and \
                 sampler; {:.0} % confidence, under the assumptions named below). That does not prove the claim. {FILES}",
                down(audit.epsilon_lower(), 3),
                100.0 * audit.confidence
            ),
            command: None,
        },
        Verdict::Advice => view::Verdict {
            state: "advice",
            headline: "An attack found more than is claimed".into(),
            text: format!(
                "{}. Chance alone does this in up to one audit in twenty: audit again before you publish. `dpsynth release` does \
                 not look at it, since the attack reads private records. {FILES}",
                audit.advice.join("; ")
            ),
            command: Some(command),
        },
        Verdict::Fail => view::Verdict {
            state: "fail",
            headline: "THE CLAIM DOES NOT HOLD".into(),
            text: format!("{}. Release nothing of this run.", audit.refutations()),
            command: Some(command),
        },
    })
}

/// What the page leaves to others.
const FILES: &str = "The page does not check that the files are still those that were audited; `dpsynth release` does.";

/// Whether the audit's claim has the numbers of the run's claim. Files are not compared.
fn same_claim(d: &Data, audit: &Findings) -> bool {
    let numbers = |g: &Guarantee| {
        let training = g.training().map(|t| (t.noise_multiplier, t.steps));
        (g.epsilon, g.delta, training)
    };
    d.report
        .privacy
        .as_ref()
        .is_some_and(|now| numbers(now) == numbers(&audit.claim))
}

pub fn privacy(d: &Data, guarantee: Option<&ShownGuarantee>, bounds: Option<&(Attacks, Vec<(f64, f64)>)>) -> Section {
    let mut blocks = Vec::new();
    blocks.extend((guarantee.zip(bounds)).map(|(shown, (attacks, points))| tradeoff::drawn(attacks, points, shown)));
    blocks.extend(attacks(d));
    blocks.extend(disclosures(d));
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

/// Strings of one real record that came back, beside those that cannot have been learned.
fn disclosures(d: &Data) -> Option<Block> {
    let all = d.report.quality.as_ref()?.disclosures.as_ref()?;
    let mut table = Table::new(
        "Strings of one real record that a synthetic record also has",
        &[
            "",
            "of training records",
            "came back",
            "of held-out records",
            "came back",
            "p",
        ],
        1,
    );
    for of in all {
        let share = |side: &CameBack| format!("{} ({})", side.came_back, percent(side.share()));
        table.rows.push(vec![
            of.kind.name().into(),
            of.training.strings.to_string(),
            share(&of.training),
            of.held_out.strings.to_string(),
            share(&of.held_out),
            format!("{:.3}", of.p_value),
        ]);
    }
    Some(Block::Table {
        table,
        note: Some(
            "Nothing was learned from held-out records: theirs came back by chance, or because the model knew them before. If \
             held-out records are a random share and theirs come back as often, there is no sign of disclosure. p (Fisher's exact \
             test) treats strings as independent; those of one record are not, so a small p is a hint."
                .into(),
        ),
        folded: false,
    })
}

/// What each attack found, beside the claim.
fn attacks(d: &Data) -> Vec<Block> {
    let Some(audit) = d.audit.as_ref().filter(|a| same_claim(d, a)) else {
        return Vec::new();
    };
    let claim = audit.claim.epsilon;
    let meaning = ShownGuarantee::of(&audit.claim);
    let mut table = Table::new(
        format!("What each attack found, beside {}", meaning.sentence),
        &["attack", "epsilon is at least", "of the claim", "rests on"],
        1,
    );
    let mut levels = Vec::new();
    for bound in &audit.lower_bounds {
        let lower = bound.epsilon_lower;
        let name = bound.attack.to_string();
        table.rows.push(vec![
            name.clone(),
            down(lower, 3),
            format!("{:.0} %", 100.0 * lower / claim),
            bound.rests_on.to_string(),
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
                title: "What the attacks found".into(),
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
            "Together with {:.0} % confidence, at the claim's delta, adjacency, unit and sampler. A bound above the claim speaks against it; none below proves it.",
            100.0 * audit.confidence
        )),
    }];
    let mut items: Vec<String> = (audit.contamination.iter())
        .map(|c| format!("What the model had read before is covered by no guarantee: {c}."))
        .collect();
    items.push(format!(
        "Replay: one record moved the clipped sum by at most {:.9} of the clipping norm, and what others contribute by {:.1e} of it, {} what is charged.",
        audit.replay.worst_ratio,
        audit.replay.worst_others.unwrap_or_default(),
        if audit.replay.within_charge { "within" } else { "BEYOND" }
    ));
    for e in audit.echo.iter().flat_map(|echo| &echo.at) {
        items.push(format!(
            "Echo: AUC {:.3} by trigrams and {:.3} by an auxiliary model for canaries with {} in the data. 0.5 is guessing; the guarantee is for one record.",
            e.trigrams.value,
            e.auxiliary_model.value,
            match e.repetitions {
                1 => "one copy".to_string(),
                copies => format!("{copies} copies"),
            }
        ));
    }
    if let Some(m) = &audit.membership {
        items.push(format!(
            "Membership: from synthetic and zero-shot texts, training records were told from records that never trained with AUC {:.3}; without any synthetic text {:.3}. 0.5 is guessing.",
            m.auc.value, m.blind_auc.value
        ));
    }
    items.extend(audit.notes.iter().cloned());
    out.push(Block::List {
        title: "What the audit noted".into(),
        items,
    });
    out
}

/// Loss against what was spent.
fn training(d: &Data, guarantee: &ShownGuarantee) -> Option<Block> {
    let losses: Vec<f64> = d.steps.iter().filter_map(|s| s.mean_loss).collect();
    if losses.is_empty() {
        return None;
    }
    let known = d.steps.iter().all(|s| s.epsilon.is_some_and(f64::is_finite));
    let x = |s: &Step| match known {
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
pub fn at(guarantee: &ShownGuarantee) -> String {
    let term = |name: &str| {
        let mut terms = guarantee.terms.iter();
        terms
            .find(|(term, _)| *term == name)
            .map_or("?", |(_, value)| value.as_str())
    };
    format!("delta {}", term("delta"))
}

/// What all runs on the records have spent, and what is left: the total less what its wall counts for a run planned now.
fn budget(d: &Data) -> Option<Block> {
    let ledger = d.ledger.as_ref()?;
    let spent = ledger.charged_epsilon().ok()?;
    let reserved = ledger.reserved_epsilon().ok()?.max(spent);
    let counted = ledger.counted_before_another().ok()?.epsilon;
    let total = ledger.total_epsilon;
    let meaning = format!(
        "delta {}, adjacency add or remove one, unit {}, sampler {}, accountant pld",
        delta(ledger.delta, 2),
        ledger.unit,
        ledger.sampler()
    );
    let left = (total - counted).max(0.0);
    let mut levels = vec![Level {
        name: format!("All runs together: {} spent", up(spent, 3)),
        value: spent,
        set_aside: counted.max(reserved),
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
    if counted > reserved {
        table.rows.push(vec![
            "counted for a run planned now, by a filter".into(),
            up(counted, 3),
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
            format!("{} of {}", run.charged_steps(), run.parameters.times(TRAINING.name())),
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
    let mut note = format!(
        "Epsilon at {meaning}. The total is composed; it is not the sum of the lines. For runs planned after a charge, a filter counts."
    );
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
