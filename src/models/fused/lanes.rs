//! Passes over slices at the width of the machine's registers.

use std::marker::PhantomData;

use pulp::{Arch, NullaryFnOnce};

use super::exp::exp;

/// Sums and maxima run in this many strands, which are as many registers as a machine needs for them.
const LANES: usize = 16;

/// Terms that f32 adds up before f64 takes over.
const RUN: usize = 64 * LANES;

/// A pass over slices.
///
/// A type of its own and not a closure or a function's name, which LLVM does not inline where three widths call it.
pub trait Pass<Args> {
    type Output;

    /// To be marked `#[inline(always)]`, as all that it calls: what is not inlined keeps the narrowest width.
    fn run(args: Args) -> Self::Output;
}

/// `P::run(args)`, compiled once for each width of registers; the widest that the machine has runs.
///
/// Rust neither fuses nor reorders float arithmetic, so that every width gives the same bits.
#[inline]
pub fn vectorised<P: Pass<Args>, Args>(_: P, args: Args) -> P::Output {
    dispatch(Call::<P, Args>(args, PhantomData))
}

/// The same of a closure that is marked `#[inline(always)]`.
#[inline]
pub fn dispatch<Op: NullaryFnOnce>(op: Op) -> Op::Output {
    let arch = Arch::new();
    // Burn's build of pulp dispatches to AVX-512 but not to AVX2.
    #[cfg(target_arch = "x86_64")]
    if matches!(arch, Arch::Scalar)
        && let Some(avx2) = pulp::x86::V3::try_new()
    {
        return avx2.vectorize(op);
    }
    arch.dispatch(op)
}

struct Call<P, Args>(Args, PhantomData<P>);

impl<Args, P: Pass<Args>> NullaryFnOnce for Call<P, Args> {
    type Output = P::Output;

    #[inline(always)]
    fn call(self) -> P::Output {
        P::run(self.0)
    }
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

/// Sum of all, in an order that depends on their number alone.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let (wide, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for wide in wide {
        for (lane, x) in lanes.iter_mut().zip(wide) {
            *lane += x;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// The largest number, or −∞ where there is none.
#[inline(always)]
pub fn largest(row: &[f32]) -> f32 {
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

/// [`softmax`] as a pass.
pub struct Softmax;

impl Pass<&mut [f32]> for Softmax {
    type Output = f32;

    #[inline(always)]
    fn run(row: &mut [f32]) -> f32 {
        softmax(row)
    }
}
