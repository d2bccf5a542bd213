//! The plan and what comes out of it: sampling, noise, statements.

use std::path::Path;

use dpsynth_privacy::accountant::{Adjacency, Phase, pld};
use dpsynth_privacy::{
    Batches, COPY_GATE, Guarantee, LABELS, LEXICON, LabelCounts, LabelScorer, LabelTokens, Ledger, NoiseKind,
    PlanRequest, PrivacyPlan, PrivateRun, Release, SCORER, TRAINING, Unit, UnitCount, find_ledger,
};

fn request() -> PlanRequest {
    PlanRequest {
        target_epsilon: 4.0,
        delta: None,
        public_size: 10_000,
        expected_batch_size: 200,
        steps: 50,
        max_grad_norm: 0.7,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    }
}

fn plan(request: &PlanRequest) -> PrivacyPlan {
    PrivacyPlan::calibrate(request).expect("a valid plan")
}

fn begin(plan: &PrivacyPlan, dir: &Path, run: &str, records: usize) -> PrivateRun {
    let ledger = Ledger::open(dir, "abc123", 100.0, 1e-5, &Unit::Record).expect("opens");
    plan.begin(ledger, run, records).expect("begins")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (
        mean,
        (values.map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt(),
    )
}

#[test]
fn p1_sampling_noise_and_epsilon_come_from_one_plan() {
    let plan = plan(&request());
    assert_eq!(plan.sampling_rate(), 0.02);
    let statement = plan.statement(plan.steps());
    assert_eq!(statement.number("sampling_rate"), plan.sampling_rate());
    assert_eq!(statement.number("noise_multiplier"), plan.noise_multiplier());
    assert_eq!(
        (statement.number("steps"), statement.number("expected_batch_size")),
        (50.0, 200.0)
    );
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.99, "{statement:?}");
    assert!(
        statement.epsilon_lower <= statement.epsilon && statement.epsilon_lower > 3.98,
        "{statement:?}"
    );
}

#[test]
fn p1_batches_are_poisson() {
    let dir = folder();
    let mut plan_request = request();
    plan_request.steps = 400;
    let plan = plan(&plan_request);
    let mut run = begin(&plan, dir.path(), "r", 10_000);
    let (mut sizes, mut hits) = (Vec::new(), vec![0.0; 10_000]);
    for _ in 0..400 {
        let step = run.charge(TRAINING).expect("within the plan");
        assert!(
            step.members().windows(2).all(|w| w[0] < w[1]),
            "indices in order, none twice"
        );
        assert!(step.members().iter().all(|i| *i < 10_000));
        sizes.push(step.members().len() as f64);
        step.members().iter().for_each(|i| hits[*i] += 1.0);
    }
    // Sizes: binomial(10,000, 0.02): mean 200, deviation 14. A shuffled batch would have deviation 0.
    let (mean, deviation) = mean_and_deviation(sizes.iter().copied());
    assert!((mean - 200.0).abs() < 5.0 * 14.0 / 20.0, "mean batch {mean}");
    assert!(
        (deviation - 14.0).abs() < 5.0 * 14.0 / 800f64.sqrt(),
        "batch deviation {deviation}"
    );
    // Records: binomial(400, 0.02) each: mean 8, deviation 2.8.
    let (mean, deviation) = mean_and_deviation(hits.iter().copied());
    assert!(
        (mean - 8.0).abs() < 0.2 && (deviation - 2.8).abs() < 0.12,
        "{mean} {deviation}"
    );
    // Neighbouring indices are independent.
    let covariance = hits.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / 9_999.0;
    assert!(covariance.abs() < 5.0 * 2.8 * 2.8 / 100.0, "covariance {covariance}");
}

#[test]
fn p2_the_divisor_and_the_rate_are_the_declared_ones() {
    let dir = folder();
    let mut fixed = request();
    fixed.seed = Some(1);
    let plan = plan(&fixed);
    // Half and double the records that were declared: the rate stays.
    for (run, records) in [("half", 5_000), ("double", 20_000)] {
        let mut run = begin(&plan, dir.path(), run, records);
        assert_eq!(run.plan().sampling_rate(), 0.02);
        let step = run.charge(TRAINING).expect("charges");
        let expected = 0.02 * records as f64;
        assert!((step.members().len() as f64 - expected).abs() < 6.0 * expected.sqrt());
        // A sum far above the noise comes back over 200, whatever was drawn.
        let out = step.privatize(&[1e9, -1e9]).expect("finite");
        assert!((out[0] - 5e6).abs() < 1.0 && (out[1] + 5e6).abs() < 1.0, "{out:?}");
    }
}

#[test]
fn p3_a_step_has_one_draw_of_noise_with_the_planned_deviation() {
    let dir = folder();
    for (name, noise) in [("exact", NoiseKind::ExactGaussian), ("float", NoiseKind::Gaussian)] {
        let mut r = request();
        r.noise = noise;
        let plan = plan(&r);
        let mut run = begin(&plan, dir.path(), name, 10_000);
        let d = 200_001;
        let sum: Vec<f64> = (0..d).map(|i| (i % 7) as f64 * 0.1).collect();
        let out = run.charge(TRAINING).expect("charges").privatize(&sum).expect("finite");
        assert_eq!(out.len(), d);
        let noise = out.iter().zip(&sum).map(|(o, s)| f64::from(*o) * 200.0 - s);
        let (mean, deviation) = mean_and_deviation(noise.clone());
        // Never below noise multiplier · C; above it by what P12 charges.
        let least = plan.noise_multiplier() * plan.max_grad_norm();
        let error = least / (2.0 * d as f64).sqrt();
        assert!(
            deviation > least * 1.001 - 5.0 * error && deviation < least * 1.0012 + 5.0 * error,
            "{name}: {deviation} {least}"
        );
        assert!(mean.abs() < 5.0 * deviation / (d as f64).sqrt(), "{name}: mean {mean}");
        // Coordinates are independent, also across the chunks that are drawn in parallel.
        let noise: Vec<f64> = noise.collect();
        for lag in [1, 2, 1 << 14] {
            let r = noise.iter().zip(&noise[lag..]).map(|(a, b)| a * b).sum::<f64>() / (d as f64 * deviation.powi(2));
            assert!(
                r.abs() < 5.0 / (d as f64).sqrt(),
                "{name}: correlation {r} at lag {lag}"
            );
        }
    }
}

/// Drawn beside the sum, as on a GPU, it is the step's own one draw.
#[test]
fn p3_noise_drawn_beside_the_sum_is_that_of_the_step() {
    let sum: Vec<f64> = (0..100).map(|i| f64::from(i) / 50.0).collect();
    let taken = |beside: bool| {
        let folder = folder();
        let mut r = request();
        r.seed = Some(9);
        let mut run = begin(&plan(&r), folder.path(), "run", 10_000);
        let mut steps = (0..2).map(|_| run.charge(TRAINING).expect("charges"));
        let each = steps.by_ref().map(|step| match beside {
            true => step.draw_noise(sum.len()).expect("drawn").privatize(&sum),
            false => step.privatize(&sum),
        });
        each.map(|gradient| gradient.expect("finite")).collect::<Vec<_>>()
    };
    let (beside, after) = (taken(true), taken(false));
    assert_eq!(beside, after);
    assert_ne!(beside[0], beside[1], "each step has noise of its own");
    let exact = |g: f32, s: f64| f64::from(g) * request().expected_batch_size as f64 == s;
    assert!(
        beside[0].iter().zip(&sum).any(|(g, s)| !exact(*g, *s)),
        "there is noise"
    );
}

#[test]
fn p4_randomness_is_fresh_without_a_seed_and_repeats_with_one() {
    let draw = |seed: Option<u64>, run: &str, dir: &Path| {
        let mut r = request();
        r.seed = seed;
        let mut run = begin(&plan(&r), dir, run, 10_000);
        let first = run.charge(TRAINING).expect("charges");
        let members = first.members().to_vec();
        let noise = first.privatize(&[0.0; 8]).expect("finite");
        let second = run.charge(TRAINING).expect("charges");
        assert_ne!(second.members(), members, "steps have batches of their own");
        assert_ne!(
            second.privatize(&[0.0; 8]).expect("finite"),
            noise,
            "steps have noise of their own"
        );
        (members, noise)
    };
    let (a, b) = (folder(), folder());
    assert_ne!(draw(None, "r", a.path()), draw(None, "r", b.path()));
    let (a, b) = (folder(), folder());
    let fixed = draw(Some(7), "r", a.path());
    assert_eq!(fixed, draw(Some(7), "r", b.path()));
    assert_ne!(fixed, draw(Some(8), "s8", b.path()));
    assert_eq!(
        fixed,
        draw(Some(7), "other", b.path()),
        "the ledger's name of a run is drawn anew each time"
    );
}

#[test]
fn p4_a_fixed_seed_is_marked_and_never_shown() {
    let dir = folder();
    let mut r = request();
    r.seed = Some(987_654_321);
    let plan = plan(&r);
    let statement = plan.statement(50);
    assert!(!statement.private);
    assert!(statement.to_string().starts_with("NOT PRIVATE"), "{statement}");
    let mut run = begin(&plan, dir.path(), "r", 100);
    let step = run.charge(TRAINING).expect("charges");
    let ledger = std::fs::read_to_string(dir.path().join("abc123.jsonl")).expect("reads");
    assert!(ledger.contains("\"private\":false"), "{ledger}");
    let json = serde_json::to_string(&statement).expect("serialises");
    for shown in [
        format!("{r:?}"),
        format!("{plan:?}"),
        format!("{run:?}"),
        format!("{step:?}"),
        json,
        ledger,
    ] {
        assert!(!shown.contains("987654321"), "{shown}");
    }
}

#[test]
fn p6_an_empty_batch_is_charged_and_gets_its_noise() {
    let dir = folder();
    let mut r = request();
    (r.expected_batch_size, r.steps) = (1, 20);
    let plan = plan(&r);
    // Two records at rate 1e-4: every draw is empty, to all odds.
    let mut run = begin(&plan, dir.path(), "r", 2);
    let step = run.charge(TRAINING).expect("charges");
    assert!(step.members().is_empty());
    let out = step.privatize(&[0.0; 16]).expect("an empty sum is a sum");
    assert!(
        out.iter().all(|v| v.is_finite()) && out.iter().any(|v| *v != 0.0),
        "{out:?}"
    );
    assert_eq!(run.charged_steps(), 1);
    assert_eq!(run.statement().number("steps"), 1.0);
}

#[test]
fn p6_epsilon_grows_with_every_step_to_the_planned_one() {
    let mut r = request();
    r.steps = 700;
    let plan = plan(&r);
    let mut last = 0.0;
    for step in 0..=700 {
        let epsilon = plan.epsilon_after(step).expect("within the plan");
        assert!(epsilon >= last, "step {step}: {epsilon} after {last}");
        if step % 100 == 50 {
            let exact = plan.statement(step).epsilon;
            assert!(
                epsilon >= exact * (1.0 - 1e-4) && epsilon <= exact * 1.02,
                "step {step}: {epsilon} {exact}"
            );
        }
        last = epsilon;
    }
    assert!(last <= 4.0 && last > 3.99);
    assert_eq!(plan.epsilon_after(701).expect_err("beyond the plan").exit_code(), 2);
}

#[test]
fn p10_a_statement_says_it_whole() {
    let statement = plan(&request()).statement(50);
    let text = statement.to_string();
    for part in [
        "epsilon",
        "delta 1.09e-5",
        "add-or-remove-one",
        "unit record",
        "sampler poisson",
        "accountant pld",
        "exact rounded Gaussian",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("NOT PRIVATE"));
    let json = serde_json::to_value(&statement).expect("serialises");
    for key in [
        "epsilon",
        "epsilon_lower",
        "delta",
        "adjacency",
        "unit",
        "sampler",
        "accountant",
        "mechanism",
        "noise_multiplier",
        "sampling_rate",
        "steps",
        "max_grad_norm",
        "expected_batch_size",
        "private",
    ] {
        assert!(json.get(key).is_some(), "{key} is not in {json}");
    }
    let mut r = request();
    r.noise = NoiseKind::Gaussian;
    assert!(plan(&r).statement(50).to_string().contains("outside the claim"));
}

#[test]
fn p10_delta_of_one_over_n_or_more_and_other_nonsense_are_refused() {
    let refused = |change: &dyn Fn(&mut PlanRequest)| {
        let mut r = request();
        change(&mut r);
        PrivacyPlan::calibrate(&r).expect_err("refused").exit_code()
    };
    for delta in [1e-4, 1e-3, 0.0, -1e-6, f64::NAN] {
        assert_eq!(refused(&|r| r.delta = Some(delta)), 2, "{delta}");
    }
    for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(&|r| r.target_epsilon = epsilon), 2, "{epsilon}");
    }
    assert_eq!(refused(&|r| r.expected_batch_size = 0), 2);
    assert_eq!(refused(&|r| r.expected_batch_size = 10_001), 2);
    assert_eq!(refused(&|r| r.steps = 0), 2);
    assert_eq!(refused(&|r| r.max_grad_norm = 0.0), 2);
    assert_eq!(refused(&|r| r.public_size = 2), 2);
    let given = plan(&PlanRequest {
        delta: Some(9.9e-5),
        ..request()
    });
    assert_eq!(given.delta(), 9.9e-5);
    let n = 10_000f64;
    assert_eq!(plan(&request()).delta(), 1.0 / (n * n.ln()));
}

#[test]
fn p12_noise_lies_on_the_grid_so_floating_point_tells_nothing() {
    let dir = folder();
    let mut r = request();
    (r.expected_batch_size, r.max_grad_norm) = (256, 1.0);
    let mut run = begin(&plan(&r), dir.path(), "r", 10_000);
    // For d = 100 and C = 1 the grid is the power of two at or below 1e-5. Every output over 1/256 is a multiple of it,
    // whatever the low bits of the sum were.
    let grid = 2f64.powi(-17);
    let sum: Vec<f64> = (0..100).map(|i| 0.1 + f64::from(i) * 1e-9).collect();
    let out = run.charge(TRAINING).expect("charges").privatize(&sum).expect("finite");
    for v in out {
        let units = f64::from(v) * 256.0 / grid;
        assert_eq!(units.fract(), 0.0, "{v} is {units} grid units");
    }
}

#[test]
fn p12_a_sum_that_is_not_finite_or_too_large_is_refused() {
    let dir = folder();
    let mut run = begin(&plan(&request()), dir.path(), "r", 100);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        let step = run.charge(TRAINING).expect("charges");
        assert!(step.privatize(&[0.0, bad]).is_err(), "{bad}");
    }
    assert_eq!(
        run.charge(TRAINING)
            .expect("charges")
            .privatize(&[])
            .expect("nothing to do"),
        Vec::<f32>::new()
    );
}

#[test]
fn p10_the_unit_and_the_sampler_are_part_of_the_statement() {
    let mut r = request();
    r.unit = Unit::Group {
        column: "author".into(),
        max_records: 4,
    };
    r.batches = Batches::AtMost(260);
    let statement = plan(&r).statement(50);
    assert_eq!(statement.unit, "author (at most 4 records of each)");
    assert_eq!(statement.sampler, "poisson truncated at 260 (of at most 11000 units)");
    let text = statement.to_string();
    assert!(text.contains("unit author (at most 4 records of each)"), "{text}");
}

/// 50 steps of one fiftieth: one round.
fn allocated(target_epsilon: f64, steps: u64) -> PrivacyPlan {
    plan(&PlanRequest {
        target_epsilon,
        steps,
        batches: Batches::Allocated,
        ..request()
    })
}

/// Each unit is in one step of each round, and rounds know nothing of each other.
#[test]
fn p1_random_allocation_takes_each_unit_once_a_round_and_less_noise() {
    let dir = folder();
    let (plan, poisson) = (
        allocated(4.0, 110),
        plan(&PlanRequest {
            steps: 110,
            ..request()
        }),
    );
    assert_eq!(plan.sampling_rate(), 0.02);
    assert!(plan.noise_multiplier() < 0.97 * poisson.noise_multiplier());
    let statement = plan.statement(110);
    assert_eq!(statement.sampler, "random allocation (one of every 50 steps)");
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.98, "{statement:?}");
    assert!(statement.epsilon_lower > 3.97, "{statement:?}");
    // What a guarantee says is enough to account for it anew.
    let phases = statement.phases().expect("accounted for");
    let again = pld::epsilon(&phases, Adjacency::AddOrRemoveOne, statement.delta).expect("valid");
    assert_eq!(again.epsilon, statement.epsilon);

    let mut run = begin(&plan, dir.path(), "r", 3_000);
    let mut seen = vec![Vec::new(); 3_000];
    for step in 0..110 {
        for unit in run.charge(TRAINING).expect("charges").members() {
            seen[*unit].push(step);
        }
    }
    for of_unit in &seen {
        let rounds = of_unit.iter().map(|step| step / 50);
        let count = |round| rounds.clone().filter(|r| *r == round).count();
        assert!(count(0) == 1 && count(1) == 1 && count(2) <= 1, "{of_unit:?}");
    }
    // Of the last round a fifth was taken.
    let last = seen.iter().filter(|of_unit| of_unit.len() == 3).count();
    assert!((last as f64 - 600.0).abs() < 110.0, "{last}");
    let same = seen.iter().filter(|of_unit| of_unit[1] == of_unit[0] + 50).count();
    assert!((same as f64 - 60.0).abs() < 40.0, "{same} chose the same step twice");
    let view = find_ledger(dir.path(), "abc123").expect("reads").expect("is there").1;
    let charged = view.charged_epsilon().expect("accounted for");
    let at_its_delta = pld::epsilon(&phases, Adjacency::AddOrRemoveOne, view.delta).expect("valid");
    assert!(
        (charged - at_its_delta.epsilon).abs() < 1e-3,
        "{charged} {at_its_delta:?}"
    );
}

/// A run that is killed within a round goes on with the same round, by what it kept; without that it cannot, since a unit
/// that chose anew could take part twice.
#[test]
fn p1_p7_a_round_goes_on_after_a_kill_or_not_at_all() {
    let dir = folder();
    let plan = allocated(4.0, 60);
    let file = dir.path().join("round.json");
    let go_on = |name: &str, keep: bool| {
        let run = begin(&plan, dir.path(), name, 2_000);
        if keep {
            run.keeping_secrets_in(file.clone())
        } else {
            run
        }
    };
    let mut all: Vec<usize> = Vec::new();
    for steps in [7, 1, 30, 12] {
        let mut run = go_on("kept", true);
        (0..steps).for_each(|_| all.extend(run.charge(TRAINING).expect("charges").members()));
    }
    all.sort_unstable();
    assert_eq!(all, (0..2_000).collect::<Vec<_>>(), "one round, in four processes");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("kept").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    // The next round is another, and its own file's.
    let before = std::fs::read(&file).expect("kept");
    drop(go_on("kept", true).charge(TRAINING).expect("charges"));
    assert_ne!(std::fs::read(&file).expect("kept"), before);

    drop(go_on("lost", false).charge(TRAINING).expect("charges"));
    for keep in [false, true] {
        // Another run's round is none of this one's.
        let refused = go_on("lost", keep)
            .charge(TRAINING)
            .map(drop)
            .expect_err("the round is lost");
        assert_eq!(refused.exit_code(), 3);
        assert!(
            refused.told().message.contains("`lost` stands within a round"),
            "{refused}"
        );
    }
    // Shared out among others, units could take part twice.
    let fewer = begin(&plan, dir.path(), "kept", 1_999).keeping_secrets_in(file.clone());
    assert!({ fewer }.charge(TRAINING).is_err());
    std::fs::write(&file, b"{}").expect("writes");
    assert!(go_on("kept", true).charge(TRAINING).is_err());
    // Nothing was charged for what was refused.
    let view = find_ledger(dir.path(), "abc123").expect("reads").expect("is there").1;
    let lost = view.runs.iter().find(|run| run.run == "lost").expect("entered");
    assert_eq!(lost.uses_of("training"), 1);
}

/// A largest batch is kept to, and paid for: the smaller it is, the more noise there must be.
#[test]
fn p1_truncated_batches_have_a_largest_size_and_its_price() {
    let dir = folder();
    let with = |batches: Batches| {
        let mut r = request();
        r.batches = batches;
        plan(&r)
    };
    let (free, loose, tight) = (
        with(Batches::Poisson),
        with(Batches::AtMost(330)),
        with(Batches::AtMost(205)),
    );
    assert!(loose.noise_multiplier() >= free.noise_multiplier());
    assert!(loose.noise_multiplier() < 1.001 * free.noise_multiplier());
    assert!(tight.noise_multiplier() > 1.05 * free.noise_multiplier());
    let statement = tight.statement(50);
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.99, "{statement:?}");
    let mut run = begin(&tight, dir.path(), "tight", 10_000);
    let sizes: Vec<usize> = (0..50)
        .map(|_| run.charge(TRAINING).expect("charges").members().len())
        .collect();
    assert_eq!(sizes.iter().max(), Some(&205), "{sizes:?}");
    assert!(sizes.iter().any(|n| *n < 205), "{sizes:?}");
    // The account holds for up to a tenth more records than were declared.
    let ledger = |name: &str| Ledger::open(dir.path(), name, 100.0, 1e-5, &Unit::Record).expect("opens");
    assert_eq!(
        tight.begin(ledger("a"), "r", 11_001).expect_err("too many").exit_code(),
        3
    );
    assert!(tight.begin(ledger("b"), "r", 11_000).is_ok());
    assert!(free.begin(ledger("c"), "r", 20_000).is_ok());
    let mut r = request();
    r.batches = Batches::AtMost(199);
    assert_eq!(
        PrivacyPlan::calibrate(&r)
            .expect_err("below the expected size")
            .exit_code(),
        2
    );
}

fn counted(epsilon: f64) -> Vec<Release> {
    vec![LABELS.planned(LabelCounts { epsilon }, 1)]
}

/// A gate counts units once, at the price that is part of the plan, with noise of exactly that price.
#[test]
fn p8_a_count_of_units_is_paid_from_the_plan_once() {
    let dir = folder();
    let mut r = request();
    let free = plan(&r).noise_multiplier();
    r.beside = vec![COPY_GATE.planned(UnitCount { epsilon: 0.5 }, 1)];
    let gated = plan(&r);
    assert!(gated.noise_multiplier() > free);
    let statement = gated.statement(50);
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.99, "{statement:?}");
    assert_eq!(statement.number("copy_gate_epsilon"), 0.5);
    assert_eq!(statement.phases().expect("accounted for").len(), 2);

    let mut run = begin(&gated, dir.path(), "r", 10_000);
    let noisy = run.charge(COPY_GATE).expect("planned").privatize(40);
    assert!(noisy.abs_diff(40) < 100, "{noisy}");
    assert_eq!(run.charge(COPY_GATE).expect_err("once").exit_code(), 4);
    assert!(
        run.charge(LABELS).is_err(),
        "what is planned is a count of units, not of labels"
    );
}

/// P(noise = 0) = tanh(γ/2) and E|noise| = 1/sinh(γ), at γ = epsilon whatever the unit: a unit counts once.
#[test]
fn p5_the_noise_of_a_count_of_units_is_discrete_laplace() {
    let dir = folder();
    let unit = Unit::Group {
        column: "author".into(),
        max_records: 8,
    };
    let mut r = request();
    (r.unit, r.beside) = (unit.clone(), vec![COPY_GATE.planned(UnitCount { epsilon: 1.0 }, 1)]);
    let plan = plan(&r);
    let draw = |i: u32| {
        let ledger = Ledger::open(dir.path(), &format!("l{i}"), 100.0, 1e-5, &unit).expect("opens");
        let mut run = plan.begin(ledger, "r", 10_000).expect("begins");
        run.charge(COPY_GATE).expect("planned").privatize(0)
    };
    let draws: Vec<i64> = (0..600).map(draw).collect();
    let (none, size) = (
        draws.iter().filter(|d| **d == 0).count() as f64 / 600.0,
        draws.iter().map(|d| d.abs() as f64).sum::<f64>() / 600.0,
    );
    assert!(
        (none - 0.462).abs() < 0.1 && (size - 0.851).abs() < 0.2,
        "{none} {size}"
    );
    assert!(draws.iter().any(|d| *d < 0), "a count below 0 is not raised");
}

/// What the plan has no release for cannot be planned: another mechanism under a known name, a second use, a name of one's own.
#[test]
fn p1_a_plan_has_its_own_releases_alone() {
    let mut r = request();
    let gate = COPY_GATE.planned(UnitCount { epsilon: 0.1 }, 1);
    let steps = plan(&r).releases()[0].clone();
    let named = |name: &str| Release {
        name: name.into(),
        ..gate.clone()
    };
    let twice = COPY_GATE.planned(UnitCount { epsilon: 0.1 }, 2);
    for beside in [
        vec![named("labels")],
        vec![named("another")],
        vec![gate.clone(), gate.clone()],
        vec![twice],
        vec![steps],
    ] {
        r.beside = beside;
        assert_eq!(PrivacyPlan::calibrate(&r).expect_err("no such release").exit_code(), 2);
    }
}

/// The histogram and the steps share one epsilon: counting costs noise in training, and is charged before it is drawn.
#[test]
fn p8_a_noisy_histogram_is_paid_from_the_plan_once() {
    let dir = folder();
    let mut r = request();
    let free = plan(&r).noise_multiplier();
    r.beside = counted(0.5);
    let counting = plan(&r);
    assert!(counting.noise_multiplier() > free);
    let statement = counting.statement(50);
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.99, "{statement:?}");
    assert_eq!(statement.number("label_histogram_epsilon"), 0.5);
    assert!(statement.to_string().contains("labels counted at epsilon 0.5"));
    // Before any step the histogram is what is charged.
    let first = counting.epsilon_after(0).expect("known");
    assert!((0.49..0.501).contains(&first), "{first}");

    let mut run = begin(&counting, dir.path(), "r", 10_000);
    assert!(run.charged(LABELS) == 0);
    let noisy = run.charge(LABELS).expect("planned").privatize(&[5_000, 0, 3]);
    let path = dir.path().join("abc123.jsonl");
    assert!(dpsynth_privacy::verify(&path).expect("intact").runs[0].charged(LABELS) == 1);
    // e^(−0.5·100): farther off than that does not happen.
    assert!(
        noisy[0].abs_diff(5_000) < 100 && noisy[1] < 100 && noisy[2] < 100,
        "{noisy:?}"
    );
    assert_eq!(run.charge(LABELS).expect_err("once").exit_code(), 4);
    drop(run);
    let mut again = begin(&counting, dir.path(), "r", 10_000);
    assert!(again.charged(LABELS) == 1);
    assert_eq!(again.charge(LABELS).expect_err("once").exit_code(), 4);
    let charged = again.end().expect("ends").view().charged_epsilon().expect("known");
    assert!((0.49..0.501).contains(&charged), "{charged}");

    r.beside = Vec::new();
    let mut other = begin(&plan(&r), dir.path(), "none planned", 10_000);
    assert_eq!(other.charge(LABELS).expect_err("not planned").exit_code(), 4);
    for epsilon in [0.0, -1.0, 1e-9, f64::NAN, 4.0, 1e6] {
        r.beside = counted(epsilon);
        assert!(PrivacyPlan::calibrate(&r).is_err(), "{epsilon}");
    }
}

/// Counts of a unit's records move by as many as it may have: the noise is that much larger.
#[test]
fn p5_the_noise_of_a_histogram_grows_with_the_records_of_a_unit() {
    let dir = folder();
    let spread = |name: &str, unit: Unit| {
        let mut r = request();
        (r.beside, r.unit) = (counted(1.0), unit.clone());
        let plan = plan(&r);
        let ledger = Ledger::open(dir.path(), name, 100.0, 1e-5, &unit).expect("opens");
        let mut run = plan.begin(ledger, "r", 10_000).expect("begins");
        let noisy = run.charge(LABELS).expect("planned").privatize(&[10_000; 2000]);
        noisy.iter().map(|n| n.abs_diff(10_000) as f64).sum::<f64>() / 2000.0
    };
    let group = Unit::Group {
        column: "author".into(),
        max_records: 8,
    };
    // Mean size of discrete Laplace noise at gamma: 2e^(−γ)/(1 − e^(−2γ)): 0.85 at 1, 7.98 at 1/8.
    let (one, eight) = (spread("one", Unit::Record), spread("eight", group));
    assert!((one - 0.85).abs() < 0.1 && (eight - 7.98).abs() < 0.9, "{one} {eight}");
}

/// A lexicon and its scorer are Gaussian mechanisms on all units: what they cost alone is what they were made to cost, and with
/// training it is within the run's epsilon.
#[test]
fn p8_a_lexicon_and_its_scorer_are_paid_from_the_plan_once() {
    let dir = folder();
    let mut r = request();
    let free = plan(&r).noise_multiplier();
    let delta = plan(&r).delta();
    r.beside = vec![
        LEXICON.planned(LabelTokens::costing(0.5, delta, 4.0), 1),
        SCORER.planned(LabelScorer::costing(1.0, delta, 30, 1.0), 1),
    ];
    for (release, alone) in r.beside.iter().zip([0.5, 1.0]) {
        let phase = release.mechanism.phase(1).expect("accounted for");
        let epsilon = pld::epsilon(&[phase], Adjacency::AddOrRemoveOne, delta)
            .expect("known")
            .epsilon;
        assert!((epsilon - alone).abs() < 1e-3, "{}: {epsilon}", release.name);
    }
    let lexical = plan(&r);
    assert!(lexical.noise_multiplier() > free);
    let statement = lexical.statement(50);
    assert!(statement.epsilon <= 4.0 && statement.epsilon > 3.99, "{statement:?}");
    assert_eq!(statement.number("scorer_steps"), 30.0);
    assert_eq!(statement.phases().expect("accounted for").len(), 3);

    let mut run = begin(&lexical, dir.path(), "r", 10_000);
    let mut counts = run.charge(LEXICON).expect("planned");
    assert_eq!(counts.left(), 1);
    counts.privatize(&[0.0; 8]).expect("paid for");
    assert_eq!(counts.privatize(&[0.0; 8]).expect_err("once").exit_code(), 4);
    assert_eq!(run.charge(LEXICON).expect_err("once").exit_code(), 4);
    let mut steps = run.charge(SCORER).expect("planned");
    for _ in 0..30 {
        steps.privatize(&[0.0; 8]).expect("paid for");
    }
    assert_eq!(steps.privatize(&[0.0; 8]).expect_err("30 times").exit_code(), 4);
}

/// The noise of each sum is normal with the deviation that was paid for, and no two sums have the same.
#[test]
fn p3_each_sum_over_all_units_has_one_draw_of_noise() {
    let dir = folder();
    let mut r = request();
    let scorer = LabelScorer {
        noise_multiplier: 20.0,
        steps: 2,
        max_norm: 0.5,
    };
    r.beside = vec![SCORER.planned(scorer, 1)];
    let mut run = begin(&plan(&r), dir.path(), "r", 10_000);
    let mut sums = run.charge(SCORER).expect("planned");
    let value = 3.0;
    let noise: Vec<Vec<f64>> = (0..2)
        .map(|_| {
            let noisy = sums.privatize(&vec![value; 20_000]).expect("paid for");
            noisy.iter().map(|v| f64::from(*v) - value).collect()
        })
        .collect();
    for noise in &noise {
        let mean = noise.iter().sum::<f64>() / 20_000.0;
        let deviation = (noise.iter().map(|v| v * v).sum::<f64>() / 20_000.0).sqrt();
        // σ·C = 10, and a thousandth for floating point (P12).
        assert!((deviation / 10.01 - 1.0).abs() < 0.02, "{deviation}");
        assert!(mean.abs() < 0.3, "{mean}");
    }
    let together: f64 = noise[0].iter().zip(&noise[1]).map(|(a, b)| a * b).sum::<f64>() / 20_000.0;
    assert!(together.abs() < 3.0, "{together}");
}

/// Laplace noise is planned, said, charged and drawn as such.
#[test]
fn p1_p12_laplace_noise_is_what_the_plan_accounts_for() {
    let request = PlanRequest {
        noise: NoiseKind::ExactLaplace,
        ..request()
    };
    let plan = plan(&request);
    let statement = plan.statement(plan.steps());
    assert!(
        statement.to_string().contains("exact rounded Laplace noise"),
        "{statement}"
    );
    assert!(
        statement.epsilon <= request.target_epsilon && statement.epsilon > 0.99 * request.target_epsilon,
        "{statement:?}"
    );
    let scale = plan.noise_multiplier() / 2f64.sqrt();
    let phases = statement.phases().expect("accounted for");
    assert_eq!(
        phases,
        [Phase::sampled_laplace(plan.sampling_rate(), scale, plan.steps()).expect("valid")]
    );
    // Said to be Gaussian, it would cost another epsilon.
    let mut values = statement.values();
    values["mechanism"] = "exact rounded Gaussian noise".into();
    let said = Guarantee::read(values)
        .expect("reads")
        .0
        .phases()
        .expect("accounted for");
    assert_ne!(said, phases);
    let again = pld::epsilon(&said, Adjacency::AddOrRemoveOne, statement.delta).expect("valid");
    assert!((again.epsilon / statement.epsilon - 1.0).abs() > 0.01, "{again:?}");

    // What is drawn: mean size σ/√2 · C over the batch size, a coordinate at a time.
    let folder = folder();
    let mut run = begin(&plan, folder.path(), "laplace", 10);
    let step = run.charge(TRAINING).expect("charges");
    let noise = step.privatize(&[0.0; 100_000]).expect("finite");
    let size = noise.iter().map(|v| f64::from(v.abs())).sum::<f64>() / noise.len() as f64;
    let expected = scale * plan.max_grad_norm() / plan.expected_batch_size() as f64;
    assert!((size / expected - 1.0).abs() < 0.015, "{size}, not {expected}");
    drop(run);
    let (_, ledger) = find_ledger(folder.path(), "abc123").expect("reads").expect("found");
    assert!(ledger.charged_epsilon().expect("accounted for") > 0.0 && ledger.unproven().is_none());

    for batches in [Batches::AtMost(1_000), Batches::Allocated] {
        let asked = PlanRequest {
            batches,
            ..request.clone()
        };
        let refused = PrivacyPlan::calibrate(&asked).expect_err("no account");
        assert!(refused.told().message.contains("Poisson"), "{refused}");
    }
}

/// Noise without a proof says so in every form of the claim, and its own account is no epsilon of a guarantee.
#[test]
fn p11_noise_for_research_is_no_guarantee_and_never_beside_one() {
    let request = PlanRequest {
        target_epsilon: 1.0,
        noise: NoiseKind::LaplaceMixture,
        steps: 1,
        expected_batch_size: 10_000,
        beside: vec![LEXICON.planned(LabelTokens::costing(0.25, 1e-6, 6.0), 1)],
        ..request()
    };
    let plan = plan(&request);
    let statement = plan.statement(1);
    // What the lexicon costs is taken off beforehand, at half of delta.
    assert!(
        statement.to_string().contains("training alone would cost epsilon 0.77"),
        "{statement}"
    );
    assert_eq!(statement.epsilon_lower, 0.0, "an estimate has no end that holds");
    assert_eq!(statement.mark(), "NOT A DP GUARANTEE ");
    assert!(
        statement.epsilon > 1.0,
        "what spread differences show is counted: {}",
        statement.epsilon
    );
    assert!(
        statement.to_string().starts_with("NOT A DP GUARANTEE: `training`"),
        "{statement}"
    );
    // Whoever takes the words out leaves the law in; whoever takes the law out leaves a mechanism without one.
    let mut values = statement.values();
    values.shift_remove("caveat");
    let (unsaid, unknown) = Guarantee::read(values.clone()).expect("reads");
    assert!(unknown.is_empty() && unsaid.unproven().is_some() && unsaid.phases().is_ok());
    // Less noise than it is counted by is no plan's.
    let mut quiet = values.clone();
    quiet["noise_multiplier"] = 100.0.into();
    assert!(Guarantee::read(quiet).expect("reads").0.phases().is_err());
    values.shift_remove("laplace_mixture");
    let (without, _) = Guarantee::read(values).expect("reads");
    assert!(without.phases().is_err());
    let certified = self::plan(&PlanRequest {
        noise: NoiseKind::ExactGaussian,
        ..request.clone()
    });
    assert_eq!(
        (certified.statement(1).caveat, certified.statement(1).mark()),
        (None, "")
    );

    // In the ledger too, and the noise of what is beside it is exact.
    let folder = folder();
    let mut run = begin(&plan, folder.path(), "research", 10);
    let step = run.charge(TRAINING).expect("charges");
    let noisy = step.privatize(&[0.0; 1000]).expect("finite");
    let unit = 0.7 / 10_000.0;
    assert!(noisy.iter().all(|v| v.is_finite()) && noisy.iter().any(|v| v.abs() > unit));
    let counts = run
        .charge(LEXICON)
        .expect("charges")
        .privatize(&[0.0; 1000])
        .expect("finite");
    let grids = counts.iter().map(|v| f64::from(*v) * 2f64.powi(40));
    assert!(grids.clone().all(|v| v.fract() == 0.0) && grids.clone().any(|v| v != 0.0));
    drop(run);
    let (_, ledger) = find_ledger(folder.path(), "abc123").expect("reads").expect("found");
    assert_eq!(ledger.unproven().map(|(release, _)| release), Some("training"));
}
