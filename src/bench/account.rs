//! How long a person waits for an epsilon, a delta and a plan.

use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::clock::{go_on, median, seconds, within};
use crate::Result;
use crate::privacy::accountant::{Adjacency, Phase, pld};
use crate::privacy::calibrate;

/// A sampling rate, a noise multiplier and a number of steps, and what is asked of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Setting {
    pub sampling_rate: f64,
    pub noise_multiplier: f64,
    pub steps: u64,
    pub delta: f64,
    /// At which delta is asked for, and which calibration aims at.
    pub epsilon: f64,
}

/// Seconds of each question: medians.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    #[serde(flatten)]
    pub setting: Setting,
    pub epsilon_s: f64,
    pub delta_s: f64,
    pub calibrate_s: f64,
}

/// Asks `setting` `times` times, after once that is not counted.
///
/// # Errors
/// Usage: a value out of range. Interrupted: `stop` was set.
pub fn measure(setting: Setting, times: usize, stop: &AtomicBool) -> Result<Measurement> {
    within("times", times, 1, 1 << 20)?;
    let s = setting;
    let phases = [Phase::new(s.sampling_rate, s.noise_multiplier, s.steps)?];
    let adjacency = Adjacency::AddOrRemoveOne;
    // Refused here, so that what is timed is an answer.
    pld::epsilon(&phases, adjacency, s.delta)?;
    pld::delta(&phases, adjacency, s.epsilon)?;
    calibrate::noise_multiplier(s.epsilon, s.delta, s.sampling_rate, s.steps)?;
    let timed = |run: &dyn Fn()| -> Result<f64> {
        let each = (0..times).map(|_| go_on(stop).map(|()| seconds(run)));
        Ok(median(&each.collect::<Result<Vec<f64>>>()?))
    };
    Ok(Measurement {
        setting,
        epsilon_s: timed(&|| drop(pld::epsilon(&phases, adjacency, s.delta)))?,
        delta_s: timed(&|| drop(pld::delta(&phases, adjacency, s.epsilon)))?,
        calibrate_s: timed(&|| {
            drop(calibrate::noise_multiplier(
                s.epsilon,
                s.delta,
                s.sampling_rate,
                s.steps,
            ))
        })?,
    })
}
