//! Stage 3: synthetic records from the trained model, and zero-shot ones from the base model for comparison, by the same
//! settings but for the lexicon: what was counted of private records steers and judges the synthetic ones alone.

use super::Pipeline;
use super::arm::Source;
use super::sense::Sense;
use crate::config::{Guidance, LabelPrior, NamedPrior, RefineAction, RefineConfig};
use crate::documents::{Found, Sampled, SampledLabel, ShardMetadata};
use crate::files::{read_json, write_atomically};
use crate::models::LanguageModel;
use crate::records::{LabelSpace, Vocabulary};
use crate::run::report::guarantee;
use crate::run::{Preparation, evidence_of};
use crate::sampling::guide;
use crate::sampling::prior;
use crate::sampling::refine::{LabelOutcome, Outcome, Refinement, TRIES};
use crate::sampling::shards::{self, Schema, Synthetic};
use crate::training::trainable;
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
        shard_metadata(p)?.pairs(),
    )?;
    drop(tuned);
    let untouched = vec![(
        "dp.mechanism".to_string(),
        "none: no private record was read".to_string(),
    )];
    sample_arm(p, "zero_shot", &base, &vocabulary, zero_shot, untouched)
}

/// What the shards of synthetic records say of themselves: epsilon never without the rest (P10).
fn shard_metadata(p: &Pipeline) -> Result<ShardMetadata> {
    Ok(ShardMetadata {
        guarantee: guarantee(&p.folder)?.ok_or_else(|| Error::other("the trained model has no guarantee beside it"))?,
        run: p.folder.name().to_string(),
        base_model: p.config.model.asset.clone(),
    })
}

/// Draws an arm into its shards, unless they are there.
pub fn sample_arm(
    p: &Pipeline,
    name: &str,
    model: &LanguageModel,
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
    let evidence = evidence_of(&p.folder, name, c)?;
    let sense = match name {
        "synthetic" => Sense::of(p)?,
        _ => None,
    };
    let source = Source {
        p,
        model,
        vocabulary,
        prompts: &preparation.prompts,
        evidence: evidence.as_ref(),
        sense: sense.as_ref(),
    };
    let (guidance, found) = match c.sample.guidance {
        Guidance::Fixed(guidance) => (guidance, None),
        Guidance::Found(_) => {
            let found = found(&source, name, &wanted)?;
            (found.guidance, Some(found))
        }
    };
    let journals = [p.folder.journal(name), p.folder.score_journal(name)];
    let mut arm = source.arm(name.into(), guidance, c.sample.refine.is_on(), journals)?;
    let refinement = Refinement::new(&c.sample.refine, wanted, labels.len(), c.sample.seed);
    let (taken, outcome) = arm.fill(refinement)?;
    let texts = arm.texts();
    let records: Vec<Synthetic> = taken
        .iter()
        .filter_map(|t| {
            let text = texts.get(&(t.request.id, t.request.attempt / TRIES))?;
            Some(Synthetic {
                id: t.place,
                label: t.label,
                text: (*text).to_string(),
            })
        })
        .collect();
    report(p, name, found, &labels, &outcome, arm.blank())?;
    let schema = Schema {
        text: &c.dataset.text.written(),
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

/// γ for an arm, from records that its model draws to try it: they are scored as the arm's own are, and thrown away.
fn found(source: &Source, name: &str, wanted: &[usize]) -> Result<Found> {
    let (p, s) = (source.p, &source.p.config.sample);
    let labels = source.prompts.len();
    let pilot = guide::pilot(wanted, labels);
    // Against as many labels in every run: the fewer, the more certain the same records look.
    let scored = RefineConfig {
        action: RefineAction::Score,
        rounds: 1,
        labels: RefineConfig::default().labels,
        ..s.refine.clone()
    };
    let found = guide::find(|guidance| {
        let journals = p.folder.pilot_journals(name, guidance);
        let mut arm = source.arm(format!("{name}, guidance {guidance}"), guidance, true, journals)?;
        let refinement = Refinement::new(&scored, pilot.clone(), labels, s.seed);
        let (_, outcome) = arm.fill(refinement)?;
        // Blank records show no label.
        let written = arm.texts().len() as f64 / pilot.len() as f64;
        Ok(outcome.mean_posterior.unwrap_or(0.0) * written)
    })?;
    let tried = found.tried.iter();
    let tried: Vec<String> = tried
        .map(|t| format!("{:.3} at {}", t.mean_posterior, t.guidance))
        .collect();
    p.progress.note(&format!(
        "{name}: guidance {:.2}, for a mean posterior of {} of {} records: {}",
        found.guidance,
        guide::TARGET,
        pilot.len(),
        tried.join(", ")
    ));
    Ok(found)
}

/// Notes and writes what came of it.
fn report(
    p: &Pipeline,
    name: &str,
    guidance: Option<Found>,
    labels: &LabelSpace,
    outcome: &Outcome,
    blank: usize,
) -> Result<()> {
    let sum = |part: fn(&LabelOutcome) -> usize| outcome.labels.iter().map(part).sum::<usize>();
    let refine = &p.config.sample.refine;
    let (wanted, kept) = (sum(|l| l.wanted), sum(|l| l.kept));
    if kept == 0 {
        return Err(Error::data(format!(
            "{}: none of {} records shows its label well enough to be kept",
            name,
            sum(|l| l.drawn)
        ))
        .hint("a smaller sample.refine.min_posterior, or a larger sample.guidance"));
    }
    let sampled = Sampled {
        arm: name.into(),
        guidance,
        wanted,
        drawn: sum(|l| l.drawn),
        kept,
        dropped: sum(|l| l.dropped),
        relabelled: sum(|l| l.relabelled),
        missing: sum(|l| l.missing),
        blank,
        refine: refine.clone(),
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
                wanted: of_label.wanted,
                drawn: of_label.drawn,
                kept: of_label.kept,
                relabelled: of_label.relabelled,
                dropped: of_label.dropped,
                missing: of_label.missing,
                bias: outcome.bias.get(label).copied(),
            })
            .collect(),
    };
    if let (Some(agreement), Some(posterior)) = (sampled.agreement, sampled.mean_posterior) {
        p.progress.note(&format!(
            "{}: the wanted label is found in {:.1} % of the first {wanted} records, with a mean posterior of {posterior:.3}",
            name,
            100.0 * agreement,
        ));
    }
    if refine.is_on() {
        p.progress.note(&format!(
            "{}: {kept} of {wanted} records are kept, {} of {} drawn were dropped, {} bear another label than they were drawn for",
            name, sampled.dropped, sampled.drawn, sampled.relabelled
        ));
    } else if blank > 0 {
        p.progress.note(&format!(
            "{}: {blank} of {wanted} records stayed blank after {TRIES} tries and are left out",
            name
        ));
    }
    let text = serde_json::to_string_pretty(&sampled).expect("a report serialises");
    write_atomically(&p.folder.sampled(name), text.as_bytes())
}
