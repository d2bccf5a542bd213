//! Optimizers on a flat vector. They see only noised gradients: post-processing, free of privacy cost.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::FinetuneConfig;
use crate::config::Optimizer as Named;

/// Share of the noise's variance below which DP-AdamBC takes no second moment to lie: no step is more than √10 times
/// AdamW's. Over few steps the estimate is mostly error and would else come near zero by chance; Tang et al. tune an
/// absolute floor, which a private run cannot.
const FLOOR: f32 = 0.1;
/// The usual settings of Adam.
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019). The second moment of a noised gradient is too large by `noise_variance`; it is taken
    /// off again (Tang et al. 2024, DP-AdamBC), and what is left is held above [`FLOOR`] of it. With 0 this is AdamW.
    AdamW { noise_variance: f32 },
    /// Gradient descent; `momentum` (Polyak 1964) is the share of the last direction that is kept.
    Sgd { momentum: f32 },
    /// Gradient descent from a mixture of the last two iterates, at random in each coordinate (ModelMix; Xiao et al. 2022). The
    /// mixture is of public coins: nothing is claimed of it.
    ModelMix,
}

/// An optimizer with its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub rule: Rule,
    /// Decoupled: taken off the values beside the step, in units of the learning rate.
    pub weight_decay: f32,
    /// Adam's first moments; of gradient descent the direction so far; of ModelMix the last iterate.
    pub first: Vec<f32>,
    /// Adam's second moments; of the others nothing.
    pub second: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
}

impl Optimizer {
    /// For `len` values, before the first step.
    pub fn new(rule: Rule, weight_decay: f32, len: usize) -> Self {
        let seconds = match rule {
            Rule::AdamW { .. } => len,
            Rule::Sgd { .. } | Rule::ModelMix => 0,
        };
        Optimizer {
            rule,
            weight_decay,
            first: vec![0.0; len],
            second: vec![0.0; seconds],
            steps: 0,
        }
    }

    /// AdamW where gradients have no noise that is to be taken out.
    pub fn adamw(len: usize, weight_decay: f32) -> Self {
        Optimizer::new(Rule::AdamW { noise_variance: 0.0 }, weight_decay, len)
    }

    /// As `config` says, for gradients whose noise has `noise_deviation` in each coordinate.
    pub fn of(config: &FinetuneConfig, noise_deviation: f64, len: usize) -> Self {
        let rule = match config.optimizer {
            Named::Adamw => Rule::AdamW { noise_variance: 0.0 },
            Named::AdamBc => Rule::AdamW {
                noise_variance: noise_deviation.powi(2) as f32,
            },
            Named::Sgd => Rule::Sgd {
                momentum: config.momentum as f32,
            },
            Named::ModelMix => Rule::ModelMix,
        };
        Optimizer::new(rule, config.weight_decay as f32, len)
    }

    /// One step on `values` along `gradient`.
    ///
    /// # Panics
    /// There is not a gradient for each value.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32) {
        assert_eq!(values.len(), gradient.len(), "a gradient for each value");
        self.steps += 1;
        match self.rule {
            Rule::AdamW { noise_variance } => self.adam(values, gradient, learning_rate, noise_variance),
            Rule::Sgd { momentum } => self.descend(values, gradient, learning_rate, momentum),
            Rule::ModelMix => self.mix(values, gradient, learning_rate),
        }
    }

    fn adam(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32, noise_variance: f32) {
        let correct1 = 1.0 - BETA1.powi(self.steps as i32);
        let correct2 = 1.0 - BETA2.powi(self.steps as i32);
        for (((v, g), m), s) in values
            .iter_mut()
            .zip(gradient)
            .zip(&mut self.first)
            .zip(&mut self.second)
        {
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *s = BETA2 * *s + (1.0 - BETA2) * g * g;
            let square = (*s / correct2 - noise_variance).max(FLOOR * noise_variance);
            let direction = (*m / correct1) / (square.sqrt() + EPSILON);
            *v -= learning_rate * (direction + self.weight_decay * *v);
        }
    }

    fn descend(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32, momentum: f32) {
        for ((v, g), m) in values.iter_mut().zip(gradient).zip(&mut self.first) {
            *m = momentum * *m + g;
            *v -= learning_rate * (*m + self.weight_decay * *v);
        }
    }

    /// `values` are a mixture, from which the next iterate is stepped; then they are the mixture of that and the last.
    fn mix(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32) {
        if self.steps == 1 {
            self.first.copy_from_slice(values);
        }
        let mut coins = ChaCha8Rng::seed_from_u64(self.steps);
        for ((v, g), last) in values.iter_mut().zip(gradient).zip(&mut self.first) {
            let next = *v - learning_rate * (g + self.weight_decay * *v);
            let share: f32 = coins.random();
            *v = share * next + (1.0 - share) * *last;
            *last = next;
        }
    }
}
