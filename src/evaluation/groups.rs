//! Parts of the test records for which synthetic records may serve worse than for all: a small label, texts of unusual length.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Example;

/// A part of the test records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The label with the fewest test records, of those that have any; the first of equals.
    SmallestLabel,
    /// The quarter of the texts with the fewest words.
    ShortestQuarter,
    /// The quarter of the texts with the most words.
    LongestQuarter,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Group::SmallestLabel => "smallest label",
            Group::ShortestQuarter => "shortest quarter",
            Group::LongestQuarter => "longest quarter",
        })
    }
}

/// How often predictions are right in a group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupScore {
    pub group: Group,
    /// Test records in it.
    pub records: usize,
    /// Share of right predictions, 0 to 1.
    pub accuracy: f64,
}

/// The groups of `test` by places; none where it has fewer than four records.
fn groups(test: &[Example], num_labels: usize) -> Vec<(Group, Vec<usize>)> {
    if test.len() < 4 {
        return Vec::new();
    }
    let of_label = |label: usize| -> Vec<usize> { (0..test.len()).filter(|i| test[*i].label == label).collect() };
    let smallest = (0..num_labels)
        .map(of_label)
        .filter(|of| !of.is_empty())
        .min_by_key(Vec::len);
    let mut by_length: Vec<usize> = (0..test.len()).collect();
    by_length.sort_by_cached_key(|i| test[*i].text.split_whitespace().count());
    let quarter = test.len() / 4;
    let shortest = by_length[..quarter].to_vec();
    let longest = by_length[test.len() - quarter..].to_vec();
    let of_label = smallest.map(|of| (Group::SmallestLabel, of));
    let by_length = [(Group::ShortestQuarter, shortest), (Group::LongestQuarter, longest)];
    of_label.into_iter().chain(by_length).collect()
}

/// How often `predicted` is right in each group of `test`.
pub fn scores(test: &[Example], predicted: &[usize], num_labels: usize) -> Vec<GroupScore> {
    let score = |(group, members): (Group, Vec<usize>)| {
        let right = members.iter().filter(|i| predicted[**i] == test[**i].label).count();
        GroupScore {
            group,
            records: members.len(),
            accuracy: right as f64 / members.len().max(1) as f64,
        }
    };
    groups(test, num_labels).into_iter().map(score).collect()
}
