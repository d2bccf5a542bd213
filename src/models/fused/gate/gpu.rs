use burn::backend::Cube;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Activation, Gate};
use crate::models::fused::gpu::{by_value, columns, like};

/// 2·√(2/π)
const TWICE: f32 = 1.595_769;
const CUBE: f32 = 0.044_715;

/// v(x) of the activation x·σ(v(x)).
#[cube]
fn inner(x: f32, #[comptime] by: Activation) -> f32 {
    match by {
        Activation::Silu => x,
        Activation::Gelu => TWICE * x * (1.0 + CUBE * x * x),
    }
}

/// Its derivative.
#[cube]
fn slope(x: f32, #[comptime] by: Activation) -> f32 {
    match by {
        Activation::Silu => 1.0f32.runtime(),
        Activation::Gelu => TWICE * (1.0 + 3.0 * CUBE * x * x),
    }
}

/// An exponential that overflows leaves 0.
#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cube(launch, address_type = "dynamic")]
fn gated(gate: &Tensor<f32>, up: &Tensor<f32>, y: &mut Tensor<f32>, #[comptime] by: Activation) {
    if ABSOLUTE_POS >= y.len() {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / y.shape(1), ABSOLUTE_POS % y.shape(1));
    let x = gate[row * gate.stride(0) + column];
    y[ABSOLUTE_POS] = x * sigmoid(inner(x, by)) * up[row * up.stride(0) + column];
}

#[cube(launch, address_type = "dynamic")]
fn gated_backward(
    gate: &Tensor<f32>,
    up: &Tensor<f32>,
    gradient: &Tensor<f32>,
    by_gate: &mut Tensor<f32>,
    by_up: &mut Tensor<f32>,
    #[comptime] by: Activation,
) {
    if ABSOLUTE_POS >= by_gate.len() {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / by_gate.shape(1), ABSOLUTE_POS % by_gate.shape(1));
    let (x, g) = (
        gate[row * gate.stride(0) + column],
        gradient[row * gradient.stride(0) + column],
    );
    let s = sigmoid(inner(x, by));
    by_gate[ABSOLUTE_POS] = g * up[row * up.stride(0) + column] * s * (1.0 + x * (1.0 - s) * slope(x, by));
    by_up[ABSOLUTE_POS] = g * x * s;
}

impl Gate for Cube {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, by: Activation) -> FloatTensor<Self> {
        let (gate, up) = (columns(gate), columns(up));
        let (y, (blocks, threads)) = (like(&gate), by_value(gate.meta.num_elements()));
        gated::launch(
            &y.client,
            blocks,
            threads,
            gate.required_address_type().max(up.required_address_type()),
            gate.into_tensor_arg(),
            up.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            by,
        );
        y
    }

    fn gated_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        by: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up, gradient) = (columns(gate), columns(up), columns(gradient));
        let (by_gate, by_up) = (like(&gate), like(&gate));
        let (blocks, threads) = by_value(gate.meta.num_elements());
        gated_backward::launch(
            &by_gate.client,
            blocks,
            threads,
            [&gate, &up, &gradient]
                .map(CubeTensor::required_address_type)
                .into_iter()
                .max()
                .unwrap_or_default(),
            gate.into_tensor_arg(),
            up.into_tensor_arg(),
            gradient.into_tensor_arg(),
            by_gate.clone().into_tensor_arg(),
            by_up.clone().into_tensor_arg(),
            by,
        );
        (by_gate, by_up)
    }
}
