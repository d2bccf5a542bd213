//! The whole way on CUDA, and what a machine may do to it: `make test-cuda`, on the software device of `tests/cuda`,
//! whose faults come when they are ordered.

use crate::common::{Place, Said, sha256};
use serde_json::Value;

const SEEDED: [&str; 4] = ["--set", "finetune.seed=1", "--set", "device=cuda"];

impl Place {
    /// A stage on CUDA, with the device's settings.
    fn on_cuda(&self, stage: &str, device: &[(&str, &str)], more: &[&str]) -> Said {
        let mut command = self.command(&[&[stage, "tiny.toml", "--profile", "quick"], &SEEDED[..], more].concat());
        Said::from(command.envs(device.iter().copied()).output().expect("starts"))
    }

    /// Trains, or goes on with it, which must work.
    fn finetune(&self) {
        let said = self.on_cuda("finetune", &[], &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    /// A file of the run, by its digest.
    fn digest(&self, file: &str) -> String {
        sha256(&std::fs::read(self.run(file)).expect("the file is there"))
    }
}

const TRAINED: &str = "model/trained.safetensors";

fn place() -> Place {
    Place::new().with_tiny_model()
}

fn prepared() -> Place {
    let place = place();
    place.done("prepare", &SEEDED);
    place
}

/// Trained without a fault.
fn trained() -> Place {
    let place = prepared();
    place.finetune();
    place
}

fn steps(place: &Place) -> Vec<Value> {
    let lines = place.lines("internal/training.jsonl");
    lines.iter().map(|l| serde_json::from_str(l).expect("JSON")).collect()
}

/// The kernels of a training, in the order of their launches.
fn launched() -> Vec<String> {
    let place = prepared();
    let trace = place.path("trace");
    let said = place.on_cuda("finetune", &[("DEVICE_TRACE", trace.to_str().expect("a path"))], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let trace = std::fs::read_to_string(trace).expect("a trace");
    let launches = trace.lines().filter_map(|line| line.strip_prefix("launch\t"));
    launches.map(str::to_string).collect()
}

/// Steps that the verified ledger was charged for.
fn steps_charged(place: &Place) -> usize {
    place.ledger_shown();
    let ledger = std::fs::read_to_string(place.ledger()).expect("a ledger");
    ledger.lines().filter(|line| line.contains(r#""kind":"use""#)).count()
}

#[test]
#[ignore = "needs the software device: make test-cuda"]
fn a_run_is_that_of_the_cpu_and_is_audited() {
    let (gpu, cpu) = (place(), place());
    assert_eq!(gpu.on_cuda("run", &[], &[]).code, Some(0));
    cpu.done("run", &["--set", "finetune.seed=1", "--set", "device=cpu"]);
    let (ours, theirs) = (steps(&gpu), steps(&cpu));
    assert_eq!(ours.len(), 2);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        for key in ["mean_loss", "mean_norm"] {
            let (a, b) = (
                ours[key].as_f64().expect("a number"),
                theirs[key].as_f64().expect("a number"),
            );
            assert!((a - b).abs() < 1e-6 * b.abs(), "{key}: {a} and {b}");
        }
    }
    gpu.audit();
}

#[test]
#[ignore = "needs the software device: make test-cuda"]
fn p7_a_run_on_cuda_that_was_killed_goes_on() {
    let (whole, killed) = (trained(), prepared());
    let mut running = killed.start("finetune", &SEEDED);
    running.until("the first step", || !killed.lines("internal/training.jsonl").is_empty());
    running.kill_or_end();
    killed.finetune();
    assert!(steps_charged(&killed) >= steps_charged(&whole));
}

#[test]
#[ignore = "needs the software device: make test-cuda"]
fn the_same_records_whatever_the_number_that_is_drawn_at_once() {
    let place = trained();
    let drawn = |at_once: &str| {
        let said = place.on_cuda("sample", &[], &["--set", &format!("sample.batch_size={at_once}")]);
        assert_eq!(said.code, Some(0), "{said:?}");
        place.digest("synthetic/train-00000-of-00001.parquet")
    };
    assert_eq!(drawn("1"), drawn("8"));
}

/// Memory that is refused once is found by giving back what lies unused; refused for good, the run ends with a message.
#[test]
#[ignore = "needs the software device: make test-cuda"]
fn p7_memory_that_runs_out_changes_no_value_and_no_charge() {
    let whole = trained();
    for refused in ["2", "3", "4", "3+", "4+"] {
        let place = prepared();
        let said = place.on_cuda("finetune", &[("DEVICE_FAIL_ALLOCATION", refused)], &[]);
        if refused.ends_with('+') {
            said.refused(1, &["the GPU has too little memory"]);
            place.finetune();
            continue;
        }
        assert_eq!(said.code, Some(0), "{refused}: {said:?}");
        assert_eq!(steps_charged(&place), steps_charged(&whole), "{refused}");
        assert_eq!(place.digest(TRAINED), whole.digest(TRAINED), "{refused}");
    }
}

/// Wherever a launch fails, nothing is computed of what it did not write, and the same command goes on.
#[test]
#[ignore = "needs the software device: make test-cuda"]
fn p7_a_launch_that_fails_ends_the_run_with_a_message_and_it_goes_on() {
    let (whole, launches) = (trained(), launched().len());
    for (fault, at) in [
        ("FAIL_LAUNCH", format!("{}+", launches / 20)),
        ("FAIL_LAUNCH", format!("{}+", launches / 2)),
        ("LOSE", (launches / 3).to_string()),
        ("LOSE", (launches * 4 / 5).to_string()),
    ] {
        let place = prepared();
        let said = place.on_cuda("finetune", &[(&format!("DEVICE_{fault}"), &at)], &[]);
        said.refused(1, &["the GPU failed: ", "failed with status 719"]);
        place.finetune();
        assert!(steps_charged(&place) >= steps_charged(&whole), "{fault} {at}");
    }
}

/// What a machine may lack: the CPU is taken where nobody insisted, and the reason is said.
#[test]
#[ignore = "needs the software device: make test-cuda"]
fn what_a_machine_lacks_is_said_and_the_cpu_is_taken() {
    let lacks = [
        (("DEVICE_NONE", "1"), "no device was found"),
        (("LD_LIBRARY_PATH", "/nowhere"), "no device was found"),
        (("DEVICE_MISSING", "headers"), "headers are missing"),
        (("DEVICE_DRIVER", "12080"), "driver is older"),
        (("DEVICE_MEMORY", "100000000"), "memory is free"),
        (("DEVICE_FAIL_LAUNCH", "1+"), "cuLaunchKernel failed"),
    ];
    for (lack, reason) in lacks {
        let place = prepared();
        place
            .on_cuda("finetune", &[lack], &[])
            .refused(1, &["CUDA cannot be used", reason, "device=cpu"]);
        let mut command = place.command(&["run", "tiny.toml", "--profile", "quick"]);
        let said = Said::from(command.env(lack.0, lack.1).output().expect("starts"));
        assert_eq!(said.code, Some(0), "{lack:?}: {said:?}");
        assert!(said.stderr.contains("computing on the CPU"), "{lack:?}: {said:?}");
        assert!(said.stderr.contains(reason), "{lack:?}: {said:?}");
    }
}

/// A fill fails, and what comes after writes a part of the same memory: CubeCL then takes what is read for written. So with
/// kernels of each kind, and with every 97th launch, whatever it is.
#[test]
#[ignore = "needs the software device: make test-cuda"]
fn p5_no_sum_is_made_of_what_a_failed_launch_left() {
    let (right, launched) = (trained().digest(TRAINED), launched());
    let of_kind = |kernel: &'static str| {
        let launches = launched.iter().filter(|name| name.starts_with(kernel)).count();
        assert!(launches > 0, "{kernel}");
        [launches.div_ceil(3), launches].map(|at| (kernel, format!("{at}+")))
    };
    let kinds = [
        "full_kernel",
        "residuals",
        "turn",
        "rms_norm",
        "gated",
        "causal_softmax",
        "squares",
        "weighted",
    ];
    let others = (60..launched.len()).step_by(97).map(|at| ("", at.to_string()));
    for (kernel, at) in kinds.into_iter().flat_map(of_kind).chain(others) {
        let place = prepared();
        let fault = [("DEVICE_FAIL_KERNEL", kernel), ("DEVICE_FAIL_LAUNCH", &at)];
        let said = place.on_cuda("finetune", &fault, &[]);
        // One that fails once may be tried again, with the right sum.
        if said.code == Some(0) {
            assert_eq!(place.digest(TRAINED), right, "{kernel} {at}");
            continue;
        }
        said.refused(1, &["the GPU failed: "]);
    }
}
