//! Every reason not to hand a run out.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde::Serialize;
use serde_json::Value;

use super::copy_gate::Gate;
use crate::audit::{CANARIES, Subject, paid};
use crate::config::RunConfig;
use crate::documents::{self, Findings, LowerBound, ShardMetadata};
use crate::facts::salt::Salt;
use crate::facts::{CanaryBound, Facts};
use crate::privacy::mechanisms::Stated;
use crate::privacy::{COPY_GATE, Guarantee, LedgerView, find_ledger};
use crate::run::Preparation;
use crate::run::states::{State, states};
use crate::run::{Places, RunFolder, Stage, privacy_plan, run_in};
use crate::{Error, Result};

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// P7: the ledger is there, whole, and paid for what is claimed.
    Ledger,
    /// P4: the randomness was secure.
    Private,
    /// P11: the mechanism has a proof.
    Proven,
    /// The audit was of these files and did not refute the claim.
    Audit,
    /// The files are those that the stages wrote.
    Files,
    /// P9: each value that would leave is classified.
    Classified,
    /// The declared gate, whose count is charged, lets the records through.
    CopyGate,
}

/// A reason to refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub check: Check,
    /// In a sentence. For the run's owner: it may come from private records.
    pub reason: String,
    /// How to mend it.
    pub mend: String,
}

/// A run that was looked at. It is locked as long as this value lives.
pub struct Examined {
    folder: RunFolder,
    facts: Facts,
    salt: Salt,
    refusals: Vec<Refusal>,
    gate_due: bool,
    config: RunConfig,
    places: Places,
}

/// A run that may leave: there was no reason to refuse. Locked as long as this value lives.
pub struct Cleared {
    _folder: RunFolder,
    facts: Facts,
}

impl Cleared {
    /// All that a release is made of.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Examined {
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Every reason to refuse; none where the run may leave.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Whether a copy gate is declared that has not counted yet: [`Examined::clear`] spends what the plan set aside for it.
    pub fn gate_is_due(&self) -> bool {
        self.gate_due && self.refusals.is_empty()
    }

    /// The run, where it may leave; only now a declared gate counts, and the salt is written down.
    ///
    /// # Errors
    /// Refused (exit code 4), with every reason. Other: the salt cannot be written.
    pub fn clear(mut self) -> Result<Cleared> {
        if self.gate_is_due() {
            if let Gate::Closed(refusal) = Gate::count(&self.folder, &self.config, &self.places)? {
                self.refusals.push(refusal);
            }
            // The ledger has one line more.
            let id = Preparation::read(&self.folder)?.ledger();
            let ledger = find_ledger(&self.places.ledgers, &id)?.map(|(_, view)| view);
            let canaries = std::mem::take(&mut self.facts.canaries);
            self.facts = Facts::read(&self.folder, &self.config, ledger.as_ref(), &self.salt)?;
            self.facts.canaries = canaries;
        }
        if self.refusals.is_empty() {
            self.salt.keep()?;
            return Ok(Cleared {
                _folder: self.folder,
                facts: self.facts,
            });
        }
        let reasons: Vec<String> = self
            .refusals
            .iter()
            .map(|r| format!("\n  - {} ({})", r.reason, r.mend))
            .collect();
        Err(Error::refused(format!(
            "{} may not be handed out:{}",
            self.folder.root().display(),
            reasons.concat()
        ))
        .hint(match self.config.release.copy_gate {
            Some(_) => "nothing was handed out: fix each of these and run the same command again. The copy gate counts only once",
            None => "nothing was handed out: fix each of these and run the same command again",
        }))
    }
}

/// Looks at the run in `run` from every side.
///
/// Whether a run may leave is an output too (P9). Plans, ledger and settings decide it, canaries that are nobody's records,
/// records that are drawn again, and a gate that is paid for. Two things are looked at that the claim excludes for every
/// dataset, so that they tell nothing of this one as long as it is true: a replay beyond what is charged, and a training loop
/// that departs from what the mechanism released. What else an audit or an evaluation read of private records is advice for
/// the owner.
///
/// # Errors
/// Usage: the folder holds no run, or one that is not trained and sampled. Refused: it was, with other settings than it says
/// now, or does not say with which. Data: a file of it is damaged. Other: another
/// program is at work in it.
pub fn examine(run: &Path, places: &Places) -> Result<Examined> {
    let (config, profile, runs) = run_in(run)?;
    config.release.check()?;
    config.require_records()?;
    let folder = RunFolder::open(&runs, &config, profile)?;
    let mut refusals = Vec::new();
    for (stage, state, stamp) in states(&folder, Some(&config))? {
        // An earlier version of the program did not say with which settings it drew.
        let unsaid = stage >= Stage::Sample && (stamp.as_ref()).is_some_and(|stamp| stamp.section.is_empty());
        let what = format!("the stage `{}` of {}", stage.name(), folder.root().display());
        match state {
            // What is compared with and what was measured do not leave.
            _ if matches!(stage, Stage::References | Stage::Evaluate) => {}
            State::Done if !unsaid => {
                if let Some(Err(e)) = stamp.map(|stamp| stamp.require_written(&folder, stage, |_| true)) {
                    refuse(
                        &mut refusals,
                        Check::Files,
                        e.to_string(),
                        e.hint_text().unwrap_or_default(),
                    );
                }
            }
            State::Done => {
                return Err(
                    Error::refused(format!("{what} does not say with which settings it was done"))
                        .hint("delete synthetic/ and zero_shot/ in it: `dpsynth run` with its configuration draws the records again"),
                );
            }
            State::Stale(why) => {
                return Err(Error::refused(format!("{what} may not be handed out: {why}")).hint(
                    "put config.toml and the stage's files back as they were, or do it again with `dpsynth run`",
                ));
            }
            State::Begun | State::NotBegun => {
                return Err(Error::usage(format!("{what} is not done"))
                    .hint("`dpsynth run` with its configuration does what is missing"));
            }
        }
    }
    // Keys of it that nobody knows are told of below, with those of other files.
    let (guarantee, _) = documents::look_at_guarantee(&folder.guarantee())?;
    let ledger = ledger(&folder, &guarantee, &config, places, &mut refusals)?;
    claimed(&guarantee, &config, &mut refusals)?;
    private(&guarantee, &mut refusals);
    let canaries = audited(&folder, &guarantee, &mut refusals)?;
    let salt = Salt::of(&folder.internal("commitment-salt"))?;
    let mut facts = Facts::read(&folder, &config, ledger.as_ref(), &salt)?;
    facts.canaries = canaries;
    classified(&facts, &mut refusals)?;
    let mut gate_due = false;
    match Gate::look(&folder, &config, places)? {
        Gate::Open => {}
        Gate::Due => gate_due = true,
        Gate::Closed(refusal) => refusals.push(refusal),
    }
    Ok(Examined {
        folder,
        facts,
        salt,
        refusals,
        gate_due,
        config,
        places: places.clone(),
    })
}

fn refuse(refusals: &mut Vec<Refusal>, check: Check, reason: impl Into<String>, mend: impl Into<String>) {
    refusals.push(Refusal {
        check,
        reason: reason.into(),
        mend: mend.into(),
    });
}

/// The dataset's ledger, where it is whole.
fn ledger(
    folder: &RunFolder,
    guarantee: &Guarantee,
    config: &RunConfig,
    places: &Places,
    refusals: &mut Vec<Refusal>,
) -> Result<Option<LedgerView>> {
    let hash = Preparation::read(folder)?.ledger();
    let view = match find_ledger(&places.ledgers, &hash) {
        Ok(Some((_, view))) => view,
        Ok(None) => {
            refuse(
                refusals,
                Check::Ledger,
                format!("the ledger {hash}.jsonl is not in {}", places.ledgers.display()),
                "DPSYNTH_LEDGERS says where ledgers are: without one nobody knows what was spent on these records",
            );
            return Ok(None);
        }
        Err(e) => {
            refuse(
                refusals,
                Check::Ledger,
                format!("the ledger does not verify: {e}"),
                "put back the ledger that the run was charged to",
            );
            return Ok(None);
        }
    };
    let name = std::fs::read_to_string(folder.ledger_run()).unwrap_or_default();
    let run = view.runs.iter().find(|r| r.run == name.trim());
    // Whatever the run's own files say: what was charged for research has no bound, and so has no sum that it is a part of.
    if let Some(unproven) = view.research().next() {
        refuse(
            refusals,
            Check::Proven,
            format!(
                "NOT A DP GUARANTEE: run `{}` on these records was for research, by a mechanism without a proof",
                unproven.run
            ),
            "what all runs on these records cost together has no bound: release from records that no such run was charged to",
        );
    }
    let paid = |stated: &Stated| run.map_or(0, |run| run.uses_of(stated.release()));
    if run.is_some()
        // The gate is charged when everything else is found in order.
        && let Some(stated) = (guarantee.releases.iter())
            .find(|stated| stated.release() != COPY_GATE.name() && paid(stated) != stated.uses())
    {
        // Fewer than claimed: the ledger is an older copy, and what it says of all runs together is too little.
        refuse(
            refusals,
            Check::Ledger,
            format!(
                "the ledger has {} {} of the run charged, {} are claimed: it was rolled back, or is another's",
                paid(stated),
                stated.uses_are(),
                stated.uses()
            ),
            "put back the ledger that the run was charged to",
        );
    }
    let plan = privacy_plan(config)?;
    let contradictions = paid::contradictions(guarantee, &plan, &hash, folder, places, &mut Vec::new())?;
    for contradiction in contradictions {
        refuse(
            refusals,
            Check::Ledger,
            format!("the claim is not what was paid for: {contradiction}"),
            "put back the run's own model/privacy.json and ledger",
        );
    }
    Ok(Some(view))
}

/// What the plan says of itself, key by key: a guarantee that was edited is nobody's.
fn claimed(guarantee: &Guarantee, config: &RunConfig, refusals: &mut Vec<Refusal>) -> Result<()> {
    let plan = privacy_plan(config)?;
    let steps = guarantee.training().map_or(0, |training| training.steps);
    let (said, planned) = (guarantee.values(), plan.statement(steps).values());
    let same = |said: &Value, planned: &Value| match (said.as_f64(), planned.as_f64()) {
        // Versions of the program calibrate to within this.
        (Some(a), Some(b)) => (a / b - 1.0).abs() <= SAME_NUMBER,
        _ => said == planned,
    };
    let differs: Vec<&str> = (planned.iter())
        .filter(|(key, planned)| !said.get(*key).is_some_and(|said| same(said, planned)))
        .map(|(key, _)| key.as_str())
        .collect();
    if !differs.is_empty() {
        refuse(
            refusals,
            Check::Ledger,
            format!(
                "model/privacy.json does not say what the run's plan says: {}",
                differs.join(", ")
            ),
            "put back the run's own model/privacy.json",
        );
    }
    Ok(())
}

/// Relative difference of numbers that versions of the program may have.
pub(super) const SAME_NUMBER: f64 = 1e-3;

fn private(guarantee: &Guarantee, refusals: &mut Vec<Refusal>) {
    if !guarantee.private {
        refuse(
            refusals,
            Check::Private,
            "NOT PRIVATE: the randomness came from a fixed seed",
            "train again without `finetune.seed`",
        );
    }
    // By the releases, and by its own words: whoever takes one of them out leaves the other.
    let said = guarantee
        .caveat
        .as_ref()
        .is_some_and(|own| own.contains("NOT A DP GUARANTEE"));
    if said || guarantee.unproven().is_some() {
        refuse(
            refusals,
            Check::Proven,
            "NOT A DP GUARANTEE: the run was for research, by a mechanism without a proof",
            "train again by a mechanism that has one",
        );
    }
}

/// The canaries' bounds, where the audit was of these files.
fn audited(folder: &RunFolder, guarantee: &Guarantee, refusals: &mut Vec<Refusal>) -> Result<Vec<CanaryBound>> {
    let again = format!("dpsynth audit {}", folder.root().display());
    let path = folder.internal("audit.json");
    if !path.exists() {
        refuse(refusals, Check::Audit, "the run was not audited", again);
        return Ok(Vec::new());
    }
    let audit: Findings = match documents::read(&path) {
        Ok(audit) => audit,
        Err(e) => {
            refuse(refusals, Check::Audit, e.to_string(), again);
            return Ok(Vec::new());
        }
    };
    let claimed = guarantee.epsilon;
    let same_claim = audit.claim.epsilon == claimed && audit.claim.delta == guarantee.delta;
    if audit.subject.as_ref() != Some(&Subject::of(folder)?) || !same_claim {
        refuse(
            refusals,
            Check::Audit,
            "the audit was of another model, other records or another claim, or an earlier version of the program made it",
            again.clone(),
        );
    }
    let deciding: Vec<&LowerBound> = audit.lower_bounds.iter().filter(|b| b.decides).collect();
    for bound in deciding.iter().filter(|b| b.epsilon_lower > claimed) {
        refuse(
            refusals,
            Check::Audit,
            format!(
                "{}: epsilon is at least {:.3}, {claimed:.3} is claimed",
                bound.attack, bound.epsilon_lower
            ),
            "audit again: a canary bound errs by chance in up to one audit in twenty",
        );
    }
    let mut refuted_by = audit.refuted_by.clone();
    if refuted_by.is_empty() && !audit.replay.within_charge {
        refuted_by.push("a replay moved the clipped sum beyond what is charged".into());
    }
    if !refuted_by.is_empty() {
        refuse(
            refusals,
            Check::Audit,
            format!("the audit refuted the claim: {}", refuted_by.join("; ")),
            "audit again; only a canary bound can be chance, anything else is a fault",
        );
    }
    // Of an earlier version of the program both are empty.
    if deciding.is_empty() || audit.redraws.is_empty() {
        refuse(
            refusals,
            Check::Audit,
            "the audit did not try what a release depends on, or an earlier version of the program made it",
            again,
        );
    }
    // In the words of this version of the program, whichever made the audit.
    let rests_on = |b: &LowerBound| {
        let known = CANARIES.iter().find(|(attack, _)| *attack == b.attack);
        known.map_or_else(|| b.rests_on.to_string(), |(_, rests_on)| rests_on.to_string())
    };
    let bound = |b: &&LowerBound| CanaryBound {
        attack: b.attack.to_string(),
        epsilon_lower: b.epsilon_lower,
        confidence: audit.confidence,
        rests_on: rests_on(b),
    };
    Ok(deciding.iter().map(bound).collect())
}

fn classified(facts: &Facts, refusals: &mut Vec<Refusal>) -> Result<()> {
    let mut found = facts.unclassified.clone();
    for shard in facts.shards.iter().chain(&facts.zero_shot_shards) {
        let name = shard.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(
            unclassified(shard, &facts.config)?
                .iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    for what in found {
        refuse(
            refusals,
            Check::Classified,
            format!("{what} is neither public, charged nor computed from that, as far as anyone has said (P9)"),
            "take it out, or draw the records again",
        );
    }
    Ok(())
}

/// Columns and metadata of a shard that nobody has classified.
///
/// # Errors
/// Data: it is no Parquet file.
fn unclassified(path: &Path, config: &RunConfig) -> Result<Vec<String>> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let reader = SerializedFileReader::new(file)
        .map_err(|e| Error::data(format!("{} is damaged: {e}", path.display())).hint("draw the records again"))?;
    let metadata = reader.metadata().file_metadata();
    let dataset = &config.dataset;
    let declared = |name: &str| {
        name == "id" || name == dataset.text.written() || dataset.labels.iter().any(|label| label.written() == name)
    };
    let columns = metadata.schema().get_fields().iter().map(|f| f.name());
    let mut out: Vec<String> = columns
        .filter(|name| !declared(name))
        .map(|name| format!("column `{name}`"))
        .collect();
    let known = |key: &str| key == "ARROW:schema" || ShardMetadata::knows(key);
    let keys = metadata.key_value_metadata().into_iter().flatten().map(|kv| &kv.key);
    out.extend(keys.filter(|key| !known(key)).map(|key| format!("metadata `{key}`")));
    Ok(out)
}
