//! x·Φ(x) over all cores.
//!
//! On the CPU Burn's own GELU runs on one core with a software error function: a quarter of an encoder's time.
//! Elsewhere this is Burn's own.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use crate::models::fused::exp::exp;
use crate::models::fused::lanes::{Pass, vectorised};

/// x·Φ(x) with Φ the standard normal distribution function; absolute error under 1e-6 · max(1, |x|).
pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Gelu>::normal_gelu(x.into_dispatch()))
}

#[cfg(not(feature = "cuda-plain"))]
#[backend_extension(Autodiff, Flex)]
trait Gelu: Backend {
    fn normal_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn normal_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cuda-plain")]
#[backend_extension(Autodiff, Flex, Cube)]
trait Gelu: Backend {
    fn normal_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn normal_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cuda-plain")]
impl Gelu for burn::backend::Cube {
    fn normal_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as burn::backend::ops::ActivationOps<Self>>::gelu(x)
    }

    fn normal_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as burn::backend::ops::ActivationOps<Self>>::gelu_backward(x, gradient)
    }
}

/// Elements a task.
const CHUNK: usize = 1 << 14;

struct Forward;

impl Pass<&mut [f32]> for Forward {
    type Output = ();

    #[inline(always)]
    fn run(chunk: &mut [f32]) {
        for x in chunk {
            *x *= distribution_and_density(*x).0;
        }
    }
}

struct InputGradient;

impl Pass<(&mut [f32], &[f32])> for InputGradient {
    type Output = ();

    #[inline(always)]
    fn run((gradient, x): (&mut [f32], &[f32])) {
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let (distribution, density) = distribution_and_density(x);
            *gradient *= distribution + x * density;
        }
    }
}

impl Gelu for Flex {
    fn normal_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.dtype() != DType::F32 {
            return <Self as burn::backend::ops::ActivationOps<Self>>::gelu(x);
        }
        let mut x = x.to_contiguous();
        x.storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| vectorised(Forward, chunk));
        x
    }

    fn normal_gelu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        if x.dtype() != DType::F32 || gradient.dtype() != DType::F32 {
            return <Self as burn::backend::ops::ActivationOps<Self>>::gelu_backward(x, gradient);
        }
        let (x, mut gradient) = (x.to_contiguous(), gradient.to_contiguous());
        let pairs = gradient
            .storage_mut::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(x.storage::<f32>().par_chunks(CHUNK));
        pairs.for_each(|pair| vectorised(InputGradient, pair));
        gradient
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: Gelu> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::normal_gelu_backward(ops.state, gradient));
        }
    }
}

impl<B: Gelu, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn normal_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match GeluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish(x.clone(), B::normal_gelu(x)),
            OpsKind::UnTracked(step) => step.finish(B::normal_gelu(x)),
        }
    }

    fn normal_gelu_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("the second derivative of the encoder is never asked for")
    }
}

/// (Φ(x), φ(x)), without a branch, so that the compiler can vectorise it.
///
/// Φ by Abramowitz and Stegun 7.1.26 (error of Φ at most 7.5e-8), which needs the exponential that φ is made of.
#[inline(always)]
fn distribution_and_density(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    let erf = (1.0 - p * bell).copysign(x);
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    (0.5 * (1.0 + erf), INVERSE_SQRT_TAU * bell)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, activation};

    /// Values and gradients, ours and Burn's, from −12 to 12.
    #[test]
    fn gelu_and_its_gradient_are_those_of_burn() {
        let device = Device::flex().autodiff();
        let points: Vec<f32> = (-24_000..=24_000).map(|i| i as f32 / 2000.0).collect();
        let both = |f: fn(Tensor<1>) -> Tensor<1>| {
            let x = Tensor::<1>::from_floats(points.as_slice(), &device).require_grad();
            let y = f(x.clone());
            let gradient = x.grad(&(y.clone() * x.clone().detach().sin()).sum().backward());
            let values: Vec<f32> = y.try_into_vec_as().expect("f32");
            let gradients: Vec<f32> = gradient.expect("x is tracked").try_into_vec_as().expect("f32");
            values.into_iter().chain(gradients)
        };
        for (i, (ours, theirs)) in both(super::gelu).zip(both(activation::gelu)).enumerate() {
            let x = points[i % points.len()];
            assert!(
                (ours - theirs).abs() < 1e-6 * x.abs().max(1.0),
                "at {x}: {ours}, not {theirs}"
            );
        }
    }

    #[test]
    fn nan_stays_nan_and_infinity_infinity() {
        let x = Tensor::<1>::from_floats([f32::NAN, f32::INFINITY], &Device::flex());
        let y: Vec<f32> = super::gelu(x).try_into_vec_as().expect("f32");
        assert!(y[0].is_nan());
        assert_eq!(y[1], f32::INFINITY);
    }
}
