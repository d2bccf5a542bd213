//! The same operations by Burn's own: what runs in other element types than f32, layer norm, and what the kernels are
//! compared with.

use burn::tensor::{Bool, Tensor, activation};

use super::attention::{Heads, attention};
use super::rotary::{Rotary, rotate};

/// As [`super::rms_norm`].
pub fn rms_norm(x: Tensor<2>, gain: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    let scale = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    x * scale * gain.clone().unsqueeze()
}

/// `x [n, width]`, each row less its mean, over its standard deviation, times `gain [width]` (Ba, Kiros and Hinton 2016).
pub fn layer_norm(x: Tensor<2>, gain: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let scale = (centred.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    centred * scale * gain.clone().unsqueeze()
}

/// As [`super::swiglu`].
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// As [`super::geglu`].
pub fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::gelu_approximate(gate) * up
}

/// As [`super::causal_attention`].
pub fn causal_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: Heads, rotary: &Rotary) -> Tensor<2> {
    let tokens = shape.tokens;
    let mut hidden = Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, &q.device());
    if let Some(window) = shape.window.filter(|window| *window < tokens) {
        let before = Tensor::<2, Bool>::triu_mask([tokens, tokens], 1 - window as i64, &q.device());
        hidden = hidden.bool_or(before);
    }
    let k = rotate(shape.split(k, shape.kv_heads), rotary);
    let v = shape.split(v, shape.kv_heads);
    attention(q, k, v, shape, rotary, hidden.unsqueeze::<4>())
}
