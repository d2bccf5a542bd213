//! Passes over slices at the width of the machine's registers.

use pulp::Arch;

use super::exp::exp;

/// Sums and maxima run in this many strands, which are as many registers as a machine needs for them.
const LANES: usize = 16;

/// Terms that f32 adds up before f64 takes over.
const RUN: usize = 64 * LANES;

/// `f`, compiled once for each width of registers; the widest that the machine has runs.
///
/// What `f` calls counts only where it is inlined. Rust neither fuses nor reorders float arithmetic, so that every width
/// gives the same bits.
#[inline]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    let arch = Arch::new();
    // Burn's build of pulp dispatches to AVX-512 but not to AVX2.
    #[cfg(target_arch = "x86_64")]
    if matches!(arch, Arch::Scalar)
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return pulp::Simd::vectorize(avx2, f);
    }
    arch.dispatch(f)
}

/// Σ terms of a and b, which are equally long.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The largest number, or −∞ where there is none.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (wide, rest) = row.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for wide in wide {
        for (lane, x) in lanes.iter_mut().zip(wide) {
            *lane = larger(*lane, *x);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// softmax of `row` in its place; gives log Σ exp. One entry that is NaN or +∞ makes all of them NaN, and the sum.
#[inline(always)]
pub fn softmax(row: &mut [f32]) -> f32 {
    let shift = largest(row);
    let mut total = 0f64;
    for run in row.chunks_mut(RUN) {
        let mut lanes = [0f32; LANES];
        let mut add = |wide: &mut [f32; LANES]| {
            for (lane, x) in lanes.iter_mut().zip(wide) {
                *x = exp(*x - shift);
                *lane += *x;
            }
        };
        let (wide, rest) = run.as_chunks_mut::<LANES>();
        wide.iter_mut().for_each(&mut add);
        // Filled up with what adds 1e-38 to a sum of at least 1.
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        add(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
        total += lanes.iter().copied().map(f64::from).sum::<f64>();
    }
    let scale = (1.0 / total) as f32;
    row.iter_mut().for_each(|x| *x *= scale);
    shift + total.ln() as f32
}
