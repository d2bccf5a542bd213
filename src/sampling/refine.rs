//! Refinement: records are scored under all labels by the model that drew them, or by a scorer that was paid for; those whose
//! label does not show are drawn anew, or take the label that does.
//!
//! This is post-processing and free of privacy cost: all that enters are requests, which come from a public or paid-for
//! prior, and scores of what was drawn, by a model or a scorer that was paid for. Private records do not fit in:
//!
//! ```compile_fail,E0308
//! use dpsynth::{config::RefineConfig, records::Record, sampling::refine::Refinement};
//! let private: Vec<Record> = Vec::new();
//! Refinement::new(&RefineConfig::default(), private, 2, 0);
//! ```
//!
//! ```compile_fail,E0308
//! use dpsynth::{records::Encoded, sampling::refine::Refinement};
//! fn refine(refinement: &mut Refinement, private: Vec<Encoded>) {
//!     refinement.take(private);
//! }
//! ```
//!
//! ```
//! // What the two above name is there: it is the types that do not fit.
//! use dpsynth::records::{Encoded, Record};
//! use dpsynth::{config::RefineConfig, sampling::refine::{Candidate, Refinement}};
//! fn refine(refinement: &mut Refinement, drawn: Vec<Candidate>) {
//!     refinement.take(drawn);
//! }
//! Refinement::new(&RefineConfig::default(), vec![0, 1], 2, 0);
//! ```

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::decode::Request;
use crate::config::{RefineAction, RefineConfig};

/// Tries at a record within a round, since some come out blank.
pub const TRIES: u64 = 5;

/// Sets the stream that chooses labels apart from those that draw tokens.
const CHOOSING: u64 = 0x6c61_6265_6c73;

/// A drawn record and what its judge says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The request that drew it.
    pub request: Request,
    /// log p(x|y), but for a constant, of the labels it was scored under; empty where nothing is refined.
    pub scores: Vec<Score>,
}

/// log p(x|y) of one label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub label: usize,
    pub log_p: f64,
}

/// What was taken for a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Which of the records it is.
    pub place: u64,
    /// The request that drew it.
    pub request: Request,
    pub label: usize,
    /// p(label|x); none where nothing was scored.
    pub posterior: Option<f64>,
}

/// What refinement came to, all in terms of synthetic records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Rounds that were drawn.
    pub rounds: u64,
    /// Of each joint label.
    pub labels: Vec<LabelOutcome>,
    /// Share of the first round's candidates whose largest posterior is their wanted label's. None where none was
    /// scored, as with the next two.
    pub agreement: Option<f64>,
    /// Mean over the first round's candidates of their wanted label's posterior.
    pub mean_posterior: Option<f64>,
    /// Mean posterior of the labels under which records were kept.
    pub kept_mean_posterior: Option<f64>,
    /// What was subtracted from each label's log p(x|y), in nats; empty where nothing was centred.
    pub bias: Vec<f64>,
}

/// What refinement came to for a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelOutcome {
    /// Records that the prior wants.
    pub wanted: usize,
    /// Requests for it in all rounds; each draws one candidate, blank or not.
    pub drawn: usize,
    /// Records that bear it in the end.
    pub kept: usize,
    /// Of those, how many were asked for under another label.
    pub relabelled: usize,
    /// Candidates asked for under it that nobody took.
    pub dropped: usize,
    /// Places that stayed empty.
    pub missing: usize,
}

/// Fills a place for each wanted record, round after round.
///
/// A place is open until a candidate is taken for it; each round draws one candidate for each open place. What was taken
/// stays, so that a round depends on those before it alone.
pub struct Refinement {
    config: RefineConfig,
    labels: usize,
    seed: u64,
    round: u64,
    bias: Vec<f64>,
    /// Label of each place.
    wanted: Vec<usize>,
    taken: Vec<Option<Taken>>,
    of_labels: Vec<LabelOutcome>,
    agreement: Option<f64>,
    mean_posterior: Option<f64>,
}

impl Refinement {
    /// `wanted` holds the label of each record, below `labels`; `seed` is that of the sampler.
    pub fn new(config: &RefineConfig, wanted: Vec<usize>, labels: usize, seed: u64) -> Self {
        let mut of_labels = vec![LabelOutcome::default(); labels];
        wanted.iter().for_each(|l| of_labels[*l].wanted += 1);
        Refinement {
            config: config.clone(),
            labels,
            seed,
            round: 0,
            bias: Vec::new(),
            taken: vec![None; wanted.len()],
            wanted,
            of_labels,
            agreement: None,
            mean_posterior: None,
        }
    }

    /// The round that is drawn now, from 0.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// This round's requests, one for each open place; none when all are filled or the rounds are over.
    pub fn open(&self) -> Vec<Request> {
        let rounds = if self.config.is_on() { self.config.rounds } else { 1 };
        if self.round >= rounds {
            return Vec::new();
        }
        let open = self.taken.iter().zip(&self.wanted).enumerate();
        open.filter(|(_, (taken, _))| taken.is_none())
            .map(|(id, (_, label))| Request {
                id: id as u64,
                attempt: self.round * TRIES,
                label: *label,
            })
            .collect()
    }

    /// The labels under which a request's record is scored: its own, then the others, at most as many as configured,
    /// drawn from the seed.
    pub fn labels_of(&self, request: Request) -> Vec<usize> {
        if !self.config.is_on() {
            return Vec::new();
        }
        let others = self.config.labels.min(self.labels - 1);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ CHOOSING);
        rng.set_stream(request.id);
        rng.set_word_pos(u128::from(request.attempt / TRIES) << 36);
        let chosen = index::sample(&mut rng, self.labels - 1, others);
        let mut others: Vec<usize> = chosen
            .iter()
            .map(|o| if o < request.label { o } else { o + 1 })
            .collect();
        others.sort_unstable();
        std::iter::once(request.label).chain(others).collect()
    }

    /// Ends a round: takes what passes of its candidates, all at once. Blank ones are left out.
    pub fn take(&mut self, mut candidates: Vec<Candidate>) {
        candidates.sort_by_key(|c| c.request.id);
        for request in self.open() {
            self.of_labels[request.label].drawn += 1;
        }
        if self.config.is_on() {
            if self.round == 0 {
                if self.config.centred {
                    self.bias = bias(&candidates, self.labels);
                }
                self.judge_first(&candidates);
            }
            self.take_passing(candidates);
        } else {
            for c in candidates {
                self.put(c.request.id, &c, c.request.label, None);
            }
        }
        self.round += 1;
    }

    /// p(y|x) of a candidate: the softmax over its labels of log p(x|y), less the label's bias.
    pub fn posterior(&self, candidate: &Candidate) -> Vec<(usize, f64)> {
        posterior(&candidate.scores, &self.bias)
    }

    /// What was taken, by place, and what it came to.
    pub fn end(mut self) -> (Vec<Taken>, Outcome) {
        for (taken, label) in self.taken.iter().zip(&self.wanted) {
            match taken {
                None => self.of_labels[*label].missing += 1,
                Some(taken) => {
                    self.of_labels[taken.label].kept += 1;
                    self.of_labels[taken.label].relabelled += usize::from(taken.label != taken.request.label);
                    // Counted as drawn for it, taken by whomever.
                    self.of_labels[taken.request.label].dropped += 1;
                }
            }
        }
        for label in &mut self.of_labels {
            label.dropped = label.drawn - label.dropped;
        }
        let taken: Vec<Taken> = self.taken.into_iter().flatten().collect();
        let posteriors: Vec<f64> = taken.iter().filter_map(|t| t.posterior).collect();
        let outcome = Outcome {
            rounds: self.round,
            labels: self.of_labels,
            agreement: self.agreement,
            mean_posterior: self.mean_posterior,
            kept_mean_posterior: mean(&posteriors),
            bias: self.bias,
        };
        (taken, outcome)
    }

    fn judge_first(&mut self, candidates: &[Candidate]) {
        let of_wanted = |c: &Candidate| {
            let posterior = self.posterior(c);
            let own = posterior.first().map_or(0.0, |(_, p)| *p);
            (own, most_likely(&posterior).0 == c.request.label)
        };
        let seen: Vec<(f64, bool)> = candidates.iter().map(of_wanted).collect();
        self.mean_posterior = mean(&seen.iter().map(|s| s.0).collect::<Vec<_>>());
        self.agreement = mean(&seen.iter().map(|s| f64::from(u8::from(s.1))).collect::<Vec<_>>());
    }

    fn take_passing(&mut self, candidates: Vec<Candidate>) {
        let least = self.config.min_posterior;
        let mut spare: Vec<(Candidate, usize, f64)> = Vec::new();
        for c in candidates {
            let posterior = self.posterior(&c);
            let own = (c.request.label, posterior.first().map_or(0.0, |(_, p)| *p));
            match self.config.action {
                RefineAction::Score => self.put(c.request.id, &c, own.0, Some(own.1)),
                RefineAction::Drop if own.1 >= least => self.put(c.request.id, &c, own.0, Some(own.1)),
                RefineAction::Drop => {}
                RefineAction::Relabel => match most_likely(&posterior) {
                    (_, p) if p < least => {}
                    (label, p) if label == c.request.label => self.put(c.request.id, &c, label, Some(p)),
                    (label, p) => spare.push((c, label, p)),
                },
            }
        }
        // Who shows another label than its own fills a place that wants it, first come, first served.
        let mut open: Vec<std::collections::VecDeque<u64>> = vec![Default::default(); self.labels];
        for (place, label) in self.wanted.iter().enumerate() {
            if self.taken[place].is_none() {
                open[*label].push_back(place as u64);
            }
        }
        for (c, label, p) in spare {
            if let Some(place) = open[label].pop_front() {
                self.put(place, &c, label, Some(p));
            }
        }
    }

    fn put(&mut self, place: u64, candidate: &Candidate, label: usize, posterior: Option<f64>) {
        self.taken[place as usize] = Some(Taken {
            place,
            request: candidate.request,
            label,
            posterior,
        });
    }
}

/// p(y|x) under a uniform prior: softmax over the scored labels of log p(x|y) − bias(y). An empty `bias` is zero.
pub fn posterior(scores: &[Score], bias: &[f64]) -> Vec<(usize, f64)> {
    let centred = |s: &Score| s.log_p - bias.get(s.label).copied().unwrap_or(0.0);
    let peak = scores.iter().map(centred).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (centred(s) - peak).exp()).sum();
    let p = |s: &Score| (s.label, (centred(s) - peak).exp() / total);
    scores.iter().map(p).collect()
}

/// How much more likely the model finds any text under one label than under another: b of the additive model
/// log p(xᵢ|y) ≈ aᵢ + b(y), by least squares, Σ b = 0.
///
/// Candidates weigh such that the labels for which they were drawn weigh equally, whatever the prior. That the mean
/// log-ratio is bias and not evidence assumes that candidates carry the labels for which they were drawn, to the same
/// degree for each label; only synthetic text is used. Where all labels are scored, b(y) is the mean over candidates of
/// log p(x|y) less its mean over labels; where some are, the two means are taken in turns.
pub fn bias(candidates: &[Candidate], labels: usize) -> Vec<f64> {
    const TURNS: usize = 100;
    let mut per_label = vec![0usize; labels];
    candidates.iter().for_each(|c| per_label[c.request.label] += 1);
    let weight = |c: &Candidate| 1.0 / per_label[c.request.label] as f64;
    let mut weights = vec![0f64; labels];
    for c in candidates {
        c.scores.iter().for_each(|s| weights[s.label] += weight(c));
    }
    let mut bias = vec![0f64; labels];
    for _ in 0..TURNS {
        let mut next = vec![0f64; labels];
        for c in candidates.iter().filter(|c| !c.scores.is_empty()) {
            let level = c.scores.iter().map(|s| s.log_p - bias[s.label]).sum::<f64>() / c.scores.len() as f64;
            c.scores
                .iter()
                .for_each(|s| next[s.label] += weight(c) * (s.log_p - level));
        }
        let seen = next.iter_mut().zip(&weights).filter(|(_, w)| **w > 0.0);
        let count = seen.map(|(b, w)| *b /= w).count().max(1);
        let centre = next.iter().sum::<f64>() / count as f64;
        next.iter_mut()
            .zip(&weights)
            .filter(|(_, w)| **w > 0.0)
            .for_each(|(b, _)| *b -= centre);
        let moved = bias.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        bias = next;
        if moved < 1e-9 {
            break;
        }
    }
    bias
}

/// The label of the largest posterior, the first of equals; the wanted one comes first.
pub fn most_likely(posterior: &[(usize, f64)]) -> (usize, f64) {
    let larger = |best: (usize, f64), next: &(usize, f64)| if next.1 > best.1 { *next } else { best };
    posterior.iter().fold((usize::MAX, f64::NEG_INFINITY), larger)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
