//! What sections call arms, classifiers and intervals.

use super::charts::Series;
use crate::evaluation::metrics::Interval;
use crate::evaluation::{ArmName, Classifier};

pub fn series(arm: ArmName) -> Series {
    match arm {
        ArmName::Real => Series::Real,
        ArmName::Synthetic => Series::Synthetic,
        ArmName::ZeroShot => Series::ZeroShot,
        ArmName::NonPrivate => Series::NonPrivate,
    }
}

pub fn classifier(c: Classifier) -> &'static str {
    match c {
        Classifier::Linear => "Linear classifier",
        Classifier::Encoder => "Encoder",
    }
}

pub fn ends(i: &Interval) -> String {
    format!("{:.1}–{:.1}", 100.0 * i.low, 100.0 * i.high)
}
