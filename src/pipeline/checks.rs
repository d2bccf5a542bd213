//! What can be refused is refused before anything is read or charged: `dpsynth plan` and every run look here first.

use crate::Result;
use crate::config::{LabelPrior, RunConfig};
use crate::records::{LabelSpace, Question, Vocabulary, prompt};
use crate::sampling::prior;
use crate::tables::short;
use crate::{Error, assets};

/// Looks at the configuration alone; what a person should know of it though it stops nothing.
///
/// # Errors
/// Usage: labels or prompts that say nothing, columns of two uses, a prior of the wrong length, an encoder that is not known.
pub fn configuration(c: &RunConfig) -> Result<Vec<String>> {
    c.dataset.check()?;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    prompt::distinct_turns(&c.prompt, &labels)?;
    prompt::without_labels(&c.prompt)?;
    if c.evaluate.encoder && c.evaluate.encoder_path.is_none() {
        assets::Registry::built_in().require_model(&c.evaluate.encoder_asset)?;
    }
    if let Some(encoder) = c.lexicon.encoder() {
        assets::require_encoder(encoder)?;
    }
    let counts = prior::counts(&c.sample.label_prior, None, labels.len(), c.sample.records)?;
    let weight = |label: usize| match &c.sample.label_prior {
        LabelPrior::Weights(weights) => weights[label],
        LabelPrior::Named(_) => 1.0,
    };
    let never: Vec<usize> = (0..labels.len())
        .filter(|label| counts[*label] == 0 && weight(*label) > 0.0)
        .collect();
    Ok(match never.first() {
        None => Vec::new(),
        Some(first) => vec![format!(
            "sample.records = {} is too few for {} labels: {} of them, such as `{}`, will get no synthetic record",
            c.sample.records,
            labels.len(),
            never.len(),
            short(&labels.name(*first))
        )],
    })
}

/// The prompt of each joint label, in tokens, for a model of so long a context.
///
/// # Errors
/// Usage: a label's name that the model would take for a control token, or prompts and records longer than its context.
pub fn prompts(c: &RunConfig, labels: &LabelSpace, context: usize, vocabulary: &Vocabulary) -> Result<Vec<Vec<u32>>> {
    prompt::marginal(&c.prompt, vocabulary.chat_template())?;
    control_tokens(c, labels, vocabulary)?;
    let requests = prompt::prompts(&c.prompt, labels, vocabulary.chat_template())?;
    let prompts: Vec<Vec<u32>> = requests.iter().map(|t| vocabulary.prompt(t)).collect::<Result<_>>()?;
    let mut around = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if c.finetune.objective.label_words > 0.0 {
        around = around.max(Question::new(&c.prompt, labels, vocabulary)?.most_tokens());
    }
    let longest = around + c.prepare.max_tokens;
    if longest > context {
        return Err(Error::usage(format!(
            "a prompt and {} tokens make {longest}, the model's context is {context}",
            c.prepare.max_tokens
        ))
        .hint(format!(
            "--set prepare.max_tokens={}",
            context - (longest - c.prepare.max_tokens).min(context - 1)
        )));
    }
    Ok(prompts)
}

/// A name that fills a prompt is text: it must not end the user's turn or begin another.
fn control_tokens(c: &RunConfig, labels: &LabelSpace, vocabulary: &Vocabulary) -> Result<()> {
    let refused = |name: &str| {
        Err(Error::usage(format!(
            "the label `{}` holds a control token of the model",
            short(name)
        ))
        .hint("give it another name in `names`, and the file's own values in `values`"))
    };
    for name in labels.columns().iter().flat_map(|column| column.names()) {
        if vocabulary.control_tokens(name)? > 0 {
            return refused(name);
        }
    }
    // A template may make one of a name that holds none: {{ label | lower }}.
    let own = vocabulary.control_tokens(&c.prompt.user)?;
    for (label, turn) in prompt::turns(&c.prompt, labels)?.iter().enumerate() {
        if vocabulary.control_tokens(turn)? > own {
            return refused(&labels.name(label));
        }
    }
    Ok(())
}
