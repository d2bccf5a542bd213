//! The model card: a README with a YAML header as the Hugging Face hub reads it (huggingface.co/docs/hub/model-cards).

use serde_json::{Map, Value, json};

use super::Sources;
use crate::facts::Facts;
use crate::facts::wording;
use crate::records::{LabelSpace, prompt};
use crate::release::{template, yaml};
use crate::{Result, documents};

/// The card of an exported model.
pub fn render(sources: &Sources) -> Result<String> {
    let (facts, options) = (sources.facts, sources.options);
    let config = &facts.config;
    let labels = LabelSpace::from_config(&config.dataset.labels)?;
    let turns = prompt::turns(&config.prompt, &labels, sources.vocabulary.chat_template().form)?;
    template::render(
        include_str!("../templates/model_card.md"),
        &json!({
            "header": yaml::text(&header(facts))?,
            "title": format!("{}: a language model fine-tuned under differential privacy", facts.run),
            "run": &facts.run,
            "deployer": &config.release.deployer,
            "contact": &config.release.contact,
            "messages": messages(config.prompt.system.as_deref(), &turns[0]),
            "turns": turns,
            "names": (0..labels.len()).map(|label| labels.name(label)).collect::<Vec<_>>(),
            "lora": config.finetune.method.is_low_rank().then_some(config.finetune.rank),
            "with_base": options.with_base,
            "dtype": options.dtype.torch(),
            "file": sources.file,
            "base": &facts.base_model,
            "plain": wording::plain("This model", &facts.unit(), &facts.guarantee),
            "sentence": facts.guarantee.to_string(),
            "guarantee": &facts.guarantee,
            "parameters": documents::texts(&facts.guarantee),
            "neighbours": wording::neighbours(&facts.unit()),
            "declared": wording::declared(facts.config.dataset.public_size, &facts.guarantee),
            "trust": wording::TRUST,
            "outside": wording::OUTSIDE,
            "composition": facts.composed.as_ref().map(wording::composition),
            "making": wording::training(facts),
            "unit": wording::unit(&facts.unit()),
            "max_tokens": config.prepare.max_tokens,
            "contamination": wording::CONTAMINATION,
            "withheld": wording::WITHHELD,
            "version": facts.program_version,
        }),
    )
}

/// The conversation that asks for a record, as Python and JSON write it.
fn messages(system: Option<&str>, user: &str) -> String {
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let system = system.map(|s| turn("system", s));
    Value::Array(system.into_iter().chain([turn("user", user)]).collect()).to_string()
}

fn header(facts: &Facts) -> Value {
    let (base, release) = (&facts.base_model, &facts.config.release);
    let mut header = Map::new();
    let mut set = |key: &str, value: Value| header.insert(key.to_string(), value);
    set("library_name", json!("transformers"));
    set("pipeline_tag", json!("text-generation"));
    // What was made of licensed weights stays under their licence.
    set("license", json!(base.license.as_deref().unwrap_or("other")));
    if let Some(repo) = &base.repo {
        set("base_model", json!(repo));
        set("base_model_relation", json!("finetune"));
    }
    if !release.language.is_empty() {
        set("language", json!(release.language));
    }
    set("tags", json!(["differential-privacy", "dpsynth", "synthetic-data"]));
    Value::Object(header)
}
