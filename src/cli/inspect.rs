//! `dpsynth inspect` and `dpsynth init`: what is in a file, and a starting configuration.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use dpsynth::config::{DatasetConfig, Escape, draft};
use dpsynth::progress::Progress;
use dpsynth::tables::{Declared, Inspection, Split, find, inspect, is_name, short, shown_separator};
use dpsynth::{Error, Result};

use super::Ui;
use super::table::table;

/// Values of a column that are shown.
const SHOWN: usize = 12;

/// How the file is to be read, where its first bytes and its header do not tell.
#[derive(Args)]
struct Reading {
    /// What separates cells of CSV: one character, or "\t"
    #[arg(long, value_name = "C")]
    separator: Option<String>,
    /// Whether quotes around a cell are the format's
    #[arg(long, value_name = "BOOL")]
    quote: Option<bool>,
    /// How a quote within quotes is written
    #[arg(long, value_enum)]
    escape: Option<EscapeName>,
    /// The first line is a record: columns are column_1, column_2
    #[arg(long)]
    no_header: bool,
    /// Encoding of a text file that is not UTF-8, such as windows-1252
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum EscapeName {
    Doubled,
    Backslash,
}

impl Reading {
    /// The file itself, or the first of those that a pattern or a folder means.
    fn file(path: &Path, ui: &Ui) -> Result<PathBuf> {
        if path.is_file() {
            return Ok(path.to_path_buf());
        }
        let files = find(path, Split::Train)?;
        if files.len() > 1 {
            ui.note(&format!("the first of {} files: {}", files.len(), files[0].display()));
        }
        Ok(files[0].clone())
    }

    fn declared(&self) -> Result<Declared> {
        let separator = match self.separator.as_deref() {
            None => None,
            Some("\\t") => Some('\t'),
            Some(text) => match text.chars().collect::<Vec<_>>().as_slice() {
                [one] => Some(*one),
                _ => {
                    return Err(
                        Error::usage("--separator takes one character").hint("--separator ';' or --separator '\\t'")
                    );
                }
            },
        };
        let escape = self.escape.map(|escape| match escape {
            EscapeName::Doubled => Escape::Doubled,
            EscapeName::Backslash => Escape::Backslash,
        });
        DatasetConfig {
            separator,
            quote: self.quote,
            escape,
            header: !self.no_header,
            encoding: self.encoding.clone(),
            ..DatasetConfig::default()
        }
        .declared()
    }
}

/// Shows what the program sees in a file of records, and a starting configuration for it
///
/// Format, encoding, columns with their types, number of rows, label values with counts, longest text. It reads private
/// records: what it prints is for their owner, not for release.
#[derive(Args)]
pub struct Inspect {
    /// A file of records, or a folder or pattern, whose first file is shown
    #[arg(value_hint = ValueHint::AnyPath)]
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Reads the file and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let declared = self.reading.declared()?;
        let seen = inspect(&Reading::file(&self.file, ui)?, &declared)?;
        if self.json {
            return ui.print_json(&seen);
        }
        let mut out = shown(&seen);
        if seen.headerless {
            return ui.print(&out.join("\n"));
        }
        match draft(&seen, &declared, None, None) {
            Ok(toml) => {
                out.push(format!(
                    "\nto begin with (`dpsynth init {}` writes it to a file):\n",
                    self.file.display()
                ));
                out.push(toml.trim_end().to_string());
            }
            Err(e) => out.push(format!(
                "\nno configuration to begin with: {e}; dpsynth init {} --label COLUMN",
                self.file.display()
            )),
        }
        ui.print(&out.join("\n"))
    }
}

fn shown(seen: &Inspection) -> Vec<String> {
    let of = |what: &str, value: String| format!("{what:<10} {value}");
    let mut format = seen.format.to_string();
    if let Some(packing) = seen.packing {
        format += &format!(", compressed with {packing}");
    }
    if let Some(separator) = seen.separator {
        format += &format!(", cells separated by {}", shown_separator(separator as u8));
    }
    let text = matches!(seen.format, "CSV" | "TSV" | "JSON");
    let mut out = vec![
        "internal: this reads private records; keep it to yourself".into(),
        of("file", format!("{} ({} bytes)", seen.path.display(), seen.bytes)),
        of("format", format),
    ];
    if text {
        out.push(of("encoding", seen.encoding.unwrap_or("UTF-8").into()));
    }
    out.push(of("rows", seen.rows.to_string()));
    if seen.headerless {
        out.push(of(
            "header",
            "the first line looks like a record and not like names of columns: --no-header, and dataset.header = false"
                .into(),
        ));
    }
    let mut table = table(["column", "type", "missing", "different", "longest"], 2..);
    for column in &seen.columns {
        table.add_row([
            if is_name(&column.name) {
                short(&column.name)
            } else {
                format!("({} characters)", column.name.chars().count())
            },
            column.kind.clone(),
            column.missing.to_string(),
            column
                .values
                .as_ref()
                .map_or("many".into(), |values| values.len().to_string()),
            column.longest.to_string(),
        ]);
    }
    out.push(table.to_string());
    if seen.headerless {
        return out;
    }
    for label in seen.labels() {
        let values = label.values.as_deref().unwrap_or_default();
        let mut counts: Vec<String> = (values.iter().take(SHOWN))
            .map(|(value, n)| format!("{} {n}", short(value)))
            .collect();
        if values.len() > SHOWN {
            counts.push(format!("{} more", values.len() - SHOWN));
        }
        out.push(of("label?", format!("{}: {}", short(&label.name), counts.join(", "))));
    }
    if let Some(text) = seen.text() {
        out.push(of(
            "text?",
            format!("{}, the longest of {} characters", short(&text.name), text.longest),
        ));
    }
    out
}

/// Writes a starting configuration for a file of records
///
/// It reads private records, and what it writes names their labels and a round number of them: look at each line before
/// you share it.
#[derive(Args)]
pub struct Init {
    /// A file of records
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The label column [default: the one that looks most like it]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The text column [default: the one with the longest texts]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Where to write it [default: the file's name with .toml, in this folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    to: Option<PathBuf>,
    #[command(flatten)]
    reading: Reading,
}

impl Init {
    /// Reads the file and writes the configuration.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let declared = self.reading.declared()?;
        let seen = inspect(&self.file, &declared)?;
        // Who names a column of it knows that it is a header.
        let named = [&self.label, &self.text].into_iter().flatten();
        let known = named
            .into_iter()
            .any(|name| seen.columns.iter().any(|column| column.name == *name));
        if seen.headerless && !known {
            return Err(Error::usage(format!(
                "the first line of {} looks like a record and not like names of columns",
                self.file.display()
            ))
            .hint("--no-header where there is no header; where it is one, --label COLUMN names the label's column"));
        }
        let toml = draft(&seen, &declared, self.text.as_deref(), self.label.as_deref())?;
        let stem = self.file.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.split('.').find(|part| !part.is_empty()).unwrap_or("run");
        let to = self.to.unwrap_or_else(|| PathBuf::from(format!("{stem}.toml")));
        let mut file = std::fs::File::create_new(&to).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::usage(format!("{} is there already", to.display())).hint("--to names another file")
            }
            _ => Error::io("write", &to, e),
        })?;
        std::io::Write::write_all(&mut file, toml.as_bytes()).map_err(|e| Error::io("write", &to, e))?;
        ui.note("this read private records: look at each line before you share it");
        ui.print(&format!("{}\nnext: dpsynth plan {}", to.display(), to.display()))
    }
}
