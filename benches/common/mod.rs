//! Medians of repeated runs, as a line for people or, with `--json`, as an object a line for `benches/peers`.
//!
//! Plain loops instead of criterion. Criterion 0.8 (and its fork criterion2) asks for ciborium with the feature `default`;
//! burn asks for it with `std` alone, which is all that `default` means, yet a feature more by name makes another build
//! of ciborium and of all that stands on it: cubecl-environment, burn-std, hence all of burn, once for `make build` and
//! once more for `make test` and `make bench`. The evidence, with criterion among the dev-dependencies:
//! `cargo tree -e normal -i ciborium -f "{p} [{f}]"` says `[std]`, with `-e normal,dev` it says `[default,std]`.
//! Naming `ciborium = "0.2"` among the dependencies would make them one.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::hint::black_box;
use std::time::Instant;

/// Seconds that `run` takes: the median of `times`, after one that is not counted.
pub fn median<T>(times: usize, mut run: impl FnMut() -> T) -> f64 {
    timed(times, || (), |()| run())
}

/// The same with something made anew, off the clock, for each run.
pub fn timed<S, T>(times: usize, mut prepare: impl FnMut() -> S, mut run: impl FnMut(S) -> T) -> f64 {
    let mut seconds: Vec<f64> = (0..=times)
        .map(|_| {
            let prepared = prepare();
            let begun = Instant::now();
            black_box(run(black_box(prepared)));
            begun.elapsed().as_secs_f64()
        })
        .skip(1)
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// `{"name": …, "seconds": …, "value": …}`, or the same for people. `value` is what was computed.
pub fn report(name: &str, seconds: f64, value: f64) {
    if std::env::args().any(|a| a == "--json") {
        println!(
            "{}",
            serde_json::json!({ "name": name, "seconds": seconds, "value": value })
        );
    } else {
        println!("{name:<44} {:>10.3} ms   {value}", seconds * 1e3);
    }
}
