//! How many records each label gets, from a prior that is public or paid for.

use crate::config::{LabelPrior, NamedPrior};
use crate::{Error, Result};

/// `records` spread over `labels` joint labels: exact shares, remainders to the largest fractions, ties to the first.
///
/// `noisy` are the noisy counts that were paid for; where there are none, or all are zero, a noisy prior is uniform.
///
/// # Errors
/// A prior of the wrong length, or with weights that are negative, not finite or all zero.
pub fn counts(prior: &LabelPrior, noisy: Option<&[u64]>, labels: usize, records: usize) -> Result<Vec<usize>> {
    let uniform = vec![1.0; labels];
    let weights = match (prior, noisy) {
        (LabelPrior::Weights(w), _) => w.clone(),
        (LabelPrior::Named(NamedPrior::Noisy), Some(counts)) if counts.iter().any(|c| *c > 0) => {
            counts.iter().map(|c| *c as f64).collect()
        }
        (LabelPrior::Named(_), _) => uniform,
    };
    let total: f64 = weights.iter().sum();
    if weights.len() != labels || weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)) || total <= 0.0 {
        return Err(Error::usage(format!(
            "`sample.label_prior` must be \"uniform\", \"noisy\" or {labels} weights of 0 or more, not {weights:?}"
        ))
        .hint("one weight for each label, in the order in which the names are declared"));
    }
    let exact: Vec<f64> = weights.iter().map(|w| w / total * records as f64).collect();
    let mut out: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut order: Vec<usize> = (0..labels).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    let missing = records - out.iter().sum::<usize>();
    for label in order.into_iter().cycle().take(missing) {
        out[label] += 1;
    }
    Ok(out)
}

/// A label for each record, spread evenly, so that every prefix of the records has about the prior's shares.
pub fn labels(counts: &[usize]) -> Vec<usize> {
    let spots = |(label, n): (usize, &usize)| {
        let n = *n;
        (0..n).map(move |i| ((i as f64 + 0.5) / n as f64, label))
    };
    let mut all: Vec<(f64, usize)> = counts.iter().enumerate().flat_map(spots).collect();
    all.sort_by(|a, b| a.partial_cmp(b).expect("positions are finite"));
    all.into_iter().map(|(_, label)| label).collect()
}
