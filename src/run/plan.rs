//! The privacy plan that a configuration asks for, from public numbers alone.

use crate::Result;
use crate::config::{Batching, RunConfig, Update};
use crate::privacy;
use crate::privacy::{
    Batches, COPY_GATE, LABELS, LEXICON, LabelCounts, LabelScorer, LabelTokens, PlanRequest, PrivacyPlan, SCORER, Unit,
    UnitCount, default_delta,
};

/// Largest norm of a unit's gradient of the scorer.
const SCORER_NORM: f64 = 1.0;
/// Steps by which scorers are weighed.
pub const WEIGHING: u64 = 20;

/// The plan that `config` asks for, from public numbers alone.
pub fn privacy_plan(config: &RunConfig) -> Result<PrivacyPlan> {
    Ok(PrivacyPlan::calibrate(&plan_request(config))?)
}

/// What `config` asks a plan for.
pub fn plan_request(config: &RunConfig) -> PlanRequest {
    let f = &config.finetune;
    let size = config.dataset.public_size;
    let an_epoch = match f.sampler {
        Batching::Poisson => size as f64 / f.expected_batch_size as f64,
        Batching::RandomAllocation => privacy::slots(size, f.expected_batch_size) as f64,
    };
    let by_epochs = (f.epochs * an_epoch).ceil() as u64;
    let labels = (f.label_histogram_epsilon).map(|epsilon| LABELS.planned(LabelCounts { epsilon }, 1));
    let gate = (config.release.copy_gate).map(|gate| COPY_GATE.planned(UnitCount { epsilon: gate.epsilon }, 1));
    let l = &config.lexicon;
    // What is no delta is refused with the plan.
    let delta = f.delta.unwrap_or(default_delta(size)).clamp(f64::MIN_POSITIVE, 0.5);
    let lexicon = (l.is_on()).then(|| LEXICON.planned(LabelTokens::costing(l.share * f.epsilon, delta, l.max_norm), 1));
    let scorer = (l.has_scorer()).then(|| {
        // Each is learned and weighed, that of tokens by itself and then all together; and it is looked at once.
        let steps = (l.scorer_steps.saturating_add(WEIGHING))
            .saturating_mul(l.scorers())
            .saturating_add(1);
        SCORER.planned(
            LabelScorer::costing(l.scorer_share * f.epsilon, delta, steps, SCORER_NORM),
            1,
        )
    });
    let beside = labels.into_iter().chain(gate).chain(lexicon).chain(scorer).collect();
    PlanRequest {
        target_epsilon: f.epsilon,
        delta: f.delta,
        public_size: size,
        expected_batch_size: f.expected_batch_size,
        steps: f.steps.unwrap_or(by_epochs),
        max_grad_norm: f.max_grad_norm,
        noise: f.noise,
        unit: unit(config),
        batches: match (f.sampler, f.max_batch_size, f.bands) {
            (Batching::RandomAllocation, _, _) => Batches::Allocated,
            (Batching::Poisson, Some(most), _) => Batches::AtMost(most),
            (Batching::Poisson, None, Some(bands)) => Batches::Cyclic(bands),
            (Batching::Poisson, None, None) => Batches::Poisson,
        },
        beside,
        seed: f.seed,
    }
}

/// What the reference `dp_direct` asks a plan for: the run's own epsilon, delta, unit, noise and bound, with steps and batches of
/// `evaluate.dp_direct`.
pub fn direct_request(config: &RunConfig) -> PlanRequest {
    let (request, direct) = (plan_request(config), &config.evaluate.dp_direct);
    PlanRequest {
        expected_batch_size: direct.expected_batch_size.unwrap_or(match direct.update {
            // Solved once, for all.
            Update::NormalEquations {} => request.public_size,
            _ => request.expected_batch_size,
        }),
        steps: direct.steps.unwrap_or(request.steps),
        beside: Vec::new(),
        ..request
    }
}

/// Who is protected, as `config` declares it.
pub fn unit(config: &RunConfig) -> Unit {
    match &config.dataset.unit {
        None => Unit::Record,
        Some(unit) => Unit::Group {
            column: unit.column.clone(),
            max_records: unit.max_records as u64,
        },
    }
}
