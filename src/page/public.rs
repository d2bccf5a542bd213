//! The page for everyone: what is public, charged, or made of synthetic records alone (P9).
//!
//! [`PublicPage`] is made of [`PublicFacts`] and nothing else: it has no way to a run's folder. The facts hold the
//! guarantee, declared settings, what came of sampling, and synthetic and zero-shot records. They have no place for a
//! score, a loss, a timing, a path or a count of private records.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::charts::Series;
use super::guarantee::ShownGuarantee;
use super::lexicon;
use super::sections::{sampling, settings, terms};
use super::texts::{Arm, Counted, samples};
use super::tradeoff;
use super::view::{Block, Section, Table, View};
use crate::Result;
use crate::config::{Named, RunConfig};
use crate::documents::{Lexicon, Sampled};
use crate::evaluation::Example;
use crate::facts::attacks::Attacks;
use crate::facts::{Facts, wording};
use crate::privacy::Guarantee;
use crate::privacy::accountant::Adjacency;
use crate::records::{LabelSpace, Record};
use crate::run::table;

/// What may leave.
pub struct PublicFacts {
    /// The run's name.
    pub run: String,
    /// The dataset's name for people.
    pub title: String,
    /// `model/privacy.json`.
    pub guarantee: Guarantee,
    /// What attacks on membership can do, and points of the curve.
    pub attacks: (Attacks, Vec<(f64, f64)>),
    /// The same in a sentence.
    pub attacks_plain: String,
    /// What it means, in plain words.
    pub plain: String,
    /// The same whole, in a line (P10).
    pub sentence: String,
    /// The language model's name, as the configuration has it.
    pub base_model: String,
    /// Declared labels.
    pub labels: LabelSpace,
    /// Declared settings by their dotted key.
    pub settings: Vec<(&'static str, String)>,
    /// What came of sampling, by arm: `sampling/synthetic.json` and `sampling/zero_shot.json`.
    pub sampling: Vec<(Series, Sampled)>,
    /// What was counted of tokens by label, where that was planned.
    pub lexicon: Option<Lexicon>,
    pub synthetic: Vec<Example>,
    pub zero_shot: Vec<Example>,
    pub program_version: String,
}

impl PublicFacts {
    /// Of what a release is made of.
    ///
    /// # Errors
    /// Data: a shard is damaged.
    pub fn of(facts: &Facts) -> Result<Self> {
        let config = &facts.config;
        let labels = LabelSpace::from_config(&config.dataset.labels)?;
        let records = |files: &[PathBuf]| -> Result<Vec<Example>> {
            let of = |r: Record| Example {
                text: r.text,
                label: r.label,
            };
            Ok(table::read_files(files, config)?.into_iter().map(of).collect())
        };
        let sampled = [
            (Series::Synthetic, &facts.synthetic),
            (Series::ZeroShot, &facts.zero_shot),
        ];
        Ok(PublicFacts {
            run: facts.run.clone(),
            title: facts.title(),
            guarantee: facts.guarantee.clone(),
            attacks: Attacks::with_points(&facts.guarantee.phases()?, Adjacency::AddOrRemoveOne)?,
            attacks_plain: wording::attacks(facts.attacks()?, &facts.unit()),
            plain: wording::plain("This dataset", &facts.unit(), &facts.guarantee),
            sentence: facts.guarantee.to_string(),
            base_model: facts.base_model.name.clone(),
            settings: declared(config),
            sampling: sampled
                .into_iter()
                .filter_map(|(series, sampled)| Some((series, sampled.clone()?)))
                .collect(),
            lexicon: facts.lexicon.clone(),
            synthetic: records(&facts.shards)?,
            zero_shot: records(&facts.zero_shot_shards)?,
            labels,
            program_version: facts.program_version.to_string(),
        })
    }
}

/// Settings that say nothing of the private records or of this machine: no path, no seed of the noise, no device.
pub fn declared(c: &RunConfig) -> Vec<(&'static str, String)> {
    let (f, s) = (&c.finetune, &c.sample);
    let mut out = vec![
        ("dataset.public_size", c.dataset.public_size.to_string()),
        ("prompt.user", c.prompt.user.clone()),
        ("prepare.max_tokens", c.prepare.max_tokens.to_string()),
        ("finetune.method", named(&f.method)),
        ("finetune.expected_batch_size", f.expected_batch_size.to_string()),
        ("finetune.learning_rate", f.learning_rate.to_string()),
        ("finetune.clipping", named(&f.clipping)),
        ("finetune.objective.contrast", f.objective.contrast.to_string()),
        ("finetune.objective.mismatch", f.objective.mismatch.to_string()),
        ("finetune.warm_start.records", f.warm_start.records.to_string()),
        ("sample.records", s.records.to_string()),
        ("sample.label_prior", named(&s.label_prior)),
        ("sample.temperature", s.temperature.to_string()),
        ("sample.top_p", s.top_p.to_string()),
        ("sample.guidance", named(&s.guidance)),
        ("sample.refine.min_posterior", s.refine.min_posterior.to_string()),
        ("sample.refine.rounds", s.refine.rounds.to_string()),
    ];
    if c.lexicon.is_on() {
        out.extend([
            ("lexicon.share", c.lexicon.share.to_string()),
            ("lexicon.scorer_share", c.lexicon.scorer_share.to_string()),
            ("lexicon.max_tokens", c.lexicon.max_tokens.to_string()),
            ("lexicon.max_norm", c.lexicon.max_norm.to_string()),
            ("lexicon.scorer_steps", c.lexicon.scorer_steps.to_string()),
            ("lexicon.scorer_tokens", c.lexicon.scorer_tokens.to_string()),
            (
                "lexicon.encoder",
                Named::of(c.lexicon.encoder().unwrap_or("none")).public().to_string(),
            ),
            ("lexicon.encoder_max_tokens", c.lexicon.encoder_max_tokens.to_string()),
            ("sample.lexicon_weight", named(&s.lexicon_weight)),
            ("sample.domain_weight", s.domain_weight.to_string()),
        ]);
    }
    if c.audit.holdout > 0.0 {
        out.push(("audit.holdout", c.audit.holdout.to_string()));
    }
    if f.method.is_low_rank() {
        out.insert(4, ("finetune.rank", f.rank.to_string()));
    }
    out
}

/// A setting as its TOML has it.
fn named<T: Serialize>(setting: &T) -> String {
    match serde_json::to_value(setting) {
        Ok(Value::String(text)) => text,
        Ok(value) => value.to_string(),
        Err(_) => "?".into(),
    }
}

/// The page for everyone.
pub struct PublicPage(View);

impl PublicPage {
    /// Of what may leave.
    pub fn of(facts: &PublicFacts) -> Self {
        let guarantee = ShownGuarantee::of(&facts.guarantee);
        let arm = |series, examples: &[Example]| Arm {
            series,
            examples: examples.to_vec(),
        };
        let arms = [
            arm(Series::Synthetic, &facts.synthetic),
            arm(Series::ZeroShot, &facts.zero_shot),
        ];
        let records = Section {
            id: "records",
            title: "Records",
            intro: "What the synthetic records look like, beside zero-shot ones: what the language model writes for the same prompts without ever having seen a private record.".into(),
            mark: None,
            blocks: vec![samples(&arms, &facts.labels)],
        };
        let mut texts = Section {
            id: "texts",
            title: "Length and words",
            intro:
                "How long the records are and how varied their words. Nothing here was compared with private records."
                    .into(),
            mark: None,
            blocks: Vec::new(),
        };
        if let Some(counted) = Counted::of(&arms) {
            texts.blocks.extend([
                counted.lengths(),
                counted.ranks(1),
                Block::Table {
                    table: counted.variety(),
                    note: None,
                    folded: false,
                },
            ]);
        }
        let meaning = [
            facts.attacks_plain.clone(),
            facts.plain.clone(),
            format!("In full: {}.", facts.sentence),
            "It covers the records that were trained on. It does not cover what the language model had read before in public texts, nor what many records have in common: that is what the synthetic records are made to keep.".to_string(),
        ];
        let privacy = Section {
            id: "guarantee",
            title: "The guarantee",
            intro: format!("{}.", guarantee.sentence),
            mark: None,
            blocks: vec![
                tradeoff::drawn(&facts.attacks.0, &facts.attacks.1, &guarantee),
                Block::Table {
                    table: terms(&guarantee),
                    note: None,
                    folded: false,
                },
            ],
        };
        let mut made = Section {
            id: "made",
            title: "How they were made",
            intro: "Declared settings, and what came of drawing the records.".into(),
            mark: None,
            blocks: Vec::new(),
        };
        made.blocks
            .extend(sampling(facts.sampling.iter().map(|(s, v)| (*s, v))));
        made.blocks.push(Block::Table {
            table: settings(&facts.settings),
            note: None,
            folded: false,
        });
        let mut labels = Table::new("Synthetic records by label", &["label", "synthetic", "zero-shot"], 1);
        for label in 0..facts.labels.len() {
            let count = |examples: &[Example]| examples.iter().filter(|e| e.label == label).count().to_string();
            labels.rows.push(vec![
                facts.labels.name(label),
                count(&facts.synthetic),
                count(&facts.zero_shot),
            ]);
        }
        let many = facts.labels.len() > 12;
        made.blocks.push(Block::Table {
            table: labels,
            note: None,
            folded: many,
        });
        let lexicon = (facts.lexicon.as_ref()).map(|known| lexicon::section(known, &facts.labels, &guarantee));
        let n = super::charts::thousands(facts.synthetic.len() as u64);
        PublicPage(View {
            title: format!("{}: synthetic records", facts.title),
            run: facts.run.clone(),
            lead: format!(
                "{n} synthetic records with {} labels, made from private ones under differential privacy.",
                facts.labels.len()
            ),
            facts: vec![
                format!("base model {}", facts.base_model),
                format!("dpsynth {}", facts.program_version),
            ],
            marks: guarantee.caveat.iter().cloned().collect(),
            missing: Vec::new(),
            guarantee: Some(guarantee),
            attacks: None,
            answer_title: "In plain words",
            answer: meaning.into_iter().map(|text| Block::Text { text }).collect(),
            verdict: None,
            sections: [Some(privacy), lexicon, Some(records), Some(texts), Some(made)]
                .into_iter()
                .flatten()
                .collect(),
            program_version: facts.program_version.clone(),
        })
    }

    /// As one HTML file.
    ///
    /// # Errors
    /// The template does not render: a fault of the program.
    pub fn html(&self) -> Result<String> {
        super::render(&self.0, false)
    }
}
