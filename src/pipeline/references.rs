//! Stage 4, where `evaluate.arms` asks for it: models that are trained on the real records beside the run's own.
//!
//! `dp_direct` spends budget of its own; `non_private` has no guarantee and stays under `internal/`. What comes after only
//! measures.

use super::{Pipeline, direct, non_private};
use crate::config::ExtraArm;
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::models::device;
use crate::{Result, assets};

pub fn run(p: &Pipeline) -> Result<()> {
    let e = &p.config.evaluate;
    if e.asks(ExtraArm::DpDirect) {
        // First, so that a budget that does not allow it is known before hours of work.
        let model = assets::encoder(e, &p.places.assets, p.progress)?;
        let device = device::choose(p.config.device)?;
        let sentences = SentenceEncoder::open(&EncoderFiles::of(&model)?, e.encoder_max_tokens, &device)?;
        direct::train(p, &model, &sentences)?;
    }
    if e.asks(ExtraArm::NonPrivate) {
        non_private::run(p)?;
    }
    Ok(())
}
