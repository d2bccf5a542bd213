//! The one private loop: what a method is given is what the mechanism released, bit for bit, and nothing else.

use std::sync::atomic::AtomicBool;

use dpsynth::Result;
use dpsynth::config::NoiseKind;
use dpsynth::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, PrivateRun, TRAINING, Unit};
use dpsynth::progress::Silent;
use dpsynth::training::checkpoint::Checkpoint;
use dpsynth::training::optimizer::Optimizer;
use dpsynth::training::private::{Loop, Method};

/// A seeded plan: two runs of it draw the same batches and the same noise.
fn begin(folder: &std::path::Path) -> PrivateRun {
    let plan = PrivacyPlan::calibrate(&PlanRequest {
        target_epsilon: 3.0,
        delta: Some(1e-5),
        public_size: 100,
        expected_batch_size: 10,
        steps: 6,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: Some(5),
    })
    .expect("a valid plan");
    let ledger = Ledger::open(folder, "loop", 100.0, 1e-5, &Unit::Record).expect("opens");
    plan.begin(ledger, "a", 100).expect("begins")
}

/// The sum of vectors that stand for the members.
fn sum(members: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; 40];
    members.iter().for_each(|member| sum[member % 40] += 0.5);
    sum
}

struct Watching {
    elsewhere: bool,
    values: Vec<f32>,
    optimizer: Optimizer,
    queried: Vec<Vec<usize>>,
    applied: Vec<Vec<f32>>,
}

impl Watching {
    fn new(elsewhere: bool) -> Self {
        Watching {
            elsewhere,
            values: vec![0.0; 40],
            optimizer: Optimizer::adamw(40, 0.0),
            queried: Vec::new(),
            applied: Vec::new(),
        }
    }
}

impl Method for Watching {
    type Seen = usize;

    fn dimensions(&self) -> usize {
        self.values.len()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, usize)> {
        assert_eq!(self.queried.len(), self.applied.len(), "one query, one application");
        self.queried.push(members.to_vec());
        Ok((sum(members), members.len()))
    }

    fn apply(&mut self, noisy: &[f32]) {
        self.applied.push(noisy.to_vec());
        self.optimizer.step(&mut self.values, noisy, 0.1);
    }

    fn state(&self) -> Option<(&[f32], &Optimizer)> {
        Some((&self.values, &self.optimizer))
    }

    fn computes_elsewhere(&self) -> bool {
        self.elsewhere
    }
}

#[test]
fn p1_p3_a_method_is_given_what_the_mechanism_released_and_nothing_else() {
    for elsewhere in [false, true] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut method = Watching::new(elsewhere);
        let checkpoint = folder.path().join("checkpoint.safetensors");
        let stop = AtomicBool::new(false);
        let way = Loop {
            task: "watching",
            of: "",
            checkpoint: Some((&checkpoint, 4)),
            applied: 0,
            on_gpu: false,
            stop: &stop,
            progress: &Silent,
        };
        let mut seen = Vec::new();
        let mut run = begin(folder.path());
        let applied = way.train(&mut method, &mut run, |taken| {
            seen.push((taken.charge, taken.drawn, taken.seen));
            Ok(String::new())
        });
        assert_eq!(applied.expect("trains"), 6);
        let drawn: Vec<(u64, usize, usize)> = (0..).zip(&method.queried).map(|(i, m)| (i, m.len(), m.len())).collect();
        assert_eq!(seen, drawn);

        // The same plan by hand.
        let other = tempfile::tempdir().expect("a temporary folder");
        let mut run = begin(other.path());
        for (members, applied) in method.queried.iter().zip(&method.applied) {
            let step = run.charge(TRAINING).expect("charges");
            assert_eq!(step.members(), members);
            let released = step.privatize(&sum(members)).expect("finite");
            let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
            assert_eq!(bits(applied), bits(&released));
        }
        assert_eq!(run.remaining_steps(), 0);
        let saved = Checkpoint::load(&checkpoint, Optimizer::adamw(40, 0.0)).expect("the last one");
        assert_eq!((saved.applied_steps, saved.values), (6, method.values));
    }
}

#[test]
fn p7_a_loop_that_is_stopped_saves_what_it_has_and_goes_on_from_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = folder.path().join("checkpoint.safetensors");
    let (mut method, stop) = (Watching::new(false), AtomicBool::new(false));
    let way = |applied, stop| Loop {
        task: "watching",
        of: " of the test",
        checkpoint: Some((checkpoint.as_path(), 100)),
        applied,
        on_gpu: false,
        stop,
        progress: &Silent,
    };
    let mut run = begin(folder.path());
    let stopped = way(0, &stop).train(&mut method, &mut run, |taken| {
        stop.store(taken.charge == 1, std::sync::atomic::Ordering::Relaxed);
        Ok(String::new())
    });
    let error = stopped.expect_err("asked to stop");
    assert_eq!(error.exit_code(), 130);
    assert!(
        error.to_string().contains("stopped after step 2 of 6 of the test"),
        "{error}"
    );
    let saved = Checkpoint::load(&checkpoint, Optimizer::adamw(40, 0.0)).expect("saved");
    assert_eq!((saved.applied_steps, &saved.values), (2, &method.values));
    let go_on = AtomicBool::new(false);
    let applied = way(2, &go_on).train(&mut method, &mut run, |_| Ok(String::new()));
    assert_eq!((applied.expect("goes on"), method.applied.len()), (6, 6));
}
