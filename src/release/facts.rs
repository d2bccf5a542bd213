//! What is public about a run.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::salt::Salt;
use crate::Result;
use crate::assets::Registry;
use crate::config::RunConfig;
use crate::pipeline::RunPaths;
use crate::pipeline::files::read_json;
use crate::pipeline::prepare::Preparation;
use crate::pipeline::stamp;
use crate::privacy::accountant::Adjacency;
use crate::privacy::{LedgerView, sentence};
use crate::sampling::shards;

/// Everything that a release can be made of: declared before any record was read, charged, or computed from that.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `<name>-<profile>`.
    pub run: String,
    /// Every setting. It names files of the machine that trained: publish values of it, never the whole.
    pub config: RunConfig,
    /// SHA-256 of the resolved configuration.
    pub config_hash: String,
    /// What was trained is this private: epsilon with everything without which it means nothing (P10).
    pub guarantee: Map<String, Value>,
    pub base_model: BaseModel,
    /// A commitment to the private dataset: SHA-256 of a random salt, which stays in the run's folder, and the dataset's
    /// content hash. Bare, that hash would tell anyone who knows all records but one whether a guess is right.
    pub dataset_commitment: String,
    /// What all runs on the dataset have spent; none where its ledger cannot be read.
    pub composed: Option<Composed>,
    /// What came of drawing the synthetic records, and the zero-shot ones: reads those alone.
    pub synthetic: Value,
    pub zero_shot: Value,
    /// The shards of synthetic and of zero-shot records, in order.
    pub shards: Vec<PathBuf>,
    pub zero_shot_shards: Vec<PathBuf>,
    /// What was trained: an adapter, or all weights.
    pub trained: PathBuf,
    pub program_version: &'static str,
}

/// The model that was fine-tuned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BaseModel {
    /// Its name in `pipelines/assets.toml`; `local` where a file was named instead.
    pub name: String,
    /// `owner/repository` on the Hugging Face hub, and revision; none of a local file.
    pub repo: Option<String>,
    pub revision: Option<String>,
    /// SPDX identifier in lower case, or `other`; none of a local file.
    pub license: Option<String>,
    /// Of the file that was trained on.
    pub sha256: String,
}

/// All runs on the dataset together, at the ledger's delta. It follows from plans and steps, not from records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Composed {
    pub epsilon: f64,
    pub delta: f64,
    pub adjacency: &'static str,
    pub unit: String,
    pub sampler: String,
    pub accountant: &'static str,
    /// Private ones.
    pub runs: usize,
    /// Runs with a fixed seed: no epsilon covers them, and they may not leave.
    pub not_private: usize,
}

impl Composed {
    fn of(ledger: &LedgerView) -> Result<Self> {
        let runs = ledger.runs.iter().filter(|r| r.parameters.private).count();
        Ok(Composed {
            epsilon: ledger.charged_epsilon()?,
            delta: ledger.delta,
            adjacency: Adjacency::AddOrRemoveOne.name(),
            unit: ledger.unit.clone(),
            sampler: ledger.sampler(),
            accountant: "pld",
            runs,
            not_private: ledger.runs.len() - runs,
        })
    }
}

impl Facts {
    /// Of the run in `folder`, which is trained and sampled.
    ///
    /// # Errors
    /// Data: a file of the run is damaged. Other: one cannot be read.
    pub(super) fn read(
        folder: &RunPaths,
        config: &RunConfig,
        ledger: Option<&LedgerView>,
        salt: &Salt,
    ) -> Result<Self> {
        let preparation = Preparation::read(folder)?;
        let sampled = |arm: &str| -> Result<Value> {
            let path = folder.sampled(arm);
            // Runs of earlier versions of the program have none.
            if path.exists() {
                read_json(&path)
            } else {
                Ok(Value::Null)
            }
        };
        Ok(Facts {
            run: folder.name().to_string(),
            config: config.clone(),
            config_hash: stamp::sha256(stamp::text(config).as_bytes()),
            guarantee: read_json(&folder.guarantee())?,
            base_model: BaseModel::of(config, preparation.model_sha256),
            dataset_commitment: salt.commitment(&preparation.dataset_hash),
            composed: ledger.map(Composed::of).transpose()?,
            synthetic: sampled("synthetic")?,
            zero_shot: sampled("zero_shot")?,
            shards: shards::files(&folder.shards("synthetic"))?,
            zero_shot_shards: shards::files(&folder.shards("zero_shot"))?,
            trained: folder.trained(),
            program_version: env!("CARGO_PKG_VERSION"),
        })
    }

    /// The guarantee in a line (P10).
    pub fn sentence(&self) -> String {
        sentence(&self.guarantee)
    }

    /// A number of the guarantee, such as `epsilon`; NaN where it has none.
    pub fn number(&self, key: &str) -> f64 {
        self.guarantee.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// A text of the guarantee, such as `adjacency`; `?` where it has none.
    pub fn text(&self, key: &str) -> &str {
        self.guarantee.get(key).and_then(Value::as_str).unwrap_or("?")
    }
}

impl BaseModel {
    fn of(config: &RunConfig, sha256: String) -> Self {
        if config.model.path.is_some() {
            return BaseModel {
                name: "local".into(),
                repo: None,
                revision: None,
                license: None,
                sha256,
            };
        }
        let (registry, name) = (Registry::built_in(), &config.model.asset);
        let hub = registry.hub(name);
        BaseModel {
            repo: hub.map(|(repo, _)| repo.to_string()),
            revision: hub.map(|(_, revision)| revision.to_string()),
            license: registry.license(name).map(str::to_string),
            name: name.clone(),
            sha256,
        }
    }
}
