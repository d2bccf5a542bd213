//! The longest run of words that a text shares with any of many records.

use std::collections::HashMap;

use rayon::prelude::*;

use super::words::Words;

/// Stands behind each record; no word has this number.
const END: u32 = u32::MAX;

/// Records in which runs of words are looked up: a suffix array (Manber and Myers 1993) over their words.
pub struct SpanIndex<'a> {
    /// Every different record once, [`END`] behind each.
    text: Vec<u32>,
    /// The places of all words, in the order of what begins there.
    order: Vec<usize>,
    /// `order[first[w]..first[w + 1]]` are the places of word `w`.
    first: Vec<usize>,
    /// Where each record begins in `text`, and its number.
    starts: Vec<(usize, usize)>,
    /// Whole records.
    whole: HashMap<&'a [u32], usize>,
}

/// A run of words that stands in a record and in an indexed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its length; 0 where no word is shared.
    pub words: usize,
    /// Where it begins in the record looked up.
    pub at: usize,
    /// An indexed record that has it, by its number.
    pub record: usize,
}

impl<'a> SpanIndex<'a> {
    /// Indexes `records`, of the words of one lexicon. Time grows with the words and with what records repeat of one
    /// another: seconds for the six million words of 25,000 reviews.
    pub fn new(records: &'a [Words]) -> Self {
        let (mut text, mut starts, mut whole) = (Vec::new(), Vec::new(), HashMap::new());
        for (number, record) in records.iter().enumerate() {
            // Copies would say nothing new, and make what is compared while sorting long.
            whole.entry(record.as_slice()).or_insert_with(|| {
                starts.push((text.len(), number));
                text.extend(record);
                text.push(END);
                number
            });
        }
        let words = text.iter().filter(|w| **w != END).max().map_or(0, |w| *w as usize + 1);
        let mut first = vec![0; words + 1];
        for word in text.iter().filter(|w| **w != END) {
            first[*word as usize + 1] += 1;
        }
        for w in 0..words {
            first[w + 1] += first[w];
        }
        let (mut next, mut order) = (first.clone(), vec![0; first[words]]);
        for (place, word) in text.iter().enumerate().filter(|(_, w)| **w != END) {
            let slot = &mut next[*word as usize];
            order[*slot] = place;
            *slot += 1;
        }
        let buckets: Vec<&mut [usize]> = order.chunk_by_mut(|a, b| text[*a] == text[*b]).collect();
        buckets
            .into_par_iter()
            .for_each(|bucket| bucket.par_sort_unstable_by(|a, b| text[a + 1..].cmp(&text[b + 1..])));
        SpanIndex {
            text,
            order,
            first,
            starts,
            whole,
        }
    }

    /// The longest run of `record`'s words that stands in an indexed record, the first of the longest.
    pub fn longest(&self, record: &[u32]) -> Span {
        let mut best = Span::default();
        for at in 0..record.len() {
            if record.len() - at <= best.words {
                break;
            }
            let (words, place) = self.longest_prefix(&record[at..]);
            if words > best.words {
                best = Span {
                    words,
                    at,
                    record: self.record_at(place),
                };
            }
        }
        best
    }

    /// The number of an indexed record of exactly these words.
    pub fn copy_of(&self, record: &[u32]) -> Option<usize> {
        self.whole.get(record).copied()
    }

    /// The longest beginning of `words` (at least one) that stands anywhere, and where: of all places in order, the
    /// neighbours of where `words` would stand share the most with it.
    fn longest_prefix(&self, words: &[u32]) -> (usize, usize) {
        let w = words[0] as usize;
        if w + 1 >= self.first.len() {
            return (0, 0);
        }
        let places = &self.order[self.first[w]..self.first[w + 1]];
        let at = places.partition_point(|place| self.text[*place..] < *words);
        let neighbours = places[at.saturating_sub(1)..(at + 1).min(places.len())].iter();
        neighbours
            .map(|place| (shared(&self.text[*place..], words), *place))
            .max()
            .unwrap_or((0, 0))
    }

    fn record_at(&self, place: usize) -> usize {
        self.starts[self.starts.partition_point(|(start, _)| *start <= place) - 1].1
    }
}

/// How many words two runs begin with alike.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
