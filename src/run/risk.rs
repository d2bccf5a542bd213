//! The epsilon for a bound on attacks (Kulynych et al. 2024, arXiv 2407.02191; Gomez et al. 2025): from the whole curve of
//! the plan, not from one point of it.

use super::plan::{direct_request, plan_request};
use crate::config::{EvenOdds, Rates, Risk, RunConfig, Task};
use crate::privacy::PrivacyPlan;
use crate::privacy::accountant::Adjacency;
use crate::privacy::accountant::tradeoff::Curve;
use crate::{Error, Result};

/// Epsilons between which it is looked for.
const LEAST: f64 = 0.01;
/// Above it, a bound would be kept by the records that are not drawn alone, and those that are drawn would have next to no noise.
const MOST: f64 = 16.0;
/// How far below the largest it may lie, as a fraction.
const PRECISION: f64 = 5e-3;

/// `config` with the largest epsilon, up to 16, at which no attack passes `finetune.risk`, never one at which some may; the same where there
/// is no such bound.
///
/// # Errors
/// Usage: no epsilon that can be planned is small enough; a plan that there cannot be.
pub fn within_risk(mut config: RunConfig) -> Result<RunConfig> {
    let Some(risk) = config.finetune.risk else {
        return Ok(config);
    };
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
    if !keeps(LEAST)? {
        return Err(Error::usage(format!(
            "`finetune.risk` is passed even at epsilon {LEAST}, by what is certified of it"
        ))
        .hint("a bound further from what guessing gives"));
    }
    let (mut within, mut over) = (LEAST, MOST);
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
