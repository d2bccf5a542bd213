//! A model of a shape that is asked for, and of weights that mean nothing.

use std::sync::Arc;

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::Result;
use crate::models::load::Held;
use crate::models::shape::{Kind, Slot};
use crate::models::{Architecture, LanguageModel};

/// Values that are drawn from one seed.
const CHUNK: usize = 1 << 16;

/// A model of `architecture`, whose maps are `packed` or not.
///
/// # Errors
/// Data: counts that do not fit together.
pub fn model(architecture: Arc<dyn Architecture>, packed: bool, device: &Device) -> Result<LanguageModel> {
    let shape = architecture.shape().clone();
    let held = |slot: usize| Ok(Held::Numbers(values(slot, &shape.slots[slot])));
    match packed {
        true => LanguageModel::packed(architecture, held, device),
        false => LanguageModel::new(architecture, held, device),
    }
}

/// Uniform in ±1/√inputs: activations keep their size, so no number is subnormal. Gains are 1, shifts 0.
fn values(at: usize, slot: &Slot) -> Vec<f32> {
    match (slot.kind, &slot.shape[..]) {
        (Kind::Gain(_), _) => vec![1.0; slot.len()],
        (_, [_, input]) => {
            let bound = 1.0 / (*input as f32).sqrt();
            let mut out = vec![0.0; slot.len()];
            out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
                let mut rng = ChaCha8Rng::seed_from_u64((at as u64) << 32 | chunk as u64);
                out.iter_mut()
                    .for_each(|value| *value = rng.random_range(-bound..bound));
            });
            out
        }
        _ => vec![0.0; slot.len()],
    }
}
