//! How ggml packs numbers into blocks, and the numbers again: layouts as `ggml-common.h` declares them, values bit for bit
//! those of ggml's own dequantisation.

use half::{bf16, f16};
use rayon::prelude::*;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Numbers as a file packs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    pub format: Format,
    /// Whole blocks.
    pub bytes: Vec<u8>,
}

impl Blocks {
    /// The numbers.
    pub fn numbers(&self) -> Vec<f32> {
        self.format.numbers(&self.bytes)
    }

    /// The same rows in another order: row `i` is what row `from(i)` was, of `rows` in all, whole blocks each.
    pub fn reordered(&self, rows: usize, from: impl Fn(usize) -> usize) -> Self {
        assert!(self.bytes.len().is_multiple_of(rows), "a row is whole blocks");
        let row = self.bytes.len() / rows;
        let bytes = (0..rows).flat_map(|i| &self.bytes[from(i) * row..][..row]).copied();
        Blocks {
            format: self.format,
            bytes: bytes.collect(),
        }
    }
}

/// For people.
pub const NAMES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K";

impl Format {
    /// By ggml's number of it.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Format::F32,
            1 => Format::F16,
            2 => Format::Q4_0,
            3 => Format::Q4_1,
            6 => Format::Q5_0,
            7 => Format::Q5_1,
            8 => Format::Q8_0,
            12 => Format::Q4K,
            13 => Format::Q5K,
            14 => Format::Q6K,
            30 => Format::Bf16,
            _ => return None,
        })
    }

    /// Whether a number takes less than 16 bits.
    pub fn is_packed(self) -> bool {
        self.block().0 > 1
    }

    /// (numbers, bytes) of one block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::Bf16 => (1, 2),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q8_0 => (32, 34),
            Format::Q4K => (256, 144),
            Format::Q5K => (256, 176),
            Format::Q6K => (256, 210),
        }
    }

    /// The numbers of whole blocks.
    pub fn numbers(self, bytes: &[u8]) -> Vec<f32> {
        let (numbers, block) = self.block();
        let mut out = vec![0f32; bytes.len() / block * numbers];
        bytes
            .par_chunks_exact(block)
            .zip(out.par_chunks_exact_mut(numbers))
            .with_min_len(1024)
            .for_each(|(block, out)| self.unpack(block, out));
        out
    }

    fn unpack(self, b: &[u8], out: &mut [f32]) {
        match self {
            Format::F32 => out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Format::F16 => out[0] = half_at(b),
            Format::Bf16 => out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            // d, then 32 nibbles: low halves first, then high halves.
            Format::Q4_0 => nibbles(&b[2..], [0; 4], out, |q| half_at(b) * (q - 8.0)),
            // d, m, then 32 nibbles: d·q + m.
            Format::Q4_1 => nibbles(&b[4..], [0; 4], out, |q| half_at(b) * q + half_at(&b[2..])),
            // d, the fifth bits, then 32 nibbles.
            Format::Q5_0 => nibbles(&b[6..], four(&b[2..]), out, |q| half_at(b) * (q - 16.0)),
            Format::Q5_1 => nibbles(&b[8..], four(&b[4..]), out, |q| half_at(b) * q + half_at(&b[2..])),
            Format::Q8_0 => {
                let d = half_at(b);
                out.iter_mut()
                    .zip(&b[2..])
                    .for_each(|(out, q)| *out = d * f32::from(*q as i8));
            }
            // d, the minima's d, 8 pairs of 6 bits, then nibbles.
            Format::Q4K => pairs(b, &b[16..], &[0; 32], out),
            // The same, but the fifth bits before the nibbles.
            Format::Q5K => pairs(b, &b[48..], &b[16..48], out),
            Format::Q6K => sixes(b, out),
        }
    }
}

fn half_at(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

fn four(b: &[u8]) -> [u8; 4] {
    [b[0], b[1], b[2], b[3]]
}

/// 32 numbers of 4 bits, and a fifth of each out of `high`.
fn nibbles(low: &[u8], high: [u8; 4], out: &mut [f32], number: impl Fn(f32) -> f32) {
    let high = u32::from_le_bytes(high);
    let fifth = |i: usize| ((high >> i) as u8 & 1) << 4;
    for i in 0..16 {
        out[i] = number(f32::from(low[i] & 15 | fifth(i)));
        out[i + 16] = number(f32::from(low[i] >> 4 | fifth(i + 16)));
    }
}

/// 256 numbers in 8 parts, each d·scale·q − m·minimum.
fn pairs(b: &[u8], low: &[u8], high: &[u8], out: &mut [f32]) {
    let (d, m, packed) = (half_at(b), half_at(&b[2..]), &b[4..16]);
    let scales = |part: usize| match part {
        0..4 => (packed[part] & 63, packed[part + 4] & 63),
        _ => (
            packed[part + 4] & 15 | packed[part - 4] >> 6 << 4,
            packed[part + 4] >> 4 | packed[part] >> 6 << 4,
        ),
    };
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scales(part);
        let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
        let low = &low[part / 2 * 32..][..32];
        for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
            let nibble = if part % 2 == 0 { low & 15 } else { low >> 4 };
            let fifth = (high >> part & 1) << 4;
            *out = scale * f32::from(nibble | fifth) - minimum;
        }
    }
}

/// 256 numbers of 6 bits: low four, high two, scales of 16 numbers, d.
fn sixes(b: &[u8], out: &mut [f32]) {
    let d = half_at(&b[208..]);
    for (half, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high, scales) = (&b[half * 64..], &b[128 + half * 32..], &b[192 + half * 8..]);
        for (quarter, out) in out.chunks_exact_mut(32).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                let low = low[quarter % 2 * 32 + i];
                let low = if quarter < 2 { low & 15 } else { low >> 4 };
                let high = high[i] >> (2 * quarter) & 3;
                let q = f32::from(low | high << 4) - 32.0;
                *out = d * f32::from(scales[quarter * 2 + i / 16] as i8) * q;
            }
        }
    }
}
