//! From logits to one token: label guidance, temperature, nucleus, draw.

use rand::{Rng, RngExt};

/// How a token is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Above 0; 1 leaves the distribution as it is.
    pub temperature: f64,
    /// Holtzman et al. 2020; 1 keeps every token.
    pub top_p: f64,
    /// γ of log p(x|y) + γ·(log p(x|y) − log p(x|other labels)); 0 is plain sampling.
    pub guidance: f64,
}

/// Draws a token from `own` logits, contrasted with the mean probability under `others`' logits.
pub fn draw(own: &[f32], others: &[&[f32]], choice: Choice, rng: &mut impl Rng) -> u32 {
    let mut scores = log_softmax(own);
    if choice.guidance > 0.0 && !others.is_empty() {
        let others: Vec<Vec<f32>> = others.iter().map(|o| log_softmax(o)).collect();
        let gamma = choice.guidance as f32;
        for (i, s) in scores.iter_mut().enumerate() {
            let contrast = log_mean_exp(others.iter().map(|o| o[i]));
            *s += gamma * (*s - contrast);
        }
    }
    let peak = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let inverse = 1.0 / choice.temperature as f32;
    scores.iter_mut().for_each(|s| *s = ((*s - peak) * inverse).exp());
    if choice.top_p < 1.0 {
        keep_nucleus(&mut scores, choice.top_p);
    }
    let total: f64 = scores.iter().map(|s| f64::from(*s)).sum();
    let mut left = rng.random::<f64>() * total;
    for (i, s) in scores.iter().enumerate() {
        left -= f64::from(*s);
        if left < 0.0 {
            return i as u32;
        }
    }
    // Rounding can leave a crumb: the last token that has any probability.
    scores.iter().rposition(|s| *s > 0.0).unwrap_or(0) as u32
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|x| (x - peak).exp()).sum();
    let shift = peak + total.ln();
    logits.iter().map(|x| x - shift).collect()
}

fn log_mean_exp(values: impl ExactSizeIterator<Item = f32> + Clone) -> f32 {
    let n = values.len() as f32;
    let peak = values.clone().fold(f32::NEG_INFINITY, f32::max);
    peak + (values.map(|v| (v - peak).exp()).sum::<f32>() / n).ln()
}

/// Zeroes all but the smallest set of most probable tokens that holds `top_p` of the mass.
fn keep_nucleus(weights: &mut [f32], top_p: f64) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_unstable_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let mut held = 0.0;
    for i in order {
        if held >= top_p * total {
            weights[i] = 0.0;
        } else {
            held += f64::from(weights[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const PLAIN: Choice = Choice {
        temperature: 1.0,
        top_p: 1.0,
        guidance: 0.0,
    };

    fn shares(own: &[f32], others: &[&[f32]], choice: Choice) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = vec![0f64; own.len()];
        for _ in 0..20_000 {
            seen[draw(own, others, choice, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        seen
    }

    #[test]
    fn plain_sampling_follows_the_softmax() {
        let own = [0.0, 1.0f32.ln() + 0.7, -1.0];
        let total: f32 = own.iter().map(|x| x.exp()).sum();
        for (got, logit) in shares(&own, &[], PLAIN).iter().zip(own) {
            assert!((got - f64::from(logit.exp() / total)).abs() < 0.015);
        }
    }

    #[test]
    fn guidance_multiplies_by_the_likelihood_ratio() {
        let (own, other) = ([0.5f32.ln(), 0.5f32.ln()], [0.8f32.ln(), 0.2f32.ln()]);
        let got = shares(&own, &[&other], Choice { guidance: 1.0, ..PLAIN });
        // 0.5·(0.5/0.8) : 0.5·(0.5/0.2) = 1 : 4.
        assert!((got[1] - 0.8).abs() < 0.015, "{got:?}");
    }

    #[test]
    fn a_nucleus_drops_the_tail() {
        let own = [0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        let got = shares(&own, &[], Choice { top_p: 0.85, ..PLAIN });
        assert_eq!(got[2], 0.0);
        assert!((got[0] - 2.0 / 3.0).abs() < 0.015);
    }
}
