//! One query token against keys and values that lie in memory, on a CPU.
//!
//! Grouped-query attention (Ainslie et al. 2023) reads each key once for all heads that share it. Every row's result
//! depends on that row alone, bit for bit.

use super::exp::exp;
use super::lanes::{dot, largest, sum};

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
        let peak = largest(scores);
        for score in scores.iter_mut() {
            *score = exp(*score - peak);
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
