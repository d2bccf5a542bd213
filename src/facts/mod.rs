//! What is public about a run, and the words for it: what a release and the public page are made of.

pub mod attacks;
pub mod salt;
pub mod wording;

use std::path::PathBuf;

use crate::assets::Registry;
use crate::config::RunConfig;
use crate::document;
use crate::documents::{self, GateCount, Lexicon, Sampled};
use crate::privacy::accountant::Adjacency;
use crate::privacy::class::{Document, leaves};
use crate::privacy::{Guarantee, LedgerView, Unit};
use crate::run::stamp;
use crate::run::{self, Preparation};
use crate::run::{RunPaths, lexicon_of};
use crate::sampling::shards;
use crate::{Error, Result};
use attacks::Attacks;
use salt::Salt;

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
    pub guarantee: Guarantee,
    /// What any attack on membership can do; none of a guarantee that cannot be accounted for.
    pub attacks: Option<Attacks>,
    pub base_model: BaseModel,
    /// A commitment to the private dataset: SHA-256 of a random salt, which stays in the run's folder, and the dataset's
    /// content hash. Bare, that hash would tell anyone who knows all records but one whether a guess is right.
    pub dataset_commitment: String,
    /// What all runs on the dataset have spent; none where its ledger cannot be read.
    pub composed: Option<Composed>,
    /// How many synthetic records, and zero-shot ones, were drawn and kept; none of a run of an earlier version.
    pub synthetic: Option<Sampled>,
    pub zero_shot: Option<Sampled>,
    /// Bounds that an audit's canaries gave; empty where none is looked at yet.
    pub canaries: Vec<CanaryBound>,
    /// Tokens by label, counted with noise; none where none were planned.
    pub lexicon: Option<Lexicon>,
    /// Whether tokens of the domain were lifted when records were drawn.
    pub lifted_to_domain: bool,
    /// What the copy gate counted; none where none was declared, or it has not counted yet.
    pub copy_gate: Option<GateCount>,
    /// Keys in the run's files that nobody has classified (P9), each with its file.
    pub unclassified: Vec<String>,
    /// The shards of synthetic and of zero-shot records, in order.
    pub shards: Vec<PathBuf>,
    pub zero_shot_shards: Vec<PathBuf>,
    /// What was trained: an adapter, or all weights.
    pub trained: PathBuf,
    pub program_version: &'static str,
}

document! {
    /// The model that was fine-tuned.
    #[derive(Clone, Debug, PartialEq)]
    pub struct BaseModel {
        /// Its name in `pipelines/assets.toml`; `local` where a file was named instead.
        public name: String,
        /// `owner/repository` on the Hugging Face hub, and revision; none of a local file.
        public repo: Option<String>,
        public revision: Option<String>,
        /// SPDX identifier in lower case, or `other`; none of a local file.
        public license: Option<String>,
        /// Of the file that was trained on.
        public sha256: String,
    }
}

document! {
    /// A bound that an audit's canaries gave: made-up records of nobody, in or out by a coin. No private record was read.
    #[derive(Clone, Debug, PartialEq)]
    pub struct CanaryBound {
        public attack: String,
        /// At the guarantee's delta.
        post_processing epsilon_lower: f64,
        /// Of all bounds together.
        public confidence: f64,
        /// What it takes for granted.
        public rests_on: String,
    }
}

document! {
    /// All runs in the dataset's ledger together, at the ledger's delta. Which runs are in it depends on the rows, units and
    /// files that datasets share; the rest follows from plans and steps.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Composed {
        /// The population whose datasets share the ledger; none where it is one dataset's.
        public population: Option<String>,
        /// Whether the dataset was declared to share nobody with another.
        public declared_disjoint: bool,
        /// Whether another dataset, which shares rows with it, was declared to share nobody with it.
        public declared_apart: bool,
        public epsilon: f64,
        /// The same where later runs were chosen after seeing what earlier ones gave; none where there are not two.
        public epsilon_if_adaptive: Option<f64>,
        public delta: f64,
        public adjacency: String,
        public unit: String,
        public sampler: String,
        public accountant: String,
        /// Private ones.
        public runs: usize,
        /// Runs with a fixed seed: no epsilon covers them, and they may not leave.
        public not_private: usize,
        /// Runs for research: a mechanism of theirs has no proof, so the sum is NOT A DP GUARANTEE (P11).
        public research: usize,
    }
}

const _: () = assert!(leaves(CanaryBound::FIELDS) && leaves(BaseModel::FIELDS) && leaves(Composed::FIELDS));

impl Composed {
    fn of(ledger: &LedgerView, population: Option<String>) -> Result<Self> {
        let charged = ledger.runs.iter().filter(|r| r.has_charged());
        let runs = charged.clone().filter(|r| r.parameters.private).count();
        Ok(Composed {
            population,
            declared_disjoint: ledger.runs.iter().any(|run| run.disjoint),
            declared_apart: !ledger.apart.is_empty(),
            epsilon: ledger.charged_epsilon()?,
            epsilon_if_adaptive: ledger.epsilon_if_adaptive()?,
            delta: ledger.delta,
            adjacency: Adjacency::AddOrRemoveOne.name().into(),
            unit: ledger.unit.clone(),
            sampler: ledger.sampler(),
            accountant: "pld".into(),
            runs,
            not_private: charged.count() - runs,
            research: ledger.research().count(),
        })
    }
}

impl Facts {
    /// Of the run in `folder`, which is trained and sampled.
    ///
    /// # Errors
    /// Data: a file of the run is damaged. Other: one cannot be read.
    pub fn read(folder: &RunPaths, config: &RunConfig, ledger: Option<&LedgerView>, salt: &Salt) -> Result<Self> {
        let preparation = Preparation::read(folder)?;
        let mut unclassified = Vec::new();
        let mut note = |file: &str, keys: Vec<String>| {
            unclassified.extend(keys.iter().map(|key| format!("{file}: `{key}`")));
        };
        let (guarantee, unknown) = documents::look_at_guarantee(&folder.guarantee())?;
        note("model/privacy.json", unknown);
        let mut sampled = |arm: &str| -> Result<Option<Sampled>> {
            let path = folder.sampled(arm);
            // Runs of earlier versions of the program have none.
            if !path.exists() {
                return Ok(None);
            }
            let (sampled, unknown) = documents::look(&path)?;
            note(&format!("sampling/{arm}.json"), unknown);
            Ok(Some(sampled))
        };
        let (synthetic, zero_shot) = (sampled("synthetic")?, sampled("zero_shot")?);
        let copy_gate = match folder.copy_gate().exists() {
            true => {
                let (gate, unknown) = documents::look(&folder.copy_gate())?;
                note("sampling/copy_gate.json", unknown);
                Some(gate)
            }
            false => None,
        };
        Ok(Facts {
            run: folder.name().to_string(),
            config: config.clone(),
            config_hash: stamp::sha256(stamp::text(config).as_bytes()),
            attacks: (guarantee.phases().ok()).and_then(|phases| Attacks::of(&phases, Adjacency::AddOrRemoveOne).ok()),
            guarantee,
            base_model: BaseModel::of(config, preparation.model_sha256),
            dataset_commitment: salt.commitment(&preparation.dataset_hash),
            composed: ledger
                .map(|ledger| Composed::of(ledger, preparation.population.clone()))
                .transpose()?,
            synthetic,
            zero_shot,
            canaries: Vec::new(),
            lexicon: lexicon_of(folder, config)?,
            lifted_to_domain: folder.domain().exists(),
            copy_gate,
            unclassified,
            shards: shards::files(&folder.shards("synthetic"))?,
            zero_shot_shards: shards::files(&folder.shards("zero_shot"))?,
            trained: folder.trained(),
            program_version: env!("CARGO_PKG_VERSION"),
        })
    }
}

impl Facts {
    /// What any attack on membership can do.
    ///
    /// # Errors
    /// Data: the guarantee cannot be accounted for.
    pub fn attacks(&self) -> Result<&Attacks> {
        self.attacks.as_ref().ok_or_else(|| {
            Error::data("the guarantee's numbers cannot be accounted for")
                .hint("put back the run's own model/privacy.json")
        })
    }

    /// Who is protected.
    pub fn unit(&self) -> Unit {
        run::unit(&self.config)
    }

    /// The dataset's name for people.
    pub fn title(&self) -> String {
        self.config
            .release
            .pretty_name
            .clone()
            .unwrap_or_else(|| self.run.clone())
    }

    /// What the records are, in a sentence or two.
    pub fn description(&self) -> String {
        let synthetic = "Synthetic labelled texts, written by a language model that was fine-tuned on private records under differential privacy. The private records are not part of it.";
        match &self.config.release.description {
            Some(said) => format!("{said} {synthetic}"),
            None => synthetic.into(),
        }
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
        if let Some(named) = &config.model.repo {
            let (repo, revision) = named.split_once('@').unwrap_or((named, "main"));
            return BaseModel {
                name: repo.into(),
                repo: Some(repo.into()),
                revision: Some(revision.into()),
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
