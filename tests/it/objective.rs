//! The objective that carries the label: its gradient against differences of its own loss, its bound, its neighbours; and
//! the optimizer that knows the noise.

use crate::support::*;
use dpsynth::config::{
    Clipping, FinetuneConfig, LabelConfig, ObjectiveConfig, Precision, PromptConfig, WarmStartConfig,
};
use dpsynth::machine::workers::Workers;
use dpsynth::models::LanguageModel;
use dpsynth::models::weights::Weights;
use dpsynth::records::{Encoded, LabelSpace, Question, Units};
use dpsynth::training::clip::Clip;
use dpsynth::training::contribution::Contribution;
use dpsynth::training::gradients::{Compute, Trainee};
use dpsynth::training::memory::AtOnce;
use dpsynth::training::objective::Objective;
use dpsynth::training::optimizer::{Optimizer, Rule};
use dpsynth::training::trainable::Trainable;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const COMPUTE: Compute = Compute {
    precision: Precision::F32,
    activation_checkpointing: false,
};

/// Prompts of different lengths, one a label.
fn prompts(labels: usize) -> Vec<Vec<u32>> {
    let prompt = |label: usize| {
        (0..3 + label % 3)
            .map(|i| (17 * label + 5 * i + 3) as u32 % 300)
            .collect()
    };
    (0..labels).map(prompt).collect()
}

/// Ends a record; no other token of it is this.
const END: u32 = 2;

fn records(n: usize, prompts: &[Vec<u32>], seed: u64) -> Vec<Encoded> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let record = |i: usize| {
        let label = i % prompts.len();
        let own = (0..rng.random_range(2..=20)).map(|_| rng.random_range(3..300));
        Encoded {
            tokens: prompts[label].iter().copied().chain(own).chain([END]).collect(),
            prompt: prompts[label].len(),
            label,
        }
    };
    (0..n).map(record).collect()
}

/// A question of five tokens around the text, with answers of different lengths.
fn question(config: &ObjectiveConfig, labels: usize) -> Option<Question> {
    let answer = |label: usize| {
        let words = (0..1 + label % 2).map(|i| (40 + 7 * label + i) as u32);
        words.chain([END]).collect()
    };
    (config.label_words > 0.0).then(|| Question {
        before: vec![11, 12, 13],
        after: vec![14, 15],
        answers: (0..labels).map(answer).collect(),
        end: END,
    })
}

fn rewarding(model: &LanguageModel, config: &ObjectiveConfig, prompts: &[Vec<u32>]) -> Trainee {
    let question = question(config, prompts.len());
    Trainee::with(model, COMPUTE, Objective::new(config, prompts, question))
}

/// The loss as the documentation has it, from the plain losses behind every prompt.
fn loss(
    model: &LanguageModel,
    state: &dyn Trainable,
    record: &Encoded,
    prompts: &[Vec<u32>],
    config: &ObjectiveConfig,
) -> f64 {
    let own = &record.tokens[record.prompt..];
    let behind = |prompt: &Vec<u32>| Encoded {
        tokens: prompt.iter().chain(own).copied().collect(),
        prompt: prompt.len(),
        label: 0,
    };
    let trainee = Trainee::new(model);
    let placed = trainee.place(state);
    let losses: Vec<f64> = prompts
        .iter()
        .map(|p| trainee.losses(&placed, &[&behind(p)])[0])
        .collect();
    let n = own.len() as f64;
    let total: f64 = losses.iter().map(|l| (-n * l).exp()).sum();
    let posterior = (-n * losses[record.label]).exp() / total;
    let others = losses.iter().sum::<f64>() - losses[record.label];
    let named = question(config, prompts.len()).map_or(0.0, |q| {
        // The end of the record does not stand before the question.
        let text: Vec<u32> = own.iter().copied().filter(|t| *t != END).collect();
        let asked = [&q.before[..], &text, &q.after].concat();
        let answered = Encoded {
            tokens: [&asked[..], &q.answers[record.label]].concat(),
            prompt: asked.len(),
            label: 0,
        };
        trainee.losses(&placed, &[&answered])[0]
    });
    losses[record.label] - config.contrast * posterior.ln() / n - config.mismatch * others / (prompts.len() - 1) as f64
        + config.label_words * named
}

fn gradient(trainee: &Trainee, state: &dyn Trainable, record: &Encoded) -> Vec<f32> {
    trainee.plain_sum(&trainee.place(state), &[record]).values()
}

#[test]
fn its_gradient_is_the_slope_of_its_loss() {
    let (model, prompts) = (model(), prompts(3));
    let config = ObjectiveConfig {
        contrast: 3.0,
        mismatch: 0.25,
        labels: 2,
        label_words: 1.5,
    };
    let trainee = rewarding(&model, &config, &prompts);
    let (lora, full) = (adapter(&model), Weights::of(&model));
    for record in &records(3, &prompts, 1) {
        let slope = |state: &mut dyn Trainable| {
            let g = gradient(&trainee, state, record);
            let length = norm(g.iter().copied());
            let start = state.values().to_vec();
            // Along the gradient itself the loss rises by its norm.
            let mut at = |step: f64| {
                let moved = state.values_mut().iter_mut().zip(&start).zip(&g);
                moved.for_each(|((v, s), g)| *v = (f64::from(*s) + step * f64::from(*g) / length) as f32);
                loss(&model, state, record, &prompts, &config)
            };
            let h = 2e-3;
            ((at(h) - at(-h)) / (2.0 * h), length)
        };
        for (measured, length) in [slope(&mut lora.clone()), slope(&mut full.clone())] {
            assert!((measured / length - 1.0).abs() < 0.02, "{measured} and {length}");
        }
    }
}

#[test]
fn norms_and_losses_are_those_of_the_whole_record() {
    let (model, prompts) = (model(), prompts(4));
    let config = ObjectiveConfig {
        contrast: 2.0,
        labels: 3,
        label_words: 0.5,
        ..ObjectiveConfig::default()
    };
    let trainee = rewarding(&model, &config, &prompts);
    let records = records(6, &prompts, 2);
    let clip = Clip::new(Clipping::Flat, 1e9);
    let (lora, full) = (adapter(&model), Weights::of(&model));
    for state in [&lora as &dyn Trainable, &full] {
        let placed = trainee.place(state);
        let got = trainee.clipped_sum(&placed, &records.iter().collect::<Vec<_>>(), clip);
        let mut sum = vec![0f64; state.values().len()];
        let text = Trainee::new(&model);
        for (i, record) in records.iter().enumerate() {
            let g = gradient(&trainee, state, record);
            assert!((got.norms[i] / norm(g.iter().copied()) - 1.0).abs() < 1e-4);
            assert!((got.losses[i] / text.losses(&placed, &[record])[0] - 1.0).abs() < 1e-4);
            sum.iter_mut().zip(g).for_each(|(s, g)| *s += f64::from(g));
        }
        assert!(distance(&got.values(), &sum) / norm(sum.iter().copied()) < 1e-4);
    }
}

#[test]
fn the_text_alone_is_what_it_was() {
    let (model, prompts) = (model(), prompts(2));
    let records = records(5, &prompts, 3);
    let records: Vec<&Encoded> = records.iter().collect();
    let clip = Clip::new(Clipping::Automatic, 1.0);
    let of = |trainee: Trainee| {
        trainee
            .clipped_sum(&trainee.place(&adapter(&model)), &records, clip)
            .values()
    };
    let off = ObjectiveConfig::default();
    assert_eq!(of(Trainee::new(&model)), of(rewarding(&model, &off, &prompts)));
}

#[test]
fn p5_sensitivity_holds_with_an_objective_over_labels() {
    let (model, prompts) = (model(), prompts(7));
    let config = ObjectiveConfig {
        contrast: 8.0,
        mismatch: 0.5,
        // Some of the other labels: which ones must not depend on a neighbour.
        labels: 2,
        label_words: 4.0,
    };
    let records = records(14, &prompts, 4);
    let workers = Workers::with(2);
    let (lora, full) = (adapter(&model), Weights::of(&model));
    for state in [&lora as &dyn Trainable, &full] {
        for clipping in [Clipping::Automatic, Clipping::Flat] {
            let contribution = Contribution {
                trainee: &rewarding(&model, &config, &prompts),
                workers: &workers,
                clip: Clip::new(clipping, 0.7),
                micro_batch_size: AtOnce::new(3),
            };
            let units = Units::of_records(records.clone());
            let base: Vec<usize> = (0..10).collect();
            let without = contribution.sum(state, &units, &base).sum;
            for x in 10..14 {
                let with = contribution.sum(state, &units, &[&base[..], &[x]].concat()).sum;
                let moved = distance(&with, &without) / 0.7;
                assert!(moved <= 1.0 + 1e-6 && moved > 0.5, "{clipping:?}: {moved}");
            }
        }
    }
}

#[test]
fn p5_a_records_other_labels_depend_on_itself_alone() {
    let prompts = prompts(9);
    let config = ObjectiveConfig {
        contrast: 1.0,
        labels: 3,
        ..ObjectiveConfig::default()
    };
    let objective = Objective::new(&config, &prompts, None);
    let records = records(30, &prompts, 5);
    let labels = |records: &[&Encoded]| -> Vec<usize> { objective.rows(records).iter().map(|r| r.label).collect() };
    let all: Vec<&Encoded> = records.iter().collect();
    let together = labels(&all);
    let mut chosen = std::collections::HashSet::new();
    for (record, together) in all.iter().zip(together.chunks(4)) {
        assert_eq!(labels(&[record]), together);
        assert_eq!(together[0], record.label);
        let different: std::collections::HashSet<_> = together.iter().collect();
        assert_eq!(different.len(), 4);
        chosen.extend(together[1..].to_vec());
    }
    assert_eq!(chosen.len(), 9, "every label is somebody's other");
}

#[test]
fn a_question_holds_the_text_and_is_answered_by_the_labels_words() {
    let vocabulary = vocabulary();
    let label: LabelConfig = toml::from_str("column = \"label\"\nnames = [\"poor\", \"very good\"]").unwrap();
    let labels = LabelSpace::from_config(&[label]).unwrap();
    let prompt = |question: Option<&str>| PromptConfig {
        plain: None,
        system: None,
        user: "{{ label }}".into(),
        marginal: None,
        question: question.map(str::to_string),
    };
    let question = Question::new(&prompt(Some("Read: {{ text }} Is it good?")), &labels, &vocabulary).unwrap();
    let text = vocabulary.prompt("a film").unwrap();
    let record = Encoded {
        tokens: [&[5, 6][..], &text, &[vocabulary.end()]].concat(),
        prompt: 2,
        label: 1,
    };
    let asked = question.ask(&record);
    let (before, answer) = asked.tokens.split_at(asked.prompt);
    let shown = vocabulary.decode(before).unwrap();
    assert!(shown.contains("Read: a film Is it good?"), "{shown}");
    assert_eq!(answer.last(), Some(&vocabulary.end()));
    assert_eq!(vocabulary.decode(answer).unwrap(), "very good");
    assert!(asked.tokens.len() <= question.most_tokens() + text.len());
    // What is cut off has no end token, and loses nothing.
    let cut = Encoded {
        tokens: [&[5, 6][..], &text].concat(),
        ..record.clone()
    };
    assert_eq!(question.ask(&cut).tokens, asked.tokens);

    for (wrong, words) in [
        ("Is it good?", "does not hold the text once"),
        ("{{ text }} {{ text }}", "does not hold the text once"),
        ("{{ text }} {{ label }}", "does not render"),
    ] {
        let error = Question::new(&prompt(Some(wrong)), &labels, &vocabulary).unwrap_err();
        assert!(error.to_string().contains(words) && error.exit_code() == 2, "{error}");
    }
    Question::new(&prompt(None), &labels, &vocabulary).expect("there is one by default");
}

#[test]
fn adam_bc_takes_the_noise_out_of_the_second_moment() {
    // A gradient of pure noise: Adam divides by its deviation, DP-AdamBC by the floor it leaves of the variance.
    let variance = 0.04f32;
    let step = |noise_variance: f32, gradient: f32| {
        let mut values = [0f32];
        Optimizer::new(Rule::AdamW { noise_variance }, 0.0, 1).step(&mut values, &[gradient], 1.0);
        -values[0]
    };
    assert!((step(0.0, 0.2) - 1.0).abs() < 1e-5);
    assert!((step(variance, 0.2) - 1.0 / 0.1f32.sqrt()).abs() < 1e-4);
    // Far above the noise both are the same.
    assert!((step(variance, 20.0) - 1.0).abs() < 1e-3);
    assert!((step(variance, 0.5) - 0.5 / 0.21f32.sqrt()).abs() < 1e-5);
}

#[test]
fn keys_that_came_later_mean_for_earlier_runs_what_they_mean_today() {
    // They are left out of what a run is known by while they have these values: other defaults would make earlier runs
    // something that they are not. Who changes one raises the version of what training writes.
    assert_eq!(
        serde_json::to_string(&ObjectiveConfig::default()).unwrap(),
        r#"{"contrast":0.0,"mismatch":0.0,"labels":1}"#
    );
    assert_eq!(
        serde_json::to_string(&WarmStartConfig::default()).unwrap(),
        r#"{"records":0,"guidance":1.0,"epochs":1,"batch_size":32,"learning_rate":0.001}"#
    );
    assert_eq!(
        serde_json::to_string(&dpsynth::config::Optimizer::default()).unwrap(),
        r#""adamw""#
    );
    let known_by = serde_json::to_string(&FinetuneConfig::default()).unwrap();
    for key in ["objective", "warm_start", "optimizer"] {
        assert!(!known_by.contains(key), "{key}");
    }
}
