//! The training records that are nearest to synthetic ones, by the angle between bags of hashed word n-grams. Reads
//! private records: for the internal page alone (P9). The same records give the same neighbours.

use rayon::prelude::*;

use super::texts::spread;
use super::view::Marked;
use crate::evaluation::Example;
use crate::evaluation::features::{InverseDocumentFrequency, SparseRow, term_frequencies};
use crate::evaluation::quality::lengths::{quantile, sorted};

/// At most so many synthetic records are looked up, evenly spread.
const LOOKED_UP: usize = 1_000;
/// Among at most so many training records, evenly spread.
const AMONG: usize = 50_000;
/// Texts of fewer words are near to anything.
const FEWEST_WORDS: usize = 5;
/// Pairs that are kept.
const KEPT: usize = 8;
/// Characters beside the words that both texts have.
const AROUND: usize = 180;

/// A synthetic record and the training record nearest to it.
#[derive(Clone, Copy, Debug)]
pub struct Nearest<'a> {
    /// Cosine, 0 to 1.
    pub similarity: f32,
    pub record: &'a Example,
    pub training: &'a Example,
}

/// What was found.
pub struct Neighbours<'a> {
    /// The closest pairs, the closest first.
    pub closest: Vec<Nearest<'a>>,
    /// Median similarity of a synthetic record to its nearest training record.
    pub median: f64,
    /// The same of held-out records, which cannot have been learned from; none where there are none.
    pub median_held_out: Option<f64>,
    pub looked_up: usize,
    pub among: usize,
    /// Training records that there are.
    pub training: usize,
}

/// None where there is nothing to look up, or nothing to find.
pub fn nearest<'a>(
    synthetic: &'a [Example],
    training: &'a [Example],
    held_out: &'a [Example],
) -> Option<Neighbours<'a>> {
    let among: Vec<&Example> = spread(training, AMONG).collect();
    let mut rows = term_frequencies(among.par_iter().map(|e| e.text.as_str()));
    let weights = InverseDocumentFrequency::of(&rows);
    weights.apply(&mut rows);
    let search = |examples: &'a [Example]| {
        let asked: Vec<&'a Example> = spread(examples, LOOKED_UP)
            .filter(|e| e.text.split_whitespace().nth(FEWEST_WORDS - 1).is_some())
            .collect();
        let mut queries = term_frequencies(asked.par_iter().map(|e| e.text.as_str()));
        weights.apply(&mut queries);
        let found = best(&queries, &rows);
        let mut pairs: Vec<Nearest<'a>> = asked
            .into_iter()
            .zip(found)
            .filter_map(|(record, (similarity, row))| {
                Some(Nearest {
                    similarity,
                    record,
                    training: among.get(row?)?,
                })
            })
            .collect();
        // Stable: equally close ones stay in the order of the records.
        pairs.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        pairs
    };
    let median = |pairs: &[Nearest]| {
        let values = sorted(pairs.iter().map(|p| f64::from(p.similarity)));
        (!values.is_empty()).then(|| quantile(&values, 0.5))
    };
    let mut closest = search(synthetic);
    let found = Neighbours {
        median: median(&closest)?,
        median_held_out: median(&search(held_out)),
        looked_up: closest.len(),
        among: among.len(),
        training: training.len(),
        closest: Vec::new(),
    };
    closest.truncate(KEPT);
    Some(Neighbours { closest, ..found })
}

/// For each query the row with the largest product, the first of equal ones; none where no row shares a bucket.
fn best(queries: &[SparseRow], rows: &[SparseRow]) -> Vec<(f32, Option<usize>)> {
    // The queries by bucket, so that a row meets only those it shares something with.
    let mut postings: Vec<(u32, u32, f32)> = queries
        .iter()
        .enumerate()
        .flat_map(|(q, row)| row.iter().map(move |(bucket, weight)| (*bucket, q as u32, *weight)))
        .collect();
    postings.par_sort_unstable_by_key(|(bucket, query, _)| (*bucket, *query));
    let none = || vec![(0.0f32, None); queries.len()];
    let better = |best: &mut (f32, Option<usize>), found: (f32, Option<usize>)| {
        let earlier = found.0 == best.0 && found.1 < best.1 && found.1.is_some();
        if found.0 > best.0 || earlier {
            *best = found;
        }
    };
    rows.par_iter()
        .enumerate()
        .fold(none, |mut best, (number, row)| {
            let mut products = vec![0.0f32; queries.len()];
            let mut at = 0;
            for (bucket, weight) in row {
                at += postings[at..].partition_point(|(b, _, _)| b < bucket);
                for (_, query, theirs) in postings[at..].iter().take_while(|(b, _, _)| b == bucket) {
                    products[*query as usize] += weight * theirs;
                }
            }
            for (best, product) in best.iter_mut().zip(products) {
                better(best, (product, Some(number)));
            }
            best
        })
        .reduce(none, |mut one, other| {
            one.iter_mut().zip(other).for_each(|(a, b)| better(a, b));
            one
        })
        .into_iter()
        .map(|(similarity, row)| (similarity.min(1.0), row.filter(|_| similarity > 0.0)))
        .collect()
}

/// The longest run of words that both texts have, marked in each, with what stands around it; and how many words it has.
pub fn in_common(a: &str, b: &str) -> (usize, Marked, Marked) {
    let (ours, theirs) = (words(a), words(b));
    // Longest common substring, row by row.
    let (mut length, mut ends) = (0, (0, 0));
    let mut above = vec![0usize; theirs.len() + 1];
    for (i, (word, _, _)) in ours.iter().enumerate() {
        let mut row = vec![0usize; theirs.len() + 1];
        for (j, (other, _, _)) in theirs.iter().enumerate() {
            if word == other {
                row[j + 1] = above[j] + 1;
                if row[j + 1] > length {
                    (length, ends) = (row[j + 1], (i + 1, j + 1));
                }
            }
        }
        above = row;
    }
    let cut = |text: &str, words: &[(String, usize, usize)], end: usize| match length {
        0 => around(text, 0, 0),
        _ => around(text, words[end - length].1, words[end - 1].2),
    };
    (length, cut(a, &ours, ends.0), cut(b, &theirs, ends.1))
}

/// Lower-cased words and where they stand.
fn words(text: &str) -> Vec<(String, usize, usize)> {
    let mut out = Vec::new();
    let mut begun = None;
    let ends = text.char_indices().chain([(text.len(), ' ')]);
    for (at, c) in ends {
        match (c.is_alphanumeric() || c == '_', begun) {
            (true, None) => begun = Some(at),
            (false, Some(from)) => {
                out.push((text[from..at].to_lowercase(), from, at));
                begun = None;
            }
            _ => {}
        }
    }
    out
}

/// `text[from..to]` marked, with some characters before and behind.
fn around(text: &str, from: usize, to: usize) -> Marked {
    let before: Vec<char> = text[..from].chars().collect();
    let after: Vec<char> = text[to..].chars().collect();
    let (skip, keep) = (before.len().saturating_sub(AROUND), after.len().min(AROUND));
    let dots = |cut: bool| if cut { "…" } else { "" };
    Marked {
        before: format!("{}{}", dots(skip > 0), before[skip..].iter().collect::<String>()),
        mark: text[from..to].to_string(),
        after: format!(
            "{}{}",
            after[..keep].iter().collect::<String>(),
            dots(keep < after.len())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(texts: &[&str]) -> Vec<Example> {
        let of = |text: &&str| Example {
            text: text.to_string(),
            label: 0,
        };
        texts.iter().map(of).collect()
    }

    #[test]
    fn a_copy_is_found_and_is_the_closest() {
        let training = examples(&[
            "the music of this film is a delight",
            "a dull story that drags on and on",
            "nobody will ever watch this twice in a row",
        ]);
        let synthetic = examples(&[
            "some other words that say little of it",
            "a dull story that drags on and on",
            "short",
        ]);
        let found = nearest(&synthetic, &training, &training).unwrap();
        assert_eq!(found.looked_up, 2, "the short one is near to anything");
        assert_eq!(found.closest[0].training.text, training[1].text);
        assert!(found.closest[0].similarity > 0.999);
        assert!(found.median_held_out.unwrap() > 0.999);
        assert!(nearest(&[], &training, &[]).is_none());
        assert!(nearest(&synthetic, &[], &[]).is_none());
    }

    #[test]
    fn the_words_in_common_are_marked_in_both_texts() {
        let (words, a, b) = in_common("Well, the story DRAGS on; \u{e9}t\u{e9}", "So the story drags — and on");
        assert_eq!(
            (words, a.mark.as_str(), b.mark.as_str()),
            (3, "the story DRAGS", "the story drags")
        );
        assert_eq!((a.before.as_str(), a.after.as_str()), ("Well, ", " on; \u{e9}t\u{e9}"));
        let (words, a, _) = in_common("\u{e9}\u{e9}", "else");
        assert_eq!((words, a.after.as_str()), (0, "\u{e9}\u{e9}"));
    }
}
