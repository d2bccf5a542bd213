//! Canaries where noise goes together over steps (banded DP-FTRL).
//!
//! The adversary takes the noise of earlier steps off again, which leaves each step its own, y = s₀·x + s₁·x₋₁ + … + ‖s‖·z over
//! ‖s‖; and it knows which part of the units each canary is in, as the account lets it. A canary that is drawn in step t moves
//! the steps from t on by s/‖s‖, of length 1: what can be known of it is the projection on that, and the score is that of a
//! Poisson batch for each of its part's turns.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::canaries::{Claimed, mixed, normal};
use crate::privacy::band_coefficients;

/// What canaries are scored by.
pub struct Together {
    /// s/‖s‖.
    column: Vec<f64>,
    /// Probability that a canary is drawn when its part has its turn.
    rate: f64,
    noise_multiplier: f64,
    steps: usize,
}

impl Together {
    /// None where each step has noise of its own.
    pub fn of(claimed: &Claimed) -> Option<Self> {
        let bands = claimed.bands?;
        let s = band_coefficients(bands);
        let length = square(&s).sqrt();
        Some(Together {
            column: s.iter().map(|s| s / length).collect(),
            rate: (claimed.sampling_rate * bands as f64).min(1.0),
            noise_multiplier: claimed.noise_multiplier,
            steps: claimed.steps as usize,
        })
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.column.len()
    }

    /// The part of a canary that is in and was never drawn: the more turns a part has, the less likely it is that one.
    pub fn part_of_undrawn(&self, rng: &mut impl Rng) -> usize {
        let weight = |part: usize| (1.0 - self.rate).powi(self.turns(part).count() as i32);
        let mut left = rng.random::<f64>() * (0..self.parts()).map(weight).sum::<f64>();
        let chosen = |part: &usize| {
            left -= weight(*part);
            left < 0.0
        };
        (0..self.parts()).find(chosen).unwrap_or(self.parts() - 1)
    }

    /// The score of `canary`, of `part`, from what steps released [steps][canaries], which `scale` takes to units of C.
    pub fn score(&self, canary: usize, part: usize, released: &[Vec<f32>], scale: f64) -> f64 {
        // The step's own noise.
        let own = |step: usize| -> f64 {
            let before = self.column.iter().zip(released[..=step].iter().rev());
            before.map(|(c, of)| c * f64::from(of[canary]) * scale).sum()
        };
        let of_turn = |(turn, column): (usize, &[f64])| {
            self.of_turn(column, column.iter().enumerate().map(|(k, c)| c * own(turn + k)).sum())
        };
        self.turns(part).map(of_turn).sum()
    }

    /// The score of a canary, `included` or not, under this mechanism with `noise` times the claimed noise.
    pub fn simulate(&self, noise: f64, included: bool, rng: &mut ChaCha8Rng) -> f64 {
        let part = rng.random_range(0..self.parts());
        let mut score = 0.0;
        for (_, column) in self.turns(part) {
            let (drawn, square) = (included && rng.random::<f64>() < self.rate, square(column));
            let moved = if drawn { square } else { 0.0 };
            score += self.of_turn(
                column,
                moved + noise * self.noise_multiplier * square.sqrt() * normal(rng),
            );
        }
        score
    }

    /// The steps in which it is the turn of `part`, each with what it moves from there on.
    fn turns(&self, part: usize) -> impl Iterator<Item = (usize, &[f64])> {
        let left = move |turn: usize| self.parts().min(self.steps - turn);
        (part..self.steps)
            .step_by(self.parts())
            .map(move |turn| (turn, &self.column[..left(turn)]))
    }

    /// ln(1 − p + p·e^u), u being ln of N(c, σ²)/N(0, σ²) at a point whose product with `column`, c, is `projected`.
    fn of_turn(&self, column: &[f64], projected: f64) -> f64 {
        let u = (2.0 * projected - square(column)) / (2.0 * self.noise_multiplier.powi(2));
        mixed(1.0 - self.rate, self.rate, u)
    }
}

fn square(column: &[f64]) -> f64 {
    column.iter().map(|c| c * c).sum()
}
