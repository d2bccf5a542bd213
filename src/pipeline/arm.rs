//! Records of one model, steered one way, drawn and scored round by round, with a journal of both.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Pipeline;
use super::journal::Journal;
use super::scorers::Scorers;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::progress::Unit;
use crate::records::Vocabulary;
use crate::sampling::decode::{Decoder, Request};
use crate::sampling::drawn::{self, Drawn};
use crate::sampling::evidence::Evidence;
use crate::sampling::guide::Steering;
use crate::sampling::queue::Queue;
use crate::sampling::refine::{Candidate, Outcome, Refinement, Score, TRIES, Taken};
use crate::sampling::score::{Scorer, Text};
use crate::{Error, Result};

/// What records are drawn from.
pub struct Source<'a> {
    pub p: &'a Pipeline<'a>,
    pub model: &'a LanguageModel,
    pub vocabulary: &'a Vocabulary,
    /// Of each label.
    pub prompts: &'a [Vec<u32>],
    /// What tokens say of labels, where that was paid for.
    pub evidence: Option<&'a Evidence>,
    /// What judges records instead of the model that drew them.
    pub scorers: Option<&'a Scorers<'a>>,
}

impl Source<'_> {
    /// An arm that is called `name` and steered by `steering`; its records are scored where `scored`. `journals` hold what was
    /// drawn and its scores, from an earlier start too.
    ///
    /// # Errors
    /// Usage: records longer than the model's context. Data: the marginal prompt is none. Other: a journal cannot be read.
    pub fn arm(
        &self,
        name: String,
        steering: Steering,
        scored: bool,
        [drawn, scores]: [PathBuf; 2],
    ) -> Result<Arm<'_>> {
        Ok(Arm {
            p: self.p,
            name,
            vocabulary: self.vocabulary,
            decoder: drawn::decoder(
                &self.p.config,
                self.model,
                self.vocabulary,
                self.prompts,
                steering,
                self.evidence,
            )?,
            judge: match self.scorers {
                _ if !scored => None,
                Some(scorers) => Some(Judge::Scorers(scorers)),
                None => Some(Judge::Model(Box::new(Scorer::new(self.model, self.prompts)))),
            },
            workers: Workers::on(&self.model.device()),
            journal: Journal::open(&drawn)?,
            scores,
        })
    }
}

/// A line of the journal of scores.
#[derive(Serialize, Deserialize)]
struct Scored {
    id: u64,
    round: u64,
    scores: Vec<Score>,
}

/// Records that scorers judge at once.
const JUDGED: usize = 64;

/// Says what a record shows of its label.
enum Judge<'a> {
    /// The model that drew it: log p(text|label).
    Model(Box<Scorer>),
    /// What was learned privately.
    Scorers(&'a Scorers<'a>),
}

/// An arm whose records are being drawn and scored.
pub struct Arm<'a> {
    p: &'a Pipeline<'a>,
    name: String,
    vocabulary: &'a Vocabulary,
    decoder: Decoder,
    /// Where anything is refined.
    judge: Option<Judge<'a>>,
    workers: Workers,
    journal: Journal<Drawn>,
    /// Where the scores stand.
    scores: PathBuf,
}

impl Arm<'_> {
    /// Draws and scores until `refinement` has what it wants; what it took, and what that came to.
    ///
    /// # Errors
    /// Interrupted: it was stopped. Other: a journal cannot be written.
    pub fn fill(&mut self, mut refinement: Refinement) -> Result<(Vec<Taken>, Outcome)> {
        loop {
            let open = refinement.open();
            if open.is_empty() {
                return Ok(refinement.end());
            }
            self.draw(&open, refinement.round())?;
            let candidates = self.score(&refinement)?;
            refinement.take(candidates);
        }
    }

    /// The text of each record that was drawn, by place and round; without the blank ones.
    pub fn texts(&self) -> HashMap<(u64, u64), &str> {
        let lines = self.journal.lines().iter();
        lines
            .filter_map(|d| Some(((d.id, d.round), d.text.as_deref()?)))
            .collect()
    }

    /// Mean length of those that were scored, in tokens; none where none was.
    pub fn mean_tokens(&self) -> Option<f64> {
        let lengths = self
            .journal
            .lines()
            .iter()
            .map(|d| d.tokens.len())
            .filter(|len| *len > 0);
        let (records, tokens) = lengths.fold((0usize, 0usize), |(records, tokens), len| (records + 1, tokens + len));
        (records > 0).then(|| tokens as f64 / records as f64)
    }

    /// How many stayed blank.
    pub fn blank(&self) -> usize {
        self.journal.lines().iter().filter(|d| d.text.is_none()).count()
    }

    /// Draws what the journal has not got of a round's requests.
    fn draw(&mut self, requests: &[Request], round: u64) -> Result<()> {
        let s = &self.p.config.sample;
        let lines = self.journal.lines().iter().filter(|d| d.round == round);
        let have: HashSet<u64> = lines.map(|d| d.id).collect();
        let open: Vec<Request> = requests.iter().copied().filter(|r| !have.contains(&r.id)).collect();
        // The last of them are shared out too.
        let side_by_side = s.batch_size.min(open.len().div_ceil(self.workers.count())).max(1);
        let (vocabulary, settings, keep_tokens) = (self.vocabulary, self.decoder.settings(), self.judge.is_some());

        let task = match round {
            0 => self.name.clone(),
            _ => format!("{}, again {round}", self.name),
        };
        let task = self.p.progress.begin(&task, requests.len() as u64, Unit::Records);
        if !have.is_empty() {
            task.set(have.len() as u64, "");
        }
        let begun = Instant::now();
        let keeper = Mutex::new((&mut self.journal, task, have.len() as u64, 0u64));
        let done = |request: Request, tokens: Vec<u32>| {
            let text = drawn::text(vocabulary, &tokens)?;
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
        let mut found = match &self.judge {
            Some(judge) => self.scores(judge, refinement, &drawn)?,
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
        judge: &Judge,
        refinement: &Refinement,
        drawn: &[(&Drawn, Request)],
    ) -> Result<HashMap<u64, Vec<Score>>> {
        let round = refinement.round();
        let mut journal: Journal<Scored> = Journal::open(&self.scores)?;
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
        let task = self.p.progress.begin(&task, drawn.len() as u64, Unit::Records);
        if !have.is_empty() {
            task.set(have.len() as u64, "");
        }
        let task = Mutex::new(task);
        let (begun, mut records, mut tokens) = (Instant::now(), have.len(), 0);
        let mut take = |i: usize, values: Vec<f64>| {
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
        };
        let whole = match judge {
            Judge::Model(scorer) => scorer.score_on(&self.workers, &texts, self.p.stop, take)?,
            Judge::Scorers(scorers) => {
                for (chunk, of_chunk) in open.chunks(JUDGED).enumerate() {
                    self.p.check_stop("judging records")?;
                    let own = of_chunk.iter().map(|(d, _)| d.text.as_deref().unwrap_or_default());
                    let own: Vec<&str> = own.collect();
                    for (i, of_labels) in (chunk * JUDGED..).zip(scorers.scores(&own)?) {
                        take(i, labels[i].iter().map(|label| of_labels[*label]).collect())?;
                    }
                }
                true
            }
        };
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
}
