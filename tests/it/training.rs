//! What private training rests on: each record's gradient and its bound, the sum, the step, the state on disk.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::support::*;
use burn::tensor::{Int, Tensor, TensorData, activation};
use dpsynth::config::{Clipping, FinetuneConfig, Method, NoiseKind};
use dpsynth::error::Kind;
use dpsynth::machine::workers::Workers;
use dpsynth::models::load::gguf::Gguf;
use dpsynth::models::lora::{Adapter, Factors};
use dpsynth::models::product::matmul;
use dpsynth::models::{Apply, LanguageModel, ModelFiles};
use dpsynth::privacy::{Batches, Ledger, LedgerHead, PlanRequest, PrivacyPlan, PrivateRun, TRAINING, Unit, verify};
use dpsynth::progress::Silent;
use dpsynth::records::{Encoded, Units};
use dpsynth::training::checkpoint::Checkpoint;
use dpsynth::training::clip::Clip;
use dpsynth::training::contribution::Contribution;
use dpsynth::training::cross_entropy::cross_entropy;
use dpsynth::training::gradients::{ClippedSum, Trainee};
use dpsynth::training::memory::AtOnce;
use dpsynth::training::objective::Objective;
use dpsynth::training::optimizer::Optimizer;
use dpsynth::training::shapes::Shapes;
use dpsynth::training::trainable::{self, Trainable};
use dpsynth::training::trainer::{StepLog, Training};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MODES: [Clipping; 2] = [Clipping::Automatic, Clipping::Flat];

// ---------------------------------------------------------------------------------------------- references

/// LoRA with A and B as leaves of ordinary autodiff.
struct Leaves {
    factors: Factors,
    scale: f64,
}

impl Apply for Leaves {
    fn map(&mut self, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let (a, b) = &self.factors[&slot];
        let lora = matmul(matmul(x.clone(), a.clone()), b.clone()) * self.scale;
        matmul(x, weight.clone().transpose()) + lora
    }
}

/// One record alone, without padding: its loss and its gradient by the adapter's values, by ordinary autodiff.
fn alone(model: &LanguageModel, adapter: &Adapter, record: &Encoded) -> (f64, Vec<f64>) {
    let device = model.device().autodiff();
    let leaf = |t: Tensor<2>| t.require_grad();
    let factors = adapter
        .tensors(&device)
        .into_iter()
        .map(|(slot, (a, b))| (slot, (leaf(a), leaf(b))))
        .collect();
    let mut linear = Leaves {
        factors,
        scale: adapter.scale(),
    };
    let ids: Vec<i32> = record.tokens.iter().map(|t| *t as i32).collect();
    let n = ids.len() - 1;
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids[..n].to_vec(), [1, n]), &device);
    let hidden = model.hidden(tokens, None, &mut linear);
    let log_p = activation::log_softmax(model.logits(hidden), 1);
    let targets = Tensor::<2, Int>::from_data(
        TensorData::new(ids[record.prompt..].to_vec(), [n + 1 - record.prompt, 1]),
        &device,
    );
    let own = log_p.narrow(0, record.prompt - 1, n + 1 - record.prompt);
    let loss = -own.gather(1, targets).mean();
    let gradients = loss.backward();
    let of = |t: &Tensor<2>| {
        values(t.grad(&gradients).unwrap())
            .into_iter()
            .map(f64::from)
            .collect::<Vec<f64>>()
    };
    let gradient = linear
        .factors
        .values()
        .flat_map(|(a, b)| [of(a), of(b)].concat())
        .collect();
    (f64::from(loss.into_scalar::<f32>()), gradient)
}

/// The factor by which a gradient is bounded, by its definition.
fn factor(clipping: Clipping, c: f64, norm: f64) -> f64 {
    match clipping {
        Clipping::Automatic => c / (norm + 0.01),
        Clipping::Flat => f64::min(1.0, c / norm),
    }
}

/// The bounded sum of given gradients.
fn bounded_sum(gradients: &[Vec<f64>], clip: Clip) -> Vec<f64> {
    let mut sum = vec![0.0; gradients[0].len()];
    for g in gradients {
        let f = factor(clip.clipping, clip.max_grad_norm, norm(g.iter().copied()));
        sum.iter_mut().zip(g).for_each(|(s, g)| *s += f * g);
    }
    sum
}

/// The sum as the trainer takes it: records of like length together, micro-batches added up in f64.
fn sum(trainee: &Trainee, adapter: &Adapter, records: &[Encoded], micro_batch: usize, clip: Clip) -> Vec<f64> {
    let mut members: Vec<&Encoded> = records.iter().collect();
    members.sort_by_key(|r| r.tokens.len());
    let mut sum = vec![0.0; adapter.len()];
    for batch in members.chunks(micro_batch) {
        let part = trainee.clipped_sum(&trainee.place(adapter), batch, clip).values();
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += f64::from(p));
    }
    sum
}

/// Records of 6 to 40 tokens; every third repeats one token over and over.
fn many_records(n: usize, seed: u64) -> Vec<Encoded> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let record = |i: usize| {
        let length = rng.random_range(6..=40);
        let same = rng.random_range(3..300);
        let token = |_| {
            if i.is_multiple_of(3) {
                same
            } else {
                rng.random_range(3..300)
            }
        };
        Encoded {
            tokens: (0..length).map(token).collect(),
            prompt: 1 + i % 4,
            label: 0,
        }
    };
    (0..n).map(record).collect()
}

fn all(trainee: &Trainee, adapter: &Adapter, records: &[Encoded], clip: Clip) -> ClippedSum {
    trainee.clipped_sum(&trainee.place(adapter), &records.iter().collect::<Vec<_>>(), clip)
}

// ---------------------------------------------------------------------------------------------- gradients

#[test]
fn p5_per_example_norms_and_losses_equal_pytorchs() {
    let model = model();
    let got = all(
        &Trainee::new(&model),
        &adapter(&model),
        &records(),
        Clip::new(Clipping::Flat, 1.0),
    );
    let expected = expected();
    for (i, record) in expected["lora"]["records"].as_array().unwrap().iter().enumerate() {
        let (norm, loss) = (record["norm"].as_f64().unwrap(), record["loss"].as_f64().unwrap());
        assert!(
            (got.norms[i] / norm - 1.0).abs() < 1e-4,
            "norm of record {i}: {} and {norm}",
            got.norms[i]
        );
        assert!(
            (got.losses[i] - loss).abs() < 1e-4,
            "loss of record {i}: {} and {loss}",
            got.losses[i]
        );
    }
}

#[test]
fn p5_clipped_sums_equal_those_of_pytorchs_per_example_gradients() {
    let model = model();
    let (trainee, adapter) = (Trainee::new(&model), adapter(&model));
    let theirs: Vec<Vec<f64>> = gradients()
        .iter()
        .map(|g| g.iter().map(|v| f64::from(*v)).collect())
        .collect();
    for clipping in MODES {
        for max_grad_norm in [0.1, 1.0, 1e6] {
            let clip = Clip::new(clipping, max_grad_norm);
            let wanted = bounded_sum(&theirs, clip);
            let off = distance(&all(&trainee, &adapter, &records(), clip).values(), &wanted) / norm(wanted);
            assert!(off < 1e-4, "{clip:?}: {off:e} off");
        }
    }
}

#[test]
fn p5_norms_and_sums_equal_a_loop_of_single_backward_passes() {
    let model = model();
    let (trainee, adapter, records) = (Trainee::new(&model), adapter(&model), many_records(9, 1));
    let (losses, plain): (Vec<f64>, Vec<Vec<f64>>) = records.iter().map(|r| alone(&model, &adapter, r)).unzip();
    for clipping in MODES {
        let clip = Clip::new(clipping, 0.7);
        let got = all(&trainee, &adapter, &records, clip);
        assert!(furthest(got.losses.clone(), losses.clone()) < 1e-4);
        for (i, g) in plain.iter().enumerate() {
            let wanted = norm(g.iter().copied());
            assert!(
                (got.norms[i] / wanted - 1.0).abs() < 1e-4,
                "record {i}: {} and {wanted}",
                got.norms[i]
            );
        }
        let wanted = bounded_sum(&plain, clip);
        let off = distance(&got.values(), &wanted) / norm(wanted);
        assert!(off < 1e-4, "{clipping:?}: {off:e} off");
    }
}

/// The same with PyTorch's gradient of one record as the witness for the reference itself.
#[test]
fn the_plain_reference_agrees_with_pytorch() {
    let model = model();
    let adapter = adapter(&model);
    for (record, theirs) in records().iter().zip(gradients()) {
        let (_, ours) = alone(&model, &adapter, record);
        let theirs: Vec<f64> = theirs.into_iter().map(f64::from).collect();
        assert!(distance(&ours, &theirs) / norm(theirs) < 1e-4);
    }
}

#[test]
fn p5_padding_changes_no_norm() {
    let model = model();
    let (trainee, adapter, records) = (Trainee::new(&model), adapter(&model), records());
    let clip = Clip::new(Clipping::Flat, 1.0);
    let together = all(&trainee, &adapter, &records, clip);
    for (i, r) in records.iter().enumerate() {
        let alone = trainee.clipped_sum(&trainee.place(&adapter), &[r], clip);
        assert!((together.norms[i] / alone.norms[0] - 1.0).abs() < 1e-5, "record {i}");
        assert!((together.losses[i] - alone.losses[0]).abs() < 1e-5, "record {i}");
    }
}

#[test]
fn p5_no_neighbour_decides_how_a_gpu_rounds_a_record() {
    let model = model();
    let (trainee, adapter, records) = (Trainee::new(&model), adapter(&model), many_records(7, 5));
    let (placed, clip) = (trainee.place(&adapter), Clip::new(Clipping::Flat, 1.0));
    let bits = |sum: &ClippedSum| (sum.norms[0].to_bits(), sum.losses[0].to_bits());
    let alone = trainee.clipped_sum_in(&placed, &[&records[0]], 8, clip);
    for n in 2..=7 {
        let beside: Vec<&Encoded> = records[..n]
            .iter()
            .filter(|r| trainee.shape_of(r) == trainee.shape_of(&records[0]))
            .collect();
        assert!(beside.len() > 1 || n < 7, "nobody stands beside it");
        let together = trainee.clipped_sum_in(&placed, &beside, 8, clip);
        match trainee.shapes() {
            Shapes::Fixed { .. } => assert_eq!(bits(&alone), bits(&together), "among {n}"),
            Shapes::AsNeeded => assert!((alone.norms[0] / together.norms[0] - 1.0).abs() < 1e-6, "among {n}"),
        }
        assert_eq!(together.norms.len(), beside.len());
    }
    // Nobody's records add nothing.
    let unfilled = trainee.clipped_sum(&placed, &[&records[0]], clip);
    let off = distance(
        &alone.values(),
        &unfilled.values().iter().map(|v| f64::from(*v)).collect::<Vec<f64>>(),
    );
    assert!(off < 1e-5 * norm(alone.values()), "{off:e} off");
}

#[test]
fn p3_micro_batches_of_1_2_and_8_give_the_same_sum() {
    let model = model();
    let (trainee, adapter, records) = (Trainee::new(&model), adapter(&model), many_records(16, 2));
    for clipping in MODES {
        let clip = Clip::new(clipping, 1.0);
        let whole = sum(&trainee, &adapter, &records, 16, clip);
        for size in [1, 2, 8] {
            let off = distance(&sum(&trainee, &adapter, &records, size, clip), &whole) / norm(whole.iter().copied());
            assert!(off < 1e-5, "{clipping:?}, micro-batches of {size}: {off:e} off");
        }
    }
}

#[test]
fn p3_workers_give_the_same_as_one_after_the_other() {
    let model = model();
    let (trainee, adapter, records) = (Trainee::new(&model), adapter(&model), many_records(13, 3));
    let clip = Clip::new(Clipping::Automatic, 1.0);
    let records: Vec<&Encoded> = records.iter().collect();
    let batches: Vec<&[&Encoded]> = records.chunks(3).collect();
    let serial: Vec<Vec<f32>> = batches
        .iter()
        .map(|b| trainee.clipped_sum(&trainee.place(&adapter), b, clip).values())
        .collect();
    for count in [1, 2, 5] {
        let workers = Workers::with(count);
        let done = workers.map(&batches, |b| {
            trainee.clipped_sum(&trainee.place(&adapter), b, clip).values()
        });
        assert_eq!(done.len(), serial.len());
        for (d, s) in done.iter().zip(&serial) {
            assert!(distance(d, s) / norm(s.iter().copied()) < 1e-6, "{count} workers");
        }
    }
}

// ---------------------------------------------------------------------------------------------- sensitivity

/// The largest ‖S(D ∪ {x}) − S(D)‖ / C over records x, micro-batch sizes and C.
fn sensitivity(clipping: Clipping) -> f64 {
    let model = model();
    let trainee = Trainee::new(&model);
    let mut adapter = adapter(&model);
    let records = many_records(24, 4);
    let mut largest = 0f64;
    // Adapters with small and with large gradients.
    for scale in [0.2, 3.0] {
        adapter.values_mut().iter_mut().for_each(|v| *v *= scale);
        for max_grad_norm in [0.05, 1.0] {
            let clip = Clip::new(clipping, max_grad_norm);
            for micro_batch in [1, 2, 5, 32] {
                let without = sum(&trainee, &adapter, &records[..20], micro_batch, clip);
                for x in &records[20..] {
                    let neighbour = [&records[..20], std::slice::from_ref(x)].concat();
                    let with = sum(&trainee, &adapter, &neighbour, micro_batch, clip);
                    largest = largest.max(distance(&with, &without) / max_grad_norm);
                }
            }
        }
    }
    largest
}

#[test]
fn p5_sensitivity_holds_with_automatic_clipping() {
    let largest = sensitivity(Clipping::Automatic);
    println!("largest sensitivity over C: 1 + {:e}", largest - 1.0);
    assert!(largest <= 1.0 + 1e-6 && largest > 0.9, "{largest}");
}

#[test]
fn p5_sensitivity_holds_with_flat_clipping() {
    let largest = sensitivity(Clipping::Flat);
    println!("largest sensitivity over C: 1 + {:e}", largest - 1.0);
    assert!(largest <= 1.0 + 1e-6 && largest > 0.9, "{largest}");
}

/// Whole units come and go: of one record, of several, and of so many that some are left out.
#[test]
fn p5_a_unit_of_many_records_moves_the_sum_by_at_most_c() {
    let model = model();
    let (trainee, adapter, workers) = (Trainee::new(&model), adapter(&model), Workers::with(1));
    let unit_of = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 3];
    let units = Units::of_groups(many_records(unit_of.len(), 21), &unit_of, 4);
    for (clipping, micro_batch_size) in [(Clipping::Automatic, 2), (Clipping::Flat, 5)] {
        let contribution = Contribution {
            trainee: &trainee,
            workers: &workers,
            clip: Clip::new(clipping, 0.6),
            micro_batch_size: AtOnce::new(micro_batch_size),
        };
        let sum = |members: &[usize]| contribution.sum(&adapter, &units, members).sum;
        let whole = sum(&[0, 1, 2, 3]);
        for left_out in 0..4 {
            let others: Vec<usize> = (0..4).filter(|u| *u != left_out).collect();
            let moved = distance(&whole, &sum(&others));
            assert!(moved <= 0.6 * (1.0 + 1e-6), "unit {left_out} moved the sum by {moved}");
            let alone = norm(sum(&[left_out]));
            assert!((alone - moved).abs() < 1e-5, "{alone} {moved}");
        }
        let batch = contribution.sum(&adapter, &units, &[0, 3]);
        assert_eq!(
            batch.losses.len(),
            3 + 4,
            "of the last unit's six records four are used"
        );
    }
}

/// Token 9 alone has a value in coordinate 0 of its embedding, and the adapter blows that coordinate up.
fn model_with_a_token_that_overflows() -> (LanguageModel, Adapter) {
    let mut bytes = gguf_bytes();
    let plain = model();
    let (tokens, width) = (plain.shape().vocabulary, plain.shape().width);
    // The embedding is the first tensor; Q8_0 blocks are a half-precision scale and 32 bytes.
    let length = tokens * width / 32 * 34;
    let whole = Gguf::parse("model", bytes.clone()).unwrap();
    let wanted = whole.tensor("token_embd.weight", &[tokens, width]).unwrap().numbers();
    let start = (0..bytes.len() - length).step_by(32).rfind(|at| {
        let scale = half::f16::from_le_bytes([bytes[*at], bytes[at + 1]]).to_f32();
        (0..32).all(|i| scale * f32::from(bytes[at + 2 + i] as i8) == wanted[i])
    });
    let start = start.expect("the embedding's first block is in the file");
    for token in 0..tokens {
        bytes[start + token * width / 32 * 34 + 2] = if token == 9 { 127 } else { 0 };
    }
    let files = ModelFiles::Gguf(Gguf::parse("model", bytes).unwrap());
    let model = files.model(&device()).unwrap();
    let mut adapter = adapter(&plain);
    // V of the first block: A [width, 2], then B [2, 32].
    let qk = 2 * (width + width) + 2 * (width + width / 2);
    let v = &mut adapter.values_mut()[qk..];
    // alpha / rank · (A·B) is just below the largest f32: where it meets nothing, it stays nothing.
    (v[0], v[1]) = (5.6e36, 5.6e36);
    v[2 * width..2 * width + 64].iter_mut().for_each(|b| *b = 10.0);
    (model, adapter)
}

#[test]
fn p5_a_record_that_is_not_finite_contributes_nothing() {
    let (model, adapter) = model_with_a_token_that_overflows();
    let trainee = Trainee::new(&model);
    let mut good = many_records(5, 6);
    good.iter_mut()
        .for_each(|r| r.tokens.iter_mut().for_each(|t| *t += u32::from(*t == 9)));
    let bad = Encoded {
        tokens: vec![20, 30, 9, 40, 50, 60, 70],
        prompt: 2,
        label: 0,
    };
    for clipping in MODES {
        let clip = Clip::new(clipping, 1.0);
        let without = all(&trainee, &adapter, &good, clip);
        assert!(without.norms.iter().all(|n| n.is_finite()) && norm(without.values()) > 0.1);
        for at in [0, 2, 5] {
            let mut mixed = good.clone();
            mixed.insert(at, bad.clone());
            let with = all(&trainee, &adapter, &mixed, clip);
            assert!(
                !(with.norms[at].is_finite() && with.losses[at].is_finite()),
                "the record is broken"
            );
            assert_eq!(with.values(), without.values(), "{clipping:?}: a broken record at {at}");
        }
        let only = trainee.clipped_sum(&trainee.place(&adapter), &[&bad, &bad], clip);
        assert_eq!(only.values(), vec![0.0; adapter.len()]);
    }
}

#[test]
fn p5_an_adapter_that_overflows_everything_gives_a_zero_sum() {
    let model = model();
    let mut adapter = adapter(&model);
    adapter.values_mut().iter_mut().for_each(|v| *v = 1e30);
    let clip = Clip::new(Clipping::Automatic, 1.0);
    let got = all(&Trainee::new(&model), &adapter, &records(), clip);
    assert_eq!(got.values(), vec![0.0; adapter.len()]);
    assert_eq!(got.norms.len(), records().len());
}

// ---------------------------------------------------------------------------------------------- loss and optimizer

#[test]
fn cross_entropy_equals_plain_autodiff_across_chunks() {
    let device = device().autodiff();
    let (n, width, vocabulary) = (300, 16, 50);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut normal = |len: usize| (0..len).map(|_| rng.random_range(-2.0f32..2.0)).collect::<Vec<f32>>();
    let (hidden, head, weights) = (normal(n * width), normal(vocabulary * width), normal(n));
    let targets: Vec<u32> = (0..n).map(|i| (i * 7 % vocabulary) as u32).collect();
    let tensor = |v: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), shape), &device);
    let head = tensor(&head, [vocabulary, width]);

    let h = tensor(&hidden, [n, width]).require_grad();
    // Not a leaf: the surrogate must carry the gradient through what lies before it.
    let ours = cross_entropy(h.clone() * 3.0, &head, &targets, |_| weights.clone());
    let our_gradient = values(h.grad(&ours.surrogate.backward()).unwrap());

    let h = tensor(&hidden, [n, width]).require_grad();
    let log_p = activation::log_softmax(matmul(h.clone() * 3.0, head.transpose()), 1);
    let ids: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
    let losses = -log_p.gather(1, Tensor::<2, Int>::from_data(TensorData::new(ids, [n, 1]), &device));
    assert!(furthest(ours.losses, values(losses.clone().inner())) < 1e-4);
    let gradients = (losses * tensor(&weights, [n, 1])).sum().backward();
    let off = furthest(our_gradient, values(h.grad(&gradients).unwrap()));
    assert!(off < 1e-4, "gradients are {off:e} off");
}

#[test]
fn adamw_equals_pytorchs() {
    let expected = &expected()["adamw"];
    let single = |v: &serde_json::Value| floats(v).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    for decay in [0.0f32, 0.1] {
        let mut values = single(&expected["start"]);
        let mut optimizer = Optimizer::adamw(values.len(), decay);
        let steps = expected[format!("weight_decay_{decay:.1}")].as_array().unwrap();
        for (i, wanted) in steps.iter().enumerate() {
            let rate = expected["learning_rates"][i].as_f64().unwrap() as f32;
            optimizer.step(&mut values, &single(&expected["gradients"][i]), rate);
            assert!(
                furthest(values.clone(), floats(wanted)) < 1e-6,
                "step {i} with weight decay {decay}"
            );
        }
    }
}

// ---------------------------------------------------------------------------------------------- checkpoints

fn some_checkpoint(len: usize) -> Checkpoint {
    let mut optimizer = Optimizer::adamw(len, 0.01);
    let mut values: Vec<f32> = (0..len).map(|i| i as f32 / 7.0).collect();
    for _ in 0..3 {
        let gradient = values.clone();
        optimizer.step(&mut values, &gradient, 0.1);
    }
    let ledger = LedgerHead {
        seq: 5,
        hash: "ab".repeat(32),
    };
    Checkpoint {
        values,
        optimizer,
        applied_steps: 4,
        on_gpu: true,
        ledger,
    }
}

#[test]
fn a_checkpoint_is_read_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let saved = some_checkpoint(100);
    saved.save(&path).unwrap();
    assert_eq!(Checkpoint::load(&path, Optimizer::adamw(100, 0.01)).unwrap(), saved);
}

#[test]
fn a_checkpoint_that_is_cut_or_of_another_adapter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    some_checkpoint(100).save(&path).unwrap();
    assert_eq!(
        Checkpoint::load(&path, Optimizer::adamw(99, 0.01)).unwrap_err().kind(),
        Kind::Data
    );
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(53) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Checkpoint::load(&path, Optimizer::adamw(100, 0.01)).unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{length} bytes: {error}");
        assert!(error.hint_text().is_some());
    }
}

// ---------------------------------------------------------------------------------------------- the private loop

const SEED: u64 = 0x5EED_FACE_CAFE_F00D;

fn request(steps: u64, expected_batch_size: u64, public_size: u64) -> PlanRequest {
    PlanRequest {
        target_epsilon: 8.0,
        delta: None,
        public_size,
        expected_batch_size,
        steps,
        max_grad_norm: 1.0,
        noise: NoiseKind::ExactGaussian,
        unit: Unit::Record,
        batches: Batches::Poisson,
        beside: Vec::new(),
        seed: Some(SEED),
    }
}

fn finetune() -> FinetuneConfig {
    FinetuneConfig {
        rank: 2,
        alpha: 4.0,
        micro_batch_size: 3,
        checkpoint_every: 2,
        ..FinetuneConfig::default()
    }
}

/// A place where one run trains, is stopped and goes on.
struct Site {
    folder: tempfile::TempDir,
    plan: PrivacyPlan,
    model: LanguageModel,
    records: Vec<Encoded>,
    config: FinetuneConfig,
}

impl Site {
    fn new(request: &PlanRequest, records: Vec<Encoded>) -> Self {
        let plan = PrivacyPlan::calibrate(request).unwrap();
        Site {
            folder: tempfile::tempdir().unwrap(),
            plan,
            model: model(),
            records,
            config: finetune(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn ledger_path(&self) -> std::path::PathBuf {
        self.path("ledgers/d5.jsonl")
    }

    fn open_ledger(&self) -> Ledger {
        Ledger::open(&self.path("ledgers"), "d5", 10.0, self.plan.delta(), &Unit::Record).unwrap()
    }

    fn begin(&self) -> PrivateRun {
        self.plan.begin(self.open_ledger(), "run", self.records.len()).unwrap()
    }

    fn saved(&self) -> Option<Checkpoint> {
        let len = trainable::count(&self.config, self.model.shape());
        let path = self.path("checkpoint.safetensors");
        path.exists()
            .then(|| Checkpoint::load(&path, Optimizer::adamw(len, self.config.weight_decay as f32)).unwrap())
    }

    /// Trains on from the checkpoint; with `stop`, for one step only.
    fn train(&self, stop: bool) -> dpsynth::Result<(Box<dyn Trainable>, u64, Vec<StepLog>)> {
        let training = Training {
            model: &self.model,
            config: &self.config,
            objective: &Objective::text(),
            checkpoint: &self.path("checkpoint.safetensors"),
            stop: &AtomicBool::new(stop),
            progress: &Silent,
        };
        let mut log = Vec::new();
        let (adapter, applied) = training.train(
            trainable::initial(&self.config, &self.model),
            &mut self.begin(),
            &Units::of_records(self.records.clone()),
            self.saved(),
            |step| {
                // P7: whatever was applied by now is on disk as charged.
                assert!(self.charged() > step.charge);
                log.push(step.clone());
                Ok(())
            },
        )?;
        Ok((adapter, applied, log))
    }

    fn charged(&self) -> u64 {
        verify(&self.ledger_path()).unwrap().runs[0].charged_steps()
    }
}

#[test]
fn training_charges_and_applies_every_step() {
    let site = Site::new(&request(5, 6, 20), many_records(20, 9));
    let (adapter, applied, log) = site.train(false).unwrap();
    assert_eq!((applied, site.charged()), (5, 5));
    assert_eq!(log.iter().map(|s| s.charge).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let drawn: Vec<usize> = log.iter().map(|s| s.drawn).collect();
    assert!(
        drawn.windows(2).any(|w| w[0] != w[1]),
        "Poisson batches vary in size: {drawn:?}"
    );
    let fresh = Adapter::new(site.model.shape(), 2, 4.0, 0);
    assert!(adapter.values().iter().all(|v| v.is_finite()));
    assert_ne!(adapter.values(), fresh.values());
    let saved = site.saved().unwrap();
    assert_eq!((saved.applied_steps, saved.values.as_slice()), (5, adapter.values()));
}

#[test]
fn p7_what_was_charged_is_at_least_what_was_applied_after_stops_and_a_crash() {
    let site = Site::new(&request(6, 6, 20), many_records(20, 10));
    let stopped = site.train(true).unwrap_err();
    assert_eq!((stopped.kind(), stopped.exit_code()), (Kind::Interrupted, 130));
    assert_eq!((site.saved().unwrap().applied_steps, site.charged()), (1, 1));
    // Killed between the charge and the step: the charge stays, the step is lost, and its batch and noise with it.
    drop(site.begin().charge(TRAINING).unwrap());
    assert_eq!((site.saved().unwrap().applied_steps, site.charged()), (1, 2));
    site.train(true).unwrap_err();
    assert_eq!((site.saved().unwrap().applied_steps, site.charged()), (2, 3));
    let (_, applied, log) = site.train(false).unwrap();
    assert_eq!((applied, site.charged()), (5, 6));
    assert_eq!(
        log.iter().map(|s| s.charge).collect::<Vec<_>>(),
        [3, 4, 5],
        "no charge is used twice"
    );
    // P8: there is nothing left to spend.
    assert_eq!(site.begin().charge(TRAINING).unwrap_err().exit_code(), 4);
}

#[test]
fn a_run_that_was_stopped_ends_where_an_unbroken_one_does() {
    let whole = Site::new(&request(4, 6, 20), many_records(20, 11));
    let broken = Site::new(&request(4, 6, 20), many_records(20, 11));
    let (wanted, _, _) = whole.train(false).unwrap();
    for _ in 0..3 {
        broken.train(true).unwrap_err();
    }
    let (got, applied, _) = broken.train(false).unwrap();
    assert_eq!(applied, 4);
    assert_eq!(got.values(), wanted.values());
}

fn copy_ledger(from: &Path, to: &Path) {
    for ending in ["jsonl", "jsonl.head"] {
        std::fs::copy(from.with_extension(ending), to.with_extension(ending)).unwrap();
    }
}

#[test]
fn p7_a_checkpoint_notices_a_ledger_that_was_rolled_back() {
    let site = Site::new(&request(4, 6, 20), many_records(20, 12));
    site.train(true).unwrap_err();
    let kept = site.path("kept.jsonl");
    copy_ledger(&site.ledger_path(), &kept);
    site.train(true).unwrap_err();
    site.open_ledger().require_head(&site.saved().unwrap().ledger).unwrap();
    copy_ledger(&kept, &site.ledger_path());
    let refused = site
        .open_ledger()
        .require_head(&site.saved().unwrap().ledger)
        .unwrap_err();
    assert_eq!(refused.exit_code(), 3);
}

#[test]
fn p6_an_empty_batch_is_charged_noised_and_stepped() {
    // Five records at a sampling rate of one in a million: nobody is drawn.
    let site = Site::new(&request(3, 1, 1_000_000), many_records(5, 13));
    let (adapter, applied, log) = site.train(false).unwrap();
    assert_eq!((applied, site.charged()), (3, 3));
    assert!(
        log.iter()
            .all(|s| s.drawn == 0 && s.mean_loss.is_none() && s.mean_norm.is_none() && s.tokens == 0)
    );
    let fresh = Adapter::new(site.model.shape(), 2, 4.0, 0);
    let moved = adapter
        .values()
        .iter()
        .zip(fresh.values())
        .filter(|(a, b)| a != b)
        .count();
    assert!(
        moved as f64 > 0.99 * adapter.values().len() as f64,
        "noise moved {moved} of {} values",
        adapter.values().len()
    );
}

/// Without a seed, two runs over the same records draw other batches and other noise.
#[test]
fn p4_private_runs_repeat_nothing() {
    let run = || {
        let private = PlanRequest {
            seed: None,
            ..request(1, 10, 20)
        };
        let site = Site::new(&private, many_records(20, 14));
        assert!(site.plan.is_private());
        site.train(false).unwrap().0
    };
    let (a, b) = (run(), run());
    let same = a.values().iter().zip(b.values()).filter(|(a, b)| a == b).count();
    assert!(
        same < a.values().len() / 2,
        "{same} of {} values are equal",
        a.values().len()
    );
}

/// All weights trained, once in one go and once with a stop after each step, each block's activations computed anew.
#[test]
fn p7_full_fine_tuning_goes_on_from_its_checkpoint_to_the_same_weights() {
    let site = |activation_checkpointing| {
        let mut site = Site::new(&request(3, 6, 18), many_records(18, 16));
        site.config.method = Method::Full;
        site.config.activation_checkpointing = activation_checkpointing;
        site
    };
    let whole = site(false).train(false).unwrap().0;
    let stopped = site(true);
    stopped.train(true).unwrap_err();
    stopped.train(true).unwrap_err();
    let (trained, applied, _) = stopped.train(false).unwrap();
    assert_eq!(applied, 3);
    assert_eq!(trained.values(), whole.values());
    let moved = trained
        .values()
        .iter()
        .zip(stopped.model.values())
        .filter(|(a, b)| **a != *b);
    assert!(moved.count() as f64 > 0.99 * trained.values().len() as f64);
}

#[test]
fn p4_a_checkpoint_holds_no_seed() {
    let site = Site::new(&request(3, 6, 20), many_records(20, 15));
    site.train(true).unwrap_err();
    let bytes = std::fs::read(site.path("checkpoint.safetensors")).unwrap();
    let decimal = SEED.to_string();
    let hexadecimal = format!("{SEED:x}");
    for spelling in [
        &SEED.to_le_bytes()[..],
        &SEED.to_be_bytes()[..],
        decimal.as_bytes(),
        hexadecimal.as_bytes(),
    ] {
        assert!(!bytes.windows(spelling.len()).any(|w| w == spelling));
    }
    // Nothing but what is named here, so no generator's state either.
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut keys: Vec<String> = header.metadata().clone().unwrap().into_keys().collect();
    keys.sort();
    assert_eq!(keys, ["applied_steps", "ledger", "on_gpu", "optimizer_steps"]);
    let mut names = safetensors::SafeTensors::deserialize(&bytes)
        .unwrap()
        .names()
        .into_iter()
        .map(str::to_string)
        .collect::<Vec<_>>();
    names.sort();
    assert_eq!(names, ["first", "second", "values"]);
    let len = Adapter::new(site.model.shape(), 2, 4.0, 0).len();
    assert!(
        bytes.len() < 3 * 4 * len + 1500,
        "{} bytes for three times {len} values",
        bytes.len()
    );
}

#[test]
fn training_learns_what_the_records_share() {
    let mut rng = ChaCha8Rng::seed_from_u64(16);
    let record = |_| Encoded {
        tokens: (0..6).map(|_| rng.random_range(3..300)).chain([77; 10]).collect(),
        prompt: 6,
        label: 0,
    };
    let generous = PlanRequest {
        target_epsilon: 200.0,
        ..request(12, 20, 40)
    };
    let mut site = Site::new(&generous, (0..40).map(record).collect());
    site.config.learning_rate = 0.02;
    site.config.micro_batch_size = 20;
    // A seeded run spends nothing of the ledger's total.
    let (_, _, log) = site.train(false).unwrap();
    let (first, last) = (log[0].mean_loss.unwrap(), log.last().unwrap().mean_loss.unwrap());
    assert!(last < first - 1.0, "the loss went from {first} to {last}");
}

// ---------------------------------------------------------------------------------------------- memory

/// What CubeCL and CUDA's driver say.
const OUT_OF_MEMORY: [&str; 4] = [
    "out of device memory allocating 1073741824 bytes",
    "An out-of-memory error happened during execution",
    "can't allocate buffer of size: 1073741824",
    "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
];

/// A stand-in for the device: it has room for so many items.
fn with_room_for(room: usize, items: &[u32]) -> u32 {
    assert!(items.len() <= room, "{}", OUT_OF_MEMORY[items.len() % 4]);
    items.iter().sum()
}

#[test]
fn out_of_memory_halves_the_micro_batch_and_the_work_goes_on() {
    let items: Vec<u32> = (1..=20).collect();
    let at_once = AtOnce::new(16);
    let parts = at_once.each(&device(), Shapes::AsNeeded, &items, |piece| with_room_for(5, piece));
    assert_eq!(parts.iter().sum::<u32>(), 210, "every item counts once");
    assert_eq!(at_once.size(), 4);
    for message in OUT_OF_MEMORY {
        let at_once = AtOnce::new(2);
        at_once.each(&device(), Shapes::AsNeeded, &items, |piece| {
            assert!(piece.len() == 1, "{message}")
        });
        assert_eq!(at_once.size(), 1, "{message}");
    }
    // Later batches begin with what fits.
    assert_eq!(
        at_once
            .each(&device(), Shapes::AsNeeded, &items, |piece| with_room_for(4, piece))
            .len(),
        5
    );
    assert!(
        at_once
            .each(&device(), Shapes::AsNeeded, &[], |piece: &[u32]| piece.len())
            .is_empty()
    );
    // Filled up to eight, one record is too many where there is room for four.
    let (full, filled) = (AtOnce::new(8), Shapes::Fixed { context: 64 });
    let fits = |_: &[u32]| with_room_for(4, &vec![0; full.size()]);
    full.each(&device(), filled, &[7], fits);
    assert_eq!(full.size(), 4);
}

#[test]
#[should_panic(expected = "An out-of-memory error")]
fn an_item_that_does_not_fit_alone_is_not_tried_for_ever() {
    AtOnce::new(8).each(&device(), Shapes::AsNeeded, &[1, 2, 3], |piece| with_room_for(0, piece));
}

#[test]
#[should_panic(expected = "something else")]
fn another_panic_passes_through() {
    AtOnce::new(8).each(&device(), Shapes::AsNeeded, &[1, 2, 3], |_| panic!("something else"));
}
