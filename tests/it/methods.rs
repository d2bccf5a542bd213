//! The methods of the field's papers: each can be chosen, keeps its bounds, and goes the whole way.
#![cfg(unix)]

use dpsynth::config::Clipping;
use dpsynth::methods::{Label, METHODS};
use dpsynth::privacy::Guarantee;
use dpsynth::privacy::accountant::Adjacency;
use dpsynth::privacy::accountant::tradeoff::Curve;
use dpsynth::training::clip::Clip;
use dpsynth::training::optimizer::{Optimizer, Rule};

use crate::classify::{ENCODER, strings};
use crate::common::Place;

fn classify(more: &[&str]) -> Vec<String> {
    let own = [
        "task=classify",
        "model=./nowhere.gguf",
        ENCODER,
        "evaluate.arms=[\"dp_direct\"]",
        "evaluate.dp_direct.steps=3",
    ];
    let all: Vec<&str> = own.iter().chain(more).copied().collect();
    settings(&all)
}

fn settings(all: &[&str]) -> Vec<String> {
    all.iter()
        .flat_map(|setting| ["--set".to_string(), setting.to_string()])
        .collect()
}

/// A file that anyone may see.
fn place_with_public() -> Place {
    let place = Place::new();
    let records = place.text("train.csv");
    let (header, _) = records.split_once('\n').expect("a header");
    let mut public = format!("{header}\n");
    for i in 0..12 {
        let label = ["negative", "positive"][i % 2];
        public += &format!("a public text number {i},{label}\n");
    }
    place.write("public.csv", public);
    place
}

#[test]
fn every_method_that_is_listed_can_be_chosen() {
    let place = place_with_public().with_tiny_model();
    let listed = place.ok(&["methods"]).stdout;
    for method in METHODS {
        assert!(listed.contains(method.label.name()), "{}", method.name);
        if let Some(command) = method.key.strip_prefix("dpsynth ") {
            let named = command.split(' ').next().expect("a command");
            place.ok(&[named, "--help"]);
            continue;
        }
        assert!(
            method.label != Label::Planning,
            "{} is chosen by a setting",
            method.name
        );
        let mut more: Vec<&str> = method.key.split(", ").collect();
        if method.key.contains("normal-equations") {
            more.push("evaluate.dp_direct.steps=1");
        }
        if ["projection", "candidates", "prefix_layers"]
            .iter()
            .any(|kind| method.key.contains(kind))
        {
            more.push("evaluate.dp_direct.public=public.csv");
        }
        // Each means something where it is listed for: of a language model, or of a classifier.
        let set = match method.key.contains("dp_direct") {
            true => classify(&more),
            false => settings(&more),
        };
        let planned = place.call(&[&["plan", "tiny.toml"][..], &strings(&set)].concat());
        assert_eq!(planned.code, Some(0), "{}: {}", method.name, planned.stderr);
    }
    let json: serde_json::Value = serde_json::from_str(&place.ok(&["methods", "--json"]).stdout).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(METHODS.len()));
}

#[test]
fn every_way_of_taking_steps_trains_a_classifier() {
    for (method, update) in [
        ("lora-fa", "{kind=\"flat\"}"),
        ("ia3", "{kind=\"flat\",ascent=\"record\",radius=0.1}"),
        ("bitfit", "{kind=\"zeroth-order\",directions=4}"),
        ("bitfit", "{kind=\"zeroth-order\",directions=4} laplace"),
        ("bitfit", "{kind=\"projection\",directions=5}"),
        ("last-layer", "{kind=\"candidates\",directions=8}"),
        ("features", "{kind=\"normal-equations\"}"),
        ("prefix", "{kind=\"gradient\"} in one layer"),
    ] {
        let place = place_with_public();
        let noise = match update.contains("laplace") {
            true => "finetune.noise=exact-laplace",
            false => "finetune.noise=exact-gaussian",
        };
        let layers = update.contains("layer").then_some("evaluate.dp_direct.prefix_layers=1");
        let update = update.trim_end_matches(" laplace").trim_end_matches(" in one layer");
        let steps = match update.contains("normal") {
            true => "evaluate.dp_direct.steps=1",
            false => "evaluate.dp_direct.steps=3",
        };
        let set = classify(&[
            &format!("evaluate.dp_direct.method={method}"),
            &format!("evaluate.dp_direct.update={update}"),
            "evaluate.dp_direct.public=public.csv",
            steps,
            noise,
            match update.contains("candidates") {
                true => "evaluate.dp_direct.toward={strength=0.5,reference=\"public\"}",
                false => "evaluate.dp_direct.learning_rate=0.01",
            },
            layers.unwrap_or("evaluate.dp_direct.prefix_tokens=2"),
        ]);
        let said = place.done("run", &strings(&set));
        assert!(said.stdout.contains("at delta"), "{update}: {}", said.stdout);
        let ledger = place.ledger_shown();
        // Trained once, charged once.
        place.done("run", &strings(&set));
        assert_eq!(place.ledger_shown(), ledger, "{update}");
        let other = [&strings(&set)[..], &["--set", "finetune.optimizer=sgd"]].concat();
        place.stage("run", &other).refused(2, &["another configuration"]);
    }
}

/// What spans directions must be public: of private gradients it would say where they lie.
#[test]
fn p1_private_records_are_refused_as_public_ones() {
    let place = place_with_public();
    let records = place.text("train.csv");
    place.write("copy.csv", &records);
    // A single row of it among others.
    let row = records.lines().nth(7).expect("a row");
    place.write("row.csv", place.text("public.csv") + row + "\n");
    for (private, words) in [
        ("train.csv", "private dataset"),
        ("copy.csv", "private dataset"),
        ("row.csv", "private records have too"),
    ] {
        let set = classify(&[
            "evaluate.dp_direct.update={kind=\"projection\"}",
            &format!("evaluate.dp_direct.public={private}"),
        ]);
        let said = place.stage("run", &strings(&set));
        said.refused(2, &[words]);
        assert!(
            !said.stderr.contains(row.split(',').next().expect("a text")),
            "{}",
            said.stderr
        );
        assert_eq!(place.ledgers(), 0, "nothing is charged");
    }
    // Known before anything is read.
    let set = classify(&[
        "evaluate.dp_direct.update={kind=\"projection\"}",
        "evaluate.dp_direct.public=nowhere.csv",
    ]);
    place
        .call(&[&["plan", "tiny.toml"][..], &strings(&set)].concat())
        .refused(2, &["nowhere.csv", "evaluate.dp_direct.public=FILE"]);
}

#[test]
fn p5_the_ascent_of_a_whole_batch_is_refused() {
    let place = Place::new();
    let set = classify(&["evaluate.dp_direct.update={kind=\"flat\",ascent=\"batch\"}"]);
    place
        .call(&[&["plan", "tiny.toml"][..], &strings(&set)].concat())
        .refused(2, &["not private", "\"record\""]);
}

#[test]
fn what_does_not_go_together_is_refused_with_its_key() {
    let place = Place::new();
    for (settings, words) in [
        (
            &["evaluate.dp_direct.update={kind=\"projection\"}"][..],
            "evaluate.dp_direct.public",
        ),
        (
            &[
                "evaluate.dp_direct.update={kind=\"zeroth-order\"}",
                "finetune.optimizer=adam-bc",
            ],
            "adamw",
        ),
        (&["evaluate.dp_direct.update={kind=\"normal-equations\"}"], "steps = 1"),
        (
            &["evaluate.dp_direct.update={kind=\"zeroth-order\",radius=0.0}"],
            "update.radius",
        ),
        (
            &["evaluate.dp_direct.update={kind=\"zeroth-order\",directions=0}"],
            "update.directions",
        ),
        (
            &["evaluate.dp_direct.update={kind=\"flat\",directions=3}"],
            "directions",
        ),
        (
            &["evaluate.dp_direct.toward={strength=0.1,reference=\"private\"}"],
            "not private",
        ),
        (
            &["evaluate.dp_direct.toward={strength=0.1,reference=\"public\"}"],
            "evaluate.dp_direct.public",
        ),
        (
            &["finetune.optimizer=sgd", "finetune.momentum=1.0"],
            "finetune.momentum",
        ),
        (&["finetune.momentum=0.9"], "optimizer = \"sgd\""),
        (
            &["finetune.clipping=flat", "finetune.clipping_regularizer=0.1"],
            "automatic",
        ),
        (&["finetune.update={kind=\"flat\"}"], "evaluate.dp_direct.update"),
        (
            &[
                "evaluate.dp_direct.update={kind=\"flat\"}",
                "finetune.optimizer=model-mix",
            ],
            "ModelMix",
        ),
        (&["evaluate.dp_direct.update={kind=\"gradient\",radius=3.0}"], "radius"),
        (&["evaluate.dp_direct.update=flat"], "kind = \"flat\""),
        (
            &["task=synthesise", "finetune.risk={right_at_even_odds=0.9}"],
            "dp_direct",
        ),
        (&["finetune.clipping_regularizer=0.0"], "finetune.clipping_regularizer"),
        (
            &["evaluate.dp_direct.method=prefix", "evaluate.dp_direct.prefix_layers=1"],
            "evaluate.dp_direct.public",
        ),
        (
            &[
                "evaluate.dp_direct.prefix_layers=1",
                "evaluate.dp_direct.public=public.csv",
            ],
            "method = \"prefix\"",
        ),
        (&["finetune.noise=exact-laplace"], "zeroth-order"),
        (
            &[
                "finetune.noise=exact-laplace",
                "evaluate.dp_direct.update={kind=\"zeroth-order\"}",
                "finetune.sampler=random-allocation",
            ],
            "Poisson",
        ),
        (
            &["finetune.bands=2", "finetune.sampler=random-allocation"],
            "finetune.sampler",
        ),
        (
            &["finetune.bands=2", "finetune.max_batch_size=9"],
            "finetune.max_batch_size",
        ),
        (
            &[
                "finetune.bands=2",
                "finetune.noise=exact-laplace",
                "evaluate.dp_direct.update={kind=\"zeroth-order\"}",
            ],
            "finetune.noise",
        ),
        (&["finetune.bands=1"], "over 2 to 32 steps"),
    ] {
        let set = classify(settings);
        place
            .call(&[&["plan", "tiny.toml"][..], &strings(&set)].concat())
            .refused(2, &[words]);
    }
}

#[test]
fn p5_normalised_gradients_stay_below_c_for_every_regularizer() {
    for regularizer in [1e-9, 0.01, 0.5, 10.0] {
        let clip = Clip {
            regularizer,
            ..Clip::new(Clipping::Automatic, 0.7)
        };
        for norm in [0.0, 1e-30, 1e-3, 0.7, 5.0, 1e30] {
            assert!(clip.factor(norm) * norm <= 0.7 * (1.0 + 1e-12), "{regularizer} {norm}");
        }
        // Half of C where the gradient is as long as the regularizer.
        assert!((clip.factor(regularizer) * regularizer - 0.35).abs() < 1e-12);
        assert_eq!(clip.factor(f64::NAN), 0.0);
    }
}

/// Two steps by hand.
#[test]
fn gradient_descent_keeps_its_momentum() {
    let (mut values, decay) = ([1f32, -2.0], 0.1f32);
    let mut optimizer = Optimizer::new(Rule::Sgd { momentum: 0.5 }, decay, 2);
    optimizer.step(&mut values, &[0.2, 0.4], 0.1);
    let first = [1.0 - 0.1 * (0.2 + 0.1), -2.0 - 0.1 * (0.4 - 0.2)];
    assert!(
        values.iter().zip(first).all(|(v, w)| (v - w).abs() < 1e-6),
        "{values:?}"
    );
    optimizer.step(&mut values, &[-0.1, 0.0], 0.1);
    let second = [
        first[0] - 0.1 * (0.0 + 0.1 * first[0]),
        first[1] - 0.1 * (0.2 + 0.1 * first[1]),
    ];
    assert!(
        values.iter().zip(second).all(|(v, w)| (v - w).abs() < 1e-6),
        "{values:?}"
    );
    assert_eq!(optimizer.steps, 2);
}

/// Each value lies between the last two iterates, somewhere else in each coordinate; the iterates go down.
#[test]
fn model_mix_lies_between_the_last_two_iterates() {
    let mut values = vec![1f32; 64];
    let mut optimizer = Optimizer::new(Rule::ModelMix, 0.0, 64);
    let gradient = vec![1f32; 64];
    let mut last = values.clone();
    for _ in 0..5 {
        let next: Vec<f32> = values.iter().map(|v| v - 0.1).collect();
        optimizer.step(&mut values, &gradient, 0.1);
        assert_eq!(optimizer.first, next);
        for ((v, next), last) in values.iter().zip(&next).zip(&last) {
            let room = 1e-6;
            assert!(
                (next.min(*last) - room..=next.max(*last) + room).contains(v),
                "{v} of {next} and {last}"
            );
        }
        last = next;
    }
    assert!(values.iter().any(|v| (v - values[0]).abs() > 1e-3));
    assert!(values.iter().all(|v| *v < 1.0));
}

/// The epsilon that is found keeps the bound, and a little more does not: by the curve of what the plan says.
#[test]
fn p8_a_bound_on_attacks_becomes_the_largest_epsilon_that_keeps_it() {
    let place = Place::new();
    for (risk, least, most) in [
        ("finetune.risk={right_at_even_odds=0.6}", 0.2, 2.0),
        (
            "finetune.risk={false_positive_rate=0.01,true_positive_rate=0.05}",
            0.2,
            3.0,
        ),
    ] {
        // Each record is drawn often: else hardly any noise keeps the bound.
        let set = classify(&[
            risk,
            "evaluate.dp_direct.steps=20",
            "evaluate.dp_direct.expected_batch_size=75",
        ]);
        let said = place.ok(&[&["plan", "tiny.toml", "--json"][..], &strings(&set)].concat());
        let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        let guarantee: Guarantee = serde_json::from_value(json["privacy"].clone()).expect("a guarantee");
        assert!((least..most).contains(&guarantee.epsilon), "{risk}: {guarantee}");
        assert!(
            json["warnings"].to_string().contains("finetune.risk"),
            "it is said: {json}"
        );
        let curve = Curve::new(&guarantee.phases().expect("phases"), Adjacency::AddOrRemoveOne).expect("a curve");
        let (shown, bound) = match risk.contains("even") {
            true => (curve.right_at_even_odds(), 0.6),
            false => (curve.true_positives(0.01), 0.05),
        };
        assert!(shown.at_most <= bound, "{risk}: {shown:?}");
        // Within what the search leaves.
        assert!(shown.at_least > 0.95 * bound, "{risk}: {shown:?}");
    }
    for (risk, words) in [
        ("finetune.risk={right_at_even_odds=0.5}", "right_at_even_odds"),
        (
            "finetune.risk={false_positive_rate=0.2,true_positive_rate=0.1}",
            "true_positive_rate",
        ),
        ("finetune.risk={right_at_even_odds=0.5000001}", "passed even at epsilon"),
    ] {
        let set = classify(&[risk]);
        place
            .call(&[&["plan", "tiny.toml"][..], &strings(&set)].concat())
            .refused(2, &[words]);
    }
}

/// A language model by each way and optimizer that it has: trained, drawn from, replayed by the audit within C, its real steps
/// those of the parts.
#[test]
fn p5_the_audit_replays_a_language_models_steps_of_each_way() {
    for settings in [
        &["finetune.update={kind=\"flat\",radius=0.1}"][..],
        &["finetune.update={kind=\"flat\",ascent=\"record\"}"],
        &[
            "finetune.update={kind=\"zeroth-order\",directions=3}",
            "finetune.optimizer=sgd",
        ],
        &[
            "finetune.update={kind=\"zeroth-order\",directions=3}",
            "finetune.optimizer=sgd",
            "finetune.noise=exact-laplace",
        ],
        &["finetune.optimizer=sgd", "finetune.momentum=0.9"],
        &["finetune.optimizer=model-mix"],
        &["finetune.clipping_regularizer=0.5"],
    ] {
        let place = Place::new().with_tiny_model();
        let set: Vec<&str> = (settings.iter())
            .chain(&["finetune.steps=2", "sample.records=8", "sample.tokens=200"])
            .flat_map(|setting| ["--set", setting])
            .collect();
        for stage in ["prepare", "finetune", "sample"] {
            place.done(stage, &set);
        }
        place.audit();
        let found = place.json("runs/tiny-quick/internal/audit.json");
        assert_eq!(found["replay"]["within_p5"], true, "{settings:?}: {}", found["replay"]);
        assert_eq!(found["trainer"]["same"], true, "{settings:?}: {found}");
        // Taken up: nothing is trained or charged twice.
        let ledger = place.ledger_shown();
        place.done("finetune", &set);
        assert_eq!(place.ledger_shown(), ledger);
    }
}

/// A bound that is kept anyway leaves epsilon as it was asked for, and what is set aside for counts is no obstacle.
#[test]
fn p8_a_bound_on_attacks_never_raises_epsilon() {
    let place = Place::new().with_tiny_model();
    for more in [&[][..], &["finetune.label_histogram_epsilon=0.1"]] {
        let asked = [
            &["finetune.risk={right_at_even_odds=0.99}", "finetune.epsilon=0.5"][..],
            more,
        ]
        .concat();
        let said = place.ok(&[&["plan", "tiny.toml", "--json"][..], &strings(&settings(&asked))].concat());
        let json: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        let epsilon = json["privacy"]["epsilon"].as_f64().expect("a number");
        assert!((0.45..=0.5).contains(&epsilon), "{more:?}: {epsilon}");
    }
}

/// Another kind in a profile brings its own defaults.
#[test]
fn an_update_of_another_kind_takes_no_settings_of_the_first() {
    let place = Place::new().with_tiny_model();
    let toml = place.text("tiny.toml")
        + "\n[finetune.update]\nkind = \"flat\"\nradius = 0.05\n\n[profile.quick.finetune.update]\nkind = \"zeroth-order\"\n";
    place.write("tiny.toml", toml);
    place.done("prepare", &[]);
    let resolved = place.text("runs/tiny-quick/config.toml");
    assert!(
        resolved.contains("zeroth-order") && resolved.contains("radius = 0.001"),
        "{resolved}"
    );
}

/// A mechanism without a proof runs where it is asked for as such, says so first wherever an epsilon stands, and stays here.
#[test]
fn p11_a_run_for_research_says_so_everywhere_and_cannot_leave() {
    let place = Place::new().with_tiny_model();
    let set = settings(&[
        "finetune.noise=\"laplace-mixture\"",
        "finetune.steps=2",
        "sample.records=8",
        "sample.tokens=200",
    ]);
    let set = strings(&set);
    place
        .stage("prepare", &set)
        .refused(2, &["NOT A DP GUARANTEE", "--research"]);
    let more = [&set[..], &["--research"]].concat();
    let risk = [&more[..], &["--set", "finetune.risk={right_at_even_odds=0.6}"]].concat();
    place.stage("prepare", &risk).refused(2, &["finetune.risk"]);
    let planned = place.ok(&[&["plan", "tiny.toml", "--profile", "quick"], &more[..]].concat());
    let said = place.done("run", &more);
    place.audit();
    let words = "NOT A DP GUARANTEE";
    let shown = place.ok(&["status", "runs/tiny-quick"]);
    for text in [
        &planned.stdout,
        &said.stdout,
        &shown.stdout,
        &place.text("runs/tiny-quick/model/privacy.json"),
        &place.text("runs/tiny-quick/report.json"),
        &place.text("runs/tiny-quick/report.html"),
    ] {
        assert!(text.contains(words), "{text}");
    }
    for shard in std::fs::read_dir(place.run("synthetic")).expect("shards") {
        let bytes = std::fs::read(shard.expect("a shard").path()).expect("reads");
        assert!(bytes.windows(words.len()).any(|at| at == words.as_bytes()));
    }
    let ledger = place.ledger_shown();
    assert!(ledger.to_string().contains("laplace_mixture"), "{ledger}");
    assert!(place.ok(&["status"]).stdout.contains(words));
    for command in ["release", "export"] {
        place
            .call(&[command, "runs/tiny-quick", "--to", "out"])
            .refused(4, &[words]);
        assert!(!place.path("out").exists());
    }
}
