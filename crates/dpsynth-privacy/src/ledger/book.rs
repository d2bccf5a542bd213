//! What the lines add up to, and whether one more run fits (rule P8).

use std::path::Path;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::chain::{Entry, Line};
use super::parameters::{RunParameters, Uses};
use crate::accountant::{Adjacency, check_delta, pld, rdp};
use crate::mechanisms::{LABELS, Named, Proof, Release, TRAINING};
use crate::{Error, Result};

/// A run in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// Its name.
    pub run: String,
    /// What its cost depends on.
    pub parameters: RunParameters,
    /// Uses that were charged, in the order of its releases.
    pub uses: Uses,
    /// Whether [`RunRecord::states`] has all that it may go on from; not so in runs of the first versions of the program.
    pub holds_states: bool,
    /// SHA-256 of each state that it may go on from, and of each count that it keeps.
    pub states: Vec<String>,
    /// SHA-256 of the file of trained values; none before it is written, or of an earlier version of the program.
    pub trained: Option<String>,
    /// Whether it was ended before its last planned use.
    pub ended: bool,
}

impl RunRecord {
    /// Whether a state with this SHA-256 is the run's own, as far as the ledger can know.
    pub fn has_state(&self, sha256: &str) -> bool {
        !self.holds_states || self.states.iter().any(|own| own == sha256)
    }

    /// Uses of a release that were charged.
    pub fn charged<M>(&self, release: Named<M>) -> u64 {
        self.uses_of(release.name())
    }

    /// The same of a release by its name.
    pub fn uses_of(&self, release: &str) -> u64 {
        self.parameters.release(release).map_or(0, |(at, _)| self.uses[at])
    }

    /// Steps of training that were charged.
    pub fn charged_steps(&self) -> u64 {
        self.charged(TRAINING)
    }

    /// Whether all that is planned was charged.
    pub fn is_complete(&self) -> bool {
        self.uses == self.parameters.planned()
    }

    /// Epsilon of the steps that were charged, at its own delta, 0 of a run that is not private; what is planned beside
    /// them counts in any case.
    ///
    /// # Errors
    /// Usage: the ledger holds numbers that the accountant refuses.
    pub fn epsilon(&self) -> Result<f64> {
        if !self.parameters.private {
            return Ok(0.0);
        }
        let mut uses = self.parameters.planned();
        if let Some((at, _)) = self.parameters.release(TRAINING.name()) {
            uses[at] = self.uses[at];
        }
        compose([(&self.parameters, uses)].into_iter(), self.parameters.delta)
    }

    /// What was charged of a private run.
    fn counted_if_private(&self) -> Uses {
        match self.parameters.private {
            true => self.uses.clone(),
            false => self.parameters.nothing(),
        }
    }

    /// What counts against the budget: an open run counts whole.
    fn counted(&self) -> Uses {
        match self.parameters.private && !self.ended {
            true => self.parameters.planned(),
            false => self.counted_if_private(),
        }
    }
}

impl Serialize for RunRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Used<'a> {
            #[serde(flatten)]
            release: &'a Release,
            charged: u64,
            proof: Proof,
        }
        let releases = self.parameters.releases.iter().zip(&self.uses);
        let releases: Vec<Used> = releases
            .map(|(release, charged)| Used {
                release,
                charged: *charged,
                proof: release.mechanism.proof(),
            })
            .collect();
        let mut out = serializer.serialize_struct("RunRecord", 8)?;
        out.serialize_field("run", &self.run)?;
        out.serialize_field("delta", &self.parameters.delta)?;
        out.serialize_field("private", &self.parameters.private)?;
        out.serialize_field("releases", &releases)?;
        out.serialize_field("charged_steps", &self.charged_steps())?;
        out.serialize_field("charged_histogram", &(self.charged(LABELS) > 0))?;
        out.serialize_field("trained", &self.trained)?;
        out.serialize_field("ended", &self.ended)?;
        out.end()
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
    /// The first release of a run that has no proof (P11), and what is known of it: then no sum below is a guarantee.
    pub fn unproven(&self) -> Option<(&str, &'static str)> {
        self.runs.iter().find_map(|run| run.parameters.unproven())
    }

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
        compose(
            self.runs.iter().map(|r| (&r.parameters, r.counted_if_private())),
            self.delta,
        )
    }

    /// The same with open runs counted at their planned steps: what the budget is compared with.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn reserved_epsilon(&self) -> Result<f64> {
        compose(self.runs.iter().map(|r| (&r.parameters, r.counted())), self.delta)
    }
}

impl LedgerView {
    /// What [`LedgerView::charged_epsilon`] is where the settings of later runs were chosen after seeing what earlier ones
    /// gave. Privacy loss distributions compose for plans that were fixed before; Rényi divergences add up either way
    /// (Feldman and Zrnic 2021, a privacy filter). None where there are not two private runs.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn epsilon_if_adaptive(&self) -> Result<Option<f64>> {
        let private = || self.runs.iter().filter(|run| run.parameters.private);
        if private().count() < 2 {
            return Ok(None);
        }
        let phases: Vec<_> = private().map(|r| r.parameters.phases(&r.uses)).collect::<Result<_>>()?;
        match phases.concat() {
            nothing if nothing.is_empty() => Ok(None),
            phases => Ok(Some(
                rdp::epsilon(&phases, Adjacency::AddOrRemoveOne, self.delta)?.epsilon,
            )),
        }
    }

    /// Takes in the `index`-th use of a release; else what is wrong with it.
    fn take(&mut self, run: &str, release: &str, index: u64) -> std::result::Result<(), &'static str> {
        let record = self
            .runs
            .iter_mut()
            .find(|r| r.run == run)
            .ok_or("charges a run that was never begun")?;
        let planned = record
            .parameters
            .release(release)
            .map(|(at, planned)| (at, planned.times));
        let (at, times) = planned.ok_or("charges a release that was not planned")?;
        if record.ended || index != record.uses[at] || index >= times {
            return Err("charges a use that was not due");
        }
        record.uses[at] += 1;
        Ok(())
    }
}

fn compose<'a>(runs: impl Iterator<Item = (&'a RunParameters, Uses)>, delta: f64) -> Result<f64> {
    let phases: Vec<_> = runs.map(|(p, uses)| p.phases(&uses)).collect::<Result<_>>()?;
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
                if check_delta(*delta).is_err() || !is_total(*total_epsilon) {
                    return refuse("begins with a budget that is none");
                }
                (view.dataset, view.total_epsilon, view.delta) = (dataset.clone(), *total_epsilon, *delta);
                view.unit = unit.clone();
            }
            Entry::Budget { total_epsilon } if !is_total(*total_epsilon) => {
                return refuse("sets a budget that is none");
            }
            Entry::Budget { total_epsilon } => view.total_epsilon = *total_epsilon,
            Entry::Run {
                run,
                holds_states,
                parameters,
            } => {
                if view.runs.iter().any(|r| r.run == *run) {
                    return refuse("begins a run that there is already");
                }
                if let Some(strange) = parameters.strange() {
                    return refuse(strange);
                }
                view.runs.push(RunRecord {
                    run: run.clone(),
                    parameters: parameters.clone(),
                    uses: parameters.nothing(),
                    holds_states: *holds_states,
                    states: Vec::new(),
                    trained: None,
                    ended: false,
                });
            }
            Entry::Use { run, release, index } => {
                if let Err(what) = view.take(run, release, *index) {
                    return refuse(what);
                }
            }
            Entry::Step { run, index } => {
                if let Err(what) = view.take(run, TRAINING.name(), *index) {
                    return refuse(what);
                }
            }
            Entry::Histogram { run } => {
                if let Err(what) = view.take(run, LABELS.name(), 0) {
                    return refuse(what);
                }
            }
            Entry::State { run, sha256 } => match view.runs.iter_mut().find(|r| r.run == *run && !r.ended) {
                Some(r) if is_sha256(sha256) => r.states.push(sha256.clone()),
                _ => return refuse("names a state of a run that is not open"),
            },
            Entry::Trained { run, sha256 } => match view.runs.iter_mut().find(|r| r.run == *run && !r.ended) {
                // A run that was killed in between says the same again.
                Some(r) if is_sha256(sha256) && r.trained.as_ref().is_none_or(|before| before == sha256) => {
                    r.trained = Some(sha256.clone());
                }
                _ => return refuse("says what a run came to that is not open, or came to something else"),
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
    pub fn admit(&self, run: &str, parameters: &RunParameters) -> Result<Option<Uses>> {
        if run.is_empty() {
            return Err(Error::usage("a run needs a name").hint("the name of its folder will do"));
        }
        let known = self.view.runs.iter().find(|r| r.run == run);
        if let Some(r) = known {
            if r.ended {
                return Err(
                    Error::usage(format!("run `{run}` was ended after {} steps", r.charged_steps()))
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
        let asked = || compose(std::iter::once((parameters, parameters.planned())), self.view.delta);
        let with = match known {
            Some(_) => spent,
            None if !parameters.private => return Ok(None),
            None => {
                let runs = self.view.runs.iter().map(|r| (&r.parameters, r.counted()));
                compose(
                    runs.chain(std::iter::once((parameters, parameters.planned()))),
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
            .hint("take a smaller epsilon or fewer steps; `dpsynth ledger show` lists the runs, `dpsynth ledger set-budget` changes the total (`dataset.total_epsilon` counts only when the ledger is created)"));
        }
        Ok(known.map(|r| r.uses.clone()))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn is_total(epsilon: f64) -> bool {
    epsilon > 0.0 && epsilon.is_finite()
}

fn describe(p: &RunParameters) -> String {
    let mut out: Vec<String> = (p.releases.iter())
        .map(|release| {
            format!(
                "{} times `{}` ({})",
                release.times,
                release.name,
                release.mechanism.describe()
            )
        })
        .collect();
    out.push(format!("delta {:e}", p.delta));
    out.push(if p.private { "private" } else { "NOT PRIVATE" }.into());
    out.join(", ")
}
