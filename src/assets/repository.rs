//! Repositories on the Hugging Face hub: files of a dataset, `hf://datasets/ORG/NAME/PATTERN`, at a revision `NAME@REVISION`, and
//! language models, `ORG/NAME`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use hf_hub::RepoType;

use super::fetch::Place;
use super::locations::Locations;
use super::registry::HubRepo;
use super::{BESIDE, CHECKPOINT, ENCODER_FILES, hub};
use crate::models::load::hub::{INDEX, WHOLE, weight_files};
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

    /// The language model of a repository, `ORG/NAME` or `ORG/NAME@REVISION`: its checkpoint, else its only GGUF. Downloaded where it
    /// is not in the Hugging Face cache yet.
    ///
    /// # Errors
    /// Usage: no repository's name, or several GGUFs and no checkpoint. Other: the hub cannot be reached, and the cache does not
    /// hold the model.
    pub fn language_model(named: &str, locations: &Locations, progress: &dyn Progress) -> Result<(Place, PathBuf)> {
        let (kind, from) = (RepoType::Model, parts(named)?);
        // What the cache holds whole is not asked for again.
        if let Some(there) = Repository::language_model_on_disk(named, locations)? {
            return Ok((Place::HubCache, there));
        }
        let nowhere = |why: &str| nowhere(named, why, locations);
        let hub = locations.hub.as_ref().ok_or_else(|| nowhere("HF_HUB_OFFLINE is set"))?;
        let names = hub::list(locations, hub, kind, &from).map_err(|why| nowhere(&why))?;
        let model = model_among(named, &names)?.ok_or_else(|| {
            Error::data(format!("the repository {named} holds no language model"))
                .hint("it needs config.json, tokenizer.json, tokenizer_config.json and safetensors, or a GGUF")
        })?;
        let folder = fetched(named, &model.files, locations, progress)?;
        Ok((Place::Hub, folder.join(model.at)))
    }

    /// The encoder of a repository: `config.json`, `tokenizer.json` and `model.safetensors`. Downloaded where it is not in the
    /// Hugging Face cache yet.
    ///
    /// # Errors
    /// As [`Repository::language_model`].
    pub fn encoder(named: &str, locations: &Locations, progress: &dyn Progress) -> Result<(Place, PathBuf)> {
        if let Some(there) = Repository::encoder_on_disk(named, locations)? {
            return Ok((Place::HubCache, there));
        }
        let files = ENCODER_FILES.map(String::from);
        Ok((Place::Hub, fetched(named, &files, locations, progress)?))
    }

    /// The same where the Hugging Face cache holds it whole.
    ///
    /// # Errors
    /// Usage: no repository's name.
    pub fn encoder_on_disk(named: &str, locations: &Locations) -> Result<Option<PathBuf>> {
        let from = parts(named)?;
        let folder = locations.snapshot(RepoType::Model, &from.repo, &from.revision);
        Ok(folder.filter(|folder| ENCODER_FILES.iter().all(|name| folder.join(name).is_file())))
    }

    /// The same where the Hugging Face cache holds it whole.
    ///
    /// # Errors
    /// Usage: no repository's name, or several GGUFs and no checkpoint.
    pub fn language_model_on_disk(named: &str, locations: &Locations) -> Result<Option<PathBuf>> {
        let from = parts(named)?;
        let Some(folder) = locations.snapshot(RepoType::Model, &from.repo, &from.revision) else {
            return Ok(None);
        };
        let found = model_among(named, &beneath(&folder))?.filter(|model| model.is_whole(&folder));
        Ok(found.map(|model| folder.join(model.at)))
    }

    /// `config.json` of a repository's language model, out of the Hugging Face cache or from the hub; none where it is in
    /// neither, or the hub does not answer.
    ///
    /// # Errors
    /// Usage: no repository's name.
    pub fn declared(named: &str, locations: &Locations, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        const CONFIG: &str = "config.json";
        let (kind, from) = (RepoType::Model, parts(named)?);
        let there = || {
            let folder = locations.snapshot(kind, &from.repo, &from.revision)?;
            Some(folder.join(CONFIG)).filter(|path| path.is_file())
        };
        if let (None, Some(hub)) = (there(), &locations.hub)
            && let Err(why) = hub::download(locations, hub, kind, &from, &[CONFIG], progress)
        {
            progress.note(&format!("the hub gave no config.json of {named}: {why}"));
        }
        Ok(there())
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

fn nowhere(named: &str, why: &str, locations: &Locations) -> Error {
    Error::other(format!("the model {named} cannot be had: {why}")).hint(format!(
        "HF_TOKEN gives access to what is private or gated, once its terms are accepted on the hub; where there is internet `dpsynth run` with the same model fetches it into {}, which can be copied here",
        locations.hub_cache.display()
    ))
}

/// The folder of a model's repository in the Hugging Face cache, with these files in it.
fn fetched(named: &str, files: &[String], locations: &Locations, progress: &dyn Progress) -> Result<PathBuf> {
    let (kind, from) = (RepoType::Model, parts(named)?);
    let snapshot = || locations.snapshot(kind, &from.repo, &from.revision);
    let nowhere = |why: &str| nowhere(named, why, locations);
    let hub = locations.hub.as_ref().ok_or_else(|| nowhere("HF_HUB_OFFLINE is set"))?;
    let missing: Vec<&str> = (files.iter())
        .filter(|name| !snapshot().is_some_and(|folder| folder.join(name).is_file()))
        .map(String::as_str)
        .collect();
    hub::download(locations, hub, kind, &from, &missing, progress).map_err(|why| nowhere(&why))?;
    snapshot().ok_or_else(|| nowhere("it did not come whole"))
}

/// A model's repository by its name, `ORG/NAME` or `ORG/NAME@REVISION`.
///
/// # Errors
/// Usage: it is none.
pub(super) fn parts(named: &str) -> Result<HubRepo> {
    let (repo, revision) = named.split_once('@').unwrap_or((named, "main"));
    let both: Vec<&str> = repo.split('/').collect();
    match both[..] {
        [org, name] if ![org, name, revision].contains(&"") => Ok(HubRepo {
            repo: repo.into(),
            revision: revision.into(),
        }),
        _ => Err(Error::usage(format!("`{named}` does not name a repository"))
            .hint("model = \"ORG/NAME\" does, \"./folder\" and \"file.gguf\" name files")),
    }
}

/// The files of a model among those of a repository, and where among them it is: a file, or the folder.
struct Model {
    files: Vec<String>,
    at: String,
}

impl Model {
    /// Whether all weights that a checkpoint's index names are there.
    fn is_whole(&self, folder: &Path) -> bool {
        !self.at.is_empty() || weight_files(folder).is_ok_and(|files| files.iter().all(|f| folder.join(f).is_file()))
    }
}

/// None where there is none.
fn model_among(named: &str, names: &[String]) -> Result<Option<Model>> {
    let is_there = |name: &&&str| names.iter().any(|own| own == **name);
    let gguf = |name: &&String| name.ends_with(".gguf") && !name.split('/').any(|part| part == "..");
    // An index may name them as it likes; which of them it names is seen once it is here.
    let weights = |name: &&String| (name.ends_with(".safetensors") && !name.contains('/')) || *name == INDEX;
    if CHECKPOINT.iter().all(|name| is_there(&name)) && names.iter().any(|name| weights(&name)) {
        let described = CHECKPOINT.iter().chain(&BESIDE).filter(is_there);
        let described = described.map(|name| (*name).to_string());
        let whole = names.iter().any(|name| name == WHOLE);
        let weights = names.iter().filter(weights).filter(|name| !whole || *name == WHOLE);
        return Ok(Some(Model {
            files: described.chain(weights.cloned()).collect(),
            at: String::new(),
        }));
    }
    let ggufs: Vec<&String> = names.iter().filter(gguf).collect();
    match ggufs[..] {
        [] => Ok(None),
        [one] => Ok(Some(Model {
            files: vec![one.clone()],
            at: one.clone(),
        })),
        [first, ..] => Err(
            Error::usage(format!("the repository {named} holds {} GGUFs", ggufs.len())).hint(format!(
                "download one, such as {first}, and name it: model = {{ gguf = \"FILE\" }}"
            )),
        ),
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
