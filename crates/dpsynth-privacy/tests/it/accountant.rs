//! The accountant against reference numbers of other tools, and the laws any accountant must keep.

use dpsynth_privacy::accountant::{
    Adjacency,
    Adjacency::{AddOrRemoveOne, ReplaceOne},
    Direction, Phase, pld, rdp,
};
use dpsynth_privacy::calibrate;
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
    let rows = rows(include_str!("../fixtures/accounting.csv"));
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
    for row in rows(include_str!("../fixtures/accounting.csv"))
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

/// The table of docs/privacy.md: what a shuffled epoch loses, beside what accounting it as Poisson would claim.
#[test]
fn a_shuffled_epoch_accounted_as_poisson_claims_too_little() {
    let mut too_little = 0;
    // Every other row is enough.
    for row in rows(include_str!("../fixtures/shuffled_epoch.csv")).iter().step_by(2) {
        let steps = row("T_batches_per_epoch");
        let poisson = phase(1.0 / steps, row("sigma"), steps as u64);
        let claimed = pld::epsilon(&[poisson], AddOrRemoveOne, row("delta"))
            .expect("valid")
            .epsilon;
        let reference = row("eps_poisson_pld");
        // The reference's grid of 1e-4 shows where steps are many.
        let tolerance = (2e-3 * reference).max(1e-3 + 2e-7 * steps);
        assert!((claimed - reference).abs() <= tolerance, "{claimed} {reference}");
        too_little += usize::from(claimed < row("eps_shuffle_lower_bound"));
    }
    assert!(too_little >= 14, "{too_little} of 21");
}

/// Where hardly anyone is drawn, the tilt that resolves delta can be beyond what f64 weighs: epsilon was 0 there once.
#[test]
fn one_step_of_rare_draws_is_never_below_its_closed_form() {
    use statrs::distribution::{ContinuousCDF, Normal};
    let normal = Normal::standard();
    let exponents = |from: i32, to: i32| (from..=to).map(|e| 10f64.powi(e));
    let rare = exponents(-9, -3).flat_map(|q| [q, 4.928744918745532 * q]);
    let settings = rare.flat_map(|q| [0.4, 4.777682319746469, 902.0].map(|sigma| (q, sigma)));
    for (q, sigma) in settings {
        for delta in [2.5580610691842696e-14, 1e-9] {
            let epsilon = pld::epsilon_above(&[phase(q, sigma, 1)], AddOrRemoveOne, delta).expect("valid");
            let above = |x: f64| normal.sf(x / sigma);
            let x = sigma * sigma * ((epsilon.exp_m1() + q) / q).ln() + 0.5;
            // Of removal; that of adding is one more lower bound of the truth.
            let exact = q * (above(x - 1.0) - above(x)) - epsilon.exp_m1() * above(x);
            assert!(
                exact <= delta * (1.0 + 1e-6),
                "q {q:e} sigma {sigma} delta {delta:e}: epsilon {epsilon:e} has delta {exact:e}"
            );
        }
    }
}

#[test]
fn delta_at_epsilon_one_agrees_with_the_reference() {
    let rows = rows(include_str!("../fixtures/accounting.csv"));
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
    for row in rows(include_str!("../fixtures/accounting.csv")) {
        let phases = [phase(row("q"), row("sigma"), row("T") as u64)];
        let bound = rdp::epsilon(&phases, AddOrRemoveOne, row("delta")).expect("valid");
        assert!(
            (bound.epsilon / row("eps_dpacc_rdp") - 1.0).abs() < 1e-3,
            "{bound:?} {}",
            row("eps_dpacc_rdp")
        );
        // Opacus tries a few other orders, none above 63, so it may be a little lower or a good deal higher.
        let exact = rdp::epsilon_exact(&phases, AddOrRemoveOne, row("delta")).expect("valid");
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
    let rows = rows(include_str!("../fixtures/calibration.csv"));
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
            rdp::epsilon(&[phase(0.1, 1.0, 1)], AddOrRemoveOne, delta)
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

/// Phases as tests/fixtures/mechanisms.py writes them.
fn plan(text: &str) -> Vec<Phase> {
    let one = |phase: &str| {
        let (kind, numbers) = phase.split_once(':').expect("a kind");
        let n: Vec<f64> = numbers.split(':').map(|n| n.parse().expect("a number")).collect();
        match kind {
            "gaussian" => Phase::new(n[0], n[1], n[2] as u64),
            "truncated" => Phase::truncated(n[0], n[1], n[2] as u64, n[3] as u64, n[4] as u64),
            "laplace" => Phase::laplace(n[0], n[1] as u64),
            "sampled" => Phase::sampled_laplace(n[0], n[1], n[2] as u64),
            _ => Phase::pure(n[0], n[1] as u64),
        }
        .expect("valid")
    };
    text.split_whitespace().map(one).collect()
}

#[test]
fn other_mechanisms_adjacencies_and_plans_agree_with_the_reference() {
    let mut seen = 0;
    for line in include_str!("../fixtures/mechanisms.csv").lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let adjacency = [AddOrRemoveOne, ReplaceOne]
            .into_iter()
            .find(|a| a.name() == cells[0])
            .expect("an adjacency");
        let [delta, reference] = [cells[2], cells[3]].map(|n| n.parse::<f64>().expect("a number"));
        let bracket = pld::epsilon(&plan(cells[1]), adjacency, delta).expect("valid");
        // Truncated batches are bounded in another way there, neither always above the other.
        let share = if cells[1].contains("truncated") { 0.03 } else { 3e-4 };
        assert!((bracket.epsilon / reference - 1.0).abs() < share, "{line}: {bracket:?}");
        assert!(bracket.epsilon_lower <= reference * (1.0 + 1e-9), "{line}: {bracket:?}");
        seen += 1;
    }
    assert_eq!(seen, 96);
}

/// k-fold randomised response is binomial.
#[test]
fn pure_mechanisms_bracket_their_closed_form() {
    use statrs::function::factorial::ln_binomial;
    for (each, times, delta) in [
        (1.0_f64, 1, 1e-5),
        (0.1, 10, 1e-6),
        (0.1, 400, 1e-9),
        (0.01, 5000, 1e-12),
        (3.0, 7, 1e-4),
    ] {
        let (ln_p, ln_q) = (-(-each).exp().ln_1p(), -each.exp().ln_1p());
        let exact = |epsilon: f64| -> f64 {
            (0..=times)
                .map(|i| {
                    let loss = (2.0 * i as f64 - times as f64) * each;
                    let ln_mass = ln_binomial(times, i) + i as f64 * ln_p + (times - i) as f64 * ln_q;
                    ln_mass.exp() * -(epsilon - loss).min(0.0).exp_m1()
                })
                .sum()
        };
        let bracket = pld::epsilon(&[Phase::pure(each, times).expect("valid")], AddOrRemoveOne, delta).expect("valid");
        assert!(exact(bracket.epsilon) <= delta * (1.0 + 1e-6), "{bracket:?}");
        assert!(exact(bracket.epsilon_lower) >= delta * (1.0 - 1e-6), "{bracket:?}");
        assert!(
            bracket.epsilon - bracket.epsilon_lower < 1e-5 * bracket.epsilon,
            "{bracket:?}"
        );
        assert_eq!(bracket.direction, Direction::Both);
        // Replacing is removing and adding.
        let replaced = pld::epsilon(&[Phase::pure(each, times).expect("valid")], ReplaceOne, delta).expect("valid");
        let doubled = pld::epsilon(&[Phase::pure(2.0 * each, times).expect("valid")], AddOrRemoveOne, delta);
        assert_eq!(replaced, doubled.expect("valid"));
    }
}

/// E_a(P‖Q) of Laplace noise on several numbers that a record moves by `shifts`, in scales of the noise, with a = e^`loss`. On a
/// grid of outputs, of which each number's losses are known in closed form.
fn hockey_stick(shifts: &[f64], loss: f64) -> f64 {
    const CELLS: usize = 4_000;
    // Of a number: (loss, mass under Q).
    let of = |shift: &f64| -> Vec<(f64, f64)> {
        let cell = |i: usize| {
            let [from, to] = [i, i + 1].map(|i| shift * i as f64 / CELLS as f64);
            (from + to - shift, 0.5 * ((-from).exp() - (-to).exp()))
        };
        let ends = [(-shift, 0.5), (*shift, 0.5 * (-shift).exp())];
        ends.into_iter().chain((0..CELLS).map(cell)).collect()
    };
    let [first, rest @ ..] = shifts else { panic!("a number") };
    match rest {
        [] => of(first).iter().map(|(l, m)| m * (l.exp() - loss.exp()).max(0.0)).sum(),
        // E over the others of e^l·(W − a/e^l)₊.
        [second] => {
            let exact = |shift: f64, loss: f64| match loss {
                _ if loss >= shift => 0.0,
                _ if loss <= -shift => 1.0 - loss.exp(),
                _ => 1.0 - (0.5 * (loss - shift)).exp(),
            };
            of(first)
                .iter()
                .map(|(l, m)| m * l.exp() * exact(*second, loss - l))
                .sum()
        }
        _ => panic!("two numbers are enough"),
    }
}

/// What lets a vector be accounted for by one number: to move two numbers by a and b shows less than to move one by a + b.
#[test]
fn laplace_noise_hides_a_parted_difference_better_than_a_whole_one() {
    for whole in [0.1, 1.0, 3.0, 8.0] {
        for share in [0.01, 0.2, 0.5] {
            for loss in [-0.99, -0.5, 0.0, 0.3, 0.7, 0.95].map(|share| share * whole) {
                let parted = hockey_stick(&[share * whole, (1.0 - share) * whole], loss);
                let one = hockey_stick(&[whole], loss);
                let closed = 1.0 - (0.5 * (loss - whole)).exp();
                assert!(
                    (one - closed).abs() < 1e-5 * closed,
                    "{whole} {loss}: {one}, not {closed}"
                );
                assert!(
                    parted <= one * (1.0 + 1e-5),
                    "{whole} {share} {loss}: {parted} above {one}"
                );
            }
        }
    }
    // And it is less indeed.
    assert!(hockey_stick(&[0.5, 0.5], 0.0) < 0.8 * hockey_stick(&[1.0], 0.0));
}

#[test]
fn laplace_noise_on_a_drawn_number_keeps_the_laws_of_any_account() {
    let of = |q, scale, steps| Phase::sampled_laplace(q, scale, steps).expect("valid");
    let at = |phases: &[Phase]| pld::epsilon(phases, AddOrRemoveOne, 1e-6).expect("valid");
    // Where everybody takes part it is the mechanism without a draw.
    assert_eq!(at(&[of(1.0, 0.7, 9)]), at(&[Phase::laplace(0.7, 9).expect("valid")]));
    // One step by hand: δ = q·δ₀ with e^ε = 1 + q·(e^ε₀ − 1), where a record is taken away.
    let (q, scale, delta) = (0.1, 0.25, 1e-6);
    let inner = 1.0 / scale + 2.0 * f64::ln_1p(-delta / q);
    let by_hand = (q * inner.exp_m1()).ln_1p();
    let bracket = at(&[of(q, scale, 1)]);
    assert!(
        bracket.epsilon >= by_hand * (1.0 - 1e-9) && bracket.epsilon_lower <= by_hand * (1.0 + 1e-9),
        "{bracket:?}, not {by_hand}"
    );
    // Brackets are narrow, at the ends of the range too; steps cost, noise saves, and Rényi's account holds.
    for (q, scale, steps) in [
        (0.01, 0.3, 30),
        (0.04, 1.0, 120),
        (1e-4, 0.04, 5),
        (1e-6, 0.5, 1_000_000),
        (0.3, 300.0, 10_000),
    ] {
        let bracket = at(&[of(q, scale, steps)]);
        assert!(
            bracket.epsilon - bracket.epsilon_lower <= 2e-3 * bracket.epsilon + 1e-3,
            "{q} {scale} {steps}: {bracket:?}"
        );
        assert!(at(&[of(q, scale, steps + steps.div_ceil(10))]).epsilon > bracket.epsilon);
        assert!(at(&[of(q, 1.1 * scale, steps)]).epsilon < bracket.epsilon);
        let renyi = rdp::epsilon(&[of(q, scale, steps)], AddOrRemoveOne, 1e-6).expect("valid");
        assert!(renyi.epsilon >= bracket.epsilon * (1.0 - 1e-6), "{renyi:?} {bracket:?}");
    }
    let replaced = pld::epsilon(&[of(0.1, 1.0, 3)], ReplaceOne, 1e-6).expect_err("no account");
    assert!(replaced.told().message.contains("Laplace noise"), "{replaced}");
    assert!(Phase::sampled_laplace(0.0, 1.0, 1).is_err() && Phase::sampled_laplace(0.5, 0.0, 1).is_err());
}

#[test]
fn laplace_noise_has_its_closed_form() {
    for scale in [0.3, 1.0, 5.0, 40.0] {
        for (adjacency, epsilon) in [(AddOrRemoveOne, 1.0 / scale), (ReplaceOne, 2.0 / scale)] {
            let delta = 1e-4;
            let exact = epsilon + 2.0 * f64::ln_1p(-delta);
            let bracket = pld::epsilon(&[Phase::laplace(scale, 1).expect("valid")], adjacency, delta).expect("valid");
            assert!(
                bracket.epsilon >= exact - 1e-9 && bracket.epsilon <= exact + 2e-5,
                "{bracket:?} {exact}"
            );
            assert!(
                bracket.epsilon_lower <= exact && bracket.epsilon_lower >= exact - 2e-5,
                "{bracket:?} {exact}"
            );
        }
    }
}

/// Without sampling a replaced record is a shift of twice the size; one sampled step has δ(ε) in closed form.
#[test]
fn a_replaced_record_has_its_closed_form() {
    use statrs::distribution::{ContinuousCDF, Normal};
    let whole = pld::epsilon(&[phase(1.0, 4.0, 10)], ReplaceOne, 1e-6).expect("valid");
    assert_eq!(
        whole,
        pld::epsilon(&[phase(1.0, 2.0, 10)], AddOrRemoveOne, 1e-6).expect("valid")
    );
    let normal = Normal::standard();
    for (q, sigma) in [
        (0.01_f64, 0.35_f64),
        (0.1, 1.0),
        (0.5, 2.0),
        (0.9, 0.7),
        (1e-4, 0.5),
        (0.999, 30.0),
    ] {
        let exact = |epsilon: f64| -> f64 {
            let odds = (1.0 - q) / q * (0.5 / (sigma * sigma)).exp();
            let x = sigma * sigma * (0.5 * epsilon + (odds * (0.5 * epsilon).sinh()).asinh());
            let above = |x: f64| normal.sf(x / sigma);
            let [p, q] = [x - 1.0, x + 1.0].map(|y| (1.0 - q) * above(x) + q * above(y));
            p - epsilon.exp() * q
        };
        for delta in [1e-3, 1e-5, 1e-7] {
            let bracket = pld::epsilon(&[phase(q, sigma, 1)], ReplaceOne, delta).expect("valid");
            let about = format!("q {q} sigma {sigma} delta {delta}: {bracket:?}");
            assert_eq!(bracket.direction, Direction::Both);
            assert!(exact(bracket.epsilon) <= delta * (1.0 + 1e-6), "{about}");
            assert!(
                bracket.epsilon_lower == 0.0 || exact(bracket.epsilon_lower) >= delta * (1.0 - 1e-6),
                "{about}"
            );
            assert!(
                bracket.epsilon - bracket.epsilon_lower <= 1e-3 * bracket.epsilon + 5e-5,
                "{about}"
            );
        }
    }
}

#[test]
fn truncating_batches_costs_more_the_more_often_it_happens_and_nothing_where_it_never_does() {
    for adjacency in [AddOrRemoveOne, ReplaceOne] {
        let epsilon = |phases: &[Phase]| pld::epsilon(phases, adjacency, 1e-6).expect("valid");
        let truncated = |most, records| epsilon(&[Phase::truncated(0.04, 1.0, 100, most, records).expect("valid")]);
        let plain = epsilon(&[phase(0.04, 1.0, 100)]);
        assert_eq!(truncated(25_000, 25_000), plain);
        let costs = [1500, 1200, 1150, 1100, 1000, 1].map(|most| truncated(most, 25_000).epsilon);
        assert!((costs[0] / plain.epsilon - 1.0).abs() < 1e-4, "{costs:?}");
        assert!(costs.windows(2).all(|c| c[0] <= c[1] * (1.0 + 1e-4)), "{costs:?}");
        // Always full: half the noise.
        let half = epsilon(&[phase(0.04, 0.5, 100)]).epsilon;
        assert!((costs[5] / half - 1.0).abs() < 1e-3, "{costs:?} {half}");
        // More records are cut more often.
        assert!(truncated(1100, 20_000).epsilon < truncated(1100, 25_000).epsilon);
        // The lower bound is that of few records, which are never cut.
        assert!(truncated(1100, 25_000).epsilon_lower <= plain.epsilon);
    }
}

#[test]
fn renyi_knows_every_mechanism_and_adjacency() {
    for text in [
        "gaussian:0.04:1:100",
        "gaussian:1:5:10",
        "gaussian:0.01:0.6:20 gaussian:0.3:4:10",
        "laplace:10:100",
        "pure:0.1:100",
        "truncated:0.04:1:100:1150:25000",
        "gaussian:0.04:1:100 laplace:10:1 pure:0.1:2",
    ] {
        for adjacency in [AddOrRemoveOne, ReplaceOne] {
            let [bound, exact] =
                [rdp::epsilon, rdp::epsilon_exact].map(|f| f(&plan(text), adjacency, 1e-6).expect("valid").epsilon);
            let tight = pld::epsilon(&plan(text), adjacency, 1e-6).expect("valid").epsilon;
            assert!(
                tight <= exact * (1.0 + 1e-3) && exact <= bound * (1.0 + 1e-9) && bound < 1.6 * tight,
                "{text} {adjacency:?}: {tight} {exact} {bound}"
            );
        }
    }
    // The quadrature against the closed form of a shift of twice the size.
    let near = rdp::epsilon(&[phase(1.0 - 1e-12, 4.0, 10)], ReplaceOne, 1e-6).expect("valid");
    let exact = rdp::epsilon(&[phase(1.0, 2.0, 10)], AddOrRemoveOne, 1e-6).expect("valid");
    assert!((near.epsilon / exact.epsilon - 1.0).abs() < 1e-6, "{near:?} {exact:?}");
}

#[test]
fn settings_at_the_ends_of_their_ranges_are_answered_and_bracketed() {
    for (q, sigma, steps, delta, width) in [
        (1e-9, 0.3, 1, 1e-12, 1e-3),
        (1e-5, 0.5, 10, 1e-9, 5e-3),
        (0.5, 100.0, 10_000, 1e-12, 1e-3),
        (0.04, 0.3, 20, 1e-12, 1e-2),
        (0.9, 1.0, 20, 1e-10, 1e-3),
        (1.0 - 1e-6, 0.3, 2, 1e-5, 1e-3),
        (0.01, 10.0, 100_000, 1e-12, 1e-3),
    ] {
        for adjacency in [AddOrRemoveOne, ReplaceOne] {
            let bracket = pld::epsilon(&[phase(q, sigma, steps)], adjacency, delta).expect("an answer");
            assert!(
                bracket.epsilon_lower <= bracket.epsilon
                    && bracket.epsilon - bracket.epsilon_lower <= width * bracket.epsilon + 5e-5,
                "q {q} sigma {sigma} T {steps} delta {delta}: {bracket:?}"
            );
        }
    }
}

#[test]
fn p10_mechanisms_without_a_meaning_are_refused() {
    let refused = [
        Phase::laplace(0.0, 1),
        Phase::laplace(f64::NAN, 1),
        Phase::laplace(1.0, 0),
        Phase::pure(0.0, 1),
        Phase::pure(-1.0, 1),
        Phase::pure(f64::INFINITY, 1),
        Phase::pure(0.1, 0),
        Phase::truncated(0.1, 1.0, 10, 0, 100),
        Phase::truncated(0.1, 1.0, 10, 10, 0),
        Phase::truncated(1.5, 1.0, 10, 10, 100),
        Phase::truncated(0.1, f64::NAN, 10, 10, 100),
        Phase::truncated(0.1, 1.0, 0, 10, 100),
    ];
    for phase in refused {
        assert_eq!(phase.expect_err("refused").exit_code(), 2);
    }
    assert_eq!(pld::epsilon(&[], ReplaceOne, 1e-5).expect_err("refused").exit_code(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The order of phases changes nothing, more phases never cost less, and replacing never costs less than adding or
    /// removing.
    #[test]
    fn plans_compose_in_any_order_and_adjacencies_are_ordered(
        q in 0.001f64..0.3, sigma in 0.5f64..4.0, steps in 1u64..300, scale in 2.0f64..30.0, pure in 0.01f64..0.5,
    ) {
        let epsilon = |phases: &[Phase], adjacency: Adjacency| pld::epsilon(phases, adjacency, 1e-6).expect("valid");
        let [a, b, c] = [
            phase(q, sigma, steps),
            Phase::laplace(scale, 2).expect("valid"),
            Phase::pure(pure, 3).expect("valid"),
        ];
        let slack = |epsilon: f64| epsilon * (1.0 + 5e-4) + 5e-5;
        let here = epsilon(&[a, b, c], AddOrRemoveOne);
        prop_assert!((epsilon(&[c, a, b], AddOrRemoveOne).epsilon / here.epsilon - 1.0).abs() < 1e-9);
        prop_assert!(here.epsilon_lower <= here.epsilon);
        prop_assert!(epsilon(&[a, b], AddOrRemoveOne).epsilon_lower <= slack(here.epsilon));
        prop_assert!(here.epsilon <= slack(epsilon(&[a, b, c], ReplaceOne).epsilon));
        prop_assert!(epsilon(&[a], AddOrRemoveOne).epsilon <= slack(epsilon(&[a], ReplaceOne).epsilon));
        // Half the noise is what twice the shift is.
        let closer = phase(q, 0.5 * sigma, steps);
        prop_assert!(epsilon(&[a], ReplaceOne).epsilon_lower <= slack(epsilon(&[closer], ReplaceOne).epsilon));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

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
        let most = here.epsilon * (1.0 + 5e-4) + 5e-5;
        prop_assert!(here.epsilon_lower <= here.epsilon);
        prop_assert!(epsilon(q, sigma * 1.05, steps, delta).epsilon <= most);
        prop_assert!(epsilon(q * 0.9, sigma, steps, delta).epsilon <= most);
        prop_assert!(epsilon(q, sigma, steps, delta * 2.0).epsilon <= most);
        prop_assert!(epsilon(q, sigma, steps.div_ceil(2), delta).epsilon <= most);
        prop_assert!(rdp::epsilon_exact(&[phase(q, sigma, steps)], AddOrRemoveOne, delta).expect("valid").epsilon >= here.epsilon_lower);
        // delta(epsilon) is the inverse.
        if here.epsilon > 1e-3 {
            let back = pld::delta(&[phase(q, sigma, steps)], AddOrRemoveOne, here.epsilon).expect("valid");
            prop_assert!((back / delta - 1.0).abs() < 0.02, "delta {delta:e} came back as {back:e} at {here:?}");
        }
    }
}

fn allocated(slots: u64, sigma: f64, steps: u64) -> Phase {
    Phase::allocated(slots, sigma, steps).expect("valid")
}

/// Against quadrature and simulation by a program that shares nothing with this one: `tests/fixtures/allocation.py`.
#[test]
fn random_allocation_is_bracketed_on_every_reference_row() {
    let text = include_str!("../fixtures/allocation.csv");
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("delta")).collect();
    assert!(lines.len() > 60);
    lines.par_iter().for_each(|line| {
        let n: Vec<f64> = line.split(',').skip(1).map(|n| n.parse().expect("a number")).collect();
        let [
            slots,
            sigma,
            steps,
            rounds,
            epsilon,
            remove,
            add,
            error_remove,
            error_add,
        ] = n[..]
        else {
            panic!("{line}");
        };
        // Whole rounds follow each other; of one that is not whole there can be several runs.
        let phases = match slots == steps {
            true => vec![allocated(slots as u64, sigma, (steps * rounds) as u64)],
            false => vec![allocated(slots as u64, sigma, steps as u64); rounds as usize],
        };
        let (delta, error) = if remove >= add {
            (remove, error_remove)
        } else {
            (add, error_add)
        };
        let slack = 4.0 * error + 1e-9 * delta;
        if delta < 1e-12 {
            return;
        }
        let found = pld::delta(&phases, AddOrRemoveOne, epsilon).expect("valid");
        assert!(
            found >= delta - slack && found <= (delta + slack) * 1.01,
            "{line}: {found:e}, not {delta:e}"
        );
        let at = |delta: f64| pld::epsilon(&phases, AddOrRemoveOne, delta).expect("valid");
        let (less, more) = (at(delta + slack), at(delta - slack));
        assert!(
            less.epsilon_lower <= epsilon + 1e-6 && more.epsilon >= epsilon - 1e-6,
            "{line}: {less:?} {more:?}"
        );
        assert!(
            less.epsilon - less.epsilon_lower <= 2e-3 * less.epsilon + 1e-3,
            "{line}: {less:?} is wide"
        );
    });
}

#[test]
fn random_allocation_keeps_the_laws_of_any_account() {
    let at = |phases: &[Phase]| pld::epsilon(phases, AddOrRemoveOne, 1e-6).expect("valid");
    // A round of one step is the whole dataset every time.
    assert_eq!(at(&[allocated(1, 2.0, 9)]), at(&[phase(1.0, 2.0, 9)]));
    // The first step knows no other, and two runs of one step each share no round.
    assert_eq!(at(&[allocated(20, 0.7, 1); 2]), at(&[phase(0.05, 0.7, 2)]));
    // More steps cost more, more noise less; a whole round costs less than as many Poisson steps.
    let steps: Vec<f64> = (1..=20).map(|steps| at(&[allocated(10, 0.8, steps)]).epsilon).collect();
    assert!(steps.windows(2).all(|w| w[0] < w[1] * (1.0 + 1e-9)), "{steps:?}");
    assert!(at(&[allocated(10, 0.9, 20)]).epsilon < steps[19]);
    for (slots, sigma, steps) in [(24, 0.5, 24), (98, 0.43, 98), (25, 0.59, 75), (24, 1.2, 24)] {
        let (fixed, poisson) = (
            at(&[allocated(slots, sigma, steps)]),
            at(&[phase(1.0 / slots as f64, sigma, steps)]),
        );
        assert!(fixed.epsilon < poisson.epsilon_lower, "{slots}: {fixed:?} {poisson:?}");
    }
    // It composes with the rest.
    let beside = Phase::laplace(2.0, 1).expect("valid");
    let both = at(&[allocated(10, 0.8, 20), beside]);
    assert!(
        both.epsilon > steps[19] && both.epsilon <= steps[19] + 0.5 + 1e-6,
        "{both:?}"
    );
    // Rényi's account holds too, and is the wider one.
    let renyi = rdp::epsilon(&[allocated(10, 0.8, 20)], AddOrRemoveOne, 1e-6).expect("valid");
    assert!(
        renyi.epsilon >= steps[19] * (1.0 - 1e-6) && renyi.epsilon < 2.0 * steps[19],
        "{renyi:?} {}",
        steps[19]
    );
    // Nobody has shown what replacing a record costs.
    let replaced = pld::epsilon(&[allocated(10, 0.8, 20)], ReplaceOne, 1e-6).expect_err("no account");
    assert!(replaced.told().message.contains("random allocation"), "{replaced}");
    assert!(Phase::allocated(0, 1.0, 1).is_err() && Phase::allocated(u64::MAX, 1.0, 1).is_err());
}

/// Ratios that no f64 holds were taken for none at all, and epsilon for 0.
#[test]
fn a_delta_beyond_all_digits_did_not_make_epsilon_vanish() {
    for (slots, sigma) in [(2, 0.05), (3, 0.05), (3, 0.06), (2, 0.3), (24, 0.5)] {
        for delta in [1e-30, 1e-100, 1e-200, 1e-300] {
            let phases = [allocated(slots, sigma, slots)];
            // Either nothing can be certified, or it is worse than at a delta that means something.
            if let Ok(bracket) = pld::epsilon(&phases, AddOrRemoveOne, delta) {
                let usual = pld::epsilon(&phases, AddOrRemoveOne, 1e-6).expect("valid");
                assert!(
                    bracket.epsilon >= usual.epsilon,
                    "{slots} {sigma} {delta:e}: {bracket:?}"
                );
            }
        }
    }
}

/// Rounds beyond counting, little noise, much noise.
#[test]
fn random_allocation_at_the_ends_of_its_range_is_answered() {
    for (slots, sigma, steps) in [
        (1_000_000, 0.5, 100),
        (100_000, 0.6, 100_000),
        (4, 0.05, 8),
        (50, 30.0, 5_000),
        (2, 1e6, 2),
    ] {
        let bracket = pld::epsilon(&[allocated(slots, sigma, steps)], AddOrRemoveOne, 1e-7).expect("valid");
        assert!(
            bracket.epsilon.is_finite() && bracket.epsilon_lower <= bracket.epsilon,
            "{slots} {sigma} {steps}: {bracket:?}"
        );
        assert!(
            bracket.epsilon - bracket.epsilon_lower <= 0.03 * bracket.epsilon + 1e-3,
            "{slots} {sigma} {steps}: {bracket:?}"
        );
    }
}
