//! The estimates beside the accountant: against the numbers of others, and that they never pass for bounds.

use dpsynth_privacy::accountant::edgeworth::{self, certified};
use dpsynth_privacy::accountant::{Adjacency, Adjacency::AddOrRemoveOne, Phase, gdp, pld};

/// The fixture's rows: (q, σ, T, δ) as a phase and delta, and the other columns.
fn rows() -> Vec<(Phase, f64, Vec<f64>)> {
    include_str!("../fixtures/estimates.csv")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .skip(1)
        .map(|line| {
            let cells: Vec<f64> = line.split(',').map(|c| c.parse().expect("a number")).collect();
            let phase = Phase::new(cells[0], cells[1], cells[2] as u64).expect("valid");
            (phase, cells[3], cells[4..].to_vec())
        })
        .collect()
}

fn close(ours: f64, theirs: f64, relative: f64) -> bool {
    (ours - theirs).abs() <= relative * theirs.abs()
}

#[test]
fn gdp_is_what_opacus_estimates() {
    for (phase, delta, others) in rows() {
        let ours = gdp::epsilon(&[phase], AddOrRemoveOne, delta).expect("valid").value();
        assert!(close(ours, others[2], 1e-6), "{phase:?}: {ours} against {}", others[2]);
        let back = gdp::delta(&[phase], AddOrRemoveOne, ours).expect("valid").value();
        assert!(close(back, delta, 1e-6), "{phase:?}: {back} against {delta}");
    }
}

#[test]
fn edgeworth_is_what_its_authors_estimate_at_every_order() {
    for (phase, delta, others) in rows() {
        let ours = edgeworth::epsilon(&[phase], AddOrRemoveOne, delta).expect("valid");
        for (ours, theirs) in ours.iter().zip(&others[3..6]) {
            assert!(
                close(ours.value(), *theirs, 1e-6),
                "{phase:?}: {} against {theirs}",
                ours.value()
            );
        }
        let back = edgeworth::delta(&[phase], AddOrRemoveOne, ours[0].value()).expect("valid");
        assert!(
            close(back[0].value(), delta, 1e-5),
            "{phase:?}: {} against {delta}",
            back[0].value()
        );
    }
}

/// The authors take raw moments where the theorem asks for centred ones: the two agree as T grows.
#[test]
fn the_edgeworth_error_bound_is_the_authors_but_for_centring() {
    for (phase, delta, others) in rows() {
        let ours = certified(&[phase], AddOrRemoveOne, delta).expect("valid");
        let tolerance = if phase.steps() > 1000 { 0.05 } else { 0.4 };
        for (ours, theirs) in [(ours.error_without, others[6]), (ours.error_with, others[7])] {
            assert!(close(ours, theirs, tolerance), "{phase:?}: {ours} against {theirs}");
        }
        assert_eq!(ours.epsilon, None, "{phase:?}: no bound was expected");
        assert!(ours.least_delta >= delta);
    }
}

#[test]
fn a_certified_edgeworth_epsilon_is_above_the_true_one() {
    // Only very many steps and a large delta make the bound say anything.
    let phase = [Phase::new(0.001, 4.0, 50_000_000).expect("valid")];
    let bound = certified(&phase, AddOrRemoveOne, 0.01).expect("valid");
    let epsilon = bound.epsilon.expect("a bound");
    let mu = gdp::epsilon(&phase, AddOrRemoveOne, 0.01).expect("valid").value();
    let below = pld::epsilon(&[Phase::new(0.001, 4.0, 50_000).expect("valid")], AddOrRemoveOne, 0.01)
        .expect("valid")
        .epsilon;
    assert!(
        epsilon > mu && epsilon > below && epsilon < 1.5 * mu,
        "{epsilon}: {mu}, {below}"
    );
}

#[test]
fn higher_orders_come_closer_where_steps_are_many() {
    let phase = [Phase::new(0.01024, 2.0, 4883).expect("valid")];
    let exact = pld::epsilon(&phase, AddOrRemoveOne, 1e-5).expect("valid").epsilon;
    let orders = edgeworth::epsilon(&phase, AddOrRemoveOne, 1e-5).expect("valid");
    let off = orders.map(|e| (e.value() - exact).abs());
    assert!(off[2] < off[1] && off[1] < off[0] && off[2] < 1e-4 * exact, "{off:?}");
}

#[test]
fn phases_add_up() {
    let phase = |q, sigma, steps| Phase::new(q, sigma, steps).expect("valid");
    let whole = [phase(0.02, 1.2, 500)];
    let halves = [phase(0.02, 1.2, 200), phase(0.02, 1.2, 300)];
    let (a, b) = (
        edgeworth::epsilon(&whole, AddOrRemoveOne, 1e-5).expect("valid"),
        edgeworth::epsilon(&halves, AddOrRemoveOne, 1e-5).expect("valid"),
    );
    for (a, b) in a.iter().zip(&b) {
        assert!(close(b.value(), a.value(), 1e-9));
    }
    let mu = |phases: &[Phase]| gdp::mu(phases, AddOrRemoveOne).expect("valid");
    assert!(close(mu(&halves), mu(&whole), 1e-12));
    // Different phases: near the true value of both together, in either order.
    let mixed = [phase(0.04, 2.0, 400), phase(0.01, 1.5, 2000)];
    let turned = [mixed[1], mixed[0]];
    let exact = pld::epsilon(&mixed, AddOrRemoveOne, 1e-5).expect("valid").epsilon;
    let (a, b) = (
        edgeworth::epsilon(&mixed, AddOrRemoveOne, 1e-5).expect("valid")[2].value(),
        edgeworth::epsilon(&turned, AddOrRemoveOne, 1e-5).expect("valid")[2].value(),
    );
    assert!(
        close(a, exact, 0.01) && close(b, a, 1e-9),
        "{a} and {b} against {exact}"
    );
    let least = certified(&mixed, AddOrRemoveOne, 1e-5).expect("valid").least_delta;
    let turned = certified(&turned, AddOrRemoveOne, 1e-5).expect("valid").least_delta;
    assert!(close(least, turned, 1e-9));
}

#[test]
fn extreme_settings_give_numbers() {
    for (q, sigma, steps, delta) in [
        (1e-6, 0.05, 1, 1e-12),
        (1.0, 0.05, 100, 1e-12),
        (1.0, 100.0, 1, 0.5),
        (1e-8, 100.0, 1_000_000, 1e-12),
        (0.5, 0.3, 1_000_000, 1e-5),
        (0.01, 1e6, 1_000_000, 1e-5),
    ] {
        let phase = [Phase::new(q, sigma, steps).expect("valid")];
        let mut all = vec![gdp::epsilon(&phase, AddOrRemoveOne, delta).expect("valid").value()];
        all.extend(
            edgeworth::epsilon(&phase, AddOrRemoveOne, delta)
                .expect("valid")
                .map(|e| e.value()),
        );
        let bound = certified(&phase, AddOrRemoveOne, delta).expect("valid");
        all.extend([bound.error_with, bound.error_without]);
        assert!(all.iter().all(|v| v.is_finite() && *v >= 0.0), "{phase:?}: {all:?}");
    }
}

#[test]
fn estimates_refuse_what_they_do_not_know() {
    let gaussian = [Phase::new(0.1, 1.0, 10).expect("valid")];
    let laplace = [Phase::laplace(1.0, 10).expect("valid")];
    let refused = [
        gdp::epsilon(&gaussian, Adjacency::ReplaceOne, 1e-5).err(),
        gdp::epsilon(&laplace, AddOrRemoveOne, 1e-5).err(),
        gdp::delta(&gaussian, AddOrRemoveOne, f64::NAN).err(),
        edgeworth::epsilon(&gaussian, Adjacency::ReplaceOne, 1e-5).err(),
        edgeworth::epsilon(&laplace, AddOrRemoveOne, 1e-5).err(),
        edgeworth::epsilon(&gaussian, AddOrRemoveOne, 1.0).err(),
        edgeworth::delta(&[], AddOrRemoveOne, 1.0).err(),
        certified(&gaussian, AddOrRemoveOne, 0.0).err(),
    ];
    for error in refused {
        assert_eq!(error.expect("refused").exit_code(), 2);
    }
}
