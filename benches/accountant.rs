//! How long a person waits for an epsilon and for a plan, at IMDb's settings of the `full` profile.

use criterion::{Criterion, criterion_group, criterion_main};
use dpsynth::privacy::accountant::{Phase, pld};
use dpsynth::privacy::calibrate;

fn accountant(c: &mut Criterion) {
    let (sampling_rate, steps, delta) = (1024.0 / 25_000.0, 123, 3.95e-6);
    let phases = [Phase::new(sampling_rate, 0.69, steps).expect("valid settings")];
    c.bench_function("pld epsilon, q 0.041, sigma 0.69, 123 steps", |b| {
        b.iter(|| pld::epsilon(&phases, delta).expect("an epsilon"));
    });
    c.bench_function("noise multiplier for epsilon 8, q 0.041, 123 steps", |b| {
        b.iter(|| calibrate::noise_multiplier(8.0, delta, sampling_rate, steps).expect("a noise multiplier"));
    });
}

criterion_group!(benches, accountant);
criterion_main!(benches);
