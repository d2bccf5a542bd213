//! What the bundle's files are: `manifest.json`, an in-toto Statement v1 (github.com/in-toto/attestation/blob/main/spec/v1)
//! with SLSA provenance v1 as its predicate (slsa.dev/spec/v1.1/provenance), and `SHA256SUMS`, which covers it.
//!
//! Each file but these two is named by both. A changed byte is found wherever it is: in a file, both disagree with it; in
//! the manifest, `SHA256SUMS` does; in `SHA256SUMS`, it is not what the files make it to be, byte for byte.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::facts::Facts;
use crate::privacy::Guarantee;
use crate::records::LabelSpace;

/// Where the statement stands.
pub const MANIFEST: &str = "manifest.json";
/// Where the sums stand, in the form of `sha256sum`.
pub const SUMS: &str = "SHA256SUMS";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// The statement on files, given by path and SHA-256.
///
/// No time is in it: the same run gives the same bytes. The private dataset is named by a commitment whose salt is not
/// published.
///
/// # Errors
/// A file of label names cannot be read.
pub fn render(facts: &Facts, files: &BTreeMap<String, String>) -> Result<Value> {
    let c = &facts.config;
    let subjects = files
        .iter()
        .map(|(path, hash)| json!({ "name": path, "digest": { "sha256": hash } }));
    let labels: Map<String, Value> = LabelSpace::from_config(&c.dataset.labels)?
        .columns()
        .iter()
        .map(|column| (column.column().to_string(), json!(column.names())))
        .collect();
    let base = &facts.base_model;
    let place = match (&base.repo, &base.revision) {
        (Some(repo), Some(revision)) => format!("https://huggingface.co/{repo}/tree/{revision}"),
        _ => "urn:dpsynth:local-file".into(),
    };
    Ok(json!({
        "_type": STATEMENT,
        "subject": subjects.collect::<Vec<Value>>(),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:dpsynth:release:1",
                "externalParameters": {
                    "config": { "sha256": facts.config_hash },
                    "dataset": {
                        "text": c.dataset.text.written(),
                        "labels": labels,
                        "unit": c.dataset.unit,
                        "public_size": c.dataset.public_size,
                    },
                    "prompt": c.prompt,
                    "prepare": c.prepare,
                    "finetune": c.finetune,
                    "sample": c.sample,
                    "release": c.release,
                },
                "internalParameters": {
                    "guarantee": facts.guarantee,
                    "statement": facts.guarantee.to_string(),
                },
                "resolvedDependencies": [
                    { "name": base.name, "uri": place, "digest": { "sha256": base.sha256 } },
                    {
                        "name": "private dataset",
                        "uri": "urn:dpsynth:private-dataset",
                        "annotations": {
                            "commitment": facts.dataset_commitment,
                            "scheme": "SHA-256 of a salt, which is not published, and the dataset's content hash",
                        },
                    },
                ],
            },
            "runDetails": {
                "builder": { "id": "urn:dpsynth:program", "version": { "dpsynth": facts.program_version } },
                "metadata": { "invocationId": facts.run },
            },
        },
    }))
}

/// What `verify` needs of a manifest.
pub struct Said {
    /// SHA-256 by path.
    pub files: BTreeMap<String, String>,
    pub guarantee: Guarantee,
    /// It in a line.
    pub statement: String,
}

/// Reads what [`render`] wrote; none where it is something else, or names a file twice.
pub fn read(bytes: &[u8]) -> Option<Said> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    (value["_type"] == STATEMENT && value["predicateType"] == PREDICATE).then_some(())?;
    let subjects = value["subject"].as_array()?;
    let mut files = BTreeMap::new();
    for subject in subjects {
        let name = subject["name"].as_str()?.to_string();
        let hash = subject["digest"]["sha256"].as_str()?.to_string();
        files.insert(name, hash).is_none().then_some(())?;
    }
    let parameters = &value["predicate"]["buildDefinition"]["internalParameters"];
    Some(Said {
        files,
        guarantee: serde_json::from_value(parameters["guarantee"].clone()).ok()?,
        statement: parameters["statement"].as_str()?.to_string(),
    })
}

/// `SHA256SUMS` of files, given by path and SHA-256: a line each, by path.
pub fn sums(files: &BTreeMap<String, String>) -> String {
    files.iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect()
}

/// Its lines, the other way round; a line that is none is left out.
pub fn read_sums(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once("  "));
    pairs.map(|(hash, path)| (path.to_string(), hash.to_string())).collect()
}
