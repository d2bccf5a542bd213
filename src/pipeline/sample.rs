//! Stage 3: synthetic records from the trained model, and zero-shot ones from the base model for comparison, by the same
//! settings but for the lexicon: what was counted of private records steers and judges the synthetic ones alone. Zero-shot ones
//! are guided by their labels in its place, and kept as drawn.

use super::Pipeline;
use super::arm::Source;
use super::scorers::Scorers;
use crate::config::{LabelPrior, NamedPrior, RefineAction, RefineConfig, RunConfig, Strength};
use crate::documents::{Domain, Found, FoundWeight, Sampled, SampledLabel, ShardMetadata, Tried, TriedWeight};
use crate::files::{read_json, write_atomically};
use crate::models::LanguageModel;
use crate::records::{LabelSpace, Vocabulary};
use crate::run::report::guarantee;
use crate::run::{Counted, Preparation, evidence_of, stamp};
use crate::sampling::evidence::Evidence;
use crate::sampling::guide::{self, Steering};
use crate::sampling::prior;
use crate::sampling::refine::{LabelOutcome, Outcome, Refinement, TRIES};
use crate::sampling::shards::{self, Schema, Synthetic};
use crate::training::trainable;
use crate::{Error, Result};

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let (vocabulary, base) = p.language_model()?;
    let tuned = trainable::load(&c.finetune, &base, &p.folder.trained())?.merged(&base);

    let zero_shot = c.sample.zero_shot();
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
        base_model: p.config.model.public_name(),
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
    let counted = evidence_of(&p.folder, name, c)?;
    let scorers = match name {
        "synthetic" => Scorers::of(p, vocabulary)?,
        _ => None,
    };
    let source = Source {
        p,
        model,
        vocabulary,
        prompts: &preparation.prompts,
        evidence: counted.as_ref().map(|counted| &counted.evidence),
        scorers: scorers.as_ref(),
    };
    if counted.as_ref().is_some_and(|counted| !counted.lexicon.tells_labels()) {
        p.progress.note(&format!(
            "{name}: too few real records have a label that is clear to the scorers: the model judges what it draws, and is guided by labels too"
        ));
    }
    let mut steered = steer(&source, name, &wanted, counted.as_ref())?;
    let lifting = match &counted {
        Some(counted) if c.sample.domain_weight > 0.0 => toward_domain(&source, name, &wanted, counted, &mut steered)?,
        _ => counted.as_ref().map(|counted| counted.evidence.clone()),
    };
    let source = Source {
        evidence: lifting.as_ref(),
        ..source
    };
    let wanted = match steered.mean_tokens.zip(c.sample.tokens) {
        Some((mean, tokens)) if name == "synthetic" => {
            let fit = (tokens as f64 / mean.max(1.0)) as usize;
            self::wanted(p, labels.len(), fit.clamp(records, c.sample.most_records()))?
        }
        _ => wanted,
    };
    let journals = [p.folder.journal(name), p.folder.score_journal(name)];
    let refine = refine(c, name, &source);
    let mut arm = source.arm(name.into(), steered.steering, refine.is_on(), journals)?;
    let refinement = Refinement::new(&refine, wanted, labels.len(), c.sample.seed);
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
    report(p, name, steered, &labels, refine, &outcome, arm.blank())?;
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

/// How an arm is steered, and how that was found.
#[derive(Default)]
struct Steered {
    steering: Steering,
    guidance: Option<Found>,
    lexicon_weight: Option<FoundWeight>,
    /// Of the records that were drawn last to find one; none where none was.
    mean_tokens: Option<f64>,
}

/// As declared, or found from records that the arm's model draws to try it, which are thrown away.
fn steer(source: &Source, name: &str, wanted: &[usize], counted: Option<&Counted>) -> Result<Steered> {
    let s = &source.p.config.sample;
    let pilot = |least| guide::pilot(least, wanted, source.prompts.len());
    let mut out = Steered::default();
    let knows_more = counted.is_some_and(|counted| counted.lexicon.tells_labels());
    match s.guidance {
        Strength::Fixed(guidance) => out.steering.guidance = guidance,
        // One of them is enough, and the lexicon knows more.
        Strength::Found(_) if knows_more && s.lexicon_weight != Strength::Fixed(0.0) => {}
        Strength::Found(_) => {
            let pilot = pilot(guide::GUIDED);
            let (guidance, tried) = guide::find(&guide::GUIDANCE, guide::TARGET, |guidance| {
                let steering = Steering {
                    guidance,
                    ..Steering::default()
                };
                let (shown, mean_tokens) = shown(source, name, &pilot, steering)?;
                out.mean_tokens = mean_tokens;
                Ok(shown)
            })?;
            note(source.p, name, ("guidance", guidance), (guide::TARGET, &pilot), &tried);
            let tried = tried.into_iter().map(|(guidance, mean_posterior)| Tried {
                guidance,
                mean_posterior,
            });
            out.steering.guidance = guidance;
            out.guidance = Some(Found {
                guidance,
                tried: tried.collect(),
            });
        }
    }
    let Some(counted) = counted else {
        return Ok(out);
    };
    match s.lexicon_weight {
        Strength::Fixed(weight) => out.steering.lexicon_weight = weight,
        Strength::Found(_) => {
            let target = counted.shown.unwrap_or(guide::TARGET);
            let pilot = pilot(guide::LIFTED);
            let (weight, tried) = guide::find(&guide::WEIGHTS, target, |lexicon_weight| {
                let steering = Steering {
                    lexicon_weight,
                    ..out.steering
                };
                let (shown, mean_tokens) = shown_to(&counted.evidence, source, name, &pilot, steering)?;
                out.mean_tokens = mean_tokens;
                Ok(shown)
            })?;
            note(source.p, name, ("lexicon weight", weight), (target, &pilot), &tried);
            let tried = tried
                .into_iter()
                .map(|(weight, mean_posterior)| TriedWeight { weight, mean_posterior });
            out.steering.lexicon_weight = weight;
            out.lexicon_weight = Some(FoundWeight {
                weight,
                target,
                tried: tried.collect(),
            });
        }
    }
    Ok(out)
}

/// Tells what was found.
fn note(p: &Pipeline, name: &str, (what, value): (&str, f64), (target, pilot): (f64, &[usize]), tried: &[(f64, f64)]) {
    let tried: Vec<String> = tried.iter().map(|(at, shown)| format!("{shown:.3} at {at}")).collect();
    p.progress.note(&format!(
        "{name}: {what} {value:.2}, for a mean posterior of {target:.2} of {} records: {}",
        pilot.len(),
        tried.join(", ")
    ));
}

/// How well the labels of pilot records show to the arm's judge: their mean posterior, and the mean length in tokens.
fn shown(source: &Source, name: &str, pilot: &[usize], steering: Steering) -> Result<(f64, Option<f64>)> {
    let s = &source.p.config.sample;
    let scored = RefineConfig {
        action: RefineAction::Score,
        rounds: 1,
        ..s.refine.clone()
    };
    let what = format!("guidance {}", steering.guidance);
    let journals = source.p.folder.pilot_journals(name, &what);
    let mut arm = source.arm(format!("{name}, {what}"), steering, true, journals)?;
    let labels = source.prompts.len();
    let refinement = Refinement::new(&against(&scored, source), pilot.to_vec(), labels, s.seed);
    let (_, outcome) = arm.fill(refinement)?;
    // Blank records show no label.
    let written = arm.texts().len() as f64 / pilot.len() as f64;
    Ok((outcome.mean_posterior.unwrap_or(0.0) * written, arm.mean_tokens()))
}

/// How well the labels of pilot records show in their tokens alone, to `evidence`.
fn shown_to(
    evidence: &Evidence,
    source: &Source,
    name: &str,
    pilot: &[usize],
    steering: Steering,
) -> Result<(f64, Option<f64>)> {
    let what = format!("lexicon weight {}", steering.lexicon_weight);
    let drawn = pilot_tokens(source, name, &what, pilot, steering)?;
    let posterior = |(label, tokens): &(usize, Vec<u32>)| 1.0 / (1.0 + (-evidence.score(tokens, *label)).exp());
    let posteriors: f64 = drawn.iter().map(posterior).sum();
    // Blank records show no label.
    Ok((posteriors / pilot.len() as f64, mean_tokens(&drawn)))
}

/// What the arm is lifted by: evidence of labels, and of the domain, by what is drawn without that.
fn toward_domain(
    source: &Source,
    name: &str,
    wanted: &[usize],
    counted: &Counted,
    steered: &mut Steered,
) -> Result<Option<Evidence>> {
    let path = source.p.folder.domain();
    let pilot = guide::pilot(guide::LIFTED, wanted, source.prompts.len());
    let drawn = pilot_tokens(source, name, "domain", &pilot, steered.steering)?;
    steered.mean_tokens = mean_tokens(&drawn);
    let drawn: Vec<Vec<u32>> = drawn.into_iter().map(|(_, tokens)| tokens).collect();
    let domain = Domain::of(&counted.lexicon, &drawn);
    write_atomically(&path, stamp::text(&domain).as_bytes())?;
    Ok(counted.toward(&domain, source.p.config.sample.domain_weight))
}

/// Mean length of records; none where there are none.
fn mean_tokens(drawn: &[(usize, Vec<u32>)]) -> Option<f64> {
    let tokens: usize = drawn.iter().map(|(_, tokens)| tokens.len()).sum();
    (!drawn.is_empty()).then(|| tokens as f64 / drawn.len() as f64)
}

/// The tokens of pilot records as the lexicon sees them, with their labels; without the blank ones.
fn pilot_tokens(
    source: &Source,
    name: &str,
    what: &str,
    pilot: &[usize],
    steering: Steering,
) -> Result<Vec<(usize, Vec<u32>)>> {
    let c = &source.p.config;
    let journals = source.p.folder.pilot_journals(name, what);
    let mut arm = source.arm(format!("{name}, {what}"), steering, false, journals)?;
    let plain = RefineConfig {
        min_posterior: 0.0,
        action: RefineAction::Drop,
        ..c.sample.refine.clone()
    };
    arm.fill(Refinement::new(
        &plain,
        pilot.to_vec(),
        source.prompts.len(),
        c.sample.seed,
    ))?;
    let texts = arm.texts();
    let mut places: Vec<_> = texts.keys().copied().collect();
    places.sort_unstable();
    let of = |(place, round): (u64, u64)| {
        let tokens = source.vocabulary.text(texts[&(place, round)], c.lexicon.max_tokens)?;
        Ok((pilot[place as usize], tokens))
    };
    places.into_iter().map(of).collect()
}

/// What becomes of an arm's records: as declared, or kept as drawn ([`RunConfig::keeps_others_as_drawn`]).
fn refine(c: &RunConfig, name: &str, source: &Source) -> RefineConfig {
    match name != "synthetic" && c.keeps_others_as_drawn() {
        true => RefineConfig {
            min_posterior: 0.0,
            ..c.sample.refine.clone()
        },
        false => against(&c.sample.refine, source),
    }
}

/// How records are judged: by scorers, who see all labels at once, or by the model, for which each label costs a pass.
fn against(refine: &RefineConfig, source: &Source) -> RefineConfig {
    match source.scorers {
        None => refine.clone(),
        Some(_) => RefineConfig {
            labels: source.prompts.len(),
            ..refine.clone()
        },
    }
}

/// Notes and writes what came of it.
fn report(
    p: &Pipeline,
    name: &str,
    steered: Steered,
    labels: &LabelSpace,
    refine: RefineConfig,
    outcome: &Outcome,
    blank: usize,
) -> Result<()> {
    let sum = |part: fn(&LabelOutcome) -> usize| outcome.labels.iter().map(part).sum::<usize>();
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
        guidance: steered.guidance,
        lexicon_weight: steered.lexicon_weight,
        wanted,
        drawn: sum(|l| l.drawn),
        kept,
        dropped: sum(|l| l.dropped),
        relabelled: sum(|l| l.relabelled),
        missing: sum(|l| l.missing),
        blank,
        refine,
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
    if sampled.refine.is_on() {
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
