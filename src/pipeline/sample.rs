//! Stage 3: synthetic records from the trained model, and zero-shot ones from the base model for comparison.

use std::io::{BufRead, BufReader, Write};

use super::files::read_json;
use super::prepare::Preparation;
use super::report::guarantee_metadata;
use super::{Pipeline, stamp};
use crate::config::{LabelPrior, NamedPrior};
use crate::models::device;
use crate::models::llama::Llama;
use crate::models::load::gguf::Gguf;
use crate::progress::Unit;
use crate::records::{LabelSpace, Vocabulary};
use crate::sampling::choose::Choice;
use crate::sampling::decode::{Decoder, Decoding, Request};
use crate::sampling::prior;
use crate::sampling::shards::{self, Schema, Synthetic};
use crate::training::trainable;
use crate::training::workers::Workers;
use crate::{Error, Result, assets};
use std::sync::atomic::Ordering;

/// Tries at a record that came out blank, before it is left out.
const ATTEMPTS: u64 = 5;

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let device = device::choose(c.device)?;
    let file = assets::language_model(&c.model, &p.places.assets, p.progress)?;
    let gguf = Gguf::open(&file.with_extension("gguf")?.path)?;
    let vocabulary = Vocabulary::from_gguf(&gguf)?;
    let base = Llama::from_gguf(&gguf, &device)?;
    let tuned = trainable::load(&c.finetune, &base, &p.folder.trained())?.merged(&base);

    let zero_shot = c.sample.zero_shot_records.unwrap_or(c.sample.records);
    sample_arm(
        p,
        "synthetic",
        &tuned,
        &vocabulary,
        c.sample.records,
        guarantee_metadata(p)?,
    )?;
    drop(tuned);
    let untouched = vec![(
        "dp.mechanism".to_string(),
        "none: no private record was read".to_string(),
    )];
    sample_arm(p, "zero_shot", &base, &vocabulary, zero_shot, untouched)
}

/// A line of the journal: a record, or what is left of one that stayed blank.
#[derive(serde::Serialize, serde::Deserialize)]
struct Drawn {
    id: u64,
    label: usize,
    /// None where every try was blank.
    text: Option<String>,
}

fn sample_arm(
    p: &Pipeline,
    arm: &str,
    model: &Llama,
    vocabulary: &Vocabulary,
    records: usize,
    metadata: Vec<(String, String)>,
) -> Result<()> {
    let c = &p.config;
    if p.folder.shards(arm).exists() {
        return Ok(());
    }
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    let preparation = Preparation::read(&p.folder)?;
    let noisy: Option<Vec<u64>> = match p.folder.label_counts() {
        path if path.exists() => Some(read_json(&path)?),
        _ => None,
    };
    let counted = noisy.iter().flatten().any(|count| *count > 0);
    if c.sample.label_prior == LabelPrior::Named(NamedPrior::Noisy) && !counted {
        p.progress
            .note("there are no noisy label counts above zero: labels are drawn uniformly");
    }
    let wanted = prior::labels(&prior::counts(
        &c.sample.label_prior,
        noisy.as_deref(),
        labels.len(),
        records,
    )?);
    let settings = Decoding {
        choice: Choice {
            temperature: c.sample.temperature,
            top_p: c.sample.top_p,
            guidance: c.sample.guidance,
        },
        contrasts: c.sample.guidance_labels,
        max_tokens: c.sample.max_tokens.unwrap_or(c.prepare.max_tokens),
        end: vocabulary.end(),
        seed: c.sample.seed,
    };
    let decoder = Decoder::new(model, &preparation.prompts, settings)?;
    let workers = Workers::new(model);

    let journal_path = p.folder.journal(arm);
    let mut drawn = read_journal(&journal_path)?;
    let mut journal = open_journal(&journal_path, &drawn)?;
    let have: std::collections::HashSet<u64> = drawn.iter().map(|d| d.id).collect();
    let mut open: Vec<Request> = wanted
        .iter()
        .enumerate()
        .map(|(id, label)| Request {
            id: id as u64,
            attempt: 0,
            label: *label,
        })
        .filter(|r| !have.contains(&r.id))
        .collect();
    open.reverse();

    let task = p.progress.begin(arm, records as u64, Unit::Records);
    let begun = std::time::Instant::now();
    let mut tokens = 0;
    while !open.is_empty() {
        if p.stop.load(Ordering::Relaxed) {
            return Err(
                Error::interrupted(format!("stopped with {} of {records} records of `{arm}`", drawn.len()))
                    .hint("the same command goes on from here"),
            );
        }
        let wave: Vec<Request> = open.split_off(open.len().saturating_sub(c.sample.batch_size * workers.count()));
        let batches: Vec<&[Request]> = wave.chunks(c.sample.batch_size).collect();
        let done = workers.map(&batches, |batch| decoder.decode(batch));
        for (request, ids) in wave.iter().zip(done.iter().flatten()) {
            tokens += ids.len();
            let text = whole_characters(&vocabulary.decode(ids)?).trim().to_string();
            if text.is_empty() && request.attempt + 1 < ATTEMPTS {
                open.push(Request {
                    attempt: request.attempt + 1,
                    ..*request
                });
                continue;
            }
            let line = Drawn {
                id: request.id,
                label: request.label,
                text: (!text.is_empty()).then_some(text),
            };
            writeln!(journal, "{}", stamp::text(&line)).map_err(|e| Error::io("write", &journal_path, e))?;
            drawn.push(line);
        }
        journal.sync_data().map_err(|e| Error::io("write", &journal_path, e))?;
        let rate = f64::from(tokens as u32) / begun.elapsed().as_secs_f64();
        task.set(drawn.len() as u64, &format!("{rate:.0} tokens/s"));
    }
    drawn.sort_by_key(|d| d.id);
    let blank = drawn.iter().filter(|d| d.text.is_none()).count();
    if blank > 0 {
        p.progress.note(&format!(
            "{arm}: {blank} of {records} records stayed blank after {ATTEMPTS} tries and are left out"
        ));
    }
    let records: Vec<Synthetic> = drawn
        .into_iter()
        .filter_map(|d| {
            d.text.map(|text| Synthetic {
                id: d.id,
                label: d.label,
                text,
            })
        })
        .collect();
    let schema = Schema {
        text: &c.dataset.text,
        labels: &labels,
        metadata,
    };
    shards::write(&p.folder.shards(arm), &records, c.sample.shard_records, &schema)
}

/// Without the replacement characters of a last character that was cut off.
fn whole_characters(text: &str) -> &str {
    text.trim_end_matches(char::REPLACEMENT_CHARACTER)
}

/// The journal's whole lines; a line that was cut off by a crash is drawn again.
fn read_journal(path: &std::path::Path) -> Result<Vec<Drawn>> {
    let file = match std::fs::File::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    Ok(BufReader::new(file)
        .lines()
        .map_while(|l| serde_json::from_str(&l.ok()?).ok())
        .collect())
}

/// Rewrites the whole lines and goes on behind them.
fn open_journal(path: &std::path::Path, drawn: &[Drawn]) -> Result<std::fs::File> {
    let text: String = drawn.iter().map(|d| stamp::text(d) + "\n").collect();
    super::files::write_atomically(path, text.as_bytes())?;
    std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .map_err(|e| Error::io("open", path, e))
}
