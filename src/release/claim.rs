//! `privacy.json`: the claim for programs, in the order of NIST SP 800-226 (Near and Darais 2025): the guarantee, the
//! algorithm, the deployment. `templates/privacy.schema.json` is its JSON Schema.

use serde_json::{Map, Value, json};

use super::facts::Facts;
use super::wording;

/// What the file says it is.
pub const FORMAT: &str = "dpsynth privacy 2";

/// Its JSON Schema (2020-12).
pub const SCHEMA: &str = include_str!("templates/privacy.schema.json");

/// The claim: of plans and settings alone.
pub fn render(facts: &Facts) -> Value {
    let (f, d) = (&facts.config.finetune, &facts.config.dataset);
    json!({
        "$schema": "privacy.schema.json",
        "format": FORMAT,
        "run": facts.run,
        "guarantee": {
            "variant": "approximate differential privacy",
            "parameters": facts.guarantee,
            "statement": facts.sentence(),
            "plain": wording::plain("This dataset", facts),
            "neighbours": wording::neighbours(facts),
            "unit": {
                "column": d.unit.as_ref().map(|u| &u.column),
                "max_records": d.max_records_per_unit(),
            },
            "covers": ["the trained model", "the synthetic records", "whatever is computed from these and public values"],
            "declared_public": wording::declared(facts),
            "public_size": d.public_size,
            "composition": &facts.composed,
        },
        "algorithm": {
            "mechanism": facts.text("mechanism"),
            "optimizer": f.optimizer,
            "method": f.method,
            "clipping": f.clipping,
            "noise": f.noise,
            "randomness": "ChaCha20, keyed by the operating system for every step and purpose; keys are not kept",
            "post_processing": wording::making(facts),
            "base_model": facts.base_model,
            "utility_and_bias": wording::limits(facts),
        },
        "deployment": {
            "trust_model": "central",
            "trust": wording::TRUST,
            "outside": wording::OUTSIDE,
            "access": "non-interactive",
            "audit": "passed: no attack refuted the guarantee; its numbers read private records and are withheld",
            "memorisation": format!(
                "checked: no synthetic or zero-shot record shares {} words or more in a row with a training record",
                facts.config.evaluate.quality.shared_words
            ),
            "withheld": wording::WITHHELD,
            "contamination": wording::CONTAMINATION,
        },
        "program": { "name": "dpsynth", "version": facts.program_version },
    })
}

/// What `verify` needs of it.
pub struct Said {
    pub guarantee: Map<String, Value>,
    /// It in a line.
    pub statement: String,
    pub run: String,
    pub base_model: String,
    /// N as declared.
    pub public_size: Option<u64>,
}

/// Reads what [`render`] wrote; none where it is something else.
pub fn read(bytes: &[u8]) -> Option<Said> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    (value["format"] == FORMAT).then_some(())?;
    Some(Said {
        guarantee: value["guarantee"]["parameters"].as_object()?.clone(),
        statement: value["guarantee"]["statement"].as_str()?.to_string(),
        run: value["run"].as_str()?.to_string(),
        base_model: value["algorithm"]["base_model"]["name"].as_str()?.to_string(),
        public_size: value["guarantee"]["public_size"].as_u64(),
    })
}
