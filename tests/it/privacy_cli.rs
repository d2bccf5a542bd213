//! `account`, `calibrate` and `ledger` as a person or a script calls them.

use std::process::{Command, Output};

use serde_json::Value;

/// What the program said and how it ended.
struct Ran(Output);

impl Ran {
    #[track_caller]
    fn success(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    fn code(self, code: i32) -> Self {
        assert_eq!(
            self.0.status.code(),
            Some(code),
            "{}",
            String::from_utf8_lossy(&self.0.stderr)
        );
        self
    }

    fn get_output(&self) -> &Output {
        &self.0
    }
}

fn dpsynth(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpsynth"));
    Ran(command.args(arguments).output().expect("starts"))
}

fn stdout(ran: &Ran) -> String {
    String::from_utf8(ran.get_output().stdout.clone()).expect("text")
}

/// Refused with exit code 2, a hint and these words.
#[track_caller]
fn refused(arguments: &[&str], words: &str) {
    let ran = dpsynth(arguments).code(2);
    let message = String::from_utf8_lossy(&ran.get_output().stderr).into_owned();
    assert!(message.contains(words) && message.contains("hint: "), "{message}");
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
    assert_eq!(answer["adjacency"], "add-remove");
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
fn p10_estimates_are_called_estimates() {
    let gdp = json(&[&SETTING[..], &["--accountant", "gdp", "--json"]].concat());
    assert!(
        (gdp["epsilon"].as_f64().expect("a number") - 0.464_346).abs() < 1e-5,
        "{gdp}"
    );
    let edgeworth = json(&[&SETTING[..], &["--accountant", "edgeworth", "--json"]].concat());
    for (order, expected) in [("1", 0.623_115_2), ("2", 0.677_715_1), ("3", 0.726_255_5)] {
        let value = edgeworth[format!("epsilon_order{order}")].as_f64().expect("a number");
        assert!((value - expected).abs() < 1e-6, "{edgeworth}");
    }
    assert_eq!(edgeworth["epsilon"], edgeworth["epsilon_order3"]);
    assert_eq!(edgeworth["finite_sample_bound"], "vacuous");
    assert_eq!(edgeworth["direction"], "remove");
    for (answer, name) in [(gdp, "gdp"), (edgeworth, "edgeworth")] {
        assert_eq!(answer["accountant"], name);
        assert_eq!(answer["estimate"], true);
        assert_eq!(answer["note"], "estimate, can be too low");
        assert!(answer["epsilon_lower"].is_null());
        for more in [&["--curve"][..], &[]] {
            let text = stdout(&dpsynth(&[&SETTING[..], &["--accountant", name], more].concat()).success());
            assert!(text.contains("estimate, can be too low"), "{text}");
        }
    }
    let proven = json(&[&SETTING[..], &["--json"]].concat());
    assert!(
        proven.get("estimate").is_none() && proven.get("note").is_none(),
        "{proven}"
    );
    // Enough steps and a large delta, and the error bound proves something.
    let long = json(&[
        "account",
        "--phase",
        "0.001,4,50000000",
        "--delta",
        "0.01",
        "--accountant",
        "edgeworth",
        "--json",
    ]);
    assert!(
        long["finite_sample_bound"].as_f64() > long["epsilon_order1"].as_f64(),
        "{long}"
    );
}

#[test]
fn account_gives_delta_for_epsilon() {
    let setting = &SETTING[..7];
    for accountant in ["pld", "rdp", "gdp", "edgeworth"] {
        let there = json(&[&SETTING[..], &["--accountant", accountant, "--json"]].concat());
        let epsilon = there["epsilon"].as_f64().expect("a number").to_string();
        let back = json(
            &[
                setting,
                &["--epsilon", epsilon.as_str(), "--accountant", accountant, "--json"],
            ]
            .concat(),
        );
        let delta = back["delta"].as_f64().expect("a number");
        assert!((delta / 1e-5 - 1.0).abs() < 0.01, "{accountant}: {back}");
        assert_eq!(back["epsilon"].as_f64(), there["epsilon"].as_f64());
    }
    let text = stdout(&dpsynth(&[setting, &["--epsilon", "1"]].concat()).success());
    for part in [
        "epsilon 1.0",
        "delta 7.7",
        "add-or-remove-one",
        "unit record",
        "poisson",
        "pld",
    ] {
        assert!(text.contains(part), "{text}");
    }
    for bad in ["-1", "NaN", "inf"] {
        for accountant in ["pld", "rdp", "gdp", "edgeworth"] {
            let epsilon = format!("--epsilon={bad}");
            dpsynth(&[setting, &[epsilon.as_str(), "--accountant", accountant]].concat()).code(2);
        }
    }
    dpsynth(&[&SETTING[..], &["--epsilon", "1"]].concat()).code(2);
    dpsynth(setting).code(2);
}

#[test]
fn p10_account_draws_the_privacy_curve() {
    let setting = &SETTING[..7];
    for accountant in ["pld", "rdp", "gdp", "edgeworth"] {
        let answer = json(&[setting, &["--curve", "--accountant", accountant, "--json"]].concat());
        assert_eq!(answer["adjacency"], "add-remove");
        let curve = answer["curve"].as_array().expect("points");
        assert_eq!(curve.len(), 8);
        for pair in curve.windows(2) {
            assert!(pair[1]["delta"].as_f64() < pair[0]["delta"].as_f64());
            assert!(pair[1]["epsilon"].as_f64() > pair[0]["epsilon"].as_f64(), "{answer}");
        }
    }
    let given = json(&[setting, &["--epsilon", "0.5,1,2", "--json"]].concat());
    let deltas: Vec<f64> = given["curve"]
        .as_array()
        .expect("points")
        .iter()
        .map(|p| p["delta"].as_f64().expect("a number"))
        .collect();
    assert!(
        deltas.len() == 3 && deltas[0] > deltas[1] && deltas[1] > deltas[2],
        "{deltas:?}"
    );
    let one = json(&[&SETTING[..], &["--json"]].concat());
    let among = json(&[setting, &["--delta", "1e-5,1e-6", "--json"]].concat());
    assert_eq!(among["curve"][0]["epsilon"], one["epsilon"]);
    let text = stdout(&dpsynth(&[setting, &["--delta", "1e-5,1e-6"]].concat()).success());
    for part in [
        "0.73",
        "1e-5",
        "1e-6",
        "add-or-remove-one",
        "unit record",
        "poisson",
        "pld",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn account_composes_phases() {
    let one = json(&[&SETTING[..], &["--json"]].concat());
    let phases = [
        "account",
        "--phase",
        "0.01024,1,48",
        "--phase",
        "0.01024,1,50",
        "--delta",
        "1e-5",
    ];
    let two = json(&[&phases[..], &["--json"]].concat());
    let (a, b) = (one["epsilon"].as_f64(), two["epsilon"].as_f64());
    assert!(
        (a.expect("a number") - b.expect("a number")).abs() < 1e-9,
        "{one} {two}"
    );
    assert_eq!(two["phases"][1]["steps"], 50);
    for accountant in ["pld", "rdp", "gdp", "edgeworth"] {
        let accountant = ["--accountant", accountant, "--json"];
        let less = json(&[&phases[..], &accountant].concat());
        let more = json(&[&phases[..], &["--phase", "0.02,2,100"], &accountant].concat());
        assert!(more["epsilon"].as_f64() > less["epsilon"].as_f64(), "{less} {more}");
    }
    for bad in [
        "0.1,1",
        "0.1,1,0",
        "2,1,10",
        "0.1,-1,10",
        "0.1,1,1.5",
        "0.1,x,10",
        "NaN,1,10",
        "",
    ] {
        let refused = dpsynth(&["account", "--phase", bad, "--delta", "1e-5"]).code(2);
        assert!(stdout(&refused).is_empty());
    }
    dpsynth(&[&SETTING[..], &["--phase", "0.1,1,10"]].concat()).code(2);
}

#[test]
fn adjacency_is_echoed_or_refused() {
    for accountant in ["gdp", "edgeworth"] {
        let refused =
            dpsynth(&[&SETTING[..], &["--adjacency", "replace", "--accountant", accountant]].concat()).code(2);
        let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(message.contains(accountant) && message.contains("hint: "), "{message}");
    }
    for accountant in ["pld", "rdp"] {
        let answer = |adjacency| {
            let more = ["--accountant", accountant, "--adjacency", adjacency, "--json"];
            json(&[&SETTING[..], &more].concat())
        };
        let (removed, replaced) = (answer("add-remove"), answer("replace"));
        assert_eq!(removed["adjacency"], "add-remove");
        assert_eq!(replaced["adjacency"], "replace");
        assert!(replaced["epsilon"].as_f64() > removed["epsilon"].as_f64(), "{replaced}");
    }
    let noise = |adjacency| {
        let target = [
            "calibrate",
            "--epsilon",
            "1",
            "--delta",
            "1e-5",
            "--sampling-rate",
            "0.01",
            "--steps",
            "98",
        ];
        json(&[&target[..], &["--adjacency", adjacency, "--json"]].concat())
    };
    let (removed, replaced) = (noise("add-remove"), noise("replace"));
    assert_eq!(replaced["adjacency"], "replace");
    assert!(replaced["epsilon"].as_f64().expect("a number") <= 1.0);
    assert!(replaced["noise_multiplier"].as_f64() > removed["noise_multiplier"].as_f64());
    dpsynth(&[&SETTING[..], &["--adjacency", "swap"]].concat()).code(2);
}

/// A CSV file with this content.
fn settings(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new()
        .suffix(".csv")
        .tempfile()
        .expect("a temporary file");
    std::fs::write(file.path(), content).expect("writes");
    file
}

#[test]
fn every_accountant_answers_a_table() {
    let file =
        settings("q,sigma,T,delta\n0.01,1,100,1e-5\n0.02,1,100,1e-5\n1,4,3,1e-5\n0.02,2,50,1e-6\n0.04,2,50,1e-6\n");
    let path = file.path().to_str().expect("a plain path");
    for accountant in ["pld", "rdp", "gdp", "edgeworth"] {
        let text = stdout(&dpsynth(&["account", "--batch", path, "--accountant", accountant]).success());
        let rates: Vec<f64> = text
            .lines()
            .map(|line| {
                let answer: Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(answer["accountant"], accountant);
                assert!(answer["epsilon"].as_f64().expect("a number") > 0.0);
                answer["sampling_rate"].as_f64().expect("a number")
            })
            .collect();
        assert_eq!(rates, [0.01, 0.02, 1.0, 0.02, 0.04]);
    }
    for bad in [
        "0.1,1,10,1",
        "0.1,0,10,1e-5",
        "0.1,1,0,1e-5",
        "NaN,1,10,1e-5",
        "0.1,1,1.5,1e-5",
        "0.1,1,10",
    ] {
        std::fs::write(&file, format!("q,sigma,T,delta\n0.1,1,10,1e-5\n{bad}\n")).expect("writes");
        let refused = dpsynth(&["account", "--batch", path]).code(2);
        assert!(
            stdout(&refused).is_empty(),
            "{bad}: nothing is computed before all is read"
        );
    }
}

#[test]
fn account_answers_a_table_line_by_line() {
    let file = settings("# settings\nid,T,q,sigma,delta\na,98,0.01024,1.0,1e-05\nb,1,1.0,1.0,1e-05\n");
    let path = file.path().to_str().expect("a plain path");
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
fn a_table_is_read_as_other_programs_write_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("settings.csv");
    let path = file.to_str().expect("a plain path");
    let plain = "q,sigma,T,delta\n0.01,1,10,1e-5\n";
    std::fs::write(&file, plain).expect("writes");
    let expected = stdout(&dpsynth(&["account", "--batch", path]).success());
    assert_eq!(expected.lines().count(), 1);
    let quoted = "\u{feff}# a, b\r\n\"name\",\"q\", \"sigma\",T,\"delta\"\r\n\r\n\"a, b\",\"0.01\",1,10,1e-5\r\n";
    std::fs::write(&file, quoted).expect("writes");
    assert_eq!(stdout(&dpsynth(&["account", "--batch", path]).success()), expected);

    let input = std::fs::File::open(&file).expect("opens");
    let mut piped = Command::new(env!("CARGO_BIN_EXE_dpsynth"));
    piped.args(["account", "--batch", "-"]).stdin(input);
    assert_eq!(stdout(&Ran(piped.output().expect("starts")).success()), expected);

    std::fs::write(&file, "q,sigma,T,delta\n").expect("writes");
    refused(&["account", "--batch", path], "has no rows");
    std::fs::write(&file, "# nothing\n").expect("writes");
    refused(&["account", "--batch", path], "is empty");
    std::fs::write(&file, b"q,sigma\xff").expect("writes");
    refused(&["account", "--batch", path], "cannot read");
    refused(&["account", "--batch", "nowhere.csv"], "cannot read nowhere.csv");

    // What was answered before a row that has no answer is told, whatever is computed beside it.
    let row = plain.lines().last().expect("a row");
    for before in 0..4 {
        let rows = format!("{row}\n").repeat(before);
        std::fs::write(&file, format!("q,sigma,T,delta\n{rows}0.01,1,10,1e-320\n{row}\n")).expect("writes");
        let ran = dpsynth(&["account", "--batch", path]).code(2);
        assert_eq!(stdout(&ran), expected.repeat(before));
    }
}

#[test]
fn a_negative_number_is_refused_as_a_number() {
    for at in [2, 4, 8] {
        let mut arguments = SETTING;
        arguments[at] = "-0.5";
        refused(&arguments, "not -0.5");
    }
    refused(&["account", "--phase", "-0.1,1,10", "--delta", "1e-5"], "not -0.1");
    refused(&[&SETTING[..7], &["--epsilon", "-1"]].concat(), "not -1");
    let calibrate = |epsilon, sampling_rate, noise_multiplier| {
        let target = ["calibrate", "--epsilon", epsilon, "--delta", "1e-5"];
        let rest = ["--sampling-rate", sampling_rate, "--noise-multiplier", noise_multiplier];
        refused(&[&target[..], &rest].concat(), "not -0.5");
    };
    calibrate("-0.5", "0.1", "1");
    calibrate("1", "-0.5", "1");
    calibrate("1", "0.1", "-0.5");
    let plan = ["calibrate", "--epsilon", "1", "--delta", "1e-5", "--records", "100"];
    refused(&[&plan[..], &["--epochs", "-0.5"]].concat(), "not -0.5");
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
fn calibrate_gives_the_most_steps() {
    let arguments = [
        "calibrate",
        "--epsilon",
        "1",
        "--delta",
        "1e-5",
        "--sampling-rate",
        "0.01024",
    ];
    let answer = json(&[&arguments[..], &["--noise-multiplier", "1", "--json"]].concat());
    let steps = answer["steps"].as_u64().expect("a number");
    assert!(answer["epsilon"].as_f64().expect("a number") <= 1.0);
    assert_eq!(answer["noise_multiplier"], 1.0);
    let more = (steps + 1).to_string();
    let above = json(&[
        "account",
        "--sampling-rate",
        "0.01024",
        "--noise-multiplier",
        "1",
        "--steps",
        more.as_str(),
        "--delta",
        "1e-5",
        "--json",
    ]);
    assert!(above["epsilon"].as_f64().expect("a number") > 1.0, "{above}");
    let text = stdout(&dpsynth(&[&arguments[..], &["--noise-multiplier", "1"]].concat()).success());
    assert!(
        text.contains(&format!("{steps} steps")) && text.contains("delta 1e-5"),
        "{text}"
    );
    dpsynth(&[&arguments[..], &["--noise-multiplier", "1", "--steps", "9"]].concat()).code(2);
    dpsynth(&arguments).code(2);
}

#[test]
fn p10_calibrate_plans_the_batch_size() {
    let arguments = ["calibrate", "--records", "25000", "--epsilon", "8", "--delta", "1e-5"];
    let plan = json(
        &[
            &arguments[..],
            &["--steps", "500", "--batch-sizes", "1024,256,4096", "--json"],
        ]
        .concat(),
    );
    let choices = plan["choices"].as_array().expect("choices");
    let sizes: Vec<u64> = choices
        .iter()
        .map(|c| c["batch_size"].as_u64().expect("a number"))
        .collect();
    assert_eq!(sizes, [256, 1024, 4096]);
    assert!(plan["note"].as_str().expect("a note").contains("NOT PRIVATE"));
    assert_eq!(plan["adjacency"], "add-remove");
    let text = stdout(&dpsynth(&[&arguments[..], &["--epochs", "5", "--batch-sizes", "256,1024"]].concat()).success());
    for part in [
        "epsilon 8",
        "delta 1e-5",
        "add-or-remove-one",
        "unit record",
        "poisson",
        "pld",
        "NOT PRIVATE",
    ] {
        assert!(text.contains(part), "{text}");
    }
    dpsynth(&arguments).code(2);
    dpsynth(&[&arguments[..], &["--steps", "500", "--batch-sizes", "0"]].concat()).code(2);
    dpsynth(&[&arguments[..], &["--steps", "500", "--batch-sizes", "25001"]].concat()).code(2);
    dpsynth(&[&arguments[..], &["--epochs", "NaN"]].concat()).code(2);
    let delta = [
        "calibrate",
        "--records",
        "25000",
        "--epsilon",
        "8",
        "--delta",
        "4e-5",
        "--steps",
        "500",
    ];
    dpsynth(&delta).code(2);
}

#[test]
fn the_batch_planner_has_sizes_for_every_number_of_records() {
    let plan = |records: &str, more: &[&str]| {
        let target = ["calibrate", "--epsilon", "2", "--delta", "1e-5", "--records", records];
        let answer = json(&[&target[..], &["--steps", "5", "--json"], more].concat());
        let choices = answer["choices"].as_array().expect("choices");
        choices
            .iter()
            .map(|c| c["batch_size"].as_u64().expect("a number"))
            .collect::<Vec<_>>()
    };
    assert_eq!(plan("1", &[]), [1]);
    assert_eq!(plan("10", &[]), [1, 2, 4, 8, 10]);
    assert_eq!(plan("32", &[]), [1, 2, 4, 8, 16, 32]);
    assert_eq!(plan("100", &[]), [32, 64, 100]);
    assert_eq!(plan("128", &["--batch-sizes", "7"]), [7]);

    let target = ["calibrate", "--epsilon", "2", "--delta", "1e-5", "--steps", "5"];
    refused(&[&target[..], &["--records", "0"]].concat(), "at least 1, not 0");
    // What is for the planner says nothing beside a sampling rate.
    let rate = [&target[..5], &["--sampling-rate", "0.1"]].concat();
    dpsynth(&[&rate[..], &["--steps", "5", "--batch-sizes", "32"]].concat()).code(2);
    dpsynth(&[&rate[..], &["--noise-multiplier", "1", "--batch-sizes", "32"]].concat()).code(2);
    dpsynth(&[&rate[..], &["--epochs", "3"]].concat()).code(2);
}

#[test]
fn the_ends_of_the_search_are_called_so() {
    let target = ["calibrate", "--delta", "1e-5", "--epsilon"];
    let least = [&target[..], &["100000", "--sampling-rate", "0.1", "--steps", "1"]].concat();
    let most = [
        &target[..],
        &["8", "--sampling-rate", "1e-6", "--noise-multiplier", "1000"],
    ]
    .concat();
    let usual = [&target[..], &["1", "--sampling-rate", "0.1", "--steps", "10"]].concat();
    let plan = [&target[..], &["100000", "--records", "40", "--steps", "1"]].concat();
    for (arguments, limit, text) in [
        (
            &least,
            "noise_multiplier is the least",
            "noise multiplier 0.05 (the least that is tried)",
        ),
        (
            &most,
            "steps is the most",
            "at least 100000000 steps (the most that is tried)",
        ),
    ] {
        let answer = json(&[&arguments[..], &["--json"]].concat());
        assert!(
            answer["limit"].as_str().expect("a limit").starts_with(limit),
            "{answer}"
        );
        let said = stdout(&dpsynth(arguments).success());
        assert!(said.contains(text), "{said}");
    }
    assert!(json(&[&usual[..], &["--json"]].concat()).get("limit").is_none());
    assert!(!stdout(&dpsynth(&usual).success()).contains("that is tried"));

    let answer = json(&[&plan[..], &["--json"]].concat());
    assert!(answer["choices"][0]["limit"].is_string(), "{answer}");
    let said = stdout(&dpsynth(&plan).success());
    assert!(
        said.contains("0.05 is the least noise multiplier that is tried"),
        "{said}"
    );
    assert!(
        !said.contains("Larger batches"),
        "no batch is larger than all records: {said}"
    );
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
fn p10_a_ledger_says_how_its_runs_drew_their_batches() {
    use dpsynth::config::NoiseKind;
    use dpsynth::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, TRAINING, Unit};
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = || Ledger::open(dir.path(), "abc", 9.0, 1e-5, &Unit::Record).expect("opens");
    open().set_budget(9.0).expect("writes");
    let file = dir.path().join("abc.jsonl");
    let path = file.to_str().expect("a plain path");
    assert_eq!(json(&["ledger", "show", path, "--json"])["sampler"], "none");
    for (run, batches, sampler) in [
        (
            "cut",
            Batches::AtMost(180),
            "poisson truncated at 180 (of at most 11000 units)",
        ),
        (
            "whole",
            Batches::Poisson,
            "poisson and poisson truncated at 180 (of at most 11000 units)",
        ),
    ] {
        let plan = PrivacyPlan::calibrate(&PlanRequest {
            target_epsilon: 1.0,
            delta: Some(1e-5),
            public_size: 10_000,
            expected_batch_size: 100,
            steps: 5,
            max_grad_norm: 1.0,
            noise: NoiseKind::ExactGaussian,
            unit: Unit::Record,
            batches,
            beside: Vec::new(),
            seed: None,
        })
        .expect("a valid plan");
        drop(
            plan.begin(open(), run, 50)
                .expect("begins")
                .charge(TRAINING)
                .expect("charges"),
        );
        let shown = json(&["ledger", "show", path, "--json"]);
        assert_eq!(shown["sampler"], sampler);
        let text = stdout(&dpsynth(&["ledger", "show", path]).success());
        assert!(text.contains(&format!("sampler {sampler},")), "{text}");
        let lines: Vec<&str> = text.lines().filter(|l| l.contains("batches of at most 180")).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("run cut: "), "{text}");
        // Rounded up: the printed epsilon is never less than the computed.
        let printed = text.split_once("charged epsilon ").expect("an epsilon").1;
        let printed: f64 = printed
            .split(',')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        let charged = shown["epsilon_charged"].as_f64().expect("a number");
        assert!((0.0..1e-4).contains(&(printed - charged)), "{printed} {charged}");
    }
}

#[test]
fn p7_p8_ledger_shows_verifies_and_bounds() {
    use dpsynth::config::NoiseKind;
    use dpsynth::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, TRAINING, Unit};
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
        batches: Batches::Poisson,
        beside: Vec::new(),
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
    drop(run.charge(TRAINING).expect("charges"));
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
    dpsynth(&["ledger", "set-budget", path, "--epsilon", "-1"]).code(2);
    assert!(stdout(&dpsynth(&["ledger", "verify", path]).success()).contains("4 lines, intact"));

    let edited = std::fs::read_to_string(&file)
        .expect("reads")
        .replace("\"times\":5", "\"times\":6");
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
