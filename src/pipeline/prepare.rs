//! Stage 1: read, clean, identify, tokenise, row by row.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;
use sha2::{Digest, Sha256};

use super::{Pipeline, checks};
use crate::config::{HeldOut, Task};
use crate::files::write_atomically;
use crate::models::ModelFiles;
use crate::progress::Unit;
use crate::records::{
    FixedSample, LabelSpace, ReadReport, Reader, Record, TextHashes, UnitNumbers, Vocabulary, text_hash,
};
use crate::run::table::RecordWriter;
use crate::run::tokens::TokenWriter;
use crate::run::{Preparation, rows, stamp};
use crate::tables::missing_shards;
use crate::{Error, Result, assets};

/// Records that are tokenised at once.
const CHUNK: usize = 4096;

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    let data = assets::dataset(&c.dataset, &p.places.assets, p.progress)?;
    let language = match c.task {
        Task::Synthesise => Some(Language::of(p, &labels)?),
        Task::Classify => None,
    };
    for told in [Some(&data.train), data.test.as_ref()].into_iter().flatten() {
        if let Some(missing) = missing_shards(told) {
            p.progress.note(&format!("warning: {missing}"));
        }
    }

    let share = match c.dataset.test {
        Some(HeldOut::Share(share)) => Some(share),
        _ => None,
    };
    let mut training = TrainingRecords::new(p, language.as_ref())?;
    let mut held_out = HeldOutRecords::new(c.prepare.max_test_records, labels.len());
    let mut audit = AuditRecords::new(p, labels.len())?;
    let train = reading(
        p,
        &data.train,
        &labels,
        c.dataset.unit.is_some(),
        &mut |raw, unit, record| {
            if let Some(raw) = raw {
                // Of every row, used or not: what is left out depends on labels and units, which dataset it is does not (P8).
                training.identity.add(text_hash(raw))?;
                training.rows.add(rows::of_text(raw))?;
            }
            if let Some((column, unit)) = c.dataset.unit.as_ref().zip(unit) {
                training.rows.add(rows::of_unit(&column.column, &unit))?;
            }
            match (record, unit) {
                (Some(record), Some(unit)) if share.is_some_and(|share| is_held_out(&unit, share)) => {
                    held_out.add(record)
                }
                (Some(record), Some(unit)) if audit.takes(&unit) => audit.add(record),
                (Some(record), Some(unit)) => training.add(record, &unit),
                _ => Ok(()),
            }
        },
    )?;
    let (train, _) = train.split(audit.per_label.clone());
    let set_apart = audit.count;
    let (train, test) = match &data.test {
        None => train.split(held_out.per_label.clone()),
        Some(files) => {
            let test = reading(p, files, &labels, false, &mut |_, _, record| {
                record.map_or(Ok(()), |record| held_out.add(record))
            })?;
            (train, test)
        }
    };
    let name = |files: &[PathBuf]| match files {
        [one] => one.display().to_string(),
        several => format!("{} files", several.len()),
    };
    let trained_on = name(&data.train);
    let tested_on = data
        .test
        .as_deref()
        .map_or_else(|| format!("the held-out share of {trained_on}"), name);
    if let (Some(share), 0, true) = (share, test.kept, train.kept > 0) {
        return Err(Error::data(format!(
            "no record of {trained_on} is held out by dataset.test = {share}: there are few units"
        ))
        .hint("hold out more, or name a file of held-out records"));
    }
    if let (Some(share), 0, true) = (share, train.kept, test.kept > 0) {
        return Err(Error::data(format!(
            "every record of {trained_on} is held out by dataset.test = {share}"
        ))
        .hint("hold out fewer, such as dataset.test = 0.2"));
    }
    train.require_records(&trained_on)?;
    test.require_records(&tested_on)?;
    let (train, test) = (train.look_at_labels(&labels), test.look_at_labels(&labels));
    for (file, report) in [(&trained_on, &train), (&tested_on, &test)] {
        for warning in &report.warnings {
            p.progress.note(&format!("warning: {file}: {warning}"));
        }
    }
    let units = training.units.len();
    if set_apart > 0 {
        p.progress.note(&format!(
            "(internal) {set_apart} training records are set apart for the audit and never train"
        ));
    }
    // With some set apart the count is another each time: only what chance does not explain is told.
    let (declared, holdout) = (c.dataset.public_size as f64, c.audit.holdout);
    let spread = 6.0 * (declared * holdout * (1.0 - holdout)).sqrt();
    if (units as f64 - declared * (1.0 - holdout)).abs() > spread {
        // P2: the declared size stays in force; the real count is for the owner's eyes.
        p.progress.note(&format!(
            "warning (internal): {units} training {}, `dataset.public_size` declares {}; the sampling rate follows the declaration",
            if c.dataset.unit.is_some() { "units of privacy" } else { "records" },
            c.dataset.public_size
        ));
    }
    rows::write(&p.folder, &mut training.rows)?;
    audit.finish()?;
    let (identity, cut, mut train_texts) = training.finish()?;
    let shared_texts = train_texts.shared(&mut held_out.texts)?;
    if 2 * shared_texts > test.kept {
        p.progress.note(&format!(
            "warning: {shared_texts} texts are in both splits, of {} held-out records: what is measured on them says little",
            test.kept
        ));
    }
    let test_kept = held_out.write(&p.folder.test_records())?;
    let preparation = Preparation {
        dataset_hash: identity,
        population: c.dataset.population.clone(),
        train,
        test,
        test_kept,
        shared_texts,
        cut,
        model_sha256: language.as_ref().map_or(String::new(), |l| l.sha256.clone()),
        prompts: language.map_or(Vec::new(), |l| l.prompts),
    };
    write_atomically(&p.folder.preparation(), stamp::text(&preparation).as_bytes())
}

/// What records become for the language model.
struct Language {
    vocabulary: Vocabulary,
    /// Of each label, in tokens.
    prompts: Vec<Vec<u32>>,
    /// Of the model.
    sha256: String,
}

impl Language {
    fn of(p: &Pipeline, labels: &LabelSpace) -> Result<Self> {
        let c = &p.config;
        let model = assets::language_model(&c.model, &p.places.assets, p.progress)?;
        let file = model.language_model()?;
        let files = ModelFiles::open(&file.path)?;
        let vocabulary = Vocabulary::of(&files)?;
        Ok(Language {
            prompts: checks::prompts(c, labels, &files.shape()?, &vocabulary)?,
            vocabulary,
            sha256: file.sha256,
        })
    }
}

type Row<'a> = dyn FnMut(Option<&str>, Option<[u8; 32]>, Option<Record>) -> Result<()> + 'a;

/// Reads `files`, and says how far it is where that takes long.
fn reading(p: &Pipeline, files: &[PathBuf], labels: &LabelSpace, units: bool, row: &mut Row) -> Result<ReadReport> {
    let dataset = match units {
        true => p.config.dataset.clone(),
        false => p.config.dataset.without_unit(),
    };
    let total = files
        .iter()
        .filter_map(|file| file.metadata().ok())
        .map(|m| m.len())
        .sum();
    let (begun, task) = (Instant::now(), std::cell::OnceCell::new());
    let reader = Reader {
        dataset: &dataset,
        labels,
        prepare: &p.config.prepare,
        progress: &|bytes| {
            if begun.elapsed() > Duration::from_secs(5) {
                task.get_or_init(|| p.progress.begin("preparing", total, Unit::Bytes))
                    .set(bytes, "");
            }
        },
    };
    let mut rows = 0u64;
    reader.read(files, &mut |read| {
        rows += 1;
        if rows.is_multiple_of(CHUNK as u64) {
            p.check_stop("preparing")?;
        }
        row(read.raw, read.unit, read.record)
    })
}

/// Whether the unit with this hash never trains. It turns on the unit alone, so that neighbours differ in one unit and no
/// other; the same units are held out in every run, so that none trains in one run and tests another.
fn is_held_out(unit: &[u8; 32], share: f64) -> bool {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(b"dpsynth: held out\0")
        .chain_update(unit)
        .finalize()
        .into();
    share_of(&hash) < share
}

/// Where a hash lies among all, 0 to 1.
fn share_of(hash: &[u8; 32]) -> f64 {
    let first = u64::from_be_bytes(hash[..8].try_into().expect("8 of 32 bytes"));
    first as f64 / 2f64.powi(64)
}

/// Records that train, tokenised as they come where a language model reads them.
struct TrainingRecords<'a> {
    language: Option<(&'a Language, TokenWriter)>,
    max_tokens: usize,
    identity: TextHashes,
    rows: TextHashes,
    texts: TextHashes,
    units: UnitNumbers,
    waiting: Vec<Record>,
    records: RecordWriter,
    cut: usize,
}

impl<'a> TrainingRecords<'a> {
    fn new(p: &Pipeline, language: Option<&'a Language>) -> Result<Self> {
        let tokens = |language| -> Result<_> { Ok((language, TokenWriter::new(&p.folder.tokens())?)) };
        Ok(TrainingRecords {
            language: language.map(tokens).transpose()?,
            max_tokens: p.config.prepare.max_tokens,
            identity: TextHashes::default(),
            rows: TextHashes::default(),
            texts: TextHashes::default(),
            units: UnitNumbers::new(p.config.dataset.unit.is_some()),
            waiting: Vec::new(),
            records: RecordWriter::new(&p.folder.train_records())?,
            cut: 0,
        })
    }

    fn add(&mut self, mut record: Record, unit: &[u8; 32]) -> Result<()> {
        record.unit = self.units.of(unit);
        self.texts.add(text_hash(&record.text))?;
        self.waiting.push(record);
        match self.waiting.len() < CHUNK {
            true => Ok(()),
            false => self.tokenise(),
        }
    }

    fn tokenise(&mut self) -> Result<()> {
        if let Some((language, tokens)) = &mut self.language {
            let vocabulary = &language.vocabulary;
            let encoded = vocabulary.records(&self.waiting, &language.prompts, self.max_tokens)?;
            for (record, encoded) in self.waiting.iter().zip(encoded) {
                self.cut += usize::from(encoded.tokens.last() != Some(&vocabulary.end()));
                tokens.add(record.unit, encoded)?;
            }
        }
        self.waiting.drain(..).try_for_each(|record| self.records.add(record))
    }

    /// The dataset's identity, how many records were cut, and the texts.
    fn finish(mut self) -> Result<(String, usize, TextHashes)> {
        self.tokenise()?;
        if let Some((_, tokens)) = self.language {
            tokens.finish()?;
        }
        self.records.finish()?;
        Ok((self.identity.content_hash()?, self.cut, self.texts))
    }
}

/// Records that could have trained and do not, by chance: members and others of an audit are then drawn alike.
struct AuditRecords {
    share: f64,
    key: Vec<u8>,
    records: Option<RecordWriter>,
    per_label: Vec<usize>,
    count: u32,
}

impl AuditRecords {
    fn new(p: &Pipeline, labels: usize) -> Result<Self> {
        let share = p.config.audit.holdout;
        let path = p.folder.holdout_key();
        let mut out = AuditRecords {
            share,
            key: Vec::new(),
            records: None,
            per_label: vec![0; labels],
            count: 0,
        };
        if share > 0.0 {
            if !path.exists() {
                let key: [u8; 32] = rand::rng().random();
                write_atomically(&path, &key)?;
            }
            out.key = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
            out.records = Some(RecordWriter::new(&p.folder.audit_records())?);
        }
        Ok(out)
    }

    /// Whether the unit with this hash never trains. It turns on the unit and the key alone (P5).
    fn takes(&self, unit: &[u8; 32]) -> bool {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(&self.key)
            .chain_update(unit)
            .finalize()
            .into();
        share_of(&hash) < self.share
    }

    fn add(&mut self, mut record: Record) -> Result<()> {
        record.unit = self.count;
        self.count += 1;
        self.per_label[record.label] += 1;
        self.records.as_mut().map_or(Ok(()), |records| records.add(record))
    }

    fn finish(self) -> Result<()> {
        self.records.map_or(Ok(()), RecordWriter::finish)
    }
}

/// Records that never train.
struct HeldOutRecords {
    sample: FixedSample,
    texts: TextHashes,
    per_label: Vec<usize>,
    count: u32,
}

impl HeldOutRecords {
    fn new(max_records: Option<usize>, labels: usize) -> Self {
        HeldOutRecords {
            sample: FixedSample::new(max_records),
            texts: TextHashes::default(),
            per_label: vec![0; labels],
            count: 0,
        }
    }

    fn add(&mut self, mut record: Record) -> Result<()> {
        record.unit = self.count;
        self.count += 1;
        self.per_label[record.label] += 1;
        self.texts.add(text_hash(&record.text))?;
        self.sample.add(record);
        Ok(())
    }

    /// How many there are.
    fn write(self, path: &std::path::Path) -> Result<usize> {
        let records = self.sample.records();
        let mut writer = RecordWriter::new(path)?;
        let kept = records.len();
        records.into_iter().try_for_each(|record| writer.add(record))?;
        writer.finish()?;
        Ok(kept)
    }
}
