//! The page for those who may see the private records: everything a run knows of itself.

use std::path::Path;

use super::charts::{Series, thousands};
use super::data::Data;
use super::guarantee::ShownGuarantee;
use super::lexicon;
use super::neighbours::{self, Neighbours};
use super::texts::{Counted, samples};
use super::view::{Block, Missing, Pair, Pairs, Section, View};
use super::{made::made, privacy, runs::runs, usefulness};
use crate::Result;
use crate::config::RunConfig;
use crate::documents::Report;
use crate::evaluation::{ArmName, Classifier};
use crate::facts::attacks::Attacks;
use crate::facts::wording;
use crate::number::percent;
use crate::privacy::accountant::Adjacency;
use crate::records::LabelSpace;
use crate::run::keys::stages;
use crate::run::{RunPaths, Stage, unit};

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
    let guarantee = r.privacy.as_ref().map(ShownGuarantee::of);
    let verdict = privacy::verdict(d, paths);
    let proven = r.privacy.as_ref().filter(|g| g.private && g.unproven().is_none());
    let attacks = proven.and_then(|g| Attacks::with_points(&g.phases().ok()?, Adjacency::AddOrRemoveOne).ok());
    let mut marks: Vec<String> = guarantee.iter().filter_map(|g| g.caveat.clone()).collect();
    marks.extend(
        (verdict.as_ref().filter(|v| matches!(v.state, "fail" | "advice")))
            .map(|v| format!("{}: {}", v.headline, v.text)),
    );
    let real = (d.arm(Series::Real), d.arm(Series::Synthetic));
    let near = match real {
        (Some(training), Some(synthetic)) => neighbours::nearest(synthetic, training, &d.held_out),
        _ => None,
    };
    let sections = [
        Some(usefulness::usefulness(d)),
        Some(privacy::privacy(d, guarantee.as_ref(), attacks.as_ref())),
        (d.lexicon.as_ref().zip(guarantee.as_ref())).map(|(known, g)| lexicon::section(known, &d.labels, g)),
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
        attacks: attacks
            .as_ref()
            .map(|(attacks, _)| wording::attacks(attacks, &unit(d.config))),
        answer_title: "Usefulness",
        answer: usefulness::scores(d).into_iter().collect(),
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
    match Stage::ALL.into_iter().rfind(|s| d.report.is_done(*s)) {
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
        None => format!("base model {}", c.model.name()),
    });
    out
}

fn missing(d: &Data) -> Vec<Missing> {
    let stages = stages(d.config).into_iter().filter(|s| !d.report.is_done(*s));
    let of = |stage: Stage| Missing {
        stage: stage.name(),
        what: match stage {
            Stage::Prepare => "reads, cleans and tokenises the records",
            Stage::Finetune => "trains the model privately: until then nothing is guaranteed",
            Stage::Sample => "draws synthetic and zero-shot records",
            Stage::References => "trains on the real records, to compare with",
            Stage::Evaluate => "says what the records are worth",
        },
    };
    stages.map(of).collect()
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
