//! What the lines add up to, and whether one more run fits (rule P8).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::accountant::{Adjacency, Phase, pld};
use super::chain::{Entry, Line};
use crate::{Error, Result};

/// What a run's cost depends on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunParameters {
    /// Probability that a record is drawn in a step.
    pub sampling_rate: f64,
    /// Noise standard deviation over sensitivity.
    pub noise_multiplier: f64,
    /// Steps planned.
    pub steps: u64,
    /// The run's own delta.
    pub delta: f64,
    /// False for a run with a fixed seed: recorded, not counted.
    pub private: bool,
}

/// A run in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRecord {
    /// Its name.
    pub run: String,
    /// What its cost depends on.
    #[serde(flatten)]
    pub parameters: RunParameters,
    /// Steps charged so far.
    pub charged_steps: u64,
    /// Whether it was ended before its last planned step.
    pub ended: bool,
}

impl RunRecord {
    /// Steps that count against the budget: an open run counts whole.
    fn counted_steps(&self) -> u64 {
        match (self.parameters.private, self.ended) {
            (false, _) => 0,
            (true, true) => self.charged_steps,
            (true, false) => self.parameters.steps,
        }
    }
}

/// What a ledger says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerView {
    /// Content hash of the dataset.
    pub dataset: String,
    /// What all runs may spend together.
    pub total_epsilon: f64,
    /// Delta at which runs are composed.
    pub delta: f64,
    /// Number of lines.
    pub lines: u64,
    /// The runs, in order.
    pub runs: Vec<RunRecord>,
}

impl LedgerView {
    /// Epsilon of all charged steps of private runs together, by PLD.
    ///
    /// # Errors
    /// Usage: the ledger holds numbers that the accountant refuses.
    pub fn charged_epsilon(&self) -> Result<f64> {
        let charged = |r: &RunRecord| if r.parameters.private { r.charged_steps } else { 0 };
        compose(self.runs.iter().map(|r| (r.parameters, charged(r))), self.delta)
    }

    /// The same with open runs counted at their planned steps: what the budget is compared with.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn reserved_epsilon(&self) -> Result<f64> {
        compose(self.runs.iter().map(|r| (r.parameters, r.counted_steps())), self.delta)
    }
}

fn compose(runs: impl Iterator<Item = (RunParameters, u64)>, delta: f64) -> Result<f64> {
    let phases = runs
        .filter(|(_, steps)| *steps > 0)
        .map(|(p, steps)| Phase::new(p.sampling_rate, p.noise_multiplier, steps))
        .collect::<Result<Vec<_>>>()?;
    if phases.is_empty() {
        Ok(0.0)
    } else {
        pld::epsilon_above(&phases, Adjacency::AddOrRemoveOne, delta)
    }
}

/// The state that reading the lines one by one leads to.
#[derive(Clone, Debug)]
pub struct Book {
    view: LedgerView,
}

impl Book {
    /// Reads all lines.
    pub fn replay(path: &Path, lines: &[Line]) -> Result<Self> {
        let mut book = Book {
            view: LedgerView {
                dataset: String::new(),
                total_epsilon: 0.0,
                delta: 0.0,
                lines: 0,
                runs: Vec::new(),
            },
        };
        lines.iter().try_for_each(|line| book.apply(path, line))?;
        Ok(book)
    }

    pub fn dataset(&self) -> &str {
        &self.view.dataset
    }

    pub fn view(&self) -> LedgerView {
        self.view.clone()
    }

    /// Takes in one line; refuses what no run of this program writes.
    pub fn apply(&mut self, path: &Path, line: &Line) -> Result<()> {
        let refuse = |what: &str| {
            Err(
                Error::data(format!("line {} of {} {what}", line.seq + 1, path.display()))
                    .hint("the ledger was written by another program or edited"),
            )
        };
        let view = &mut self.view;
        if matches!(line.entry, Entry::Created { .. }) != (line.seq == 0) {
            return refuse("should be the ledger's first and is not, or is and should not be");
        }
        match &line.entry {
            Entry::Created {
                dataset,
                total_epsilon,
                delta,
                ..
            } => {
                (view.dataset, view.total_epsilon, view.delta) = (dataset.clone(), *total_epsilon, *delta);
            }
            Entry::Budget { total_epsilon } => view.total_epsilon = *total_epsilon,
            Entry::Run { run, parameters } => {
                if view.runs.iter().any(|r| r.run == *run) {
                    return refuse("begins a run that there is already");
                }
                view.runs.push(RunRecord {
                    run: run.clone(),
                    parameters: *parameters,
                    charged_steps: 0,
                    ended: false,
                });
            }
            Entry::Step { run, index } => match view.runs.iter_mut().find(|r| r.run == *run) {
                Some(r) if r.ended || *index != r.charged_steps || *index >= r.parameters.steps => {
                    return refuse("charges a step that was not due");
                }
                Some(r) => r.charged_steps += 1,
                None => return refuse("charges a step of a run that was never begun"),
            },
            Entry::End { run } => match view.runs.iter_mut().find(|r| r.run == *run && !r.ended) {
                Some(r) => r.ended = true,
                None => return refuse("ends a run that is not open"),
            },
        }
        view.lines = line.seq + 1;
        Ok(())
    }

    /// Whether `run` may begin or go on: `Some(charged steps)` where it is known.
    pub fn admit(&self, run: &str, parameters: &RunParameters) -> Result<Option<u64>> {
        if run.is_empty() {
            return Err(Error::usage("a run needs a name").hint("the name of its folder will do"));
        }
        let known = self.view.runs.iter().find(|r| r.run == run);
        if let Some(r) = known {
            if r.ended {
                return Err(
                    Error::usage(format!("run `{run}` was ended after {} steps", r.charged_steps))
                        .hint("begin a new run under another name"),
                );
            }
            if r.parameters != *parameters {
                return Err(Error::usage(format!(
                    "run `{run}` is in the ledger with other parameters: {}; asked now: {}",
                    describe(&r.parameters),
                    describe(parameters)
                ))
                .hint("go on with the configuration it began with, or begin a new run under another name"));
            }
        }
        let spent = self.view.reserved_epsilon()?;
        let total = self.view.total_epsilon;
        let asked = |steps| compose(std::iter::once((*parameters, steps)), self.view.delta);
        let with = match known {
            Some(_) => spent,
            None if !parameters.private => return Ok(None),
            None => {
                let runs = self.view.runs.iter().map(|r| (r.parameters, r.counted_steps()));
                compose(
                    runs.chain(std::iter::once((*parameters, parameters.steps))),
                    self.view.delta,
                )?
            }
        };
        // A hair of room: the same run composed along another way differs in the last digits.
        if parameters.private && with > total * (1.0 + 1e-9) {
            let earlier = match known {
                Some(_) => "this run included".to_string(),
                None => format!("this run asks {:.4}, together {with:.4}", asked(parameters.steps)?),
            };
            return Err(Error::budget(format!(
                "the dataset's budget is epsilon {total:.4} at delta {:e}; spent or reserved {spent:.4}, {earlier} (adjacency add-or-remove-one, unit record, sampler poisson, accountant pld)",
                self.view.delta
            ))
            .hint("take a smaller epsilon or fewer steps; `dpsynth ledger show` lists the runs, `dpsynth ledger set-budget` changes the total"));
        }
        Ok(known.map(|r| r.charged_steps))
    }
}

fn describe(p: &RunParameters) -> String {
    format!(
        "sampling rate {}, noise multiplier {}, {} steps, delta {:e}, {}",
        p.sampling_rate,
        p.noise_multiplier,
        p.steps,
        p.delta,
        if p.private { "private" } else { "NOT PRIVATE" }
    )
}
