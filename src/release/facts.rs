//! What is public about a run.

use std::path::{Path, PathBuf};

use rand::RngExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::assets::{Registry, hex};
use crate::config::RunConfig;
use crate::pipeline::RunPaths;
use crate::pipeline::files::{read_json, write_atomically};
use crate::pipeline::prepare::Preparation;
use crate::pipeline::stamp;
use crate::privacy::LedgerView;
use crate::sampling::shards;
use crate::{Error, Result};

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
/// Adjacency, unit, sampler and accountant are those of the run's own guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Composed {
    pub epsilon: f64,
    pub delta: f64,
    /// Private ones: a run with a fixed seed is covered by no epsilon, and may not leave.
    pub runs: usize,
}

impl Facts {
    /// Of the run in `folder`, which is trained and sampled.
    ///
    /// # Errors
    /// Data: a file of the run is damaged. Other: one cannot be read, or the salt cannot be written.
    pub(super) fn read(folder: &RunPaths, config: &RunConfig, ledger: Option<&LedgerView>) -> Result<Self> {
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
        let composed = ledger.map(|view| -> Result<Composed> {
            Ok(Composed {
                epsilon: view.charged_epsilon()?,
                delta: view.delta,
                runs: view.runs.iter().filter(|r| r.parameters.private).count(),
            })
        });
        Ok(Facts {
            run: folder.name().to_string(),
            config: config.clone(),
            config_hash: stamp::sha256(stamp::text(config).as_bytes()),
            guarantee: read_json(&folder.guarantee())?,
            base_model: BaseModel::of(config, preparation.model_sha256),
            dataset_commitment: commitment(&folder.internal("commitment-salt"), &preparation.dataset_hash)?,
            composed: composed.transpose()?,
            synthetic: sampled("synthetic")?,
            zero_shot: sampled("zero_shot")?,
            shards: shards::files(&folder.shards("synthetic"))?,
            zero_shot_shards: shards::files(&folder.shards("zero_shot"))?,
            trained: folder.trained(),
            program_version: env!("CARGO_PKG_VERSION"),
        })
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

/// The same for the same run: its salt is drawn once and kept in `path`.
fn commitment(path: &Path, dataset_hash: &str) -> Result<String> {
    let salt = match std::fs::read_to_string(path) {
        Ok(salt) => salt,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let salt = hex(&rand::rng().random::<[u8; 32]>());
            write_atomically(path, salt.as_bytes())?;
            salt
        }
        Err(e) => return Err(Error::io("read", path, e)),
    };
    Ok(stamp::sha256(
        format!("dpsynth dataset\n{}\n{dataset_hash}", salt.trim()).as_bytes(),
    ))
}
