//! How often private records have a token, as the lexicon counted it with noise, beside how often the model writes it: by the
//! ratio of the two, decoding makes the tokens of the domain likelier and those that only the model likes less likely.
//!
//! It is a density ratio under independent tokens, so it is applied in part (`sample.domain_weight`) and, as what tokens say of
//! labels, only where a token first occurs in a record. The counts were paid for and drawn records are post-processing.

use std::collections::{HashMap, HashSet};

use super::lexicon::Lexicon;
use crate::document;

/// Tokens of similar frequency are compared among themselves, in so many bands: records of another length have more rare tokens
/// or fewer, and that is no matter of the domain.
const BANDS: usize = 12;

/// What is added to the drawn records' counts, and its share to the lexicon's: a token that was drawn twice says little.
const SMOOTHING: f64 = 3.0;

document! {
    /// How much likelier private records are to have each token of the lexicon.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Domain {
        /// Records that were drawn to compare with.
        post_processing records: usize,
        /// In nats, in the order of the lexicon's tokens.
        post_processing log_ratios: Vec<f32>,
    }
}

impl Domain {
    /// Of a lexicon and the tokens of records that the model drew.
    pub fn of(lexicon: &Lexicon, drawn: &[Vec<u32>]) -> Self {
        let places: HashMap<u32, usize> = lexicon.tokens.iter().copied().zip(0..).collect();
        let mut written = vec![0f64; lexicon.tokens.len()];
        for record in drawn {
            let distinct: HashSet<u32> = record.iter().copied().collect();
            let known = distinct.iter().filter_map(|token| places.get(token));
            known.for_each(|at| written[*at] += 1.0);
        }
        let counted = |at: usize| {
            lexicon
                .counts
                .iter()
                .map(|of_label| f64::from(of_label[at]))
                .sum::<f64>()
        };
        let private: Vec<f64> = (0..written.len()).map(|at| counted(at).max(0.0)).collect();
        let (all_private, all_written) = (sum(&private), sum(&written));
        let shares = |counts: &[f64], all: f64| -> Vec<f64> { counts.iter().map(|c| c / all).collect() };
        let (private, written) = (shares(&private, all_private), shares(&written, all_written));
        let noise = lexicon.noise * (lexicon.counts.len() as f64).sqrt();
        let smoothing = SMOOTHING / all_written + noise / all_private;

        let mut ratios: Vec<f64> = (private.iter().zip(&written))
            .map(|(p, w)| ((p + smoothing) / (w + smoothing)).ln())
            .collect();
        let frequency = |at: &usize| private[*at] + written[*at];
        let mut by_frequency: Vec<usize> = (0..ratios.len()).collect();
        by_frequency.sort_by(|a, b| frequency(b).total_cmp(&frequency(a)));
        for band in by_frequency.chunks(by_frequency.len().div_ceil(BANDS).max(1)) {
            let weight: f64 = band.iter().map(frequency).sum();
            let mean = band.iter().map(|at| frequency(at) * ratios[*at]).sum::<f64>() / weight;
            band.iter().for_each(|at| ratios[*at] -= mean);
        }
        let finite = |ratio: f64| if ratio.is_finite() { ratio as f32 } else { 0.0 };
        Domain {
            records: drawn.len(),
            log_ratios: ratios.into_iter().map(finite).collect(),
        }
    }
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of 48 tokens was counted: four in each band.
    fn count(token: usize) -> usize {
        1200 - 20 * token
    }

    fn lexicon() -> Lexicon {
        let noisy: Vec<f32> = (0..2)
            .flat_map(|_| (0..48).map(|token| 10.0 * count(token) as f32))
            .collect();
        Lexicon::of(&noisy, 2, 1.0, &|token| Some(token.to_string()))
    }

    /// So many records with each token.
    fn drawn(of: impl Fn(usize) -> usize) -> Vec<Vec<u32>> {
        let records = (0..48).flat_map(|token| std::iter::repeat_n(vec![token as u32, 99, token as u32], of(token)));
        records.collect()
    }

    fn ratios(drawn: &[Vec<u32>]) -> HashMap<u32, f32> {
        let lexicon = lexicon();
        let domain = Domain::of(&lexicon, drawn);
        lexicon.tokens.iter().copied().zip(domain.log_ratios).collect()
    }

    #[test]
    fn what_is_drawn_as_often_as_it_was_counted_is_left_alone_and_what_is_not_is_lifted() {
        let same = ratios(&drawn(count));
        assert!(
            same.len() == 48 && same.values().all(|ratio| ratio.abs() < 0.02),
            "{same:?}"
        );
        let half = ratios(&drawn(
            |token| if token == 17 { count(token) / 2 } else { count(token) },
        ));
        assert!((0.2..0.7).contains(&half[&17]), "{half:?}");
        assert!(
            half.iter().all(|(token, ratio)| *token == 17 || *ratio < 0.02),
            "{half:?}"
        );
    }

    #[test]
    fn nothing_drawn_says_nothing() {
        let ratios = ratios(&[]);
        assert!(
            ratios.len() == 48 && ratios.values().all(|ratio| *ratio == 0.0),
            "{ratios:?}"
        );
    }

    #[test]
    fn tokens_of_a_band_are_compared_with_each_other() {
        // Twelve bands of five tokens each, of falling frequency; the first of each is drawn half as often as the others are.
        let count = |token: usize| 1000.0 / (1 + token / 5) as f32;
        let noisy: Vec<f32> = (0..60).map(|token| 50.0 * count(token)).collect();
        let lexicon = Lexicon::of(&noisy, 1, 1e-3, &|token| Some(token.to_string()));
        let rare_are_rarer = |token: usize| count(token) / (1 + token / 5) as f32;
        let drawn: Vec<Vec<u32>> = (0..60usize)
            .flat_map(|token| {
                let half = if token.is_multiple_of(5) { 0.5 } else { 1.0 };
                std::iter::repeat_n(vec![token as u32], (half * rare_are_rarer(token)) as usize)
            })
            .collect();
        let domain = Domain::of(&lexicon, &drawn);
        for (token, ratio) in lexicon.tokens.iter().zip(domain.log_ratios) {
            let first = token.is_multiple_of(5);
            // Tokens on a band's edge can fall into the next one.
            assert!(*token > 25 || (ratio > 0.3) == first, "{token}: {ratio}");
        }
    }
}
