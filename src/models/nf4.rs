//! NF4 with double quantisation (Dettmers et al. 2023, "QLoRA"), number by number as bitsandbytes has it: 4 bits a weight,
//! 8 bits for each 64 weights' scale, and 4 bytes for each 256 scales. The mean of the scales alone may be rounded otherwise:
//! PyTorch adds them up in another order on each kind of processor.

use std::sync::LazyLock;

use rayon::prelude::*;

/// Weights that share a scale.
pub const BLOCK: usize = 64;
/// Scales that share a scale of their own.
const SCALES: usize = 256;

/// The quantiles of a normal distribution, scaled to ±1 (Dettmers et al. 2023, appendix E).
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The 256 levels of a scale, ascending: seven decades, each with twice as many steps as the one below it (Dettmers et al.
/// 2022, "8-bit optimizers via block-wise quantization", section 2.2).
static SCALE_LEVELS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut out = vec![0.0, 1.0];
    for decade in 0..7 {
        let steps = 1usize << decade;
        let bounds = from_to(0.1, 1.0, steps + 1);
        let size = 10f64.powi(decade - 6) as f32;
        for pair in bounds.windows(2) {
            let level = size * ((pair[0] + pair[1]) / 2.0);
            out.extend([level, -level]);
        }
    }
    out.sort_by(f32::total_cmp);
    out
});

/// `n` numbers in equal steps, both ends among them, rounded once; the upper half is reckoned from its end.
fn from_to(first: f32, last: f32, n: usize) -> Vec<f32> {
    let step = (last - first) / (n - 1) as f32;
    let number = |i: usize| match i < n / 2 {
        true => step.mul_add(i as f32, first),
        false => (-step).mul_add((n - 1 - i) as f32, last),
    };
    (0..n).map(number).collect()
}

/// The nearest of ascending `levels`, the lower where two are as near.
fn nearest(levels: &[f32], value: f32) -> usize {
    let above = levels.partition_point(|level| *level < value).min(levels.len() - 1);
    match above {
        0 => 0,
        _ if value - levels[above - 1] <= levels[above] - value => above - 1,
        _ => above,
    }
}

/// Largest size among `values`.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| v.abs().max(most))
}

/// Largest size in each block.
fn scales(values: &[f32]) -> Vec<f32> {
    values.par_chunks(BLOCK).map(largest).collect()
}

/// Quantised weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4 {
    count: usize,
    /// Two levels a byte, the first in the high half.
    levels: Vec<u8>,
    /// Of each block's scale, less `offset`, over its own scale.
    scales: Vec<u8>,
    /// Of each 256 scales.
    scales_of_scales: Vec<f32>,
    /// The mean of all scales.
    offset: f32,
}

impl Nf4 {
    /// Bytes that `count` weights take.
    pub fn bytes(count: usize) -> usize {
        let blocks = count.div_ceil(BLOCK);
        count.div_ceil(2) + blocks + 4 * blocks.div_ceil(SCALES) + 4
    }

    /// `values`, quantised.
    pub fn of(values: &[f32]) -> Self {
        let absolute = scales(values);
        let sum: f64 = absolute.iter().map(|a| f64::from(*a)).sum();
        Nf4::quantised(values, &absolute, (sum / absolute.len().max(1) as f64) as f32)
    }

    /// The same with `offset` as the mean of their scales.
    pub fn around(offset: f32, values: &[f32]) -> Self {
        Nf4::quantised(values, &scales(values), offset)
    }

    fn quantised(values: &[f32], absolute: &[f32], offset: f32) -> Self {
        let bounds: [f32; 15] = std::array::from_fn(|i| (LEVELS[i] + LEVELS[i + 1]) / 2.0);
        let mut levels = vec![0u8; values.len().div_ceil(2)];
        let blocks = values.par_chunks(BLOCK).zip(levels.par_chunks_mut(BLOCK / 2));
        blocks.zip(absolute).for_each(|((values, out), absolute)| {
            let inverse = 1.0 / absolute.max(1e-38);
            let level = |value: &f32| {
                let scaled = (value * inverse).clamp(-1.0, 1.0);
                bounds.iter().filter(|bound| **bound < scaled).count() as u8
            };
            for (out, pair) in out.iter_mut().zip(values.chunks(2)) {
                *out = level(&pair[0]) << 4 | pair.get(1).map_or(level(&0.0), level);
            }
        });
        let centred: Vec<f32> = absolute.iter().map(|a| a - offset).collect();
        let scales_of_scales: Vec<f32> = centred.chunks(SCALES).map(largest).collect();
        let of_scale = |(i, centred): (usize, &f32)| {
            let own = scales_of_scales[i / SCALES];
            // All scales alike: 0 has a level.
            let share = if own > 0.0 { centred / own } else { 0.0 };
            nearest(&SCALE_LEVELS, share) as u8
        };
        Nf4 {
            count: values.len(),
            levels,
            scales: centred.iter().enumerate().map(of_scale).collect(),
            scales_of_scales,
            offset,
        }
    }

    /// The weights again, as near as they were kept.
    pub fn numbers(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.count];
        let blocks = out.par_chunks_mut(BLOCK).zip(self.levels.par_chunks(BLOCK / 2));
        blocks.enumerate().with_min_len(256).for_each(|(i, (out, levels))| {
            let scale = SCALE_LEVELS[usize::from(self.scales[i])] * self.scales_of_scales[i / SCALES] + self.offset;
            for (pair, both) in out.chunks_mut(2).zip(levels) {
                pair[0] = LEVELS[usize::from(both >> 4)] * scale;
                if let Some(second) = pair.get_mut(1) {
                    *second = LEVELS[usize::from(both & 15)] * scale;
                }
            }
        });
        out
    }
}
