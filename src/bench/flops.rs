//! How many floating-point operations a training step needs.

use crate::models::shape::Shape;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trained {
    /// Factors of this rank beside every linear map.
    Lora { rank: usize },
    /// All weights.
    Full,
}

/// Operations of one forward and one backward over a record of `prompt` + `text` tokens, a multiply and an add each
/// counted as one.
///
/// With T = prompt + text − 1 tokens that go in, L layers, and P the sum over a layer's maps of inputs × outputs:
///
/// - forward: 2·L·P·T for the maps; 2·L·2·width·T(T+1)/2 for the scores and the mix of values, each token looking at
///   itself and those before; 2·vocabulary·width·text for the head, at the positions that predict the record;
///   with LoRA 2·L·r·Σ(inputs + outputs)·T more;
/// - backward by activations: as much again for the maps, the factors and the head, and twice as much for attention
///   (four products for the forward's two);
/// - backward by weights: as much again for what is trained: LoRA's factors, or all maps and the head.
///
/// Not counted: norms, rotation, softmax, the gate, embedding, the optimizer; whatever is computed twice, for masked
/// positions, or for privacy's sake alone. It is the same for a private and a non-private step, so that privacy's price
/// lowers the utilisation.
pub fn training(c: &Shape, trained: Trained, prompt: usize, text: usize) -> f64 {
    let tokens = (prompt + text).saturating_sub(1) as f64;
    let maps = 2.0 * c.over_maps(|input, output| input * output) as f64 * tokens;
    let head = 2.0 * (c.vocabulary * c.width * text) as f64;
    let mixed: usize = c.attention.iter().map(|a| 2 * a.heads * a.head_width).sum();
    let attention = 2.0 * mixed as f64 * tokens * (tokens + 1.0) / 2.0;
    match trained {
        Trained::Lora { rank } => {
            let factors = 2.0 * c.over_maps(|input, output| rank * (input + output)) as f64 * tokens;
            2.0 * (maps + head) + 3.0 * factors + 3.0 * attention
        }
        Trained::Full => 3.0 * (maps + head) + 3.0 * attention,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::model_shape;

    #[test]
    fn a_long_record_costs_about_six_operations_a_weight_and_token() {
        let c = model_shape().shape();
        // 106.2 million weights in maps, 28.3 million in the head.
        let weights = 134.5e6;
        let per_token = training(&c, Trained::Full, 1, 512) / 512.0;
        let attention = 6.0 * 30.0 * 2.0 * 576.0 * 512.0 / 2.0;
        assert!(((per_token - attention) / (6.0 * weights) - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_frozen_base_needs_no_gradients_of_its_weights() {
        let c = model_shape().shape();
        let [lora, full] = [Trained::Lora { rank: 16 }, Trained::Full].map(|t| training(&c, t, 40, 64));
        assert!(lora < 0.72 * full && lora > 0.66 * full);
    }
}
