//! A training run killed (SIGKILL) at random points of time, and taken up again each time.

mod common;

use std::time::Duration;

use common::Place;
use rand::RngExt;
use safetensors::SafeTensors;
use serde_json::Value;

/// The tiny model of `fixtures/llama.py`: a step takes milliseconds, so that a kill can hit any part of it.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama/model.gguf");

/// Steps applied to the values in the checkpoint; 0 where there is none yet.
fn applied(place: &Place) -> u64 {
    let Ok(bytes) = std::fs::read(place.run("internal/checkpoint.safetensors")) else {
        return 0;
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a checkpoint is whole or not there");
    let metadata = header.metadata().as_ref().expect("metadata");
    metadata["applied_steps"].parse().expect("a count")
}

/// (steps charged, charges that log lines name).
fn charged(place: &Place) -> (u64, Vec<u64>) {
    let shown = place.ledger_shown();
    let charged = shown["runs"][0]["charged_steps"].as_u64().unwrap_or(0);
    let lines = place.lines("internal/training.jsonl");
    let charges = lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    (charged, charges.filter_map(|l| l["charge"].as_u64()).collect())
}

/// Kills training `kills` times. After each: no step is applied or logged that is not charged, no charge pays twice,
/// and what was charged before still is.
fn p7_survives(kills: usize) {
    let (mut done, mut in_training, mut rng) = (0, 0, rand::rng());
    while done < kills {
        let place = Place::new();
        let model = format!("model.path={MODEL:?}");
        let every = format!("finetune.checkpoint_every={}", 1 + done % 3);
        let settings = [
            "--set",
            &model,
            "--set",
            "finetune.steps=600",
            "--set",
            &every,
            "--set",
            "finetune.label_histogram_epsilon=0.5",
        ];
        place.done("prepare", &settings);
        let mut before = 0;
        // A run is killed until it gets through, or forty times.
        for _ in 0..40 {
            let mut run = place.start("finetune", &settings);
            // One kill in four comes at any time from the start on, the others within a few steps.
            let sleep = |micros| std::thread::sleep(Duration::from_micros(micros));
            if rng.random_range(0..4) == 0 {
                sleep(rng.random_range(0..500_000));
            } else {
                let log = || place.lines("internal/training.jsonl").len();
                let until = log() + rng.random_range(1..6);
                while log() < until && !run.ended() {
                    sleep(200);
                }
                sleep(rng.random_range(0..15_000));
            }
            if run.kill_or_end().is_some() {
                break;
            }
            done += 1;
            if !place.path("ledgers").exists() || place.ledgers() == 0 {
                continue;
            }
            let counted = place.run("model/label_counts.json").exists();
            let paid = place.ledger_shown()["runs"][0]["charged_histogram"] == true;
            assert!(paid || !counted, "labels were counted that were not paid for");
            let applied = applied(&place);
            let (charged, logged) = charged(&place);
            assert!(applied <= charged, "{applied} steps applied, {charged} charged");
            assert!(before <= charged, "{before} steps were charged, now {charged}");
            assert!(
                logged.windows(2).all(|w| w[0] < w[1]) && logged.iter().all(|c| *c < charged),
                "{charged} charged: {logged:?}"
            );
            in_training += usize::from(charged > before);
            before = charged;
            if done == kills {
                break;
            }
        }
    }
    assert!(
        in_training * 2 >= kills,
        "only {in_training} of {kills} kills came after a charge"
    );
    println!("{kills} kills, {in_training} of them after a new charge");
}

#[test]
fn p7_killed_at_random_points_nothing_is_applied_that_was_not_charged() {
    p7_survives(12);
}

#[test]
#[ignore = "slow: make test-slow"]
fn slow_p7_killed_at_200_random_points_nothing_is_applied_that_was_not_charged() {
    p7_survives(200);
}
