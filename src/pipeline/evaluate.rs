//! Stage 4: the same classifiers on real, synthetic and zero-shot records, all tested on the real held-out ones.

use std::io::Write;
use std::sync::atomic::Ordering;

use super::files::{read_json, write_atomically};
use super::{Pipeline, RunPaths, stamp, table};
use crate::assets::ModelFiles;
use crate::evaluation::encoder::EncoderFiles;
use crate::evaluation::{Arm, ArmName, Comparison, Example, Finished, Utility, tstr};
use crate::models::device;
use crate::records::{LabelSpace, Record, read};
use crate::{Error, Result, assets};

/// What the stage wrote. Internal (P9).
pub fn utility(folder: &RunPaths) -> Result<Utility> {
    read_json(&folder.utility())
}

pub fn run(p: &Pipeline) -> Result<()> {
    let c = &p.config;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    let real = examples(table::read_records(&p.folder.train_records())?);
    let test = examples(table::read_records(&p.folder.test_records())?);
    let synthetic = sampled(p, "synthetic", &labels)?;
    let zero_shot = sampled(p, "zero_shot", &labels)?;
    let arms = [
        Arm {
            name: ArmName::Real,
            examples: &real,
        },
        Arm {
            name: ArmName::Synthetic,
            examples: &synthetic,
        },
        Arm {
            name: ArmName::ZeroShot,
            examples: &zero_shot,
        },
    ];
    let encoder = match c.evaluate.encoder {
        true => Some(encoder_files(&assets::encoder(
            &c.evaluate,
            &p.places.assets,
            p.progress,
        )?)?),
        false => None,
    };
    let path = p.folder.scores();
    let finished = read_scores(&path)?;
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|e| Error::io("open", &path, e))?;
    let device = device::choose(c.device)?;
    let mut done = |fit: &Finished| {
        writeln!(log, "{}", stamp::text(fit))
            .and_then(|()| log.sync_data())
            .map_err(|e| Error::io("write", &path, e))
    };
    let stop = || p.stop.load(Ordering::Relaxed);
    let comparison = Comparison {
        arms: &arms,
        test: &test,
        num_labels: labels.len(),
        config: &c.evaluate,
        encoder: encoder.as_ref(),
        device: &device,
    };
    let utility = tstr(&comparison, &finished, &mut done, &stop, p.progress)?;
    write_atomically(&p.folder.utility(), stamp::text(&utility).as_bytes())
}

fn encoder_files(model: &ModelFiles) -> Result<EncoderFiles> {
    let path = |name: &str| Ok(model.file(name)?.path.clone());
    Ok(EncoderFiles {
        config: path("config.json")?,
        weights: path("model.safetensors")?,
        tokenizer: path("tokenizer.json")?,
    })
}

fn examples(records: Vec<Record>) -> Vec<Example> {
    records
        .into_iter()
        .map(|r| Example {
            text: r.text,
            label: r.label,
        })
        .collect()
}

/// The shards of an arm, read as anyone else would read them.
fn sampled(p: &Pipeline, arm: &str, labels: &LabelSpace) -> Result<Vec<Example>> {
    let folder = p.folder.shards(arm);
    let listing = std::fs::read_dir(&folder).map_err(|e| Error::io("read", &folder, e))?;
    let mut files: Vec<_> = listing.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let as_written = crate::config::PrepareConfig {
            replace_html_breaks: false,
            ..p.config.prepare.clone()
        };
        out.extend(examples(read(&file, &p.config.dataset, labels, &as_written)?.0));
    }
    Ok(out)
}

/// Whole lines; one that was cut off by a crash is trained again.
fn read_scores(path: &std::path::Path) -> Result<Vec<Finished>> {
    let text = match std::fs::read_to_string(path) {
        Ok(t) => t,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    let scores: Vec<Finished> = text.lines().map_while(|l| serde_json::from_str(l).ok()).collect();
    let whole: String = scores.iter().map(|s| stamp::text(s) + "\n").collect();
    write_atomically(path, whole.as_bytes())?;
    Ok(scores)
}
