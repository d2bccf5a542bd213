//! Stage 3: synthetic records from the trained model, and zero-shot ones from the base model for comparison, by the same
//! settings.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Pipeline;
use super::files::{read_json, write_atomically};
use super::journal::Journal;
use super::prepare::Preparation;
use super::report::guarantee_metadata;
use crate::config::{Contrast, LabelPrior, NamedPrior, RefineConfig};
use crate::models::llama::Llama;
use crate::progress::Unit;
use crate::records::{LabelSpace, Vocabulary, prompt};
use crate::sampling::choose::Choice;
use crate::sampling::decode::{Decoder, Decoding, Request};
use crate::sampling::prior;
use crate::sampling::queue::Queue;
use crate::sampling::refine::{Candidate, LabelOutcome, Outcome, Refinement, Score, TRIES};
use crate::sampling::score::{Scorer, Text};
use crate::sampling::shards::{self, Schema, Synthetic};
use crate::training::trainable;
use crate::training::workers::Workers;
use crate::{Error, Result};

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let (vocabulary, base) = p.language_model()?;
    let tuned = trainable::load(&c.finetune, &base, &p.folder.trained())?.merged(&base);

    let zero_shot = c.sample.zero_shot_records.unwrap_or(c.sample.records);
    sample_arm(
        p,
        "synthetic",
        &tuned,
        &vocabulary,
        c.sample.records,
        guarantee_metadata(p)?,
    )?;
    drop(tuned);
    let untouched = vec![(
        "dp.mechanism".to_string(),
        "none: no private record was read".to_string(),
    )];
    sample_arm(p, "zero_shot", &base, &vocabulary, zero_shot, untouched)
}

/// A line of the journal: a record, or what is left of one that stayed blank.
#[derive(Serialize, Deserialize)]
struct Drawn {
    id: u64,
    label: usize,
    #[serde(default, skip_serializing_if = "is_first")]
    round: u64,
    /// None where every try was blank.
    text: Option<String>,
    /// As drawn, with the end token unless it was cut off; kept only where they are scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<u32>,
}

fn is_first(round: &u64) -> bool {
    *round == 0
}

/// A line of the journal of scores.
#[derive(Serialize, Deserialize)]
struct Scored {
    id: u64,
    round: u64,
    scores: Vec<Score>,
}

/// What came of sampling an arm: of synthetic records alone.
#[derive(Serialize)]
struct Sampled<'a> {
    arm: &'a str,
    /// Places for records, all labels together.
    wanted: usize,
    drawn: usize,
    /// Records in the shards.
    kept: usize,
    dropped: usize,
    relabelled: usize,
    missing: usize,
    /// Candidates that stayed blank.
    blank: usize,
    refine: &'a RefineConfig,
    rounds: u64,
    agreement: Option<f64>,
    mean_posterior: Option<f64>,
    kept_mean_posterior: Option<f64>,
    labels: Vec<SampledLabel>,
}

#[derive(Serialize)]
struct SampledLabel {
    name: String,
    #[serde(flatten)]
    outcome: LabelOutcome,
    /// In nats; none where nothing was centred.
    bias: Option<f64>,
}

/// Draws an arm into its shards, unless they are there.
pub fn sample_arm(
    p: &Pipeline,
    name: &str,
    model: &Llama,
    vocabulary: &Vocabulary,
    records: usize,
    metadata: Vec<(String, String)>,
) -> Result<()> {
    let c = &p.config;
    if p.folder.shards(name).exists() {
        return Ok(());
    }
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    let preparation = Preparation::read(&p.folder)?;
    let wanted = wanted(p, labels.len(), records)?;
    let mut arm = Arm {
        p,
        name,
        vocabulary,
        decoder: decoder(p, model, vocabulary, &preparation.prompts)?,
        scorer: c
            .sample
            .refine
            .is_on()
            .then(|| Scorer::new(model, &preparation.prompts)),
        workers: Workers::new(model),
        journal: Journal::open(&p.folder.journal(name))?,
    };
    let mut refinement = Refinement::new(&c.sample.refine, wanted, labels.len(), c.sample.seed);
    loop {
        let open = refinement.open();
        if open.is_empty() {
            break;
        }
        arm.draw(&open, refinement.round())?;
        let candidates = arm.score(&refinement)?;
        refinement.take(candidates);
    }
    let (taken, outcome) = refinement.end();
    let drawn: HashMap<(u64, u64), &Drawn> = arm.journal.lines().iter().map(|d| ((d.id, d.round), d)).collect();
    let records: Vec<Synthetic> = taken
        .iter()
        .filter_map(|t| {
            let drawn = drawn.get(&(t.request.id, t.request.attempt / TRIES))?;
            Some(Synthetic {
                id: t.place,
                label: t.label,
                text: drawn.text.clone()?,
            })
        })
        .collect();
    let blank = arm.journal.lines().iter().filter(|d| d.text.is_none()).count();
    arm.report(&labels, &outcome, blank)?;
    let schema = Schema {
        text: &c.dataset.text,
        labels: &labels,
        metadata,
    };
    shards::write(&p.folder.shards(name), &records, c.sample.shard_records, &schema)
}

/// The label of each record, from a prior that is public or paid for.
fn wanted(p: &Pipeline, labels: usize, records: usize) -> Result<Vec<usize>> {
    let prior = &p.config.sample.label_prior;
    let noisy: Option<Vec<u64>> = match p.folder.label_counts() {
        path if path.exists() => Some(read_json(&path)?),
        _ => None,
    };
    let counted = noisy.iter().flatten().any(|count| *count > 0);
    if *prior == LabelPrior::Named(NamedPrior::Noisy) && !counted {
        p.progress
            .note("there are no noisy label counts above zero: labels are drawn uniformly");
    }
    Ok(prior::labels(&prior::counts(prior, noisy.as_deref(), labels, records)?))
}

fn decoder(p: &Pipeline, model: &Llama, vocabulary: &Vocabulary, prompts: &[Vec<u32>]) -> Result<Decoder> {
    let decoder = Decoder::new(model, prompts, decoding(p, vocabulary))?;
    let c = &p.config;
    match prompt::marginal(&c.prompt, vocabulary.chat_template())? {
        Some(text) if c.sample.guidance_contrast == Contrast::Marginal => decoder.against(&vocabulary.prompt(&text)?),
        _ => Ok(decoder),
    }
}

fn decoding(p: &Pipeline, vocabulary: &Vocabulary) -> Decoding {
    let s = &p.config.sample;
    Decoding {
        choice: Choice {
            temperature: s.temperature,
            top_p: s.top_p,
            guidance: s.guidance,
            plausibility: s.guidance_plausibility,
        },
        guidance_end: s.guidance_end,
        contrasts: s.guidance_labels,
        max_tokens: s.max_tokens.unwrap_or(p.config.prepare.max_tokens),
        end: vocabulary.end(),
        seed: s.seed,
    }
}

/// An arm whose records are being drawn and scored.
struct Arm<'a> {
    p: &'a Pipeline<'a>,
    name: &'a str,
    vocabulary: &'a Vocabulary,
    decoder: Decoder,
    /// Where anything is refined.
    scorer: Option<Scorer>,
    workers: Workers,
    journal: Journal<Drawn>,
}

impl Arm<'_> {
    /// Draws what the journal has not got of a round's requests.
    fn draw(&mut self, requests: &[Request], round: u64) -> Result<()> {
        let s = &self.p.config.sample;
        let lines = self.journal.lines().iter().filter(|d| d.round == round);
        let have: HashSet<u64> = lines.map(|d| d.id).collect();
        let open: Vec<Request> = requests.iter().copied().filter(|r| !have.contains(&r.id)).collect();
        // The last of them are shared out too.
        let side_by_side = s.batch_size.min(open.len().div_ceil(self.workers.count())).max(1);
        let (vocabulary, settings, keep_tokens) = (self.vocabulary, self.decoder.settings(), self.scorer.is_some());

        let task = match round {
            0 => self.name.to_string(),
            _ => format!("{}, again {round}", self.name),
        };
        let task = self.p.progress.begin(&task, requests.len() as u64, Unit::Records);
        let begun = Instant::now();
        let keeper = Mutex::new((&mut self.journal, task, have.len() as u64, 0u64));
        let done = |request: Request, tokens: Vec<u32>| {
            let text = whole_characters(&vocabulary.decode(&tokens)?).trim().to_string();
            let (journal, task, records, drawn) = &mut *keeper.lock().expect("nobody panics with the journal in hand");
            *drawn += tokens.len() as u64;
            if text.is_empty() && request.attempt + 1 < (round + 1) * TRIES {
                return Ok(Some(Request {
                    attempt: request.attempt + 1,
                    ..request
                }));
            }
            let text = (!text.is_empty()).then_some(text);
            journal.add(Drawn {
                id: request.id,
                label: request.label,
                round,
                tokens: if keep_tokens && text.is_some() {
                    settings.ended(tokens)
                } else {
                    Vec::new()
                },
                text,
            })?;
            *records += 1;
            let rate = *drawn as f64 / begun.elapsed().as_secs_f64();
            task.set(*records, &format!("{rate:.0} tokens/s"));
            Ok(None)
        };
        let queue = Queue::new(open).until(self.p.stop);
        let ends = self.decoder.run_on(&self.workers, &queue, side_by_side, done);
        let (journal, _, records, _) = keeper.into_inner().expect("nobody panics with the journal in hand");
        let synced = journal.sync();
        for end in ends {
            end?;
        }
        synced?;
        self.whole(records, requests.len())
    }

    /// The candidates of the round, scored where anything is refined; without the blank ones.
    fn score(&self, refinement: &Refinement) -> Result<Vec<Candidate>> {
        let round = refinement.round();
        let lines = self.journal.lines().iter();
        let drawn: Vec<(&Drawn, Request)> = lines
            .filter(|d| d.round == round && d.text.is_some())
            .map(|d| {
                let request = Request {
                    id: d.id,
                    attempt: round * TRIES,
                    label: d.label,
                };
                (d, request)
            })
            .collect();
        let mut found = match &self.scorer {
            Some(scorer) => self.scores(scorer, refinement, &drawn)?,
            None => HashMap::new(),
        };
        let candidate = |(d, request): (&Drawn, Request)| Candidate {
            request,
            scores: found.remove(&d.id).unwrap_or_default(),
        };
        Ok(drawn.into_iter().map(candidate).collect())
    }

    /// The scores of a round's records by id: the journal's, and those that it has not got yet.
    fn scores(
        &self,
        scorer: &Scorer,
        refinement: &Refinement,
        drawn: &[(&Drawn, Request)],
    ) -> Result<HashMap<u64, Vec<Score>>> {
        let round = refinement.round();
        let mut journal: Journal<Scored> = Journal::open(&self.p.folder.score_journal(self.name))?;
        let of_round = |journal: &Journal<Scored>| -> HashMap<u64, Vec<Score>> {
            let lines = journal.lines().iter().filter(|s| s.round == round);
            lines.map(|s| (s.id, s.scores.clone())).collect()
        };
        let have = of_round(&journal);
        let open: Vec<&(&Drawn, Request)> = drawn.iter().filter(|(d, _)| !have.contains_key(&d.id)).collect();
        let labels: Vec<Vec<usize>> = open.iter().map(|(_, r)| refinement.labels_of(*r)).collect();
        let texts = open.iter().zip(&labels).map(|((d, _), labels)| Text {
            tokens: &d.tokens,
            labels,
        });
        let texts: Vec<Text> = texts.collect();

        let task = format!("{}, scored", self.name);
        let task = Mutex::new(self.p.progress.begin(&task, drawn.len() as u64, Unit::Records));
        let (begun, mut records, mut tokens) = (Instant::now(), have.len(), 0);
        let whole = scorer.score_on(&self.workers, &texts, self.p.stop, |i, values| {
            let scores = labels[i]
                .iter()
                .zip(values)
                .map(|(label, log_p)| Score { label: *label, log_p });
            journal.add(Scored {
                id: open[i].0.id,
                round,
                scores: scores.collect(),
            })?;
            records += 1;
            tokens += texts[i].tokens.len() * labels[i].len();
            let rate = tokens as f64 / begun.elapsed().as_secs_f64();
            let task = task.lock().expect("showing progress does not panic");
            task.set(records as u64, &format!("{rate:.0} tokens/s"));
            Ok(())
        })?;
        journal.sync()?;
        if !whole {
            self.whole(records as u64, drawn.len())?;
        }
        Ok(of_round(&journal))
    }

    /// An error where it was stopped before all were done.
    fn whole(&self, records: u64, all: usize) -> Result<()> {
        if records == all as u64 {
            return Ok(());
        }
        Err(
            Error::interrupted(format!("stopped with {records} of {all} records of `{}`", self.name))
                .hint("the same command goes on from here"),
        )
    }

    /// Notes and writes what came of it.
    fn report(&self, labels: &LabelSpace, outcome: &Outcome, blank: usize) -> Result<()> {
        let sum = |part: fn(&LabelOutcome) -> usize| outcome.labels.iter().map(part).sum::<usize>();
        let refine = &self.p.config.sample.refine;
        let (wanted, kept) = (sum(|l| l.wanted), sum(|l| l.kept));
        if kept == 0 {
            return Err(Error::data(format!(
                "{}: none of {} records shows its label well enough to be kept",
                self.name,
                sum(|l| l.drawn)
            ))
            .hint("a smaller sample.refine.min_posterior, or a larger sample.guidance"));
        }
        let sampled = Sampled {
            arm: self.name,
            wanted,
            drawn: sum(|l| l.drawn),
            kept,
            dropped: sum(|l| l.dropped),
            relabelled: sum(|l| l.relabelled),
            missing: sum(|l| l.missing),
            blank,
            refine,
            rounds: outcome.rounds,
            agreement: outcome.agreement,
            mean_posterior: outcome.mean_posterior,
            kept_mean_posterior: outcome.kept_mean_posterior,
            labels: outcome
                .labels
                .iter()
                .enumerate()
                .map(|(label, of_label)| SampledLabel {
                    name: labels.name(label),
                    outcome: *of_label,
                    bias: outcome.bias.get(label).copied(),
                })
                .collect(),
        };
        if let (Some(agreement), Some(posterior)) = (sampled.agreement, sampled.mean_posterior) {
            self.p.progress.note(&format!(
                "{}: the model finds the wanted label in {:.1} % of the first {wanted} records, with a mean posterior of {posterior:.3}",
                self.name,
                100.0 * agreement,
            ));
        }
        if refine.is_on() {
            self.p.progress.note(&format!(
                "{}: {kept} of {wanted} records are kept, {} of {} drawn were dropped, {} bear another label than they were drawn for",
                self.name, sampled.dropped, sampled.drawn, sampled.relabelled
            ));
        } else if blank > 0 {
            self.p.progress.note(&format!(
                "{}: {blank} of {wanted} records stayed blank after {TRIES} tries and are left out",
                self.name
            ));
        }
        let text = serde_json::to_string_pretty(&sampled).expect("a report serialises");
        write_atomically(&self.p.folder.sampled(self.name), text.as_bytes())
    }
}

/// Without the replacement characters of a last character that was cut off.
fn whole_characters(text: &str) -> &str {
    text.trim_end_matches(char::REPLACEMENT_CHARACTER)
}
