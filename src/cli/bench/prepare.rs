//! `dpsynth bench prepare`.

use crate::cli::table::table;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dpsynth::Result;
use dpsynth::bench::prepare::{Prepared, WORDS, measure};
use dpsynth::progress::Progress;

use super::super::Ui;
use super::super::run::interrupts;

/// Times reading and tokenising of made-up records of 50 words, and says how much memory it takes
///
/// At 100,000 and 1,000,000 rows: memory should stay and time grow with the rows. The made-up file and what is prepared of it
/// need about 1,200 bytes of disk a row.
#[derive(Args)]
pub struct Prepare {
    /// Also 10,000,000 rows: about 12 GB of disk, and ten minutes on two cores
    #[arg(long)]
    large: bool,
    /// Measures these numbers of rows instead
    #[arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "large")]
    rows: Vec<usize>,
    /// Folder for what is made up; removed afterwards [default: the system's for temporary files]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    scratch: Option<PathBuf>,
    /// Writes one JSON list
    #[arg(long)]
    json: bool,
}

impl Prepare {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let mut sizes = match self.rows.is_empty() {
            true => vec![100_000, 1_000_000],
            false => self.rows,
        };
        sizes.extend(self.large.then_some(10_000_000));
        let scratch = self.scratch.unwrap_or_else(std::env::temp_dir);
        let stop = interrupts()?;
        let mut all: Vec<Prepared> = Vec::new();
        for rows in sizes {
            ui.note(&format!("preparing {rows} records of {WORDS} words"));
            all.push(measure(rows, &scratch, stop, ui)?);
        }
        if self.json {
            return ui.print_json(&all);
        }
        let header = [
            "rows",
            "text",
            "time",
            "rows a second",
            "text a second",
            "peak memory",
            "a draw of 1,024",
        ];
        let mut table = table(header, 0..);
        for p in &all {
            table.add_row([
                p.rows.to_string(),
                format!("{:.0} MB", p.text_bytes as f64 / 1e6),
                format!("{:.1} s", p.seconds),
                format!("{:.0}", p.rows_per_second),
                format!("{:.1} MB", p.text_bytes_per_second / 1e6),
                format!("{:.2} GB", p.peak_rss_bytes as f64 / 1e9),
                format!("{:.0} ms", p.draw_seconds * 1e3),
            ]);
        }
        ui.print(&table.to_string())
    }
}
