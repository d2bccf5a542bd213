//! One query token against keys and values that lie in memory, on a CPU.
//!
//! Grouped-query attention (Ainslie et al. 2023) reads each key once for all heads that share it. Every row's result
//! depends on that row alone, bit for bit.

/// Keys and values of one key-value head, `[held, head_width]` each.
#[derive(Clone, Copy)]
pub struct Stretch<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

/// Softmax attention of `queries [groups, head_width]` (rotated, scaled) over all that the stretches hold; gives
/// `out [groups, head_width]`. `scores` is scratch.
#[inline(always)]
pub fn attend(queries: &[f32], stretches: &[Stretch], width: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
    for (query, out) in queries.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        // Loops, not `extend` or `collect`: those are functions of their own, compiled without vector instructions.
        scores.resize(stretches.iter().map(|s| s.keys.len() / width).sum(), 0.0);
        let mut room = scores.iter_mut();
        for stretch in stretches {
            for (key, score) in stretch.keys.chunks_exact(width).zip(&mut room) {
                *score = dot(query, key);
            }
        }
        let peak = highest(scores);
        for score in scores.iter_mut() {
            *score = exp_of_negative(*score - peak);
        }
        let scale = 1.0 / sum(scores);
        out.fill(0.0);
        let mut weights = scores.iter();
        for stretch in stretches {
            // The weights come second: a zip that has taken one when the values end has lost it.
            for (value, weight) in stretch.values.chunks_exact(width).zip(&mut weights) {
                let weight = weight * scale;
                for (out, value) in out.iter_mut().zip(value) {
                    *out += weight * value;
                }
            }
        }
    }
}

/// Turns `x [heads, head_width]` by one position's angles, `[head_width / 2]` each, in the rotate-half form.
#[inline(always)]
pub fn turn(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in x.chunks_exact_mut(2 * half) {
        let (left, right) = head.split_at_mut(half);
        for (((a, b), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
}

const LANES: usize = 16;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    folded(sums, |a, b| a + b) + rest
}

/// Sum of all, in an order that depends on their number alone.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += chunk[i];
        }
    }
    folded(sums, |a, b| a + b) + rest.iter().sum::<f32>()
}

/// The largest; minus infinity of none.
#[inline(always)]
pub(crate) fn highest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut peaks = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            peaks[i] = if chunk[i] > peaks[i] { chunk[i] } else { peaks[i] };
        }
    }
    rest.iter().copied().fold(folded(peaks, f32::max), f32::max)
}

#[inline(always)]
fn folded(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// e^y for y ≤ 0 as 2ⁿ·eʳ with |r| ≤ ln 2 / 2; relative error under 1e-6 down to y = −87, below that 1e-38.
#[inline(always)]
pub(crate) fn exp_of_negative(y: f32) -> f32 {
    let y = if y > -87.0 { y } else { -87.0 };
    // Adding 1.5 · 2²³ rounds to an integer that then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = y * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, the first exact in few bits, so that n · ln 2 loses nothing.
    let r = (y - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series =
        1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    series * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}
