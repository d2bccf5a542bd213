//! How far each stage is, by its stamp alone: nothing is locked, written or computed anew.

use serde::Serialize;

use super::keys::{key as key_of, section};
use super::stamp::{self, Stamp};
use super::{RunPaths, Stage};
use crate::Result;
use crate::config::{RunConfig, Task};

/// How far a stage is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum State {
    /// Done, on what the stage before it has now and with the settings that are shown.
    Done,
    /// Begun and not ended: at work, stopped or killed.
    Begun,
    /// Done once, and to be done again: why.
    Stale(&'static str),
    /// There is no stamp.
    NotBegun,
}

/// Every stage that the run has, in order, with its state and its stamp. `config` is the run's; where it cannot be read,
/// settings count as unchanged.
///
/// # Errors
/// A stamp is there and cannot be read.
pub fn states(paths: &RunPaths, config: Option<&RunConfig>) -> Result<Vec<(Stage, State, Option<Stamp>)>> {
    let mut out: Vec<(Stage, State, Option<Stamp>)> = Vec::new();
    let asked = config.map(|c| c.evaluate.trains_references());
    for stage in Stage::ALL {
        let stamp = Stamp::read(paths, stage)?;
        // As the pipeline has it: what is not asked for any more is no stage, whatever was trained once.
        let absent = match asked {
            Some(asked) => !asked || (stamp.is_none() && within_evaluation(paths)?),
            None => stamp.is_none(),
        };
        let draws = config.is_none_or(|c| c.task == Task::Synthesise);
        match stage {
            Stage::References if absent => continue,
            Stage::Finetune | Stage::Sample if !draws => continue,
            _ => {}
        }
        let before = out.last().map(|(_, state, stamp)| (state, stamp.as_ref()));
        let state = match &stamp {
            None => State::NotBegun,
            Some(own) if !own.done => State::Begun,
            Some(own) => {
                let read = stamp::read_of(out.iter().filter_map(|(_, _, stamp)| stamp.as_ref()));
                match settled(paths, config, stage, own, before) {
                    State::Done if !own.has_read(&read) => State::Stale("the stage before it was done anew"),
                    state => state,
                }
            }
        };
        out.push((stage, state, stamp));
    }
    Ok(out)
}

/// Whether an earlier version of the program trained the references where it evaluated.
fn within_evaluation(paths: &RunPaths) -> Result<bool> {
    let sampled = Stamp::read(paths, Stage::Sample)?;
    let evaluated = Stamp::read(paths, Stage::Evaluate)?;
    Ok(match (sampled, evaluated) {
        (Some(sampled), Some(evaluated)) => evaluated.before == sampled.key || evaluated.before.is_empty(),
        _ => false,
    })
}

/// Of a stage that was done once.
fn settled(
    paths: &RunPaths,
    config: Option<&RunConfig>,
    stage: Stage,
    own: &Stamp,
    before: Option<(&State, Option<&Stamp>)>,
) -> State {
    let key = match before {
        None => "",
        Some((State::Done, Some(stamp))) => &stamp.key,
        Some(_) => return State::Stale("the stage before it is not done"),
    };
    let same = config.is_none_or(|c| match stage {
        Stage::Prepare | Stage::Finetune => own.key == key_of(c, stage, key, &own.inputs),
        Stage::Sample | Stage::References | Stage::Evaluate => {
            own.section.is_empty() || own.section == section(c, stage)
        }
    });
    match () {
        // An earlier version of the program did not say what came before.
        () if !own.before.is_empty() && own.before != key => State::Stale("the stage before it was done anew"),
        () if !same => State::Stale("its settings changed"),
        () if !paths.results(stage, config).iter().all(|p| p.exists()) => State::Stale("its files are gone"),
        () => State::Done,
    }
}

/// Stages that are done, each on what the stage before it has now, and with the settings that are shown.
pub fn done(paths: &RunPaths, config: Option<&RunConfig>) -> Result<Vec<&'static str>> {
    let stages = states(paths, config)?.into_iter();
    let done = stages.take_while(|(_, state, _)| *state == State::Done);
    Ok(done.map(|(stage, ..)| stage.name()).collect())
}
