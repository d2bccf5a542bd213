//! What the kernels for a GPU share: who works on what, and how a warp adds up.
//!
//! A row is a warp's or a block's, whatever rows stand beside it: how it is summed depends on its width alone (P5).

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::zspace::metadata::Metadata;

/// Threads of a warp.
const WARP: u32 = 32;

/// Warps of a block.
const WARPS: u32 = 8;

/// A warp for each of `rows`.
pub fn by_row(rows: usize) -> (CubeCount, CubeDim) {
    let blocks = rows.div_ceil(WARPS as usize) as u32;
    (CubeCount::new_1d(blocks), CubeDim::new_2d(WARP, WARPS))
}

/// The warp's row, of those shared out by [`by_row`].
#[cube]
pub fn own_row() -> usize {
    (CUBE_POS_X * CUBE_DIM_Y + UNIT_POS_Y) as usize
}

/// A block for each of `parts` of each of `rows`.
pub fn by_part(parts: usize, rows: usize) -> (CubeCount, CubeDim) {
    (
        CubeCount::new_2d(parts as u32, rows as u32),
        CubeDim::new_2d(WARP, WARPS),
    )
}

/// A thread for each of `values`.
pub fn by_value(values: usize) -> (CubeCount, CubeDim) {
    let blocks = values.div_ceil((WARP * WARPS) as usize) as u32;
    (CubeCount::new_1d(blocks), CubeDim::new_1d(WARP * WARPS))
}

/// `x [n, width]` with the values of a row side by side; Burn leaves gaps between rows, which kernels pass over.
pub fn columns(x: CubeTensor) -> CubeTensor {
    match x.meta.strides()[1] == 1 {
        true => x,
        false => into_contiguous(x),
    }
}

/// The `rows` rows of `x [n, width]` from `first` on, without a copy.
pub fn from_row(mut x: CubeTensor, first: usize, rows: usize) -> CubeTensor {
    let (width, row) = (x.meta.shape()[1], x.meta.strides()[0]);
    x.handle = x.handle.offset_start((first * row * x.dtype.size()) as u64);
    x.meta = Box::new(Metadata::new([rows, width], [row, 1]));
    x
}

/// As many values as `x` has, in its shape, row after row without gaps, and without any meaning yet.
pub fn like(x: &CubeTensor) -> CubeTensor {
    shaped(x, x.meta.shape().to_vec())
}

/// Values of `shape` where `x` is; as [`like`].
pub fn shaped(x: &CubeTensor, shape: impl Into<burn::tensor::Shape>) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape.into(), x.dtype)
}

/// Σ over the lanes of a warp, all of which come here. They are made to meet first: behind a loop that some leave sooner, a sum
/// among those that happen to be there would miss the others, and a norm would come out too small (P5).
#[cube]
pub fn warp_sum(x: f32) -> f32 {
    sync_plane();
    plane_sum(x)
}

/// The largest over the lanes of a warp, as [`warp_sum`].
#[cube]
pub fn warp_max(x: f32) -> f32 {
    sync_plane();
    plane_max(x)
}
