//! Whether synthetic records repeat training records more than other people's texts do.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::distribution::{DiscreteCDF, Hypergeometric};

use super::lengths::{quantile, sorted};
use super::sides::{Compared, Sides};
use super::spans::{Span, SpanIndex};
use super::words::{Lexicon, Words};
use crate::Result;

/// How many of the longest spans are kept.
const WORST: usize = 10;
/// Shares at which [`Spans::quantiles`] are taken.
pub const SHARES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The longest run of words that each record shares with any training record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spans {
    /// Records looked up.
    pub records: usize,
    /// In words, at the [`SHARES`]; zeros where there are no records.
    pub quantiles: [f64; 4],
    /// In words.
    pub longest: usize,
    /// Records that share at least [`Memorisation::limit`] words.
    pub over_limit: usize,
    /// Records whose words are exactly those of a training record.
    pub exact_copies: usize,
}

impl Spans {
    fn of(spans: &[Span], exact_copies: usize, limit: usize) -> Self {
        let lengths = sorted(spans.iter().map(|s| s.words as f64));
        Spans {
            records: spans.len(),
            quantiles: match lengths.is_empty() {
                true => [0.0; 4],
                false => SHARES.map(|share| quantile(&lengths, share)),
            },
            longest: spans.iter().map(|s| s.words).max().unwrap_or(0),
            over_limit: spans.iter().filter(|s| s.words >= limit).count(),
            exact_copies,
        }
    }

    /// Share of records that reach the limit, 0 to 1; 0 where there are none.
    pub fn share_over_limit(&self) -> f64 {
        self.over_limit as f64 / self.records.max(1) as f64
    }
}

/// A synthetic record and the training record it shares the most with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// Which synthetic record, counted from 0 through the shards.
    pub record: usize,
    /// Which training record, counted from 0 through those that were kept.
    pub training_record: usize,
    /// Words of the span.
    pub words: usize,
    /// The span itself: a private record's words. Never in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
}

/// Longest common spans with the training records. The reference is what held-out records share with them: texts of the
/// same kind that cannot have been learned from them. Each is cut to the length of a synthetic record, since a longer
/// text shares more by chance, which would excuse what is no chance; copies are counted of whole records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memorisation {
    /// Spans of at least this many words are counted.
    pub limit: usize,
    /// All records of each side.
    pub spans: Compared<Spans>,
    /// The synthetic records with the longest spans that reach the limit, the longest first.
    pub worst: Vec<Repeated>,
}

impl Memorisation {
    /// Looks every record up among all training records, all of the words of `lexicon`. `looked_up` hears how many more
    /// are done, and may stop the work.
    ///
    /// # Errors
    /// Whatever `looked_up` returns.
    pub fn of(
        sides: Sides<&[Words]>,
        lexicon: &Lexicon,
        limit: usize,
        looked_up: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let index = SpanIndex::new(sides.training);
        let mut look_up = |records: &[&[u32]]| -> Result<Vec<Span>> {
            let mut spans = Vec::with_capacity(records.len());
            for chunk in records.chunks(256) {
                spans.par_extend(chunk.par_iter().map(|r| index.longest(r)));
                looked_up(chunk.len())?;
            }
            Ok(spans)
        };
        let copies = |records: &[Words]| records.iter().filter(|r| index.copy_of(r).is_some()).count();
        let lengths = sides.synthetic.iter().map(Vec::len).cycle();
        let cut = sides.held_out.iter().zip(lengths);
        let cut: Vec<&[u32]> = cut
            .map(|(record, length)| &record[..length.min(record.len())])
            .collect();
        let found = look_up(&slices(sides.synthetic))?;
        let spans = Compared {
            zero_shot: Spans::of(&look_up(&slices(sides.zero_shot))?, copies(sides.zero_shot), limit),
            reference: Spans::of(&look_up(&cut)?, copies(sides.held_out), limit),
            synthetic: Spans::of(&found, copies(sides.synthetic), limit),
        };
        let mut worst: Vec<(usize, Span)> = found
            .into_iter()
            .enumerate()
            .filter(|(_, s)| s.words >= limit)
            .collect();
        worst.sort_by_key(|(record, span)| (std::cmp::Reverse(span.words), *record));
        let repeated = |(record, span): (usize, Span)| Repeated {
            record,
            training_record: span.record,
            words: span.words,
            span: Some(lexicon.text(&sides.synthetic[record][span.at..][..span.words])),
        };
        Ok(Memorisation {
            limit,
            spans,
            worst: worst.into_iter().take(WORST).map(repeated).collect(),
        })
    }

    /// What a release is judged by.
    pub fn check(&self) -> MemorisationCheck {
        let (ours, theirs) = (&self.spans.synthetic, &self.spans.reference);
        MemorisationCheck {
            limit: self.limit,
            records: ours.records,
            longest: ours.longest,
            over_limit: ours.over_limit,
            exact_copies: ours.exact_copies,
            held_out_records: theirs.records,
            held_out_longest: theirs.longest,
            held_out_over_limit: theirs.over_limit,
            held_out_exact_copies: theirs.exact_copies,
            p_value: more_often([ours.over_limit, ours.records], [theirs.over_limit, theirs.records]),
        }
    }

    /// Without the words of private records.
    pub fn without_texts(mut self) -> Self {
        self.worst.iter_mut().for_each(|r| r.span = None);
        self
    }
}

/// Whether synthetic records repeat training records, beside how often held-out records do.
///
/// Internal, for it reads private records (P9): it decides nothing, and is no part of the privacy claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorisationCheck {
    /// Spans of at least this many words count.
    pub limit: usize,
    /// Synthetic records looked up.
    pub records: usize,
    /// Their longest span in common with a training record, in words.
    pub longest: usize,
    /// How many of them reach the limit.
    pub over_limit: usize,
    /// How many are, word by word, a training record.
    pub exact_copies: usize,
    /// The same of held-out records, each cut to the length of a synthetic one, but for the copies.
    pub held_out_records: usize,
    pub held_out_longest: usize,
    pub held_out_over_limit: usize,
    pub held_out_exact_copies: usize,
    /// One-sided Fisher exact test: how likely at least so many of the records that reach the limit would be synthetic,
    /// were synthetic and held-out records as likely to reach it. Small where the model repeats what it was trained on.
    pub p_value: f64,
}

fn slices(records: &[Words]) -> Vec<&[u32]> {
    records.iter().map(Vec::as_slice).collect()
}

/// P(X ≥ a) of Fisher's exact test (1922) for `a` of `n` against `b` of `m`; 1 where there is nothing to compare.
pub(super) fn more_often([a, n]: [usize; 2], [b, m]: [usize; 2]) -> f64 {
    if a == 0 {
        return 1.0;
    }
    let among = Hypergeometric::new((n + m) as u64, (a + b) as u64, n as u64);
    among.map_or(1.0, |x| x.sf(a as u64 - 1).clamp(0.0, 1.0))
}
