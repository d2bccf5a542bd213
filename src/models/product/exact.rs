//! Products of f32 on a GPU without its tensor cores.

use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, Dispatch, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::kernel::matmul::init_matmul_output;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level;
use cubek::std::InputBinding;

/// Whether Burn's own product would round the factors.
pub(super) fn is_needed<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() != Device::flex()
}

/// `a [.., n, k]` · `b [.., k, m]`, the leading axes alike.
pub(super) fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let (leading, others) = (&a.dims()[..D - 2], &b.dims()[..D - 2]);
    assert_eq!(leading, others, "the backward pass gives each factor its own shape");
    Tensor::from_dispatch(<Dispatch as Exact>::exact(a.into_dispatch(), b.into_dispatch()))
}

#[backend_extension(Autodiff, Flex, Cube)]
trait Exact: Backend {
    fn exact(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Exact for Flex {
    fn exact(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(a, b)
    }
}

impl Exact for Cube {
    fn exact(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        on_gpu(a, b)
    }
}

/// The same of a GPU's own tensors, in f32.
pub(crate) fn on_gpu(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let out = init_matmul_output(&a, &b, DType::F32);
    into(a, b, out.clone());
    out
}

/// The same, written where `out` is, which may be a part of something larger.
pub(crate) fn into(a: CubeTensor, b: CubeTensor, out: CubeTensor) {
    let f32 = ElemType::Float(FloatKind::F32);
    let client = out.client.clone();
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems {
        lhs: f32,
        rhs: f32,
        out: f32,
    });
    launch_ref(
        &multi_level::Strategy::SimpleUnit(Default::default()).into(),
        &client,
        InputBinding::new(a.binding(), f32),
        InputBinding::new(b.binding(), f32),
        out.binding(),
        &mut types,
    )
    .expect("a product of f32 that needs no tensor cores runs on every GPU");
}

#[derive(Debug)]
struct ExactBackward;

impl<B: Exact> Backward<B, 2> for ExactBackward {
    /// The factors, where the other's gradient is asked for.
    type State = [Option<NodeId>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [a, b] = ops.state;
        let [parent_a, parent_b] = ops.parents;
        if let (Some(parent), Some(b)) = (parent_a, b) {
            let b = B::float_transpose(checkpointer.retrieve_node_output(b));
            grads.register::<B>(parent.id, B::exact(gradient.clone(), b));
        }
        if let (Some(parent), Some(a)) = (parent_b, a) {
            let a = B::float_transpose(checkpointer.retrieve_node_output(a));
            grads.register::<B>(parent.id, B::exact(a, gradient));
        }
    }
}

impl<B: Exact, C: CheckpointStrategy> Exact for Autodiff<B, C> {
    fn exact(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let tracked = [a.is_tracked(), b.is_tracked()];
        match ExactBackward
            .prepare::<C>([a.node(), b.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut step) => {
                let state = [
                    tracked[1].then(|| step.checkpoint(&a)),
                    tracked[0].then(|| step.checkpoint(&b)),
                ];
                let ((a, _), (b, _)) = (a.into_parts(), b.into_parts());
                step.finish(state, B::exact(a, b))
            }
            OpsKind::UnTracked(step) => {
                let ((a, _), (b, _)) = (a.into_parts(), b.into_parts());
                step.finish(B::exact(a, b))
            }
        }
    }
}
