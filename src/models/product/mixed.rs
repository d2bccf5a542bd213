//! Products in bf16 on a GPU with a result in f32. Tensor cores add up in f32; Burn would round that to bf16 and cast it back.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, Dispatch, backend_extension};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};

/// Whether `x` in f32 times `w` in bf16 is computed here.
pub(super) fn is_needed(x: &Tensor<2>, w: &Tensor<2>) -> bool {
    (x.dtype(), w.dtype()) == (DType::F32, DType::BF16) && x.device() != Device::flex()
}

/// `x [n, k]` in f32, rounded to bf16, times `w [k, m]` in bf16; no gradient by `w` is taken.
pub(super) fn product(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Mixed>::mixed(x.into_dispatch(), w.into_dispatch()))
}

#[backend_extension(Autodiff, Cube)]
trait Mixed: Backend {
    fn mixed(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Mixed for Cube {
    fn mixed(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = Self::float_cast(x, FloatDType::BF16);
        matmul(x, w, None, MatmulStrategy::default(), DType::F32)
            .expect("a product of bf16 runs on every GPU that has it")
    }
}

#[derive(Debug)]
struct MixedBackward;

impl<B: Mixed> Backward<B, 1> for MixedBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::mixed(gradient, B::float_transpose(ops.state)));
        }
    }
}

impl<B: Mixed, C: CheckpointStrategy> Mixed for Autodiff<B, C> {
    fn mixed(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, node), w) = (x.into_parts(), w.into_primitive());
        match MixedBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let y = B::mixed(x, w.clone());
                step.finish(w, y)
            }
            OpsKind::UnTracked(step) => step.finish(B::mixed(x, w)),
        }
    }
}
