//! What the run claims beside what its dataset's ledger says it did, and beside the plan that is audited.

use crate::Result;
use crate::privacy::mechanisms::Mechanism;
use crate::privacy::{Guarantee, LABELS, LEXICON, PrivacyPlan, TRAINING, find_ledger};
use crate::run::stamp::hash_of;
use crate::run::{Places, RunFolder};
use crate::training::checkpoint::sha256_of;

/// Relative difference of noise multipliers that versions of the program may have: calibration is to 1e-4.
const SAME_NOISE: f64 = 1e-3;

/// Contradictions: each refutes the claim. What cannot be compared goes to `notes`.
///
/// # Errors
/// Data: the ledger was tampered with.
pub fn contradictions(
    claim: &Guarantee,
    plan: &PrivacyPlan,
    dataset_hash: &str,
    folder: &RunFolder,
    places: &Places,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let Some(claimed) = claim.training() else {
        return Ok(vec!["the claim says nothing of training".to_string()]);
    };
    let same = |a: f64, b: f64, tolerance: f64| (a / b - 1.0).abs() <= tolerance;
    if !same(plan.noise_multiplier(), claimed.noise_multiplier, SAME_NOISE)
        || !same(plan.sampling_rate(), claimed.sampling_rate, 1e-12)
        || !same(plan.delta(), claim.delta, 1e-12)
        || plan.steps() != claimed.steps
    {
        out.push(format!(
            "the configuration plans noise multiplier {}, sampling rate {}, {} steps, delta {:e}; the claim has {}, {}, {}, {:e}",
            plan.noise_multiplier(),
            plan.sampling_rate(),
            plan.steps(),
            plan.delta(),
            claimed.noise_multiplier,
            claimed.sampling_rate,
            claimed.steps,
            claim.delta
        ));
    }
    let Some((path, view)) = find_ledger(&places.ledgers, dataset_hash)? else {
        notes.push(format!(
            "the ledger of dataset {dataset_hash} is not in {}: what was paid is not compared with what is claimed; set DPSYNTH_LEDGERS to the folder that has it",
            places.ledgers.display()
        ));
        return Ok(out);
    };
    let name = std::fs::read_to_string(folder.ledger_run()).unwrap_or_default();
    let Some(run) = view.runs.iter().find(|r| r.run == name.trim()) else {
        out.push(format!(
            "the ledger {} does not know run `{}`",
            path.display(),
            name.trim()
        ));
        return Ok(out);
    };
    let trained = folder.trained();
    match &run.trained {
        Some(sha256) => {
            if hash_of(&trained)? != *sha256 {
                out.push(format!("{} is not what the ledger says was trained", trained.display()));
            }
        }
        None if run.holds_states => out.push("the ledger does not say what was trained".into()),
        None => notes
            .push("an earlier version of the program trained this: the ledger does not name the trained model".into()),
    }
    for (counts, charged) in [
        (folder.label_counts(), run.charged(LABELS)),
        (folder.lexicon(), run.charged(LEXICON)),
    ] {
        if counts.exists() && (charged == 0 || !run.has_state(&hash_of(&counts)?)) {
            out.push(format!("{} is not what the ledger says was counted", counts.display()));
        }
    }
    let p = &run.parameters;
    let training = p.release(TRAINING.name()).map(|(_, release)| release.mechanism);
    let (noise_multiplier, sampling_rate) = match training {
        Some(Mechanism::SubsampledGaussian(g)) => (g.noise_multiplier, g.sampling_rate),
        _ => (f64::NAN, f64::NAN),
    };
    if p.private != claim.private
        || noise_multiplier != claimed.noise_multiplier
        || sampling_rate != claimed.sampling_rate
        || p.delta != claim.delta
        || run.charged_steps() > claimed.steps
    {
        out.push(format!(
            "the ledger has the run at noise multiplier {}, sampling rate {}, {} steps charged, delta {:e}; the claim has {}, {}, {}, {:e}",
            noise_multiplier,
            sampling_rate,
            run.charged_steps(),
            p.delta,
            claimed.noise_multiplier,
            claimed.sampling_rate,
            claimed.steps,
            claim.delta
        ));
    }
    let epsilon = run.epsilon()?;
    if claim.private && epsilon > claim.epsilon * (1.0 + 1e-6) {
        out.push(format!(
            "what the ledger says was charged costs epsilon {epsilon:.4}, {:.4} is claimed",
            claim.epsilon
        ));
    }
    Ok(out)
}

/// Whether the ledger says that training began with other values than `initial`.
///
/// # Errors
/// Data: the ledger was tampered with.
pub fn began_elsewhere(initial: &[f32], ledger: &str, folder: &RunFolder, places: &Places) -> Result<bool> {
    let name = std::fs::read_to_string(folder.ledger_run()).unwrap_or_default();
    let view = find_ledger(&places.ledgers, ledger)?.map(|(_, view)| view);
    let record = view.and_then(|view| view.runs.into_iter().find(|run| run.run == name.trim()));
    Ok(record.is_some_and(|record| !record.has_state(&sha256_of(initial))))
}
