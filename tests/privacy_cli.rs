//! `account`, `calibrate` and `ledger` as a person or a script calls them.

use assert_cmd::Command;
use serde_json::Value;

fn dpsynth(arguments: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("dpsynth")
        .expect("the program is built")
        .args(arguments)
        .assert()
}

fn stdout(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).expect("text")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&dpsynth(arguments).success())).expect("one JSON object")
}

const SETTING: [&str; 9] = [
    "account",
    "--sampling-rate",
    "0.01024",
    "--noise-multiplier",
    "1",
    "--steps",
    "98",
    "--delta",
    "1e-5",
];

#[test]
fn p10_account_says_epsilon_whole() {
    let answer = json(&[&SETTING[..], &["--json"]].concat());
    let epsilon = answer["epsilon"].as_f64().expect("a number");
    assert!((epsilon - 0.7308).abs() < 1e-3, "{answer}");
    assert!(answer["epsilon_lower"].as_f64().expect("a number") <= epsilon);
    assert_eq!(answer["delta"], 1e-5);
    assert_eq!(answer["accountant"], "pld");
    assert_eq!(answer["adjacency"], "add-or-remove-one");
    assert_eq!(answer["sampler"], "poisson");
    assert_eq!(answer["unit"], "record");
    assert_eq!(answer["direction"], "remove");
    let text = stdout(&dpsynth(&SETTING).success());
    for part in [
        "epsilon 0.73",
        "delta 1e-5",
        "add-or-remove-one",
        "unit record",
        "poisson",
        "pld",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let renyi = json(
        &[
            &SETTING[..],
            &["--accountant", "rdp", "--adjacency", "add-remove", "--json"],
        ]
        .concat(),
    );
    assert!(
        (renyi["epsilon"].as_f64().expect("a number") - 1.2253609).abs() < 1e-4,
        "{renyi}"
    );
    assert_eq!(renyi["order"], 8.8);
}

#[test]
fn account_answers_a_table_line_by_line() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("settings.csv");
    std::fs::write(
        &file,
        "# settings\nid,T,q,sigma,delta\na,98,0.01024,1.0,1e-05\nb,1,1.0,1.0,1e-05\n",
    )
    .expect("writes");
    let path = file.to_str().expect("a plain path");
    let text = stdout(&dpsynth(&["account", "--batch", path]).success());
    let epsilons: Vec<f64> = text
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).expect("JSON")["epsilon"]
                .as_f64()
                .expect("a number")
        })
        .collect();
    assert_eq!(epsilons.len(), 2);
    assert!(
        (epsilons[0] - 0.7308).abs() < 1e-3 && (epsilons[1] - 4.377178095).abs() < 1e-6,
        "{epsilons:?}"
    );
    std::fs::write(&file, "q,sigma,T,delta\n0.1,1,10,1e-5\n2,1,10,1e-5\n").expect("writes");
    let refused = dpsynth(&["account", "--batch", path]).code(2);
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(
        message.contains("line 3") && message.contains("sampling rate"),
        "{message}"
    );
}

#[test]
fn calibrate_gives_the_noise_and_what_it_spends() {
    let answer = json(&[
        "calibrate",
        "--epsilon",
        "1",
        "--delta",
        "1e-5",
        "--sampling-rate",
        "0.01024",
        "--steps",
        "98",
        "--json",
    ]);
    assert!(
        (answer["noise_multiplier"].as_f64().expect("a number") / 0.906_511 - 1.0).abs() < 1e-3,
        "{answer}"
    );
    assert!(answer["epsilon"].as_f64().expect("a number") <= 1.0);
}

#[test]
fn p10_bad_values_are_refused_with_exit_code_2() {
    for (at, bad) in [
        (2, "1.5"),
        (2, "0"),
        (2, "NaN"),
        (4, "0"),
        (4, "-1"),
        (6, "0"),
        (8, "1"),
        (8, "0"),
        (8, "NaN"),
    ] {
        let mut arguments: Vec<String> = SETTING.iter().map(|s| s.to_string()).collect();
        let name = arguments[at - 1].clone();
        arguments.drain(at - 1..=at);
        arguments.push(format!("{name}={bad}"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = dpsynth(&arguments).code(2);
        let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(
            message.starts_with("error: ") && message.contains("hint: "),
            "{name}={bad}: {message}"
        );
        assert!(stdout(&refused).is_empty());
    }
    dpsynth(&["account"]).code(2);
}

#[test]
fn p7_p8_ledger_shows_verifies_and_bounds() {
    use dpsynth::config::NoiseKind;
    use dpsynth::privacy::{Ledger, PlanRequest, PrivacyPlan, Unit};
    let dir = tempfile::tempdir().expect("a temporary folder");
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        target_epsilon: 2.0,
        delta: Some(1e-5),
        public_size: 10_000,
        expected_batch_size: 100,
        steps: 5,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        max_batch_size: None,
        label_histogram_epsilon: None,
        seed: None,
    })
    .expect("a valid plan");
    let mut run = plan
        .begin(
            Ledger::open(dir.path(), "abc", 3.0, 1e-5, &Unit::Record).expect("opens"),
            "imdb",
            50,
        )
        .expect("begins");
    drop(run.charge().expect("charges"));
    drop(run);
    let file = dir.path().join("abc.jsonl");
    let path = file.to_str().expect("a plain path");

    let shown = json(&["ledger", "show", path, "--json"]);
    assert_eq!(shown["runs"][0]["run"], "imdb");
    assert_eq!(shown["runs"][0]["charged_steps"], 1);
    assert!(shown["epsilon_charged"].as_f64() < shown["epsilon_reserved"].as_f64());
    assert_eq!(shown["total_epsilon"], 3.0);
    let text = stdout(&dpsynth(&["ledger", "show", path]).success());
    assert!(
        text.contains("run imdb: 1 of 5 steps charged, open") && text.contains("delta 1e-5"),
        "{text}"
    );

    dpsynth(&["ledger", "set-budget", path, "--epsilon", "7"]).success();
    assert_eq!(json(&["ledger", "show", path, "--json"])["total_epsilon"], 7.0);
    dpsynth(&["ledger", "set-budget", path, "--epsilon=-1"]).code(2);
    assert!(stdout(&dpsynth(&["ledger", "verify", path]).success()).contains("4 lines, intact"));

    let edited = std::fs::read_to_string(&file)
        .expect("reads")
        .replace("\"steps\":5", "\"steps\":6");
    std::fs::write(&file, edited).expect("writes");
    let refused = dpsynth(&["ledger", "verify", path]).code(3);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("line 3"));
    dpsynth(&[
        "ledger",
        "show",
        dir.path().join("none.jsonl").to_str().expect("a plain path"),
    ])
    .code(1);
}
