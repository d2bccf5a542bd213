//! The models, one readable file each, and their loaders.

pub mod bert;
pub mod cache;
pub mod device;
pub mod fused;
pub mod llama;
pub mod load;
pub mod lora;
pub mod weights;

use burn::tensor::Tensor;

/// A tensor's values on the host.
pub fn read<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.into_data().try_into_vec::<f32>().expect("the tensor holds f32")
}

/// `x·w`, multiplied in the element type of `w` and given in that of `x`.
pub fn product(x: Tensor<2>, w: Tensor<2>) -> Tensor<2> {
    let (own, inner) = (x.dtype(), w.dtype());
    if own == inner {
        return x.matmul(w);
    }
    x.cast(inner).matmul(w).cast(own)
}
