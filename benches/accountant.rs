//! How long a person waits for an epsilon and for a plan, at IMDb's settings of the `full` profile.
//!
//! A plain loop: criterion would change the features of a crate that burn shares, and so compile everything twice.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dpsynth::privacy::accountant::{Adjacency, Phase, pld};
use dpsynth::privacy::calibrate;

/// Median of 15 runs after one that is not counted.
fn median(mut run: impl FnMut()) -> Duration {
    run();
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let (sampling_rate, steps, delta) = (1024.0 / 25_000.0, 123, 3.95e-6);
    let phases = [Phase::new(sampling_rate, 0.69, steps).expect("valid settings")];
    let epsilon = median(|| {
        black_box(pld::epsilon(black_box(&phases), Adjacency::AddOrRemoveOne, delta).expect("an epsilon"));
    });
    println!("PLD epsilon, q 0.041, sigma 0.69, 123 steps: {epsilon:?}");
    let calibrated = median(|| {
        black_box(
            calibrate::noise_multiplier(8.0, delta, black_box(sampling_rate), steps).expect("a noise multiplier"),
        );
    });
    println!("noise multiplier for epsilon 8, q 0.041, 123 steps: {calibrated:?}");
}
