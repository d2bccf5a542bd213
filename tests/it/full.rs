//! Full fine-tuning and bf16: every record's gradient by all weights, its bound, and the state on disk.

use crate::support::*;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use dpsynth::config::{Clipping, FinetuneConfig, Method, Precision};
use dpsynth::machine::workers::Workers;
use dpsynth::models::product::matmul;
use dpsynth::models::weights::Weights;
use dpsynth::models::{Apply, LanguageModel, Norm};
use dpsynth::records::{Encoded, Units};
use dpsynth::training::clip::Clip;
use dpsynth::training::contribution::Contribution;
use dpsynth::training::gradients::{Compute, Trainee};
use dpsynth::training::memory::AtOnce;
use dpsynth::training::objective::Objective;
use dpsynth::training::trainable::{self, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MODES: [Clipping; 2] = [Clipping::Automatic, Clipping::Flat];

fn clip(clipping: Clipping) -> Clip {
    Clip::new(clipping, 0.7)
}

fn in_precision(model: &LanguageModel, precision: Precision) -> Trainee {
    let compute = Compute {
        precision,
        activation_checkpointing: false,
    };
    Trainee::with(model, compute, Objective::text())
}

// ---------------------------------------------------------------------------------------------- the reference

/// All weights as leaves of ordinary autodiff, in the order of the forward.
struct Leaves {
    device: Device,
    leaves: Vec<Leaf>,
}

enum Leaf {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl Leaves {
    fn vector(&mut self, w: &Tensor<1>) -> Tensor<1> {
        let w = Tensor::from_data(w.to_data(), &self.device).require_grad();
        self.leaves.push(Leaf::Vector(w.clone()));
        w
    }

    fn matrix(&mut self, w: &Tensor<2>) -> Tensor<2> {
        let w = Tensor::from_data(w.to_data(), &self.device).require_grad();
        self.leaves.push(Leaf::Matrix(w.clone()));
        w
    }
}

impl Apply for Leaves {
    fn map(&mut self, _: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        matmul(x, self.matrix(weight).transpose())
    }

    fn shift(&mut self, _: usize, shift: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        x + self.vector(shift).unsqueeze()
    }

    fn norm(&mut self, _: usize, norm: Norm, gain: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        let gain = self.vector(gain).unsqueeze();
        let (x, epsilon) = match norm {
            Norm::Rms { epsilon } => (x, epsilon),
            Norm::Layer { epsilon } => (x.clone() - x.mean_dim(1), epsilon),
        };
        let scale = (x.clone().square().mean_dim(1) + epsilon).sqrt().recip();
        x * scale * gain
    }

    fn rows(&mut self, _: usize, table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        self.matrix(table).select(0, ids)
    }
}

/// One record alone, without padding: its loss and its gradient by all weights, by ordinary autodiff.
fn alone(model: &LanguageModel, record: &Encoded) -> (f64, Vec<f64>) {
    let device = model.device().autodiff();
    let mut applied = Leaves {
        device: device.clone(),
        leaves: Vec::new(),
    };
    let ids: Vec<i32> = record.tokens.iter().map(|t| *t as i32).collect();
    let n = ids.len() - 1;
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids[..n].to_vec(), [1, n]), &device);
    let hidden = model.hidden(tokens, None, &mut applied);
    let Leaf::Matrix(table) = &applied.leaves[0] else {
        panic!("the table comes first");
    };
    let log_p = activation::log_softmax(matmul(hidden, table.clone().transpose()), 1);
    let targets = n + 1 - record.prompt;
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids[record.prompt..].to_vec(), [targets, 1]), &device);
    let loss = -log_p.narrow(0, record.prompt - 1, targets).gather(1, ids).mean();
    let gradients = loss.backward();
    let of = |leaf: &Leaf| match leaf {
        Leaf::Vector(w) => values(w.grad(&gradients).unwrap()),
        Leaf::Matrix(w) => values(w.grad(&gradients).unwrap()),
    };
    let gradient = applied.leaves.iter().flat_map(of).map(f64::from).collect();
    (f64::from(loss.into_scalar::<f32>()), gradient)
}

/// Records of 6 to 40 tokens; every third repeats one token over and over, so that both ends of a tied embedding meet.
fn many_records(n: usize, seed: u64) -> Vec<Encoded> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let record = |i: usize| {
        let (length, same) = (rng.random_range(6..=40), rng.random_range(3..300));
        let mut token = |_| match i.is_multiple_of(3) {
            true => same,
            false => rng.random_range(3..300),
        };
        Encoded {
            tokens: (0..length).map(&mut token).collect(),
            prompt: 1 + i % 4,
            label: 0,
        }
    };
    (0..n).map(record).collect()
}

fn references(records: &[Encoded]) -> Vec<&Encoded> {
    records.iter().collect()
}

// ---------------------------------------------------------------------------------------------- gradients

#[test]
fn p5_norms_losses_and_sums_of_all_weights_equal_a_loop_of_single_backward_passes() {
    let (model, records) = (model(), many_records(9, 1));
    let (trainee, weights) = (Trainee::new(&model), Weights::of(&model));
    let (losses, plain): (Vec<f64>, Vec<Vec<f64>>) = records.iter().map(|r| alone(&model, r)).unzip();
    assert_eq!(plain[0].len(), weights.values().len());
    for clipping in MODES {
        let got = trainee.clipped_sum(&trainee.place(&weights), &references(&records), clip(clipping));
        assert!(furthest(got.losses.clone(), losses.clone()) < 1e-4);
        let mut wanted = vec![0.0; plain[0].len()];
        for (i, g) in plain.iter().enumerate() {
            let theirs = norm(g.iter().copied());
            assert!(
                (got.norms[i] / theirs - 1.0).abs() < 1e-5,
                "record {i}: norm {} and {theirs}",
                got.norms[i]
            );
            let factor = clip(clipping).factor(theirs);
            wanted.iter_mut().zip(g).for_each(|(w, g)| *w += factor * g);
        }
        let off = distance(&got.values(), &wanted) / norm(wanted.iter().copied());
        assert!(off < 1e-5, "{clipping:?}: {off:e} off");
    }
}

/// What is compared with in benches, and trains without privacy: the gradients added up, none of them bounded.
#[test]
fn the_plain_sum_is_the_sum_of_the_gradients() {
    let (model, records) = (model(), many_records(7, 2));
    let trainee = Trainee::new(&model);
    let adapter = adapter(&model);
    let full = Weights::of(&model);
    for trained in [&adapter as &dyn Trainable, &full] {
        let placed = trainee.place(trained);
        let got = trainee.plain_sum(&placed, &references(&records));
        // A bound far above every norm changes nothing.
        let loose = Clip::new(Clipping::Flat, 1e6);
        let wanted = trainee.clipped_sum(&placed, &references(&records), loose);
        assert!(distance(&got.values(), &wanted.values()) / norm(wanted.values()) < 1e-5);
        assert!(furthest(got.losses.clone(), wanted.losses) < 1e-5);
    }
}

/// Block by block the same numbers come out, of bounded and of plain sums.
#[test]
fn activation_checkpointing_changes_nothing() {
    let (model, records) = (model(), many_records(9, 8));
    let (records, adapter, full) = (references(&records), adapter(&model), Weights::of(&model));
    for precision in [Precision::F32, Precision::Bf16] {
        let compute = Compute {
            precision,
            activation_checkpointing: true,
        };
        let (kept, anew) = (
            in_precision(&model, precision),
            Trainee::with(&model, compute, Objective::text()),
        );
        for trained in [&adapter as &dyn Trainable, &full] {
            let of = |t: &Trainee| {
                let placed = t.place(trained);
                (
                    t.clipped_sum(&placed, &records, clip(Clipping::Flat)),
                    t.plain_sum(&placed, &records),
                )
            };
            let ((kept, kept_plain), (anew, anew_plain)) = (of(&kept), of(&anew));
            assert_eq!(kept.losses, anew.losses);
            // A GPU adds up the squares of all blocks together, or of each by itself.
            let off = match device() == Device::flex() {
                true => 0.0,
                false => 1e-6,
            };
            assert!(distance(&kept.norms, &anew.norms) <= off * norm(kept.norms.clone()));
            for (kept, anew) in [(&kept, &anew), (&kept_plain, &anew_plain)] {
                assert!(distance(&kept.values(), &anew.values()) <= off * norm(kept.values()));
            }
        }
    }
}

#[test]
fn losses_alone_are_those_of_training() {
    let (model, records) = (model(), many_records(6, 3));
    for precision in [Precision::F32, Precision::Bf16] {
        let trainee = in_precision(&model, precision);
        let placed = trainee.place(&adapter(&model));
        let trained = trainee.clipped_sum(&placed, &references(&records), clip(Clipping::Flat));
        assert!(furthest(trainee.losses(&placed, &references(&records)), trained.losses) < 1e-5);
    }
}

// ---------------------------------------------------------------------------------------------- sensitivity

/// The largest ‖S(D ∪ {x}) − S(D)‖ / C over records x and micro-batch sizes.
fn sensitivity(trainee: &Trainee, trained: &dyn Trainable, clipping: Clipping) -> f64 {
    let records = many_records(14, 4);
    let workers = Workers::with(1);
    let mut largest = 0f64;
    for micro_batch_size in [1, 4, 16] {
        let contribution = Contribution {
            trainee,
            workers: &workers,
            clip: clip(clipping),
            micro_batch_size: AtOnce::new(micro_batch_size),
        };
        let units = Units::of_records(records.clone());
        let base: Vec<usize> = (0..10).collect();
        let without = contribution.sum(trained, &units, &base).sum;
        for x in 10..14 {
            let with = contribution.sum(trained, &units, &[base.as_slice(), &[x]].concat()).sum;
            largest = largest.max(distance(&with, &without) / 0.7);
        }
    }
    largest
}

#[test]
fn p5_sensitivity_holds_for_all_weights_with_tied_embeddings_and_repeated_tokens() {
    let model = model();
    for clipping in MODES {
        let largest = sensitivity(&Trainee::new(&model), &Weights::of(&model), clipping);
        println!("{clipping:?}: largest sensitivity over C: 1 + {:e}", largest - 1.0);
        assert!(largest <= 1.0 + 1e-6 && largest > 0.9, "{clipping:?}: {largest}");
    }
}

#[test]
fn p5_sensitivity_holds_in_bf16() {
    let model = model();
    let trainee = in_precision(&model, Precision::Bf16);
    let adapter = adapter(&model);
    let full = Weights::of(&model);
    for trained in [&adapter as &dyn Trainable, &full] {
        for clipping in MODES {
            let largest = sensitivity(&trainee, trained, clipping);
            println!("{clipping:?}: largest sensitivity over C: 1 + {:e}", largest - 1.0);
            assert!(largest <= 1.0 + 1e-6 && largest > 0.9, "{clipping:?}: {largest}");
        }
    }
}

#[test]
fn bf16_agrees_with_f32_in_norms_and_losses_to_two_hundredths_and_in_sums_to_four() {
    let (model, records) = (model(), many_records(8, 5));
    let adapter = adapter(&model);
    let full = Weights::of(&model);
    for trained in [&adapter as &dyn Trainable, &full] {
        let of = |precision| {
            let trainee = in_precision(&model, precision);
            trainee.clipped_sum(
                &trainee.place(trained),
                &references(&records),
                clip(Clipping::Automatic),
            )
        };
        let (exact, rough) = (of(Precision::F32), of(Precision::Bf16));
        assert_ne!(exact.values(), rough.values(), "bf16 was not used");
        // Of a tiny random model: bf16 keeps 8 bits, which every product of every block rounds to.
        assert!(distance(&rough.values(), &exact.values()) / norm(exact.values()) < 4e-2);
        for (a, b) in rough
            .norms
            .iter()
            .zip(&exact.norms)
            .chain(rough.losses.iter().zip(&exact.losses))
        {
            assert!((a / b - 1.0).abs() < 2e-2, "{a} and {b}");
        }
    }
}

#[test]
fn p5_a_record_that_is_not_finite_contributes_nothing_to_any_weight() {
    let model = model();
    let trainee = Trainee::new(&model);
    let mut weights = Weights::of(&model);
    let (tokens, width) = (model.shape().vocabulary, model.shape().width);
    // Token 9 alone has a value in coordinate 0 of its embedding, and V of the first block blows that coordinate up to
    // infinity, which O's zeros make NaN; no gradient of other tokens comes through O.
    let v = tokens * width + width + width * width + width * width / 2;
    let values = weights.values_mut();
    (0..tokens).for_each(|t| values[t * width] = if t == 9 { 8.0 } else { 0.0 });
    let o = v + width * width / 2;
    (0..width / 2).for_each(|out| values[v + out * width] = 3e38);
    values[o..o + width * width].fill(0.0);
    let mut good = many_records(5, 6);
    let avoid = |r: &mut Encoded| r.tokens.iter_mut().for_each(|t| *t += u32::from(*t == 9));
    good.iter_mut().for_each(avoid);
    let bad = Encoded {
        tokens: vec![20, 30, 9, 40, 50, 60, 70],
        prompt: 2,
        label: 0,
    };
    let placed = trainee.place(&weights);
    for clipping in MODES {
        let sum = |records: &[Encoded]| trainee.clipped_sum(&placed, &references(records), clip(clipping));
        let without = sum(&good);
        assert!(without.norms.iter().all(|n| n.is_finite()) && norm(without.values()) > 0.1);
        let with = sum(&[&good[..2], std::slice::from_ref(&bad), &good[2..]].concat());
        assert!(
            !(with.norms[2].is_finite() && with.losses[2].is_finite()),
            "the record is broken"
        );
        assert_eq!(with.values(), without.values(), "{clipping:?}");
    }
}

// ---------------------------------------------------------------------------------------------- the state

#[test]
fn weights_come_back_from_disk_as_they_were() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trained.safetensors");
    let config = FinetuneConfig {
        method: Method::Full,
        ..FinetuneConfig::default()
    };
    let mut trained = trainable::initial(&config, &model);
    assert_eq!(trained.values(), model.values());
    trained.values_mut().iter_mut().for_each(|v| *v += 0.25);
    trained.save(&path).unwrap();
    let back = trainable::load(&config, &model, &path).unwrap();
    assert_eq!(back.values(), trained.values());
    let merged = back.merged(&model);
    assert_eq!(merged.values(), trained.values());
    assert_ne!(
        values(merged.logits(merged.hidden(block(&[&[4, 5, 6]]), None, &mut dpsynth::models::Plain))),
        values(model.logits(model.hidden(block(&[&[4, 5, 6]]), None, &mut dpsynth::models::Plain)))
    );

    let adapter = folder.path().join("adapter.safetensors");
    trainable::initial(&FinetuneConfig::default(), &model)
        .save(&adapter)
        .unwrap();
    let wrong = trainable::load(&config, &model, &adapter).unwrap_err();
    assert!(wrong.to_string().contains("model.embed_tokens.weight"), "{wrong}");
}
