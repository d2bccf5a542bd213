//! Labels of other texts by the classifier that a run trained privately (`dp_direct`). Whatever it says of a text is computed from
//! what training released and from that text: it costs no privacy.

use std::path::Path;

use super::{Pipeline, direct};
use crate::config::DatasetConfig;
use crate::evaluation::Example;
use crate::privacy::Guarantee;
use crate::progress::Unit;
use crate::records::{LabelSpace, Reader};
use crate::{Error, Result};

/// What a classifier says of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Joint label: the likeliest.
    pub label: usize,
    /// Its probability, as the classifier has it.
    pub probability: f32,
}

/// What was said of a file's rows.
pub struct Predicted {
    pub labels: LabelSpace,
    /// Of each row, in the order of the file; none where there is no text.
    pub rows: Vec<Option<Prediction>>,
    /// Of the classifier.
    pub guarantee: Guarantee,
}

/// The texts of `file` that `dataset` names, labelled by the classifier of the run. They are held in memory.
///
/// # Errors
/// Usage: the run has no trained classifier. Data: the file cannot be read, or has no such column. Interrupted.
pub fn predict(p: &Pipeline, file: &Path, dataset: &DatasetConfig) -> Result<Predicted> {
    let (subject, values, guarantee) = direct::trained_subject(p)?;
    let labels = LabelSpace::from_config(&p.config.dataset.labels)?;
    let reader = Reader {
        dataset,
        labels: &labels,
        prepare: &p.config.prepare,
        progress: &|_| {},
    };
    let as_declared = |e: Error| {
        e.hint("`--text` and `--second-text` name the columns; how a text file is written is as the run's `dataset` declares")
    };
    let (mut examples, mut has_text) = (Vec::new(), Vec::new());
    let read = reader.texts(file, &mut |text| {
        has_text.push(text.is_some());
        // Of its label nothing is known, and nothing is asked.
        examples.extend(text.map(|text| Example { text, label: 0 }));
        Ok(())
    });
    read.map_err(as_declared)?;
    let task = p.progress.begin("predict", examples.len() as u64, Unit::Records);
    let said = subject.learner.probabilities(&values, &examples, &mut |texts| {
        task.set(texts as u64, "");
        match p.is_stopped() {
            true => Err(Error::interrupted("stopped; nothing was written").hint("the same command begins anew")),
            false => Ok(()),
        }
    })?;
    let mut said = said.into_iter().map(|probabilities| {
        let likeliest =
            (probabilities.iter().copied().enumerate()).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let (label, probability) = likeliest.expect("there are labels");
        Prediction { label, probability }
    });
    let rows = has_text
        .into_iter()
        .map(|has| if has { said.next() } else { None })
        .collect();
    Ok(Predicted {
        labels,
        rows,
        guarantee,
    })
}
