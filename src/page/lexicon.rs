//! What the lexicon knows: the most telling words of each label, as they were counted with noise and paid for.

use super::charts::{self, Frame, Level, Series, thousands};
use super::guarantee::ShownGuarantee;
use super::view::{Block, Section, Table};
use crate::documents::Lexicon;
use crate::records::LabelSpace;

/// Words of a label in the table.
const WORDS: usize = 20;
/// Words in the plot.
const DRAWN: usize = 12;
/// Labels that get a column each; of more, each gets a row.
const COLUMNS: usize = 4;

/// A label's word: how often it was counted under it, and how much more often than under the others.
struct Telling<'a> {
    label: usize,
    word: &'a str,
    count: f32,
    times: f32,
}

/// The section on the lexicon of a run with this guarantee.
pub fn section(lexicon: &Lexicon, labels: &LabelSpace, guarantee: &ShownGuarantee) -> Section {
    // The mean over the other labels of how often a token is counted, beside their shares of all counts.
    let others = |label: usize, at: usize| -> f32 {
        let rows = lexicon.weights.iter().enumerate().filter(|(other, _)| *other != label);
        let all: Vec<f32> = rows.filter_map(|(_, row)| Some(row.get(at)?.exp())).collect();
        all.iter().sum::<f32>() / all.len().max(1) as f32
    };
    let telling = |label: usize| -> Vec<Telling> {
        let numbers = lexicon.counts.get(label).zip(lexicon.weights.get(label));
        let numbers = numbers
            .into_iter()
            .flat_map(|(counts, weights)| counts.iter().zip(weights));
        let mut of: Vec<Telling> = (lexicon.words.iter().zip(numbers))
            .enumerate()
            .map(|(at, (word, (count, weight)))| Telling {
                label,
                word: word.trim(),
                count: *count,
                times: weight.exp() / others(label, at),
            })
            .filter(|t| t.times > 1.0 && !t.word.is_empty())
            .collect();
        of.sort_by(|a, b| b.times.total_cmp(&a.times));
        of.truncate(WORDS);
        of
    };
    let all: Vec<Vec<Telling>> = (0..labels.len().min(lexicon.counts.len())).map(telling).collect();
    let count = |t: &Telling| thousands(t.count.max(0.0).round() as u64);

    let name = format!("Telling words and their noisy counts; {}", guarantee.sentence);
    let table = if all.len() <= COLUMNS {
        let names: Vec<String> = (0..all.len()).map(|label| labels.name(label)).collect();
        let mut columns = vec!["rank"];
        columns.extend(names.iter().map(String::as_str));
        let mut table = Table::new(name, &columns, columns.len());
        for rank in 0..all.iter().map(Vec::len).max().unwrap_or(0) {
            let cell = |of: &Vec<Telling>| {
                of.get(rank)
                    .map_or(String::new(), |t| format!("{} {}", t.word, count(t)))
            };
            let row = std::iter::once((rank + 1).to_string()).chain(all.iter().map(cell));
            table.rows.push(row.collect());
        }
        table
    } else {
        let mut table = Table::new(name, &["label", "words"], 2);
        for (label, of) in all.iter().enumerate() {
            let words: Vec<String> = of.iter().take(8).map(|t| format!("{} {}", t.word, count(t))).collect();
            table.rows.push(vec![labels.name(label), words.join(", ")]);
        }
        table
    };

    let mut most: Vec<&Telling> = all.iter().flatten().collect();
    most.sort_by(|a, b| b.times.total_cmp(&a.times));
    most.truncate(DRAWN);
    let levels: Vec<Level> = most
        .iter()
        .map(|t| Level {
            name: format!("{}: {}", labels.name(t.label), t.word),
            value: f64::from(t.times),
            text: format!("{:.1} times", t.times),
            series: Series::Synthetic,
            set_aside: 0.0,
        })
        .collect();
    let full = most.first().map_or(1.0, |t| f64::from(t.times));
    let plot = charts::bars(
        Frame {
            id: "lexicon-words",
            title: "The most telling words: how many times as often as under other labels".into(),
            description: "How many times as often a word was counted under its label as under the others, beside their shares of all counts.".into(),
        },
        &levels,
        full,
        None,
    );
    let note = format!(
        "A record counts with a share that falls with its length. Each count has Gaussian noise of deviation {:.1}; {} tokens stand out of it. \
         Counts near the noise are pulled towards no difference.",
        lexicon.noise,
        thousands(lexicon.tokens.len() as u64)
    );
    Section {
        id: "lexicon",
        title: "What the lexicon knows",
        intro: "Before training, tokens were counted by label, once and with noise: a part of the guarantee. These counts, or a scorer that begins with them, steer how synthetic records are drawn."
            .into(),
        mark: None,
        blocks: vec![Block::Plot {
            plot,
            table,
            note: Some(note),
        }],
    }
}
