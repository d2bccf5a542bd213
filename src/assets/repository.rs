//! Files of a dataset repository on the Hugging Face hub: `hf://datasets/ORG/NAME/PATTERN`, at a revision `NAME@REVISION`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use hf_hub::RepoType;

use super::hub;
use super::locations::Locations;
use super::registry::HubRepo;
use crate::progress::Progress;
use crate::tables::Split;
use crate::{Error, Result};

/// A repository, and which of its files are meant.
pub struct Repository {
    from: HubRepo,
    /// None: those of the split that is asked for.
    pattern: Option<Pattern>,
    named: String,
}

impl Repository {
    /// What `path` names; none where it is a path on this machine.
    ///
    /// # Errors
    /// Usage: a name that is no repository's.
    pub fn named(path: &Path) -> Result<Option<Self>> {
        let named = path.to_string_lossy().into_owned();
        let Some(rest) = named.strip_prefix("hf://") else {
            return Ok(None);
        };
        let wrong = |what: &str| {
            Error::usage(format!("`{named}` {what}"))
                .hint("it looks like hf://datasets/stanfordnlp/imdb/plain_text/train-*.parquet")
        };
        let rest = rest.strip_prefix("datasets/").unwrap_or(rest);
        let mut parts = rest.splitn(3, '/');
        let (org, name) = match (parts.next(), parts.next()) {
            (Some(org), Some(name)) if !org.is_empty() && !name.is_empty() => (org, name),
            _ => return Err(wrong("does not name a repository")),
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let pattern = match parts.next().filter(|p| !p.is_empty()) {
            None => None,
            Some(pattern) => Some(Pattern::new(pattern).map_err(|e| wrong(&format!("holds no pattern: {}", e.msg)))?),
        };
        Ok(Some(Repository {
            from: HubRepo {
                repo: format!("{org}/{name}"),
                revision: revision.into(),
            },
            pattern,
            named,
        }))
    }

    /// The files on this machine, downloaded where they are not in the Hugging Face cache yet.
    ///
    /// # Errors
    /// Other: the hub cannot be reached, and the cache does not hold them. Data: no file matches.
    pub fn files(&self, split: Split, locations: &Locations, progress: &dyn Progress) -> Result<Vec<PathBuf>> {
        let kind = RepoType::Dataset;
        let snapshot = || locations.snapshot(kind, &self.from.repo, &self.from.revision);
        let listed = match &locations.hub {
            Some(hub) => hub::list(locations, hub, kind, &self.from),
            None => Err("HF_HUB_OFFLINE is set".into()),
        };
        let names = match (&listed, snapshot()) {
            (Ok(names), _) => self.chosen(names, split),
            (Err(why), Some(folder)) => {
                progress.note(&format!(
                    "the hub was not asked about {}: {why}; its cache is used",
                    self.named
                ));
                self.chosen(&beneath(&folder), split)
            }
            (Err(why), None) => {
                return Err(
                    Error::other(format!("{} cannot be had: {why}", self.named)).hint(format!(
                        "where there is internet the same command fetches it into {}, which can be copied here",
                        locations.hub_cache.display()
                    )),
                );
            }
        };
        let folders: BTreeSet<&str> = names
            .iter()
            .map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder))
            .collect();
        if self.pattern.is_none() && folders.len() > 1 {
            let folders: Vec<&str> = folders.into_iter().collect();
            return Err(Error::usage(format!(
                "{} has several configurations: {}",
                self.named,
                folders.join(", ")
            ))
            .hint(format!(
                "name one: {}/{}/train-*.parquet",
                self.named.trim_end_matches('/'),
                folders[0]
            )));
        }
        if names.is_empty() {
            return Err(Error::data(format!("no file of the repository matches {}", self.named))
                .hint("name the files by a pattern, such as hf://datasets/ORG/NAME/data/train-*.parquet"));
        }
        let missing: Vec<&str> = (names.iter())
            .filter(|name| !snapshot().is_some_and(|folder| folder.join(name).is_file()))
            .map(String::as_str)
            .collect();
        if let (Some(hub), false) = (&locations.hub, missing.is_empty()) {
            hub::download(locations, hub, kind, &self.from, &missing, progress).map_err(|why| {
                Error::other(format!("{} cannot be downloaded: {why}", self.named))
                    .hint("the same command goes on from here; HF_TOKEN gives access to what is private or gated")
            })?;
        }
        let folder = snapshot().ok_or_else(|| Error::other(format!("{} did not come whole", self.named)))?;
        Ok(names.iter().map(|name| folder.join(name)).collect())
    }

    /// The names that are meant, in order.
    fn chosen(&self, names: &[String], split: Split) -> Vec<String> {
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::default()
        };
        let plain = names.iter().filter(|name| !name.split('/').any(|part| part == ".."));
        let mut out: Vec<String> = match &self.pattern {
            // A file, a pattern, or a folder.
            Some(pattern) => {
                let folder = format!("{}/", pattern.as_str().trim_end_matches('/'));
                let is_meant = |name: &&String| {
                    pattern.matches_with(name, options) || (name.starts_with(&folder) && split.owns(name))
                };
                plain.filter(is_meant).cloned().collect()
            }
            None => plain.filter(|name| split.owns(name)).cloned().collect(),
        };
        out.sort();
        out
    }
}

/// Files below `folder`, by their names in it.
fn beneath(folder: &Path) -> Vec<String> {
    let pattern = format!("{}/**/*", Pattern::escape(&folder.to_string_lossy()));
    let found = glob::glob(&pattern).into_iter().flatten().filter_map(|path| path.ok());
    found
        .filter(|path| path.is_file())
        .filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_string_lossy().into_owned()))
        .collect()
}
