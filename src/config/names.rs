//! How a model is named: a path, a repository on the Hugging Face hub, or an asset of this program.

use std::path::PathBuf;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `./folder`, `/models/x`, `~/x`, `x.gguf`.
    Path(PathBuf),
    /// `ORG/NAME`, or `ORG/NAME@REVISION`.
    Repository(String),
    /// A name in `pipelines/assets.toml`.
    Asset(String),
}

/// Names that people know from before the hub's repositories had owners.
const OLD: [(&str, &str); 12] = [
    ("bert-base-cased", "google-bert/bert-base-cased"),
    ("bert-base-uncased", "google-bert/bert-base-uncased"),
    ("bert-large-uncased", "google-bert/bert-large-uncased"),
    ("distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
    ("distilgpt2", "distilbert/distilgpt2"),
    ("distilroberta-base", "distilbert/distilroberta-base"),
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("roberta-base", "FacebookAI/roberta-base"),
    ("roberta-large", "FacebookAI/roberta-large"),
];

impl Named {
    /// What may be said of it elsewhere: a path is the machine's.
    pub fn public(&self) -> &str {
        match self {
            Named::Path(_) => "local",
            Named::Repository(name) | Named::Asset(name) => name,
        }
    }

    /// What `name` means.
    pub fn of(name: &str) -> Self {
        let (bare, revision) = name.split_once('@').map_or((name, None), |(bare, r)| (bare, Some(r)));
        match OLD.iter().find(|(old, _)| *old == bare) {
            _ if name.starts_with(['.', '/', '~']) || name.ends_with(".gguf") => Named::Path(name.into()),
            Some((_, repo)) => Named::Repository(match revision {
                Some(revision) => format!("{repo}@{revision}"),
                None => (*repo).to_string(),
            }),
            None if name.contains('/') => Named::Repository(name.into()),
            None => Named::Asset(name.into()),
        }
    }
}
