//! `[model]`: which language model is fine-tuned.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::Named;

/// Which language model is fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Declared")]
pub struct ModelConfig {
    /// Name of a model in `pipelines/assets.toml`.
    pub asset: String,
    /// A GGUF, or the folder of a Hugging Face checkpoint, that is used instead; its sha256 is recorded, not checked.
    pub path: Option<PathBuf>,
    /// A repository on the Hugging Face hub that is used instead, `ORG/NAME` or `ORG/NAME@REVISION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            asset: "smollm2-135m-instruct".into(),
            path: None,
            repo: None,
        }
    }
}

impl ModelConfig {
    /// What a person calls it.
    pub fn name(&self) -> String {
        match (&self.path, &self.repo) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(repo)) => repo.clone(),
            (None, None) => self.asset.clone(),
        }
    }

    /// What may be said of it elsewhere: a path is the machine's.
    pub fn public_name(&self) -> String {
        match &self.path {
            Some(_) => "local".into(),
            None => self.name(),
        }
    }
}

/// `[model]` as it is written: its keys, or one text that says which of them is meant.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a model's name, path or repository, or a table such as { path = \"model.gguf\" }"
)]
enum Declared {
    Named(String),
    Keys(Keys),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    asset: Option<String>,
    #[serde(alias = "gguf")]
    path: Option<PathBuf>,
    repo: Option<String>,
}

impl From<Declared> for ModelConfig {
    fn from(declared: Declared) -> Self {
        let none = ModelConfig::default();
        match declared {
            Declared::Keys(keys) => ModelConfig {
                asset: keys.asset.unwrap_or(none.asset),
                path: keys.path,
                repo: keys.repo,
            },
            Declared::Named(named) => match Named::of(&named) {
                Named::Path(path) => ModelConfig {
                    path: Some(path),
                    ..none
                },
                Named::Repository(repo) => ModelConfig {
                    repo: Some(repo),
                    ..none
                },
                Named::Asset(asset) => ModelConfig { asset, ..none },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_which_model_is_meant() {
        let model = |toml: &str| -> ModelConfig {
            let table: toml::Table = toml::from_str(toml).expect("TOML");
            table["model"].clone().try_into().expect("a model")
        };
        let own = |path: &str| ModelConfig {
            path: Some(path.into()),
            ..ModelConfig::default()
        };
        assert_eq!(model("model = './folder'"), own("./folder"));
        assert_eq!(model("model = 'models/x.gguf'"), own("models/x.gguf"));
        assert_eq!(model("model = { gguf = 'x.gguf' }"), own("x.gguf"));
        assert_eq!(model("[model]\npath = 'x'"), own("x"));
        assert_eq!(
            model("model = 'Qwen/Qwen3-0.6B'").repo.as_deref(),
            Some("Qwen/Qwen3-0.6B")
        );
        assert_eq!(model("model = 'gemma-3-270m'").asset, "gemma-3-270m");
        assert_eq!(model("model = 'gpt2'").repo.as_deref(), Some("openai-community/gpt2"));
        assert_eq!(
            model("model = 'gpt2@607a30d'").repo.as_deref(),
            Some("openai-community/gpt2@607a30d")
        );
    }
}
