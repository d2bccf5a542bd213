//! Croissant 1.0 (docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html) with the vocabulary for responsible AI
//! (docs.mlcommons.org/croissant/docs/croissant-rai-spec.html), as `mlcroissant validate` takes it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::records::Records;
use crate::facts::Facts;
use crate::facts::wording;
use crate::hash::sha256;

/// The dataset as JSON-LD.
pub fn render(facts: &Facts, records: &Records) -> Value {
    let release = &facts.config.release;
    let mut out = Map::new();
    let mut set = |key: &str, value: Value| {
        out.insert(key.to_string(), value);
    };
    set("@context", context());
    set("@type", json!("sc:Dataset"));
    set(
        "conformsTo",
        json!([
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0"
        ]),
    );
    set("name", json!(facts.title()));
    set(
        "description",
        json!(format!("{} {}.", facts.description(), facts.guarantee.to_string())),
    );
    set("license", json!(release.license));
    set("version", json!("1.0.0"));
    set(
        "citeAs",
        json!(format!(
            "{}, made with dpsynth {}",
            facts.title(),
            facts.program_version
        )),
    );
    set(
        "keywords",
        json!(["synthetic", "differential privacy", "text classification"]),
    );
    if !release.language.is_empty() {
        set("inLanguage", json!(release.language));
    }
    if let Some(url) = &release.url {
        set("url", json!(url));
    }
    if let Some(date) = &release.date {
        set("datePublished", json!(date));
    }
    if let Some(deployer) = &release.deployer {
        set("creator", json!({ "@type": "sc:Organization", "name": deployer }));
    }
    set("distribution", distribution(records));
    set("recordSet", record_set(records));
    for (key, value) in responsible(facts) {
        set(&format!("rai:{key}"), value);
    }
    Value::Object(out)
}

/// The context that the specification prescribes.
fn context() -> Value {
    json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "citeAs": "cr:citeAs",
        "column": "cr:column",
        "conformsTo": "dct:conformsTo",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "data": { "@id": "cr:data", "@type": "@json" },
        "dataType": { "@id": "cr:dataType", "@type": "@vocab" },
        "dct": "http://purl.org/dc/terms/",
        "equivalentProperty": "cr:equivalentProperty",
        "examples": { "@id": "cr:examples", "@type": "@json" },
        "extract": "cr:extract",
        "field": "cr:field",
        "fileProperty": "cr:fileProperty",
        "fileObject": "cr:fileObject",
        "fileSet": "cr:fileSet",
        "format": "cr:format",
        "includes": "cr:includes",
        "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath",
        "key": "cr:key",
        "md5": "cr:md5",
        "parentField": "cr:parentField",
        "path": "cr:path",
        "recordSet": "cr:recordSet",
        "references": "cr:references",
        "regex": "cr:regex",
        "repeated": "cr:repeated",
        "replace": "cr:replace",
        "samplingRate": "cr:samplingRate",
        "sc": "https://schema.org/",
        "separator": "cr:separator",
        "source": "cr:source",
        "subField": "cr:subField",
        "transform": "cr:transform"
    })
}

/// Each shard with its hash, and all of them as what records are read from.
fn distribution(records: &Records) -> Value {
    let format = "application/x-parquet";
    let shard = |shard: &super::records::Shard| {
        json!({
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": shard.path,
            "contentUrl": shard.path,
            "contentSize": format!("{} B", shard.bytes.len()),
            "encodingFormat": format,
            "sha256": sha256(&shard.bytes),
        })
    };
    let mut out: Vec<Value> = records.shards.iter().map(shard).collect();
    out.push(json!({
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "All records.",
        "encodingFormat": format,
        "includes": "data/*.parquet",
    }));
    Value::Array(out)
}

fn record_set(records: &Records) -> Value {
    let field = |name: &str, kind: &str, description: &str| {
        json!({
            "@type": "cr:Field",
            "@id": format!("records/{name}"),
            "name": name,
            "description": description,
            "dataType": kind,
            "source": { "fileSet": { "@id": "shards" }, "extract": { "column": name } },
        })
    };
    let mut fields = vec![field("id", "sc:Integer", "Number of the record.")];
    for (i, (name, integer)) in records.columns.iter().enumerate() {
        let kind = if *integer { "sc:Integer" } else { "sc:Text" };
        let description = if i == 0 {
            "The synthetic text."
        } else {
            "The label that the text was written for."
        };
        fields.push(field(name, kind, description));
    }
    json!([{
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "description": "Synthetic records.",
        "key": { "@id": "records/id" },
        "field": fields,
    }])
}

fn responsible(facts: &Facts) -> Vec<(&'static str, Value)> {
    let making = wording::making(facts).join(" ");
    vec![
        (
            "dataCollection",
            json!(format!(
                "No record was collected: all were written by a language model. {making}"
            )),
        ),
        ("dataCollectionType", json!(["Others"])),
        ("dataManipulationProtocol", json!(making)),
        (
            "dataAnnotationProtocol",
            json!(["Each text was written for its label; no person checked it."]),
        ),
        (
            "machineAnnotationTools",
            json!([format!("dpsynth {}", facts.program_version)]),
        ),
        ("dataLimitations", json!(wording::limits(facts))),
        (
            "dataBiases",
            json!([
                "Clipping and noise weigh on rare labels and unusual texts first.",
                "The base model's biases are passed on.",
            ]),
        ),
        (
            "personalSensitiveInformation",
            json!([format!(
                "The private records are not part of it: {}. {} Names in the texts are made up, were known to the base model, or come from private records within the guarantee.",
                facts.guarantee.to_string(),
                wording::neighbours(&facts.unit())
            )]),
        ),
        (
            "dataUseCases",
            json!([
                "Training and testing text classifiers where the private records cannot be shared.",
                "Not for conclusions about single people, nor as a source of facts.",
            ]),
        ),
        ("dataSocialImpact", json!(wording::CONTAMINATION)),
        (
            "dataReleaseMaintenancePlan",
            json!(
                "The records do not change: another release has another manifest.json, and what it costs is added to the same ledger."
            ),
        ),
    ]
}

/// What `verify` needs of it.
pub struct Said {
    /// SHA-256 by path of the records' files.
    pub files: BTreeMap<String, String>,
    /// Of the records, in order.
    pub columns: Vec<String>,
}

/// Reads what [`render`] wrote; none where it is something else.
pub fn read(bytes: &[u8]) -> Option<Said> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let objects = value["distribution"].as_array()?.iter();
    let files = objects
        .filter(|object| object["@type"] == "cr:FileObject")
        .map(|object| Some((object["contentUrl"].as_str()?.into(), object["sha256"].as_str()?.into())));
    let fields = value["recordSet"][0]["field"].as_array()?.iter();
    Some(Said {
        files: files.collect::<Option<_>>()?,
        columns: fields
            .map(|field| Some(field["name"].as_str()?.into()))
            .collect::<Option<_>>()?,
    })
}
