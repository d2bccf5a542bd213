//! `docs/rules.md` against the tests: each rule lists tests that exist, and each test named after a rule is listed.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A test's function, and where it is as `docs/rules.md` has it: `plan`, `src/files.rs`.
type Test = (String, String);

/// A file of the program by its path, one of the tests by its module: these may move between folders.
fn place(file: &Path) -> String {
    let within = file.strip_prefix(ROOT).expect("it is below the root");
    if !within.iter().any(|folder| folder == "tests") {
        return within.display().to_string();
    }
    let module = match file.ends_with("mod.rs") {
        true => file.parent().expect("a folder"),
        false => file,
    };
    module.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// All Rust files below `folder`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let of = |path: PathBuf| match path.is_dir() {
        true => rust_files(&path),
        false => vec![path],
    };
    let all = entries.flat_map(|entry| of(entry.expect("an entry").path()));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Adds the functions with `#[test]` of all Rust files below `folder`.
fn add_tests(folder: &Path, tests: &mut Vec<Test>) {
    for path in rust_files(folder) {
        let text = fs::read_to_string(&path).expect("text");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (i, line) in lines.iter().enumerate() {
            let above = lines[..i].iter().rev();
            let mut above = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
            if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
                && above.any(|attribute| *attribute == "#[test]")
            {
                tests.push((name.to_string(), place(&path)));
            }
        }
    }
}

fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    let folders = ["tests", "src", "crates"].map(|folder| Path::new(ROOT).join(folder));
    folders.iter().for_each(|folder| add_tests(folder, &mut tests));
    tests
}

/// A rule's number and the tests in its list; none for a section that is no rule.
fn rule(section: &str) -> Option<(usize, Vec<Test>)> {
    let number = section.strip_prefix('P')?.split_once(": ")?.0.parse().ok()?;
    let list = section.split_once("\nTests:\n").map_or("", |(_, list)| list);
    let list = list.split("\nMust not compile:\n").next()?;
    let test = |bullet: &str| {
        let mut quoted = bullet.split('`').skip(1).step_by(2).map(str::to_string);
        (quoted.next().unwrap_or_default(), quoted.next().unwrap_or_default())
    };
    Some((number, list.split("\n- ").skip(1).map(test).collect()))
}

/// The rules in the order of `docs/rules.md`.
fn rules() -> Vec<(usize, Vec<Test>)> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/rules.md")).expect("docs/rules.md");
    text.split("\n## ").skip(1).filter_map(rule).collect()
}

#[test]
fn every_rule_names_tests_that_exist() {
    let (rules, tests) = (rules(), tests());
    let numbers: Vec<usize> = rules.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, Vec::from_iter(1..=12), "the headings P1 to P12, once each");
    for (number, listed) in rules {
        assert!(!listed.is_empty(), "P{number} lists no test");
        let wrong: Vec<Test> = listed.into_iter().filter(|test| !tests.contains(test)).collect();
        assert!(wrong.is_empty(), "P{number} lists what is no test: {wrong:?}");
    }
}

#[test]
fn every_test_named_after_a_rule_is_listed() {
    let rules = rules();
    for test in tests() {
        let named = test
            .0
            .split('_')
            .map_while(|part| part.strip_prefix('p')?.parse::<usize>().ok());
        for number in named.filter(|number| (1..=12).contains(number)) {
            let mut of_rule = rules.iter().filter(|(rule, _)| *rule == number);
            let listed = of_rule.any(|(_, listed)| listed.contains(&test));
            assert!(listed, "`{}` (`{}`) is not listed under P{number}", test.0, test.1);
        }
    }
}

/// A key from the clock, or from a generator that is made for speed, looks as random as one from the operating system.
#[test]
fn p4_the_private_core_reads_no_clock_and_no_other_generator() {
    let mut files = 0;
    for path in rust_files(&Path::new(ROOT).join("crates/dpsynth-privacy/src")) {
        // Deliberate mistakes are there.
        if path.ends_with("mutation.rs") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).expect("reads");
        for word in [
            "SystemTime",
            "Instant",
            "UNIX_EPOCH",
            "thread_rng",
            "rand::rng",
            "rand::random",
            "StdRng",
            "SmallRng",
            "from_entropy",
        ] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
    assert!(files > 20, "{files} files");
}
