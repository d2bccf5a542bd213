//! What the noise costs: draws a second on one thread, beside a LoRA step of the quick profile, and for the 124 million
//! parameters of GPT-2. Through the same door as training: a charged step, on this machine's cores, with its ledger in a
//! temporary folder. Made to be compared within one run: `cargo bench --profile release --bench noise`.
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

mod common;

use burn::tensor::Device;
use common::{median, report, timed};
use dpsynth::assets::{Locations, language_model};
use dpsynth::config::{FinetuneConfig, ModelConfig, NoiseKind};
use dpsynth::machine::workers::Workers;
use dpsynth::models::LanguageModel;
use dpsynth::models::lora::Adapter;
use dpsynth::privacy::{Batches, Ledger, PlanRequest, PrivacyPlan, PrivateRun, TRAINING, Unit};
use dpsynth::progress::Silent;
use dpsynth::records::Encoded;
use dpsynth::training::clip::Clip;
use dpsynth::training::gradients::Trainee;

/// GPT-2, small.
const GPT2_PARAMETERS: usize = 124_439_808;

const KINDS: [(&str, NoiseKind); 2] = [("exact", NoiseKind::ExactGaussian), ("ziggurat", NoiseKind::Gaussian)];

/// A run with the quick profile's plan on IMDb that can be charged many times.
fn run(noise: NoiseKind, ledgers: &std::path::Path) -> PrivateRun {
    let request = PlanRequest {
        target_epsilon: 100.0,
        delta: None,
        public_size: 25_000,
        expected_batch_size: 128,
        steps: 100,
        max_grad_norm: 1.0,
        noise,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: None,
    };
    let plan = PrivacyPlan::calibrate(&request).expect("a plan");
    let ledger = Ledger::open(ledgers, &format!("{noise:?}"), 100.0, plan.delta(), &Unit::Record).expect("a ledger");
    plan.begin(ledger, "bench", 25_000).expect("within the budget")
}

fn main() {
    let ledgers = tempfile::tempdir().expect("a temporary folder");
    let mut runs = KINDS.map(|(name, kind)| (name, run(kind, ledgers.path())));
    let mut noise = |of: usize, times: usize, sum: &[f64]| {
        let run = &mut runs[of].1;
        let charge = || run.charge(TRAINING).expect("steps are left");
        timed(times, charge, |step| step.privatize(sum).expect("finite"))
    };

    // A LoRA step: 128 records of 64 tokens after a prompt of 40, as the quick profile draws on average.
    let (name, model) = model();
    let config = FinetuneConfig::default();
    let adapter = Adapter::new(model.shape(), config.rank, config.alpha, 0);
    let record = |i: u32| Encoded {
        tokens: (0..104).map(|t| 5 + (31 * i + 17 * t) % 250).collect(),
        prompt: 40,
        label: 0,
    };
    let records: Vec<Encoded> = (0..128).map(record).collect();
    let members: Vec<&Encoded> = records.iter().collect();
    let micro_batches: Vec<&[&Encoded]> = members.chunks(config.micro_batch_size).collect();
    let (trainee, workers) = (Trainee::new(&model), Workers::on(&model.device()));
    let clip = Clip::of(&config);
    let placed = trainee.place(&adapter);
    let gradients = || workers.map(&micro_batches, |batch| trainee.clipped_sum(&placed, batch, clip));
    let step = median(1, gradients);
    report(
        &format!("clipped sum of a LoRA step, {name}"),
        step,
        records.len() as f64,
    );

    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread");
    let (lora, full) = (vec![0.0; adapter.len()], vec![0.0; GPT2_PARAMETERS]);
    for (of, (kind, _)) in KINDS.iter().enumerate() {
        let seconds = noise(of, 9, &lora);
        report(
            &format!("{kind}, {} values; share of the step", lora.len()),
            seconds,
            seconds / step,
        );
        let million = vec![0.0; 1_000_000];
        let seconds = one_thread.install(|| noise(of, 9, &million));
        report(&format!("{kind}, one thread; draws a second"), seconds, 1e6 / seconds);
        let seconds = noise(of, 3, &full);
        let cores = rayon::current_num_threads() as f64;
        report(
            &format!("{kind}, GPT-2's values; seconds on {cores} cores"),
            seconds,
            seconds,
        );
    }
}

/// SmolLM2-135M where it lies on this machine or can be fetched, else the tiny fixture.
fn model() -> (&'static str, LanguageModel) {
    let found = language_model(&ModelConfig::default(), &Locations::from_env(), &Silent);
    let (name, path) = match found.and_then(|files| Ok(files.language_model()?.path)) {
        Ok(path) => ("SmolLM2-135M", path),
        Err(_) => ("tiny fixture", "tests/fixtures/llama/model.gguf".into()),
    };
    (name, LanguageModel::open(&path, &Device::flex()).expect("a model"))
}
