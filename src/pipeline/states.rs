//! How far each stage is, by its stamp alone: nothing is locked, written or computed anew.

use serde::Serialize;

use super::stamp::Stamp;
use super::{RunPaths, Stage, section};
use crate::Result;
use crate::config::RunConfig;

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

/// Every stage in order, with its state and its stamp. `config` is the run's; where it cannot be read, settings count as
/// unchanged.
///
/// # Errors
/// A stamp is there and cannot be read.
pub fn states(paths: &RunPaths, config: Option<&RunConfig>) -> Result<Vec<(Stage, State, Option<Stamp>)>> {
    let mut out: Vec<(Stage, State, Option<Stamp>)> = Vec::new();
    for stage in Stage::ALL {
        let stamp = Stamp::read(paths, stage)?;
        let before = out.last().map(|(_, state, stamp)| (state, stamp.as_ref()));
        let state = match &stamp {
            None => State::NotBegun,
            Some(own) if !own.done => State::Begun,
            Some(own) => settled(paths, config, stage, own, before),
        };
        out.push((stage, state, stamp));
    }
    Ok(out)
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
        Stage::Prepare | Stage::Finetune => own.key == super::key(c, stage, key, &own.inputs),
        Stage::Sample | Stage::Evaluate => own.section.is_empty() || own.section == section(c, stage),
    });
    match () {
        // An earlier version of the program did not say what came before.
        () if !own.before.is_empty() && own.before != key => State::Stale("the stage before it was done anew"),
        () if !same => State::Stale("its settings changed"),
        () if !paths.results(stage).iter().all(|p| p.exists()) => State::Stale("its files are gone"),
        () => State::Done,
    }
}
