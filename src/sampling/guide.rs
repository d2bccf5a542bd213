//! How much a label steers decoding: found from what is seen in records that are drawn to try it, so that nobody has to
//! choose it, least of all by scores on private records.
//!
//! A label shows the more the more it steers; too little and it comes apart from the text, too much and texts become
//! caricatures of it.
//!
//! - Guidance (γ) by the model's own scores: wherever γ was swept by hand, on public data, records were worth most where the
//!   model found their label with a mean posterior of 0.79 to 0.89, whatever γ that took (docs/results.md).
//! - A lexicon's weight (β): records should show their label to its scorer of tokens as real ones do (those that would be kept,
//!   where records are judged), and how well those do was counted and charged.
//!
//! Private records do not enter: this room has no handle to them.

use crate::Result;
use crate::document;

/// The mean posterior of a record's own label that guidance aims at, and a lexicon without scorers.
pub const TARGET: f64 = 0.85;

/// The γ that are tried; between two of them it is found by a straight line.
pub const GUIDANCE: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0];

/// The β that are tried.
pub const WEIGHTS: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 3.0];

/// Records that are drawn to try a β, at least: two of each label.
pub const LIFTED: usize = 128;

/// The same to try a γ: the model that judges them reads each under several labels, which takes longer than to draw it.
pub const GUIDED: usize = 64;

/// How much a label steers decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steering {
    /// γ of label guidance.
    pub guidance: f64,
    /// β of the lexicon, where there is one.
    pub lexicon_weight: f64,
}

document! {
    /// A guidance that was found.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Found {
        /// γ.
        post_processing guidance: f64,
        /// What was tried, by γ.
        post_processing tried: Vec<Tried>,
    }
}

document! {
    /// A guidance that was tried.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Tried {
        post_processing guidance: f64,
        /// Mean over the pilot records of their own label's posterior.
        post_processing mean_posterior: f64,
    }
}

document! {
    /// A lexicon's weight that was found.
    #[derive(Clone, Debug, PartialEq)]
    pub struct FoundWeight {
        /// β.
        post_processing weight: f64,
        /// The mean posterior that was aimed at.
        charged target: f64,
        /// What was tried, by β.
        post_processing tried: Vec<TriedWeight>,
    }
}

document! {
    /// A lexicon's weight that was tried.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct TriedWeight {
        post_processing weight: f64,
        /// Mean over the pilot records of their own label's posterior.
        post_processing mean_posterior: f64,
    }
}

/// The value at which `posterior(value)`, which rises with it, reaches `target`: within `ladder`, at its ends where it lies
/// outside; and the rungs that were tried for it, at most three of six, with what they gave.
///
/// # Errors
/// What `posterior` says.
pub fn find(
    ladder: &[f64],
    target: f64,
    mut posterior: impl FnMut(f64) -> Result<f64>,
) -> Result<(f64, Vec<(f64, f64)>)> {
    let mut tried: Vec<(f64, f64)> = Vec::new();
    // The first rung that reaches the target is in below..=above; the one past the last stands for none.
    let (mut below, mut above) = (0, ladder.len());
    while below < above {
        let rung = usize::midpoint(below, above);
        let mean_posterior = posterior(ladder[rung])?;
        tried.push((ladder[rung], mean_posterior));
        match mean_posterior >= target {
            true => above = rung,
            false => below = rung + 1,
        }
    }
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    let value = match tried.iter().position(|(_, shown)| *shown >= target) {
        None => ladder[ladder.len() - 1],
        Some(0) => tried[0].0,
        Some(i) => {
            let ((a, low), (b, high)) = (tried[i - 1], tried[i]);
            a + (target - low) / (high - low) * (b - a)
        }
    };
    Ok((value, tried))
}

/// How many records are drawn to try a strength, at least `least` ([`LIFTED`] or [`GUIDED`]), where `records` of `labels` labels
/// are wanted.
pub fn pilot_size(least: usize, records: usize, labels: usize) -> usize {
    least.max(2 * labels).min(records)
}

/// The labels of the pilot records, in the shares that they have of all records.
pub fn pilot(least: usize, wanted: &[usize], labels: usize) -> Vec<usize> {
    let records = pilot_size(least, wanted.len(), labels);
    // By label: they take turns in `wanted`, and steps of a length could always meet the same.
    let mut sorted = wanted.to_vec();
    sorted.sort_unstable();
    (0..records).map(|i| sorted[i * sorted.len() / records]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(posterior: impl Fn(f64) -> f64) -> (f64, Vec<(f64, f64)>) {
        find(&GUIDANCE, TARGET, |guidance| Ok(posterior(guidance))).expect("nothing fails")
    }

    #[test]
    fn guidance_is_found_where_the_label_shows_as_wanted() {
        // 0.85 at γ = 1.5, on a line between the rungs 1 and 2.
        let at = found(|g| (0.7 + 0.1 * g).min(1.0));
        assert!((at.0 - 1.5).abs() < 1e-9, "{at:?}");
        assert!(at.1.len() <= 3, "{at:?}");
        assert!(at.1.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn guidance_stays_on_the_ladder() {
        assert_eq!(found(|_| 0.99).0, 0.0);
        assert_eq!(found(|_| 0.2).0, 4.0);
        // A pilot is noise too: what does not rise still gives something between two rungs.
        let odd = found(|g| if g == 1.0 { 0.9 } else { 0.3 });
        assert!((odd.0 - (0.5 + 0.5 * (TARGET - 0.3) / 0.6)).abs() < 1e-9, "{odd:?}");
    }

    #[test]
    fn a_pilot_has_labels_in_the_shares_of_all_records() {
        let wanted: Vec<usize> = (0..770).map(|i| i / 10).collect();
        let pilot = pilot(LIFTED, &wanted, 77);
        assert_eq!(pilot.len(), 154);
        assert!((0..77).all(|label| pilot.iter().filter(|l| **l == label).count() == 2));
        assert_eq!(super::pilot(LIFTED, &[0, 0, 1], 2), [0, 0, 1]);
        // Labels that take turns, of which steps of eight would meet one.
        let turns: Vec<usize> = (0..1024).map(|i| i % 2).collect();
        let pilot = super::pilot(GUIDED, &turns, 2);
        assert_eq!(
            (pilot.len(), pilot.iter().filter(|l| **l == 0).count()),
            (GUIDED, GUIDED / 2)
        );
    }
}
