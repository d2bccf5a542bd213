//! Whether each value of a claim is one that this program gives, and fits the others.

use serde_json::Value;

use crate::audit::{CANARIES, CONFIDENCE};
use crate::config::{NoiseKind, Update, is_population};
use crate::facts::CanaryBound;
use crate::facts::attacks::{Attacks, AttacksAt};
use crate::privacy::accountant::{Adjacency, pld};
use crate::privacy::{self, Guarantee, ON_A_GPU, Sampler, Unit};
use crate::release::claim::{Claim, Gate};
use crate::release::clearance::SAME_NUMBER;

/// What is wrong with the claim by itself: a value that this program never writes, one that does not fit another, or an
/// epsilon that its own noise, sampling rate and steps do not give; none where nothing is.
pub fn wrong(said: &Claim) -> Option<String> {
    let strange = |key: &str| format!("`{key}` has a value that this program never gives it");
    let unseen = serde_json::to_value(said).ok().is_some_and(|claim| has_unseen(&claim));
    if unseen {
        return Some("has characters in it that nobody sees".into());
    }
    guarantee(said)
        .or_else(|| gate(said))
        .or_else(|| audit(said))
        .map(strange)
        .or_else(|| accounted(said))
        .or_else(|| composition(said).or_else(|| attacks(said)).map(strange))
}

/// The key of a value of the guarantee that is not this program's.
fn guarantee(said: &Claim) -> Option<&'static str> {
    let (g, size) = (&said.guarantee.parameters, said.guarantee.public_size as f64);
    // A run that trained nothing has no records to hand out.
    let Some(training) = g.training().filter(|training| training.steps > 0) else {
        return Some("steps");
    };
    let rate = match Sampler::read(&g.sampler) {
        Some(Sampler::Allocated { slots }) => 1.0 / slots as f64,
        _ => training.expected_batch_size as f64 / size,
    };
    let wrong = [
        (
            "caveat",
            g.caveat.as_ref().is_some_and(|caveat| caveat != ON_A_GPU) || g.unproven().is_some(),
        ),
        ("private", !g.private),
        ("adjacency", g.adjacency != Adjacency::AddOrRemoveOne.name()),
        ("accountant", g.accountant != "pld"),
        ("unit", unit(said).is_none_or(|unit| unit.to_string() != g.unit)),
        ("epsilon", !(g.epsilon > 0.0 && g.epsilon.is_finite())),
        (
            "epsilon_lower",
            !(g.epsilon_lower >= 0.0 && g.epsilon_lower <= g.epsilon),
        ),
        // P10.
        ("delta", !(g.delta > 0.0 && g.delta * size < 1.0)),
        // P2.
        ("sampling_rate", (training.sampling_rate / rate - 1.0).abs() > 1e-9),
        (
            "sampler",
            !fits(&g.sampler, training.expected_batch_size, said.guarantee.public_size),
        ),
        ("mechanism", said.algorithm.mechanism != training.mechanism),
        ("program", said.program.name != "dpsynth"),
        ("noise", training.noise() != Some(said.algorithm.noise)),
        // Laplace noise hides a few numbers.
        (
            "update",
            said.algorithm.noise == NoiseKind::ExactLaplace
                && !matches!(said.algorithm.update, Update::ZerothOrder { .. }),
        ),
    ];
    wrong.into_iter().find_map(|(key, wrong)| wrong.then_some(key))
}

/// The unit that the claim names in parts.
pub fn unit(said: &Claim) -> Option<Unit> {
    let unit = &said.guarantee.unit;
    match &unit.column {
        None => (unit.max_records == 1).then_some(Unit::Record),
        Some(column) => (unit.max_records > 0 && !column.is_empty()).then(|| Unit::Group {
            column: column.clone(),
            max_records: unit.max_records as u64,
        }),
    }
}

/// Whether batches are drawn as a plan of this size draws them.
fn fits(sampler: &str, expected_batch_size: u64, size: u64) -> bool {
    match Sampler::read(sampler) {
        None => false,
        Some(Sampler::Poisson) => true,
        Some(Sampler::Truncated(t)) => {
            t.most_units == size + size.div_ceil(10) && t.max_batch_size >= expected_batch_size
        }
        Some(Sampler::Allocated { slots }) => slots == privacy::slots(size, expected_batch_size),
        Some(Sampler::Cyclic { parts }) => {
            let all = parts.checked_mul(expected_batch_size);
            (2..=privacy::MAX_BANDS).contains(&parts) && all.is_some_and(|all| all <= size)
        }
    }
}

fn gate(said: &Claim) -> Option<&'static str> {
    let declared = said
        .guarantee
        .parameters
        .values()
        .get("copy_gate_epsilon")
        .and_then(Value::as_f64);
    let fits = |gate: &Gate| {
        let within = i64::try_from(gate.tolerated_units).is_ok_and(|most| gate.noisy_matched_units <= most);
        Some(gate.epsilon) == declared && (1..=50).contains(&gate.shared_words) && within
    };
    let right = match &said.deployment.copy_gate {
        None => declared.is_none(),
        Some(gate) => fits(gate),
    };
    (!right).then_some("copy_gate")
}

fn audit(said: &Claim) -> Option<&'static str> {
    let epsilon = said.guarantee.parameters.epsilon;
    let right = |(bound, (attack, rests_on)): (&CanaryBound, &(&str, &str))| {
        bound.attack == *attack
            && bound.rests_on == *rests_on
            && bound.confidence == CONFIDENCE
            && (0.0..=epsilon).contains(&bound.epsilon_lower)
    };
    let bounds = &said.deployment.audit;
    let all = bounds.len() == CANARIES.len() && bounds.iter().zip(&CANARIES).all(right);
    (!all).then_some("audit")
}

/// All runs together cost no less than this one, at their delta.
fn composition(said: &Claim) -> Option<&'static str> {
    let (Some(all), own) = (&said.guarantee.composition, &said.guarantee.parameters) else {
        return Some("composition");
    };
    let within = all.delta > 0.0 && all.delta < 1.0;
    let alone = own.phases().ok().filter(|_| within);
    let alone = alone.and_then(|phases| pld::epsilon(&phases, Adjacency::AddOrRemoveOne, all.delta).ok());
    let right = all.runs > 0
        && all.research == 0
        && all.epsilon.is_finite()
        && alone.is_some_and(|alone| all.epsilon >= alone.epsilon_lower * (1.0 - SAME_NUMBER))
        && all.epsilon_if_adaptive.is_none_or(|adaptive| adaptive >= 0.0)
        && (all.epsilon_if_adaptive.is_none() || all.runs > 1)
        && (all.adjacency == own.adjacency && all.accountant == own.accountant && all.unit == own.unit)
        && all.sampler.split(" and ").all(is_sampler)
        && all.population.as_deref().is_none_or(is_population);
    (!right).then_some("composition")
}

fn is_sampler(said: &str) -> bool {
    Sampler::read(said).is_some()
}

/// Attacks that can do more than is said.
fn attacks(said: &Claim) -> Option<&'static str> {
    let (claimed, phases) = (&said.guarantee.attacks, said.guarantee.parameters.phases().ok()?);
    let found = Attacks::of(&phases, Adjacency::AddOrRemoveOne).ok()?;
    let least = |claimed: f64, found: f64| claimed.is_finite() && claimed >= found * (1.0 - SAME_NUMBER);
    let at = |(claimed, found): (&AttacksAt, &AttacksAt)| {
        claimed.false_positive_rate == found.false_positive_rate
            && least(claimed.true_positive_rate_at_most, found.true_positive_rate_at_most)
            && (0.0..=claimed.true_positive_rate_at_most).contains(&claimed.true_positive_rate_at_least)
            && least(claimed.posterior_at_most, found.posterior_at_most)
    };
    let right = claimed.at.len() == found.at.len()
        && claimed.at.iter().zip(&found.at).all(at)
        && least(claimed.right_at_even_odds, found.right_at_even_odds)
        && least(claimed.mu, found.mu)
        && claimed.mu <= found.mu * (1.0 + SAME_NUMBER)
        && (claimed.regret - found.regret).abs() <= SAME_NUMBER;
    (!right).then_some("attacks")
}

/// An epsilon that is less than its own numbers give.
fn accounted(said: &Claim) -> Option<String> {
    let g: &Guarantee = &said.guarantee.parameters;
    let least = g
        .phases()
        .and_then(|phases| pld::epsilon(&phases, Adjacency::AddOrRemoveOne, g.delta));
    match least {
        Err(e) => Some(format!("its numbers cannot be accounted for: {e}")),
        Ok(least) if g.epsilon >= least.epsilon * (1.0 - SAME_NUMBER) => None,
        Ok(least) => Some(format!(
            "claims less than its own noise, sampling rate and steps give: epsilon {:.4}",
            least.epsilon
        )),
    }
}

/// Whether a text of `value` has characters that change what a reader sees and are not seen themselves.
fn has_unseen(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(is_unseen),
        Value::Array(values) => values.iter().any(has_unseen),
        Value::Object(values) => values
            .iter()
            .any(|(key, value)| key.chars().any(is_unseen) || has_unseen(value)),
        _ => false,
    }
}

/// Control and format characters, and what is as wide as nothing.
fn is_unseen(c: char) -> bool {
    (c.is_whitespace() && c != ' ')
        || c.is_control()
        || matches!(c, '\u{2800}' | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}')
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'
                ..='\u{180f}'
        )
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}')
        || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}
