//! Stage 1: read, clean, identify, tokenise.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::files::{read_json, write_atomically};
use super::{Pipeline, RunPaths, stamp, table};
use crate::models::load::gguf::Gguf;
use crate::records::{
    LabelSpace, Question, ReadReport, Vocabulary, content_hash, fixed_sample, prompt, read, shared_texts, texts,
};
use crate::sampling::prior;
use crate::{Error, Result, assets};

/// What the later stages need to know of the records. Internal (P9).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preparation {
    /// Identity of the private dataset in the ledger: of the records as they stand in the file, before cleaning.
    pub dataset_hash: String,
    pub train: ReadReport,
    pub test: ReadReport,
    /// Held-out records that are kept for evaluation.
    pub test_kept: usize,
    /// Texts that stand in both splits.
    pub shared_texts: usize,
    /// Training records that were cut at the longest length.
    pub cut: usize,
    /// The prompt of each joint label, in tokens.
    pub prompts: Vec<Vec<u32>>,
    /// SHA-256 of the language model's file.
    pub model_sha256: String,
}

impl Preparation {
    /// What the stage wrote.
    pub fn read(folder: &RunPaths) -> Result<Self> {
        read_json(&folder.preparation())
    }
}

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    // Refused now rather than after training.
    prior::counts(&c.sample.label_prior, None, labels.len(), c.sample.records)?;
    let data = assets::dataset(&c.dataset, &p.places.assets, p.progress)?;
    let model = assets::language_model(&c.model, &p.places.assets, p.progress)?;
    let file = model.with_extension("gguf")?;
    let gguf = Gguf::open(&file.path)?;
    let vocabulary = Vocabulary::from_gguf(&gguf)?;

    // Of every row, used or not: what is left out depends on the configuration, which dataset it is does not (P8).
    let dataset_hash = content_hash(texts(&data.train, &c.dataset)?.iter().map(String::as_str));
    let (train, train_report) = read(&data.train, &c.dataset, &labels, &c.prepare)?;
    let (test, test_report) = read(&data.test, &c.dataset.without_unit(), &labels, &c.prepare)?;
    for warning in &train_report.warnings {
        p.progress
            .note(&format!("warning: {}: {warning}", data.train.display()));
    }
    let units: HashSet<u32> = train.iter().map(|r| r.unit).collect();
    if units.len() as u64 != c.dataset.public_size {
        // P2: the declared size stays in force; the real count is for the owner's eyes.
        p.progress.note(&format!(
            "warning (internal): {} training {}, `dataset.public_size` declares {}; the sampling rate follows the declaration",
            units.len(),
            if c.dataset.unit.is_some() { "units of privacy" } else { "records" },
            c.dataset.public_size
        ));
    }
    let shared = shared_texts(&train, &test);
    let test = fixed_sample(test, c.prepare.max_test_records);

    // Refused now rather than after training.
    prompt::marginal(&c.prompt, vocabulary.chat_template())?;
    let requests = prompt::prompts(&c.prompt, &labels, vocabulary.chat_template())?;
    let prompts = requests
        .iter()
        .map(|t| vocabulary.prompt(t))
        .collect::<Result<Vec<_>>>()?;
    let context = gguf.count("llama.context_length")?;
    let mut around = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if c.finetune.objective.label_words > 0.0 {
        around = around.max(Question::new(&c.prompt, &labels, &vocabulary)?.most_tokens());
    }
    let longest = around + c.prepare.max_tokens;
    if longest > context {
        return Err(Error::usage(format!(
            "a prompt and {} tokens make {longest}, the model's context is {context}",
            c.prepare.max_tokens
        ))
        .hint(format!(
            "--set prepare.max_tokens={}",
            context - (longest - c.prepare.max_tokens).min(context - 1)
        )));
    }
    let encoded = vocabulary.records(&train, &prompts, c.prepare.max_tokens)?;
    let cut = encoded
        .iter()
        .filter(|e| e.tokens.last() != Some(&vocabulary.end()))
        .count();

    table::write_records(&p.folder.train_records(), &train, Some(&encoded))?;
    table::write_records(&p.folder.test_records(), &test, None)?;
    let preparation = Preparation {
        dataset_hash,
        train: train_report,
        test: test_report,
        test_kept: test.len(),
        shared_texts: shared,
        cut,
        prompts,
        model_sha256: file.sha256.clone(),
    };
    write_atomically(&p.folder.preparation(), stamp::text(&preparation).as_bytes())
}
