//! How a record's gradient is bounded (rule P5).

use burn::tensor::{Device, Tensor};

use crate::config::{Clipping, FinetuneConfig, NoiseKind};

/// Stabiliser of AUTO-S where none is given (Bu et al. 2023, "Automatic clipping").
pub const REGULARIZER: f64 = 0.01;

/// In which norm a contribution is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// ‖v‖₂, which Gaussian noise hides.
    Euclidean,
    /// ‖v‖₁, which Laplace noise hides: of vectors that are short.
    SumOfSizes,
}

impl Norm {
    /// Of a vector, in f64.
    pub fn of(self, v: &[f32]) -> f64 {
        self.length(v.iter().map(|x| f64::from(*x)))
    }

    /// Of a vector's values.
    pub fn length(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Norm::Euclidean => values.map(|x| x * x).sum::<f64>().sqrt(),
            Norm::SumOfSizes => values.map(f64::abs).sum(),
        }
    }

    /// In which contributions are bounded under `noise`.
    pub fn under(noise: NoiseKind) -> Self {
        match noise {
            NoiseKind::ExactLaplace => Norm::SumOfSizes,
            NoiseKind::ExactGaussian | NoiseKind::Gaussian | NoiseKind::LaplaceMixture => Norm::Euclidean,
        }
    }
}

/// A bound on the norm of a record's contribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    pub clipping: Clipping,
    pub norm: Norm,
    /// C: the largest norm.
    pub max_grad_norm: f64,
    /// r of g·C / (‖g‖ + r), above 0: gradients much shorter than it are not drawn out to C.
    pub regularizer: f64,
}

impl Clip {
    /// To norm `max_grad_norm`, with the usual [`REGULARIZER`].
    pub fn new(clipping: Clipping, max_grad_norm: f64) -> Self {
        Clip {
            clipping,
            norm: Norm::Euclidean,
            max_grad_norm,
            regularizer: REGULARIZER,
        }
    }

    /// As `config` says.
    pub fn of(config: &FinetuneConfig) -> Self {
        Clip {
            clipping: config.clipping,
            norm: Norm::under(config.noise),
            max_grad_norm: config.max_grad_norm,
            regularizer: config.clipping_regularizer.unwrap_or(REGULARIZER),
        }
    }

    /// What a gradient of norm `norm` is multiplied by, so that no product has a norm above C. One that is not finite
    /// contributes nothing (P5).
    pub fn factor(&self, norm: f64) -> f64 {
        if !norm.is_finite() {
            return 0.0;
        }
        match self.clipping {
            Clipping::Automatic => self.max_grad_norm / (norm + self.regularizer),
            Clipping::Flat => (self.max_grad_norm / norm.max(f64::MIN_POSITIVE)).min(1.0),
        }
    }
}

/// What each record's gradient is multiplied by in a sum; one factor where all records are one.
#[derive(Clone)]
pub struct Factors {
    values: Vec<f32>,
    placed: Tensor<1>,
}

impl Factors {
    /// On the host and on `device`.
    pub fn new(values: Vec<f32>, device: &Device) -> Self {
        let placed = Tensor::from_data(values.as_slice(), device);
        Factors { values, placed }
    }

    /// On the host.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// On the device.
    pub fn placed(&self) -> Tensor<1> {
        self.placed.clone()
    }
}
