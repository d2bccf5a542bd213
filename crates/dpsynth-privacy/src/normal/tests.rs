//! The sampler against the distribution it claims: chi-square over every point or over a thousand equal cells, and
//! Kolmogorov–Smirnov. Keys are fixed, so every p-value is the same on every run.

use num_bigint::BigUint;
use rand::RngExt;
use rayon::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::erf::erfc;

use super::super::keys::Key;
use super::strips::Bounds;
use super::*;

pub const DRAWS: usize = 2_000_000;

/// A right sampler falls below this once in a thousand keys. One that does for the key here is wrong until shown otherwise.
pub const LEAST_P: f64 = 1e-3;

/// `DRAWS` values, from 32 streams.
fn draws<T: Send>(key: u8, draw: impl Fn(&mut ChaCha20Rng) -> T + Sync) -> Vec<T> {
    let key = Key::fixed(key);
    let stream = |i: u64| {
        let mut rng = key.stream(i);
        (0..DRAWS / 32).map(|_| draw(&mut rng)).collect::<Vec<T>>()
    };
    (0..32).into_par_iter().flat_map_iter(stream).collect()
}

fn rounded_draws(key: u8, sigma: u64) -> Vec<i64> {
    let rounded = Rounded::new(sigma).expect("in range");
    draws(key, |rng| rounded.draw(rng))
}

/// P(a ≤ X < b), X standard normal, without loss in the tails.
pub fn between(a: f64, b: f64) -> f64 {
    let beyond = |z: f64| 0.5 * erfc(z / std::f64::consts::SQRT_2);
    if a > 0.0 {
        beyond(a) - beyond(b)
    } else {
        beyond(-b) - beyond(-a)
    }
}

/// Cells [start, next start) of whole numbers and their probabilities; the first and the last are open.
pub struct Cells {
    starts: Vec<i64>,
    probabilities: Vec<f64>,
}

impl Cells {
    /// Single points as far as they are expected ten times; what is left on either side is one cell.
    fn points(probability: impl Fn(i64) -> f64) -> Self {
        let rare = |p: f64| p * DRAWS as f64 <= 10.0;
        let reach = (0..).find(|n| rare(probability(*n))).expect("probabilities fall");
        let mut probabilities: Vec<f64> = (-reach..=reach).map(probability).collect();
        let tail = 0.5 * (1.0 - probabilities.iter().sum::<f64>());
        let (mut starts, last) = ((-reach..=reach).collect::<Vec<_>>(), probabilities.len() - 1);
        (probabilities[0], probabilities[last]) = (probabilities[0] + tail, probabilities[last] + tail);
        // The end cells may still be too rare for the statistic.
        if rare(probabilities[last]) {
            for end in [last, 0] {
                let p = probabilities.remove(end);
                starts.remove(end.max(1));
                let inner = if end == 0 { 0 } else { probabilities.len() - 1 };
                probabilities[inner] += p;
            }
        }
        Cells { starts, probabilities }
    }

    /// A thousand cells of a rounded Gaussian, a hundredth of a standard deviation each, where σ is large.
    pub fn even(sigma: f64) -> Self {
        let starts: Vec<i64> = (-480..480)
            .map(|i| (f64::from(i) / 120.0 * sigma).round() as i64)
            .collect();
        let edge = |i: usize| match i {
            0 => f64::NEG_INFINITY,
            i if i == starts.len() => f64::INFINITY,
            i => (starts[i] as f64 - 0.5) / sigma,
        };
        let probabilities = (0..starts.len()).map(|i| between(edge(i), edge(i + 1))).collect();
        Cells { starts, probabilities }
    }

    /// The p-value of Pearson's chi-square.
    pub fn p_value(&self, values: &[i64]) -> f64 {
        let mut counts = vec![0u64; self.starts.len()];
        for v in values {
            counts[self.starts.partition_point(|start| start <= v).max(1) - 1] += 1;
        }
        let n = values.len() as f64;
        let terms = counts.iter().zip(&self.probabilities);
        let statistic: f64 = terms.map(|(c, p)| (*c as f64 - n * p).powi(2) / (n * p)).sum();
        ChiSquared::new((counts.len() - 1) as f64)
            .expect("more than one cell")
            .sf(statistic)
    }
}

/// The p-value of Kolmogorov and Smirnov's distance; for a distribution on whole numbers at most the true one is larger.
/// `below` and `up_to` are P(< v) and P(≤ v).
pub fn ks_p_value<T: Copy + PartialOrd + Send>(
    mut values: Vec<T>,
    below: impl Fn(T) -> f64,
    up_to: impl Fn(T) -> f64,
) -> f64 {
    values.par_sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    let n = values.len() as f64;
    let (mut distance, mut seen) = (0f64, 0);
    for run in values.chunk_by(|a, b| a == b) {
        let before = (below(run[0]) - seen as f64 / n).abs();
        seen += run.len();
        distance = distance.max(before).max((up_to(run[0]) - seen as f64 / n).abs());
    }
    let t = distance * n.sqrt();
    (1..100)
        .map(|j| 2.0 * f64::powi(-1.0, j - 1) * (-2.0 * f64::from(j * j) * t * t).exp())
        .sum()
}

fn ks_of_rounded(values: Vec<i64>, sigma: f64) -> f64 {
    let cdf = |v: f64| between(f64::NEG_INFINITY, v / sigma);
    ks_p_value(values, |v| cdf(v as f64 - 0.5), |v| cdf(v as f64 + 0.5))
}

/// Rows of a fixture as columns of text.
fn rows(fixture: &str) -> Vec<Vec<&str>> {
    fixture.lines().skip(1).map(|line| line.split(',').collect()).collect()
}

/// P(round(σX) = n) from mpmath, for n = 0, 1, ….
fn exact_probabilities(sigma: u64) -> Vec<f64> {
    let rows = rows(include_str!("../../tests/fixtures/rounded_gaussian.csv"));
    let of_sigma = rows.iter().filter(|row| row[0] == sigma.to_string());
    of_sigma.map(|row| row[2].parse().expect("a number")).collect()
}

#[test]
fn p12_every_grid_point_has_its_exact_probability() {
    for (key, sigma) in [(1, 1), (2, 2), (3, 3), (4, 7)] {
        let exact = exact_probabilities(sigma);
        let cells = Cells::points(|n| exact[n.unsigned_abs() as usize]);
        assert!(
            cells.starts.len() as u64 > 8 * sigma,
            "the tails are there: {:?}",
            cells.starts
        );
        let p = cells.p_value(&rounded_draws(key, sigma));
        assert!(p > LEAST_P, "sigma {sigma}: p {p:e} over {} points", cells.starts.len());
    }
}

#[test]
fn p12_the_noise_is_normal_from_coarse_grids_to_fine_ones() {
    for (key, sigma) in [
        (11, 50),
        (12, 1000),
        (13, 1_000_000),
        (14, 8_388_593),
        (15, 1_000_000_000),
        (16, MAX_SIGMA),
    ] {
        let values = rounded_draws(key, sigma);
        let cells = match sigma {
            50 => Cells::points(|n| between((n as f64 - 0.5) / 50.0, (n as f64 + 0.5) / 50.0)),
            _ => Cells::even(sigma as f64),
        };
        let chi_square = cells.p_value(&values);
        assert!(chi_square > LEAST_P, "sigma {sigma}: chi-square p {chi_square:e}");
        let ks = ks_of_rounded(values, sigma as f64);
        assert!(ks > LEAST_P, "sigma {sigma}: KS p {ks:e}");
    }
}

/// What a cell of the tests above cannot see: on a fine grid the last digits are uniform, and so is where in its strip of
/// 1/32 standard deviations a value lies, but for the slope of the density.
#[test]
fn p12_the_last_digits_are_uniform() {
    for (key, sigma) in [
        (21, 1_000_003u64),
        (22, 1 << 36),
        (23, (1 << 37) + 1),
        (24, MAX_SIGMA - 1),
    ] {
        let mut last = rounded_draws(key, sigma);
        last.iter_mut().for_each(|v| *v &= 255);
        let cells = Cells {
            starts: (0..256).collect(),
            probabilities: vec![1.0 / 256.0; 256],
        };
        let p = cells.p_value(&last);
        assert!(p > LEAST_P, "sigma {sigma}: p {p:e}");
    }
}

#[test]
fn p12_the_tests_reject_a_discrete_gaussian_and_a_sigma_that_is_one_percent_off() {
    // A discrete Gaussian of the same sigma, by inversion.
    let weight = |n: i32| (-0.5 * f64::from(n * n)).exp();
    let total: f64 = (-20..=20).map(weight).sum();
    let discrete = draws(31, |rng| {
        let (mut u, mut n) = (rng.random::<f64>() * total, -20);
        while u > weight(n) {
            u -= weight(n);
            n += 1;
        }
        i64::from(n)
    });
    let exact = exact_probabilities(1);
    assert!(Cells::points(|n| exact[n.unsigned_abs() as usize]).p_value(&discrete) < 1e-12);

    for off in [0.99, 1.01] {
        for sigma in [1u64, 3, 1_000_000] {
            let values = rounded_draws(32, sigma);
            let claimed = off * sigma as f64;
            let cells = match sigma {
                1_000_000 => Cells::even(claimed),
                _ => Cells::points(|n| between((n as f64 - 0.5) / claimed, (n as f64 + 0.5) / claimed)),
            };
            assert!(cells.p_value(&values) < 1e-6, "sigma {sigma} passes for {claimed}");
            assert!(
                ks_of_rounded(values, claimed) < LEAST_P || sigma == 1,
                "sigma {sigma} passes for {claimed}"
            );
        }
    }
}

#[test]
fn p12_the_tests_reject_lost_tails_and_a_bias_of_half_a_grid_unit() {
    let values = rounded_draws(33, 50);
    let cells = Cells::points(|n| between((n as f64 - 0.5) / 50.0, (n as f64 + 0.5) / 50.0));
    assert!(cells.p_value(&values) > LEAST_P);
    let cut: Vec<i64> = values.iter().map(|v| *v.clamp(&-180, &180)).collect();
    assert!(cells.p_value(&cut) < 1e-12);
    // Rounded down where it should be to the nearest.
    let fine = rounded_draws(34, 50 << 20);
    let down: Vec<i64> = fine.iter().map(|v| v >> 20).collect();
    assert!(cells.p_value(&down) < 1e-6 && ks_of_rounded(down, 50.0) < 1e-6);
}

#[test]
fn p12_strip_bounds_hold_and_close_in() {
    let known: Vec<(usize, BigUint)> = rows(include_str!("../../tests/fixtures/rounded_gaussian_strips.csv"))
        .iter()
        .map(|row| (row[0].parse().expect("k"), row[1].parse().expect("c")))
        .collect();
    for bits in [32, 64, 96, 160] {
        let bounds = Bounds::new(bits);
        let at = |v: &[BigUint], k: usize| v[k.min(v.len() - 1)].clone();
        for (k, c) in &known {
            // In units of 2⁻ᵇ, c lies in [floor, floor + 1].
            let floor = if bits <= 96 { c >> (96 - bits) } else { c << (bits - 96) };
            let slack = BigUint::from(1u32) << bits.saturating_sub(96);
            let (sure, beyond) = (at(&bounds.sure, *k), at(&bounds.beyond, *k));
            assert!(sure <= &floor + &slack && beyond >= floor, "bits {bits}, k {k}");
            assert!(&beyond - &sure <= BigUint::from(2u32), "bits {bits}, k {k}");
            assert!(
                bits > 96 || (&sure + 1u32 >= floor && beyond <= &floor + 2u32),
                "bits {bits}, k {k}"
            );
        }
    }
}

/// A first digit that decides nothing is made common here: then more digits decide, in proportion to where cₖ lies.
#[test]
fn p12_a_strip_that_32_bits_leave_open_is_decided_fairly() {
    let (coarse, fine) = (Bounds::new(32), Bounds::new(64));
    let mut rng = Key::fixed(41).stream(0);
    for k in [0, 20, 77] {
        let digit = u32::try_from(&coarse.sure[k]).expect("below 1");
        let unit = BigUint::from(digit) << 32;
        let wanted = u64::try_from(&fine.sure[k] - &unit).expect("within one unit") as f64 / 2f64.powi(32);
        const TRIALS: u32 = 2000;
        let mut lower = 0;
        for _ in 0..TRIALS {
            let strip = Strips::table().choose(digit, &mut rng).expect("far from the end");
            assert!(strip == k as u32 || strip == k as u32 + 1);
            lower += u32::from(strip == k as u32);
        }
        assert_fraction(lower, TRIALS, wanted);
    }
    assert_eq!(Strips::table().choose(u32::MAX, &mut rng), None);
}

#[test]
fn p12_comparisons_beyond_the_first_digit_are_fair() {
    let mut rng = Key::fixed(42).stream(0);
    let (mut less, mut under_third) = (0, 0);
    const TRIALS: u32 = 200_000;
    for _ in 0..TRIALS {
        less += u32::from(Uniform::starting(5).less_than(&mut Uniform::starting(5), &mut rng));
        under_third += u32::from(Uniform::starting(0).rest_below(1, 3, &mut rng));
    }
    assert_fraction(less, TRIALS, 0.5);
    assert_fraction(under_third, TRIALS, 1.0 / 3.0);
}

/// Also far out, where one coin would need a probability above 1.
#[test]
fn p12_acceptance_has_its_probability_in_any_strip() {
    let mut rng = Key::fixed(43).stream(0);
    const TRIALS: u32 = 400_000;
    for k in [0, 40, 1023, 1024, 3000] {
        let mut kept = 0;
        for _ in 0..TRIALS {
            let (part, mut x) = (rng.next_u32() % SQUARE, Uniform::draw(&mut rng));
            kept += u32::from(keep(k, part, &mut x, &mut rng));
        }
        // ∫ e^(−x(2k + x)/2048) dx over [0, 1), by the midpoint rule.
        let at = |i: u32| (f64::from(i) + 0.5) / 1e5;
        let exponent = |x: f64| x * (2.0 * f64::from(k) + x) / 2048.0;
        let wanted = (0..100_000).map(|i| (-exponent(at(i))).exp()).sum::<f64>() / 1e5;
        assert_fraction(kept, TRIALS, wanted);
    }
}

#[test]
fn p12_rounding_is_that_of_the_whole_number_nearest() {
    let mut rng = Key::fixed(44).stream(0);
    for i in 0..20_000u32 {
        let sigma = (rng.next_u64() >> (14 + rng.next_u32() % 50)).max(1);
        let k = rng.next_u32() % 300;
        let mut x = Uniform::draw(&mut rng);
        // Every other time all but at a whole number, so that the first digits do not decide.
        if i % 2 == 0 {
            let whole = (rng.next_u32() & 255) + sigma as u32 / 64;
            let x_at = (f64::from(whole) + 0.5) * 32.0 / sigma as f64;
            x.first = (x_at.fract() * 2f64.powi(32)) as u32;
        }
        // Drawn now, so that the answer can be computed from the same digits.
        x.later_digit(7, &mut rng);
        let found = nearest(sigma, k, &mut x, &mut rng);
        let mut digits = (BigUint::from(k) << 32) + x.first;
        for index in 0..8 {
            digits = (digits << 32) + x.later_digit(index, &mut rng);
        }
        let nearest = (digits * sigma + (BigUint::from(16u32) << 288)) >> 293;
        assert_eq!(BigUint::from(found), nearest, "sigma {sigma}, k {k}, first {}", x.first);
    }
}

#[test]
fn p12_sigma_outside_its_range_is_refused() {
    assert!(Rounded::new(0).is_none() && Rounded::new(MAX_SIGMA + 1).is_none());
    assert!(Rounded::new(1).is_some() && Rounded::new(MAX_SIGMA).is_some());
}

/// `count` of `trials` is `p` of them, within 4.5 standard deviations.
fn assert_fraction(count: u32, trials: u32, p: f64) {
    let n = f64::from(trials);
    let off = (f64::from(count) - n * p) / (n * p * (1.0 - p)).sqrt();
    assert!(off.abs() < 4.5, "{count} of {trials}, {p} expected");
}
