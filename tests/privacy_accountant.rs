//! The accountant against reference numbers of other tools, and the laws any accountant must keep.

use dpsynth::privacy::accountant::{Adjacency::AddOrRemoveOne, Phase, pld, rdp};
use dpsynth::privacy::calibrate;
use proptest::prelude::*;
use rayon::prelude::*;

/// Rows of a fixture as lookups by column name; NaN where a cell is empty.
fn rows(text: &'static str) -> Vec<impl Fn(&str) -> f64 + Sync + Send> {
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    lines
        .map(move |line| {
            let names = names.clone();
            move |name: &str| {
                let at = names.iter().position(|n| *n == name).expect("a column of the fixture");
                line.split(',').nth(at).expect("a full row").parse().unwrap_or(f64::NAN)
            }
        })
        .collect()
}

fn phase(q: f64, sigma: f64, steps: u64) -> Phase {
    Phase::new(q, sigma, steps).expect("valid")
}

#[test]
fn pld_lies_in_the_certified_bracket_on_every_reference_row() {
    let rows = rows(include_str!("fixtures/accounting.csv"));
    assert_eq!(rows.len(), 144);
    let wrong: Vec<String> = rows
        .par_iter()
        .filter_map(|row| {
            let bracket = pld::epsilon(
                &[phase(row("q"), row("sigma"), row("T") as u64)],
                AddOrRemoveOne,
                row("delta"),
            )
            .expect("valid");
            let (epsilon, reference) = (bracket.epsilon, row("eps_dpacc_pld"));
            let good = epsilon >= row("bracket_low")
                && epsilon <= row("bracket_high") + 0.01
                && (epsilon - reference).abs() <= f64::max(1e-3, 2e-3 * reference)
                // The optimistic value is a lower bound of everybody's upper bound, and near.
                && bracket.epsilon_lower <= row("bracket_high")
                && bracket.epsilon_lower <= epsilon
                && bracket.epsilon_lower >= epsilon * (1.0 - 0.01) - 1e-4;
            (!good).then(|| {
                format!(
                    "q {} sigma {} T {}: {bracket:?}, reference {reference}",
                    row("q"),
                    row("sigma"),
                    row("T")
                )
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn without_sampling_epsilon_is_the_closed_form() {
    let mut seen = 0;
    for row in rows(include_str!("fixtures/accounting.csv"))
        .iter()
        .filter(|row| row("q") == 1.0)
    {
        let bracket = pld::epsilon(
            &[phase(1.0, row("sigma"), row("T") as u64)],
            AddOrRemoveOne,
            row("delta"),
        )
        .expect("valid");
        assert!(
            (bracket.epsilon - row("eps_exact_gaussian")).abs() < 1e-6,
            "{bracket:?}"
        );
        assert!(
            (bracket.epsilon_lower - row("eps_exact_gaussian")).abs() < 1e-6,
            "{bracket:?}"
        );
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// The grid and the FFT against the closed form, which they do not use: sampling that is all but certain.
#[test]
fn composition_agrees_with_the_closed_form_where_sampling_is_almost_certain() {
    for (sigma, steps, delta) in [(1.0, 1, 1e-5), (2.0, 10, 1e-6), (20.0, 1000, 1e-9), (0.4, 3, 1e-5)] {
        let exact = pld::epsilon(&[phase(1.0, sigma, steps)], AddOrRemoveOne, delta)
            .expect("valid")
            .epsilon;
        let sampled = pld::epsilon(&[phase(1.0 - 1e-9, sigma, steps)], AddOrRemoveOne, delta).expect("valid");
        assert!(
            sampled.epsilon >= exact * (1.0 - 1e-8) && sampled.epsilon <= exact * (1.0 + 2e-4),
            "{sampled:?} {exact}"
        );
        assert!(
            sampled.epsilon_lower <= exact && sampled.epsilon_lower >= exact * (1.0 - 4e-4),
            "{sampled:?} {exact}"
        );
    }
}

/// One step has δ(ε) in closed form in both directions: P(L > ε) − e^ε Q(L > ε).
#[test]
fn one_step_brackets_its_closed_form() {
    use statrs::distribution::{ContinuousCDF, Normal};
    let normal = Normal::standard();
    for (q, sigma) in [(0.01, 0.35), (0.005, 0.5), (0.1, 1.0), (0.5, 2.0), (0.9, 0.7)] {
        let above = |x: f64| normal.sf(x / sigma);
        let exact = |epsilon: f64| -> f64 {
            let edge = |loss: f64| sigma * sigma * ((loss.exp_m1() + q) / q).ln() + 0.5;
            let x = edge(epsilon);
            let remove = (1.0 - q) * above(x) + q * above(x - 1.0) - epsilon.exp() * above(x);
            let add = if (-epsilon).exp_m1() + q <= 0.0 {
                0.0
            } else {
                let x = edge(-epsilon);
                (1.0 - above(x)) - epsilon.exp() * ((1.0 - q) * (1.0 - above(x)) + q * (1.0 - above(x - 1.0)))
            };
            remove.max(add)
        };
        for delta in [1e-3, 1e-5, 1e-7] {
            let bracket = pld::epsilon(&[phase(q, sigma, 1)], AddOrRemoveOne, delta).expect("valid");
            assert!(
                exact(bracket.epsilon) <= delta * (1.0 + 1e-6),
                "q {q} sigma {sigma}: {bracket:?}"
            );
            if bracket.epsilon_lower > 0.0 {
                assert!(
                    exact(bracket.epsilon_lower) >= delta * (1.0 - 1e-6),
                    "q {q} sigma {sigma}: {bracket:?}"
                );
            }
            assert!(
                bracket.epsilon - bracket.epsilon_lower <= 1e-3 * bracket.epsilon + 1e-6,
                "q {q} sigma {sigma}: {bracket:?}"
            );
        }
    }
}

#[test]
fn delta_at_epsilon_one_agrees_with_the_reference() {
    let rows = rows(include_str!("fixtures/accounting.csv"));
    // Every third: a look from the other side at what the test above covers whole.
    rows.par_iter().step_by(3).for_each(|row| {
        let delta = pld::delta(&[phase(row("q"), row("sigma"), row("T") as u64)], AddOrRemoveOne, 1.0).expect("valid");
        let reference = row("delta_at_eps1_pld");
        // Far down the reference is what its tool cut off.
        let near = (delta - reference).abs() <= 6e-3 * reference + 1e-11;
        assert!(
            near,
            "q {} sigma {} T {}: {delta:e} against {reference:e}",
            row("q"),
            row("sigma"),
            row("T")
        );
    });
}

#[test]
fn rdp_agrees_with_both_references() {
    for row in rows(include_str!("fixtures/accounting.csv")) {
        let phases = [phase(row("q"), row("sigma"), row("T") as u64)];
        let bound = rdp::epsilon(&phases, row("delta")).expect("valid");
        assert!(
            (bound.epsilon / row("eps_dpacc_rdp") - 1.0).abs() < 1e-3,
            "{bound:?} {}",
            row("eps_dpacc_rdp")
        );
        // Opacus tries a few other orders, none above 63, so it may be a little lower or a good deal higher.
        let exact = rdp::epsilon_exact(&phases, row("delta")).expect("valid");
        assert!(
            exact.order > 63.0 || (exact.epsilon / row("eps_opacus_rdp") - 1.0).abs() < 2e-3,
            "{exact:?} {}",
            row("eps_opacus_rdp")
        );
        assert!(exact.epsilon <= bound.epsilon * (1.0 + 1e-9));
    }
}

#[test]
fn calibrated_noise_is_the_smallest_and_never_spends_more() {
    let rows = rows(include_str!("fixtures/calibration.csv"));
    assert_eq!(rows.len(), 60);
    rows.par_iter().for_each(|row| {
        let (q, steps, delta, target) = (row("q"), row("T") as u64, row("delta"), row("target_eps"));
        let sigma = calibrate::noise_multiplier(target, delta, q, steps).expect("valid");
        let reference = row("sigma_dpacc_pld");
        assert!(
            (sigma / reference - 1.0).abs() < 1e-3,
            "q {q} T {steps} epsilon {target}: {sigma} against {reference}"
        );
        assert!(
            pld::epsilon(&[phase(q, sigma, steps)], AddOrRemoveOne, delta)
                .expect("valid")
                .epsilon
                <= target
        );
        assert!(
            pld::epsilon(&[phase(q, sigma * (1.0 - 1e-3), steps)], AddOrRemoveOne, delta)
                .expect("valid")
                .epsilon
                > target
        );
    });
}

#[test]
fn a_run_in_two_halves_costs_what_it_costs_whole() {
    let whole = pld::epsilon(&[phase(0.04, 1.0, 100)], AddOrRemoveOne, 1e-5)
        .expect("valid")
        .epsilon;
    let halves = pld::epsilon(&[phase(0.04, 1.0, 40), phase(0.04, 1.0, 60)], AddOrRemoveOne, 1e-5)
        .expect("valid")
        .epsilon;
    assert_eq!(whole, halves);
    // Noise that is almost the same is composed as another mechanism, to almost the same sum.
    let nearly = pld::epsilon(
        &[phase(0.04, 1.0, 40), phase(0.04, 1.0 + 1e-9, 60)],
        AddOrRemoveOne,
        1e-5,
    )
    .expect("valid")
    .epsilon;
    assert!((nearly / whole - 1.0).abs() < 1e-5, "{nearly} {whole}");
}

/// Different Gaussians without sampling compose in closed form; with sampling all but certain they must agree.
#[test]
fn different_mechanisms_compose_as_their_closed_form_says() {
    let exact = pld::epsilon(&[phase(1.0, 3.0, 4), phase(1.0, 1.5, 2)], AddOrRemoveOne, 1e-5)
        .expect("valid")
        .epsilon;
    let near = 1.0 - 1e-9;
    let composed = pld::epsilon(&[phase(near, 3.0, 4), phase(near, 1.5, 2)], AddOrRemoveOne, 1e-5).expect("valid");
    assert!(
        composed.epsilon >= exact * (1.0 - 1e-8) && composed.epsilon <= exact * (1.0 + 2e-4),
        "{composed:?} {exact}"
    );
    assert!(
        composed.epsilon_lower <= exact && composed.epsilon_lower >= exact * (1.0 - 4e-4),
        "{composed:?} {exact}"
    );
}

#[test]
fn small_noise_few_steps_and_a_million_steps_are_both_resolved() {
    for (q, sigma, steps, delta) in [
        (0.005, 0.35, 8, 1e-5),
        (0.005, 0.35, 1, 1e-5),
        (1e-3, 0.8, 1_000_000, 1e-9),
        (1e-4, 1.0, 1000, 1e-9),
    ] {
        let bracket = pld::epsilon(&[phase(q, sigma, steps)], AddOrRemoveOne, delta).expect("valid");
        assert!(bracket.epsilon.is_finite() && bracket.epsilon > 0.0);
        let gap = bracket.epsilon - bracket.epsilon_lower;
        assert!(
            gap >= 0.0 && gap <= 1e-3 * bracket.epsilon,
            "q {q} sigma {sigma} T {steps}: {bracket:?}"
        );
    }
}

/// Mechanisms of very different scale: no less than the worst alone, no more than basic composition, and bracketed.
#[test]
fn very_different_mechanisms_compose_between_their_bounds() {
    let delta = 1e-5;
    for phases in [
        [phase(0.005, 0.35, 8), phase(1e-3, 20.0, 100_000)],
        [phase(0.04, 1.0, 125), phase(1.0, 30.0, 1)],
        [phase(0.5, 4.0, 20), phase(1e-4, 0.5, 1000)],
    ] {
        let together = pld::epsilon(&phases, AddOrRemoveOne, delta).expect("valid");
        let alone = |delta| phases.map(|p| pld::epsilon(&[p], AddOrRemoveOne, delta).expect("valid"));
        let most: f64 = alone(delta / 2.0).iter().map(|b| b.epsilon).sum();
        let least = alone(delta).iter().map(|b| b.epsilon_lower).fold(0.0, f64::max);
        assert!(
            together.epsilon >= least && together.epsilon_lower <= most,
            "{phases:?}: {together:?} {least} {most}"
        );
        let gap = together.epsilon - together.epsilon_lower;
        assert!(gap >= 0.0 && gap <= 2e-3 * together.epsilon, "{phases:?}: {together:?}");
    }
}

#[test]
fn p10_values_without_a_meaning_are_refused() {
    for (q, sigma, steps) in [
        (0.0, 1.0, 1),
        (-0.1, 1.0, 1),
        (1.1, 1.0, 1),
        (f64::NAN, 1.0, 1),
        (0.1, 0.0, 1),
        (0.1, -1.0, 1),
        (0.1, f64::NAN, 1),
        (0.1, f64::INFINITY, 1),
        (0.1, 1.0, 0),
    ] {
        assert_eq!(
            Phase::new(q, sigma, steps).expect_err("refused").exit_code(),
            2,
            "{q} {sigma} {steps}"
        );
    }
    for delta in [0.0, -1e-5, 1.0, 2.0, f64::NAN] {
        assert_eq!(
            pld::epsilon(&[phase(0.1, 1.0, 1)], AddOrRemoveOne, delta)
                .expect_err("refused")
                .exit_code(),
            2,
            "{delta}"
        );
        assert_eq!(
            rdp::epsilon(&[phase(0.1, 1.0, 1)], delta)
                .expect_err("refused")
                .exit_code(),
            2,
            "{delta}"
        );
    }
    for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            calibrate::noise_multiplier(target, 1e-5, 0.1, 10)
                .expect_err("refused")
                .exit_code(),
            2,
            "{target}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// More noise, fewer steps, rarer sampling and a larger delta never cost more; the bracket is never inside out, and
    /// Rényi's bound is never below the optimistic value.
    #[test]
    fn epsilon_is_monotone_and_bracketed(
        q in 0.001f64..0.3, sigma in 0.35f64..4.0, steps in 1u64..800, log_delta in -9.0f64..-3.0,
    ) {
        let delta = 10f64.powf(log_delta);
        let epsilon = |q, sigma, steps, delta| pld::epsilon(&[phase(q, sigma, steps)], AddOrRemoveOne, delta).expect("valid");
        let here = epsilon(q, sigma, steps, delta);
        // Two grids may differ by their resolution.
        let most = here.epsilon * (1.0 + 5e-4) + 1e-6;
        prop_assert!(here.epsilon_lower <= here.epsilon);
        prop_assert!(epsilon(q, sigma * 1.05, steps, delta).epsilon <= most);
        prop_assert!(epsilon(q * 0.9, sigma, steps, delta).epsilon <= most);
        prop_assert!(epsilon(q, sigma, steps, delta * 2.0).epsilon <= most);
        prop_assert!(epsilon(q, sigma, steps.div_ceil(2), delta).epsilon <= most);
        prop_assert!(rdp::epsilon_exact(&[phase(q, sigma, steps)], delta).expect("valid").epsilon >= here.epsilon_lower);
        // delta(epsilon) is the inverse.
        if here.epsilon > 1e-3 {
            let back = pld::delta(&[phase(q, sigma, steps)], AddOrRemoveOne, here.epsilon).expect("valid");
            prop_assert!((back / delta - 1.0).abs() < 0.02, "delta {delta:e} came back as {back:e} at {here:?}");
        }
    }
}
