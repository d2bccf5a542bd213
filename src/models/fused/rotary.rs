//! Rotary embedding (Su et al. 2021) in the rotate-half form.

use burn::tensor::Tensor;

/// Cosines and sines of the positions at hand, `[tokens, head_width / 2]` each.
#[derive(Clone)]
pub struct Rotary {
    pub cos: Tensor<2>,
    pub sin: Tensor<2>,
}

/// `x [rows, heads, tokens, head_width]`, each pair turned by its position's angle.
pub fn rotate(x: Tensor<4>, rotary: &Rotary) -> Tensor<4> {
    let (cos, sin) = (rotary.cos.clone().unsqueeze(), rotary.sin.clone().unsqueeze());
    let half = x.dims()[3] / 2;
    let a = x.clone().narrow(3, 0, half);
    let b = x.narrow(3, half, half);
    let left = a.clone() * cos.clone() - b.clone() * sin.clone();
    let right = b * cos + a * sin;
    Tensor::cat(vec![left, right], 3)
}
