//! RMSNorm (Zhang and Sennrich 2019).

use burn::tensor::Tensor;

/// `x [n, width]`, each row over its root mean square, times `gain [width]`.
pub fn rms_norm(x: Tensor<2>, gain: &Tensor<1>, epsilon: f64) -> Tensor<2> {
    let scale = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
    x * scale * gain.clone().unsqueeze()
}
