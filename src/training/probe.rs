//! An identity whose backward hands the gradient to a leaf: how the gradient of an inner value is seen.
//!
//! Burn keeps gradients of leaves only; this op costs no arithmetic and no copy.

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops},
};
use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;

#[cfg(not(feature = "cuda-plain"))]
#[backend_extension(Autodiff, Flex)]
pub trait Probe: Backend {
    fn probe(x: FloatTensor<Self>, tag: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cuda-plain")]
#[backend_extension(Autodiff, Flex, Cube)]
pub trait Probe: Backend {
    fn probe(x: FloatTensor<Self>, tag: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Probe for Flex {
    fn probe(x: FloatTensor<Self>, _tag: FloatTensor<Self>) -> FloatTensor<Self> {
        x
    }
}

#[cfg(feature = "cuda-plain")]
impl Probe for burn::backend::Cube {
    fn probe(x: FloatTensor<Self>, _tag: FloatTensor<Self>) -> FloatTensor<Self> {
        x
    }
}

#[derive(Debug)]
struct ProbeBackward;

impl<B: Backend> Backward<B, 2> for ProbeBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [value, tag] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        for parent in [tag, value].into_iter().flatten() {
            grads.register::<B>(parent.id, gradient.clone());
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> Probe for Autodiff<B, C> {
    fn probe(x: FloatTensor<Self>, tag: FloatTensor<Self>) -> FloatTensor<Self> {
        let (value, node) = x.into_parts();
        ProbeBackward
            .prepare::<C>([node, tag.node()])
            .compute_bound()
            .stateless(value)
    }
}

/// `x` unchanged, and a tag whose `.grad(&gradients)` is the gradient of the loss by `x` after backward; its values are those
/// of `none`, and nothing reads them.
pub fn probe<const D: usize>(x: Tensor<D>, none: &Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    let tag = Tensor::from_inner(none.clone()).require_grad();
    let y = <Dispatch as Probe>::probe(x.into_dispatch(), tag.clone().into_dispatch());
    (Tensor::from_dispatch(y), tag)
}
