//! `dpsynth bench sample`.

use clap::Args;
use dpsynth::Result;
use dpsynth::bench::sample::{Measurement, Setting, measure};
use dpsynth::config::{Precision, RunConfig, SampleConfig};
use dpsynth::sampling::choose::Choice;

use super::super::Ui;
use super::super::run::interrupts;
use super::which::{DtypeName, Which};

/// Times the drawing of records from the model as it is, without fine-tuning
#[derive(Args)]
pub struct Sample {
    #[command(flatten)]
    which: Which,
    /// Records to draw
    #[arg(long, value_name = "N", default_value_t = 256)]
    records: usize,
    /// Longest record in tokens [default: the configuration's, else 64]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Records that a worker draws side by side [default: the configuration's, else 64]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// γ of label guidance; 0 is plain sampling
    #[arg(long, value_name = "G", default_value_t = 0.0, allow_negative_numbers = true)]
    guidance: f64,
    /// Element type of the products
    #[arg(long, value_enum)]
    dtype: Option<DtypeName>,
}

impl Sample {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let stop = interrupts()?;
        let config = self.which.config()?;
        let sample = config.as_ref().map_or_else(SampleConfig::default, |c| c.sample.clone());
        let longest = config.as_ref().map(RunConfig::drawn_tokens);
        let setting = Setting {
            records: self.records,
            tokens: self.tokens.or(longest).unwrap_or(64),
            batch_size: self.batch_size.unwrap_or(sample.batch_size),
            choice: Choice {
                temperature: sample.temperature,
                top_p: sample.top_p,
                guidance: self.guidance,
                plausibility: sample.guidance_plausibility,
            },
            contrasts: sample.guidance_labels,
            seed: sample.seed,
            precision: self.dtype.map_or(Precision::F32, DtypeName::precision),
        };
        let subject = self.which.subject(config.as_ref(), false, ui)?;
        let found = measure(&subject, &setting, stop, ui)?;
        match self.which.json {
            true => ui.print_json(&found),
            false => ui.print(&table(&found)),
        }
    }
}

fn table(m: &Measurement) -> String {
    let mut table = super::super::table::table(["sampling", "", ""], 1..);
    let rows = [
        ("tokens a second", format!("{:.0}", m.tokens_per_second), String::new()),
        (
            "records a second",
            format!("{:.2}", m.records_per_second),
            String::new(),
        ),
        (
            "GB moved a second, at least",
            format!("{:.2}", m.bytes_per_second / 1e9),
            format!(
                "{:.1} % of {:.1} in copies",
                100.0 * m.bytes_over_bandwidth,
                m.copy_bandwidth_bytes_per_second / 1e9
            ),
        ),
        (
            "peak memory",
            format!("{:.2} GB", m.peak.rss_bytes as f64 / 1e9),
            String::new(),
        ),
    ];
    for (what, value, more) in rows {
        table.add_row([what.to_string(), value, more]);
    }
    format!(
        "{} on {}, {} workers: {} records of at most {} tokens, {} at once; {} tokens in {:.2} s\n{table}",
        m.model, m.device, m.workers, m.records, m.max_tokens, m.batch_size, m.tokens, m.seconds
    )
}
