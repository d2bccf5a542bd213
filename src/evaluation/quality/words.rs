//! How texts are split into words: the same way for every measure.

use std::collections::HashMap;

use rayon::prelude::*;

/// A record's words, each by its number in a [`Lexicon`].
pub type Words = Vec<u32>;

/// A number for each different word.
#[derive(Default)]
pub struct Lexicon {
    numbers: HashMap<String, u32>,
    words: Vec<String>,
}

impl Lexicon {
    /// The words of each text, new ones numbered. Fewer than 2³² − 1 different ones have a number of their own.
    pub fn read<'a>(&mut self, texts: impl IntoParallelIterator<Item = &'a str>) -> Vec<Words> {
        let split: Vec<Vec<String>> = texts.into_par_iter().map(words).collect();
        split
            .into_iter()
            .map(|words| words.into_iter().map(|w| self.number(w)).collect())
            .collect()
    }

    /// Words as text, one space between them.
    pub fn text(&self, words: &[u32]) -> String {
        let words: Vec<&str> = words.iter().map(|w| self.words[*w as usize].as_str()).collect();
        words.join(" ")
    }

    fn number(&mut self, word: String) -> u32 {
        if let Some(number) = self.numbers.get(&word) {
            return *number;
        }
        let number = self.words.len() as u32;
        self.words.push(word.clone());
        self.numbers.insert(word, number);
        number
    }
}

/// Runs of letters, digits and underscores of the lower-cased text, as the regular expression `\w+` finds them; where a
/// script puts no spaces between words, each letter is one. What cannot be seen is not there; everything else only
/// separates.
pub fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase().replace(invisible, "");
    let mut out = Vec::new();
    for run in lower.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
        let mut rest = run;
        while let Some(at) = rest.find(unspaced) {
            let letter = rest[at..].chars().next().map_or(0, char::len_utf8);
            out.extend([&rest[..at], &rest[at..at + letter]].map(String::from));
            rest = &rest[at + letter..];
        }
        out.push(rest.to_string());
    }
    out.retain(|w| !w.is_empty());
    out
}

/// Soft hyphen, spaces and joiners of no width, signs of direction, variation selectors, tags (Unicode's default ignorable
/// ones but for fillers).
fn invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Letters of Thai, Lao, Burmese, Khmer, and the Chinese and Japanese scripts (Unicode's blocks).
fn unspaced(c: char) -> bool {
    matches!(c, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{3040}'..='\u{30FF}'
        | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}
