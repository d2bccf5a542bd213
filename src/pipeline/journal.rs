//! What a stage has done so far, a line each, so that a run that stops or is killed goes on where it was.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files;
use crate::run::stamp;
use crate::{Error, Result};

/// A file of lines that only grows.
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    synced: Instant,
    lines: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// How long lines may wait to be on disk: what a power cut can cost.
    const UNSYNCED: Duration = Duration::from_secs(1);

    /// Reads the whole lines, rewrites them and goes on behind them; one that a crash cut off is done again.
    pub fn open(path: &Path) -> Result<Self> {
        let lines: Vec<T> = match File::open(path) {
            Ok(file) => BufReader::new(file)
                .lines()
                .map_while(|l| serde_json::from_str(&l.ok()?).ok())
                .collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let text: String = lines.iter().map(|line| stamp::text(line) + "\n").collect();
        files::write_atomically(path, text.as_bytes())?;
        let file = File::options().append(true).open(path);
        Ok(Journal {
            path: path.to_path_buf(),
            file: file.map_err(|e| Error::io("open", path, e))?,
            synced: Instant::now(),
            lines,
        })
    }

    /// All lines, in the order in which they came.
    pub fn lines(&self) -> &[T] {
        &self.lines
    }

    /// Adds a line.
    pub fn add(&mut self, line: T) -> Result<()> {
        writeln!(self.file, "{}", stamp::text(&line)).map_err(|e| Error::io("write", &self.path, e))?;
        self.lines.push(line);
        if self.synced.elapsed() > Self::UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    /// Puts all lines on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, e))
    }
}
