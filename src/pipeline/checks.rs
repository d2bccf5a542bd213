//! What can be refused is refused before anything is read or charged: `dpsynth plan` and every run look here first.

use burn::tensor::{Int, Tensor, TensorData};

use crate::Result;
use crate::config::{ExtraArm, LabelPrior, Method, RunConfig, Task, is_remote};
use crate::models::shape::Shape;
use crate::models::{LanguageModel, Plain, read};
use crate::records::prompt::Form;
use crate::records::{LabelSpace, Question, Vocabulary, prompt};
use crate::run::plan::direct_request;
use crate::sampling::prior;
use crate::tables::{is_pattern, short};
use crate::{Error, assets};

/// Looks at the configuration alone; what a person should know of it though it stops nothing.
///
/// # Errors
/// Usage: labels or prompts that say nothing, columns of two uses, a prior of the wrong length, an encoder that is not known.
pub fn configuration(c: &RunConfig) -> Result<Vec<String>> {
    c.dataset.check()?;
    let labels = LabelSpace::from_config(&c.dataset.labels)?;
    if c.evaluate.asks(ExtraArm::DpDirect) {
        assets::require_encoder(&c.evaluate.direct_encoder())?;
        // Its steps and batches may be others than the language model's.
        direct_request(c)
            .bands()
            .map_err(|e| Error::from(e).hint("these are those of evaluate.dp_direct; finetune.bands is of both"))?;
    }
    public_records(c)?;
    let found = c.finetune.risk.map(|risk| {
        format!(
            "epsilon {:.3} was found from finetune.risk: {risk}, by what this run gives away",
            c.finetune.epsilon
        )
    });
    if c.task == Task::Classify {
        return Ok(found.into_iter().collect());
    }
    for form in [Form::Turn, Form::Beginning] {
        prompt::distinct_turns(&c.prompt, &labels, form)?;
    }
    prompt::without_labels(&c.prompt)?;
    assets::require_language_model(&c.model)?;
    if c.evaluate.encoder.is_on() {
        assets::require_encoder(&c.evaluate.encoder_name())?;
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
    let too_few = never.first().map(|first| {
        format!(
            "sample.records = {} is too few for {} labels: {} of them, such as `{}`, will get no synthetic record",
            c.sample.records,
            labels.len(),
            never.len(),
            short(&labels.name(*first))
        )
    });
    Ok(found.into_iter().chain(too_few).collect())
}

/// Looks whether the public records that a classifier's steps are taken by are there.
fn public_records(c: &RunConfig) -> Result<()> {
    let direct = &c.evaluate.dp_direct;
    let named = direct.public.as_ref().filter(|_| direct.needs_public());
    let paths = named.into_iter().flat_map(|files| files.paths());
    match paths
        .filter(|path| !is_remote(path) && !is_pattern(path))
        .find(|path| !path.exists())
    {
        None => Ok(()),
        Some(path) => Err(Error::usage(format!(
            "there is no {}, which `evaluate.dp_direct.public` names",
            path.display()
        ))
        .hint("--set evaluate.dp_direct.public=FILE names another")),
    }
}

/// The prompt of each joint label, in tokens, for a model of this shape.
///
/// # Errors
/// Usage: a label's name that the model would take for a control token, or prompts and records longer than its context.
/// Data: a tokenizer with tokens that are none of the model's.
pub fn prompts(c: &RunConfig, labels: &LabelSpace, shape: &Shape, vocabulary: &Vocabulary) -> Result<Vec<Vec<u32>>> {
    let context = shape.context;
    let unknown = |token: u32| {
        Error::data(format!(
            "the tokenizer has token {token}, the model has {} of them",
            shape.vocabulary
        ))
        .hint("the tokenizer is another model's: check that the files belong together")
    };
    // Found before any record is read: which record holds such a token is private.
    if let Some(token) = vocabulary.largest().filter(|token| *token as usize >= shape.vocabulary) {
        return Err(unknown(token));
    }
    prompt::marginal(&c.prompt, vocabulary.chat_template())?;
    control_tokens(c, labels, vocabulary)?;
    let requests = prompt::prompts(&c.prompt, labels, vocabulary.chat_template())?;
    let prompts: Vec<Vec<u32>> = requests.iter().map(|t| vocabulary.prompt(t)).collect::<Result<_>>()?;
    if let Some(token) = prompts
        .iter()
        .flatten()
        .find(|token| **token as usize >= shape.vocabulary)
    {
        return Err(unknown(*token));
    }
    let mut around = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if c.finetune.objective.label_words > 0.0 {
        around = around.max(Question::new(&c.prompt, labels, vocabulary)?.most_tokens());
    }
    let shortest = prompts.iter().map(Vec::len).min().unwrap_or(0);
    if c.finetune.method == Method::SoftPrompt && shortest < c.finetune.soft_tokens() {
        return Err(Error::usage(format!(
            "finetune.method = \"soft-prompt\" trains the first {} tokens of a prompt, and the shortest has {shortest}",
            c.finetune.soft_tokens()
        ))
        .hint(format!("finetune.prompt_tokens = {shortest}, or a longer prompt")));
    }
    let longest = around + c.prepare.max_tokens;
    if longest > context {
        return Err(Error::usage(format!(
            "a prompt and {} tokens make {longest}, the model's context is {context}",
            c.prepare.max_tokens
        ))
        .hint(match context.checked_sub(around).filter(|room| *room > 0) {
            Some(room) => format!("--set prepare.max_tokens={room}"),
            None => format!("the prompt alone is {around} tokens long: a shorter `prompt.user`, or another model"),
        }));
    }
    Ok(prompts)
}

/// Refuses a model that makes no numbers of a prompt, before anything is charged: no record would add to what is trained.
///
/// # Errors
/// Data: its logits are not finite.
pub fn computes(model: &LanguageModel, prompts: &[Vec<u32>]) -> Result<()> {
    let Some(prompt) = prompts.first().filter(|prompt| !prompt.is_empty()) else {
        return Ok(());
    };
    let ids: Vec<i32> = prompt.iter().map(|token| *token as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, prompt.len()]), &model.device());
    let last = model.hidden(ids, None, &mut Plain).narrow(0, prompt.len() - 1, 1);
    match read(model.logits(last)).iter().all(|logit| logit.is_finite()) {
        true => Ok(()),
        false => Err(Error::data("the model makes no numbers of its first prompt")
            .hint("its weights or its config.json are damaged: fetch it again")),
    }
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
    let form = vocabulary.chat_template().form;
    let own = vocabulary.control_tokens(prompt::request(&c.prompt, form))?;
    for (label, turn) in prompt::turns(&c.prompt, labels, form)?.iter().enumerate() {
        if vocabulary.control_tokens(turn)? > own {
            return refused(&labels.name(label));
        }
    }
    Ok(())
}
