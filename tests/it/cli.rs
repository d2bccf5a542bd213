//! What the program says: help, plans, refusals and their exit codes, word by word.
#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::{Place, Said, model};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

/// Compares with `snapshots/cli__<name>.snap`; what differs between machines and days is blanked out.
#[track_caller]
fn snapshot(place: &Place, name: &str, content: &str) {
    let folder = place.path("");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(true);
    settings.set_omit_expression(true);
    let folder = folder.to_str().expect("a plain path");
    settings.add_filter(folder, "[FOLDER]/");
    settings.add_filter(folder.trim_end_matches('/'), "[FOLDER]");
    // What a build for GPUs says on a machine without one.
    settings.add_filter(r"(?m)^computing on the CPU, since CUDA cannot be used: .*\n", "");
    settings.add_filter(r"[0-9.]+ GB", "[N] GB");
    settings.add_filter(
        r"[0-9.]+ (s|min|h) (training|sampling|evaluation|vectors|records)",
        "[T] $2",
    );
    settings.add_filter(r"[0-9]+ GFLOP/s", "[N] GFLOP/s");
    settings.add_filter(r"steps, [0-9]+ s", "steps, [T]");
    settings.bind(|| insta::assert_snapshot!(name, content));
}

/// The exit code and both outputs of a command.
fn transcript(said: &Said) -> String {
    let code = said.code.expect("no signal");
    format!(
        "exit code {code}\n--- stdout\n{}--- stderr\n{}",
        said.stdout, said.stderr
    )
}

/// Refused with `code` and a hint, and nothing on standard output; the words are in the snapshot.
#[track_caller]
fn refused(place: &Place, name: &str, code: i32, arguments: &[&str]) {
    let said = place.call(arguments);
    said.refused(code, &[]);
    snapshot(place, name, &transcript(&said));
}

/// The names under "Commands:" in a help text, but for clap's own `help`.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_string)
        .collect()
}

#[test]
fn help_of_each_command() {
    let place = Place::new();
    let mut commands = vec![String::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let said = place.ok(&arguments);
        assert_eq!(said.stderr, "");
        assert!(
            said.stdout.lines().all(|l| l.chars().count() <= 100),
            "a line of {command} is too long"
        );
        let name = format!("help {command}").trim().replace(' ', "_");
        snapshot(&place, &name, &said.stdout);
        commands.extend(
            subcommands(&said.stdout)
                .iter()
                .map(|name| format!("{command} {name}").trim().to_string()),
        );
        seen += 1;
    }
    assert!(seen > 25, "the help names {seen} commands");
}

#[test]
fn a_command_line_that_is_wrong() {
    let place = Place::new();
    for (name, arguments) in [
        ("usage_nothing", &[][..]),
        ("usage_unknown_command", &["rum", "tiny.toml"]),
        ("usage_no_configuration", &["run"]),
        ("usage_no_such_profile", &["run", "tiny.toml", "--profile", "huge"]),
    ] {
        let said = place.call(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{name}");
        snapshot(&place, name, &transcript(&said));
    }
}

#[test]
fn a_plan_says_what_a_run_will_spend() {
    model();
    let place = Place::new();
    let said = place.ok(&["plan", "tiny.toml", "--profile", "quick"]);
    snapshot(&place, "plan", &transcript(&said));
    assert!(
        !place.path("runs").exists() && !place.path("ledgers").exists(),
        "a plan leaves nothing behind"
    );
    let json: serde_json::Value =
        serde_json::from_str(&place.ok(&["plan", "tiny.toml", "--profile", "quick", "--json"]).stdout).expect("JSON");
    assert_eq!(
        (&json["privacy"]["steps"], &json["privacy"]["private"]),
        (&2.into(), &true.into())
    );
    // Nothing is read but the configuration: the files need not be there.
    fs::remove_file(place.path("train.csv")).expect("removes");
    place.ok(&["plan", "tiny.toml", "--profile", "quick"]);
}

#[test]
fn a_plan_for_a_time_says_what_to_set() {
    model();
    let place = Place::new();
    let plan = |more: &[&str]| {
        let said = place.ok(&[&["plan", "tiny.toml", "--profile", "quick", "--json"], more].concat());
        serde_json::from_str::<serde_json::Value>(&said.stdout).expect("JSON")
    };
    let proposal = &plan(&["--hours", "0.5"])["proposal"];
    let set = proposal["set"].as_array().expect("settings");
    let set = set.iter().flat_map(|s| ["--set", s.as_str().expect("a setting")]);
    let taken = plan(&set.collect::<Vec<_>>());
    let proposed = &proposal["proposed"];
    for key in ["steps", "expected_batch_size", "noise_multiplier", "epsilon"] {
        assert_eq!(taken["privacy"][key], proposed[key], "{key}");
    }
    let spending = proposal["spending"].as_object().expect("parts");
    let seconds = |part: &str| spending[part].as_f64().expect("a number");
    let total: f64 = spending.keys().map(|part| seconds(part)).sum();
    assert!(seconds("training_s") > 0.0 && total <= 1800.0, "{spending:?}");
    assert!(taken.get("proposal").is_none());

    let said = place.ok(&["plan", "tiny.toml", "--profile", "quick", "--hours", "0.5"]);
    assert!(said.stdout.contains("proposed"), "{}", said.stdout);
    for line in [
        "  finetune.expected_batch_size=",
        "  finetune.steps=",
        "[profile.quick]",
    ] {
        assert!(said.stdout.contains(line), "no {line} in {}", said.stdout);
    }
}

#[test]
fn a_plan_for_no_time_is_refused() {
    model();
    let place = Place::new();
    let plan = |name: &str, more: &[&str]| {
        let arguments = [&["plan", "tiny.toml", "--profile", "quick", "--hours"], more].concat();
        refused(&place, name, 2, &arguments);
    };
    plan("plan_no_hours", &["0"]);
    plan("plan_negative_hours", &["-1"]);
    plan("plan_too_few_hours", &["1e-9"]);
    plan("plan_hours_without_model", &["1", "--set", "model=nobody/nothing"]);
}

#[test]
fn a_configuration_that_is_wrong() {
    let place = Place::new();
    let plan = |name: &str, set: &str| refused(&place, name, 2, &["plan", "tiny.toml", "--set", set]);
    plan("config_unknown_key", "finetune.epsilonn=3");
    plan("config_unknown_section", "fintune.epsilon=3");
    plan("config_set_without_value", "finetune.epsilon");
    plan("config_set_of_another_type", "finetune.epsilon=low");
    plan("config_set_below_a_value", "finetune.epsilon.target=3");
    plan("config_both_asset_and_train", "dataset.asset=imdb");
    plan("config_negative_epsilon", "finetune.epsilon=-1");
    plan("config_delta_too_large", "finetune.delta=0.005");
    plan("config_batch_above_size", "finetune.expected_batch_size=201");
    plan("config_no_epochs", "finetune.epochs=0");
    plan("config_one_seed", "evaluate.seeds=1");
    plan("config_no_baseline", "sample.zero_shot_records=0");
    plan("config_prior_of_another_length", "sample.label_prior=[1, 2, 3]");
    plan("config_name_that_is_a_path", "name=../another");
    plan("config_unknown_choice", "finetune.noise=gauss");
    plan(
        "config_label_twice",
        "dataset.labels=[{ column = 'label', names = ['good', 'good'] }]",
    );

    refused(&place, "config_no_file", 2, &["plan", "nowhere.toml"]);
    place.write("broken.toml", "[dataset\nasset = 'imdb'");
    refused(&place, "config_no_toml", 2, &["plan", "broken.toml"]);
    place.write(
        "profile.toml",
        place.text("tiny.toml") + "[profile.huge.sample]\nrecords = 1\n",
    );
    refused(&place, "config_unknown_profile", 2, &["plan", "profile.toml"]);
    place.write(
        "key.toml",
        place.text("tiny.toml").replace("max_tokens = 16", "max_token = 16"),
    );
    refused(&place, "config_unknown_key_in_file", 2, &["plan", "key.toml"]);
    place.write("empty.toml", "");
    refused(&place, "config_empty", 2, &["plan", "empty.toml"]);
    assert!(!place.path("runs").exists(), "what is refused leaves nothing behind");
}

#[test]
fn an_asset_that_is_unknown() {
    let place = Place::new();
    refused(&place, "asset_fetch", 2, &["fetch", "imbd"]);
    place.write(
        "asset.toml",
        include_str!("../../pipelines/imdb.toml").replace("asset = \"imdb\"", "asset = \"imbd\""),
    );
    refused(&place, "asset_dataset", 2, &["prepare", "asset.toml"]);
    refused(
        &place,
        "asset_model",
        2,
        &["prepare", "tiny.toml", "--set", "model.asset=smollm-135m"],
    );
}

#[test]
fn records_that_cannot_be_used() {
    model();
    let place = Place::new();
    let prepare = |name: &str, code: i32, more: &[&str]| {
        refused(
            &place,
            name,
            code,
            &[&["prepare", "tiny.toml", "--profile", "quick"], more].concat(),
        );
        // A new run each time; what the configuration alone forbids leaves no folder.
        let _ = fs::remove_dir_all(place.path("runs"));
    };
    prepare("records_missing_file", 3, &["--set", "dataset.train=nowhere.csv"]);
    prepare("records_missing_column", 3, &["--set", "dataset.text=review"]);
    prepare(
        "records_prompt_without_label",
        2,
        &["--set", "prompt.user=Write a film review."],
    );
    prepare(
        "records_prompt_with_unknown_label",
        2,
        &["--set", "prompt.user=Write a {{ stars }} film review."],
    );

    place.write("unknown.csv", "text,label\na fine film,great\nno film,neutral\n");
    prepare("records_unknown_label", 3, &["--set", "dataset.train=unknown.csv"]);
    place.write(
        "latin.csv",
        b"text,label\na fine film,positive\nun film g\xe2ch\xe9,negative\n",
    );
    prepare("records_not_utf8", 3, &["--set", "dataset.train=latin.csv"]);
    place.write("empty.csv", "");
    prepare("records_empty_file", 3, &["--set", "dataset.train=empty.csv"]);

    let whole = parquet_file();
    place.write("whole.parquet", &whole);
    place.ok(&[
        "prepare",
        "tiny.toml",
        "--set",
        "name=whole",
        "--set",
        "dataset.train=whole.parquet",
    ]);
    place.write("cut.parquet", &whole[..whole.len() / 2]);
    prepare("records_truncated_parquet", 3, &["--set", "dataset.train=cut.parquet"]);
}

/// Two labelled records.
fn parquet_file() -> Vec<u8> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a fine film", "no film"]));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
    let batch = RecordBatch::try_from_iter([("text", texts), ("label", labels)]).expect("equally long");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("writes");
    writer.close().expect("closes");
    bytes
}

#[test]
fn a_model_that_is_cut_short() {
    let place = Place::new();
    let whole = fs::read(model()).expect("reads the model");
    for (name, bytes) in [
        ("cut_in_the_header", 10_000),
        ("cut_in_a_tensor", 10_000_000),
        ("no_bytes", 0),
    ] {
        place.write("cut.gguf", &whole[..bytes]);
        for command in ["plan", "prepare"] {
            let arguments = [
                command,
                "tiny.toml",
                "--profile",
                "quick",
                "--set",
                "model.path=cut.gguf",
            ];
            refused(&place, &format!("model_{name}_{command}"), 3, &arguments);
        }
    }
    refused(
        &place,
        "model_missing",
        1,
        &[
            "prepare",
            "tiny.toml",
            "--set",
            "name=m",
            "--set",
            "model.path=nowhere.gguf",
        ],
    );
}

#[test]
fn stages_come_in_order() {
    let place = Place::new();
    refused(
        &place,
        "order_evaluate_first",
        2,
        &["evaluate", "tiny.toml", "--profile", "quick"],
    );
    refused(
        &place,
        "order_finetune_first",
        2,
        &["finetune", "tiny.toml", "--profile", "quick"],
    );
}

#[test]
fn a_folder_for_runs_that_cannot_be_written() {
    let place = Place::new();
    place.write("file", "");
    refused(
        &place,
        "runs_below_a_file",
        1,
        &["prepare", "tiny.toml", "--profile", "quick", "--runs-dir", "file/runs"],
    );
    // The superuser writes into a read-only folder all the same; the kernel's own folders refuse everybody, though not
    // in the same words everywhere.
    let said = place.call(&[
        "prepare",
        "tiny.toml",
        "--profile",
        "quick",
        "--runs-dir",
        "/sys/kernel",
    ]);
    said.refused(1, &["cannot make the run's folder /sys/kernel/tiny-quick: "]);
}

const ACCOUNT: [&str; 9] = [
    "account",
    "--sampling-rate",
    "0.01",
    "--noise-multiplier",
    "1",
    "--steps",
    "10",
    "--delta",
    "1e-5",
];

#[test]
fn a_result_is_the_same_in_a_pipe_a_file_and_a_terminal() {
    let place = Place::new();
    for arguments in [
        &ACCOUNT[..],
        &[
            "plan",
            "tiny.toml",
            "--profile",
            "quick",
            "--set",
            "model=nobody/nothing",
        ],
    ] {
        let piped = place.ok(arguments);
        let file = fs::File::create(place.path("out")).expect("creates");
        assert!(
            place
                .command(arguments)
                .stdout(file)
                .status()
                .expect("starts")
                .success()
        );
        assert_eq!(place.text("out"), piped.stdout);

        let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
        let program = place.command(arguments);
        let mut terminal = Command::new("python3");
        terminal
            .args(["-c", spawn])
            .arg(program.get_program())
            .args(program.get_args());
        terminal.current_dir(place.path("")).stdin(Stdio::null());
        let shown = String::from_utf8(terminal.output().expect("python3 starts").stdout).expect("text");
        assert_eq!(shown.replace("\r\n", "\n"), piped.stdout);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    let calibrate = "calibrate --epsilon 1 --delta 1e-5 --sampling-rate 0.01 --steps 10";
    place.write("settings.csv", "q,sigma,T,delta\n0.01,1,10,1e-5\n");
    let doctor = "doctor --json";
    for line in [&ACCOUNT.join(" "), calibrate, doctor, "account --batch settings.csv"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let mut command = place.command(&arguments);
        command.env("HF_HUB_OFFLINE", "1").stdout(full);
        let said = Said::from(command.output().expect("starts"));
        said.refused(1, &["cannot write to standard output"]);
    }
}

#[test]
fn nothing_is_computed_for_a_reader_that_went_away() {
    let place = Place::new();
    let row = "0.01,1,10,1e-5\n";
    // The last row is refused when its turn comes: exit code 0 says that it never came.
    let rows = |count| format!("q,sigma,T,delta\n{}0.01,1,10,1e-320\n", row.repeat(count));
    place.write("settings.csv", rows(64));
    let batch = ["account", "--batch", "settings.csv"];
    assert_eq!(place.call(&batch).code, Some(2));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let said = Said::from(place.command(&batch).stdout(writer).output().expect("starts"));
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_audit_of_nothing() {
    let place = Place::new();
    place.write("report.json", "{}");
    for (run, answer) in [
        ("runs/nope", "there is no run runs/nope"),
        ("report.json", "report.json is neither a run's folder nor a TOML file"),
        ("nope.toml", "cannot read the configuration nope.toml"),
    ] {
        place.call(&["audit", run]).refused(2, &[answer]);
    }
}

#[test]
fn a_reader_that_went_away_is_no_trouble() {
    let place = Place::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    // `| head -0`
    for arguments in [&["--help"][..], &["run", "--help"], &ACCOUNT, &["doctor", "--json"]] {
        let output = place
            .command(arguments)
            .env("HF_HUB_OFFLINE", "1")
            .stdout(closed())
            .output()
            .expect("starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.as_ref()), (Some(0), ""), "{arguments:?}");
    }
    // `2>&1 | head -0`
    let output = place
        .command(&["plan", "nowhere.toml"])
        .stdout(closed())
        .stderr(closed())
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(2));
}
