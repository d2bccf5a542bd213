//! The lexicon of a run: counted and learned once, charged beforehand, and kept beside what was trained.

use rayon::prelude::*;

use super::Pipeline;
use crate::files::write_atomically;
use crate::privacy::{LEXICON, PrivateRun, SCORER};
use crate::records::{LabelSpace, Record, Units, Vocabulary};
use crate::run::{stamp, table};
use crate::sampling::evidence::Weights;
use crate::sampling::lexicon::Lexicon;
use crate::training::lexicon::{Seen, counts};
use crate::training::scorer;
use crate::{Error, Result};

/// Records that are tokenised at once.
const CHUNK: usize = 4096;

/// Counts and learns, where that is planned and not done yet.
///
/// # Errors
/// Data: what was kept is not what was paid for. Other: the ledger or the file cannot be written.
pub fn count(p: &Pipeline, run: &mut PrivateRun, vocabulary: &Vocabulary, tokens: usize) -> Result<()> {
    let (c, path) = (&p.config, p.folder.lexicon());
    if run.plan().planned(&LEXICON) == 0 {
        return Ok(());
    }
    if path.exists() {
        let own = stamp::hash_of(&path)?;
        return match run.record().is_none_or(|record| record.has_state(&own)) {
            true => Ok(()),
            false => Err(
                Error::data(format!("{} is not what was counted and paid for", path.display()))
                    .hint("put it back as it was, or delete it: records are then drawn without it"),
            ),
        };
    }
    if run.charged(LEXICON) > 0 {
        p.progress
            .note("the lexicon was paid for and lost when the run was interrupted: records will be drawn without it");
        return Ok(());
    }
    let labels = LabelSpace::from_config(&c.dataset.labels)?.len();
    let records = table::read_records(&p.folder.train_records())?;
    let units = seen(
        records,
        vocabulary,
        c.lexicon.max_tokens,
        c.dataset.max_records_per_unit(),
    )?;

    let mut sums = run.charge(LEXICON)?;
    let noise = sums.deviation();
    let noisy = sums.privatize(&counts(&units, labels, tokens, sums.max_norm()))?;
    let word = |token: u32| match vocabulary.is_control(token) {
        true => None,
        false => vocabulary.decode(&[token]).ok(),
    };
    let mut lexicon = Lexicon::of(&noisy, labels, noise, &word);
    if run.plan().planned(&SCORER) > 0 && !lexicon.tokens.is_empty() {
        let known = c.lexicon.scorer_tokens.min(lexicon.tokens.len());
        let begin = Weights {
            tokens: lexicon.tokens[..known].to_vec(),
            of_labels: lexicon.weights.iter().map(|w| w[..known].to_vec()).collect(),
        };
        let learned = scorer::learn(&units, &begin, c.dataset.public_size, run.charge(SCORER)?)?;
        lexicon.scorer = Some(learned.of_labels);
    }
    let text = stamp::text(&lexicon);
    run.state(&stamp::sha256(text.as_bytes()))?;
    write_atomically(&path, text.as_bytes())?;
    p.progress.note(&format!(
        "lexicon: {} tokens stand out of the noise in their counts by label",
        lexicon.tokens.len()
    ));
    Ok(())
}

fn seen(records: Vec<Record>, vocabulary: &Vocabulary, max_tokens: usize, max_records: usize) -> Result<Units<Seen>> {
    let unit_of: Vec<u32> = records.iter().map(|r| r.unit).collect();
    let mut all = Vec::with_capacity(records.len());
    for chunk in records.chunks(CHUNK) {
        let of = |record: &Record| Ok(Seen::of(record.label, vocabulary.text(&record.text, max_tokens)?));
        all.extend(chunk.par_iter().map(of).collect::<Result<Vec<_>>>()?);
    }
    Ok(Units::of_groups(all, &unit_of, max_records))
}
