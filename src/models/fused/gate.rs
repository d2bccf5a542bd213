//! SwiGLU (Shazeer 2020).

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
use super::cpu::{CHUNK, contiguous, runs_here, tensor};
use super::exp::exp;
use super::lanes::vectorised;

/// silu(gate)·up with silu(x) = x·σ(x), each `[n, hidden]`.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !runs_here(&gate) || !runs_here(&up) {
        return composed::swiglu(gate, up);
    }
    Tensor::from_dispatch(<Dispatch as Gate>::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

#[backend_extension(Autodiff, Flex)]
trait Gate: Backend {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
    /// The gradients by `gate` and by `up`.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// σ(x) = 1 / (1 + e⁻ˣ); e^−|x| cannot overflow.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

impl Gate for Flex {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let hidden = gate.layout().shape()[1];
        let (gate, up) = (contiguous(gate), contiguous(up));
        let (gate, up) = (gate.storage::<f32>(), up.storage::<f32>());
        let mut y = vec![0f32; gate.len()];
        let chunks = y
            .par_chunks_mut(CHUNK)
            .zip(gate.par_chunks(CHUNK))
            .zip(up.par_chunks(CHUNK));
        chunks.for_each(|((y, gate), up)| {
            vectorised(|| {
                for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * sigmoid(*gate) * up;
                }
            });
        });
        tensor(y, hidden)
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        // What comes in is written over where nobody else holds it.
        let (mut gate, up, mut gradient) = (contiguous(gate), contiguous(up), contiguous(gradient));
        let gates = gate.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let gradients = gradient.storage_mut::<f32>().par_chunks_mut(CHUNK);
        let chunks = gates.zip(gradients).zip(up.storage::<f32>().par_chunks(CHUNK));
        chunks.for_each(|((gate, gradient), up)| {
            vectorised(|| {
                for ((gate, gradient), up) in gate.iter_mut().zip(gradient).zip(up) {
                    let (x, g) = (*gate, *gradient);
                    let s = sigmoid(x);
                    *gate = g * up * s * (1.0 + x * (1.0 - s));
                    *gradient = g * x * s;
                }
            });
        });
        (gate, gradient)
    }
}

#[derive(Debug)]
struct GateBackward;

impl<B: Gate> Backward<B, 2> for GateBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [gate, up] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (by_gate, by_up) = B::swiglu_backward(ops.state.0, ops.state.1, gradient);
        for (parent, gradient) in [(gate, by_gate), (up, by_up)] {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Gate, C: CheckpointStrategy> Gate for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        match GateBackward
            .prepare::<C>([gate_node, up_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let y = B::swiglu(gate.clone(), up.clone());
                step.finish((gate, up), y)
            }
            OpsKind::UnTracked(step) => step.finish(B::swiglu(gate, up)),
        }
    }

    fn swiglu_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("second derivatives are never asked for")
    }
}
