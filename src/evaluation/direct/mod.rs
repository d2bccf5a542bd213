//! The reference `dp_direct`: a classifier trained privately on the real records themselves, by the same private step as the
//! language model. It gives a classifier and no records, and it *spends budget of its own*: its run is another one in the
//! dataset's ledger.
//!
//! What is trained is a [`Learner`], record by record: nothing of another record is in a record's gradient or loss, rounding
//! included (P5). How its steps are taken is a [`Way`]; a unit of several records contributes the mean of theirs.

pub mod encoder;
pub mod features;
pub mod layers;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::Example;
use crate::Result;
use crate::evaluation::linear::argmax;
use crate::machine::workers::Workers;
use crate::privacy::PrivateRun;
use crate::progress::Progress;
use crate::records::Units;
use crate::training::checkpoint::Checkpoint;
use crate::training::clip::Clip;
use crate::training::optimizer::Optimizer;
use crate::training::private::{Loop, Method};
use crate::training::ways::{At, Bounds, Drawn, Record, Shows, Way};

/// A classifier of which some values are trained.
pub trait Learner: Sync {
    /// What training begins with; public.
    fn initial(&self) -> Vec<f32>;

    /// With `values` in their places, for passes over many records.
    fn place(&self, values: &[f32]) -> Box<dyn Placed + '_>;

    /// p(label | text) of each label, for each text, by `values`; `each_batch` hears the number of texts done.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, and whatever `each_batch` returns.
    fn probabilities(
        &self,
        values: &[f32],
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>>;

    /// The most likely label of each text.
    ///
    /// # Errors
    /// As [`Learner::probabilities`].
    fn predict(
        &self,
        values: &[f32],
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<usize>> {
        let said = self.probabilities(values, examples, each_batch)?;
        Ok(said.iter().map(|probabilities| argmax(probabilities)).collect())
    }

    /// Who computes, side by side.
    fn workers(&self) -> Workers;

    /// Whether the sum is taken elsewhere than on the cores that draw noise.
    fn computes_elsewhere(&self) -> bool {
        false
    }
}

/// A classifier with its values in their places.
pub trait Placed: Sync {
    /// The gradient of −log p(label | text) by the values; none of a text that cannot be read.
    fn gradient(&self, example: &Example) -> Option<Vec<f32>>;

    /// −log p(label | text); none of a text that cannot be read.
    fn loss(&self, example: &Example) -> Option<f64>;

    /// The text's vector, where the scores are linear in one; none of a text that cannot be read.
    fn features(&self, _: &Example) -> Option<Vec<f32>> {
        None
    }
}

/// How a learner is trained, and who is told.
pub struct Training<'a> {
    pub units: &'a Units<Example>,
    pub learning_rate: f64,
    pub checkpoint: &'a Path,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Set when the person asks to stop.
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl Training<'_> {
    /// Trains from `resume`, or from [`Learner::initial`] with an `optimizer` before its first step, until `run` has no step left;
    /// the values then.
    ///
    /// Rules: P2 and P3 by [`crate::privacy::ChargedStep::privatize`], P6 (an empty draw goes the same way), P7 (the charge is
    /// on disk before anything is drawn; a step that was charged and lost is not taken again).
    ///
    /// # Errors
    /// A refused charge, a full disk, or [`crate::Error::interrupted`] when asked to stop.
    pub fn train(
        &self,
        learner: &dyn Learner,
        way: Box<dyn Way + '_>,
        optimizer: Optimizer,
        run: &mut PrivateRun,
        resume: Option<Checkpoint>,
    ) -> Result<Vec<f32>> {
        let (mut applied, mut on_gpu) = (0, false);
        let mut method = Classifying {
            training: self,
            learner,
            way,
            values: learner.initial(),
            optimizer,
            workers: learner.workers(),
        };
        if let Some(saved) = resume {
            method.values.copy_from_slice(&saved.values);
            (method.optimizer, applied, on_gpu) = (saved.optimizer, saved.applied_steps, saved.on_gpu);
        }
        let way = Loop {
            task: "private training of a classifier (dp_direct)",
            of: " of dp_direct",
            checkpoint: Some((self.checkpoint, self.checkpoint_every)),
            applied,
            on_gpu,
            stop: self.stop,
            progress: self.progress,
        };
        way.train(&mut method, run, |_| Ok(String::new()))?;
        Ok(method.values)
    }
}

/// The gradients of public `examples`, for the ways that need some.
pub fn public(learner: &dyn Learner, examples: &[Example], values: &[f32]) -> Vec<Vec<f32>> {
    let placed = learner.place(values);
    let gradients = learner.workers().map(examples, |example| placed.gradient(example));
    gradients.into_iter().flatten().collect()
}

/// The mean of those gradients; zeros of none.
fn mean_gradient(learner: &dyn Learner, examples: &[Example], values: &[f32]) -> Vec<f32> {
    let gradients = public(learner, examples, values);
    let mut mean = vec![0f32; values.len()];
    for gradient in &gradients {
        let share = 1.0 / gradients.len() as f32;
        mean.iter_mut().zip(gradient).for_each(|(m, g)| *m += share * g);
    }
    mean
}

/// Public records that are learned from at once, and how often each is.
const PUBLIC_BATCH: usize = 32;
const PUBLIC_EPOCHS: usize = 3;

/// The values after training on public `examples`, without privacy: they need none.
pub fn trained_on(learner: &dyn Learner, examples: &[Example], learning_rate: f64) -> Vec<f32> {
    let mut values = learner.initial();
    let mut optimizer = Optimizer::adamw(values.len(), 0.0);
    for batch in (0..PUBLIC_EPOCHS).flat_map(|_| examples.chunks(PUBLIC_BATCH)) {
        let mean = mean_gradient(learner, batch, &values);
        optimizer.step(&mut values, &mean, learning_rate as f32);
    }
    values
}

/// The classifier's part of a private step.
struct Classifying<'a> {
    training: &'a Training<'a>,
    learner: &'a dyn Learner,
    way: Box<dyn Way + 'a>,
    values: Vec<f32>,
    optimizer: Optimizer,
    workers: Workers,
}

impl Method for Classifying<'_> {
    type Seen = ();

    fn dimensions(&self) -> usize {
        self.way.dimensions()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, ())> {
        let batch = Batch {
            learner: self.learner,
            workers: &self.workers,
            records: self.training.units.of_members(members),
        };
        let at = At {
            values: &self.values,
            optimizer: &self.optimizer,
        };
        Ok((self.way.ask(&batch, at), ()))
    }

    fn apply(&mut self, noisy: &[f32]) {
        let learning_rate = self.training.learning_rate as f32;
        self.way
            .step(noisy, &mut self.values, &mut self.optimizer, learning_rate);
    }

    fn state(&self) -> Option<(&[f32], &Optimizer)> {
        Some((&self.values, &self.optimizer))
    }

    fn computes_elsewhere(&self) -> bool {
        self.learner.computes_elsewhere()
    }
}

/// The units of a batch: each record with how many its unit has.
struct Batch<'a> {
    learner: &'a dyn Learner,
    workers: &'a Workers,
    records: Vec<(usize, &'a Example)>,
}

/// A record of a batch, at placed values.
struct Shown<'a> {
    learner: &'a dyn Learner,
    placed: &'a dyn Placed,
    example: &'a Example,
}

impl Record for Shown<'_> {
    fn gradient(&self) -> Option<Vec<f32>> {
        self.placed.gradient(self.example)
    }

    fn gradient_at(&self, values: &[f32]) -> Option<Vec<f32>> {
        self.learner.place(values).gradient(self.example)
    }

    fn features(&self) -> Option<(Vec<f32>, usize)> {
        Some((self.placed.features(self.example)?, self.example.label))
    }
}

impl Drawn for Batch<'_> {
    fn gradients(&self, values: &[f32], clip: Clip) -> Vec<f64> {
        self.sum(values, &Bounds::whole(values.len(), clip), &|record| record.gradient())
    }

    fn sum(&self, values: &[f32], bounds: &Bounds, shows: &Shows) -> Vec<f64> {
        let placed = self.learner.place(values);
        bounds.sum(self.workers, &self.records, |example| {
            shows(&Shown {
                learner: self.learner,
                placed: placed.as_ref(),
                example,
            })
        })
    }

    fn losses(&self, points: [&[f32]; 2]) -> Vec<(usize, Option<[f64; 2]>)> {
        let placed = points.map(|values| self.learner.place(values));
        let losses = |(size, example): &(usize, &Example)| {
            let [a, b] = [0, 1].map(|point| placed[point].loss(example));
            (*size, a.zip(b).map(|(a, b)| [a, b]))
        };
        self.workers.map(&self.records, losses)
    }
}

#[cfg(test)]
mod fixture {
    use burn::tensor::Device;

    use super::encoder::DirectEncoder;
    use super::*;
    use crate::evaluation::encoder::EncoderFiles;
    use crate::models::bert::classifier::{Layers, Trained};

    /// Each set of weights that there is.
    pub const SETS: [Trained; 8] = [
        Trained::Lora { rank: 2, alpha: 4.0 },
        Trained::LoraFa { rank: 2, alpha: 4.0 },
        Trained::Ia3,
        Trained::Full,
        Trained::BitFit,
        Trained::LastLayer,
        Trained::Prefix {
            tokens: 3,
            layers: Layers::ALL,
        },
        Trained::Prefix {
            tokens: 3,
            layers: Layers::ALL.without(0),
        },
    ];

    /// A tiny encoder of a family, of which so much is trained.
    pub fn encoder(family: &str, trained: Trained) -> DirectEncoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family);
        let files = EncoderFiles::in_folder(&folder);
        DirectEncoder::open(&files, 16, 2, trained, &Device::flex()).expect("an encoder")
    }
}

#[cfg(test)]
mod tests {
    use super::encoder::DirectEncoder;
    use super::fixture::{SETS, encoder};
    use super::*;
    use crate::config::{Ascent, Clipping};
    use crate::models::bert::classifier::Trained;
    use crate::training::clip::Norm;
    use crate::training::ways::candidates::Candidates;
    use crate::training::ways::flat::Flat;
    use crate::training::ways::gradient::Gradient;
    use crate::training::ways::norm;
    use crate::training::ways::projection::Projection;
    use crate::training::ways::zeroth_order::ZerothOrder;

    const C: f64 = 0.1;
    fn examples() -> Vec<Example> {
        let texts = ["a fine film", "dull", "a dull film and a fine end", "", "fine"];
        let example = |(i, text): (usize, &&str)| Example {
            text: (*text).into(),
            label: i % 2,
        };
        texts.iter().enumerate().map(example).collect()
    }

    fn in_sizes(clip: Clip) -> Clip {
        Clip {
            norm: Norm::SumOfSizes,
            ..clip
        }
    }

    fn ways<'a>(encoder: &'a DirectEncoder, public_ones: &'a [Example]) -> Vec<(&'static str, Box<dyn Way + 'a>)> {
        let len = encoder.initial().len();
        let clip = Clip::new(Clipping::Flat, C);
        let gradients = || Box::new(move |values: &[f32]| public(encoder, public_ones, values));
        vec![
            ("gradient", Box::new(Gradient::new(len, clip))),
            ("flat", Box::new(Flat::new(len, clip, 0.05, Ascent::Previous))),
            ("flat by record", Box::new(Flat::new(len, clip, 0.05, Ascent::Record))),
            ("zeroth order", Box::new(ZerothOrder::new(len, clip, 4, 1e-3))),
            (
                "zeroth order, sizes",
                Box::new(ZerothOrder::new(len, in_sizes(clip), 4, 1e-3)),
            ),
            ("projection", Box::new(Projection::new(len, clip, 3, gradients()))),
            ("candidates", Box::new(Candidates::new(len, clip, 3, gradients()))),
        ]
    }

    /// Values and an optimizer in the middle of training: LoRA's B begins at 0, where A has no gradient.
    fn midway(encoder: &DirectEncoder) -> (Vec<f32>, Optimizer) {
        let wave = |(i, v): (usize, f32)| v + 0.02 * (i as f32).sin();
        let values: Vec<f32> = encoder.initial().into_iter().enumerate().map(wave).collect();
        let mut optimizer = Optimizer::adamw(values.len(), 0.0);
        optimizer
            .first
            .iter_mut()
            .enumerate()
            .for_each(|(i, m)| *m = (i as f32).cos());
        (values, optimizer)
    }

    /// What a batch shows is what its units show by themselves, each of norm at most C; a unit of several shows their mean.
    #[test]
    fn p5_a_record_is_bounded_by_itself_whatever_is_trained_and_however() {
        // The last two are one unit's.
        let units = Units::of_groups(examples(), &[0, 1, 2, 3, 3], 2);
        for trained in SETS {
            let encoder = encoder("bert_roberta", trained);
            let public_ones = examples();
            let (values, optimizer) = midway(&encoder);
            let workers = Workers::with(3);
            for (name, mut way) in ways(&encoder, &public_ones[..3]) {
                let mut sum = |values: &[f32], members: &[usize]| {
                    let batch = Batch {
                        learner: &encoder,
                        workers: &workers,
                        records: units.of_members(members),
                    };
                    let optimizer = &optimizer;
                    way.ask(&batch, At { values, optimizer })
                };
                let norm = |v: &[f64]| match name.contains("sizes") {
                    true => v.iter().map(|x| x.abs()).sum::<f64>(),
                    false => v.iter().map(|x| x * x).sum::<f64>().sqrt(),
                };
                let alone: Vec<Vec<f64>> = (0..4).map(|unit| sum(&values, &[unit])).collect();
                for own in &alone {
                    let norm = norm(own);
                    assert!((1e-4..=C * (1.0 + 1e-6)).contains(&norm), "{trained:?}, {name}: {norm}");
                }
                let together = sum(&values, &[0, 1, 2, 3]);
                for (i, all) in together.iter().enumerate() {
                    let each: f64 = alone.iter().map(|own| own[i]).sum();
                    // Nothing of another record is in what one shows, so only the order of f64 sums differs.
                    assert!((all - each).abs() < 1e-12, "{trained:?}, {name}: {all} and {each}");
                }
                assert!(
                    sum(&values, &[]).iter().all(|s| *s == 0.0),
                    "{name}: no record, no sum (P6)"
                );
                let broken = sum(&vec![f32::NAN; values.len()], &[0, 1]);
                assert!(
                    broken.iter().all(|s| *s == 0.0),
                    "{trained:?}, {name}: what is no number adds nothing"
                );
            }
        }
    }

    /// Without noise and clipping, each way finds the gradient or a part of it: along it the loss falls.
    #[test]
    fn every_way_goes_down() {
        let encoder = encoder("bert_roberta", Trained::LastLayer);
        let (values, optimizer) = midway(&encoder);
        let examples = examples();
        let units = Units::of_records(examples.clone());
        let workers = Workers::with(1);
        let batch = Batch {
            learner: &encoder,
            workers: &workers,
            records: units.of_members(&[0, 1, 2]),
        };
        let loss = |values: &[f32]| -> f64 {
            let placed = encoder.place(values);
            examples[..3].iter().filter_map(|e| placed.loss(e)).sum()
        };
        for (name, mut way) in ways(&encoder, &examples[..3]) {
            let released: Vec<f32> = way
                .ask(
                    &batch,
                    At {
                        values: &values,
                        optimizer: &optimizer,
                    },
                )
                .iter()
                .map(|v| *v as f32)
                .collect();
            let gradient = way.gradient(&released);
            assert_eq!((released.len(), gradient.len()), (way.dimensions(), values.len()));
            let down = crate::training::ways::moved(&values, -0.02 / norm(&gradient), &gradient);
            assert!(
                loss(&down) < loss(&values),
                "{name}: {} and {}",
                loss(&down),
                loss(&values)
            );
        }
    }
}
