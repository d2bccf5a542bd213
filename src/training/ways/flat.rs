//! DP-Flat within a layer (Chen et al. 2024, arXiv 2403.04124), after sharpness-aware minimisation (Foret et al. 2021): the
//! gradient is taken where the loss is worse, a short way up, so that training ends where it is flat.
//!
//! Which way is up must not be asked of the batch: the ascent of a whole batch without noise would be in every record's
//! gradient, and one record could move all of them. So it is what earlier steps released (Park et al. 2023, DP-SAT), or each
//! record's own, before it is bounded.

use super::{At, Bounds, Drawn, Way, moved, norm};
use crate::config::Ascent;
use crate::training::clip::Clip;

pub struct Flat {
    len: usize,
    clip: Clip,
    radius: f64,
    ascent: Ascent,
}

impl Flat {
    /// Of `len` trained values, `radius` ≥ 0 up.
    pub fn new(len: usize, clip: Clip, radius: f64, ascent: Ascent) -> Self {
        Flat {
            len,
            clip,
            radius,
            ascent,
        }
    }
}

impl Way for Flat {
    fn dimensions(&self) -> usize {
        self.len
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        match self.ascent {
            // The optimizer goes down along it; before the first step there is none.
            Ascent::Previous => {
                let up = &at.optimizer.first;
                let values = match norm(up) {
                    0.0 => at.values.to_vec(),
                    length => moved(at.values, self.radius / length, up),
                };
                drawn.gradients(&values, self.clip)
            }
            Ascent::Record => drawn.sum(at.values, &Bounds::whole(self.len, self.clip), &|record| {
                let up = record.gradient()?;
                let length = norm(&up);
                match length > 0.0 && length.is_finite() {
                    true => record.gradient_at(&moved(at.values, self.radius / length, &up)),
                    false => Some(up),
                }
            }),
        }
    }

    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        released.to_vec()
    }
}
