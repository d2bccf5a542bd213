//! Whether what stands in one real record alone comes back in the synthetic ones.
//!
//! Of the training records and of those they are compared with, those strings are looked at that one record has and no other:
//! rare words, long numbers, names, addresses. Training did not see the others, so one of theirs that comes back is a
//! phantom: chance, or what the model knew before. One of a training record that comes back may be a disclosure. Which side a
//! string is on is decided by how records were split and by nothing else, so without disclosures both come back as often:
//! where chance split them. Records that were set apart for the audit are taken before others that never trained.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::memorisation::more_often;
use super::sides::Sides;
use crate::evaluation::Example;

/// How many of the strings that came back are kept.
const SHOWN: usize = 20;
/// Digits of a number that is long.
const LONG: usize = 4;

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A word of four letters or more, in small letters.
    RareWord,
    /// Four digits or more in a piece of text without spaces.
    Number,
    /// Two words or more in a row that begin with a capital.
    Name,
    /// Something with an @, or an address of the web.
    Address,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::RareWord, Kind::Number, Kind::Name, Kind::Address];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::RareWord => "rare words",
            Kind::Number => "long numbers",
            Kind::Name => "names",
            Kind::Address => "e-mail and web addresses",
        }
    }
}

/// Strings of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameBack {
    /// That one of the records compared has, and no other of them.
    pub strings: usize,
    /// Of those, how many a synthetic record has, too.
    pub came_back: usize,
}

impl CameBack {
    /// 0 to 1; 0 where there are none.
    pub fn share(&self) -> f64 {
        self.came_back as f64 / self.strings.max(1) as f64
    }
}

/// What came of one kind of string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosed {
    pub kind: Kind,
    /// Of training records: true disclosures and chance.
    pub training: CameBack,
    /// Of held-out records: phantoms, by chance or because the model knew them.
    pub held_out: CameBack,
    /// One-sided Fisher exact test: how likely so many would be of training records, were both as likely to come back.
    pub p_value: f64,
    /// Some of the training records' that came back: private words. Never in the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// Every kind, in the order of [`Kind`]; `set_apart` are training records that chance kept from training.
pub fn disclosures(sides: &Sides<&[Example]>, set_apart: &[Example]) -> Vec<Disclosed> {
    // By string: the one record that has it, training records first; none where several do.
    let mut owner: HashMap<(Kind, String), Option<usize>> = HashMap::new();
    let held_out = match set_apart.is_empty() {
        true => sides.held_out,
        false => set_apart,
    };
    let real: Vec<&Example> = sides.training.iter().chain(held_out).collect();
    for (at, chunk) in real.chunks(4096).enumerate() {
        let found: Vec<HashSet<(Kind, String)>> = chunk.par_iter().map(|e| strings(&e.text)).collect();
        for (i, strings) in found.into_iter().enumerate() {
            for string in strings {
                owner
                    .entry(string)
                    .and_modify(|record| *record = None)
                    .or_insert(Some(4096 * at + i));
            }
        }
    }
    let synthetic: Vec<HashSet<(Kind, String)>> = sides.synthetic.par_iter().map(|e| strings(&e.text)).collect();
    let synthetic: HashSet<(Kind, String)> = synthetic.into_iter().flatten().collect();
    let of = |kind: Kind| {
        let mut disclosed = Disclosed {
            kind,
            training: CameBack::default(),
            held_out: CameBack::default(),
            p_value: 1.0,
            examples: Vec::new(),
        };
        for (string, record) in owner.iter().filter(|((of, _), _)| *of == kind) {
            let Some(record) = record else { continue };
            let came_back = synthetic.contains(string);
            let side = match *record < sides.training.len() {
                true => &mut disclosed.training,
                false => &mut disclosed.held_out,
            };
            side.strings += 1;
            side.came_back += usize::from(came_back);
            if came_back && *record < sides.training.len() {
                disclosed.examples.push(string.1.clone());
            }
        }
        disclosed.examples.sort();
        disclosed.examples.truncate(SHOWN);
        let (ours, theirs) = (disclosed.training, disclosed.held_out);
        disclosed.p_value = more_often([ours.came_back, ours.strings], [theirs.came_back, theirs.strings]);
        disclosed
    };
    Kind::ALL.map(of).into()
}

/// Without the words of private records.
pub fn without_texts(mut all: Vec<Disclosed>) -> Vec<Disclosed> {
    all.iter_mut().for_each(|of| of.examples.clear());
    all
}

/// The different strings of a text.
fn strings(text: &str) -> HashSet<(Kind, String)> {
    let mut out = HashSet::new();
    let mut name: Vec<&str> = Vec::new();
    let keep_name = |name: &mut Vec<&str>| {
        let found = (name.len() > 1).then(|| (Kind::Name, name.join(" ")));
        name.clear();
        found
    };
    for piece in text.split_whitespace() {
        let bare = piece.trim_matches(|c: char| !c.is_alphanumeric());
        let inner_at = bare.find('@').is_some_and(|at| at > 0 && at + 1 < bare.len());
        if inner_at || bare.contains("://") || bare.starts_with("www.") {
            out.insert((Kind::Address, bare.to_lowercase()));
        }
        let digits: String = bare.chars().filter(char::is_ascii_digit).collect();
        if digits.len() >= LONG {
            out.insert((Kind::Number, digits));
        }
        if bare.chars().next().is_some_and(char::is_uppercase) && bare.chars().any(char::is_lowercase) {
            name.push(bare);
        } else {
            out.extend(keep_name(&mut name));
        }
        // A full stop or a comma ends a name.
        if !piece.ends_with(bare) {
            out.extend(keep_name(&mut name));
        }
    }
    out.extend(keep_name(&mut name));
    let words = super::words::words(text).into_iter();
    let words = words.filter(|w| w.chars().count() >= 4 && w.chars().all(char::is_alphabetic));
    out.extend(words.map(|word| (Kind::RareWord, word)));
    out
}
