//! AdamW (Loshchilov and Hutter 2019) on a flat vector. It sees only noised gradients: post-processing, free of privacy cost.

/// Share of the noise's variance below which DP-AdamBC takes no second moment to lie: no step is more than √10 times
/// AdamW's. Over few steps the estimate is mostly error and would else come near zero by chance; Tang et al. tune an
/// absolute floor, which a private run cannot.
const FLOOR: f32 = 0.1;

/// AdamW's state and settings.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
}

impl AdamW {
    /// Zero moments for `len` values, with the usual 0.9, 0.999, 1e-8.
    pub fn new(len: usize, weight_decay: f32) -> Self {
        AdamW {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay,
            first: vec![0.0; len],
            second: vec![0.0; len],
            steps: 0,
        }
    }

    /// One step on `values` along `gradient`, whose noise has `noise_variance` in each coordinate.
    ///
    /// The second moment of a noised gradient is too large by that variance; it is taken off again (Tang et al. 2024,
    /// DP-AdamBC), and what is left is held above [`FLOOR`] of it. With a variance of 0 this is AdamW.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], learning_rate: f32, noise_variance: f32) {
        assert_eq!(values.len(), gradient.len(), "a gradient for each value");
        self.steps += 1;
        let correct1 = 1.0 - self.beta1.powi(self.steps as i32);
        let correct2 = 1.0 - self.beta2.powi(self.steps as i32);
        for (((v, g), m), s) in values
            .iter_mut()
            .zip(gradient)
            .zip(&mut self.first)
            .zip(&mut self.second)
        {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *s = self.beta2 * *s + (1.0 - self.beta2) * g * g;
            let square = (*s / correct2 - noise_variance).max(FLOOR * noise_variance);
            let direction = (*m / correct1) / (square.sqrt() + self.epsilon);
            *v -= learning_rate * (direction + self.weight_decay * *v);
        }
    }
}
