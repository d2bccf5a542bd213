//! What the lines add up to, and whether one more run fits (rule P8).

use std::path::Path;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::chain::{Entry, Line};
use super::parameters::{RunParameters, Uses};
use crate::accountant::{Adjacency, Phase, check_delta, pld, rdp};
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
    /// SHA-256 of the keys that it keeps, where it keeps some: the latest. Older ones are another run's, or of before.
    pub keys: Option<String>,
    /// SHA-256 of the file of trained values; none before it is written, or of an earlier version of the program.
    pub trained: Option<String>,
    /// Whether something had been charged to the ledger before it was planned: its settings may have been chosen by what
    /// that gave.
    pub adaptive: bool,
    /// Whether its dataset was declared to share nobody with any other: no other ledger was charged for it.
    pub disjoint: bool,
    /// Whether what its rows are known by lies beside the ledger; not so of earlier versions of the program.
    pub rows: bool,
    /// The dataset whose run it is, which shares records with this one; none where it is this one's.
    pub from: Option<String>,
    /// Whether it was ended before its last planned use.
    pub ended: bool,
}

impl RunRecord {
    /// A run of this ledger that has charged nothing.
    fn new(run: &str, parameters: &RunParameters) -> Self {
        RunRecord {
            run: run.to_string(),
            parameters: parameters.clone(),
            uses: parameters.nothing(),
            holds_states: false,
            states: Vec::new(),
            keys: None,
            trained: None,
            adaptive: false,
            disjoint: false,
            rows: false,
            from: None,
            ended: false,
        }
    }

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

    /// Whether anything was.
    pub fn has_charged(&self) -> bool {
        self.uses.iter().any(|uses| *uses > 0)
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
        // As a statement has it: held against the claim, the two are the same to the last digit.
        match self.parameters.phases(&uses)? {
            nothing if nothing.is_empty() => Ok(0.0),
            phases => Ok(pld::epsilon(&phases, Adjacency::AddOrRemoveOne, self.parameters.delta)?.epsilon),
        }
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
        let mut out = serializer.serialize_struct("RunRecord", 11)?;
        out.serialize_field("run", &self.run)?;
        out.serialize_field("delta", &self.parameters.delta)?;
        out.serialize_field("private", &self.parameters.private)?;
        out.serialize_field("releases", &releases)?;
        out.serialize_field("charged_steps", &self.charged_steps())?;
        out.serialize_field("charged_histogram", &(self.charged(LABELS) > 0))?;
        out.serialize_field("trained", &self.trained)?;
        out.serialize_field("adaptive", &self.adaptive)?;
        out.serialize_field("disjoint", &self.disjoint)?;
        out.serialize_field("from", &self.from)?;
        out.serialize_field("ended", &self.ended)?;
        out.end()
    }
}

/// How the costs of runs were added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestsOn {
    /// Privacy loss distributions: all plans were made before anything was charged.
    Pld,
    /// A filter: Rényi divergences at one order, which add up however later plans were chosen (Feldman and Zrnic 2021).
    RenyiFilter,
    /// A filter: epsilons at deltas that were shared out beforehand add up as they are (Rogers et al. 2016).
    SumFilter,
}

impl RestsOn {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            RestsOn::Pld => "pld",
            RestsOn::RenyiFilter => "rdp as a filter, since plans were made after something was charged",
            RestsOn::SumFilter => "pld with epsilons added up, since plans were made after something was charged",
        }
    }
}

/// What counts against a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Counted {
    pub epsilon: f64,
    pub rests_on: RestsOn,
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
    /// What all runs could spend together when the first private one was planned; none before.
    #[serde(skip)]
    first_total: Option<f64>,
    /// Whether the total was changed after something was charged: it may have been chosen by what that gave.
    #[serde(skip)]
    moved: bool,
    /// Number of lines.
    pub lines: u64,
    /// The runs, in order.
    pub runs: Vec<RunRecord>,
    /// Datasets that share records with this one and were declared to share nobody: their runs are not here.
    pub apart: Vec<String>,
}

impl LedgerView {
    /// The first release of a run that has no proof (P11), and what is known of it: then no sum below is a guarantee.
    pub fn unproven(&self) -> Option<(&str, &'static str)> {
        self.runs.iter().find_map(|run| run.parameters.unproven())
    }

    /// The runs for research that were charged anything (P11).
    pub fn research(&self) -> impl Iterator<Item = &RunRecord> {
        let charged = self.runs.iter().filter(|run| run.has_charged());
        charged.filter(|run| run.parameters.unproven().is_some())
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

    /// What [`LedgerView::charged_epsilon`] is by a filter, which holds where the settings of later runs were chosen after
    /// seeing what earlier ones gave. None where no plan was made after something was charged.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn epsilon_if_adaptive(&self) -> Result<Option<f64>> {
        let charged = self.private().filter(|run| run.has_charged());
        if !charged.clone().any(|run| run.adaptive) {
            return Ok(None);
        }
        let runs = charged.clone().map(|run| (&run.parameters, run.uses.clone()));
        self.count(runs, charged.map(|run| run.adaptive), rdp::epsilon_at_any_time)
            .map(|counted| Some(counted.epsilon))
    }

    /// What counts against the budget, open runs at their planned steps.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn counted(&self) -> Result<Counted> {
        let runs = self.private().map(|run| (&run.parameters, run.counted()));
        self.count(runs, self.private().map(|run| run.adaptive), self.by_order())
    }

    /// The same where one more run is planned now, without that run's own cost: once something was charged, a filter counts
    /// it and all before it. Where this is above the total no run can begin.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn counted_before_another(&self) -> Result<Counted> {
        self.counted_with(None)
    }

    /// The same with the cost of that run.
    fn counted_with(&self, another: Option<&RunParameters>) -> Result<Counted> {
        let runs = self.private().map(|run| (&run.parameters, run.counted()));
        let adaptive = self.private().map(|run| run.adaptive);
        self.count(
            runs.chain(another.map(|parameters| (parameters, parameters.planned()))),
            adaptive.chain([self.is_spent_from()]),
            self.by_order(),
        )
    }

    /// How divergences become an epsilon: against a total that nothing can have moved, or at any time.
    fn by_order(&self) -> AtOrder {
        match self.moved {
            false => rdp::epsilon_at,
            true => rdp::epsilon_at_any_time,
        }
    }

    /// Two filters share delta between them: whatever is let in satisfies one of both, each at half of it.
    fn count<'a>(
        &self,
        runs: impl Iterator<Item = (&'a RunParameters, Uses)> + Clone,
        adaptive: impl Iterator<Item = bool>,
        at: AtOrder,
    ) -> Result<Counted> {
        let adaptive: Vec<bool> = adaptive.collect();
        if !adaptive.contains(&true) {
            return Ok(Counted {
                epsilon: compose(runs, self.delta)?,
                rests_on: RestsOn::Pld,
            });
        }
        let (renyi, sum) = (
            self.filtered(runs.clone(), self.delta / 2.0, at)?,
            self.added(runs, &adaptive)?,
        );
        Ok(match renyi < sum {
            true => Counted {
                epsilon: renyi,
                rests_on: RestsOn::RenyiFilter,
            },
            false => Counted {
                epsilon: sum,
                rests_on: RestsOn::SumFilter,
            },
        })
    }

    /// The epsilon of all plans that were made before anything was charged, composed, at a quarter of delta; those of the
    /// others at an eighth, a sixteenth and so on.
    fn added<'a>(&self, runs: impl Iterator<Item = (&'a RunParameters, Uses)>, adaptive: &[bool]) -> Result<f64> {
        let (mut first, mut sum, mut share) = (Vec::new(), 0.0, self.delta / 4.0);
        for ((parameters, uses), adaptive) in runs.zip(adaptive) {
            match adaptive {
                false => first.push((parameters, uses)),
                true => {
                    share /= 2.0;
                    sum += compose([(parameters, uses)].into_iter(), share)?;
                }
            }
        }
        Ok(sum + compose(first.into_iter(), self.delta / 4.0)?)
    }

    fn filtered<'a>(
        &self,
        runs: impl Iterator<Item = (&'a RunParameters, Uses)>,
        delta: f64,
        at: AtOrder,
    ) -> Result<f64> {
        match (phases_of(runs)?, self.filter_order()?) {
            (phases, Some(order)) if !phases.is_empty() => at(&phases, Adjacency::AddOrRemoveOne, delta, order),
            _ => Ok(0.0),
        }
    }

    /// The Rényi order of the filter: that at which the first private plan fits under what was the total then the most
    /// times. Both were there before anything was charged. None before that plan.
    ///
    /// # Errors
    /// As [`LedgerView::charged_epsilon`].
    pub fn filter_order(&self) -> Result<Option<f64>> {
        let first = self.private().next().zip(self.first_total);
        let order = |(first, total): (&RunRecord, f64)| {
            let phases = first.parameters.phases(&first.parameters.planned())?;
            rdp::order_for(&phases, Adjacency::AddOrRemoveOne, total, self.delta)
        };
        first.map(order).transpose()
    }

    fn private(&self) -> impl Iterator<Item = &RunRecord> + Clone {
        self.runs.iter().filter(|run| run.parameters.private)
    }

    /// Whether anybody may have seen anything.
    fn is_spent_from(&self) -> bool {
        self.private().any(RunRecord::has_charged)
    }

    /// Takes in a run.
    fn plan(&mut self, mut record: RunRecord) {
        record.adaptive = self.is_spent_from();
        if record.parameters.private {
            self.first_total.get_or_insert(self.total_epsilon);
        }
        self.runs.push(record);
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

/// Epsilon of phases for a delta by one order.
type AtOrder = fn(&[Phase], Adjacency, f64, f64) -> Result<f64>;

fn phases_of<'a>(runs: impl Iterator<Item = (&'a RunParameters, Uses)>) -> Result<Vec<Phase>> {
    let phases: Vec<_> = runs.map(|(p, uses)| p.phases(&uses)).collect::<Result<_>>()?;
    Ok(phases.concat())
}

fn compose<'a>(runs: impl Iterator<Item = (&'a RunParameters, Uses)>, delta: f64) -> Result<f64> {
    match phases_of(runs)? {
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
                first_total: None,
                moved: false,
                lines: 0,
                runs: Vec::new(),
                apart: Vec::new(),
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
                Error::data(format!("line {} of {} {what}", line.seq + 1, path.display())).hint(
                    "the ledger was edited or written by another program: restore it and its .head file from a backup",
                ),
            )
        };
        let view = &mut self.view;
        if matches!(line.entry, Entry::Created { .. }) != (line.seq == 0) {
            return refuse("is out of place: the first line, and only the first, creates the ledger");
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
                    return refuse("has a total epsilon or delta out of range");
                }
                (view.dataset, view.total_epsilon, view.delta) = (dataset.clone(), *total_epsilon, *delta);
                view.unit = unit.clone();
            }
            Entry::Budget { total_epsilon } if !is_total(*total_epsilon) => {
                return refuse("has a total epsilon that is not a number above 0");
            }
            Entry::Budget { total_epsilon } => {
                view.moved |= view.is_spent_from();
                view.total_epsilon = *total_epsilon;
            }
            Entry::Run {
                run,
                holds_states,
                disjoint,
                rows,
                from,
                parameters,
            } => {
                if view.runs.iter().any(|r| r.run == *run) {
                    return refuse("begins a run that there is already");
                }
                if let Some(strange) = parameters.strange() {
                    return refuse(strange);
                }
                let mut record = RunRecord::new(run, parameters);
                (record.holds_states, record.disjoint, record.rows) = (*holds_states, *disjoint, *rows);
                record.from = from.clone();
                view.plan(record);
            }
            Entry::Known {
                run,
                from,
                uses,
                ended,
                parameters,
            } => {
                let within = parameters
                    .planned()
                    .iter()
                    .zip(uses)
                    .all(|(planned, uses)| uses <= planned);
                if !within || uses.len() != parameters.releases.len() || parameters.strange().is_some() {
                    return refuse("describes a run of another dataset that no plan allows");
                }
                match view.runs.iter_mut().find(|r| r.run == *run) {
                    None => {
                        let mut record = RunRecord::new(run, parameters);
                        (record.uses, record.ended, record.from) = (uses.clone(), *ended, Some(from.clone()));
                        view.plan(record);
                    }
                    Some(r)
                        if r.from.as_ref() == Some(from)
                            && r.parameters == *parameters
                            && r.uses.iter().zip(uses).all(|(before, now)| before <= now)
                            && (*ended || !r.ended) =>
                    {
                        (r.uses, r.ended) = (uses.clone(), *ended);
                    }
                    Some(_) => return refuse("contradicts what was recorded of another dataset's run"),
                }
            }
            Entry::Apart { from } => view.apart.push(from.clone()),
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
            Entry::Keys { run, sha256 } => match view.runs.iter_mut().find(|r| r.run == *run && !r.ended) {
                Some(r) if is_sha256(sha256) => r.keys = Some(sha256.clone()),
                _ => return refuse("names keys of a run that is not open"),
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

    /// What a run has charged; none where it is not there.
    pub fn uses(&self, run: &str) -> Option<Uses> {
        let found = self.view.runs.iter().find(|record| record.run == run);
        found.map(|record| record.uses.clone())
    }

    /// SHA-256 of the keys that a run keeps.
    pub fn keys(&self, run: &str) -> Option<&str> {
        let found = self.view.runs.iter().find(|record| record.run == run);
        found.and_then(|record| record.keys.as_deref())
    }

    /// What of the runs of `other` is not here yet.
    pub fn unknown_of(&self, other: &Book) -> Vec<Entry> {
        let own = other.view.runs.iter().filter(|run| run.from.is_none());
        let news = own.filter(|run| {
            let known = self.view.runs.iter().find(|known| known.run == run.run);
            known.is_none_or(|known| (&known.uses, known.ended) != (&run.uses, run.ended))
        });
        let entry = |run: &RunRecord| Entry::Known {
            run: run.run.clone(),
            from: other.view.dataset.clone(),
            uses: run.uses.clone(),
            ended: run.ended,
            parameters: run.parameters.clone(),
        };
        news.map(entry).collect()
    }

    /// With `entries` taken in, as they would be read.
    pub fn with(&self, path: &Path, entries: &[Entry]) -> Result<Book> {
        let mut book = self.clone();
        for entry in entries {
            let line = Line {
                seq: book.view.lines,
                prev: String::new(),
                entry: entry.clone(),
            };
            book.apply(path, &line)?;
        }
        Ok(book)
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
        let spent = self.view.counted()?;
        let total = self.view.total_epsilon;
        let asked = || compose(std::iter::once((parameters, parameters.planned())), self.view.delta);
        let with = match known {
            // A version of the program let it in that knew no filter.
            Some(r) if !r.rows && r.from.is_none() => self.view.reserved_epsilon().map(|epsilon| Counted {
                epsilon: epsilon.min(spent.epsilon),
                ..spent
            })?,
            Some(_) => spent,
            None if !parameters.private => return Ok(None),
            None => self.view.counted_with(Some(parameters))?,
        };
        // A hair of room: the same run composed along another way differs in the last digits.
        if parameters.private && with.epsilon > total * (1.0 + 1e-9) {
            // Up, so that what is spent is never shown as less.
            let up = |epsilon: f64| format!("{:.4}", (epsilon * 1e4).ceil() / 1e4);
            let earlier = match known {
                Some(_) => "this run included".to_string(),
                None => format!("this run asks {}, together {}", up(asked()?), up(with.epsilon)),
            };
            return Err(Error::budget(format!(
                "the dataset's budget is epsilon {total} at delta {:.3e}; spent or reserved {}, {earlier} (adjacency add-or-remove-one, unit {}, sampler {}, accountant {})",
                self.view.delta,
                up(spent.epsilon),
                self.view.unit,
                parameters.sampler(),
                with.rests_on.name()
            ))
            .hint(match known {
                Some(_) => "raise the total with `dpsynth ledger set-budget`; the run cannot change its plan",
                None => "take a smaller epsilon or fewer steps; `dpsynth ledger show` lists the runs, `dpsynth ledger set-budget` changes the total (`dataset.total_epsilon` counts only when the ledger is created)",
            }));
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
