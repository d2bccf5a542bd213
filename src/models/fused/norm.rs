//! RMSNorm (Zhang and Sennrich 2019).

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::composed;
use super::cpu::{CHUNK, contiguous, tensor};
use super::has_kernel;
use super::lanes::{Pass, dot, vectorised};

#[cfg(feature = "cuda-plain")]
mod gpu;

/// `x [n, width]`, each row over its root mean square, times `gain [width]`.
///
/// In f32 no gradient by `gain` is taken: training sees it as the gradient of the output, record by record.
pub fn rms_norm(x: Tensor<2>, gain: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    if !has_kernel(&x) || !has_kernel(gain) {
        return composed::rms_norm(x, gain, epsilon);
    }
    let y = <Dispatch as Norm>::rms_norm(x.into_dispatch(), gain.clone().into_dispatch(), epsilon);
    Tensor::from_dispatch(y)
}

#[cfg_attr(not(feature = "cuda-plain"), backend_extension(Autodiff, Flex))]
#[cfg_attr(feature = "cuda-plain", backend_extension(Autodiff, Flex, Cube))]
trait Norm: Backend {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
    /// The gradient by `x`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// s = 1 / √(mean x² + ε).
#[inline(always)]
fn scale(x: &[f32], epsilon: f64) -> f32 {
    (1.0 / (f64::from(dot(x, x)) / x.len() as f64 + epsilon).sqrt()) as f32
}

/// Rows of `x` into rows of `y`.
struct Forward;

impl Pass<(&mut [f32], &[f32], &[f32], f64)> for Forward {
    type Output = ();

    #[inline(always)]
    fn run((y, x, gain, epsilon): (&mut [f32], &[f32], &[f32], f64)) {
        let width = gain.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let s = scale(x, epsilon);
            for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                *y = x * s * gain;
            }
        }
    }
}

/// With h = gradient·gain: s·h − x·s³·mean(h·x), in the gradient's place.
struct InputGradient;

impl Pass<(&mut [f32], &[f32], &[f32], f64)> for InputGradient {
    type Output = ();

    #[inline(always)]
    fn run((gradient, x, gain, epsilon): (&mut [f32], &[f32], &[f32], f64)) {
        let width = gain.len();
        for (g, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            g.iter_mut().zip(gain).for_each(|(g, gain)| *g *= gain);
            let s = scale(x, epsilon);
            let along = s * s * s * dot(g, x) / width as f32;
            g.iter_mut().zip(x).for_each(|(g, x)| *g = s * *g - along * x);
        }
    }
}

/// Values of whole rows a task.
fn task(width: usize) -> usize {
    (CHUNK / width).max(1) * width
}

impl Norm for Flex {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let (x, gain) = (contiguous(x), contiguous(gain));
        let (x, gain) = (x.storage::<f32>(), gain.storage::<f32>());
        let mut y = vec![0f32; x.len()];
        let tasks = y.par_chunks_mut(task(gain.len())).zip(x.par_chunks(task(gain.len())));
        tasks.for_each(|(y, x)| vectorised(Forward, (y, x, gain, epsilon)));
        tensor(y, gain.len())
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, gain, mut gradient) = (contiguous(x), contiguous(gain), contiguous(gradient));
        let (x, gain) = (x.storage::<f32>(), gain.storage::<f32>());
        let gradients = gradient.storage_mut::<f32>().par_chunks_mut(task(gain.len()));
        let tasks = gradients.zip(x.par_chunks(task(gain.len())));
        tasks.for_each(|(gradient, x)| vectorised(InputGradient, (gradient, x, gain, epsilon)));
        gradient
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: Norm> Backward<B, 1> for NormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, gain, epsilon) = ops.state;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::rms_norm_backward(x, gain, epsilon, gradient));
        }
    }
}

impl<B: Norm, C: CheckpointStrategy> Norm for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let ((x, node), gain) = (x.into_parts(), gain.into_primitive());
        match NormBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let y = B::rms_norm(x.clone(), gain.clone(), epsilon);
                step.finish((x, gain, epsilon), y)
            }
            OpsKind::UnTracked(step) => step.finish(B::rms_norm(x, gain, epsilon)),
        }
    }

    fn rms_norm_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: f64,
        _: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        unreachable!("second derivatives are never asked for")
    }
}
