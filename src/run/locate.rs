//! A run by its folder, as `runs/imdb-quick`.

use std::path::{Path, PathBuf};

use crate::config::{self, Profile, RunConfig};
use crate::{Error, Result};

/// The configuration and profile that a run's folder holds, and the folder of runs that it stands in.
///
/// # Errors
/// Usage: the folder holds no run, one of another version of the program, or was renamed.
pub fn run_in(folder: &Path) -> Result<(RunConfig, Profile, PathBuf)> {
    let path = folder.join("config.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            Error::usage(format!("{} is not the folder of a run", folder.display()))
                .hint("name a folder such as runs/imdb-quick")
        }
        _ => Error::io("read", &path, e),
    })?;
    let config = config::resolved(&path, &text)?;
    let folder = std::path::absolute(folder).map_err(|e| Error::io("find", folder, e))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let profile = Profile::ALL
        .into_iter()
        .find(|p| name == format!("{}-{}", config.name, p.name()))
        .ok_or_else(|| {
            Error::usage(format!(
                "the folder {name} holds the run `{}`: it was renamed",
                config.name
            ))
            .hint(format!(
                "rename it to {}-quick, -overnight or -full, as it was",
                config.name
            ))
        })?;
    let runs = folder.parent().unwrap_or(Path::new("/")).to_path_buf();
    Ok((config, profile, runs))
}
