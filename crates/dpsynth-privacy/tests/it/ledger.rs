//! The ledger: charged before stepped, tampering seen, the budget a wall.

use std::fs;
use std::path::{Path, PathBuf};

use dpsynth_privacy::accountant::{Adjacency, Phase, pld, rdp};
use dpsynth_privacy::{
    Batches, LABELS, LabelCounts, Ledger, LedgerHead, LedgerView, NoiseKind, PlanRequest, PrivacyPlan, RestsOn,
    TRAINING, Unit, verify,
};
use sha2::{Digest, Sha256};

const DATASET: &str = "5d97c37f";

fn plan(target_epsilon: f64, steps: u64, seed: Option<u64>) -> PrivacyPlan {
    PrivacyPlan::calibrate(&PlanRequest {
        target_epsilon,
        delta: Some(1e-5),
        public_size: 10_000,
        expected_batch_size: 100,
        steps,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed,
    })
    .expect("a valid plan")
}

fn open(dir: &Path) -> dpsynth_privacy::Result<Ledger> {
    Ledger::open(dir, DATASET, 3.0, 1e-5, &Unit::Record)
}

fn file(dir: &Path) -> PathBuf {
    dir.join(format!("{DATASET}.jsonl"))
}

fn lines(dir: &Path) -> Vec<String> {
    fs::read_to_string(file(dir))
        .expect("reads")
        .lines()
        .map(String::from)
        .collect()
}

fn rewrite(dir: &Path, lines: &[String]) {
    fs::write(file(dir), lines.join("\n") + "\n").expect("writes");
}

/// A ledger with one run of ten steps, `charged` of them charged; and the head after them.
fn with_steps(charged: usize) -> (tempfile::TempDir, LedgerHead) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut run = plan(2.0, 10, None)
        .begin(open(dir.path()).expect("opens"), "a", 500)
        .expect("begins");
    for _ in 0..charged {
        drop(run.charge(TRAINING).expect("charges"));
    }
    let head = run.ledger_head();
    (dir, head)
}

#[test]
fn p7_a_step_is_on_disk_before_it_can_be_taken() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut run = plan(2.0, 10, None)
        .begin(open(dir.path()).expect("opens"), "a", 500)
        .expect("begins");
    for index in 0..10 {
        let step = run.charge(TRAINING).expect("charges");
        assert_eq!(step.index(), index);
        let last = lines(dir.path()).pop().expect("a line");
        assert!(
            last.contains("\"kind\":\"use\",\"run\":\"a\",\"release\":\"training\"")
                && last.contains(&format!("\"index\":{index}")),
            "{last}"
        );
        assert_eq!(run.ledger_head().seq as usize, lines(dir.path()).len() - 1);
    }
}

#[test]
fn p7_a_killed_run_goes_on_with_what_was_charged_and_fresh_randomness() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let plan = plan(2.0, 4, None);
    let mut run = plan
        .begin(open(dir.path()).expect("opens"), "a", 5_000)
        .expect("begins");
    let applied = run
        .charge(TRAINING)
        .expect("charges")
        .privatize(&[0.0; 4])
        .expect("finite");
    // The second step is charged and never applied: the process dies.
    let lost = run.charge(TRAINING).expect("charges");
    let lost_members = lost.members().to_vec();
    let head = run.ledger_head();
    drop(lost);
    drop(run);

    let ledger = open(dir.path()).expect("opens again");
    ledger.require_head(&head).expect("nothing was lost");
    let mut run = plan.begin(ledger, "a", 5_000).expect("goes on");
    assert_eq!((run.charged_steps(), run.remaining_steps()), (2, 2));
    let step = run.charge(TRAINING).expect("charges");
    assert_eq!(step.index(), 2);
    assert_ne!(step.members(), lost_members);
    assert_ne!(step.privatize(&[0.0; 4]).expect("finite"), applied);
    drop(run.charge(TRAINING).expect("the last"));
    assert_eq!(run.charge(TRAINING).expect_err("past the plan").exit_code(), 4);
}

#[test]
fn p7_a_torn_last_line_is_cut_off() {
    for torn in [
        "{\"seq\":5,\"prev\":\"ab",
        "{\"seq\":5,\"pr\n",
        "\0\0\0\0\0\0",
        "\0\0\0\n",
    ] {
        let (dir, head) = with_steps(3);
        let whole = fs::read(file(dir.path())).expect("reads");
        fs::write(file(dir.path()), [&whole, torn.as_bytes()].concat()).expect("writes");
        let ledger = open(dir.path()).expect("mends");
        assert_eq!(ledger.head(), head);
        drop(ledger);
        assert_eq!(fs::read(file(dir.path())).expect("reads"), whole, "{torn:?}");
    }
}

#[test]
fn p7_a_whole_line_without_its_end_was_never_charged() {
    let (dir, _) = with_steps(3);
    let before = fs::read(file(dir.path())).expect("reads");
    let head = fs::read(dir.path().join(format!("{DATASET}.jsonl.head"))).expect("reads");
    {
        let mut run = plan(2.0, 10, None)
            .begin(open(dir.path()).expect("opens"), "a", 500)
            .expect("goes on");
        drop(run.charge(TRAINING).expect("charges"));
    }
    // As if the crash came before the line's end, and so before the head was written.
    let mut after = fs::read(file(dir.path())).expect("reads");
    assert_eq!(after.pop(), Some(b'\n'));
    fs::write(file(dir.path()), after).expect("writes");
    fs::write(dir.path().join(format!("{DATASET}.jsonl.head")), head).expect("writes");
    assert_eq!(open(dir.path()).expect("mends").view().runs[0].charged_steps(), 3);
    assert_eq!(fs::read(file(dir.path())).expect("reads"), before);
}

#[test]
fn p7_the_head_file_may_be_one_line_behind_and_no_more() {
    let (dir, _) = with_steps(2);
    let beside = dir.path().join(format!("{DATASET}.jsonl.head"));
    let old = fs::read(&beside).expect("reads");
    let charge = |n: usize| {
        let mut run = plan(2.0, 10, None)
            .begin(open(dir.path()).expect("opens"), "a", 500)
            .expect("goes on");
        (0..n).for_each(|_| drop(run.charge(TRAINING).expect("charges")));
    };
    charge(1);
    fs::write(&beside, &old).expect("writes");
    assert_eq!(
        open(dir.path()).expect("one behind is a crash").view().runs[0].charged_steps(),
        3
    );
    charge(1);
    fs::write(&beside, &old).expect("writes");
    let error = open(dir.path()).expect_err("two behind is not");
    assert!(error.to_string().contains("2 lines after line 4"), "{error}");
}

#[test]
fn p7_an_edited_line_is_refused_and_named() {
    // Line 3 is the first step, line 5 the last.
    for (line, next) in [(2, "line 3"), (3, "line 4"), (5, "line 5")] {
        let (dir, _) = with_steps(3);
        let mut edited = lines(dir.path());
        edited[line - 1] = edited[line - 1].replace("\"run\":\"a\"", "\"run\":\"b\"");
        rewrite(dir.path(), &edited);
        let error = open(dir.path()).expect_err("refused");
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains(next), "line {line} edited: {error}");
        assert_eq!(
            verify(&file(dir.path())).expect_err("refused").to_string(),
            error.to_string()
        );
    }
}

#[test]
fn p7_a_damaged_middle_line_is_refused_not_cut() {
    let (dir, _) = with_steps(3);
    let mut edited = lines(dir.path());
    edited[2].truncate(20);
    rewrite(dir.path(), &edited);
    let error = open(dir.path()).expect_err("refused");
    assert!(
        error.to_string().contains("line 3") && error.to_string().contains("cannot be read"),
        "{error}"
    );
    assert_eq!(lines(dir.path()).len(), 5, "nothing was cut");
}

#[test]
fn p7_a_missing_or_swapped_line_is_refused_and_named() {
    let (dir, _) = with_steps(3);
    let whole = lines(dir.path());
    let mut missing = whole.clone();
    missing.remove(2);
    rewrite(dir.path(), &missing);
    let error = open(dir.path()).expect_err("refused");
    assert!(
        error.to_string().contains("line 3") && error.to_string().contains("lines are missing"),
        "{error}"
    );
    let mut swapped = whole;
    swapped.swap(2, 3);
    rewrite(dir.path(), &swapped);
    assert!(open(dir.path()).expect_err("refused").to_string().contains("line 3"));
}

#[test]
fn p7_a_ledger_that_was_rolled_back_is_refused() {
    // Whole lines cut off: the head file knows.
    let (dir, head) = with_steps(3);
    let whole = lines(dir.path());
    rewrite(dir.path(), &whole[..4]);
    let error = open(dir.path()).expect_err("refused");
    assert_eq!(error.exit_code(), 3);
    assert!(
        error.to_string().contains("ends at line 4") && error.to_string().contains("line 5"),
        "{error}"
    );
    // The head file rolled back with it: the checkpoint knows.
    let (older, older_head) = with_steps(3);
    let ledger = open(older.path()).expect("opens");
    ledger.require_head(&older_head).expect("its own head");
    let error = ledger
        .require_head(&LedgerHead { seq: 9, ..head.clone() })
        .expect_err("longer than the file");
    assert!(
        error.to_string().contains("ends at line 5") && error.to_string().contains("checkpoint"),
        "{error}"
    );
    // Replaced by another ledger of the same length: the hash knows.
    drop(ledger);
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let mut other = plan(1.9, 10, None)
        .begin(open(elsewhere.path()).expect("opens"), "a", 9)
        .expect("begins");
    (0..3).for_each(|_| drop(other.charge(TRAINING).expect("charges")));
    let error = other.into_ledger().require_head(&head).expect_err("another ledger");
    assert!(error.to_string().contains("line 5"), "{error}");
}

#[test]
fn p7_a_lost_head_file_is_refused() {
    let (dir, _) = with_steps(3);
    fs::remove_file(dir.path().join(format!("{DATASET}.jsonl.head"))).expect("removes");
    assert_eq!(open(dir.path()).expect_err("refused").exit_code(), 3);
}

#[test]
fn p7_a_ledger_is_held_by_one_process_at_a_time() {
    let (dir, _) = with_steps(1);
    let held = open(dir.path()).expect("opens");
    let error = open(dir.path()).expect_err("held");
    assert!(error.to_string().contains("another process"), "{error}");
    verify(&file(dir.path())).expect("reading needs no lock");
    drop(held);
    open(dir.path()).expect("free again");
}

#[test]
fn p7_resuming_with_other_parameters_is_refused() {
    let (dir, _) = with_steps(1);
    for other in [plan(1.5, 10, None), plan(2.0, 9, None), plan(2.0, 10, Some(1))] {
        let error = other
            .begin(open(dir.path()).expect("opens"), "a", 500)
            .expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("other parameters"), "{error}");
    }
}

#[test]
fn p8_runs_compose_and_the_one_too_many_is_refused_with_the_sum() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = plan(2.0, 10, None);
    drop(first.begin(open(dir.path()).expect("opens"), "a", 500).expect("fits"));
    // Open runs count whole, though nothing was charged yet.
    let view = open(dir.path()).expect("opens").view();
    assert_eq!(view.charged_epsilon().expect("composes"), 0.0);
    assert!((view.reserved_epsilon().expect("composes") - 2.0).abs() < 0.01);
    // 2 and 1 in sum are the total of 3; composed they are less, so this fits and more than the sum would allow does too.
    drop(
        plan(1.0, 10, None)
            .begin(open(dir.path()).expect("opens"), "b", 500)
            .expect("fits"),
    );
    let both = open(dir.path())
        .expect("opens")
        .view()
        .reserved_epsilon()
        .expect("composes");
    assert!(both > 2.0 && both < 3.0, "{both}");
    let error = plan(3.0, 10, None)
        .begin(open(dir.path()).expect("opens"), "c", 500)
        .expect_err("too much");
    assert_eq!(error.exit_code(), 4);
    let text = error.to_string();
    for part in [
        "epsilon 3 at delta",
        &format!("{:.4}", (both * 1e4).ceil() / 1e4),
        "this run asks",
        "delta 1.000e-5",
        "add-or-remove-one",
        "pld",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert_eq!(
        open(dir.path()).expect("opens").view().runs.len(),
        2,
        "a refused run leaves no trace"
    );
}

#[test]
fn p8_a_plan_of_the_whole_budget_fits_exactly() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let whole = plan(3.0, 10, None);
    let mut run = whole.begin(open(dir.path()).expect("opens"), "a", 500).expect("fits");
    (0..10).for_each(|_| drop(run.charge(TRAINING).expect("within the plan")));
    assert_eq!(run.charge(TRAINING).expect_err("a step too many").exit_code(), 4);
    drop(run);
    let view = open(dir.path()).expect("opens").view();
    assert_eq!(
        view.charged_epsilon().expect("composes"),
        view.reserved_epsilon().expect("composes")
    );
    assert!(
        plan(0.5, 10, None)
            .begin(open(dir.path()).expect("opens"), "b", 500)
            .is_err()
    );
}

#[test]
fn p8_ending_a_run_gives_back_what_was_not_charged() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let big = plan(2.9, 100, None);
    let mut run = big.begin(open(dir.path()).expect("opens"), "a", 500).expect("fits");
    drop(run.charge(TRAINING).expect("charges"));
    let ledger = run.end().expect("ends");
    assert!(ledger.view().reserved_epsilon().expect("composes") < 1.5);
    drop(ledger);
    assert!(
        big.begin(open(dir.path()).expect("opens"), "a", 500).is_err(),
        "an ended run is over"
    );
    drop(
        plan(1.0, 10, None)
            .begin(open(dir.path()).expect("opens"), "b", 500)
            .expect("fits now"),
    );
}

#[test]
fn p8_a_run_with_a_fixed_seed_is_recorded_and_spends_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rehearsal = plan(50.0, 10, Some(3));
    let mut run = rehearsal
        .begin(open(dir.path()).expect("opens"), "a", 500)
        .expect("not counted");
    drop(run.charge(TRAINING).expect("charges"));
    drop(run);
    let view = open(dir.path()).expect("opens").view();
    assert_eq!(view.reserved_epsilon().expect("composes"), 0.0);
    assert!(!view.runs[0].parameters.private && view.runs[0].charged_steps() == 1);
}

#[test]
fn p8_a_lowered_budget_stops_a_run_and_a_raised_one_lets_it_go_on() {
    let (dir, _) = with_steps(1);
    open(dir.path()).expect("opens").set_budget(1.0).expect("sets");
    let error = plan(2.0, 10, None)
        .begin(open(dir.path()).expect("opens"), "a", 500)
        .expect_err("too much now");
    assert_eq!(error.exit_code(), 4);
    open(dir.path()).expect("opens").set_budget(2.5).expect("sets");
    drop(
        plan(2.0, 10, None)
            .begin(open(dir.path()).expect("opens"), "a", 500)
            .expect("goes on"),
    );
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            open(dir.path())
                .expect("opens")
                .set_budget(bad)
                .expect_err("refused")
                .exit_code(),
            2
        );
    }
}

#[test]
fn p8_an_existing_ledger_keeps_its_total() {
    let (dir, _) = with_steps(0);
    let ledger = Ledger::open(dir.path(), DATASET, 100.0, 1e-6, &Unit::Record).expect("opens");
    assert_eq!((ledger.view().total_epsilon, ledger.view().delta), (3.0, 1e-5));
}

#[test]
fn p8_a_ledger_of_another_dataset_is_refused() {
    let (dir, _) = with_steps(0);
    for suffix in ["", ".head"] {
        fs::rename(
            dir.path().join(format!("{DATASET}.jsonl{suffix}")),
            dir.path().join(format!("ffff.jsonl{suffix}")),
        )
        .expect("renames");
    }
    assert_eq!(
        Ledger::open(dir.path(), "ffff", 3.0, 1e-5, &Unit::Record)
            .expect_err("refused")
            .exit_code(),
        3
    );
    assert_eq!(
        Ledger::open(dir.path(), "../x", 3.0, 1e-5, &Unit::Record)
            .expect_err("refused")
            .exit_code(),
        2
    );
}

#[test]
fn p10_a_ledger_keeps_to_one_unit_of_privacy() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    open(dir.path()).expect("opens").set_budget(3.0).expect("writes");
    let group = Unit::Group {
        column: "author".into(),
        max_records: 2,
    };
    let refused = Ledger::open(dir.path(), DATASET, 3.0, 1e-5, &group).expect_err("another unit");
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("protects the unit record"), "{refused}");
}

/// The first version of the program named no releases. Its lines are uses of the two that there were: a ledger that it wrote
/// (`tests/fixtures/ledger_first_version.jsonl`, six steps and counts of the labels, then the end) is read, and a run that it
/// began is gone on with.
#[test]
fn p7_p8_a_ledger_of_the_first_version_is_read_and_its_run_goes_on() {
    let whole = include_str!("../fixtures/ledger_first_version.jsonl");
    let dataset = "2887165f9a4cd29a8c56bf6f6c26f82718e3ea628e0866ba0edbb6741e2cc323";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join(format!("{dataset}.jsonl"));
    let write = |lines: usize| {
        let text: Vec<&str> = whole.lines().take(lines).collect();
        let hash: String = Sha256::digest(text.last().expect("a line"))
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        fs::write(&path, text.join("\n") + "\n").expect("writes");
        fs::write(
            dir.path().join(format!("{dataset}.jsonl.head")),
            format!("{{\"seq\":{},\"hash\":\"{hash}\"}}", lines - 1),
        )
        .expect("writes");
    };
    write(whole.lines().count());
    let view = verify(&path).expect("intact");
    let run = &view.runs[0];
    assert_eq!((run.charged(TRAINING), run.charged(LABELS), run.ended), (6, 1, true));
    assert!(run.is_complete());
    let epsilon = view.charged_epsilon().expect("accounted for");
    assert!((3.9..=4.0).contains(&epsilon), "{epsilon}");

    // The first five lines: it was killed after its second step.
    write(5);
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        target_epsilon: 4.0,
        delta: None,
        public_size: 200,
        expected_batch_size: 4,
        steps: 6,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::AtMost(30),
        beside: vec![LABELS.planned(LabelCounts { epsilon: 0.5 }, 1)],
        seed: None,
    })
    .expect("a valid plan");
    let ledger = Ledger::open(dir.path(), dataset, 100.0, plan.delta(), &Unit::Record).expect("opens");
    let name = verify(&path).expect("intact").runs[0].run.clone();
    let mut run = plan.begin(ledger, &name, 200).expect("it is the same plan");
    assert_eq!((run.charged_steps(), run.charged(LABELS)), (2, 1));
    assert_eq!(run.charge(LABELS).expect_err("once").exit_code(), 4);
    assert_eq!(run.charge(TRAINING).expect("the next").index(), 2);
    let text = fs::read_to_string(&path).expect("reads");
    let last = text.lines().last().expect("a line");
    assert!(last.contains("\"release\":\"training\",\"index\":2"), "{last}");
    assert_eq!(verify(&path).expect("intact").runs[0].charged_steps(), 3);
}

/// Lines that no plan of this program has, with all hashes right: what nobody reads might count.
#[test]
fn p7_p8_a_ledger_that_says_what_no_plan_says_is_refused() {
    let training = r#"{"name":"training","mechanism":"subsampled-gaussian","sampling_rate":0.01,"noise_multiplier":1.0,"times":10}"#;
    let first = r#""sampling_rate":0.01,"noise_multiplier":1.0,"steps":10,"delta":1e-5,"private":true"#;
    let of = |releases: &str| format!(r#""delta":1e-5,"private":true,"releases":[{releases}]"#);
    let mut runs = vec![
        (of(training), true),
        (first.to_string(), true),
        // Both at once, in either order of trust.
        (
            format!("{first},{}", &of(training)[r#""delta":1e-5,"private":true,"#.len()..]),
            false,
        ),
        (format!(r#"{first},"group":8"#), false),
        (of(&format!("{training},{training}")), false),
        (of(&training.replace("\"training\"", "\"\"")), false),
        (of(&training.replace("10}", "0}")), false),
        (of(&training.replace("10}", "10,\"group\":8}")), false),
        (of(&training.replace("1.0", "-1.0")), false),
        (of(&training.replace("0.01", "1e400")), false),
        (of(&training.replace("subsampled-gaussian", "something-new")), false),
        (
            of(r#"{"name":"training","mechanism":"discrete-laplace","epsilon":0.1,"times":1}"#),
            false,
        ),
        (
            of(r#"{"name":"labels","mechanism":"discrete-laplace","epsilon":0.1,"times":3}"#),
            false,
        ),
        (of(training).replace("1e-5", "-1.0"), false),
    ];
    runs.push((
        of(r#"{"name":"labels","mechanism":"discrete-laplace","epsilon":0.1,"times":1}"#),
        true,
    ));
    for (run, whole) in runs {
        let dir = tempfile::tempdir().expect("a temporary folder");
        open(dir.path()).expect("opens").set_budget(3.0).expect("writes");
        let created = lines(dir.path()).remove(0);
        let hash = |line: &str| -> String { Sha256::digest(line).iter().map(|b| format!("{b:02x}")).collect() };
        let line = format!(
            r#"{{"seq":1,"prev":"{}","kind":"run","run":"a",{run}}}"#,
            hash(&created)
        );
        let last = format!(r#"{{"seq":2,"prev":"{}","kind":"end","run":"a"}}"#, hash(&line));
        rewrite(dir.path(), &[created, line, last.clone()]);
        fs::write(
            dir.path().join(format!("{DATASET}.jsonl.head")),
            format!(r#"{{"seq":2,"hash":"{}"}}"#, hash(&last)),
        )
        .expect("writes");
        match verify(&file(dir.path())) {
            Ok(_) => assert!(whole, "it was read: {run}"),
            Err(e) => assert!(!whole && e.exit_code() == 3, "{run}: {e}"),
        }
    }
}

fn named(dir: &Path, name: &str, total: f64) -> Ledger {
    Ledger::open(dir, name, total, 1e-5, &Unit::Record).expect("opens")
}

fn charge_all(run: &mut dpsynth_privacy::PrivateRun, steps: u64) {
    (0..steps).for_each(|_| drop(run.charge(TRAINING).expect("within the plan")));
}

/// A plan that was made after something was charged may have been chosen by what that gave.
#[test]
fn p8_the_wall_is_a_filter_once_something_was_charged() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let begin = |name: &str| {
        plan(1.0, 10, None)
            .begin(named(dir.path(), DATASET, 3.0), name, 500)
            .expect("fits")
    };
    let view = || verify(&file(dir.path())).expect("reads");
    // Made before: distributions compose, and both charge what they will.
    drop(begin("a"));
    charge_all(&mut begin("b"), 10);
    let fixed = view().counted().expect("counts");
    assert_eq!(fixed.rests_on, RestsOn::Pld);
    assert_eq!(fixed.epsilon, view().reserved_epsilon().expect("composes"));
    charge_all(&mut begin("a"), 10);
    // Made after.
    drop(begin("c"));
    let (seen, counted) = (view(), view().counted().expect("counts"));
    assert_ne!(counted.rests_on, RestsOn::Pld);
    assert!(seen.runs.iter().map(|run| run.adaptive).eq([false, false, true]));
    assert!(counted.epsilon > seen.reserved_epsilon().expect("composes"));
    // By hand. Half of delta is for the divergences of all 30 steps, at the one order that the first plan and the total fixed;
    // a quarter for the two first plans, composed; an eighth for the third, added to them.
    let of = |run: usize| {
        let parameters = &seen.runs[run].parameters;
        parameters.phases(&parameters.planned()).expect("phases")
    };
    let order = seen.filter_order().expect("an order").expect("a private run");
    let all = [of(0), of(1), of(2)].concat();
    let renyi = rdp::epsilon_at(&all, Adjacency::AddOrRemoveOne, 0.5e-5, order).expect("adds up");
    let pld = |phases: &[Phase], delta| pld::epsilon_above(phases, Adjacency::AddOrRemoveOne, delta).expect("composes");
    let sum = pld(&[of(0), of(1)].concat(), 0.25e-5) + pld(&of(2), 0.125e-5);
    assert!(
        (counted.epsilon - renyi.min(sum)).abs() < 1e-9,
        "{counted:?}, {renyi}, {sum}"
    );
    // Distributions alone would let this in.
    let more = |epsilon: f64| {
        let all = [&all[..], &{
            let asked = plan(epsilon, 10, None);
            asked.releases()[0]
                .phase(10)
                .expect("a phase")
                .into_iter()
                .collect::<Vec<_>>()
        }]
        .concat();
        pld(&all, 1e-5)
    };
    assert!(more(2.0) < 3.0, "{}", more(2.0));
    let refused = plan(2.0, 10, None).begin(named(dir.path(), DATASET, 3.0), "d", 500);
    let refused = refused.expect_err("too much");
    assert_eq!(refused.exit_code(), 4);
    assert!(
        refused
            .to_string()
            .contains("since plans were made after something was charged"),
        "{refused}"
    );
    // What was let in goes on.
    charge_all(&mut begin("c"), 10);
}

/// Many steps of little each: there divergences are the better of both.
/// Distributions left something of a total under which a filter lets no run in, however small.
#[test]
fn p8_something_was_said_to_be_left_where_no_run_could_begin() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let ledger = || named(dir.path(), DATASET, 3.0);
    let begin = || plan(2.0, 10, None).begin(ledger(), "a", 500).expect("fits");
    let open = begin().into_ledger().view();
    let (counted, for_another) = (open.counted().unwrap(), open.counted_before_another().unwrap());
    assert_eq!(counted, for_another, "nothing was charged yet");
    charge_all(&mut begin(), 10);
    let view = verify(&file(dir.path())).expect("reads");
    let (counted, for_another) = (view.counted().unwrap(), view.counted_before_another().unwrap());
    assert_eq!(counted.rests_on, RestsOn::Pld);
    assert_ne!(for_another.rests_on, RestsOn::Pld);
    assert!(counted.epsilon < for_another.epsilon, "{counted:?}, {for_another:?}");
    let total = 0.5 * (counted.epsilon + for_another.epsilon);
    ledger().set_budget(total).expect("is set");
    let refused = plan(0.01, 10, None).begin(ledger(), "b", 500);
    assert_eq!(refused.expect_err("too much").exit_code(), 4);
    let left = total - ledger().view().counted_before_another().unwrap().epsilon;
    assert!(left < 0.0, "{left}");
    // A hair above, the smallest run fits.
    let filtered = ledger().view().counted_before_another().unwrap().epsilon;
    ledger().set_budget(1.05 * filtered).expect("is set");
    plan(0.01, 10, None).begin(ledger(), "b", 500).expect("fits");
}

#[test]
fn p8_the_wall_takes_the_better_of_two_filters() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in ["a", "b", "c", "d"] {
        let mut run = plan(1.0, 3_000, None)
            .begin(named(dir.path(), DATASET, 9.0), name, 500)
            .expect("fits");
        charge_all(&mut run, 1);
    }
    let counted = verify(&file(dir.path())).expect("reads").counted().expect("counts");
    assert_eq!(counted.rests_on, RestsOn::RenyiFilter);
}

#[test]
fn p8_a_filter_of_one_order_is_no_less_than_the_best_order() {
    let phases = [Phase::new(0.01, 1.0, 500).expect("phase")];
    let best = rdp::epsilon(&phases, Adjacency::AddOrRemoveOne, 1e-5).expect("adds up");
    let at_best = rdp::epsilon_at(&phases, Adjacency::AddOrRemoveOne, 1e-5, best.order).expect("adds up");
    assert_eq!(at_best, best.epsilon);
    // The order for ten times as much is another, and costs little where there is less.
    let ten = rdp::epsilon(&[phases[0]; 10], Adjacency::AddOrRemoveOne, 1e-5).expect("adds up");
    let order = rdp::order_for(&phases, Adjacency::AddOrRemoveOne, ten.epsilon, 1e-5).expect("an order");
    assert_eq!(order, ten.order);
    let fixed = rdp::epsilon_at(&phases, Adjacency::AddOrRemoveOne, 1e-5, order).expect("adds up");
    assert!(fixed > best.epsilon && order < best.order, "{fixed}, {order}, {best:?}");
}

/// Datasets that share records are charged together, and a crash between their ledgers is made good.
#[test]
fn p8_a_run_is_charged_to_every_ledger_beside() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let begin = |name: &str, epsilon: f64| {
        let ledger = named(dir.path(), "new", 9.0).beside(named(dir.path(), "old", 2.0));
        plan(epsilon, 10, None).begin(ledger, name, 500)
    };
    let view = |name: &str| verify(&dir.path().join(format!("{name}.jsonl"))).expect("reads");
    let mut run = begin("a", 1.0).expect("fits");
    charge_all(&mut run, 3);
    drop(run);
    for name in ["new", "old"] {
        assert_eq!(view(name).runs[0].charged_steps(), 3, "{name}");
    }
    // One of the two was a line ahead when the program was killed.
    for (ahead, steps) in [("old", 4), ("new", 5)] {
        let mut alone = plan(1.0, 10, None)
            .begin(named(dir.path(), ahead, 3.0), "a", 500)
            .expect("fits");
        charge_all(&mut alone, 1);
        drop(alone);
        let run = begin("a", 1.0).expect("goes on");
        assert_eq!(run.charged_steps(), steps);
        drop(run);
        assert!(
            ["new", "old"]
                .iter()
                .all(|name| view(name).runs[0].charged_steps() == steps)
        );
    }
    // The smaller budget decides, and neither ledger has a trace of what it refused.
    let refused = begin("b", 1.8).expect_err("more than the other has left");
    assert_eq!(refused.exit_code(), 4);
    assert!(
        refused.to_string().contains("old.jsonl, whose dataset shares records"),
        "{refused}"
    );
    assert!(["new", "old"].iter().all(|name| view(name).runs.len() == 1));
    begin("a", 1.0).expect("goes on").end().expect("ends");
    assert!(["new", "old"].iter().all(|name| view(name).runs[0].ended));
}

/// What was spent on the shared records before is spent on them: a new ledger once began as if it were nothing.
#[test]
fn p8_ledgers_beside_learn_of_each_others_runs() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let view = |name: &str| verify(&dir.path().join(format!("{name}.jsonl"))).expect("reads");
    let mut earlier = plan(1.0, 10, None)
        .begin(named(dir.path(), "old", 9.0), "a", 500)
        .expect("fits");
    charge_all(&mut earlier, 4);
    drop(earlier);
    let together = |name: &str, total: f64| {
        let ledger = named(dir.path(), "new", total).beside(named(dir.path(), "old", 9.0));
        plan(1.0, 10, None).begin(ledger, name, 500)
    };
    // With what the other has spent and reserved, its own total would be passed; who is refused leaves no ledger.
    let refused = together("b", 1.2).expect_err("too much");
    assert_eq!(refused.exit_code(), 4);
    assert!(!dir.path().join("new.jsonl").exists());
    assert_eq!(view("old").runs.len(), 1);
    let mut run = together("b", 3.0).expect("fits");
    charge_all(&mut run, 2);
    let ledger = run.end().expect("ends");
    drop(ledger);
    let new = view("new");
    assert_eq!(new.runs.len(), 2);
    assert_eq!((new.runs[0].run.as_str(), new.runs[0].charged_steps()), ("a", 4));
    assert_eq!(
        (new.runs[0].from.as_deref(), new.runs[0].adaptive, new.runs[1].adaptive),
        (Some("old"), false, true)
    );
    let reserved = |name: &str| -> f64 {
        let view: LedgerView = view(name);
        view.reserved_epsilon().expect("composes")
    };
    assert_eq!(reserved("new"), reserved("old"));
    // The earlier run goes on alone, as a version would that knows of no other; the next run makes that good.
    let mut earlier = plan(1.0, 10, None)
        .begin(named(dir.path(), "old", 9.0), "a", 500)
        .expect("goes on");
    charge_all(&mut earlier, 3);
    earlier.end().expect("ends");
    assert_eq!(view("new").runs[0].charged_steps(), 4);
    drop(together("c", 3.0).expect("fits"));
    assert_eq!(
        (view("new").runs[0].charged_steps(), view("new").runs[0].ended),
        (7, true)
    );
    assert_eq!(reserved("new"), reserved("old"));
}

/// A lowered total once let a run go on that had been let in.
#[test]
fn p8_a_lowered_total_stops_a_run_that_a_filter_counts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let begin = |name: &str| {
        let ledger = named(dir.path(), DATASET, 9.0).knows_rows();
        plan(1.0, 10, None).begin(ledger, name, 500)
    };
    charge_all(&mut begin("a").expect("fits"), 10);
    charge_all(&mut begin("b").expect("fits"), 1);
    let view = verify(&file(dir.path())).expect("reads");
    let (pld, counted) = (
        view.reserved_epsilon().expect("composes"),
        view.counted().expect("counts").epsilon,
    );
    named(dir.path(), DATASET, 9.0)
        .set_budget(0.5 * (pld + counted))
        .expect("writes");
    assert_eq!(begin("b").expect_err("more than the total").exit_code(), 4);
    named(dir.path(), DATASET, 9.0).set_budget(9.0).expect("writes");
    begin("b").expect("goes on");
}

/// Who is refused takes the empty file away; whoever had opened it meanwhile once charged a file that nobody could find.
#[test]
fn p7_a_ledger_that_others_give_up_is_not_lost() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    const TIMES: usize = 400;
    let at = AtomicUsize::new(0);
    let plan = plan(1.0, 1, None);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = |i: usize| Ledger::open(dir.path(), &format!("d{i}"), 3.0, 1e-5, &Unit::Record);
    let mut lost = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while at.load(Ordering::Relaxed) < TIMES {
                    drop(open(at.load(Ordering::Relaxed)));
                }
            });
        }
        for i in 0..TIMES {
            // The others have it for a moment.
            let ledger = (0..).find_map(|_| open(i).ok()).expect("some day");
            drop(plan.begin(ledger, "a", 500).expect("fits"));
            let view = verify(&dir.path().join(format!("d{i}.jsonl")));
            if view.map_or(0, |view| view.runs.len()) != 1 {
                lost.push(i);
            }
            at.store(i + 1, Ordering::Relaxed);
        }
    });
    assert!(lost.is_empty(), "{lost:?} of {TIMES} ledgers were lost");
}
