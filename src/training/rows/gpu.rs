use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, backend_extension};
use cubecl::prelude::*;
use cubecl::zspace::metadata::Metadata;

use crate::models::fused::gpu::{by_part, by_value, columns, shaped, warp_sum};
use crate::models::product::exact as product;

#[backend_extension(Cube)]
pub(super) trait OfRows: Backend {
    /// As [`super::squares`].
    fn squares(each: FloatTensor<Self>) -> FloatTensor<Self>;
    /// As [`super::weighted`].
    fn weighted(each: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;
    /// leftᵢᵀ·rightᵢ of `[rows, T, a]` and `[rows, T, b]` written into `out [rows, n]` from column `start` on.
    fn form(
        left: FloatTensor<Self>,
        right: FloatTensor<Self>,
        out: FloatTensor<Self>,
        start: usize,
    ) -> FloatTensor<Self>;
}

/// Values whose squares a block adds up.
const PART: usize = 8192;

/// A part of a row is one block's: each thread adds up its own values, the first of each warp its warp's, then one all warps'.
#[cube(launch, address_type = "dynamic")]
fn squares_kernel(each: &Tensor<f32>, out: &mut Tensor<f32>, #[comptime] warps: usize) {
    let (part, row, width) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, each.shape(1));
    let first = row * each.stride(0);
    let end = min((part + 1) * PART, width);
    let mut sum = 0.0f32;
    let mut i = part * PART + UNIT_POS as usize;
    while i < end {
        let value = each[first + i];
        sum += value * value;
        i += CUBE_DIM as usize;
    }
    let mut sums = Shared::<[f32]>::new_slice(warps);
    let of_warp = warp_sum(sum);
    if UNIT_POS_X == 0 {
        sums[UNIT_POS_Y as usize] = of_warp;
    }
    sync_cube();
    if UNIT_POS == 0 {
        let mut all = 0.0f32;
        for warp in 0..warps {
            all += sums[warp];
        }
        out[row * CUBE_COUNT_X as usize + part] = all;
    }
}

/// A column is one thread's.
#[cube(launch, address_type = "dynamic")]
fn weighted_kernel(each: &Tensor<f32>, factors: &Tensor<f32>, out: &mut Tensor<f32>) {
    let width = each.shape(1);
    if ABSOLUTE_POS >= width {
        terminate!();
    }
    let mut sum = 0.0f32;
    for row in 0..each.shape(0) {
        sum += factors[row] * each[row * each.stride(0) + ABSOLUTE_POS];
    }
    out[ABSOLUTE_POS] = sum;
}

impl OfRows for Cube {
    fn squares(each: FloatTensor<Self>) -> FloatTensor<Self> {
        let each = columns(each);
        let [records, width] = [0, 1].map(|axis| each.meta.shape()[axis]);
        let parts = width.div_ceil(PART).max(1);
        let (out, (blocks, threads)) = (shaped(&each, [records * parts]), by_part(parts, records));
        squares_kernel::launch(
            &out.client,
            blocks,
            threads,
            each.required_address_type(),
            each.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            threads.y as usize,
        );
        out
    }

    fn weighted(each: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        let each = columns(each);
        let width = each.meta.shape()[1];
        let (out, (blocks, threads)) = (shaped(&each, [width]), by_value(width));
        weighted_kernel::launch(
            &out.client,
            blocks,
            threads,
            each.required_address_type(),
            each.into_tensor_arg(),
            factors.into_tensor_arg(),
            out.clone().into_tensor_arg(),
        );
        out
    }

    fn form(
        left: FloatTensor<Self>,
        right: FloatTensor<Self>,
        out: FloatTensor<Self>,
        start: usize,
    ) -> FloatTensor<Self> {
        let [rows, a, b] = [left.meta.shape()[0], left.meta.shape()[2], right.meta.shape()[2]];
        let mut own = out.clone();
        own.handle = own.handle.offset_start((start * size_of::<f32>()) as u64);
        own.meta = Box::new(Metadata::new([rows, a, b], [out.meta.strides()[0], b, 1]));
        product::into(Cube::float_swap_dims(left, 1, 2), right, own);
        out
    }
}
