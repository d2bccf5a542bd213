//! What is accounted for, as it is typed and as it stands in a file.

use std::path::Path;

use dpsynth::privacy::accountant::{Phase, check_delta};
use dpsynth::{Error, Result};
use serde::Serialize;

/// A phase of a run.
#[derive(Clone, Copy, Serialize)]
pub struct Part {
    pub sampling_rate: f64,
    pub noise_multiplier: f64,
    pub steps: u64,
}

impl Part {
    /// As the accountant has it.
    pub fn phase(self) -> Result<Phase> {
        Phase::new(self.sampling_rate, self.noise_multiplier, self.steps)
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
    part.phase()?;
    Ok(part)
}

/// The settings in a CSV file. Lines that are empty or begin with `#` are skipped; the first other line names columns.
pub fn read_batch(path: &Path) -> Result<Vec<(Part, f64)>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|(i, l)| (i + 1, l));
    let refuse = |line: usize, what: String| {
        Error::usage(format!("line {line} of {}: {what}", path.display())).hint("the columns are q, sigma, T, delta")
    };
    let (first, names) = lines.next().ok_or_else(|| refuse(1, "the file is empty".into()))?;
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let column = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .ok_or_else(|| refuse(first, format!("there is no column `{name}`")))
    };
    let columns = [column("q")?, column("sigma")?, column("T")?, column("delta")?];
    lines
        .map(|(line, text)| {
            let cells: Vec<&str> = text.split(',').map(str::trim).collect();
            let mut values = [0.0_f64; 4];
            for (value, c) in values.iter_mut().zip(columns) {
                let cell = cells.get(c).copied().unwrap_or("");
                *value = cell
                    .parse()
                    .map_err(|_| refuse(line, format!("`{cell}` is not a number")))?;
            }
            let [sampling_rate, noise_multiplier, steps, delta] = values;
            if steps.fract() != 0.0 || !(0.0..=1e15).contains(&steps) {
                return Err(refuse(line, format!("{steps} is not a number of steps")));
            }
            let part = Part {
                sampling_rate,
                noise_multiplier,
                steps: steps as u64,
            };
            part.phase().map_err(|e| refuse(line, e.to_string()))?;
            check_delta(delta).map_err(|e| refuse(line, e.to_string()))?;
            Ok((part, delta))
        })
        .collect()
}
