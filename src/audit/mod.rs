//! Tries to break a run's own privacy claim.
//!
//! - [`replay`]: rule P5 on the run's own model and records: how far one record moves the clipped sum.
//! - [`steps`]: real steps of the training loop, beside what the mechanism released.
//! - [`canaries`]: the white-box attack: Dirac canaries under the run's own plan and noise.
//! - [`retrain`]: the black-box attack: canary records, one more private training, their losses; with `--retrain`.
//! - [`echo`]: canaries in the same training, attacked through the text that the model draws; with the losses.
//! - [`redraw`]: whether the records are what the trained model draws.
//! - [`membership`]: what the synthetic texts alone tell of who was trained on.
//! - [`contamination`]: whether the model had read such records before, which no guarantee here covers.
//! - [`one_run`], [`threshold`]: guesses and thresholds; [`crate::privacy::bounds`] has what follows from them.
//!
//! The attacks' bounds hold together with 95 % confidence. A canary's bound above the claim, or a replay beyond what the
//! accountant charges, refutes the claim: the verdict is `fail`. Where only an attack that reads private records got above
//! the claim, it is `advice`. A `pass` proves nothing; it says that these attacks did not get further than the bounds that
//! stand beside it.
//!
//! The verdict is for the owner. A release depends on the canaries, the redrawn records, the claim beside the ledger, the
//! replay and the steps of the training loop. The first three read no private record; the claim excludes that the others
//! fail, for every dataset. An attack on real members and others errs once in so many audits even where the claim is true,
//! and which audits those are depends on the records.
//!
//! The findings stay in `internal/`, since most of them come from private records (P9). A release publishes the canaries'
//! bounds alone. The audit charges nothing to the dataset's ledger: the model that the black-box attack trains, and every
//! noised sum, are thrown away.

pub mod canaries;
mod claim;
pub mod contamination;
pub mod echo;
pub mod membership;
mod ngram;
pub mod one_run;
pub(crate) mod paid;
pub mod redraw;
pub mod replay;
pub mod retrain;
pub mod steps;
pub mod threshold;
mod together;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use claim::claim;

use burn::tensor::Device;

use crate::config::{FinetuneConfig, RunConfig};
pub use crate::documents::{Findings, LowerBound, Settings, Subject, Verdict};
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::files::write_atomically;
use crate::models::device;
use crate::models::{LanguageModel, ModelFiles};
use crate::privacy::{PrivacyPlan, TRAINING};
use crate::progress::Progress;
use crate::records::{Encoded, Record, Vocabulary};
use crate::run::Preparation;
use crate::run::stamp::Stamp;
use crate::run::{Places, RunFolder, Stage, plan_request, privacy_plan, steering_of, table};
use crate::training::clip::Clip;
use crate::training::objective::Objective;
use crate::training::trainable::{self, Trainable};
use crate::training::trainer::StepLog;
use crate::{Error, Result, assets};

/// Error that all attacks' bounds together are allowed.
pub const ALPHA: f64 = 0.05;
/// How sure all bounds together are.
pub const CONFIDENCE: f64 = 1.0 - ALPHA;
/// The attacks that read no private record, and what each takes for granted: a release depends on these.
pub const CANARIES: [(&str, &str); 4] = [
    ("Dirac canaries, one run", "no assumption about the mechanism"),
    ("Dirac canaries, threshold", "canaries are independent of each other"),
    (
        "Dirac canaries, one run, whole curve",
        "the mechanism is of the claimed kind, with unknown noise",
    ),
    (
        "Dirac canaries, threshold, whole curve",
        "the mechanism is of the claimed kind, with unknown noise, and canaries are independent",
    ),
];
/// Error of each of the six bounds.
const EACH: f64 = ALPHA / 6.0;

/// Set when the person asks to stop.
#[derive(Clone, Copy)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Stop<'_> {
    fn check(self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => {
                Err(Error::interrupted("the audit was stopped; it wrote nothing")
                    .hint("the same command begins it anew"))
            }
            false => Ok(()),
        }
    }
}

/// A run to be audited.
pub struct Audit<'a> {
    pub config: &'a RunConfig,
    pub folder: &'a RunFolder,
    pub places: &'a Places,
    pub settings: Settings,
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl Audit<'_> {
    /// Tries everything and writes `internal/audit.json`, whatever the verdict.
    ///
    /// # Errors
    /// Usage: nothing is trained yet. Data: the run's files do not belong together. [`Error::interrupted`]. A refuted
    /// claim is no error here: see [`Findings::require_pass`].
    pub fn run(&self) -> Result<Findings> {
        self.config.require_records()?;
        let stop = Stop(self.stop);
        let claim = claim(self.folder)?;
        for stage in [Stage::Prepare, Stage::Finetune, Stage::Sample] {
            if let Some(stamp) = Stamp::read(self.folder, stage)?.filter(|stamp| stamp.done) {
                // What was trained and what is claimed are held against the ledger, below.
                let elsewhere = ["model/trained.safetensors", "model/privacy.json"];
                stamp.require_written(self.folder, stage, |file| !elsewhere.contains(&file))?;
            }
        }
        let subject = Subject::of(self.folder)?;
        let mut notes = Vec::new();
        if !claim.private {
            notes.push("NOT PRIVATE: the run's randomness came from a fixed seed, so it guarantees nothing; the audit tests its plan with secure randomness".to_string());
        }
        let plan = self.plan()?;
        let c = &self.config.finetune;
        let preparation = Preparation::read(self.folder)?;
        let mut contradictions = paid::contradictions(
            &claim,
            &plan,
            &preparation.ledger(),
            self.folder,
            self.places,
            &mut notes,
        )?;
        let device = device::choose(self.config.device)?;
        let file = assets::language_model(&self.config.model, &self.places.assets, self.progress)?;
        let file = file.language_model()?;
        file.require(&preparation.model_sha256)?;
        let files = ModelFiles::open(&file.path)?;
        let model = trainable::base(c, &files, &device)?;
        let units = table::units(self.folder, self.config.dataset.max_records_per_unit())?.load()?;
        let initial = trainable::begun(c, &model, &self.folder.warm_start())?;
        if paid::began_elsewhere(initial.values(), &preparation.ledger(), self.folder, self.places)? {
            contradictions.push("training did not begin with the warm start or the base model that are there".into());
        }
        let trained = trainable::load(c, &model, &self.folder.trained())?;
        let vocabulary = Vocabulary::of(&files)?;
        let objective = Objective::of(self.config, &preparation.prompts, &vocabulary)?;
        let canaries = self.canaries(&plan, stop, &mut notes)?;
        let replay = replay::Replaying {
            model: &model,
            states: &[("initial", initial.as_ref()), ("trained", trained.as_ref())],
            units: &units,
            config: c,
            objective: &objective,
            seconds: self.settings.replay_seconds,
        }
        .run(stop, self.progress)?;
        self.progress.note("steps of the training loop, beside their parts");
        let trainer = steps::Stepping {
            model: &model,
            config: c,
            request: plan_request(self.config),
            units: &units,
            objective: &objective,
        }
        .run(|| trainable::begun(c, &model, &self.folder.warm_start()), stop)?;
        if (replay.batch as u64) < plan.expected_batch_size() {
            notes.push(format!(
                "the replay had time for batches of {}, training had {}: floating-point error grows with the batch (--replay-seconds gives it more)",
                replay.batch,
                plan.expected_batch_size()
            ));
        }
        for release in plan.releases().iter().filter(|r| r.name != TRAINING.name()) {
            notes.push(format!(
                "the {} are part of the claim and are not attacked",
                release.mechanism.uses()
            ));
        }
        if replay.within_charge && !replay.within_p5 {
            notes.push(format!(
                "one record moved the clipped sum by C·(1 + {:.1e}): within what is charged, beyond the 1e-6 of rule P5",
                replay.worst_ratio - 1.0
            ));
        }

        let redraws = self.redraws((&model, trained.as_ref()), &vocabulary, &preparation, stop)?;
        contradictions.extend(redraws.iter().filter_map(redraw::Redraw::contradiction));

        let membership = self.membership((&model, &vocabulary), &preparation, claim.delta, stop, &mut notes)?;

        self.progress
            .note("completing held-out records with the untouched model");
        let held_out = self.encoded(
            &vocabulary,
            &preparation,
            table::read_records(&self.folder.test_records())?,
        )?;
        let contamination = contamination::contamination(&model, &own(&held_out), stop)?;

        let zero_shot = self.folder.shards("zero_shot");
        let zero_shot = match zero_shot.exists() && self.settings.retrain.is_some() {
            true => own(&self.encoded(&vocabulary, &preparation, table::read_shards(&zero_shot, self.config)?)?),
            false => Vec::new(),
        };
        // Truncated batches are accounted for up to so many units: copies have no room.
        let echoes = !zero_shot.is_empty() && !held_out.is_empty() && plan.most_units().is_none();
        if self.settings.retrain.is_some() && !echoes {
            notes.push(
                "canaries that echo were left out: they need drawn records, held-out ones, and batches that are not cut"
                    .to_string(),
            );
        }
        let encoder = match echoes && self.config.evaluate.encoder.is_on() {
            true => Some(self.encoder(&device)?),
            false => None,
        };
        let echoing = echo::Echoing {
            model: &model,
            config: self.config,
            vocabulary: &vocabulary,
            prompts: &preparation.prompts,
            steering: steering_of(self.folder, "synthetic", self.config)?,
            held_out: &held_out,
            zero_shot: &zero_shot,
            encoder: encoder.as_ref(),
        };
        let retraining = retrain::Retraining {
            echo: echoes.then_some(&echoing),
            model: &model,
            config: c,
            plan: &plan,
            units: &units,
            prompts: &preparation.prompts,
            objective: &objective,
            warm_start: &self.folder.warm_start(),
            canaries: self.settings.retrain.unwrap_or(0),
        };
        let (losses, echo) = self.losses(retraining, stop, &mut notes)?.unzip();

        let mut findings = Findings {
            run: self.folder.name().to_string(),
            classification: "internal".into(),
            verdict: Verdict::Pass,
            refuted_by: Vec::new(),
            advice: Vec::new(),
            lower_bounds: lower_bounds(&canaries, losses.as_ref(), membership.as_ref()),
            confidence: CONFIDENCE,
            claim,
            subject: Some(subject),
            replay,
            trainer: Some(trainer),
            canaries,
            losses,
            echo: echo.flatten(),
            membership,
            contamination,
            redraws,
            notes,
            settings: self.settings,
            device: device::name(&device).into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
        };
        findings.judge(contradictions);
        let text = serde_json::to_string_pretty(&findings).expect("findings serialise");
        write_atomically(&self.path(), text.as_bytes())?;
        Ok(findings)
    }

    fn encoder(&self, device: &Device) -> Result<SentenceEncoder> {
        let c = &self.config.evaluate;
        let files = assets::encoder(&c.encoder_name(), &self.places.assets, self.progress)?;
        SentenceEncoder::open(&EncoderFiles::of(&files)?, c.encoder_max_tokens, device)
    }

    /// Where the findings are written.
    pub fn path(&self) -> PathBuf {
        self.folder.audit()
    }

    /// The run's plan, with secure randomness whatever the run had.
    fn plan(&self) -> Result<PrivacyPlan> {
        privacy_plan(&RunConfig {
            finetune: FinetuneConfig {
                seed: None,
                ..self.config.finetune.clone()
            },
            ..self.config.clone()
        })
    }

    fn canaries(&self, plan: &PrivacyPlan, stop: Stop, notes: &mut Vec<String>) -> Result<canaries::Dirac> {
        let claimed = canaries::Claimed::of(plan);
        let wanted = self.settings.canaries.unwrap_or_else(|| claimed.canaries());
        let count = plan.most_units().map_or(wanted, |most| wanted.min(most as usize));
        if count < wanted {
            notes.push(format!(
                "truncated batches are accounted for up to {count} units, so there are that many canaries and not {wanted}: the bounds are weaker"
            ));
        }
        self.progress
            .note(&format!("{count} Dirac canaries, {} steps", plan.steps()));
        let family = plan.family()?;
        let designs = canaries::Designs::new(claimed, count, &family, EACH);
        stop.check()?;
        let observed = canaries::observe(plan, Clip::of(&self.config.finetune), count, stop, self.progress)?;
        Ok(canaries::Dirac::judge(claimed, &observed, &designs, &family, EACH))
    }

    fn losses(
        &self,
        asked: retrain::Retraining,
        stop: Stop,
        notes: &mut Vec<String>,
    ) -> Result<Option<(retrain::Losses, Option<echo::Echo>)>> {
        if asked.canaries == 0 {
            notes.push(
                "the black-box attack on losses was left out: it trains once more; `--retrain` asks for it".to_string(),
            );
            return Ok(None);
        }
        let units = asked.units.len();
        let room = match asked.plan.most_units() {
            Some(most) => (most as usize).saturating_sub(units),
            None => asked.canaries,
        };
        let canaries = asked.canaries.min(room);
        if canaries < asked.canaries {
            notes.push(format!(
                "truncated batches are accounted for up to {} units: there is room for {canaries} canary records and not {}",
                units + room,
                asked.canaries
            ));
        }
        if canaries < canaries::LEAST {
            return Ok(None);
        }
        self.progress.note(&self.retraining_time(canaries));
        let retraining = retrain::Retraining { canaries, ..asked };
        retraining.run(EACH, stop, self.progress).map(Some)
    }

    fn redraws(
        &self,
        (model, trained): (&LanguageModel, &dyn Trainable),
        vocabulary: &Vocabulary,
        preparation: &Preparation,
        stop: Stop,
    ) -> Result<Vec<redraw::Redraw>> {
        if !["synthetic", "zero_shot"]
            .iter()
            .all(|arm| self.folder.shards(arm).exists())
        {
            return Ok(Vec::new());
        }
        self.progress.note("drawing some records again");
        let redrawing = redraw::Redrawing {
            config: self.config,
            folder: self.folder,
            vocabulary,
            prompts: &preparation.prompts,
        };
        Ok(vec![
            redrawing.run("synthetic", &trained.merged(model), stop)?,
            redrawing.run("zero_shot", model, stop)?,
        ])
    }

    fn membership(
        &self,
        (model, vocabulary): (&LanguageModel, &Vocabulary),
        preparation: &Preparation,
        delta: f64,
        stop: Stop,
        notes: &mut Vec<String>,
    ) -> Result<Option<membership::Membership>> {
        let arms = ["synthetic", "zero_shot"].map(|arm| self.folder.shards(arm));
        if !arms.iter().all(|a| a.exists()) || !self.folder.test_records().exists() {
            notes.push("membership inference was left out: nothing is sampled yet".to_string());
            return Ok(None);
        }
        self.progress.note("membership inference on the synthetic records");
        let tokens = |records| Ok::<_, Error>(own(&self.encoded(vocabulary, preparation, records)?));
        let [synthetic, zero_shot] = arms.map(|folder| tokens(table::read_shards(&folder, self.config)?));
        let apart = self.folder.audit_records();
        let others = match apart.exists() {
            true => table::read_records(&apart)?,
            false => table::read_records(&self.folder.test_records())?,
        };
        let texts = membership::Texts {
            members: tokens(self.trained_on()?)?,
            others: tokens(others)?,
            synthetic: synthetic?,
            zero_shot: zero_shot?,
            vocabulary: model.shape().vocabulary,
        };
        stop.check()?;
        let found = texts.attack(delta, EACH, stop)?;
        if found.is_none() {
            notes.push(format!(
                "membership inference was left out: one side has fewer than {} records that the other lacks; `audit.holdout` sets some apart before training",
                membership::LEAST
            ));
        }
        if let Some(blind) = found
            .as_ref()
            .filter(|f| f.epsilon_lower.is_none())
            .map(|f| f.blind_auc)
        {
            notes.push(format!(
                "training records are told from the others without any synthetic text (AUC {:.3}, {:.3}–{:.3}): membership inference bounds nothing; `audit.holdout` sets training records apart by chance, which cannot be told apart so",
                blind.value, blind.low, blind.high
            ));
        }
        Ok(found)
    }

    fn encoded(
        &self,
        vocabulary: &Vocabulary,
        preparation: &Preparation,
        records: Vec<Record>,
    ) -> Result<Vec<Encoded>> {
        vocabulary.records(&records, &preparation.prompts, self.config.prepare.max_tokens)
    }

    /// The training records that were used: of each unit as many as it may have.
    fn trained_on(&self) -> Result<Vec<Record>> {
        let most = self.config.dataset.max_records_per_unit();
        let mut seen: HashMap<u32, usize> = HashMap::new();
        let mut records = table::read_records(&self.folder.train_records())?;
        records.retain(|r| {
            let count = seen.entry(r.unit).or_default();
            *count += 1;
            *count <= most
        });
        Ok(records)
    }

    /// From what training took the first time.
    fn retraining_time(&self, canaries: usize) -> String {
        let steps = StepLog::lines(&self.folder.training_log());
        let seconds: f64 = steps.iter().map(|s| s.seconds).sum();
        let drawn: usize = steps.iter().map(|s| s.drawn).sum();
        match drawn {
            0 => format!("training once more with {canaries} canary records"),
            _ => format!(
                "training once more with {canaries} canary records: about {:.0} s, if as fast as the first time",
                seconds + 2.0 * canaries as f64 * seconds / drawn as f64
            ),
        }
    }
}

/// Tokens of each record, without its prompt.
fn own(records: &[Encoded]) -> Vec<Vec<u32>> {
    records.iter().map(|r| r.tokens[r.prompt..].to_vec()).collect()
}

fn lower_bounds(
    canaries: &canaries::Dirac,
    losses: Option<&retrain::Losses>,
    membership: Option<&membership::Membership>,
) -> Vec<LowerBound> {
    let on_the_curve = canaries.on_the_curve.as_ref();
    let bounds = [
        canaries.one_run_epsilon(),
        canaries.threshold.epsilon_lower,
        on_the_curve.map_or(0.0, |c| c.one_run.epsilon_lower),
        on_the_curve.map_or(0.0, |c| c.threshold.epsilon_lower),
    ];
    let by_canaries = CANARIES
        .iter()
        .zip(bounds)
        .map(|((attack, rests_on), epsilon_lower)| LowerBound {
            attack: (*attack).into(),
            epsilon_lower,
            rests_on: (*rests_on).into(),
            decides: true,
        });
    let mut out: Vec<LowerBound> = by_canaries.collect();
    out.extend(losses.map(|l| LowerBound {
        attack: "losses of canary records, one run".into(),
        epsilon_lower: l.one_run.iter().map(|o| o.epsilon_lower).fold(0.0, f64::max),
        rests_on: "no assumption about the mechanism".into(),
        decides: false,
    }));
    out.extend(
        membership
            .and_then(|m| m.epsilon_lower)
            .map(|epsilon_lower| LowerBound {
                attack: "n-grams of the synthetic texts".into(),
                epsilon_lower,
                rests_on: "training and held-out records are drawn alike and independent".into(),
                decides: false,
            }),
    );
    out
}

impl Findings {
    /// Sets the verdict.
    fn judge(&mut self, contradictions: Vec<String>) {
        for bound in &self.lower_bounds {
            if bound.epsilon_lower > self.claim.epsilon {
                let said = format!(
                    "{}: epsilon is at least {:.3} with {:.0} % confidence, {:.3} is claimed",
                    bound.attack,
                    bound.epsilon_lower,
                    100.0 * self.confidence,
                    self.claim.epsilon
                );
                match bound.decides {
                    true => self.refuted_by.push(said),
                    false => self.advice.push(said),
                }
            }
        }
        if !self.replay.within_charge {
            self.refuted_by.push(format!(
                "replay: one record moved the clipped sum by {:.6}·C and what others contribute by {:.1e}·C; {} and {:e} are charged",
                self.replay.worst_ratio,
                self.replay.worst_others.unwrap_or_default(),
                1.0 + self.replay.charged_allowance,
                self.replay.charged_allowance
            ));
        }
        if let Some(trainer) = self.trainer.as_ref().filter(|trainer| !trainer.same) {
            self.refuted_by.push(format!(
                "the training loop: after {} steps a value differs by {:e} from what the mechanism released leads to",
                trainer.steps, trainer.largest_difference
            ));
        }
        self.refuted_by.extend(contradictions);
        self.verdict = match (self.refuted_by.is_empty(), self.advice.is_empty()) {
            (false, _) => Verdict::Fail,
            (true, false) => Verdict::Advice,
            (true, true) => Verdict::Pass,
        };
    }

    /// Everything that spoke against the claim, in a line.
    pub fn refutations(&self) -> String {
        [&self.refuted_by[..], &self.advice].concat().join("; ")
    }

    /// The largest lower bound.
    pub fn epsilon_lower(&self) -> f64 {
        self.lower_bounds.iter().map(|b| b.epsilon_lower).fold(0.0, f64::max)
    }

    /// Refuses a run of which an attack found more than is claimed.
    ///
    /// # Errors
    /// Budget (exit code 4): more privacy was lost than was claimed, or seems to be.
    pub fn require_pass(&self) -> Result<()> {
        match self.verdict {
            Verdict::Pass => Ok(()),
            Verdict::Advice => Err(Error::budget(format!(
                "an attack that reads private records found more than {} claims: {}",
                self.run,
                self.advice.join("; ")
            ))
            .hint("audit again before you publish: chance alone does this in up to one audit in twenty. `dpsynth release` does not look at it")),
            Verdict::Fail => Err(Error::budget(format!(
                "the claim of {} does not hold: {}",
                self.run,
                self.refutations()
            ))
            .hint("release nothing of this run; internal/audit.json says what was seen. Audit again: only a bound on epsilon can be chance, anything else is a fault")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::documents;

    /// What an attack on private records found was called a refutation, although a release does not look at it.
    #[test]
    fn p9_advice_was_called_a_refutation() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first_run/runs/tiny-quick/internal/audit.json");
        let mut findings: Findings = documents::read(&path).expect("findings");
        findings.judge(Vec::new());
        assert_eq!(findings.verdict, Verdict::Pass);
        findings.require_pass().expect("the claim stands");
        findings.lower_bounds.push(LowerBound {
            attack: "n-grams of the synthetic texts".into(),
            epsilon_lower: 99.0,
            rests_on: "luck".into(),
            decides: false,
        });
        findings.judge(Vec::new());
        assert_eq!((findings.verdict, findings.refuted_by.len()), (Verdict::Advice, 0));
        let error = findings.require_pass().expect_err("for the owner to look at");
        assert_eq!(error.exit_code(), 4);
        assert!(
            error
                .to_string()
                .contains("an attack that reads private records found more"),
            "{error}"
        );
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("one audit in twenty"))
        );
        findings.judge(vec!["the ledger does not know run `x`".into()]);
        assert_eq!(findings.verdict, Verdict::Fail);
        let error = findings.require_pass().expect_err("refuted");
        assert!(error.to_string().contains("does not hold"), "{error}");
    }
}
