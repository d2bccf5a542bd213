//! The epsilon for a bound on attacks (Kulynych et al. 2024, arXiv 2407.02191; Gomez et al. 2025): from the whole curve of
//! the plan, not from one point of it. It bounds what this run gives away, not what all runs on the same records do.

use super::plan::{direct_request, plan_request};
use crate::config::{EvenOdds, Rates, Risk, RunConfig, Task};
use crate::privacy::PrivacyPlan;
use crate::privacy::accountant::Adjacency;
use crate::privacy::accountant::tradeoff::Curve;
use crate::{Error, Result};

/// The least epsilon that is tried, beside what is set aside for counts.
const LEAST: f64 = 0.01;
/// How far below the largest it may lie, as a fraction.
const PRECISION: f64 = 5e-3;

/// `config` with the largest epsilon, up to `finetune.epsilon`, at which no attack passes `finetune.risk`, never one at which some may; the same where there
/// is no such bound.
///
/// # Errors
/// Usage: no epsilon that can be planned is small enough; a plan that there cannot be.
pub fn within_risk(mut config: RunConfig) -> Result<RunConfig> {
    let Some(risk) = config.finetune.risk else {
        return Ok(config);
    };
    let aside = config.finetune.label_histogram_epsilon.unwrap_or(0.0)
        + config.release.copy_gate.as_ref().map_or(0.0, |gate| gate.epsilon);
    let (least, most) = (LEAST + 1.05 * aside, config.finetune.epsilon);
    let mut keeps = |epsilon: f64| -> Result<bool> {
        config.finetune.epsilon = epsilon;
        let request = match config.task {
            Task::Synthesise => plan_request(&config),
            Task::Classify => direct_request(&config),
        };
        let plan = PrivacyPlan::calibrate(&request)?;
        let curve = Curve::new(&plan.statement(plan.steps()).phases()?, Adjacency::AddOrRemoveOne)?;
        Ok(match risk {
            Risk::EvenOdds(EvenOdds { right_at_even_odds }) => curve.right_at_even_odds().at_most <= right_at_even_odds,
            Risk::Rates(Rates {
                false_positive_rate,
                true_positive_rate,
            }) => curve.true_positives(false_positive_rate).at_most <= true_positive_rate,
        })
    };
    if !keeps(least)? {
        return Err(Error::usage(format!(
            "`finetune.risk` is passed even at epsilon {least}, by what is certified of it"
        ))
        .hint("a bound further from what guessing gives"));
    }
    let (mut within, mut over) = (least, most);
    if most <= least || keeps(most)? {
        (within, over) = (most, most);
    }
    while over / within > 1.0 + PRECISION {
        let middle = (within * over).sqrt();
        match keeps(middle)? {
            true => within = middle,
            false => over = middle,
        }
    }
    config.finetune.epsilon = within;
    config.check()?;
    Ok(config)
}
