//! Which files a path means: a file, a pattern, a folder of shards, or a folder that `datasets` saved.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Result};

/// What the files are for: folders often hold both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Test,
}

impl Split {
    /// Names that files and folders of it bear, the best first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Split::Train => &["train"],
            Split::Test => &["test", "validation", "valid", "val", "dev", "eval"],
        }
    }

    /// Whether a file of a repository is of this split, by its name: Parquet, as the hub keeps datasets.
    pub fn owns(self, name: &str) -> bool {
        let file = name.rsplit('/').next().unwrap_or_default().to_lowercase();
        file.ends_with(".parquet") && begins(&file, self.names()[0])
    }

    /// The key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// Extensions of files of records.
const DATA: [&str; 15] = [
    "parquet", "pq", "csv", "tsv", "tab", "jsonl", "ndjson", "json", "arrow", "feather", "gz",
    "zst", // These are told of:
    "bz2", "xz", "zip",
];

/// What stands beside records and holds none.
const BESIDE: [&str; 4] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
];

/// Whether `path` is a pattern such as `data/train-*.parquet`, and no file of that name is there.
pub fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[']) && !path.exists()
}

/// The files that `path` means, in order of their names.
///
/// # Errors
/// Data: there is none, or a folder holds several kinds.
pub fn find(path: &Path, split: Split) -> Result<Vec<PathBuf>> {
    if is_pattern(path) {
        return matching(path);
    }
    match path.is_dir() {
        true => in_folder(path, split),
        false if path.is_file() => Ok(vec![path.to_path_buf()]),
        false => Err(Error::data(format!("there is no file {}", path.display()))),
    }
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |what: String| Error::data(what).hint("* stands for any part of a name, ** for any folders");
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::default()
    };
    let found = glob::glob_with(&pattern.to_string_lossy(), options)
        .map_err(|e| wrong(format!("{} is no pattern: {}", pattern.display(), e.msg)))?;
    let named: HashSet<&OsStr> = pattern.iter().collect();
    // What editors, file managers and Spark leave beside data is meant only where it is named.
    let beside = |path: &Path| {
        let unnamed = path
            .iter()
            .filter(|part| !named.contains(part))
            .map(|part| part.to_string_lossy());
        let begins = |c: char| named.iter().any(|part| part.to_string_lossy().starts_with(c));
        unnamed
            .into_iter()
            .any(|part| ['.', '_'].into_iter().any(|c| part.starts_with(c) && !begins(c)))
    };
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|e| Error::data(format!("cannot read {}: {}", e.path().display(), e.error())))?;
        if path.is_file() && !beside(&path) {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true if pattern.starts_with("hf:") => Err(wrong(format!(
            "{} is an address, not a file: `dpsynth prepare` fetches it",
            pattern.display()
        ))),
        true => Err(wrong(format!("no file matches {}", pattern.display()))),
        false => Ok(files),
    }
}

fn in_folder(folder: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = (std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?)
        .map(|entry| entry.map(|e| e.path()).map_err(|e| Error::io("read", folder, e)))
        .collect::<Result<_>>()?;
    entries.sort();
    if folder.join("state.json").is_file() {
        return saved(folder);
    }
    let hidden = |path: &Path| name(path).starts_with(['.', '_']);
    let files: Vec<PathBuf> = entries
        .iter()
        .filter(|path| path.is_file() && !hidden(path) && is_data(path))
        .cloned()
        .collect();
    if files.is_empty() {
        // A subfolder of its own for each split, or one for all.
        let subfolders = split
            .names()
            .iter()
            .copied()
            .chain(["data"])
            .map(|sub| folder.join(sub));
        return match subfolders.into_iter().find(|sub| sub.is_dir()) {
            Some(sub) => in_folder(&sub, split),
            None => {
                let held: Vec<String> = entries.iter().take(12).map(|path| name(path)).collect();
                Err(
                    Error::data(format!("{} is a folder without files of records", folder.display())).hint(match held
                        .is_empty()
                    {
                        true => "it is empty".into(),
                        false => format!("it holds {}", held.join(", ")),
                    }),
                )
            }
        };
    }
    let of = |names: &[&str]| -> Vec<PathBuf> {
        let is_of = |path: &&PathBuf| names.iter().any(|split| begins(&name(path).to_lowercase(), split));
        files.iter().filter(is_of).cloned().collect()
    };
    let named = |split: Split| split.names().iter().map(|n| of(&[n])).find(|found| !found.is_empty());
    let chosen = match (named(Split::Train), named(Split::Test)) {
        (None, None) => files,
        _ => match named(split) {
            Some(own) => own,
            None => {
                let held: Vec<String> = files.iter().take(12).map(|path| name(path)).collect();
                return Err(Error::data(format!(
                    "{} is a folder without files for `dataset.{}`",
                    folder.display(),
                    split.key()
                ))
                .hint(format!("it holds {}: name the files", held.join(", "))));
            }
        },
    };
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    chosen
        .iter()
        .for_each(|path| *kinds.entry(kind(path)).or_default() += 1);
    if kinds.len() > 1 {
        let most = kinds
            .iter()
            .max_by_key(|(_, n)| **n)
            .map(|(kind, _)| kind.clone())
            .unwrap_or_default();
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} .{kind}")).collect();
        return Err(Error::data(format!(
            "{} is a folder with files of several kinds: {}",
            folder.display(),
            kinds.join(", ")
        ))
        .hint(format!(
            "name those that are meant: dataset.{} = \"{}/*.{most}\"",
            split.key(),
            folder.display()
        )));
    }
    Ok(chosen)
}

/// The files of a folder that `Dataset.save_to_disk` wrote, as its `state.json` lists them.
fn saved(folder: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct State {
        #[serde(rename = "_data_files")]
        files: Vec<DataFile>,
    }
    #[derive(Deserialize)]
    struct DataFile {
        filename: String,
    }
    let path = folder.join("state.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let state: State = serde_json::from_str(&text).map_err(|_| {
        Error::data(format!("{} is not as `datasets` writes it", path.display())).hint("save the dataset again")
    })?;
    let file = |named: DataFile| {
        // A stranger's file names files of its own folder, and no others.
        let plain = Path::new(&named.filename)
            .file_name()
            .is_some_and(|n| n == named.filename.as_str());
        let file = folder.join(&named.filename);
        match plain && file.is_file() {
            true => Ok(file),
            false => Err(
                Error::data(format!("{} names a file that is not beside it", path.display()))
                    .hint("the folder may have been copied in part: copy it again"),
            ),
        }
    };
    state.files.into_iter().map(file).collect()
}

/// A word for shards that are numbered `-00000-of-00003` and of which some are missing among `files`.
pub fn missing_shards(files: &[PathBuf]) -> Option<String> {
    let mut found: BTreeMap<(Option<&Path>, String, usize), usize> = BTreeMap::new();
    for path in files {
        if let Some((stem, total)) = shard(&name(path)) {
            *found.entry((path.parent(), stem, total)).or_default() += 1;
        }
    }
    let ((_, stem, total), there) = found.into_iter().find(|((.., total), there)| there < total)?;
    Some(format!(
        "{there} of the {total} shards `{stem}-…-of-{total:05}` {} read, and the others are not: \"{stem}-*\" names all that are there",
        if there == 1 { "is" } else { "are" }
    ))
}

/// `train` and 3 of `train-00000-of-00003.parquet`.
fn shard(name: &str) -> Option<(String, usize)> {
    let (before, after) = name.split_once("-of-")?;
    let total: String = after.chars().take_while(char::is_ascii_digit).collect();
    let (stem, number) = before.rsplit_once('-')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    Some((stem.to_string(), total.parse().ok()?))
}

/// `train-00000-of-00001.parquet` and `train.csv` begin with `train`, `training-notes.csv` does not.
fn begins(file: &str, split: &str) -> bool {
    file.strip_prefix(split)
        .is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn kind(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

fn is_data(path: &Path) -> bool {
    DATA.contains(&kind(path).as_str()) && !BESIDE.contains(&name(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_left_out_are_told() {
        let files = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(PathBuf::from).collect() };
        let told = missing_shards(&files(&["d/train-00000-of-00003.parquet"])).unwrap();
        assert!(told.contains("1 of the 3 shards"), "{told}");
        assert_eq!(
            missing_shards(&files(&[
                "train-00000-of-00001.parquet",
                "plain.csv",
                "one-of-many.csv"
            ])),
            None
        );
        assert_eq!(missing_shards(&files(&["a-0-of-2.csv", "a-1-of-2.csv"])), None);
    }
}
