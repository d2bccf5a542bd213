//! How much label guidance: found from what a model says of its own records, so that nobody has to choose it, least of
//! all by scores on private records.
//!
//! A label shows the more the stronger the guidance is; too weak and it comes apart from the text, too strong and texts
//! become caricatures of it. Wherever γ was swept by hand, on public data, records were worth most where the model found
//! their label with a mean posterior of 0.79 to 0.89, whatever γ that took (docs/results.md). Private records do not enter:
//! this room has no handle to them.

use crate::Result;
use crate::document;

/// The mean posterior of a record's own label that guidance aims at.
pub const TARGET: f64 = 0.85;

/// The γ that are tried; between two of them it is found by a straight line.
pub const LADDER: [f64; 6] = [0.0, 0.25, 0.5, 1.0, 2.0, 4.0];

/// Records that are drawn to try a γ, unless there are more labels than half of that.
const PILOT: usize = 128;

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

/// The γ at which `posterior(γ)`, which rises with γ, reaches [`TARGET`]: within [`LADDER`], at its ends where it lies
/// outside. Asks for at most three rungs.
///
/// # Errors
/// What `posterior` says.
pub fn find(mut posterior: impl FnMut(f64) -> Result<f64>) -> Result<Found> {
    let mut tried: Vec<Tried> = Vec::new();
    // The first rung that reaches the target is in below..=above; the one past the last stands for none.
    let (mut below, mut above) = (0, LADDER.len());
    while below < above {
        let rung = usize::midpoint(below, above);
        let mean_posterior = posterior(LADDER[rung])?;
        tried.push(Tried {
            guidance: LADDER[rung],
            mean_posterior,
        });
        match mean_posterior >= TARGET {
            true => above = rung,
            false => below = rung + 1,
        }
    }
    tried.sort_by(|a, b| a.guidance.total_cmp(&b.guidance));
    let reached = tried.iter().position(|t| t.mean_posterior >= TARGET);
    let guidance = match reached {
        None => LADDER[LADDER.len() - 1],
        Some(0) => tried[0].guidance,
        Some(i) => {
            let (a, b) = (tried[i - 1], tried[i]);
            let share = (TARGET - a.mean_posterior) / (b.mean_posterior - a.mean_posterior);
            a.guidance + share * (b.guidance - a.guidance)
        }
    };
    Ok(Found { guidance, tried })
}

/// How many records are drawn to try a γ, where `records` of `labels` labels are wanted.
pub fn pilot_size(records: usize, labels: usize) -> usize {
    PILOT.max(2 * labels).min(records)
}

/// The labels of the pilot records, in the shares that they have of all records.
pub fn pilot(wanted: &[usize], labels: usize) -> Vec<usize> {
    let records = pilot_size(wanted.len(), labels);
    // By label: they take turns in `wanted`, and steps of a length could always meet the same.
    let mut sorted = wanted.to_vec();
    sorted.sort_unstable();
    (0..records).map(|i| sorted[i * sorted.len() / records]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(posterior: impl Fn(f64) -> f64) -> Found {
        find(|guidance| Ok(posterior(guidance))).expect("nothing fails")
    }

    #[test]
    fn guidance_is_found_where_the_label_shows_as_wanted() {
        // 0.85 at γ = 1.5, on a line between the rungs 1 and 2.
        let at = found(|g| (0.7 + 0.1 * g).min(1.0));
        assert!((at.guidance - 1.5).abs() < 1e-9, "{at:?}");
        assert!(at.tried.len() <= 3, "{at:?}");
        assert!(at.tried.is_sorted_by(|a, b| a.guidance < b.guidance));
    }

    #[test]
    fn guidance_stays_on_the_ladder() {
        assert_eq!(found(|_| 0.99).guidance, 0.0);
        assert_eq!(found(|_| 0.2).guidance, 4.0);
        // A pilot is noise too: what does not rise still gives something between two rungs.
        let odd = found(|g| if g == 1.0 { 0.9 } else { 0.3 });
        assert!(
            (odd.guidance - (0.5 + 0.5 * (TARGET - 0.3) / 0.6)).abs() < 1e-9,
            "{odd:?}"
        );
    }

    #[test]
    fn a_pilot_has_labels_in_the_shares_of_all_records() {
        let wanted: Vec<usize> = (0..770).map(|i| i / 10).collect();
        let pilot = pilot(&wanted, 77);
        assert_eq!(pilot.len(), 154);
        assert!((0..77).all(|label| pilot.iter().filter(|l| **l == label).count() == 2));
        assert_eq!(super::pilot(&[0, 0, 1], 2), [0, 0, 1]);
        // Labels that take turns, of which steps of eight would meet one.
        let turns: Vec<usize> = (0..1024).map(|i| i % 2).collect();
        assert_eq!(super::pilot(&turns, 2).iter().filter(|l| **l == 0).count(), PILOT / 2);
    }
}
