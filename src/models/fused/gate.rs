//! SwiGLU and GeGLU (Shazeer 2020): both are x·σ(v(x))·up, with v(x) = x, or twice the inner part of GELU's approximation by tanh
//! (Hendrycks and Gimpel 2016), since (1 + tanh u) / 2 = σ(2u).

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
use super::exp::exp;
use super::has_kernel;
use super::lanes::{Pass, vectorised};

#[cfg(feature = "cuda-plain")]
mod gpu;

/// silu(gate)·up with silu(x) = x·σ(x), each `[n, hidden]`.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !has_kernel(&gate) || !has_kernel(&up) {
        return composed::swiglu(gate, up);
    }
    gated(gate, up, Activation::Silu)
}

/// gelu(gate)·up with GELU's approximation by tanh, each `[n, hidden]`.
pub fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !has_kernel(&gate) || !has_kernel(&up) {
        return composed::geglu(gate, up);
    }
    gated(gate, up, Activation::Gelu)
}

fn gated(gate: Tensor<2>, up: Tensor<2>, by: Activation) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Gate>::gated(gate.into_dispatch(), up.into_dispatch(), by))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Activation {
    Silu,
    Gelu,
}

/// v(x) and its derivative.
#[inline(always)]
fn identity(x: f32) -> (f32, f32) {
    (x, 1.0)
}

#[inline(always)]
fn inside_gelu(x: f32) -> (f32, f32) {
    // 2·√(2/π)
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let square = CUBE * x * x;
    (TWICE * x * (1.0 + square), TWICE * (1.0 + 3.0 * square))
}

#[cfg_attr(not(feature = "cuda-plain"), backend_extension(Autodiff, Flex))]
#[cfg_attr(feature = "cuda-plain", backend_extension(Autodiff, Flex, Cube))]
trait Gate: Backend {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, by: Activation) -> FloatTensor<Self>;
    /// The gradients by `gate` and by `up`.
    fn gated_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        by: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// σ(x) = 1 / (1 + e⁻ˣ); e^−|x| cannot overflow.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

struct Forward;

impl Pass<(&mut [f32], &[f32], &[f32], Activation)> for Forward {
    type Output = ();

    #[inline(always)]
    fn run((y, gate, up, by): (&mut [f32], &[f32], &[f32], Activation)) {
        match by {
            Activation::Silu => forward(y, gate, up, identity),
            Activation::Gelu => forward(y, gate, up, inside_gelu),
        }
    }
}

#[inline(always)]
fn forward(y: &mut [f32], gate: &[f32], up: &[f32], inner: impl Fn(f32) -> (f32, f32)) {
    for ((y, x), up) in y.iter_mut().zip(gate).zip(up) {
        *y = x * sigmoid(inner(*x).0) * up;
    }
}

/// The gradients by `gate` and by `up`, in the places of `gate` and of the output's gradient.
struct InputGradients;

impl Pass<(&mut [f32], &mut [f32], &[f32], Activation)> for InputGradients {
    type Output = ();

    #[inline(always)]
    fn run((gate, gradient, up, by): (&mut [f32], &mut [f32], &[f32], Activation)) {
        match by {
            Activation::Silu => input_gradients(gate, gradient, up, identity),
            Activation::Gelu => input_gradients(gate, gradient, up, inside_gelu),
        }
    }
}

#[inline(always)]
fn input_gradients(gate: &mut [f32], gradient: &mut [f32], up: &[f32], inner: impl Fn(f32) -> (f32, f32)) {
    for ((gate, gradient), up) in gate.iter_mut().zip(gradient).zip(up) {
        let (x, g) = (*gate, *gradient);
        let (v, slope) = inner(x);
        let s = sigmoid(v);
        *gate = g * up * s * (1.0 + x * (1.0 - s) * slope);
        *gradient = g * x * s;
    }
}

impl Gate for Flex {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, by: Activation) -> FloatTensor<Self> {
        let hidden = gate.layout().shape()[1];
        let (gate, up) = (contiguous(gate), contiguous(up));
        let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
        let mut y = vec![0f32; gate.len()];
        let tasks = y
            .par_chunks_mut(CHUNK)
            .zip(gate.par_chunks(CHUNK))
            .zip(up.par_chunks(CHUNK));
        tasks.for_each(|((y, gate), up)| vectorised(Forward, (y, gate, up, by)));
        tensor(y, hidden)
    }

    fn gated_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        by: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        // What comes in is written over where nobody else holds it.
        let (mut gate, up, mut gradient) = (contiguous(gate), contiguous(up), contiguous(gradient));
        let gates = gate.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let gradients = gradient.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let tasks = gates.zip(gradients).zip(up.storage::<f32>().par_chunks(CHUNK));
        tasks.for_each(|((gate, gradient), up)| vectorised(InputGradients, (gate, gradient, up, by)));
        (gate, gradient)
    }
}

#[derive(Debug)]
struct GateBackward;

impl<B: Gate> Backward<B, 2> for GateBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate, up] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (at_gate, at_up, by) = ops.state;
        let (by_gate, by_up) = B::gated_backward(at_gate, at_up, gradient, by);
        for (parent, gradient) in [(gate, by_gate), (up, by_up)] {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Gate, C: CheckpointStrategy> Gate for Autodiff<B, C> {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, by: Activation) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        match GateBackward
            .prepare::<C>([gate_node, up_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let y = B::gated(gate.clone(), up.clone(), by);
                step.finish((gate, up, by), y)
            }
            OpsKind::UnTracked(step) => step.finish(B::gated(gate, up, by)),
        }
    }

    fn gated_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("second derivatives are never asked for")
    }
}
