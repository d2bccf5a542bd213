//! The lexicon of a run: counted and learned once, charged beforehand, and kept beside what was trained.

use rayon::prelude::*;

use super::scorers::{self, Encoder};
use super::{Pipeline, account};
use crate::Result;
use crate::files::write_atomically;
use crate::privacy::{ChargedSums, LEXICON, PrivateRun, SCORER};
use crate::progress::Unit;
use crate::records::{LabelSpace, Record, Units, Vocabulary};
use crate::run::plan::WEIGHING;
use crate::run::{stamp, table};
use crate::sampling::lexicon::Lexicon;
use crate::training::lexicon::{Seen, counts, places, seen};
use crate::training::scorer::{self, Features, Labelled, Scored};

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
        if run.charged(SCORER) < run.plan().planned(&SCORER) {
            // It is planned and cannot be learned any more: what came of the counts has no say in what is charged.
            drop(run.charge(SCORER)?);
        }
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
    if run.plan().planned(&SCORER) > 0 {
        learn(p, run.charge(SCORER)?, &units, points, &mut lexicon)?;
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

/// Learns the scorers, weighs them, and looks at how well they find labels: all by `sums`, which are charged.
fn learn(
    p: &Pipeline,
    mut sums: ChargedSums,
    units: &Units<Seen>,
    points: Option<(Units<Labelled<Vec<f32>>>, usize)>,
    lexicon: &mut Lexicon,
) -> Result<()> {
    let (l, size) = (&p.config.lexicon, p.config.dataset.public_size);
    let known = l.scorer_tokens.min(lexicon.tokens.len());
    let by_tokens = match known > 0 {
        false => None,
        true => {
            let begin: Vec<Vec<f32>> = lexicon.weights.iter().map(|w| w[..known].to_vec()).collect();
            let features = places(units, &lexicon.tokens[..known]);
            let rows = scorer::learn(&features, &begin, size, &mut sums, l.scorer_steps)?;
            Some((features, rows))
        }
    };
    let by_sense = match points {
        None => None,
        Some((points, width)) => {
            let begin = vec![vec![0.0; width]; lexicon.weights.len()];
            let rows = scorer::learn(&points, &begin, size, &mut sums, l.scorer_steps)?;
            Some((points, rows))
        }
    };
    // How often a label occurs is no matter of a text's, but it is of how far a scorer is to be trusted.
    if by_tokens.is_some() {
        let alone = scored(units, &by_tokens, &None, 1.0);
        lexicon.own_trust = scorer::weigh(&alone, 1, size, &mut sums, WEIGHING)?.first().copied();
    }
    lexicon.trust = match (&by_tokens, &by_sense) {
        (Some(_), None) => lexicon.own_trust.into_iter().collect(),
        (None, None) => Vec::new(),
        (tokens, _) => {
            let scorers = 1 + usize::from(tokens.is_some());
            let both = scored(units, &by_tokens, &by_sense, 1.0);
            scorer::weigh(&both, scorers, size, &mut sums, WEIGHING)?
        }
    };
    // Where tokens have no scorer, whether whole texts tell labels is looked at all the same.
    if let Some(alone) = lexicon.own_trust.or(lexicon.trust.first().copied()) {
        let texts = scored(units, &by_tokens, &by_sense, 0.0);
        let shown = scorer::shown(&texts, alone, &lexicon.trust, size, &mut sums)?;
        lexicon.clear_share = Some(shown.clear_share);
        if by_tokens.is_some() {
            (lexicon.shown, lexicon.shown_clear) = (Some(shown.all), Some(shown.clear));
        }
    }
    lexicon.scorer = by_tokens.map(|(_, mut rows)| {
        rows.iter_mut().for_each(|row| row.truncate(known));
        rows
    });
    lexicon.sense = by_sense.map(|(_, rows)| rows);
    Ok(())
}

/// What a scorer of features has learned, beside them.
type Learned<F> = Option<(Units<Labelled<F>>, Vec<Vec<f32>>)>;

/// What a scorer gives each record, unit by unit, with `bias` times the biases, which stand last in each row.
fn scores<F: Features>(learned: &Learned<F>, bias: f64) -> Option<Vec<Vec<f32>>> {
    let (features, rows) = learned.as_ref()?;
    let wide = |row: &Vec<f32>| row.iter().map(|w| f64::from(*w)).collect();
    let rows: Vec<Vec<f64>> = rows.iter().map(wide).collect();
    let score = |x: &F, row: &Vec<f64>| {
        let (bias_of, weights) = row.split_last().expect("a bias stands last");
        (x.dot(weights) + bias * bias_of) as f32
    };
    let of = |record: &Labelled<F>| rows.iter().map(|row| score(&record.features, row)).collect();
    Some(features.all().iter().map(of).collect())
}

/// The same of each scorer that there is, by unit.
fn scored(
    units: &Units<Seen>,
    by_tokens: &Learned<Vec<u32>>,
    by_sense: &Learned<Vec<f32>>,
    bias: f64,
) -> Units<Scored> {
    let scorers: Vec<Vec<Vec<f32>>> = [scores(by_tokens, bias), scores(by_sense, bias)]
        .into_iter()
        .flatten()
        .collect();
    let (mut out, mut at) = (Units::empty(), 0);
    for unit in 0..units.len() {
        let records = units.records(unit).iter().zip(at..);
        let own = records.map(|(record, i)| Labelled {
            label: record.label,
            features: scorers.iter().map(|of_records| of_records[i].clone()).collect(),
        });
        out.push(own.collect());
        at += units.records(unit).len();
    }
    out
}

/// The encoder that the lexicon still needs, so that one that cannot be had is known before anything is charged.
///
/// # Errors
/// As [`scorers::encoder`].
pub fn encoder(p: &Pipeline) -> Result<Option<Encoder>> {
    let needed = p.config.lexicon.encoder().is_some() && !p.folder.lexicon().exists();
    needed.then(|| scorers::encoder(p)).transpose()
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
