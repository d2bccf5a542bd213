//! Zeroth-order steps (DP-ZO, Tang et al. 2024, arXiv 2401.04343; DPZero, Zhang et al. 2024, arXiv 2310.09639): a record shows
//! how much its loss differs between two points, a short way to each side along a direction that anyone can draw again. So a step
//! releases a number for each direction, and needs no backward pass.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{At, Bounds, Drawn, Way, moved};
use crate::training::clip::Clip;

pub struct ZerothOrder {
    bounds: Bounds,
    /// Trained values.
    len: usize,
    /// How far to each side.
    radius: f64,
    /// Of the step that was asked for last.
    step: u64,
}

impl ZerothOrder {
    /// Of `len` trained values, along `directions` ≥ 1 of them a step, `radius` > 0 to each side.
    pub fn new(len: usize, clip: Clip, directions: usize, radius: f64) -> Self {
        ZerothOrder {
            bounds: Bounds::whole(directions, clip),
            len,
            radius,
            step: 0,
        }
    }

    /// Signs, each with probability one half: z zᵀ is the identity in expectation (Spall 1992). Public, and another one in each
    /// step: it depends on numbers that everybody knows.
    fn direction(&self, which: usize) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.step);
        rng.set_stream(which as u64);
        let mut out = Vec::with_capacity(self.len);
        while out.len() < self.len {
            let bits = rng.next_u64();
            let signs = (0..64).map(|bit| if bits >> bit & 1 == 1 { 1.0 } else { -1.0 });
            out.extend(signs.take(self.len - out.len()));
        }
        out
    }
}

impl Way for ZerothOrder {
    fn dimensions(&self) -> usize {
        self.bounds.len()
    }

    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64> {
        self.step = at.optimizer.steps;
        // By record, a slope along each direction.
        let mut slopes: Vec<(usize, Vec<f32>)> = Vec::new();
        for which in 0..self.dimensions() {
            let direction = self.direction(which);
            let points = [self.radius, -self.radius].map(|by| moved(at.values, by, &direction));
            let losses = drawn.losses([&points[0], &points[1]]);
            slopes.resize_with(losses.len(), Default::default);
            for ((of, slopes), (size, losses)) in slopes.iter_mut().zip(losses) {
                *of = size;
                // What cannot be read adds nothing in any direction.
                slopes.push(losses.map_or(f32::NAN, |[a, b]| ((a - b) / (2.0 * self.radius)) as f32));
            }
        }
        let mut sum = vec![0f64; self.dimensions()];
        for (size, slopes) in &slopes {
            self.bounds.add(slopes, 1.0 / *size as f64, &mut sum);
        }
        sum
    }

    /// The mean over the directions of what was released times the direction.
    fn gradient(&mut self, released: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; self.len];
        for (which, slope) in released.iter().enumerate() {
            let share = slope / released.len() as f32;
            out.iter_mut()
                .zip(self.direction(which))
                .for_each(|(o, z)| *o += share * z);
        }
        out
    }
}
