//! What the CPU's kernels share: tensors from and to plain slices.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

/// Elements a task, about what a core's second cache holds.
pub const CHUNK: usize = 1 << 14;

/// `x` in a buffer of its own length and order: its own buffer where that is so.
pub fn contiguous(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    // By value, so that a buffer with one owner keeps one owner and is written in place.
    x.to_contiguous()
}

/// `[n, width]` out of rows side by side.
pub fn tensor(values: Vec<f32>, width: usize) -> FloatTensor<Flex> {
    let rows = values.len() / width.max(1);
    FloatTensor::<Flex>::from_data(TensorData::new(values, [rows, width]))
}
