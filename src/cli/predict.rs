//! `dpsynth predict`: labels of other texts by a classifier that was trained privately.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use clap::{Args, ValueHint};
use dpsynth::config::DatasetConfig;
use dpsynth::pipeline::Pipeline;
use dpsynth::pipeline::predict::{Predicted, predict};
use dpsynth::run::{Places, run_in};
use dpsynth::{Error, Result, files};
use serde::Serialize;

use super::Ui;
use super::run::interrupts;

/// Labels other texts by the classifier that a run trained privately
///
/// RUN is one with `task = "classify"`, or with the arm `dp_direct`. FILE is of any format that a dataset may have. The
/// Parquet file OUT has a row for each of its rows, in order: the number of the row, the label's columns as the dataset has
/// them, and the probability that the classifier gives the label; a row without text has none. It costs no privacy. What is
/// said of a text is as private as that text.
#[derive(Args)]
pub struct Predict {
    /// A run's folder, such as runs/sst2-direct-quick
    #[arg(value_hint = ValueHint::DirPath)]
    run: PathBuf,
    /// The texts: Parquet, Arrow, CSV, TSV or JSON
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Where the labels go: a file that is not there yet
    #[arg(long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    to: PathBuf,
    /// The column with the texts [default: the run's `dataset.text`]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// The column with the second texts of pairs [default: the run's `dataset.second_text`]
    #[arg(long, value_name = "COLUMN")]
    second_text: Option<String>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    to: &'a PathBuf,
    rows: usize,
    labelled: usize,
    /// Rows of each label, by its name.
    of_labels: Vec<(String, usize)>,
    /// The classifier's epsilon with everything without which it means nothing (P10).
    statement: String,
}

impl Predict {
    /// Labels the file.
    pub fn run(self, ui: &Ui) -> Result<()> {
        // Told before anything is read.
        if self.to.exists() {
            return Err(
                Error::usage(format!("there is something at {} already", self.to.display()))
                    .hint("name a file that is not there yet"),
            );
        }
        if self.to.extension().is_none_or(|extension| extension != "parquet") {
            return Err(Error::usage(format!("{} would be a Parquet file", self.to.display()))
                .hint("`--to` names a file that ends in .parquet"));
        }
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::usage(format!("{} is not a folder", folder.display()))
                .hint("`--to` names a file in a folder that is there"));
        }
        let (config, profile, runs) = run_in(&self.run)?;
        let places = Places::from_env(&runs)?;
        let dataset = self.dataset(&config.dataset);
        let pipeline = Pipeline::open(config, profile, &places, interrupts()?, ui)?;
        let predicted = predict(&pipeline, &self.file, &dataset)?;
        files::write_batch(&self.to, &batch(&predicted), Vec::new())?;
        let count = |label: usize| predicted.rows.iter().flatten().filter(|p| p.label == label).count();
        let of_labels: Vec<(String, usize)> = (0..predicted.labels.len())
            .map(|label| (predicted.labels.name(label), count(label)))
            .collect();
        let said = Said {
            to: &self.to,
            rows: predicted.rows.len(),
            labelled: predicted.rows.iter().flatten().count(),
            of_labels,
            statement: predicted.guarantee.to_string(),
        };
        if self.json {
            return ui.print_json(&said);
        }
        let counts = said.of_labels.iter().map(|(name, count)| format!("{name} {count}"));
        ui.print(&format!(
            "{} rows, {} labelled: {}\nthe classifier: {}\nlabels: {}",
            said.rows,
            said.labelled,
            counts.collect::<Vec<_>>().join(", "),
            said.statement,
            self.to.display()
        ))
    }

    /// Of the run's dataset what says how texts are read. Another file has a format of its own.
    fn dataset(&self, of_run: &DatasetConfig) -> DatasetConfig {
        let mut dataset = of_run.clone();
        if let Some(text) = &self.text {
            dataset.text = text.as_str().into();
        }
        dataset.second_text = self.second_text.clone().or(dataset.second_text);
        dataset
    }
}

fn batch(predicted: &Predicted) -> RecordBatch {
    let rows = || predicted.rows.iter();
    // A label may have the name.
    let free = |name: &str| {
        let mut name = name.to_string();
        while predicted.labels.columns().iter().any(|column| column.column() == name) {
            name.push('_');
        }
        name
    };
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..predicted.rows.len() as i64));
    let mut columns = vec![(free("row"), numbers)];
    let labels: Vec<Option<usize>> = rows().map(|row| row.map(|p| p.label)).collect();
    columns.extend(predicted.labels.arrays(&labels));
    let probabilities: ArrayRef = Arc::new(Float32Array::from_iter(rows().map(|row| row.map(|p| p.probability))));
    columns.push((free("probability"), probabilities));
    RecordBatch::try_from_iter(columns).expect("columns are equally long")
}
