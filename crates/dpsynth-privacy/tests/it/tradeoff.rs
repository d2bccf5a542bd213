//! The whole curve, against closed forms.

use dpsynth_privacy::accountant::tradeoff::{Curve, gaussian_true_positives};
use dpsynth_privacy::accountant::{Adjacency, Phase, pld};

fn curve(phases: &[Phase]) -> Curve {
    Curve::new(phases, Adjacency::AddOrRemoveOne).expect("a curve")
}

/// Without sampling the composition is one Gaussian mechanism of mu = sqrt(T)/sigma (Dong, Roth and Su 2022).
#[test]
fn p10_the_curve_of_the_gaussian_mechanism_is_its_closed_form() {
    for (sigma, steps) in [(1.0f64, 1u64), (2.0, 1), (4.0, 16)] {
        let mu = (steps as f64).sqrt() / sigma;
        let curve = curve(&[Phase::new(1.0, sigma, steps).expect("a phase")]);
        for rate in [1e-3, 0.01, 0.1, 0.5] {
            let (found, exact) = (curve.true_positives(rate), gaussian_true_positives(mu, rate));
            assert!(
                found.at_most >= exact && found.at_most < exact * 1.001 + 1e-6,
                "{found:?} {exact}"
            );
            assert!(
                found.at_least <= exact && found.at_least > exact * 0.98,
                "{found:?} {exact}"
            );
        }
        let dominating = curve.dominating();
        assert!(
            (dominating.mu / mu - 1.0).abs() < 0.02 && dominating.mu >= mu * 0.9999,
            "{dominating:?} {mu}"
        );
        assert!(dominating.regret < 0.01, "{dominating:?}");
        // Half the total variation above a half: Phi(mu/2).
        let right = curve.right_at_even_odds();
        let exact = gaussian_true_positives(mu / 2.0, 0.5);
        assert!(
            right.at_most >= exact && right.at_most < exact + 1e-6,
            "{right:?} {exact}"
        );
    }
}

/// One step of the subsampled Gaussian: with the unit in, N(0, s^2) or with probability q N(1, s^2); without it N(0, s^2). The best
/// attack is a threshold, whose rates have a closed form (Neyman and Pearson).
#[test]
fn p10_the_curve_of_one_sampled_step_is_that_of_its_best_threshold() {
    use statrs::distribution::{ContinuousCDF, Normal};
    let (q, sigma) = (0.2, 0.8);
    let normal = Normal::standard();
    let curve = curve(&[Phase::new(q, sigma, 1).expect("a phase")]);
    for rate in [1e-3, 0.01, 0.1] {
        let threshold = sigma * normal.inverse_cdf(1.0 - rate);
        let exact = (1.0 - q) * rate + q * (1.0 - normal.cdf((threshold - 1.0) / sigma));
        let found = curve.true_positives(rate);
        // Whoever guesses the other way round is no better here.
        assert!(
            found.at_most >= exact && found.at_most < 1.01 * exact,
            "{found:?} {exact}"
        );
        assert!(
            found.at_least <= exact && found.at_least > 0.97 * exact,
            "{found:?} {exact}"
        );
    }
}

/// Randomised response: P(right) = e^eps/(1 + e^eps), so that true positives are at most e^eps times false ones, and 1 minus e^-eps
/// times true negatives.
#[test]
fn p10_the_curve_of_a_pure_mechanism_is_two_lines() {
    let epsilon: f64 = 1.5;
    let curve = curve(&[Phase::pure(epsilon, 1).expect("a phase")]);
    for rate in [1e-3f64, 0.05, 0.3, 0.8] {
        let exact = (epsilon.exp() * rate).min(1.0 - (-epsilon).exp() * (1.0 - rate));
        let found = curve.true_positives(rate);
        assert!(
            found.at_most >= exact * 0.9999 && found.at_most < exact * 1.01,
            "{found:?} {exact}"
        );
    }
    let right = curve.right_at_even_odds().at_most;
    assert!((right - epsilon.exp() / (1.0 + epsilon.exp())).abs() < 0.002, "{right}");
}

/// The bound holds against each (epsilon, delta) that the accountant gives, and brackets itself.
#[test]
fn p10_the_curve_agrees_with_every_epsilon() {
    let phases = [
        Phase::new(0.02, 0.7, 300).expect("a phase"),
        Phase::pure(0.2, 1).expect("a phase"),
    ];
    let curve = curve(&phases);
    for rate in [1e-3f64, 0.01, 0.05, 0.1, 0.5] {
        let found = curve.true_positives(rate);
        assert!(
            found.at_least <= found.at_most && found.at_least > 0.9 * found.at_most,
            "{found:?}"
        );
        for delta in [1e-2, 1e-4, 1e-6] {
            let bracket = pld::epsilon(&phases, Adjacency::AddOrRemoveOne, delta).expect("an epsilon");
            let by_epsilon = bracket.epsilon.exp() * rate + delta;
            assert!(found.at_most <= by_epsilon * 1.001, "{found:?} {by_epsilon}");
        }
    }
    let dominating = curve.dominating();
    assert!(
        (1e-3..20.0).contains(&dominating.mu) && (0.0..0.2).contains(&dominating.regret),
        "{dominating:?}"
    );
    for rate in [1e-3, 0.1, 0.5] {
        let (ours, gaussian) = (
            curve.true_positives(rate).at_most,
            gaussian_true_positives(dominating.mu, rate),
        );
        assert!(gaussian >= ours * 0.999, "{gaussian} {ours}");
    }
}
