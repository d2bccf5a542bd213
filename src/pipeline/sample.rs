//! Stage 3: synthetic records from the trained model, and zero-shot ones from the base model for comparison.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

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
use crate::sampling::queue::Queue;
use crate::sampling::shards::{self, Schema, Synthetic};
use crate::training::trainable;
use crate::training::workers::Workers;
use crate::{Error, Result, assets};

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

    let journal = Journal::open(&p.folder.journal(arm))?;
    let have: HashSet<u64> = journal.drawn.iter().map(|d| d.id).collect();
    let open = wanted.iter().enumerate().map(|(id, label)| Request {
        id: id as u64,
        attempt: 0,
        label: *label,
    });
    let open: Vec<Request> = open.filter(|r| !have.contains(&r.id)).collect();
    // The last of them are shared out too.
    let side_by_side = c.sample.batch_size.min(open.len().div_ceil(workers.count()));

    let task = p.progress.begin(arm, records as u64, Unit::Records);
    let begun = Instant::now();
    let keeper = Mutex::new((journal, task, 0u64));
    let done = |request: Request, ids: Vec<u32>| {
        let text = whole_characters(&vocabulary.decode(&ids)?).trim().to_string();
        let (journal, task, tokens) = &mut *keeper.lock().expect("nobody panics with the journal in hand");
        *tokens += ids.len() as u64;
        if text.is_empty() && request.attempt + 1 < ATTEMPTS {
            return Ok(Some(Request {
                attempt: request.attempt + 1,
                ..request
            }));
        }
        journal.add(Drawn {
            id: request.id,
            label: request.label,
            text: (!text.is_empty()).then_some(text),
        })?;
        let rate = *tokens as f64 / begun.elapsed().as_secs_f64();
        task.set(journal.drawn.len() as u64, &format!("{rate:.0} tokens/s"));
        Ok(None)
    };
    let queue = Queue::new(open).until(p.stop);
    let ends = decoder.run_on(&workers, &queue, side_by_side, done);
    let (journal, ..) = keeper.into_inner().expect("nobody panics with the journal in hand");
    let kept = journal.close();
    for end in ends {
        end?;
    }
    let mut drawn = kept?;
    if drawn.len() < records {
        return Err(
            Error::interrupted(format!("stopped with {} of {records} records of `{arm}`", drawn.len()))
                .hint("the same command goes on from here"),
        );
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

/// The records drawn so far, a line each, so that a run that stops or is killed goes on where it was.
struct Journal {
    path: PathBuf,
    file: File,
    synced: Instant,
    drawn: Vec<Drawn>,
}

impl Journal {
    /// How long lines may wait to be on disk: what a power cut can cost.
    const UNSYNCED: Duration = Duration::from_secs(1);

    /// Reads the whole lines, rewrites them and goes on behind them; one that a crash cut off is drawn again.
    fn open(path: &Path) -> Result<Self> {
        let drawn: Vec<Drawn> = match File::open(path) {
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(|l| serde_json::from_str(&l.ok()?).ok())
                .collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let text: String = drawn.iter().map(|d| stamp::text(d) + "\n").collect();
        super::files::write_atomically(path, text.as_bytes())?;
        let file = std::fs::OpenOptions::new().append(true).open(path);
        Ok(Journal {
            path: path.to_path_buf(),
            file: file.map_err(|e| Error::io("open", path, e))?,
            synced: Instant::now(),
            drawn,
        })
    }

    fn add(&mut self, line: Drawn) -> Result<()> {
        writeln!(self.file, "{}", stamp::text(&line)).map_err(|e| Error::io("write", &self.path, e))?;
        self.drawn.push(line);
        if self.synced.elapsed() > Journal::UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))
    }

    /// All lines, now on disk.
    fn close(mut self) -> Result<Vec<Drawn>> {
        self.sync()?;
        Ok(self.drawn)
    }
}
