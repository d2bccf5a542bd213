//! The stages of a run, by name.

use serde::{Deserialize, Serialize};

/// The stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Prepare,
    Finetune,
    Sample,
    /// Only of runs that ask for models trained on the real records beside the run's own (`evaluate.arms`).
    References,
    Evaluate,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 5] = [
        Stage::Prepare,
        Stage::Finetune,
        Stage::Sample,
        Stage::References,
        Stage::Evaluate,
    ];

    /// The stage's name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Prepare => "prepare",
            Stage::Finetune => "finetune",
            Stage::Sample => "sample",
            Stage::References => "references",
            Stage::Evaluate => "evaluate",
        }
    }
}
