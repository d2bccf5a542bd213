//! A trigram model over tokens, interpolated after Witten and Bell (1991): how likely a text is to someone who has read
//! others.

use std::collections::HashMap;

/// Stands before a text's first token; no vocabulary is that large.
const START: u32 = u32::MAX - 1;

/// What followed a context.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Tokens, counted as often as they came.
    total: u32,
    /// Different ones.
    types: u32,
}

/// Counts of contexts of 0, 1 and 2 tokens.
#[derive(Default)]
pub struct Trigrams {
    contexts: HashMap<u64, Seen>,
    followed: HashMap<(u64, u32), u32>,
    vocabulary: usize,
}

impl Trigrams {
    /// Reads `texts` of tokens below `vocabulary`.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>, vocabulary: usize) -> Self {
        let mut out = Trigrams {
            vocabulary,
            ..Trigrams::default()
        };
        for text in texts {
            each_token(text, |contexts, token| {
                for context in contexts {
                    let count = out.followed.entry((context, token)).or_insert(0);
                    *count += 1;
                    let seen = out.contexts.entry(context).or_default();
                    seen.total += 1;
                    seen.types += u32::from(*count == 1);
                }
            });
        }
        out
    }

    /// Mean of ln p over the tokens of `text`; 0 for an empty one.
    pub fn mean_log_probability(&self, text: &[u32]) -> f64 {
        let mut sum = 0.0;
        each_token(text, |contexts, token| sum += self.probability(contexts, token).ln());
        sum / text.len().max(1) as f64
    }

    /// p(w | h) = (c(h, w) + t(h)·p(w | shorter h)) / (c(h) + t(h)), t the number of different tokens seen after h.
    fn probability(&self, contexts: [u64; 3], token: u32) -> f64 {
        contexts.iter().fold(1.0 / self.vocabulary as f64, |shorter, context| {
            let seen = self.contexts.get(context).copied().unwrap_or_default();
            if seen.total == 0 {
                return shorter;
            }
            let count = self.followed.get(&(*context, token)).copied().unwrap_or(0);
            let (total, types) = (f64::from(seen.total), f64::from(seen.types));
            (f64::from(count) + types * shorter) / (total + types)
        })
    }
}

/// Each token behind the keys of its contexts, the shortest first.
fn each_token(text: &[u32], mut visit: impl FnMut([u64; 3], u32)) {
    let (mut before, mut last) = (START, START);
    // 0 is no token's key, so that contexts of different lengths have different keys.
    let key = |t: u32| u64::from(t) + 1;
    for token in text {
        visit([0, key(last), key(before) << 32 | key(last)], *token);
        (before, last) = (last, *token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one_after_any_context() {
        let texts: [&[u32]; 3] = [&[0, 1, 2, 1, 2, 3], &[1, 2, 2], &[4]];
        let model = Trigrams::new(texts, 6);
        for contexts in [
            [0, u64::from(START) + 1, 77],
            [0, 2, 2 << 32 | 3],
            [0, 99, 99 << 32 | 99],
        ] {
            let sum: f64 = (0..6).map(|t| model.probability(contexts, t)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
    }
}
