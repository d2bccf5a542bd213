//! Whether the model had read the records before, in public texts: no guarantee of this program covers that.
//!
//! Each of some held-out records, which nothing here was trained on, is cut in two. The untouched model says how likely the
//! second part is after the first, and after another record's first part. Whoever recites finds it likely word by word.
//! After Carlini et al. 2023 ("Quantifying memorization across neural language models": completions of prefixes), with
//! another record's first part as the reference (Oren et al. 2024 shuffle a dataset's order to the same end).

use super::Stop;
use crate::Result;
pub use crate::documents::Contamination;
use crate::machine::workers::Workers;
use crate::models::LanguageModel;
use crate::sampling::score::{Scorer, Text};

/// Records that are completed at most.
const RECORDS: usize = 64;
/// Tokens of each part, at least and at most.
const PART: (usize, usize) = (16, 64);
/// Nats a token below which the geometric mean of the tokens' probabilities is above one half.
const RECITED: f64 = std::f64::consts::LN_2;

/// Completes some of `records`, token sequences without prompts; none where hardly any is long enough.
///
/// # Errors
/// [`crate::Error::interrupted`].
pub fn contamination(model: &LanguageModel, records: &[Vec<u32>], stop: Stop) -> Result<Option<Contamination>> {
    let long = records.iter().filter(|tokens| tokens.len() >= 2 * PART.0);
    let halves: Vec<(&[u32], &[u32])> = long
        .take(RECORDS)
        .map(|tokens| {
            let part = (tokens.len() / 2).min(PART.1);
            (&tokens[..part], &tokens[part..2 * part])
        })
        .collect();
    if halves.len() < 2 {
        return Ok(None);
    }
    let firsts: Vec<Vec<u32>> = halves.iter().map(|(first, _)| first.to_vec()).collect();
    let behind: Vec<[usize; 2]> = (0..halves.len()).map(|i| [i, (i + 1) % halves.len()]).collect();
    let texts: Vec<Text> = (halves.iter().zip(&behind))
        .map(|((_, second), labels)| Text { tokens: second, labels })
        .collect();
    let mut losses = [Vec::new(), Vec::new()];
    Scorer::new(model, &firsts).score_on(&Workers::on(&model.device()), &texts, stop.0, |i, log_p| {
        for (losses, log_p) in losses.iter_mut().zip(log_p) {
            losses.push(-log_p / halves[i].1.len() as f64);
        }
        Ok(())
    })?;
    stop.check()?;
    let [own, shuffled] = losses;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let recited = |losses: &[f64]| losses.iter().filter(|loss| **loss < RECITED).count();
    Ok(Some(Contamination {
        records: halves.len(),
        nats_a_token: mean(&own),
        nats_a_token_shuffled: mean(&shuffled),
        recited: recited(&own),
        recited_shuffled: recited(&shuffled),
    }))
}
