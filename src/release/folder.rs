//! A folder that is there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Where a folder would be written.
///
/// # Errors
/// Usage: there is a file or a folder that is not empty.
pub fn target(to: &Path) -> Result<PathBuf> {
    let taken = |what: &str| {
        Err(Error::usage(format!("{} {what}", to.display()))
            .hint("name a folder that is not there yet: nothing is written over"))
    };
    if to.is_dir() {
        let mut entries = fs::read_dir(to).map_err(|e| Error::io("read", to, e))?;
        return match entries.next() {
            Some(_) => taken("is not empty"),
            // Itself, not a link to it.
            None => fs::canonicalize(to).map_err(|e| Error::io("find", to, e)),
        };
    }
    if to.symlink_metadata().is_ok() {
        return taken("is there already");
    }
    let to = std::path::absolute(to).map_err(|e| Error::io("find", to, e))?;
    let above = to.ancestors().skip(1).find(|p| p.symlink_metadata().is_ok());
    match above.filter(|above| !above.is_dir()) {
        Some(file) => taken(&format!("is below {}, which is no folder", file.display())),
        None => Ok(to),
    }
}

/// The same for what leaves the run in `run`: a copy below it would be taken for a part of it.
///
/// # Errors
/// As [`target`]. Usage: `to` is below `run`.
pub fn target_beside(to: &Path, run: &Path) -> Result<PathBuf> {
    let to = target(to)?;
    let run = fs::canonicalize(run).unwrap_or_else(|_| run.to_path_buf());
    let above = to.ancestors().find_map(|p| fs::canonicalize(p).ok());
    match above.is_some_and(|above| above.starts_with(&run)) {
        true => Err(Error::usage(format!("{} is in the run's own folder", to.display()))
            .hint("name a folder elsewhere: what leaves is kept apart from what stays")),
        false => Ok(to),
    }
}

/// Lets `fill` write into a folder beside `to` and moves it there: all of it is on disk then, or nothing is left.
///
/// # Errors
/// Usage: there is something at `to`. What `fill` says. Other: it cannot be written.
pub fn write(to: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let to = target(to)?;
    // Built where a rename reaches the target: beside it, or beside the first of its folders that is not there yet.
    let parent = to.ancestors().skip(1).find(|p| p.is_dir()).unwrap_or(Path::new("/"));
    let building = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent);
    let building = building.map_err(|e| Error::io("make a folder in", parent, e))?;
    let inside = building.path().join("inside");
    fs::create_dir(&inside).map_err(|e| Error::io("make the folder", &inside, e))?;
    fill(&inside)?;
    sync_folders(&inside)?;
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    }
    // Onto an empty folder or into nothing; were something put there meanwhile, this fails.
    fs::rename(&inside, &to).map_err(|e| Error::io("move what was written to", &to, e))?;
    sync(to.parent().unwrap_or(Path::new("/")))
}

/// Writes a new file and its folders, on disk.
///
/// # Errors
/// It is there already, or cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
    let mut file = File::create_new(path).map_err(|e| Error::io("write", path, e))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| Error::io("write", path, e))
}

/// The names in a folder and in those below it are on disk too.
fn sync_folders(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
        let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.map_err(|e| Error::io("write", folder, e))
}
