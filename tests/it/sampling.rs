//! Drawing records: what a record depends on, what it is drawn from, how it is written.

use crate::common;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::common::Place;
use crate::support::*;
use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use burn::tensor::{Tensor, TensorData};
use dpsynth::config::ColumnKind;
use dpsynth::config::{LabelConfig, LabelPrior, NamedPrior, RefineAction, RefineConfig};
use dpsynth::error::Kind;
use dpsynth::machine::workers::Workers;
use dpsynth::models::cache::Way;
use dpsynth::models::lora::Adapter;
use dpsynth::models::{LanguageModel, Plain};
use dpsynth::records::{Encoded, LabelSpace};
use dpsynth::sampling::choose::{Choice, draw, pick, pick_on_device};
use dpsynth::sampling::decode::{Decoder, Decoding, Request};
use dpsynth::sampling::prior;
use dpsynth::sampling::queue::Queue;
use dpsynth::sampling::refine::{Candidate, LabelOutcome, Refinement, Score, TRIES, bias, posterior};
use dpsynth::sampling::score::{Scorer, Text};
use dpsynth::sampling::shards::{self, Schema, Synthetic};
use dpsynth::training::gradients::Trainee;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const END: u32 = 2;
const PLAIN: Choice = Choice::PLAIN;
const GUIDED: Choice = Choice { guidance: 1.0, ..PLAIN };

/// A prompt that names no label.
const MARGINAL: [u32; 5] = [1, 50, 30, 31, 60];

/// Prompts of three labels, all of different lengths.
fn prompts() -> Vec<Vec<u32>> {
    vec![vec![1, 50, 60, 70], vec![1, 80], vec![1, 90, 100, 110, 120, 130, 140]]
}

fn settings(choice: Choice) -> Decoding {
    Decoding {
        choice,
        guidance_end: None,
        contrasts: 2,
        max_tokens: 24,
        end: END,
        seed: 11,
    }
}

fn requests(n: usize) -> Vec<Request> {
    (0..n)
        .map(|i| Request {
            id: i as u64,
            attempt: 0,
            label: i % 3,
        })
        .collect()
}

fn in_batches(decoder: &Decoder, requests: &[Request], size: usize) -> Vec<Vec<u32>> {
    requests
        .chunks(size)
        .flat_map(|batch| decoder.decode(batch, size))
        .collect()
}

// ---------------------------------------------------------------------------------------------- decoding

#[test]
fn a_record_does_not_depend_on_its_batch() {
    let model = model();
    for choice in [PLAIN, GUIDED] {
        let decoder = Decoder::new(&model, &prompts(), settings(choice)).unwrap();
        let requests = requests(40);
        let alone = in_batches(&decoder, &requests, 1);
        assert!(
            alone.iter().any(|r| r.len() < 24) && alone.iter().any(|r| r.len() == 24),
            "some end, some are cut"
        );
        // Rows that end are taken over by the requests that wait.
        for size in [1, 3, 8, 40, 64] {
            assert_eq!(decoder.decode(&requests, size), alone, "{size} side by side");
        }
        let backwards: Vec<Request> = requests.iter().rev().copied().collect();
        let mut shuffled = decoder.decode(&backwards, 5);
        shuffled.reverse();
        assert_eq!(shuffled, alone, "other neighbours");
    }
}

#[test]
fn a_record_does_not_depend_on_who_draws_it() {
    let model = model();
    let decoder = Decoder::new(&model, &prompts(), settings(GUIDED)).unwrap();
    let requests = requests(40);
    let alone = decoder.decode(&requests, 8);
    let workers = Workers::with(3);
    let drawn = Mutex::new(HashMap::new());
    let queue = Queue::new(requests.iter().copied());
    let stats = workers.map(&[(); 3], |()| {
        let keep = |request: Request, tokens| {
            drawn.lock().unwrap().insert(request.id, tokens);
            Ok(None)
        };
        decoder.run(&queue, 4, keep).unwrap()
    });
    let drawn = drawn.into_inner().unwrap();
    assert_eq!(requests.iter().map(|r| drawn[&r.id].clone()).collect::<Vec<_>>(), alone);
    let tokens: u64 = stats.iter().map(|s| s.tokens).sum();
    let ended = alone.iter().filter(|r| r.len() < 24).count();
    assert_eq!(tokens as usize, alone.iter().map(Vec::len).sum::<usize>() + ended);
}

/// What a GPU computes, on a CPU: the same records as by the CPU's own way.
#[test]
fn tensor_operations_draw_the_same_records() {
    let model = model();
    let nucleus = Choice {
        temperature: 0.8,
        top_p: 0.9,
        guidance: 0.5,
        plausibility: 0.1,
    };
    for (choice, guidance_end) in [
        (PLAIN, None),
        (GUIDED, None),
        (nucleus, None),
        (nucleus, Some(2.0)),
        (nucleus, Some(0.0)),
        (PLAIN, Some(1.0)),
    ] {
        let settings = Decoding {
            guidance_end,
            ..settings(choice)
        };
        let by = |way| Decoder::by(way, &model, &prompts(), settings).unwrap();
        let requests = requests(20);
        let wanted = by(Way::Memory).decode(&requests, 6);
        assert_eq!(by(Way::Tensors).decode(&requests, 6), wanted, "{settings:?}");
        let wanted = by(Way::Memory).against(&MARGINAL).unwrap().decode(&requests, 6);
        assert_eq!(
            by(Way::Tensors).against(&MARGINAL).unwrap().decode(&requests, 6),
            wanted
        );
    }
}

#[test]
fn a_closed_queue_stops_decoding_at_once() {
    let model = model();
    let decoder = Decoder::new(&model, &prompts(), settings(PLAIN)).unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let queue = Queue::new(requests(500)).until(&stop);
    let stopping = |_, _| {
        stop.fetch_or(done.fetch_add(1, Ordering::Relaxed) == 2, Ordering::Relaxed);
        Ok(None)
    };
    decoder.run(&queue, 4, stopping).unwrap();
    assert!(
        (3..=6).contains(&done.load(Ordering::Relaxed)),
        "{done:?} records of 500"
    );

    let queue = Queue::new(requests(500));
    let refused = decoder.run(&queue, 4, |_, _| Err(dpsynth::Error::other("no room")));
    assert_eq!(refused.unwrap_err().kind(), Kind::Other);
    assert!(queue.is_closed(), "the others leave too");
}

#[test]
fn a_record_that_is_not_wanted_is_drawn_again() {
    let model = model();
    let decoder = Decoder::new(&model, &prompts(), settings(PLAIN)).unwrap();
    let again = |r: &Request| Request { attempt: 1, ..*r };
    let drawn = Mutex::new(Vec::new());
    let queue = Queue::new(requests(9));
    let second_tries = |request: Request, tokens: Vec<u32>| {
        if request.attempt == 0 {
            return Ok(Some(again(&request)));
        }
        drawn.lock().unwrap().push((request.id, tokens));
        Ok(None)
    };
    decoder.run(&queue, 4, second_tries).unwrap();
    let mut drawn = drawn.into_inner().unwrap();
    drawn.sort();
    let wanted = decoder.decode(&requests(9).iter().map(again).collect::<Vec<_>>(), 9);
    assert_eq!(drawn.into_iter().map(|(_, tokens)| tokens).collect::<Vec<_>>(), wanted);
}

/// Same uniforms, same tokens, but where a uniform falls within rounding of the boundary between two tokens.
#[test]
fn tokens_picked_by_tensor_operations_are_those_picked_in_f64() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (vocabulary, rows) in [(7, 1), (1000, 1), (1000, 2), (1000, 4), (49_152, 2)] {
        for choice in [
            Choice { guidance: 0.7, ..PLAIN },
            Choice {
                top_p: 0.8,
                temperature: 1.3,
                guidance: 0.7,
                plausibility: 0.0,
            },
            Choice {
                temperature: 1.3,
                guidance: 0.7,
                plausibility: 0.02,
                ..PLAIN
            },
        ] {
            const RECORDS: usize = 40;
            let logits: Vec<f32> = (0..RECORDS * rows * vocabulary)
                .map(|_| rng.random_range(-6.0..6.0))
                .collect();
            let mut uniforms: Vec<f64> = (0..RECORDS).map(|_| rng.random()).collect();
            (uniforms[0], uniforms[1]) = (0.0, 1.0 - f64::EPSILON);
            let tensor = Tensor::from_data(TensorData::new(logits.clone(), [RECORDS * rows, vocabulary]), &device());
            let guidance: Vec<f64> = (0..RECORDS).map(|i| choice.guidance * (i % 3) as f64).collect();
            let picked = pick_on_device(tensor, rows, choice, &guidance, None, &uniforms).into_data();
            let picked: Vec<i64> = picked.iter::<i64>().collect();
            for (i, (token, logits)) in picked.into_iter().zip(logits.chunks(rows * vocabulary)).enumerate() {
                let uniform = uniforms[i];
                let choice = Choice {
                    guidance: guidance[i],
                    ..choice
                };
                let (own, others) = logits.split_at(vocabulary);
                let others: Vec<&[f32]> = others.chunks(vocabulary).collect();
                let off = |nudge: f64| {
                    i64::from(pick(
                        own,
                        &others,
                        None,
                        choice,
                        (uniform + nudge).clamp(0.0, 1.0 - 1e-16),
                    ))
                };
                const ROUNDING: f64 = 2e-6;
                let (from, to) = (off(-ROUNDING), off(ROUNDING));
                assert!(
                    (from..=to).contains(&token),
                    "{token} of {vocabulary}, not {from} to {to}: {rows} {choice:?}"
                );
            }
        }
    }
}

#[test]
fn another_id_attempt_or_seed_draws_another_record() {
    let model = model();
    let decoder = Decoder::new(&model, &prompts(), settings(PLAIN)).unwrap();
    let first = Request {
        id: 5,
        attempt: 0,
        label: 0,
    };
    let drawn = decoder.decode(&[first, Request { attempt: 1, ..first }, Request { id: 6, ..first }], 3);
    assert_eq!(decoder.decode(&[first], 1)[0], drawn[0]);
    assert_ne!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2]);
    let other = Decoder::new(
        &model,
        &prompts(),
        Decoding {
            seed: 12,
            ..settings(PLAIN)
        },
    )
    .unwrap();
    assert_ne!(other.decode(&[first], 1)[0], drawn[0]);
}

#[test]
fn no_guidance_is_plain_sampling_bit_for_bit_whatever_else_is_set() {
    let model = model();
    let requests = requests(12);
    for way in [Way::Memory, Way::Tensors] {
        let decoder = |choice, contrasts, guidance_end| {
            let settings = Decoding {
                contrasts,
                guidance_end,
                ..settings(choice)
            };
            Decoder::by(way, &model, &prompts(), settings).unwrap()
        };
        let plain = decoder(PLAIN, 0, None).decode(&requests, 12);
        assert_ne!(
            decoder(GUIDED, 2, None).decode(&requests, 12),
            plain,
            "guidance does something"
        );
        // Strength without another label to contrast with.
        assert_eq!(decoder(GUIDED, 0, None).decode(&requests, 12), plain);
        for plausibility in [0.0, 0.5, 1.0] {
            for guidance_end in [None, Some(0.0)] {
                let choice = Choice { plausibility, ..PLAIN };
                let decoder = decoder(choice, 2, guidance_end);
                assert_eq!(
                    decoder.decode(&requests, 12),
                    plain,
                    "{way:?} {choice:?} {guidance_end:?}"
                );
                let against = decoder.against(&MARGINAL).unwrap();
                assert_eq!(
                    against.decode(&requests, 12),
                    plain,
                    "{way:?} {choice:?} {guidance_end:?}"
                );
            }
        }
    }
    let (own, other) = ([0.3f32, -1.0, 2.0, 0.1], [1.0f32, 0.5, -2.0, 0.0]);
    let masked = Choice {
        plausibility: 0.9,
        ..PLAIN
    };
    let mut rngs = [ChaCha8Rng::seed_from_u64(1), ChaCha8Rng::seed_from_u64(1)];
    for _ in 0..100 {
        assert_eq!(
            draw(&own, &[&other], None, masked, &mut rngs[0]),
            draw(&own, &[], None, PLAIN, &mut rngs[1])
        );
    }
}

/// The last position's logits by the full forward: no cache, no padding, no batch.
fn next_logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    let hidden = model.hidden(block(&[tokens]), None, &mut Plain);
    let all = values(model.logits(hidden));
    all[all.len() - model.shape().vocabulary..].to_vec()
}

/// What the decoder does, spelled out: the label's prompt and the tokens so far, against all other labels' prompts, or
/// one that names none, and the same tokens, token after token.
fn spelled_out(model: &LanguageModel, request: Request, settings: Decoding, marginal: Option<&[u32]>) -> Vec<u32> {
    let prompts = prompts();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    rng.set_stream(request.id);
    rng.set_word_pos(u128::from(request.attempt) << 36);
    let others: Vec<&[u32]> = match marginal {
        Some(marginal) => vec![marginal],
        None if settings.choice.guidance > 0.0 => {
            // Which of them come first does not matter to their mean, but choosing them takes numbers from the stream.
            let chosen = rand::seq::index::sample(&mut rng, 2, 2);
            let other = |o: usize| if o < request.label { o } else { o + 1 };
            chosen.iter().map(|o| prompts[other(o)].as_slice()).collect()
        }
        None => vec![],
    };
    let mut tokens: Vec<u32> = Vec::new();
    loop {
        let after = |prompt: &[u32]| next_logits(model, &[prompt, &tokens].concat());
        let own = after(&prompts[request.label]);
        let others: Vec<Vec<f32>> = others.iter().map(|prompt| after(prompt)).collect();
        let others: Vec<&[f32]> = others.iter().map(Vec::as_slice).collect();
        let choice = Choice {
            guidance: settings.guidance_at(tokens.len()),
            ..settings.choice
        };
        let token = draw(&own, &others, None, choice, &mut rng);
        if choice.guidance > 0.0 {
            let largest = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let share = f64::from(own[token as usize] - largest).exp();
            assert!(share > choice.plausibility - 1e-6, "an implausible token: {share}");
        }
        if token == END {
            return tokens;
        }
        tokens.push(token);
        if tokens.len() == settings.max_tokens {
            return tokens;
        }
    }
}

#[test]
fn decoding_draws_from_the_models_own_distribution() {
    let model = model();
    let nucleus = Choice {
        temperature: 0.7,
        top_p: 0.9,
        guidance: 0.5,
        ..PLAIN
    };
    let masked = Choice {
        plausibility: 0.3,
        ..GUIDED
    };
    for (choice, guidance_end, marginal) in [
        (PLAIN, None, None),
        (GUIDED, None, None),
        (nucleus, None, None),
        (masked, Some(0.2), None),
        (GUIDED, None, Some(MARGINAL)),
        (masked, Some(3.0), Some(MARGINAL)),
    ] {
        let settings = Decoding {
            guidance_end,
            ..settings(choice)
        };
        let mut decoder = Decoder::new(&model, &prompts(), settings).unwrap();
        if let Some(marginal) = marginal {
            decoder = decoder.against(&marginal).unwrap();
        }
        let marginal = marginal.as_ref().map(|m| m.as_slice());
        let requests = requests(6);
        let wanted: Vec<Vec<u32>> = requests
            .iter()
            .map(|r| spelled_out(&model, *r, settings, marginal))
            .collect();
        assert_eq!(decoder.decode(&requests, 4), wanted, "{settings:?} {marginal:?}");
    }
}

#[test]
fn guidance_goes_linearly_from_the_first_token_to_the_last() {
    let schedule = |max_tokens, guidance_end| {
        let settings = Decoding {
            max_tokens,
            guidance_end,
            ..settings(Choice { guidance: 0.7, ..PLAIN })
        };
        (0..max_tokens).map(|t| settings.guidance_at(t)).collect::<Vec<_>>()
    };
    assert_eq!(schedule(5, None), [0.7; 5]);
    assert!(furthest(schedule(5, Some(2.7)), [0.7, 1.2, 1.7, 2.2, 2.7]) < 1e-12);
    let down = schedule(3, Some(0.0));
    assert!((down[1] - 0.35).abs() < 1e-12);
    assert_eq!((down[0], down[2]), (0.7, 0.0), "exact at both ends");
    assert_eq!(schedule(1, Some(9.0)), [0.7], "one token is the first");
}

#[test]
fn a_masked_token_is_never_drawn_however_much_guidance_favours_it() {
    // Shares of the largest: 1, 0.5, 0.05 and 0.01; guidance prefers the last by far.
    let own = [1.0, 0.5, 0.05, 0.01].map(f32::ln);
    let other = [1.0, 0.5, 0.05, 1e-9].map(f32::ln);
    let kept = |choice: Choice| -> Vec<u32> {
        let on_device = |u: f64| {
            let both = Tensor::from_data(TensorData::new([own, other].concat(), [2, 4]), &device());
            pick_on_device(both, 2, choice, &[choice.guidance], None, &[u])
                .into_data()
                .iter::<i64>()
                .next()
                .unwrap()
        };
        let mut seen: Vec<u32> = (0..1000)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 1000.0;
                let token = pick(&own, &[&other], None, choice, u);
                assert_eq!(on_device(u), i64::from(token));
                token
            })
            .collect();
        seen.push(pick(&own, &[&other], None, choice, 1.0 - f64::EPSILON));
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    let masked = |plausibility| Choice { plausibility, ..GUIDED };
    assert_eq!(kept(masked(0.0)), [3], "nearly always");
    assert_eq!(kept(masked(0.04)), [0, 1, 2]);
    assert_eq!(kept(masked(0.06)), [0, 1]);
    assert_eq!(kept(masked(1.0)), [0]);
    // It is on top of the nucleus, and what is left keeps its proportions.
    let n = (0..1000)
        .filter(|i| pick(&own, &[&other], None, masked(0.1), f64::from(*i) / 1000.0) == 0)
        .count();
    assert!((n as f64 / 1000.0 - 2.0 / 3.0).abs() < 0.002, "{n}");
}

#[test]
fn first_tokens_come_in_the_models_proportions() {
    let model = model();
    let decoder = Decoder::new(
        &model,
        &prompts(),
        Decoding {
            max_tokens: 1,
            ..settings(PLAIN)
        },
    )
    .unwrap();
    const DRAWS: usize = 6000;
    let requests: Vec<Request> = (0..DRAWS)
        .map(|i| Request {
            id: i as u64,
            attempt: 0,
            label: 1,
        })
        .collect();
    let drawn = decoder.decode(&requests, 500);
    let logits = next_logits(&model, &prompts()[1]);
    let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
    for (token, logit) in logits.iter().enumerate() {
        let p = f64::from(*logit).exp() / total;
        let wanted: &[u32] = if token as u32 == END { &[] } else { &[token as u32] };
        let seen = drawn.iter().filter(|d| d.as_slice() == wanted).count() as f64 / DRAWS as f64;
        let error = (p * (1.0 - p) / DRAWS as f64).sqrt();
        assert!(
            (seen - p).abs() < 5.0 * error + 1e-3,
            "token {token}: {seen} drawn, {p} wanted"
        );
    }
}

#[test]
fn an_end_token_ends_a_record_and_is_not_part_of_it() {
    let model = model();
    let decoder = Decoder::new(
        &model,
        &prompts(),
        Decoding {
            max_tokens: 60,
            ..settings(PLAIN)
        },
    )
    .unwrap();
    let drawn = decoder.decode(&requests(40), 16);
    assert!(drawn.iter().all(|r| r.len() <= 60 && !r.contains(&END)));
    assert!(drawn.iter().any(|r| r.len() < 60));
}

#[test]
fn records_that_do_not_fit_the_context_are_refused() {
    let model = model();
    let with = |max_tokens| {
        Decoder::new(
            &model,
            &prompts(),
            Decoding {
                max_tokens,
                ..settings(PLAIN)
            },
        )
    };
    let room = model.shape().context - 7;
    for max_tokens in [0, room + 1, usize::MAX] {
        assert_eq!(with(max_tokens).err().unwrap().kind(), Kind::Usage, "{max_tokens}");
    }
    let longer = with(room).unwrap().against(&[1; 8]);
    assert_eq!(
        longer.err().unwrap().kind(),
        Kind::Usage,
        "the marginal prompt counts too"
    );
    let drawn = with(room).unwrap().decode(&requests(3), 3);
    assert!(drawn.iter().all(|r| r.len() <= room));
}

// ---------------------------------------------------------------------------------------------- label counts

#[test]
fn a_uniform_prior_spreads_records_evenly() {
    let uniform = LabelPrior::Named(NamedPrior::Uniform);
    assert_eq!(prior::counts(&uniform, None, 2, 10).unwrap(), [5, 5]);
    assert_eq!(prior::counts(&uniform, None, 3, 11).unwrap(), [4, 4, 3]);
    assert_eq!(prior::counts(&uniform, None, 4, 2).unwrap(), [1, 1, 0, 0]);
    assert_eq!(prior::counts(&uniform, None, 3, 0).unwrap(), [0, 0, 0]);
}

#[test]
fn weights_are_kept_and_add_up() {
    let weights = LabelPrior::Weights(vec![1.0, 0.0, 2.5, 0.1]);
    for records in [0, 1, 7, 36, 1000, 99_999] {
        let counts = prior::counts(&weights, None, 4, records).unwrap();
        assert_eq!(counts.iter().sum::<usize>(), records);
        assert_eq!(counts[1], 0, "a label of weight 0 gets no record");
        for (n, w) in counts.iter().zip([1.0, 0.0, 2.5, 0.1]) {
            assert!(
                (*n as f64 - w / 3.6 * records as f64).abs() <= 1.0,
                "{counts:?} of {records}"
            );
        }
    }
}

#[test]
fn a_prior_that_makes_no_sense_is_refused() {
    for weights in [
        vec![1.0],
        vec![1.0, -1.0],
        vec![0.0, 0.0],
        vec![1.0, f64::NAN],
        vec![1.0, f64::INFINITY],
    ] {
        let error = prior::counts(&LabelPrior::Weights(weights), None, 2, 10).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }
}

#[test]
fn every_prefix_of_the_labels_has_about_the_priors_shares() {
    let labels = prior::labels(&[30, 10, 0, 60]);
    assert_eq!(labels.len(), 100);
    for n in [10, 33, 50, 100] {
        for (label, share) in [(0, 0.3), (1, 0.1), (2, 0.0), (3, 0.6)] {
            let seen = labels[..n].iter().filter(|l| **l == label).count() as f64;
            assert!(
                (seen - share * n as f64).abs() <= 1.0,
                "label {label} in the first {n}: {seen}"
            );
        }
    }
}

// ---------------------------------------------------------------------------------------------- shards

fn column(name: &str, names: &[&str]) -> LabelConfig {
    let names = names.iter().map(|n| n.to_string()).collect();
    LabelConfig {
        column: name.into(),
        names,
        names_file: None,
        written_as: None,
        kind: Default::default(),
        values: None,
    }
}

fn synthetic(n: usize, labels: usize) -> Vec<Synthetic> {
    (0..n)
        .map(|i| Synthetic {
            id: i as u64 * 2,
            label: i % labels,
            text: format!("record {i} 🎬\n\"x\","),
        })
        .collect()
}

fn read(path: &Path) -> (Vec<RecordBatch>, HashMap<String, String>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let metadata = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .cloned()
        .unwrap_or_default();
    let metadata = metadata
        .into_iter()
        .map(|kv| (kv.key, kv.value.unwrap_or_default()))
        .collect();
    (reader.build().unwrap().map(Result::unwrap).collect(), metadata)
}

fn texts<'a>(batch: &'a RecordBatch, column: &str) -> &'a StringArray {
    batch.column_by_name(column).unwrap().as_any().downcast_ref().unwrap()
}

fn integers<'a>(batch: &'a RecordBatch, column: &str) -> &'a Int64Array {
    batch.column_by_name(column).unwrap().as_any().downcast_ref().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn shards_hold_every_record_once_and_are_named_as_datasets_expects() {
    let folder = tempfile::tempdir().unwrap();
    let mut label = column("label", &["bad", "good"]);
    label.kind = ColumnKind::Integer;
    let labels = LabelSpace::from_config(&[label]).unwrap();
    let metadata = vec![
        ("dp.epsilon".to_string(), "8".to_string()),
        ("dp.delta".into(), "1e-5".into()),
    ];
    let schema = Schema {
        text: "review",
        labels: &labels,
        metadata,
    };
    let records = synthetic(25, 2);
    let shards = folder.path().join("synthetic");
    shards::write(&shards, &records, 10, &schema).unwrap();
    let expected = [
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ];
    assert_eq!(names(&shards), expected);
    assert_eq!(names(folder.path()), ["synthetic"], "nothing is left lying about");
    let mut seen = Vec::new();
    for (name, rows) in expected.iter().zip([10, 10, 5]) {
        let (batches, metadata) = read(&shards.join(name));
        assert_eq!(
            (metadata["dp.epsilon"].as_str(), metadata["dp.delta"].as_str()),
            ("8", "1e-5")
        );
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
        for batch in &batches {
            let schema = batch.schema();
            let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            assert_eq!(columns, ["id", "review", "label"]);
            let (ids, texts, labels) = (integers(batch, "id"), texts(batch, "review"), integers(batch, "label"));
            assert_eq!(labels.null_count(), 0);
            seen.extend((0..batch.num_rows()).map(|i| Synthetic {
                id: ids.value(i) as u64,
                label: labels.value(i) as usize,
                text: texts.value(i).to_string(),
            }));
        }
    }
    assert_eq!(seen, records);
}

#[test]
fn labels_are_written_as_their_declared_type() {
    let folder = tempfile::tempdir().unwrap();
    let mut stars = column("stars", &["one star", "five stars"]);
    stars.values = Some(vec!["1".into(), "5".into()]);
    stars.kind = ColumnKind::Integer;
    let labels = LabelSpace::from_config(&[column("topic", &["film", "book", "song"]), stars]).unwrap();
    let schema = Schema {
        text: "text",
        labels: &labels,
        metadata: vec![],
    };
    let shards = folder.path().join("out");
    shards::write(&shards, &synthetic(6, 6), 100, &schema).unwrap();
    assert_eq!(names(&shards), ["train-00000-of-00001.parquet"]);
    let (batches, _) = read(&shards.join("train-00000-of-00001.parquet"));
    let (topics, stars) = (texts(&batches[0], "topic"), integers(&batches[0], "stars"));
    let rows: Vec<(&str, i64)> = (0..6).map(|i| (topics.value(i), stars.value(i))).collect();
    assert_eq!(
        rows,
        [
            ("film", 1),
            ("film", 5),
            ("book", 1),
            ("book", 5),
            ("song", 1),
            ("song", 5)
        ]
    );
}

#[test]
fn no_record_makes_one_empty_shard() {
    let folder = tempfile::tempdir().unwrap();
    let labels = LabelSpace::from_config(&[column("label", &["bad", "good"])]).unwrap();
    let schema = Schema {
        text: "text",
        labels: &labels,
        metadata: vec![],
    };
    let shards = folder.path().join("out");
    shards::write(&shards, &[], 5, &schema).unwrap();
    assert_eq!(names(&shards), ["train-00000-of-00001.parquet"]);
    let (batches, _) = read(&shards.join("train-00000-of-00001.parquet"));
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[test]
fn writing_again_replaces_the_old_shards() {
    let folder = tempfile::tempdir().unwrap();
    let labels = LabelSpace::from_config(&[column("label", &["bad", "good"])]).unwrap();
    let schema = Schema {
        text: "text",
        labels: &labels,
        metadata: vec![],
    };
    let shards = folder.path().join("out");
    shards::write(&shards, &synthetic(25, 2), 5, &schema).unwrap();
    shards::write(&shards, &synthetic(4, 2), 2, &schema).unwrap();
    assert_eq!(
        names(&shards),
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    );
}

// ---------------------------------------------------------------------------------------------- scores

/// Drawn texts of all lengths, each with its end token unless it was cut off.
fn drawn(n: usize) -> Vec<Vec<u32>> {
    let decoder = Decoder::new(&model(), &prompts(), settings(PLAIN)).unwrap();
    let end = |mut tokens: Vec<u32>| {
        if tokens.len() < 24 {
            tokens.push(END);
        }
        tokens
    };
    decoder.decode(&requests(n), 8).into_iter().map(end).collect()
}

fn under_all(texts: &[Vec<u32>]) -> Vec<Text<'_>> {
    texts
        .iter()
        .map(|tokens| Text {
            tokens,
            labels: &[0, 1, 2],
        })
        .collect()
}

#[test]
fn a_score_is_the_sum_of_the_losses_that_training_sees() {
    let model = model();
    let mut texts = drawn(12);
    texts.push(vec![END]);
    let trainee = Trainee::new(&model);
    let placed = trainee.place(&Adapter::new(model.shape(), 2, 4.0, 0));
    for way in [Way::Memory, Way::Tensors] {
        let scores = Scorer::by(way, &model, &prompts()).score(&under_all(&texts));
        for (tokens, scores) in texts.iter().zip(scores) {
            for (label, prompt) in prompts().into_iter().enumerate() {
                let record = Encoded {
                    prompt: prompt.len(),
                    tokens: [prompt, tokens.clone()].concat(),
                    label,
                };
                let wanted = -trainee.losses(&placed, &[&record])[0] * tokens.len() as f64;
                assert!((scores[label] - wanted).abs() < 1e-4 * wanted.abs(), "{way:?} {label}");
            }
        }
    }
}

#[test]
fn a_score_is_that_of_the_logits_that_decoding_draws_from() {
    let model = model();
    let texts = drawn(3);
    let scores = Scorer::new(&model, &prompts()).score(&under_all(&texts));
    for (tokens, scores) in texts.iter().zip(scores) {
        for (prompt, score) in prompts().iter().zip(scores) {
            let step = |n: usize| {
                let logits = next_logits(&model, &[prompt.as_slice(), &tokens[..n]].concat());
                let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
                f64::from(logits[tokens[n] as usize]) - total.ln()
            };
            let wanted: f64 = (0..tokens.len()).map(step).sum();
            assert!((score - wanted).abs() < 1e-4 * wanted.abs());
        }
    }
}

#[test]
fn a_score_does_not_depend_on_what_is_scored_with_it_or_by_whom() {
    let model = model();
    let texts = drawn(40);
    let scorer = Scorer::new(&model, &prompts());
    let texts = under_all(&texts);
    let alone: Vec<Vec<f64>> = texts.iter().flat_map(|t| scorer.score(&[*t])).collect();
    assert_eq!(scorer.score(&texts), alone, "all at once");
    let one_label: Vec<f64> = texts
        .iter()
        .map(|t| scorer.score(&[Text { labels: &[2], ..*t }])[0][0])
        .collect();
    assert_eq!(one_label, alone.iter().map(|s| s[2]).collect::<Vec<_>>());
    for workers in [1, 3] {
        let (mut found, stop) = (vec![vec![]; texts.len()], AtomicBool::new(false));
        let take = |i: usize, values| {
            found[i] = values;
            Ok(())
        };
        assert!(scorer.score_on(&Workers::with(workers), &texts, &stop, take).unwrap());
        assert_eq!(found, alone, "{workers} workers");
    }
}

#[test]
fn scoring_stops_when_it_is_told_to_or_what_it_found_cannot_be_kept() {
    let model = model();
    let texts = drawn(40);
    let (scorer, workers) = (Scorer::new(&model, &prompts()), Workers::with(2));
    let stopped = AtomicBool::new(true);
    let never = |_, _| panic!("nothing is scored");
    assert!(!scorer.score_on(&workers, &under_all(&texts), &stopped, never).unwrap());
    let go = AtomicBool::new(false);
    let refused = scorer.score_on(&workers, &under_all(&texts), &go, |_, _| {
        Err(dpsynth::Error::other("no room"))
    });
    assert_eq!(refused.unwrap_err().to_string(), "no room");
}

// ---------------------------------------------------------------------------------------------- refinement

fn refine(action: RefineAction, min_posterior: f64) -> RefineConfig {
    RefineConfig {
        action,
        min_posterior,
        ..RefineConfig::default()
    }
}

/// A candidate of two labels that shows label 1 by `ratio` nats more than label 0.
fn shows(request: Request, ratio: f64) -> Candidate {
    let score = |label| Score {
        label,
        log_p: -40.0 - request.id as f64 + ratio * label as f64,
    };
    Candidate {
        request,
        scores: vec![score(request.label), score(1 - request.label)],
    }
}

#[test]
fn without_refinement_the_first_round_is_all_there_is() {
    let mut refinement = Refinement::new(&RefineConfig::default(), vec![0, 1, 1], 2, 0);
    let open = refinement.open();
    assert_eq!(
        open.iter().map(|r| (r.id, r.label, r.attempt)).collect::<Vec<_>>(),
        [(0, 0, 0), (1, 1, 0), (2, 1, 0)]
    );
    assert!(refinement.labels_of(open[0]).is_empty(), "nothing is scored");
    // The second came out blank.
    let drawn = [0, 2].map(|i| Candidate {
        request: open[i],
        scores: vec![],
    });
    refinement.take(drawn.to_vec());
    assert!(refinement.open().is_empty());
    let (taken, outcome) = refinement.end();
    assert_eq!(
        taken.iter().map(|t| (t.place, t.label)).collect::<Vec<_>>(),
        [(0, 0), (2, 1)]
    );
    assert_eq!(
        (outcome.agreement, outcome.labels[1].missing, outcome.labels[1].dropped),
        (None, 1, 1)
    );
}

#[test]
fn only_what_passes_is_kept_and_the_rest_is_drawn_anew_until_the_rounds_are_over() {
    let config = RefineConfig {
        rounds: 3,
        centred: false,
        ..refine(RefineAction::Drop, 0.7)
    };
    let mut refinement = Refinement::new(&config, vec![0, 1, 0, 1], 2, 0);
    // p(1|x) = 1 / (1 + e^−ratio): 0.7 lies at 0.8473.
    let rounds: [&[f64]; 3] = [&[1.0, 0.85, -0.84, -0.1], &[-0.85, 0.9, 0.84], &[-0.85, 0.84]];
    for (round, ratios) in rounds.into_iter().enumerate() {
        let open = refinement.open();
        assert!(open.iter().all(|r| r.attempt == round as u64 * TRIES));
        assert_eq!(open.len(), ratios.len(), "round {round}");
        refinement.take(open.iter().zip(ratios).map(|(r, ratio)| shows(*r, *ratio)).collect());
    }
    assert!(refinement.open().is_empty(), "three rounds");
    let (taken, outcome) = refinement.end();
    assert!(taken.iter().all(|t| t.posterior.unwrap() >= 0.7));
    let taken: Vec<(u64, usize, u64)> = taken.iter().map(|t| (t.place, t.label, t.request.attempt)).collect();
    assert_eq!(taken, [(0, 0, TRIES), (1, 1, 0), (2, 0, 2 * TRIES)]);
    let counted = |wanted, drawn, kept, dropped, missing| LabelOutcome {
        wanted,
        drawn,
        kept,
        relabelled: 0,
        dropped,
        missing,
    };
    assert_eq!(outcome.labels, [counted(2, 5, 2, 3, 0), counted(2, 4, 1, 3, 1)]);
    assert_eq!(
        (outcome.rounds, outcome.agreement),
        (3, Some(0.5)),
        "ids 1 and 2 of the first four show their label"
    );
}

/// Two labels, scored; `others` at most.
fn many(labels: usize, others: usize) -> (RefineConfig, Vec<usize>) {
    let config = RefineConfig {
        labels: others,
        ..refine(RefineAction::Score, 0.0)
    };
    (config, (0..200).map(|i| i % labels).collect())
}

#[test]
fn a_record_is_scored_under_its_own_label_and_a_few_others() {
    let (config, wanted) = many(10, 3);
    let refinement = Refinement::new(&config, wanted.clone(), 10, 7);
    let again = Refinement::new(&config, wanted.clone(), 10, 7);
    let other_seed = Refinement::new(&config, wanted.clone(), 10, 8);
    let mut seen = [0; 10];
    let mut differs = (false, false);
    for request in refinement.open() {
        let labels = refinement.labels_of(request);
        assert_eq!((labels.len(), labels[0]), (4, request.label));
        let distinct: std::collections::HashSet<&usize> = labels.iter().collect();
        assert!(distinct.len() == 4 && labels.iter().all(|l| *l < 10));
        labels[1..].iter().for_each(|l| seen[*l] += 1);
        assert_eq!(again.labels_of(request), labels);
        differs.0 |= other_seed.labels_of(request) != labels;
        let next = Request {
            attempt: TRIES,
            ..request
        };
        differs.1 |= refinement.labels_of(next) != labels;
        // A try after a blank one is of the same round.
        assert_eq!(
            refinement.labels_of(Request {
                attempt: TRIES - 1,
                ..request
            }),
            labels
        );
    }
    assert_eq!(differs, (true, true), "by seed and by round");
    assert!(seen.iter().all(|n| (30..=90).contains(n)), "60 each: {seen:?}");
    let (config, wanted) = many(3, 15);
    let refinement = Refinement::new(&config, wanted, 3, 7);
    let mut labels = refinement.labels_of(refinement.open()[1]);
    assert_eq!(labels[0], 1);
    labels.sort_unstable();
    assert_eq!(labels, [0, 1, 2], "all where they are few");
}

#[test]
fn a_posterior_is_the_softmax_of_the_likelihoods_less_their_bias() {
    let score = |label, log_p| Score { label, log_p };
    let scores = [score(1, -1000.0), score(0, -1001.0), score(2, -1002.0)];
    let p = posterior(&scores, &[]);
    let total = 1.0 + (-1f64).exp() + (-2f64).exp();
    for ((label, p), (wanted, log)) in p.iter().zip([(1, 0.0), (0, -1.0), (2, -2f64)]) {
        assert!(*label == wanted && (p - log.exp() / total).abs() < 1e-12);
    }
    // A bias of label 1 by two nats turns it over.
    let p = posterior(&scores, &[0.0, 2.0, 0.0]);
    assert!((p[0].1 - (-1f64).exp() / (1.0 + 2.0 * (-1f64).exp())).abs() < 1e-12 && p[1].1 > p[0].1);
    assert!((p.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn the_bias_between_labels_is_found_whatever_the_prior_and_however_few_labels_are_scored() {
    let leaning = [3.0, -1.0, 0.5, -2.5];
    for (others, uneven) in [(3, false), (3, true), (1, false), (2, true)] {
        let config = RefineConfig {
            labels: others,
            ..refine(RefineAction::Score, 0.0)
        };
        let wanted: Vec<usize> = (0..400)
            .map(|i| if uneven && i % 2 == 0 { 0 } else { i / 2 % 4 })
            .collect();
        let refinement = Refinement::new(&config, wanted, 4, 1);
        let candidate = |request: Request| Candidate {
            request,
            scores: refinement
                .labels_of(request)
                .into_iter()
                .map(|label| {
                    // Text of its own likelihood, two nats of evidence for its own label.
                    let evidence = if label == request.label { 2.0 } else { 0.0 };
                    let log_p = -60.0 - (request.id * 37 % 101) as f64 + leaning[label] + evidence;
                    Score { label, log_p }
                })
                .collect(),
        };
        let candidates: Vec<Candidate> = refinement.open().into_iter().map(candidate).collect();
        let found = bias(&candidates, 4);
        // Exact where all are scored, whatever the prior; else evidence does not meet each pair equally often.
        let close = if others == 3 { 1e-6 } else { 0.5 };
        assert!(furthest(found.clone(), leaning) < close, "{others} {uneven}: {found:?}");
        assert!(found.iter().sum::<f64>().abs() < 1e-6);
    }
    assert_eq!(bias(&[], 2), [0.0, 0.0], "nothing was drawn");
}

#[test]
fn centring_lets_both_labels_pass_alike() {
    let centred = |centred| {
        let config = RefineConfig {
            centred,
            rounds: 1,
            ..refine(RefineAction::Drop, 0.6)
        };
        let mut refinement = Refinement::new(&config, vec![0, 1, 0, 1, 0, 1], 2, 0);
        let open = refinement.open();
        // All lean to label 1 by 5 nats, and show their own by 1.
        let lean = |r: &Request| shows(*r, 5.0 + if r.label == 1 { 1.0 } else { -1.0 });
        refinement.take(open.iter().map(lean).collect());
        refinement.end().1
    };
    let (with, without) = (centred(true), centred(false));
    assert_eq!(with.labels.iter().map(|l| l.kept).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(with.agreement, Some(1.0));
    assert!(furthest(with.bias, [-2.5, 2.5]) < 1e-9);
    assert_eq!(without.labels.iter().map(|l| l.kept).collect::<Vec<_>>(), [0, 3]);
    assert_eq!((without.agreement, without.bias.len()), (Some(0.5), 0));
}

#[test]
fn a_relabelled_record_takes_a_place_that_wants_what_it_shows() {
    let config = RefineConfig {
        centred: false,
        rounds: 3,
        ..refine(RefineAction::Relabel, 0.7)
    };
    let mut refinement = Refinement::new(&config, vec![0, 1, 0, 1, 0], 2, 0);
    let round = |refinement: &mut Refinement, ratios: &[f64]| {
        let open = refinement.open();
        assert_eq!(open.len(), ratios.len());
        refinement.take(open.iter().zip(ratios).map(|(r, ratio)| shows(*r, *ratio)).collect());
    };
    // Places 0 and 2 show label 1: one takes the place of 3, which shows nothing; the other finds none. 1 and 4 are right.
    round(&mut refinement, &[5.0, 5.0, 5.0, 0.1, -5.0]);
    assert_eq!(refinement.open().iter().map(|r| r.id).collect::<Vec<_>>(), [0, 2]);
    // What shows a label that nobody wants any more is dropped.
    round(&mut refinement, &[5.0, -5.0]);
    round(&mut refinement, &[-5.0]);
    assert!(refinement.open().is_empty());
    let (taken, outcome) = refinement.end();
    let taken: Vec<(u64, u64, usize)> = taken.iter().map(|t| (t.place, t.request.id, t.label)).collect();
    assert_eq!(taken, [(0, 0, 0), (1, 1, 1), (2, 2, 0), (3, 0, 1), (4, 4, 0)]);
    let of = |l: usize| {
        let o = outcome.labels[l];
        [o.wanted, o.drawn, o.kept, o.relabelled, o.dropped, o.missing]
    };
    assert_eq!([of(0), of(1)], [[3, 6, 3, 0, 2, 0], [2, 2, 2, 1, 1, 0]]);
}

#[test]
fn scoring_alone_keeps_all_and_says_how_well_labels_show() {
    let config = RefineConfig {
        centred: false,
        ..refine(RefineAction::Score, 0.9)
    };
    let mut refinement = Refinement::new(&config, vec![0, 1], 2, 0);
    let open = refinement.open();
    refinement.take(vec![shows(open[1], -1.0), shows(open[0], -1.0)]);
    assert!(refinement.open().is_empty());
    let (taken, outcome) = refinement.end();
    assert_eq!(taken.len(), 2);
    assert_eq!(outcome.agreement, Some(0.5));
    assert!((outcome.mean_posterior.unwrap() - 0.5).abs() < 1e-12, "p and 1 − p");
}

// ---------------------------------------------------------------------------------------------- the stage

/// Id, text and label of each record.
type Rows = Vec<(i64, String, String)>;

/// A run of the tiny model that is trained; its sampling stage takes a fraction of a second.
struct Trained(Place);

impl Trained {
    fn new() -> Self {
        let trained = Trained(Place::new());
        trained.stage("prepare", &[]);
        trained.stage("finetune", &[]);
        trained
    }

    fn arguments(more: &[&str]) -> Vec<String> {
        let model = format!("model.path={:?}", fixture("model.gguf"));
        let set = [&model, "finetune.steps=1", "sample.records=40", "sample.max_tokens=3"];
        let plain = ["sample.temperature=5.0", "sample.guidance=0"];
        let set = set.iter().chain(&plain).chain(more);
        set.flat_map(|s| ["--set".to_string(), s.to_string()]).collect()
    }

    fn call(&self, stage: &str, more: &[&str]) -> common::Said {
        let arguments = Trained::arguments(more);
        self.0
            .stage(stage, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[track_caller]
    fn stage(&self, stage: &str, more: &[&str]) -> common::Said {
        let said = self.call(stage, more);
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    }

    /// Texts and labels of both arms, and what is said of them.
    fn sampled(&self) -> [(Rows, String); 2] {
        ["synthetic", "zero_shot"].map(|arm| {
            let (batches, _) = read(&self.0.run(&format!("{arm}/train-00000-of-00001.parquet")));
            let rows = batches.iter().flat_map(|b| {
                let (ids, labels) = (integers(b, "id"), texts(b, "label"));
                let row = |i: usize| (ids.value(i), texts(b, "text").value(i).into(), labels.value(i).into());
                (0..b.num_rows()).map(row).collect::<Vec<_>>()
            });
            (
                rows.collect(),
                self.0.text(&format!("runs/tiny-quick/sampling/{arm}.json")),
            )
        })
    }

    /// Takes back that sampling is done, and leaves of the first arm's journals what a kill at some moment leaves.
    fn killed(&self, drawn: &[String], scores: &[String]) {
        let stamp = "runs/tiny-quick/internal/stamps/sample.json";
        let text = self.0.text(stamp);
        assert!(text.contains("\"done\":true"));
        self.0.write(stamp, text.replace("\"done\":true", "\"done\":false"));
        for folder in ["synthetic", "zero_shot", "sampling"] {
            std::fs::remove_dir_all(self.0.run(folder)).unwrap();
        }
        let torn = |lines: &[String]| lines.iter().map(|l| l.clone() + "\n").collect::<String>() + "{\"id\":3,\"la";
        self.0.write("runs/tiny-quick/work/synthetic.jsonl", torn(drawn));
        self.0
            .write("runs/tiny-quick/work/synthetic-scores.jsonl", torn(scores));
    }
}

const REFINED: &str = "sample.refine.min_posterior=0.8";
/// Leaves places open for another round.
const DROPPED: &str = "sample.refine.action=drop";

#[test]
fn killed_at_any_moment_refinement_comes_to_the_same_records() {
    let (run, refined) = (Trained::new(), [REFINED, DROPPED]);
    run.stage("sample", &refined);
    let whole = run.sampled();
    let (drawn, scores) = (
        run.0.lines("work/synthetic.jsonl"),
        run.0.lines("work/synthetic-scores.jsonl"),
    );
    let second = |lines: &[String]| lines.iter().position(|l| l.contains("\"round\":1")).unwrap();
    let (d, s) = (second(&drawn), second(&scores));
    assert!(
        d == 40 && s <= d && drawn.len() > 45 && whole[0].0.len() < 40,
        "there is something to draw anew"
    );
    for (drawn, scores) in [
        (&drawn[..17], &scores[..0]),
        (&drawn[..d], &scores[..s - 9]),
        (&drawn[..d + 5], &scores[..s]),
        (&drawn[..], &scores[..scores.len() - 1]),
    ] {
        run.killed(drawn, scores);
        run.stage("sample", &refined);
        assert_eq!(
            run.sampled(),
            whole,
            "killed after {} records, {} scores",
            drawn.len(),
            scores.len()
        );
        assert!(
            run.0.lines("work/synthetic.jsonl").starts_with(drawn),
            "what was drawn is kept"
        );
    }
    // Neither does it depend on how many are drawn at once.
    run.stage("sample", &[REFINED, DROPPED, "sample.batch_size=7"]);
    assert_eq!(run.sampled(), whole);
}

/// The stage has them in its folder, and comes to the same records without.
#[test]
fn refinement_never_looks_at_private_records() {
    let run = Trained::new();
    run.stage("sample", &[REFINED]);
    let whole = run.sampled();
    run.killed(&[], &[]);
    for file in ["train", "test"] {
        run.0
            .write(&format!("runs/tiny-quick/internal/{file}.parquet"), "no records");
    }
    run.stage("sample", &[REFINED]);
    assert_eq!(run.sampled(), whole);
}

#[test]
fn what_is_dropped_is_reported_for_both_arms() {
    let run = Trained::new();
    let count = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    for action in ["drop", "relabel", "score"] {
        let said = run.stage("sample", &[REFINED, &format!("sample.refine.action={action}")]);
        for (arm, (rows, report)) in ["synthetic", "zero_shot"].iter().zip(run.sampled()) {
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            let [wanted, drawn, kept, dropped, missing, relabelled] =
                ["wanted", "drawn", "kept", "dropped", "missing", "relabelled"].map(|k| count(&report[k]));
            assert_eq!((wanted, kept, report["arm"].as_str()), (40, rows.len(), Some(*arm)));
            assert_eq!((drawn, wanted), (kept + dropped, kept + missing), "{report}");
            assert!(said.stderr.contains(&format!(
                "{arm}: {kept} of 40 records are kept, {dropped} of {drawn} drawn were dropped, {relabelled} bear"
            )));
            assert_eq!((relabelled > 0, dropped > 0), (action == "relabel", action != "score"));
            for label in report["labels"].as_array().unwrap() {
                let of_label = rows.iter().filter(|(.., l)| label["name"] == **l).count();
                assert_eq!((count(&label["wanted"]), count(&label["kept"])), (20, of_label));
                assert_eq!(of_label + count(&label["missing"]), 20);
            }
            let share = |key: &str| report[key].as_f64().unwrap();
            assert!((0.25..=1.0).contains(&share("agreement")) && (0.25..=1.0).contains(&share("mean_posterior")));
            assert_eq!(share("kept_mean_posterior") >= 0.8, action != "score");
        }
    }
    let said = run.stage("sample", &[]);
    let report = &run.sampled()[0].1;
    assert!(
        !said.stderr.contains("kept,") && report.contains("\"agreement\": null"),
        "{said:?}"
    );
    assert!(
        run.0.lines("work/synthetic-scores.jsonl").is_empty(),
        "nothing is scored"
    );
}

#[test]
fn guidance_is_found_from_what_the_model_says_of_its_own_records() {
    let run = Trained::new();
    let found = |run: &Trained| {
        run.sampled().map(|(rows, report)| {
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            (rows, report["guidance"].clone())
        })
    };
    // Longer records than elsewhere here: over so few tokens nothing shows a label.
    let long = "sample.max_tokens=12";
    let auto = ["sample.guidance=auto", long];
    let said = run.stage("sample", &auto);
    let first = found(&run);
    for (arm, (rows, guidance)) in ["synthetic", "zero_shot"].iter().zip(&first) {
        let tried = guidance["tried"].as_array().expect("rungs");
        assert!((1..=3).contains(&tried.len()), "{guidance}");
        let gamma = guidance["guidance"].as_f64().expect("a number");
        assert!((0.0..=4.0).contains(&gamma), "{guidance}");
        // What the label shows decides: the number lies between the last that shows it too little and the first that
        // shows it enough. A pilot is noise too, so beyond that the figures need not rise.
        let number = |of: &serde_json::Value, key: &str| of[key].as_f64().expect("a number");
        let enough = tried.partition_point(|t| number(t, "mean_posterior") < 0.85);
        assert!(
            tried[enough..].iter().all(|t| number(t, "mean_posterior") >= 0.85),
            "{guidance}"
        );
        let (below, above) = tried.split_at(enough);
        let least = below.last().map_or(0.0, |t| number(t, "guidance"));
        let most = above.first().map_or(4.0, |t| number(t, "guidance"));
        assert!((least..=most).contains(&gamma), "{guidance}");
        assert!(
            said.stderr
                .contains(&format!("{arm}: guidance {gamma:.2}, for a mean posterior of 0.85")),
            "{said:?}"
        );
        // The arm is the one that this number draws.
        run.stage("sample", &[&format!("sample.guidance={gamma}"), long]);
        assert_eq!(&run.sampled()[usize::from(*arm == "zero_shot")].0, rows, "{arm}");
        assert_eq!(found(&run)[0].1, serde_json::Value::Null, "a given one was not found");
        assert!(
            !run.0.path(&format!("runs/tiny-quick/work/{arm}-guidance")).exists(),
            "its pilots are gone"
        );
    }
    run.stage("sample", &auto);
    assert_eq!(found(&run), first, "the same again");
    run.call("sample", &["sample.guidance=auto", "sample.guidance_end=2"])
        .refused(
            2,
            &["`sample.guidance_end` goes on from a `sample.guidance` that is a number"],
        );
    run.call("sample", &["sample.guidance=much"])
        .refused(2, &["expected a number from 0 or \"auto\""]);
}

#[test]
fn a_marginal_prompt_may_come_after_training_and_changes_sampling_alone() {
    let run = Trained::new();
    let texts = |more: &[&str]| {
        run.stage("sample", more);
        run.sampled().map(|(rows, _)| rows)
    };
    let (marginal, against) = (
        "prompt.marginal=Write a film review.",
        "sample.guidance_contrast=marginal",
    );
    let plain = texts(&[]);
    let by_labels = texts(&["sample.guidance=2"]);
    let by_marginal = texts(&["sample.guidance=2", marginal, against]);
    assert!(plain != by_labels && by_labels != by_marginal && plain != by_marginal);
    assert_eq!(
        texts(&["sample.guidance=2", marginal]),
        by_labels,
        "it is there and not asked for"
    );
    assert_eq!(
        texts(&[marginal, against, "sample.guidance_plausibility=0.5"]),
        plain,
        "nothing is guided"
    );
    let rising = texts(&[marginal, against, "sample.guidance_end=4"]);
    assert!(rising != plain && rising != by_marginal);

    run.call("sample", &[against])
        .refused(2, &["no prompt without a label", "prompt.marginal ="]);
    run.call(
        "prepare",
        &["name=other", against, "prompt.marginal=A {{ label }} review."],
    )
    .refused(
        2,
        &["`prompt.marginal`", "does not render", "without its label columns"],
    );
    for (set, message) in [
        ("sample.guidance_end=-1", "`sample.guidance_end` must be 0 or more"),
        (
            "sample.guidance_plausibility=1.5",
            "`sample.guidance_plausibility` must be from 0 to 1",
        ),
        (
            "sample.refine.min_posterior=1",
            "`sample.refine.min_posterior` must be 0 or more and below 1",
        ),
        ("sample.refine.rounds=0", "`sample.refine.rounds` must be at least 1"),
        ("sample.refine.labels=0", "`sample.refine.labels` must be at least 1"),
        ("sample.refine.action=keep", "unknown variant `keep`"),
        ("sample.refine.margin=1", "unknown field `margin`"),
    ] {
        run.call("sample", &[set]).refused(2, &[message]);
    }
}
