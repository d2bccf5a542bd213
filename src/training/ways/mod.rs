//! What a private step asks of the records that it drew, and what it makes of the answer: a file for each way.
//!
//! The answer is one vector to which each unit adds at most norm C, whatever the way: it is released by the same mechanism, at the
//! same cost, and what comes of it is post-processing. A way does not bound records itself. It says which vector a record
//! shows, and [`Bounds`] does the rest (P5).

mod bounds;
pub mod candidates;
pub mod flat;
pub mod gradient;
pub mod normal_equations;
pub mod projection;
pub mod subspace;
pub mod toward;
pub mod zeroth_order;

pub use bounds::Bounds;

use super::clip::{Clip, Norm};
use super::optimizer::Optimizer;
use crate::config::Update;

/// A record that was drawn, at the values of [`Drawn::sum`].
pub trait Record {
    /// The gradient of its loss; none where it cannot be read.
    fn gradient(&self) -> Option<Vec<f32>>;

    /// The same at other values.
    fn gradient_at(&self, values: &[f32]) -> Option<Vec<f32>>;

    /// Its text's vector, where what is trained is linear in one, and its label.
    fn features(&self) -> Option<(Vec<f32>, usize)>;
}

/// The vector that a record shows; none where it cannot be read: it then adds nothing.
pub type Shows<'a> = dyn Fn(&dyn Record) -> Option<Vec<f32>> + Sync + 'a;

/// The units of a batch.
pub trait Drawn {
    /// The sum over them of the means of their records' gradients at `values`, each bounded by `clip`.
    fn gradients(&self, values: &[f32], clip: Clip) -> Vec<f64>;

    /// The sum over them of the means of their records' vectors, which `shows` makes at `values`, each within `bounds`.
    fn sum(&self, values: &[f32], bounds: &Bounds, shows: &Shows) -> Vec<f64>;

    /// Of each record its unit's size and its loss at each of `points`; none where it cannot be read.
    fn losses(&self, points: [&[f32]; 2]) -> Vec<(usize, Option<[f64; 2]>)>;
}

/// Where training stands before a step.
pub struct At<'a> {
    pub values: &'a [f32],
    pub optimizer: &'a Optimizer,
}

/// A way to take private steps.
pub trait Way {
    /// Length of the vector that a step releases.
    fn dimensions(&self) -> usize;

    /// That vector, without noise.
    fn ask(&mut self, drawn: &dyn Drawn, at: At) -> Vec<f64>;

    /// The gradient that the optimizer takes, from what was released. It follows the [`Way::ask`] of the same step.
    fn gradient(&mut self, released: &[f32]) -> Vec<f32>;

    /// Takes the step: with the optimizer, along [`Way::gradient`].
    fn step(&mut self, released: &[f32], values: &mut [f32], optimizer: &mut Optimizer, learning_rate: f32) {
        optimizer.step(values, &self.gradient(released), learning_rate);
    }
}

/// The way that `update` names, for `len` trained values; `public` is asked by the ways that take public gradients.
///
/// # Panics
/// The norm is that of Laplace noise, and the way shows more than a few numbers (P5). It is [`Update::NormalEquations`], which are of features: see [`normal_equations`].
pub fn of<'a>(update: Update, len: usize, clip: Clip, public: Public<'a>) -> Box<dyn Way + 'a> {
    assert!(
        clip.norm == Norm::Euclidean || matches!(update, Update::ZerothOrder { .. }),
        "gradients are bounded by their Euclidean norm"
    );
    match update {
        Update::Gradient {} => Box::new(gradient::Gradient::new(len, clip)),
        Update::Flat { radius, ascent } => Box::new(flat::Flat::new(len, clip, radius, ascent)),
        Update::ZerothOrder { directions, radius } => {
            Box::new(zeroth_order::ZerothOrder::new(len, clip, directions, radius))
        }
        Update::Projection { directions } => Box::new(projection::Projection::new(len, clip, directions, public)),
        Update::Candidates { directions } => Box::new(candidates::Candidates::new(len, clip, directions, public)),
        Update::NormalEquations {} => unreachable!("the configuration has them on features alone"),
    }
}

/// Gradients of public records at `values`, one for each that can be read.
pub type Public<'a> = Box<dyn Fn(&[f32]) -> Vec<Vec<f32>> + 'a>;

/// ‖v‖₂ in f64.
pub(crate) fn norm(v: &[f32]) -> f64 {
    Norm::Euclidean.of(v)
}

/// ⟨a, b⟩ in f64.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `v` at length 1; none where it has no length, or is not finite.
pub(crate) fn unit(mut v: Vec<f32>) -> Option<Vec<f32>> {
    let length = norm(&v);
    v.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    (length > 0.0 && length.is_finite()).then_some(v)
}

/// `from` and `by` times `direction`.
pub(crate) fn moved(from: &[f32], by: f64, direction: &[f32]) -> Vec<f32> {
    let step = |(v, d): (&f32, &f32)| (f64::from(*v) + by * f64::from(*d)) as f32;
    from.iter().zip(direction).map(step).collect()
}
