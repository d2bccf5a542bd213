use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use cubecl::prelude::*;

use super::Norm;
use crate::models::fused::gpu::{by_row, columns, like, own_row, warp_sum};

/// 1 / √(mean x² + ε) of the row that begins at `first`.
#[cube]
fn scale(x: &Tensor<f32>, first: usize, width: usize, epsilon: f32) -> f32 {
    let mut squares = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        let value = x[first + i];
        squares += value * value;
        i += CUBE_DIM_X as usize;
    }
    1.0f32 / (warp_sum(squares) / f32::cast_from(width as u32) + epsilon).sqrt()
}

#[cube(launch, address_type = "dynamic")]
fn rms_norm(x: &Tensor<f32>, gain: &Tensor<f32>, y: &mut Tensor<f32>, epsilon: f32) {
    let width = gain.len();
    let row = own_row();
    if row >= x.shape(0) {
        terminate!();
    }
    let (first, to) = (row * x.stride(0), row * width);
    let scale = scale(x, first, width, epsilon);
    let mut i = UNIT_POS_X as usize;
    while i < width {
        y[to + i] = x[first + i] * scale * gain[i];
        i += CUBE_DIM_X as usize;
    }
}

/// With h = gradient·gain: s·h − x·s³·mean(h·x).
#[cube(launch, address_type = "dynamic")]
fn rms_norm_backward(
    x: &Tensor<f32>,
    gain: &Tensor<f32>,
    gradient: &Tensor<f32>,
    by_x: &mut Tensor<f32>,
    epsilon: f32,
) {
    let width = gain.len();
    let row = own_row();
    if row >= x.shape(0) {
        terminate!();
    }
    let (first, given, to) = (row * x.stride(0), row * gradient.stride(0), row * width);
    let scale = scale(x, first, width, epsilon);
    let mut dot = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    while i < width {
        dot += gradient[given + i] * gain[i] * x[first + i];
        i += CUBE_DIM_X as usize;
    }
    let along = scale * scale * scale * warp_sum(dot) / f32::cast_from(width as u32);
    let mut i = UNIT_POS_X as usize;
    while i < width {
        by_x[to + i] = scale * gradient[given + i] * gain[i] - along * x[first + i];
        i += CUBE_DIM_X as usize;
    }
}

impl Norm for Cube {
    fn rms_norm(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let x = columns(x);
        let (y, (blocks, threads)) = (like(&x), by_row(x.meta.shape()[0]));
        rms_norm::launch(
            &y.client,
            blocks,
            threads,
            x.required_address_type(),
            x.into_tensor_arg(),
            gain.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            epsilon as f32,
        );
        y
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, gradient) = (columns(x), columns(gradient));
        let (by_x, (blocks, threads)) = (like(&x), by_row(x.meta.shape()[0]));
        rms_norm_backward::launch(
            &by_x.client,
            blocks,
            threads,
            x.required_address_type().max(gradient.required_address_type()),
            x.into_tensor_arg(),
            gain.into_tensor_arg(),
            gradient.into_tensor_arg(),
            by_x.clone().into_tensor_arg(),
            epsilon as f32,
        );
        by_x
    }
}
