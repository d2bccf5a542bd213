//! The synthetic records as they are published: read from the run's shards and written anew, with the declared columns
//! and the guarantee's metadata and nothing else; and what can be told of them by looking at them alone.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Metadata, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use crate::config::ColumnKind;
use crate::documents::{Sampled, ShardMetadata};
use crate::evaluation::quality::lengths::{quantile, sorted};
use crate::evaluation::quality::ngrams::distinct;
use crate::evaluation::quality::words::{Lexicon, Words};
use crate::facts::Facts;
use crate::files;
use crate::records::{LabelSpace, RawLabel};
use crate::{Error, Result};

/// A shard, written anew.
pub struct Shard {
    /// In the bundle.
    pub path: String,
    pub bytes: Vec<u8>,
}

/// The records of a release.
pub struct Records {
    pub shards: Vec<Shard>,
    /// Of the text, then of each label column: name, and whether it is an integer.
    pub columns: Vec<(String, bool)>,
    pub looks: Looks,
}

/// What the synthetic records look like, beside zero-shot ones: computed from both alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Looks {
    pub records: usize,
    /// Of each label column how many records have each of its labels.
    pub labels: Vec<LabelCounts>,
    pub synthetic: Look,
    /// By the base model without fine-tuning, from the same prompts: not part of the bundle.
    pub zero_shot: Option<Look>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelCounts {
    pub column: String,
    /// Name and count, in the order of declaration.
    pub counts: Vec<(String, usize)>,
}

/// Of one set of records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    pub records: usize,
    /// Words a record.
    pub mean_words: f64,
    /// At 5 %, 50 % and 95 %.
    pub quantiles: [f64; 3],
    /// Different n-grams over all, n = 1, 2, 3, in equally many words of each set (after Li et al. 2016).
    pub distinct: [Option<f64>; 3],
    /// Share of the first records drawn whose wanted label is the one that the model which drew them finds most likely;
    /// none where nothing was scored.
    pub agreement: Option<f64>,
}

impl Records {
    /// Of a run.
    ///
    /// # Errors
    /// Refused: a shard has other columns than declared. Data: a shard is damaged, or says another guarantee than the
    /// run.
    pub fn of(facts: &Facts) -> Result<Self> {
        let space = LabelSpace::from_config(&facts.config.dataset.labels)?;
        let mut columns = vec![(facts.config.dataset.text.written().into_owned(), false)];
        columns.extend(
            space
                .columns()
                .iter()
                .map(|c| (c.column().to_string(), c.kind() == ColumnKind::Integer)),
        );
        let metadata = metadata(facts).pairs();
        let mut texts = Vec::new();
        let mut counts: Vec<Vec<usize>> = space.columns().iter().map(|c| vec![0; c.names().len()]).collect();
        let mut shards = Vec::new();
        let mut ids = Vec::new();
        for (i, path) in facts.shards.iter().enumerate() {
            let batches = read(path, facts, &columns)?;
            for batch in &batches {
                ids.extend(values(batch, 0));
                texts.extend(strings(batch, 1));
                for (i, column) in space.columns().iter().enumerate() {
                    for value in values(batch, 2 + i) {
                        let label = (0..column.names().len()).find(|l| column.raw(*l, column.kind()) == value);
                        let label = label.ok_or_else(|| damaged(path, "a label that is not declared"))?;
                        counts[i][label] += 1;
                    }
                }
            }
            shards.push(Shard {
                path: format!("data/train-{i:05}-of-{:05}.parquet", facts.shards.len()),
                bytes: files::parquet(&batches, metadata.clone())
                    .map_err(|e| Error::other(format!("cannot write {} anew: {e}", path.display())))?,
            });
        }
        if let (Some(path), false) = (facts.shards.first(), counted(&ids, facts.config.sample.most_records())) {
            return Err(damaged(path, "`id` does not count the records"));
        }
        let labels = space.columns().iter().zip(counts);
        let labels = labels.map(|(column, counts)| LabelCounts {
            column: column.column().to_string(),
            counts: column.names().iter().cloned().zip(counts).collect(),
        });
        let mut zero_shot = Vec::new();
        for path in &facts.zero_shot_shards {
            for batch in read(path, facts, &columns)? {
                zero_shot.extend(strings(&batch, 1));
            }
        }
        let looks = Looks::of(facts, labels.collect(), &texts, &zero_shot);
        Ok(Records { shards, columns, looks })
    }
}

impl Looks {
    fn of(facts: &Facts, labels: Vec<LabelCounts>, synthetic: &[String], zero_shot: &[String]) -> Self {
        let mut lexicon = Lexicon::default();
        let mut read = |texts: &[String]| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            lexicon.read(texts)
        };
        let (ours, theirs) = (read(synthetic), read(zero_shot));
        let count = |set: &[Words]| set.iter().map(Vec::len).sum::<usize>();
        let words = match theirs.is_empty() {
            true => count(&ours),
            false => count(&ours).min(count(&theirs)),
        };
        Looks {
            records: synthetic.len(),
            labels,
            synthetic: Look::of(&ours, words, facts.synthetic.as_ref()),
            zero_shot: (!theirs.is_empty()).then(|| Look::of(&theirs, words, facts.zero_shot.as_ref())),
        }
    }
}

impl Look {
    fn of(records: &[Words], words: usize, sampled: Option<&Sampled>) -> Self {
        let lengths = sorted(records.iter().map(|w| w.len() as f64));
        let at = |share: f64| {
            if lengths.is_empty() {
                0.0
            } else {
                quantile(&lengths, share)
            }
        };
        Look {
            records: records.len(),
            mean_words: lengths.iter().sum::<f64>() / lengths.len().max(1) as f64,
            quantiles: [0.05, 0.5, 0.95].map(at),
            distinct: [1, 2, 3].map(|n| distinct(records, n, words)),
            agreement: sampled.and_then(|s| s.agreement),
        }
    }
}

/// What each shard says of itself.
fn metadata(facts: &Facts) -> ShardMetadata {
    ShardMetadata {
        guarantee: facts.guarantee.clone(),
        run: facts.run.clone(),
        base_model: facts.base_model.name.clone(),
    }
}

/// The batches of a shard, which has exactly the columns `id` and `columns`.
fn read(path: &Path, facts: &Facts, columns: &[(String, bool)]) -> Result<Vec<RecordBatch>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("read", path, e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| damaged(path, &e.to_string()))?;
    let mut expected = vec![("id", DataType::Int64)];
    expected.extend(columns.iter().map(|(name, integer)| {
        let kind = if *integer { DataType::Int64 } else { DataType::Utf8 };
        (name.as_str(), kind)
    }));
    let found: Vec<(&str, DataType)> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    if found != expected {
        let names = |columns: &[(&str, DataType)]| -> String {
            let each: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
            each.join(", ")
        };
        return Err(Error::refused(format!(
            "{} has the columns {}, declared are {} (P9)",
            path.display(),
            names(&found),
            names(&expected)
        ))
        .hint("draw the records again"));
    }
    agrees(path, reader.schema().metadata(), facts)?;
    // Of name and type alone: metadata of a field is nobody's.
    let fields: Vec<Field> = expected
        .iter()
        .map(|(name, kind)| Field::new(*name, kind.clone(), false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batches = reader.build().map_err(|e| damaged(path, &e.to_string()))?;
    let batches: std::result::Result<Vec<RecordBatch>, _> = batches.collect();
    let mut batches = batches.map_err(|e| damaged(path, &e.to_string()))?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema.clone()));
    }
    let has_nulls = |batch: &RecordBatch| batch.columns().iter().any(|c| c.null_count() > 0);
    if batches.iter().any(has_nulls) {
        return Err(damaged(path, "an empty cell"));
    }
    let plain = batches
        .iter()
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()));
    let plain: std::result::Result<Vec<RecordBatch>, _> = plain.collect();
    plain.map_err(|e| damaged(path, &e.to_string()))
}

/// A shard of another training than the guarantee is of is not published under it.
fn agrees(path: &Path, said: &Metadata, facts: &Facts) -> Result<()> {
    // Zero-shot records have no guarantee and need none.
    if !facts.shards.iter().any(|shard| shard == path) {
        return Ok(());
    }
    let ours: Metadata = metadata(facts).pairs().into_iter().collect();
    let of_the_run = |key: &&String| key.starts_with("dp.") && !["dp.run", "dp.base_model"].contains(&key.as_str());
    let differs = |key: &&String| said.get(key) != ours.get(key);
    match ours.keys().chain(said.keys()).filter(of_the_run).find(differs) {
        Some(key) => Err(Error::data(format!(
            "{} and model/privacy.json do not agree on {key}",
            path.display()
        ))
        .hint("draw the records again")),
        None => Ok(()),
    }
}

/// Whether `ids` are the places of drawn records, of so many: numbers from elsewhere could say anything.
fn counted(ids: &[RawLabel], records: usize) -> bool {
    let number = |id: &RawLabel| match id {
        RawLabel::Integer(id) => usize::try_from(*id).ok(),
        RawLabel::Text(_) => None,
    };
    let ids: Option<Vec<usize>> = ids.iter().map(number).collect();
    ids.is_some_and(|ids| ids.is_sorted_by(|a, b| a < b) && ids.last().is_none_or(|last| *last < records))
}

fn strings(batch: &RecordBatch, column: usize) -> Vec<String> {
    let column = batch.column(column).as_any().downcast_ref::<StringArray>();
    let column = column.expect("the columns were checked");
    (0..column.len()).map(|i| column.value(i).to_string()).collect()
}

fn values(batch: &RecordBatch, column: usize) -> Vec<RawLabel> {
    match batch.column(column).as_any().downcast_ref::<Int64Array>() {
        Some(integers) => integers.values().iter().map(|v| RawLabel::Integer(*v)).collect(),
        None => strings(batch, column).into_iter().map(RawLabel::Text).collect(),
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::data(format!("{} is damaged: {what}", path.display())).hint("draw the records again")
}
