//! The lexicon of a run: counted and learned once, charged beforehand, and kept beside what was trained.

use rayon::prelude::*;

use super::sense::{Encoder, Sense};
use super::{Pipeline, account};
use crate::Result;
use crate::files::write_atomically;
use crate::privacy::{LEXICON, PrivateRun, SCORER};
use crate::progress::Unit;
use crate::records::{LabelSpace, Record, Units, Vocabulary};
use crate::run::{stamp, table};
use crate::sampling::lexicon::Lexicon;
use crate::training::lexicon::{Seen, counts, places, seen};
use crate::training::scorer::{self, Labelled};

/// Records whose vectors are computed between two looks at whether to stop.
const EMBEDDED: usize = 256;

/// Records that are tokenised at once.
const CHUNK: usize = 4096;

/// Counts and learns, where that is planned and not done yet; `encoder` is that of [`encoder`].
///
/// # Errors
/// Data: what was kept is not what was paid for. Other: the ledger or the file cannot be written.
pub fn count(
    p: &Pipeline,
    run: &mut PrivateRun,
    vocabulary: &Vocabulary,
    tokens: usize,
    encoder: Option<&Encoder>,
) -> Result<()> {
    let (c, path) = (&p.config, p.folder.lexicon());
    if run.plan().planned(&LEXICON) == 0 {
        return Ok(());
    }
    if account::is_kept(run, &path, "put it back as it was")? {
        return Ok(());
    }
    if run.charged(LEXICON) > 0 {
        charge_the_rest(run)?;
        p.progress
            .note("the lexicon was paid for and lost when the run was interrupted: records will be drawn without it");
        return Ok(());
    }
    let labels = LabelSpace::from_config(&c.dataset.labels)?.len();
    let records = table::read_records(&p.folder.train_records())?;
    let units = seen_by_unit(
        &records,
        vocabulary,
        c.lexicon.max_tokens,
        c.dataset.max_records_per_unit(),
    )?;

    let points = encoder.map(|encoder| vectors(p, encoder, &records)).transpose()?;

    let mut sums = run.charge(LEXICON)?;
    let noise = sums.deviation();
    let noisy = sums.privatize(&counts(&units, labels, tokens, sums.max_norm()))?;
    let word = |token: u32| match vocabulary.is_control(token) {
        true => None,
        false => vocabulary.decode(&[token]).ok().filter(|word| !word.is_empty()),
    };
    let mut lexicon = Lexicon::of(&noisy, labels, noise, &word);
    if run.plan().planned(&SCORER) > 0 && !lexicon.tokens.is_empty() {
        let known = c.lexicon.scorer_tokens.min(lexicon.tokens.len());
        let begin: Vec<Vec<f32>> = lexicon.weights.iter().map(|w| w[..known].to_vec()).collect();
        let features = places(&units, &lexicon.tokens[..known]);
        let mut learned = scorer::learn(&features, &begin, c.dataset.public_size, run.charge(SCORER)?)?;
        // How often a label occurs is no matter of a text's.
        learned.iter_mut().for_each(|row| row.truncate(known));
        lexicon.scorer = Some(learned);
    }
    if let Some((points, width)) = points {
        let begin = vec![vec![0.0; width]; labels];
        let learned = scorer::learn(&points, &begin, c.dataset.public_size, run.charge(SCORER)?)?;
        lexicon.sense = Some(learned);
    }
    charge_the_rest(run)?;
    let text = stamp::text(&lexicon);
    run.state(&stamp::sha256(text.as_bytes()))?;
    write_atomically(&path, text.as_bytes())?;
    p.progress.note(&format!(
        "lexicon: {} tokens stand out of the noise in their counts by label",
        lexicon.tokens.len()
    ));
    Ok(())
}

/// The encoder that the lexicon still needs, so that one that cannot be had is known before anything is charged.
///
/// # Errors
/// As [`Sense::encoder`].
pub fn encoder(p: &Pipeline) -> Result<Option<Encoder>> {
    let needed = p.config.lexicon.encoder.is_some() && !p.folder.lexicon().exists();
    needed.then(|| Sense::encoder(p)).transpose()
}

/// Charges what is planned and cannot be made any more: what came of the counts has no say in what is charged.
fn charge_the_rest(run: &mut PrivateRun) -> Result<()> {
    while run.charged(SCORER) < run.plan().planned(&SCORER) {
        drop(run.charge(SCORER)?);
    }
    Ok(())
}

/// The vector of each record's text, by unit, and how many numbers it has.
fn vectors(p: &Pipeline, encoder: &Encoder, records: &[Record]) -> Result<(Units<Labelled<Vec<f32>>>, usize)> {
    let task = p
        .progress
        .begin("sentence vectors", records.len() as u64, Unit::Records);
    let mut vectors = Vec::with_capacity(records.len());
    for chunk in records.chunks(EMBEDDED) {
        p.check_stop("embedding")?;
        vectors.extend(encoder.embed(chunk.iter().map(|r| r.text.as_str()))?);
        task.set(vectors.len() as u64, "");
    }
    let unit_of: Vec<u32> = records.iter().map(|r| r.unit).collect();
    let points = vectors.into_iter().zip(records).map(|(features, r)| Labelled {
        label: r.label,
        features,
    });
    let max_records = p.config.dataset.max_records_per_unit();
    Ok((
        Units::of_groups(points.collect(), &unit_of, max_records),
        encoder.width(),
    ))
}

fn seen_by_unit(
    records: &[Record],
    vocabulary: &Vocabulary,
    max_tokens: usize,
    max_records: usize,
) -> Result<Units<Seen>> {
    let unit_of: Vec<u32> = records.iter().map(|r| r.unit).collect();
    let mut all = Vec::with_capacity(records.len());
    for chunk in records.chunks(CHUNK) {
        let of = |record: &Record| Ok(seen(record.label, vocabulary.text(&record.text, max_tokens)?));
        all.extend(chunk.par_iter().map(of).collect::<Result<Vec<_>>>()?);
    }
    Ok(Units::of_groups(all, &unit_of, max_records))
}
