//! Stage 4, where `evaluate.arms` asks for it: models that are trained on the real records beside the run's own.
//!
//! `dp_direct` spends budget of its own; `non_private` has no guarantee and stays under `internal/`. What comes after only
//! measures.

use super::{Pipeline, direct, non_private};
use crate::Result;
use crate::config::ExtraArm;

pub fn run(p: &Pipeline) -> Result<()> {
    let e = &p.config.evaluate;
    if e.asks(ExtraArm::DpDirect) {
        // First, so that a budget that does not allow it is known before hours of work.
        direct::train(p)?;
    }
    if e.asks(ExtraArm::NonPrivate) {
        non_private::run(p)?;
    }
    Ok(())
}
