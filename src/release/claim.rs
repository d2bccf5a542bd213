//! `privacy.json`: the claim for programs, in the order of NIST SP 800-226 (Near and Darais 2025): the guarantee, the
//! algorithm, the deployment. `templates/privacy.schema.json` is its JSON Schema.

use crate::config::{Clipping, Method, NoiseKind, Optimizer, Update};
use crate::facts::attacks::Attacks;
use crate::facts::wording;
use crate::facts::{BaseModel, CanaryBound, Composed, Facts};
use crate::privacy::Guarantee;
use crate::privacy::class::{Document, leaves};
use crate::{Result, document};

/// What the file says it is.
pub const FORMAT: &str = "dpsynth privacy 4";

/// Its JSON Schema (2020-12).
pub const SCHEMA: &str = include_str!("templates/privacy.schema.json");

document! {
    /// `privacy.json`.
    #[derive(Clone, Debug)]
    pub struct Claim {
        #[serde(rename = "$schema")]
        public schema: String,
        public format: String,
        public run: String,
        public guarantee: Claimed,
        public algorithm: Algorithm,
        public deployment: Deployment,
        public program: Program,
    }
}

document! {
    /// What is guaranteed, and what that means.
    #[derive(Clone, Debug)]
    pub struct Claimed {
        public variant: String,
        public parameters: Guarantee,
        /// They in a line.
        public statement: String,
        public plain: String,
        /// What any attack on membership can do, and in a sentence.
        public attacks: Attacks,
        public attacks_plain: String,
        public neighbours: String,
        public unit: Unit,
        public covers: Vec<String>,
        public declared_public: String,
        /// N as declared.
        public public_size: u64,
        charged composition: Option<Composed>,
    }
}

document! {
    /// The unit of privacy.
    #[derive(Clone, Debug)]
    pub struct Unit {
        public column: Option<String>,
        public max_records: usize,
    }
}

document! {
    /// How it was done.
    #[derive(Clone, Debug)]
    pub struct Algorithm {
        public mechanism: String,
        public optimizer: Optimizer,
        /// What a record shows in a step.
        public update: Update,
        public method: Method,
        public clipping: Clipping,
        public noise: NoiseKind,
        public randomness: String,
        /// Settings, and the guidance that was found from synthetic records.
        post_processing post_processing: Vec<String>,
        public base_model: BaseModel,
        public utility_and_bias: Vec<String>,
    }
}

document! {
    /// Around it.
    #[derive(Clone, Debug)]
    pub struct Deployment {
        public trust_model: String,
        public trust: String,
        public outside: String,
        public access: String,
        /// What was tried on the guarantee without reading a private record.
        post_processing audit: Vec<CanaryBound>,
        /// The gate that private records decide, for a charge; none where none was declared.
        charged copy_gate: Option<Gate>,
        public withheld: String,
        public contamination: String,
    }
}

document! {
    /// A limit on phrases that private records share with synthetic ones.
    #[derive(Clone, Debug)]
    pub struct Gate {
        /// Of the count, a part of the guarantee's.
        public epsilon: f64,
        /// Units that share so many words in a row with a record were counted.
        public shared_words: usize,
        /// With exact discrete Laplace noise.
        charged noisy_matched_units: i64,
        /// At most so many let the records through.
        public tolerated_units: u64,
    }
}

document! {
    /// What made it.
    #[derive(Clone, Debug)]
    pub struct Program {
        public name: String,
        public version: String,
    }
}

const _: () = assert!(leaves(Claim::FIELDS) && leaves(Claimed::FIELDS) && leaves(Unit::FIELDS));
const _: () = assert!(leaves(Algorithm::FIELDS) && leaves(Deployment::FIELDS) && leaves(Program::FIELDS));
const _: () = assert!(leaves(Gate::FIELDS));

impl Gate {
    fn of(facts: &Facts) -> Option<Self> {
        let (declared, counted) = (facts.config.release.copy_gate?, facts.copy_gate.as_ref()?);
        Some(Gate {
            epsilon: declared.epsilon,
            shared_words: counted.shared_words,
            noisy_matched_units: counted.noisy_matched_units,
            tolerated_units: declared.tolerated_units,
        })
    }
}

/// What the guarantee covers.
pub const COVERS: [&str; 4] = [
    "the trained model",
    "the lexicon, its scorers, and the noisy counts of labels and of the copy gate, where they are planned",
    "the synthetic records",
    "whatever is computed from these and public values",
];

/// Which kind of guarantee it is.
pub const VARIANT: &str = "approximate differential privacy";

/// Where randomness comes from.
pub const RANDOMNESS: &str = "ChaCha20, keyed by the operating system for every step and purpose; keys are not kept";

impl Claim {
    /// Of plans, settings, charged counts, canaries and the guidance that was found.
    ///
    /// # Errors
    /// Data: a guarantee that cannot be accounted for.
    pub fn of(facts: &Facts) -> Result<Self> {
        let attacks = facts.attacks()?.clone();
        let (f, d) = (&facts.config.finetune, &facts.config.dataset);
        Ok(Claim {
            schema: "privacy.schema.json".into(),
            format: FORMAT.into(),
            run: facts.run.clone(),
            guarantee: Claimed {
                variant: VARIANT.into(),
                parameters: facts.guarantee.clone(),
                statement: facts.guarantee.to_string(),
                plain: wording::plain("This dataset", &facts.unit(), &facts.guarantee),
                attacks_plain: wording::attacks(&attacks, &facts.unit()),
                attacks,
                neighbours: wording::neighbours(&facts.unit()),
                unit: Unit {
                    column: d.unit.as_ref().map(|u| u.column.clone()),
                    max_records: d.max_records_per_unit(),
                },
                covers: COVERS.map(String::from).into(),
                declared_public: wording::declared(facts.config.dataset.public_size, &facts.guarantee),
                public_size: d.public_size,
                composition: facts.composed.clone(),
            },
            algorithm: Algorithm {
                mechanism: (facts.guarantee.training()).map_or("?".into(), |training| training.mechanism.clone()),
                optimizer: f.optimizer,
                update: f.update,
                method: f.method,
                clipping: f.clipping,
                noise: f.noise,
                randomness: RANDOMNESS.into(),
                post_processing: wording::making(facts),
                base_model: facts.base_model.clone(),
                utility_and_bias: wording::limits(facts),
            },
            deployment: Deployment {
                trust_model: "central".into(),
                trust: wording::TRUST.into(),
                outside: wording::OUTSIDE.into(),
                access: "non-interactive".into(),
                audit: facts.canaries.clone(),
                copy_gate: Gate::of(facts),
                withheld: wording::WITHHELD.into(),
                contamination: wording::CONTAMINATION.into(),
            },
            program: Program {
                name: "dpsynth".into(),
                version: facts.program_version.into(),
            },
        })
    }

    /// Reads a bundle's.
    ///
    /// # Errors
    /// Why it is none that this version of the program makes.
    pub fn read(bytes: &[u8]) -> std::result::Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: String,
        }
        // First: what another version of the program wrote says other things.
        let Format { format } = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if format != FORMAT {
            return Err(format!("its format is not `{FORMAT}`"));
        }
        let mut unknown = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let claim: Claim =
            serde_ignored::deserialize(&mut json, |key| unknown.push(key.to_string())).map_err(|e| e.to_string())?;
        // A key that is there twice, or a number that reads otherwise elsewhere, is not how this program writes it.
        let text = serde_json::to_string_pretty(&claim).map_err(|e| e.to_string())?;
        match unknown.is_empty() {
            true if bytes.trim_ascii_end() != text.as_bytes() => {
                Err("it is not written as this program writes it".into())
            }
            true => Ok(claim),
            false => Err(format!("says `{}`, which this program does not", unknown.join("`, `"))),
        }
    }
}
