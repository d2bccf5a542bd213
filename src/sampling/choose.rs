//! From logits to one token: label guidance, plausibility, temperature, nucleus, draw.

use burn::tensor::{Bool, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use rand::{Rng, RngExt};

use super::evidence::Lift;
use crate::models::fused::exp::exp;
use crate::models::fused::lanes::{dispatch, largest, sum};

/// How a token is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Above 0; 1 leaves the distribution as it is.
    pub temperature: f64,
    /// Nucleus, Holtzman et al. 2020: the fewest most probable tokens (with all that tie with the last) that hold this
    /// probability; 1 keeps every token.
    pub top_p: f64,
    /// γ of log p(x|y) + γ·(log p(x|y) − log p(x|contrast)); 0 is plain sampling, whatever `plausibility` is.
    pub guidance: f64,
    /// α of the mask of Li et al. 2023 ("Contrastive Decoding", equation 2): a guided or lifted choice is among the tokens whose
    /// own probability, at temperature 1, is at least α times the largest; 0 keeps every token.
    pub plausibility: f64,
}

impl Choice {
    /// The model's own distribution.
    pub const PLAIN: Choice = Choice {
        temperature: 1.0,
        top_p: 1.0,
        guidance: 0.0,
        plausibility: 0.0,
    };
}

/// Draws a token from `own` logits, contrasted with the mean probability under `others`' logits and lifted by `lift`.
pub fn draw(own: &[f32], others: &[&[f32]], lift: Option<Lift>, choice: Choice, rng: &mut impl Rng) -> u32 {
    pick(own, others, lift, choice, rng.random())
}

/// The token at which the distribution function passes `uniform` of [0, 1).
pub fn pick(own: &[f32], others: &[&[f32]], lift: Option<Lift>, choice: Choice, uniform: f64) -> u32 {
    dispatch(
        #[inline(always)]
        || {
            let guided = choice.guidance > 0.0 && !others.is_empty();
            if !guided && lift.is_none() {
                return invert(own, choice, uniform);
            }
            let mut scores = own.to_vec();
            if guided {
                contrast(own, others, choice.guidance as f32, &mut scores);
            }
            if let Some(lift) = lift {
                for (token, value) in lift.tokens.iter().zip(lift.values) {
                    scores[*token as usize] += value;
                }
            }
            if choice.plausibility > 0.0 {
                mask(own, choice.plausibility, &mut scores);
            }
            invert(&scores, choice, uniform)
        },
    )
}

/// Tokens whose weights are summed in f32 before the sum goes on in f64.
const BLOCK: usize = 256;

/// Softmax of `scores` over the temperature, cut to its nucleus, its distribution function inverted at `uniform`.
#[inline(always)]
fn invert(scores: &[f32], choice: Choice, uniform: f64) -> u32 {
    let peak = largest(scores);
    let inverse = 1.0 / choice.temperature as f32;
    // Loops, not `collect`: that is a function of its own, compiled without vector instructions.
    let mut weights = vec![0f32; scores.len()];
    for (weight, score) in weights.iter_mut().zip(scores) {
        let likely = exp((score - peak) * inverse);
        // Not even the 1e-38 that `exp` gives.
        *weight = if *score == f32::NEG_INFINITY { 0.0 } else { likely };
    }
    if choice.top_p < 1.0 {
        keep_nucleus(&mut weights, choice.top_p);
    }
    let mut sums = vec![0f64; weights.len().div_ceil(BLOCK)];
    for (total, weights) in sums.iter_mut().zip(weights.chunks(BLOCK)) {
        *total = f64::from(sum(weights));
    }
    let mut left = uniform * sums.iter().sum::<f64>();
    // Rounding can leave a crumb: then it is the last token passed that has any probability.
    let mut last = 0;
    for (block, (weights, sum)) in weights.chunks(BLOCK).zip(sums).enumerate() {
        if left >= sum && (block + 1) * BLOCK < scores.len() {
            left -= sum;
            continue;
        }
        for (i, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            last = block * BLOCK + i;
            left -= f64::from(*weight);
            if left < 0.0 {
                return last as u32;
            }
        }
    }
    last as u32
}

/// (1 + γ)·log p − γ·log of the mean p of `others`, but for a constant.
#[inline(always)]
fn contrast(own: &[f32], others: &[&[f32]], gamma: f32, scores: &mut [f32]) {
    if let [other] = others {
        for ((s, own), other) in scores.iter_mut().zip(own).zip(*other) {
            *s = own + gamma * (own - other);
        }
        return;
    }
    // log Σ exp of each of them, so that their probabilities can be added.
    let shifts: Vec<f32> = others.iter().map(|other| log_sum_exp(other)).collect();
    scores.fill(f32::NEG_INFINITY);
    for (other, shift) in others.iter().zip(&shifts) {
        for (peak, other) in scores.iter_mut().zip(*other) {
            *peak = peak.max(other - shift);
        }
    }
    let mut means = vec![0f32; own.len()];
    for (other, shift) in others.iter().zip(&shifts) {
        for ((mean, peak), other) in means.iter_mut().zip(scores.iter()).zip(*other) {
            *mean += exp(other - shift - peak);
        }
    }
    for ((s, own), mean) in scores.iter_mut().zip(own).zip(means) {
        *s = own + gamma * (own - (*s + logarithm(mean)));
    }
}

/// Rules out the tokens that are implausible by their own logits.
#[inline(always)]
fn mask(own: &[f32], plausibility: f64, scores: &mut [f32]) {
    let least = largest(own) + plausibility.ln() as f32;
    for (s, own) in scores.iter_mut().zip(own) {
        *s = if *own < least { f32::NEG_INFINITY } else { *s };
    }
}

#[inline(always)]
fn log_sum_exp(logits: &[f32]) -> f32 {
    let peak = largest(logits);
    let mut weights = vec![0f32; logits.len()];
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = exp(logit - peak);
    }
    peak + (weights.chunks(BLOCK).map(|w| f64::from(sum(w))).sum::<f64>().ln()) as f32
}

/// ln x for normal x > 0 without a branch, relative error of x under 1e-6: x = 2ⁿ·m with m in [√½, √2), and ln m by the
/// series of artanh((m − 1)/(m + 1)).
#[inline(always)]
fn logarithm(x: f32) -> f32 {
    let shifted = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (shifted as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let t = (m - 1.0) / (m + 1.0);
    let u = t * t;
    exponent as f32 * std::f32::consts::LN_2
        + 2.0 * t * (1.0 + u * (1.0 / 3.0 + u * (0.2 + u * (1.0 / 7.0 + u * (1.0 / 9.0)))))
}

/// Zeroes all weights under the largest threshold above which `top_p` of the mass still lies.
#[inline(always)]
fn keep_nucleus(weights: &mut [f32], top_p: f64) {
    let all: f64 = weights.chunks(BLOCK).map(|w| f64::from(sum(w))).sum();
    let wanted = top_p * all;
    // Weights so small that all of them together would not hold what the nucleus leaves out: the threshold is above. That is
    // nearly every token, and the search passes over the rest thirty times.
    let least = ((all - wanted) / weights.len() as f64) as f32;
    let candidates: Vec<f32> = weights.iter().copied().filter(|w| *w >= least).collect();
    let above = |threshold: f32| -> f64 {
        let kept = candidates.iter().filter(|w| **w >= threshold);
        kept.map(|w| f64::from(*w)).sum()
    };
    // The bits of floats of 0 and above ascend with them; the largest weight is 1.
    let (mut low, mut high) = (least.to_bits(), 1f32.to_bits() + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if above(f32::from_bits(middle)) >= wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    let threshold = f32::from_bits(low);
    for w in weights {
        *w = if *w >= threshold { *w } else { 0.0 };
    }
}

/// [`pick`] for many records at once, on the logits' own device: only the tokens leave it.
///
/// `logits [records · rows, vocabulary]`: of each record its own, then those that contrast with it; `guidance` has each
/// record's own γ, in the place of the choice's; `lift` what is added to some tokens, a row of values a record. Weights are summed
/// in f32, in blocks of about √vocabulary and then over blocks, so that a boundary between two tokens lies within
/// about √vocabulary · 6e-8 (1.4e-5 for 49,152 tokens) of where f64 would put it, and typically a hundred times nearer.
pub fn pick_on_device(
    logits: Tensor<2>,
    rows: usize,
    choice: Choice,
    guidance: &[f64],
    lift: Option<Lift>,
    uniforms: &[f64],
) -> Tensor<1, Int> {
    let [all, vocabulary] = logits.dims();
    let (records, device) = (all / rows, logits.device());
    let logits = logits.reshape([records, rows, vocabulary]);
    let own = logits.clone().narrow(1, 0, 1).reshape([records, vocabulary]);
    let mut scores = match rows {
        1 => own.clone(),
        _ => contrast_on_device(own.clone(), logits.narrow(1, 1, rows - 1), guidance),
    };
    if let Some(lift) = lift {
        let tokens: Vec<i32> = lift.tokens.iter().map(|t| *t as i32).collect();
        let n = tokens.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [n]), &device);
        let values = Tensor::<2>::from_data(TensorData::new(lift.values.to_vec(), [records, n]), &device);
        scores = scores.select_assign(1, tokens, values, IndexingUpdateOp::Add);
    }
    if choice.plausibility > 0.0 && (rows > 1 || lift.is_some()) {
        // Where nothing is guided or lifted, nothing is masked.
        let is_masked = |g: &f64| *g > 0.0 || lift.is_some();
        let room = guidance
            .iter()
            .map(|g| if is_masked(g) { choice.plausibility.ln() } else { -1e30 });
        let least = own.clone().max_dim(1) + column(room, &device);
        scores = scores.mask_fill(own.lower(least), f32::NEG_INFINITY);
    }
    let scores = (scores.clone() - scores.max_dim(1)) / choice.temperature;
    let mut weights = scores.clone().exp();
    if choice.top_p < 1.0 {
        weights = nucleus_on_device(scores, weights, choice.top_p);
    }
    let width = (vocabulary as f64).sqrt().ceil() as usize;
    let blocks = vocabulary.div_ceil(width);
    if blocks * width > vocabulary {
        let none = Tensor::zeros([records, blocks * width - vocabulary], &device);
        weights = Tensor::cat(vec![weights, none], 1);
    }
    let weights = weights.reshape([records, blocks, width]);
    let uniforms = column(uniforms.iter().copied(), &device);

    let block_sums = weights.clone().sum_dim(2).squeeze_dim::<2>(2);
    let ends = block_sums.clone().cumsum(1);
    let target = uniforms * ends.clone().narrow(1, blocks - 1, 1);
    let block = passed(ends.clone(), target.clone());
    let start = (ends - block_sums).gather(1, block.clone());
    let chosen = block.clone().reshape([records, 1, 1]).expand([records, 1, width]);
    let ends = weights.gather(1, chosen).squeeze_dim::<2>(1).cumsum(1);
    let token = passed(ends, (target - start).clamp_min(0.0));
    (block * width as i64 + token).reshape([records])
}

/// The first of ascending `ends [n, width]` above `target [n, 1]`; the first that equals the last where none is.
fn passed(ends: Tensor<2>, target: Tensor<2>) -> Tensor<2, Int> {
    let [_, width] = ends.dims();
    // Below the last end by more than rounding, so that what is passed has a weight of its own.
    let limit = ends.clone().narrow(1, width - 1, 1) * (1.0 - f64::from(f32::EPSILON));
    ends.lower_equal(target.min_pair(limit)).int().sum_dim(1)
}

/// `[n, 1]` in f32.
fn column(values: impl ExactSizeIterator<Item = f64>, device: &Device) -> Tensor<2> {
    let rounded: Vec<f32> = values.map(|v| v as f32).collect();
    let n = rounded.len();
    Tensor::from_data(TensorData::new(rounded, [n, 1]), device)
}

/// `own [records, vocabulary]` and `others [records, others, vocabulary]` logits to scores, by a γ for each record.
fn contrast_on_device(own: Tensor<2>, others: Tensor<3>, guidance: &[f64]) -> Tensor<2> {
    let [records, rows, vocabulary] = others.dims();
    let other = if rows == 1 {
        others.reshape([records, vocabulary])
    } else {
        let peak = others.clone().max_dim(2);
        let log_p = others.clone() - peak.clone() - (others - peak).exp().sum_dim(2).log();
        let peak = log_p.clone().max_dim(1);
        (peak.clone() + (log_p - peak).exp().sum_dim(1).log()).reshape([records, vocabulary])
    };
    let gamma = column(guidance.iter().copied(), &own.device());
    own.clone() + (own - other) * gamma
}

/// Burn sorts a GPU's tensors on the host: the threshold is found by halving instead.
fn nucleus_on_device(scores: Tensor<2>, weights: Tensor<2>, top_p: f64) -> Tensor<2> {
    let [records, _] = scores.dims();
    let device = scores.device();
    let kept = |threshold: &Tensor<2>| -> Tensor<2> {
        let under: Tensor<2, Bool> = scores.clone().lower(threshold.clone());
        weights.clone().mask_fill(under, 0.0)
    };
    let wanted = weights.clone().sum_dim(1) * top_p;
    // Of scores from −88 to 0, to the last bit of f32.
    let mut low = Tensor::<2>::full([records, 1], -88.0, &device);
    let mut high = Tensor::<2>::full([records, 1], 1e-6, &device);
    for _ in 0..32 {
        let middle = (low.clone() + high.clone()) * 0.5;
        let holds = kept(&middle).sum_dim(1).greater_equal(wanted.clone());
        low = low.mask_where(holds.clone(), middle.clone());
        high = middle.mask_where(holds, high);
    }
    kept(&low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn shares(own: &[f32], others: &[&[f32]], choice: Choice) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = vec![0f64; own.len()];
        for _ in 0..20_000 {
            seen[draw(own, others, None, choice, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        seen
    }

    #[test]
    fn plain_sampling_follows_the_softmax() {
        let own = [0.0, 1.0f32.ln() + 0.7, -1.0];
        let total: f32 = own.iter().map(|x| x.exp()).sum();
        for (got, logit) in shares(&own, &[], Choice::PLAIN).iter().zip(own) {
            assert!((got - f64::from(logit.exp() / total)).abs() < 0.015);
        }
    }

    #[test]
    fn guidance_multiplies_by_the_likelihood_ratio() {
        let (own, other) = ([0.5f32.ln(), 0.5f32.ln()], [0.8f32.ln(), 0.2f32.ln()]);
        let got = shares(
            &own,
            &[&other],
            Choice {
                guidance: 1.0,
                ..Choice::PLAIN
            },
        );
        // 0.5·(0.5/0.8) : 0.5·(0.5/0.2) = 1 : 4.
        assert!((got[1] - 0.8).abs() < 0.015, "{got:?}");
    }

    #[test]
    fn a_nucleus_drops_the_tail() {
        let own = [0.6f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        let got = shares(
            &own,
            &[],
            Choice {
                top_p: 0.85,
                ..Choice::PLAIN
            },
        );
        assert_eq!(got[2], 0.0);
        assert!((got[0] - 2.0 / 3.0).abs() < 0.015);
    }
}
