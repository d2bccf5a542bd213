//! What the program is beside its commands: progress on terminals, in pipes and in CI, colours, completions, man pages.
#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};

use crate::common::Place;

/// A tiny model: a whole run takes a second.
const MODEL: &str = concat!(
    "model.path=\"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/llama/model.gguf\""
);

/// What a terminal is sent, with these variables set and no others that matter.
fn on_a_terminal(place: &Place, arguments: &[&str], set: &[(&str, &str)]) -> String {
    let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let program = place.command(arguments);
    let mut terminal = Command::new("python3");
    terminal
        .args(["-c", spawn])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    for name in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        terminal.env_remove(name);
    }
    terminal.current_dir(place.path("")).stdin(Stdio::null());
    let output = terminal.envs(set.iter().copied()).output().expect("python3 starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn progress_is_a_bar_on_a_terminal_and_lines_everywhere_else() {
    let place = Place::new();
    let sampled = |name: &str, set: &[(&str, &str)]| {
        let name = format!("name={name}");
        let arguments = [
            "finetune",
            "tiny.toml",
            "--profile",
            "quick",
            "--set",
            MODEL,
            "--set",
            &name,
        ];
        place.ok(&[&["prepare"], &arguments[1..]].concat());
        on_a_terminal(&place, &arguments, set)
    };
    let bar = sampled("bar", &[("TERM", "xterm-256color"), ("NO_COLOR", "1")]);
    assert!(bar.contains("\x1b[2K") && bar.contains("2/2 left"), "{bar:?}");
    assert!(!bar.contains("\x1b[3"), "no colours: {bar:?}");
    for (name, set) in [
        ("dumb", &[("TERM", "dumb")][..]),
        ("ci", &[("TERM", "xterm-256color"), ("CI", "true")]),
    ] {
        let lines = sampled(name, set);
        assert!(!lines.contains('\x1b'), "{name}: {lines:?}");
        assert!(lines.contains("training: 2/2 steps, "), "{name}: {lines:?}");
        assert!(!lines.replace("\r\n", "\n").contains('\r'), "{name}: {lines:?}");
    }
    let piped = place.stage("sample", &["--set", MODEL, "--set", "name=ci"]);
    assert!(piped.stderr.contains("synthetic: 8/8 records, "), "{piped:?}");
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let place = Place::new();
    let help =
        |set: &[(&str, &str)]| on_a_terminal(&place, &["--help"], &[&[("TERM", "xterm-256color")], set].concat());
    assert!(help(&[]).contains("\x1b["), "a terminal gets them");
    for set in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        assert!(!help(&[set]).contains("\x1b["), "{set:?}");
    }
}

#[test]
fn every_command_that_prints_figures_takes_json() {
    let place = Place::new();
    place.ok(&["man", "--to", "man"]);
    // They print a script, pages, or the help of the commands below them.
    let without = [
        "dpsynth",
        "dpsynth-bench",
        "dpsynth-ledger",
        "dpsynth-completions",
        "dpsynth-man",
        "dpsynth-init",
    ];
    let mut seen = 0;
    for page in fs::read_dir(place.path("man")).expect("pages") {
        let page = page.expect("an entry").path();
        let name = page.file_stem().expect("a name").to_string_lossy().into_owned();
        let takes = fs::read_to_string(&page).expect("reads").contains(r"\fB\-\-json\fR");
        assert_eq!(takes, !without.contains(&name.as_str()), "{name}");
        seen += usize::from(takes);
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn a_budget_that_was_set_is_told_as_json() {
    let place = Place::new();
    for stage in ["prepare", "finetune"] {
        place.done(stage, &["--set", MODEL]);
    }
    let ledger = place.ledger();
    let ledger = ledger.to_str().expect("a plain path");
    let said = place
        .ok(&["ledger", "set-budget", ledger, "--epsilon", "7", "--json"])
        .stdout;
    let set: serde_json::Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!((&set["total_epsilon"], &set), (&7.0.into(), &place.ledger_shown()));
    for key in ["delta", "adjacency", "unit", "sampler", "accountant"] {
        assert!(!set[key].is_null(), "{key}");
    }
}

/// The program's commands, as its help lists them.
fn commands(place: &Place) -> Vec<String> {
    let help = place.ok(&["--help"]).stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1);
    let listed = listed.take_while(|l| !l.is_empty()).filter(|l| !l.starts_with("   "));
    listed
        .map(|l| l.split_whitespace().next().expect("a name").to_string())
        .collect()
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.ok(&["completions", shell]).stdout;
        for command in commands(&place) {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
        place.write(shell, script);
    }
    let bash = |line: &str| {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(place.path(""))
            .output()
            .expect("bash");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    bash("bash -n ./bash");
    let complete = |words: &str, count: usize| {
        bash(&format!(
            "source ./bash; COMP_WORDS=(dpsynth {words}); COMP_CWORD={count}; \
             _dpsynth dpsynth \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\""
        ))
    };
    assert_eq!(complete("ru", 1).split_whitespace().collect::<Vec<_>>(), ["run"]);
    assert!(complete("status --j", 2).contains("--json"));
    assert_eq!(place.call(&["completions", "tcsh"]).code, Some(2));
}

#[test]
fn every_command_has_a_man_page_that_renders() {
    let place = Place::new();
    let written = place.ok(&["man", "--to", "share/man1"]).stdout;
    for command in commands(&place).iter().filter(|c| *c != "help") {
        let page = place.text(&format!("share/man1/dpsynth-{command}.1"));
        for part in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(page.contains(part), "no {part} in the page of {command}");
        }
    }
    assert!(written.contains("share/man1/dpsynth-ledger-show.1\n"), "{written}");
    assert_eq!(
        place.ok(&["man"]).stdout.trim_end(),
        place.text("share/man1/dpsynth.1").trim_end()
    );
    if Command::new("groff").arg("--version").output().is_err() {
        println!("groff is not here: pages are not rendered");
        return;
    }
    for page in written.lines() {
        let rendered = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", page])
            .current_dir(place.path(""))
            .output()
            .expect("groff");
        assert!(
            rendered.status.success() && rendered.stderr.is_empty(),
            "{page}: {rendered:?}"
        );
        assert!(String::from_utf8_lossy(&rendered.stdout).contains("dpsynth"), "{page}");
    }
}
