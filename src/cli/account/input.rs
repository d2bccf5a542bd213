//! What is accounted for, as it is typed and as it stands in a file.

use std::io::Read;
use std::path::Path;

use dpsynth::privacy::accountant::{Phase, check_delta};
use dpsynth::{Error, Result};
use serde::Serialize;

use crate::cli::meaning::{Sampler, phase};

/// A phase of a run.
#[derive(Clone, Copy, Serialize)]
pub struct Part {
    pub sampling_rate: f64,
    pub noise_multiplier: f64,
    pub steps: u64,
}

impl Part {
    /// As the accountant has it.
    pub fn phase(self, sampler: Sampler) -> Result<Phase> {
        let slots = sampler.slots(self.sampling_rate)?;
        Ok(phase(slots, self.sampling_rate, self.noise_multiplier, self.steps)?)
    }
}

/// A phase as it is typed: `0.01,1.1,1000`.
pub fn part(text: &str) -> Result<Part> {
    let refuse = || {
        Error::usage(format!(
            "`{text}` is not a phase: a sampling rate, a noise multiplier and a number of steps"
        ))
        .hint("write them with commas, such as --phase 0.01,1.1,1000")
    };
    let cells: Vec<&str> = text.split(',').map(str::trim).collect();
    let [q, sigma, steps] = cells[..] else {
        return Err(refuse());
    };
    let part = Part {
        sampling_rate: q.parse().map_err(|_| refuse())?,
        noise_multiplier: sigma.parse().map_err(|_| refuse())?,
        steps: steps.parse().map_err(|_| refuse())?,
    };
    part.phase(Sampler::Poisson)?;
    Ok(part)
}

/// The settings in a CSV file, or in standard input where `path` is `-`. Lines that are empty or begin with `#` are
/// skipped; the first other line names columns.
///
/// # Errors
/// Usage: it cannot be read, has no rows, or a line is wrong, with the line's number.
pub fn read_batch(path: &Path) -> Result<Vec<(Part, f64)>> {
    const COLUMNS: &str = "the columns are q, sigma, T, delta";
    let piped = path.as_os_str() == "-";
    let name = match piped {
        true => "standard input".to_string(),
        false => path.display().to_string(),
    };
    let text = match piped {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(path),
    }
    .map_err(|e| {
        Error::usage(format!("cannot read {name}: {e}"))
            .hint("give a CSV file with the columns q, sigma, T, delta, or - for standard input")
    })?;
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|(i, l)| (i + 1, cells(l)));
    let refuse = |line: usize, what: String| Error::usage(format!("line {line} of {name}: {what}")).hint(COLUMNS);
    let empty = |what: &str| Error::usage(format!("{name} {what}")).hint(COLUMNS);
    let (first, names) = lines.next().ok_or_else(|| empty("is empty"))?;
    let column = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .ok_or_else(|| refuse(first, format!("there is no column `{name}`")))
    };
    let columns = [column("q")?, column("sigma")?, column("T")?, column("delta")?];
    let rows: Vec<(Part, f64)> = lines
        .map(|(line, cells)| {
            let cell = |column: usize| cells.get(column).copied().unwrap_or("");
            let mut values = [0.0_f64; 4];
            for (value, c) in values.iter_mut().zip(columns) {
                *value = cell(c)
                    .parse()
                    .map_err(|_| refuse(line, format!("`{}` is not a number", cell(c))))?;
            }
            let [sampling_rate, noise_multiplier, steps, delta] = values;
            if steps.fract() != 0.0 || !(0.0..=1e15).contains(&steps) {
                return Err(refuse(line, format!("{} is not a number of steps", cell(columns[2]))));
            }
            let part = Part {
                sampling_rate,
                noise_multiplier,
                steps: steps as u64,
            };
            part.phase(Sampler::Poisson).map_err(|e| refuse(line, e.to_string()))?;
            check_delta(delta).map_err(|e| refuse(line, e.to_string()))?;
            Ok((part, delta))
        })
        .collect::<Result<_>>()?;
    match rows.is_empty() {
        true => Err(empty("names columns but has no rows")),
        false => Ok(rows),
    }
}

/// The cells of a line, out of their quotes; a comma in quotes parts nothing.
fn cells(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(|cell| cell.trim().trim_matches('"').trim())
    .collect()
}
