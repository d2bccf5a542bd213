//! What the lines add up to, and whether one more run fits (rule P8).

use std::path::Path;

use serde::Serialize;

use super::chain::{Entry, Line};
use super::parameters::{RunParameters, Usage};
use crate::privacy::accountant::{Adjacency, pld};
use crate::{Error, Result};

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
    /// Whether the noisy histogram of the labels was charged.
    pub charged_histogram: bool,
    /// Whether it was ended before its last planned step.
    pub ended: bool,
}

impl RunRecord {
    /// Epsilon of what was charged of a private run, at its own delta; a planned histogram counts in any case.
    ///
    /// # Errors
    /// Usage: the ledger holds numbers that the accountant refuses.
    pub fn epsilon(&self) -> Result<f64> {
        let usage = Usage {
            steps: self.charged().steps,
            ..self.parameters.planned()
        };
        compose(std::iter::once((self.parameters, usage)), self.parameters.delta)
    }

    /// What was charged of a private run.
    fn charged(&self) -> Usage {
        Usage {
            steps: if self.parameters.private { self.charged_steps } else { 0 },
            histogram: self.parameters.private && self.charged_histogram,
        }
    }

    /// What counts against the budget: an open run counts whole.
    fn counted(&self) -> Usage {
        match self.parameters.private && !self.ended {
            true => self.parameters.planned(),
            false => self.charged(),
        }
    }
}

/// What a ledger says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerView {
    /// Content hash of the dataset.
    pub dataset: String,
    /// What the guarantee protects.
    pub unit: String,
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
    /// How the batches of the private runs were drawn, each way once; `none` where there is no run.
    pub fn sampler(&self) -> String {
        let private = self.runs.iter().filter(|run| run.parameters.private);
        let mut names: Vec<String> = private.map(|run| run.parameters.sampler()).collect();
        names.sort();
        names.dedup();
        match names.is_empty() {
            true => "none".into(),
            false => names.join(" and "),
        }
    }

    /// Epsilon of all charged steps of private runs together, by PLD.
    ///
    /// # Errors
    /// Usage: the ledger holds numbers that the accountant refuses.
    pub fn charged_epsilon(&self) -> Result<f64> {
        compose(self.runs.iter().map(|r| (r.parameters, r.charged())), self.delta)
    }

    /// The same with open runs counted at their planned steps: what the budget is compared with.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn reserved_epsilon(&self) -> Result<f64> {
        compose(self.runs.iter().map(|r| (r.parameters, r.counted())), self.delta)
    }
}

fn compose(runs: impl Iterator<Item = (RunParameters, Usage)>, delta: f64) -> Result<f64> {
    let phases: Vec<_> = runs.map(|(p, usage)| p.phases(usage)).collect::<Result<_>>()?;
    match phases.concat() {
        nothing if nothing.is_empty() => Ok(0.0),
        phases => pld::epsilon_above(&phases, Adjacency::AddOrRemoveOne, delta),
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
                unit: String::new(),
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
                unit,
                ..
            } => {
                (view.dataset, view.total_epsilon, view.delta) = (dataset.clone(), *total_epsilon, *delta);
                view.unit = unit.clone();
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
                    charged_histogram: false,
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
            Entry::Histogram { run } => match view.runs.iter_mut().find(|r| r.run == *run) {
                Some(r) if r.ended || r.charged_histogram || r.parameters.label_histogram_epsilon.is_none() => {
                    return refuse("charges a histogram that was not due");
                }
                Some(r) => r.charged_histogram = true,
                None => return refuse("charges a histogram of a run that was never begun"),
            },
            Entry::End { run } => match view.runs.iter_mut().find(|r| r.run == *run && !r.ended) {
                Some(r) => r.ended = true,
                None => return refuse("ends a run that is not open"),
            },
        }
        view.lines = line.seq + 1;
        Ok(())
    }

    /// Whether `run` may begin or go on: what it has charged, where it is known.
    pub fn admit(&self, run: &str, parameters: &RunParameters) -> Result<Option<Usage>> {
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
        let asked = || compose(std::iter::once((*parameters, parameters.planned())), self.view.delta);
        let with = match known {
            Some(_) => spent,
            None if !parameters.private => return Ok(None),
            None => {
                let runs = self.view.runs.iter().map(|r| (r.parameters, r.counted()));
                compose(
                    runs.chain(std::iter::once((*parameters, parameters.planned()))),
                    self.view.delta,
                )?
            }
        };
        // A hair of room: the same run composed along another way differs in the last digits.
        if parameters.private && with > total * (1.0 + 1e-9) {
            // Up, so that what is spent is never shown as less.
            let up = |epsilon: f64| format!("{:.4}", (epsilon * 1e4).ceil() / 1e4);
            let earlier = match known {
                Some(_) => "this run included".to_string(),
                None => format!("this run asks {}, together {}", up(asked()?), up(with)),
            };
            return Err(Error::budget(format!(
                "the dataset's budget is epsilon {total} at delta {:.3e}; spent or reserved {}, {earlier} (adjacency add-or-remove-one, unit {}, sampler {}, accountant pld)",
                self.view.delta,
                up(spent),
                self.view.unit,
                parameters.sampler()
            ))
            .hint("take a smaller epsilon or fewer steps; `dpsynth ledger show` lists the runs, `dpsynth ledger set-budget` changes the total"));
        }
        Ok(known.map(|r| Usage {
            steps: r.charged_steps,
            histogram: r.charged_histogram,
        }))
    }
}

fn describe(p: &RunParameters) -> String {
    let mut out = format!(
        "sampling rate {}, noise multiplier {}, {} steps, delta {:e}, {}",
        p.sampling_rate,
        p.noise_multiplier,
        p.steps,
        p.delta,
        if p.private { "private" } else { "NOT PRIVATE" }
    );
    if let Some(t) = p.truncation {
        out += &format!(", batches of at most {}", t.max_batch_size);
    }
    if let Some(epsilon) = p.label_histogram_epsilon {
        out += &format!(", labels counted at epsilon {epsilon}");
    }
    out
}
