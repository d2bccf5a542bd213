//! What a stage depends on, as a hash: while it is the same the stage is done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Stage, folder, stamp};
use crate::config::{EvaluateConfig, ExtraArm, Judge, RunConfig, Task};

/// Version of what `prepare` writes; raised when its meaning changes.
const PREPARED: u32 = 1;
/// Version of what `finetune` writes; raised when its meaning changes, a constant of the lexicon's among it.
const TRAINED: u32 = 1;

/// The key of `stage` under `config`, after a stage with key `before`; `inputs` are hashes of the files that it names.
///
/// The program's version is part of the keys that cost nothing but time. A newer program must not make anyone pay
/// twice, so the stages up to training carry the version of what they write instead.
pub fn key(c: &RunConfig, stage: Stage, before: &str, inputs: &BTreeMap<PathBuf, String>) -> String {
    let section = match stage {
        Stage::Prepare => {
            let prompts = c.prompt.of_labels();
            let prepared = (PREPARED, folder::trained_on(c), prompts, &c.prepare, &c.model, inputs);
            let prepared = match c.audit.holdout > 0.0 {
                false => stamp::text(&prepared),
                true => stamp::text(&(prepared, c.audit.holdout)),
            };
            match c.task {
                Task::Synthesise => prepared,
                // There are no tokens.
                Task::Classify => format!("{prepared}\nclassify"),
            }
        }
        Stage::Finetune => {
            let trained = match &c.release.copy_gate {
                None => stamp::text(&(TRAINED, &c.finetune)),
                // It is part of the plan; what it tolerates is not.
                Some(gate) => stamp::text(&(TRAINED, &c.finetune, gate.epsilon)),
            };
            match c.lexicon.is_on() {
                false => trained,
                true => trained + &stamp::text(&c.lexicon),
            }
        }
        Stage::Sample | Stage::References | Stage::Evaluate => {
            format!("{}\n{}", env!("CARGO_PKG_VERSION"), section(c, stage))
        }
    };
    stamp::key(stage.name(), before, &section)
}

/// What `config` says of a stage whose settings may change between commands; nothing of the others.
pub fn section(config: &RunConfig, stage: Stage) -> String {
    match stage {
        Stage::Prepare | Stage::Finetune => String::new(),
        Stage::Sample => stamp::text(&(&config.sample, &config.prompt.marginal)),
        Stage::References => {
            let e = &config.evaluate;
            let trained = [ExtraArm::DpDirect, ExtraArm::NonPrivate].map(|arm| e.asks(arm));
            let asset = match &e.encoder {
                Judge::Named(named) => named,
                Judge::Switch(_) => &e.encoder_asset,
            };
            let encoder = (asset, &e.encoder_path, e.encoder_max_tokens);
            stamp::text(&(trained, e.dp_direct.resolved(), &e.non_private, encoder))
        }
        Stage::Evaluate => stamp::text(&EvaluateConfig {
            dp_direct: config.evaluate.dp_direct.resolved(),
            ..config.evaluate.clone()
        }),
    }
}

/// The stages that `config` has, in order.
pub fn stages(config: &RunConfig) -> Vec<Stage> {
    let has = |stage: &Stage| match (stage, config.task) {
        (Stage::References, _) => config.evaluate.trains_references(),
        (Stage::Finetune | Stage::Sample, task) => task == Task::Synthesise,
        (Stage::Prepare | Stage::Evaluate, _) => true,
    };
    Stage::ALL.into_iter().filter(has).collect()
}
