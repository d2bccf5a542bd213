//! How long a person waits for an epsilon, a delta and a plan, at IMDb's settings of both profiles.
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

mod common;

use std::hint::black_box;

use common::{median, report};
use dpsynth::privacy::accountant::{Adjacency, Phase, pld};
use dpsynth::privacy::calibrate;

const DELTA: f64 = 3.95e-6;
const RECORDS: f64 = 25_000.0;

fn main() {
    // Expected batch, noise multiplier, steps.
    for (profile, batch, sigma, steps) in [("full", 1024.0, 0.69, 123), ("quick", 128.0, 0.3694, 8)] {
        let q = batch / RECORDS;
        let phases = [Phase::new(q, sigma, steps).expect("valid settings")];
        let adjacency = Adjacency::AddOrRemoveOne;
        let measure = |what: &str, run: &dyn Fn() -> f64| {
            report(&format!("{what} {profile}"), median(15, run), run());
        };
        measure("epsilon", &|| {
            let bracket = pld::epsilon(black_box(&phases), adjacency, DELTA);
            bracket.expect("an epsilon").epsilon
        });
        measure("delta", &|| {
            pld::delta(black_box(&phases), adjacency, 8.0).expect("a delta")
        });
        measure("calibrate", &|| {
            calibrate::noise_multiplier(8.0, DELTA, black_box(q), steps).expect("a noise multiplier")
        });
    }
}
