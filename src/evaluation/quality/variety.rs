//! How different records are from one another.

use serde::{Deserialize, Serialize};

use super::duplicates::near_duplicates;
use super::ngrams::distinct;
use super::sides::{Compared, Sides};
use super::words::Words;

/// How different the records of a set are from one another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variety {
    /// Different n-grams over all n-grams for n = 1, 2, 3 (after Li et al. 2016), in equally many words of each set;
    /// none where there are none.
    pub distinct: [Option<f64>; 3],
    /// Share of records with a near duplicate among the others, 0 to 1.
    pub near_duplicates: f64,
}

impl Variety {
    /// Of sets of equally many records, at least one; the reference is the training records.
    pub fn of(sides: &Sides<Vec<Words>>) -> Compared<Self> {
        let compared = [&sides.synthetic, &sides.zero_shot, &sides.training];
        let sizes = compared.map(|records| records.iter().map(Vec::len).sum::<usize>());
        let words = sizes.into_iter().min().unwrap_or(0);
        let [synthetic, zero_shot, reference] = compared.map(|records| {
            let duplicates = near_duplicates(records).into_iter().filter(|d| *d).count();
            Variety {
                distinct: [1, 2, 3].map(|n| distinct(records, n, words)),
                near_duplicates: duplicates as f64 / records.len() as f64,
            }
        });
        Compared {
            synthetic,
            zero_shot,
            reference,
        }
    }
}
