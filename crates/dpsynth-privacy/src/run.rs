//! A plan at work: charge a step, draw its batch, add its noise (rules P1 to P8).

use std::fmt;
use std::path::PathBuf;

use super::keys::KeySource;
use super::ledger::{Ledger, LedgerHead, RunRecord, Uses};
use super::mechanisms::{Charge, Charged, Named, TRAINING};
use super::plan::PrivacyPlan;
use super::secrets::{Secrets, Whose};
use super::statement::Guarantee;
use crate::{Error, Result};

/// A run with its ledger open. Holds the ledger's lock as long as it lives.
pub struct PrivateRun {
    plan: PrivacyPlan,
    keys: KeySource,
    secrets: Secrets,
    ledger: Ledger,
    run: String,
    units: usize,
    /// Of each release that the plan has, in its order.
    uses: Uses,
    #[cfg(mutants)]
    resumed_at: u64,
}

impl PrivacyPlan {
    /// Enters `run` into the ledger, or finds it there, and hands out the only way to sampling and noise (rule P1).
    ///
    /// `units` is the real number of units, from which batches are drawn; it changes nothing else (rule P2).
    /// Steps that an earlier process charged stay charged, whether it applied them or not (rule P7).
    ///
    /// # Errors
    /// Budget: the dataset's total epsilon would be passed, with the sum shown (rule P8). Usage: the run is in the
    /// ledger with other parameters, or was ended. Data: batches are truncated and there are more units than that is
    /// accounted for. Other: the ledger cannot be written.
    pub fn begin(&self, ledger: Ledger, run: &str, units: usize) -> Result<PrivateRun> {
        if let Some(t) = self.truncation().filter(|t| units as u64 > t.most_units) {
            return Err(Error::data(format!(
                "truncated batches are accounted for up to {} units of privacy, a tenth more than were declared; there are more",
                t.most_units
            ))
            .hint("declare `dataset.public_size` closer to the truth, or leave out `finetune.max_batch_size`"));
        }
        let mut ledger = ledger;
        let charged = ledger.enter(run, self.parameters())?;
        let keys = self.seed().map_or(KeySource::Secure, KeySource::Seeded);
        Ok(PrivateRun::new(self.clone(), keys, ledger, run, units, charged))
    }
}

impl PrivateRun {
    pub(super) fn new(
        plan: PrivacyPlan,
        keys: KeySource,
        ledger: Ledger,
        run: &str,
        units: usize,
        charged: Uses,
    ) -> Self {
        #[cfg(mutants)]
        let resumed_at = plan
            .parameters()
            .release(TRAINING.name())
            .map_or(0, |(at, _)| charged[at]);
        PrivateRun {
            plan,
            keys,
            secrets: Secrets::default(),
            ledger,
            run: run.to_string(),
            units,
            uses: charged,
            #[cfg(mutants)]
            resumed_at,
        }
    }

    /// Where batches are drawn by random allocation, or noise goes together over steps: keeps the keys of it in `file`, so that the
    /// run can go on in another process. It is as private as the records: it must not leave.
    pub fn keeping_secrets_in(mut self, file: PathBuf) -> Self {
        self.secrets.keep_in(file);
        self
    }

    /// Uses of `release` that are in the ledger, this process's and earlier ones'; 0 where it is not planned.
    pub fn charged<M>(&self, release: Named<M>) -> u64 {
        let planned = self.plan.parameters().release(release.name());
        planned.map_or(0, |(at, _)| self.uses[at])
    }

    /// Steps of training that are in the ledger.
    pub fn charged_steps(&self) -> u64 {
        self.charged(TRAINING)
    }

    /// Steps of training that may still be charged.
    pub fn remaining_steps(&self) -> u64 {
        self.plan.steps() - self.charged_steps()
    }

    /// Where the ledger stands; belongs into a checkpoint, see [`Ledger::require_head`].
    pub fn ledger_head(&self) -> LedgerHead {
        self.ledger.head()
    }

    /// The plan that is at work.
    pub fn plan(&self) -> &PrivacyPlan {
        &self.plan
    }

    /// The guarantee for what was charged so far.
    pub fn statement(&self) -> Guarantee {
        self.plan.statement(self.charged_steps())
    }

    /// Charges the next use of `release`, and hands it out: its ledger line is on disk before this returns (rule P7).
    ///
    /// # Errors
    /// Budget: it is not planned, or all its uses are charged (rule P8). Data: a round was begun by a process that kept
    /// nothing of it. Other: the ledger cannot be written, or the
    /// operating system gives no random numbers; a use that was charged then stays charged.
    pub fn charge<M: Charge>(&mut self, release: Named<M>) -> Result<M::Use> {
        let name = release.name();
        let planned = self.plan.parameters().release(name);
        let planned = planned.and_then(|(at, planned)| Some((at, planned.times, *M::of(&planned.mechanism)?)));
        let due = planned.filter(|(at, times, _)| self.uses[*at] < *times);
        let Some((at, _, mechanism)) = due else {
            let times = planned.map_or(0, |(_, times, _)| times);
            return Err(Error::budget(format!(
                "all {times} planned uses of `{name}` by run `{}` are charged; one more would pass epsilon {}",
                self.run,
                self.plan.target_epsilon()
            ))
            .hint("plan a new run; it composes with this one in the ledger"));
        };
        let index = self.uses[at];
        if let Some(due) = mechanism.due(index) {
            let whose = Whose {
                run: &self.run,
                release: name,
                units: self.units,
            };
            let known = self.ledger.kept_keys(&self.run);
            if let Some(kept) = self.secrets.enter(whose, &self.keys, due, known.as_deref())? {
                self.ledger.keys(&self.run, &kept)?;
            }
        }
        self.ledger.charge(&self.run, name, index)?;
        self.uses[at] += 1;
        mechanism.hand_out(Charged {
            release: name,
            index,
            units: self.units,
            max_records: self.plan.unit().max_records(),
            training_noise: self.plan.noise_mechanism(),
            keys: &self.keys,
            round_key: self.secrets.key(),
            strand: self.secrets.strand(),
            #[cfg(mutants)]
            resumed_at: self.resumed_at,
        })
    }

    /// Puts the SHA-256 of a state, or of a count that is kept, into the ledger, before it is written: a run goes on from its
    /// own states alone.
    ///
    /// # Errors
    /// Other: the ledger cannot be written.
    pub fn state(&mut self, sha256: &str) -> Result<()> {
        self.ledger.state(&self.run, sha256)
    }

    /// What the ledger says of this run.
    pub fn record(&self) -> Option<RunRecord> {
        self.ledger
            .view()
            .runs
            .into_iter()
            .find(|record| record.run == self.run)
    }

    /// Puts the SHA-256 of the file of trained values into the ledger: what is audited and released is held against it.
    ///
    /// # Errors
    /// Data: the run came to something else before. Other: the ledger cannot be written.
    pub fn trained(&mut self, sha256: &str) -> Result<()> {
        self.ledger.trained(&self.run, sha256)
    }

    /// Refuses a second plan that does not fit beside this one.
    ///
    /// # Errors
    /// As [`PrivacyPlan::begin`]; nothing is written.
    pub fn require_room(&self, plan: &PrivacyPlan, run: &str) -> Result<()> {
        self.ledger.require_room(run, plan.parameters()).map(drop)
    }

    /// Ends the run: uses that were planned but not charged no longer count, and it cannot be taken up again.
    ///
    /// # Errors
    /// Other: the ledger cannot be written.
    pub fn end(mut self) -> Result<Ledger> {
        self.ledger.end_run(&self.run)?;
        Ok(self.ledger)
    }

    /// Leaves the run as it is and hands the ledger back.
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }
}

impl fmt::Debug for PrivateRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateRun")
            .field("run", &self.run)
            .field("uses", &self.uses)
            .finish_non_exhaustive()
    }
}
