//! `deployment.yaml`: a draft of an entry for the Differential Privacy Deployments Registry.
//!
//! The schema is `schemas/deployments-schema.yaml` of github.com/opendp/deployments-registry-data, as of its layout
//! basic, dp_variant, privacy_loss, deployment_model, implementation, administrative; its tiers are described at
//! registry.opendp.org/transparency-tiers. Keys stand in the schema's order, as its tests ask.

use serde_json::{Value, json};

use super::yaml;
use crate::Result;
use crate::config::{DeployerType, NoiseKind};
use crate::facts::Facts;
use crate::facts::wording;
use crate::privacy::Guarantee;

/// What the registry requires and only the configuration can say: setting, and field of the entry.
pub fn missing(facts: &Facts) -> Vec<(&'static str, &'static str)> {
    let r = &facts.config.release;
    let asked = [
        (r.deployer.is_none(), "release.deployer", "data_curator_name"),
        (r.deployer_type.is_none(), "release.deployer_type", "data_curator_type"),
        (r.region.is_none(), "release.region", "data_product_region"),
        (r.date.is_none(), "release.date", "publication_date"),
    ];
    asked
        .iter()
        .filter(|(none, ..)| *none)
        .map(|(_, key, field)| (*key, *field))
        .collect()
}

/// The entry.
///
/// # Errors
/// Other: it cannot be written as YAML.
pub fn render(facts: &Facts) -> Result<String> {
    let mut out = String::from("# A draft for the Differential Privacy Deployments Registry (registry.opendp.org).\n");
    for (key, field) in missing(facts) {
        out.push_str(&format!(
            "# Missing, and required there: {field} ({key} in the configuration)\n"
        ));
    }
    out.push_str(&yaml::text(&entry(facts))?);
    Ok(out)
}

/// Whether an entry, as YAML, says `guarantee` where a reader looks for it; a key that is there twice says nothing.
pub fn says(entry: &str, guarantee: &Guarantee) -> bool {
    let Ok(entry) = serde_saphyr::from_str::<Value>(entry) else {
        return false;
    };
    let loss = &entry["deployment"]["privacy_loss"];
    let number = |key: &str| loss["privacy_parameters"][key].as_f64();
    (number("epsilon"), number("delta")) == (Some(guarantee.epsilon), Some(guarantee.delta))
        && loss["privacy_parameters_details"].as_str() == Some(guarantee.to_string().as_str())
}

fn entry(facts: &Facts) -> Value {
    let (config, release) = (&facts.config, &facts.config.release);
    let name = facts.title();
    json!({
        "url_slug": slug(&name),
        "deployment": {
            "basic": without_null(json!({
                "name": name,
                "data_curators": release.deployer.as_ref().map(|_| [without_null(json!({
                    "data_curator_name": release.deployer,
                    "data_curator_type": release.deployer_type.map(|t| match t {
                        DeployerType::Government => "Government",
                        DeployerType::Industry => "Industry",
                        DeployerType::Nonprofit => "Nonprofit",
                    }),
                }))]),
                "description": facts.description(),
                "intended_use": "Training and testing text classifiers where the private records cannot be shared.",
                "data_product_type": "Synthetic data",
                "data_product_region": release.region,
                "publication_date": release.date,
            })),
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": format!("Sets of labelled texts. {}", wording::neighbours(&facts.unit())),
                "unprotected_quantities": wording::declared(facts.config.dataset.public_size, &facts.guarantee),
            },
            "privacy_loss": {
                "privacy_unit": match &config.dataset.unit {
                    None => "Record-level".to_string(),
                    Some(unit) => format!("{}-level", unit.column),
                },
                "privacy_unit_details": wording::neighbours(&facts.unit()),
                "number_of_privacy_units": config.dataset.public_size,
                "privacy_parameters": { "epsilon": facts.guarantee.epsilon, "delta": facts.guarantee.delta },
                "privacy_parameters_details": facts.guarantee.to_string(),
            },
            "deployment_model": {
                "model_name": "Central",
                "trust_assumptions": format!("{} {}", wording::TRUST, wording::OUTSIDE),
                "release_type": "One release",
                "release_type_details": facts.composed.as_ref().map(wording::composition).unwrap_or_default(),
                "data_source_type": "Static",
                "access_type": "Non-interactive",
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": format!(
                    "Texts are cleaned and cut at {} tokens before training; this reads each record on its own. Settings chosen by looking at results on private records are not covered by epsilon.",
                    config.prepare.max_tokens
                ),
                "mechanisms": format!(
                    "{} {} Program: dpsynth {}.",
                    wording::making(facts).join(" "),
                    match config.finetune.noise {
                        NoiseKind::ExactGaussian => "Noise is an exact rounded Gaussian, drawn and added in integers, so that floating-point attacks are closed.",
                        NoiseKind::Gaussian => "Noise is Gaussian in floating point: attacks on floating point are outside the guarantee.",
                        NoiseKind::ExactLaplace => "Noise is exact Laplace noise, rounded, drawn and added in integers, so that floating-point attacks are closed.",
                        NoiseKind::LaplaceMixture => "Noise is Laplace noise of mixed scales, which no proof covers: NOT A DP GUARANTEE.",
                    },
                    facts.program_version
                ),
                "composition": format!("Steps compose by their privacy loss distributions (accountant {}). {}", facts.guarantee.accountant, facts.composed.as_ref().map(wording::composition).unwrap_or_default()),
                "post_processing": "Sampling, guidance, scoring and refinement read the trained model, what was counted and learned under the guarantee, prompts and synthetic text alone; so does every statistic in the dataset card.",
                "justification": "Canaries, which are nobody's records, were put through the plan and its noise: the lower bounds on epsilon that they give, at 95 % confidence, are in privacy.json and do not exceed the guarantee. What an audit reads of private records is withheld.",
            },
            "administrative": {
                "status": "Draft",
                "registry_authors": [release.deployer.as_deref().unwrap_or("dpsynth")],
                "tier": 3,
            },
        },
    })
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        other => other,
    }
}

/// Letters and digits in lower case, runs of anything else as one hyphen.
fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .collect();
    words.join("-")
}
