//! What the machine could do at best: products of matrices and copies of memory, the way the program does them.
//!
//! On a CPU each worker computes its own products on one thread, as in training; on a GPU one product has the device.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};

use crate::machine::workers::Workers;
use crate::models::product::matmul;

/// How long each shape is tried.
const TRIAL: Duration = Duration::from_millis(300);

/// Copies that are tried; the fastest counts.
const COPIES: usize = 8;

/// Values of each copy: 128 MiB in f32, well beyond every cache.
const COPIED: usize = 1 << 25;

/// `[rows, inner, columns]` of the products that are tried: a square and SmolLM2's widest map on a CPU, larger ones on
/// a GPU.
fn shapes(on_cpu: bool) -> &'static [[usize; 3]] {
    match on_cpu {
        true => &[[1024, 1024, 1024], [832, 576, 1536], [832, 1536, 576]],
        false => &[[8192, 8192, 8192], [4096, 4096, 4096], [16_384, 2048, 8192]],
    }
}

/// FLOP/s of the best of a few products on `device` with elements of `dtype`.
pub fn matmul_flops_per_second(device: &Device, workers: &Workers, dtype: DType) -> f64 {
    let on_cpu = *device == Device::flex();
    let speed = |&[m, k, n]: &[usize; 3]| {
        let random =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), device).cast(dtype);
        let (a, b) = (random([m, k]), random([k, n]));
        let flops = 2.0 * (m * k * n) as f64;
        flops * rate(device, workers, || matmul(a.clone(), b.clone()))
    };
    shapes(on_cpu).iter().map(speed).fold(0.0, f64::max)
}

/// Bytes a second of copies: those read and those written.
pub fn copy_bytes_per_second(device: &Device, workers: &Workers) -> f64 {
    let values = Tensor::<1>::random([COPIED], Distribution::Uniform(-1.0, 1.0), device);
    let bytes = 8.0 * COPIED as f64;
    if *device != Device::flex() {
        return bytes * rate(device, workers, || values.clone() + 1.0);
    }
    // Filled with what is not zero, so that the pages are there: what the kernel takes to hand them out is not the
    // memory's speed.
    let from: Vec<f32> = vec![1.0; COPIED];
    let mut into: Vec<Vec<f32>> = vec![vec![2.0; COPIED]; workers.count()];
    let mut once = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for into in &mut into {
                scope.spawn(|| std::hint::black_box(&mut *into).copy_from_slice(std::hint::black_box(&from)));
            }
        });
        bytes * workers.count() as f64 / begun.elapsed().as_secs_f64()
    };
    (0..COPIES).map(|_| once()).fold(0.0, f64::max)
}

/// How often a second `run` is done by all workers together.
fn rate<T: Send>(device: &Device, workers: &Workers, run: impl Fn() -> T + Sync) -> f64 {
    let wait = || device.sync().expect("a device that computes can be waited for");
    run();
    wait();
    let begun = Instant::now();
    let each: Vec<usize> = (0..workers.count()).collect();
    let done = workers.map(&each, |_| {
        let mut done = 0u32;
        while begun.elapsed() < TRIAL {
            std::hint::black_box(run());
            done += 1;
            // A queue of work that is far ahead of the device says nothing about it.
            if done.is_multiple_of(4) {
                wait();
            }
        }
        done
    });
    wait();
    f64::from(done.iter().sum::<u32>()) / begun.elapsed().as_secs_f64()
}
