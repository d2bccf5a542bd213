//! The reference `dp_direct` by an encoder whose own weights are trained privately: all of them, or few beside frozen ones.
//!
//! What bounds a record (P5): it goes forward and backward by itself, so that nothing of another record is in its gradient,
//! rounding included; its gradient over all trained weights is clipped to norm C, the norm taken in f64; a unit of several
//! records contributes the mean of theirs.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::tensor::Device;

use super::Example;
use super::direct::Bound;
use super::encoder::{EncoderFiles, Pieces, TextEncoder, batch_of, cross_entropy, vectors};
use super::linear::argmax;
use crate::Result;
use crate::machine::workers::Workers;
use crate::models::bert::BertConfig;
use crate::models::bert::classifier::{Classifier, Trained};
use crate::privacy::PrivateRun;
use crate::progress::Progress;
use crate::records::Units;
use crate::training::checkpoint::Checkpoint;
use crate::training::gradients::clip_factor;
use crate::training::optimizer::AdamW;
use crate::training::private::{Loop, Method};

/// An encoder with a fresh head, of which some weights are trained.
pub struct DirectEncoder {
    text: TextEncoder,
    /// As it came, on a device that differentiates.
    base: Classifier,
    device: Device,
}

/// How it is trained, and who is told.
pub struct Training<'a> {
    pub units: &'a Units<Example>,
    pub bound: Bound,
    /// AdamW's step size.
    pub learning_rate: f64,
    pub checkpoint: &'a Path,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Set when the person asks to stop.
    pub stop: &'a AtomicBool,
    pub progress: &'a dyn Progress,
}

impl DirectEncoder {
    /// Reads an encoder; texts are cut to `max_tokens` word pieces, special ones included. `device` is a plain one.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub fn open(
        files: &EncoderFiles,
        max_tokens: usize,
        num_labels: usize,
        trained: Trained,
        device: &Device,
    ) -> Result<Self> {
        let sizes = BertConfig::read(&files.config)?;
        Ok(DirectEncoder {
            text: TextEncoder::open(&files.tokenizer, &sizes, max_tokens)?,
            base: Classifier::new(&sizes, &files.weights, num_labels, trained, &device.clone().autodiff())?,
            device: device.clone(),
        })
    }

    /// What training begins with; public.
    pub fn initial(&self) -> Vec<f32> {
        self.base.values()
    }

    /// Trains from `resume`, or from [`Self::initial`], until `run` has no step left.
    ///
    /// Rules: P2 and P3 by [`crate::privacy::ChargedStep::privatize`], P6 (an empty draw goes the same way), P7 (the charge is
    /// on disk before anything is drawn).
    ///
    /// # Errors
    /// A refused charge, a full disk, or [`crate::Error::interrupted`] when asked to stop.
    pub fn train(&self, training: &Training, run: &mut PrivateRun, resume: Option<Checkpoint>) -> Result<()> {
        let values = self.initial();
        let (mut applied, mut on_gpu) = (0, false);
        let mut method = Learning {
            encoder: self,
            training,
            optimizer: AdamW::new(values.len(), 0.0),
            values,
            workers: Workers::on(&self.device),
        };
        if let Some(saved) = resume {
            method.values.copy_from_slice(&saved.values);
            (method.optimizer, applied, on_gpu) = (saved.optimizer, saved.applied_steps, saved.on_gpu);
        }
        let way = Loop {
            task: "private training of a classifier (dp_direct)",
            of: " of dp_direct",
            checkpoint: Some((training.checkpoint, training.checkpoint_every)),
            applied,
            on_gpu,
            stop: training.stop,
            progress: training.progress,
        };
        way.train(&mut method, run, |_| Ok(String::new()))?;
        Ok(())
    }

    /// The most likely label of each text, by trained `values`; `each_batch` hears the number of texts done.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, and whatever `each_batch` returns.
    pub fn predict(
        &self,
        values: &[f32],
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<usize>> {
        let autodiff = self.device.clone().autodiff();
        let classifier = self.base.clone().with(values, &autodiff).valid();
        let pieces = examples.iter().map(|e| self.text.pieces(&e.text));
        let pieces: Vec<Pieces> = pieces.collect::<Result<_>>()?;
        let scores = vectors(
            &pieces,
            &self.device,
            &Workers::on(&self.device),
            |batch| classifier.logits(batch),
            each_batch,
        )?;
        Ok(scores.iter().map(|scores| argmax(scores)).collect())
    }

    /// The gradient of −log p(label | text) by the trained values, and its norm; none of a text that has none.
    fn gradient(&self, placed: &Classifier, example: &Example) -> Option<(Vec<f32>, f64)> {
        // What cannot be read contributes zero (P5): to stop at it would show that it was drawn.
        let pieces = self.text.pieces(&example.text).ok()?;
        let autodiff = self.device.clone().autodiff();
        // Leaves of its own: graphs that share one wait for each other.
        let own = placed.clone().fork(&autodiff);
        let batch = batch_of(&[pieces], &[0], &autodiff);
        let loss = cross_entropy(own.logits(&batch), &[example.label], &autodiff);
        let gradient = own.gradient(loss.backward());
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        Some((gradient, norm))
    }
}

/// The encoder's part of a private step.
struct Learning<'a> {
    encoder: &'a DirectEncoder,
    training: &'a Training<'a>,
    values: Vec<f32>,
    optimizer: AdamW,
    workers: Workers,
}

impl Method for Learning<'_> {
    type Seen = ();

    fn dimensions(&self) -> usize {
        self.values.len()
    }

    fn query(&mut self, members: &[usize]) -> Result<(Vec<f64>, ())> {
        let (encoder, units) = (self.encoder, self.training.units);
        let placed = encoder
            .base
            .clone()
            .with(&self.values, &encoder.device.clone().autodiff());
        let drawn = units.of_members(members);
        let bound = self.training.bound;
        let mut sum = vec![0f64; self.values.len()];
        self.workers.each(
            &drawn,
            |(_, example)| encoder.gradient(&placed, example),
            |(size, _), taken| {
                let Some((gradient, norm)) = taken else { return };
                let factor = clip_factor(bound.clipping, bound.max_grad_norm, norm) / *size as f64;
                // 0 · ∞ is not 0.
                if factor > 0.0 {
                    sum.iter_mut()
                        .zip(gradient)
                        .for_each(|(s, g)| *s += factor * f64::from(g));
                }
            },
        );
        Ok((sum, ()))
    }

    fn apply(&mut self, noisy: &[f32]) {
        let learning_rate = self.training.learning_rate as f32;
        self.optimizer.step(&mut self.values, noisy, learning_rate, 0.0);
    }

    fn state(&self) -> Option<(&[f32], &AdamW)> {
        Some((&self.values, &self.optimizer))
    }

    fn computes_elsewhere(&self) -> bool {
        self.encoder.device != Device::flex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Clipping;
    use crate::models::bert::TokenBatch;

    const SETS: [Trained; 5] = [
        Trained::Lora { rank: 2, alpha: 4.0 },
        Trained::Full,
        Trained::BitFit,
        Trained::LastLayer,
        Trained::Prefix { tokens: 3 },
    ];
    const FAMILIES: [&str; 3] = ["bert", "bert_distil", "bert_roberta"];

    fn encoder(family: &str, trained: Trained) -> DirectEncoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family);
        let files = EncoderFiles::in_folder(&folder);
        DirectEncoder::open(&files, 16, 2, trained, &Device::flex()).expect("an encoder")
    }

    fn example(text: &str, label: usize) -> Example {
        Example {
            text: text.into(),
            label,
        }
    }

    /// Values that are not where they began: LoRA's B begins at 0, where A has no gradient.
    fn moved(encoder: &DirectEncoder) -> Vec<f32> {
        let mut values = encoder.initial();
        values
            .iter_mut()
            .enumerate()
            .for_each(|(i, v)| *v += 0.02 * (i as f32).sin());
        values
    }

    fn placed(encoder: &DirectEncoder, values: &[f32]) -> Classifier {
        let autodiff = Device::flex().autodiff();
        encoder.base.clone().with(values, &autodiff)
    }

    fn loss(encoder: &DirectEncoder, values: &[f32], example: &Example) -> f64 {
        let pieces = encoder.text.pieces(&example.text).expect("pieces");
        let classifier = placed(encoder, values).valid();
        let batch = TokenBatch::new(&[&pieces.ids], &Device::flex()).with_second(&[pieces.second]);
        let loss = cross_entropy(classifier.logits(&batch), &[example.label], &Device::flex());
        f64::from(loss.into_scalar::<f32>())
    }

    /// Along the gradient, and in single coordinates, the loss changes as the gradient says: each value is where its gradient
    /// is, in each family, for texts and for pairs.
    #[test]
    fn p5_each_set_of_an_encoders_weights_has_the_gradient_of_its_loss() {
        let pair = format!("a dull film{}a fine end", crate::records::PAIR);
        for family in FAMILIES {
            for trained in SETS {
                let encoder = encoder(family, trained);
                let values = moved(&encoder);
                for example in [example("a fine film", 1), example(&pair, 0)] {
                    let (gradient, norm) = encoder
                        .gradient(&placed(&encoder, &values), &example)
                        .expect("a gradient");
                    assert_eq!(gradient.len(), values.len());
                    let along = |step: f64, direction: &dyn Fn(usize) -> f64| {
                        let at: Vec<f32> = (values.iter().enumerate())
                            .map(|(i, v)| (f64::from(*v) + step * direction(i)) as f32)
                            .collect();
                        loss(&encoder, &at, &example)
                    };
                    let slope = |direction: &dyn Fn(usize) -> f64| {
                        let step = 2e-3;
                        (along(step, direction) - along(-step, direction)) / (2.0 * step)
                    };
                    let whole = slope(&|i| f64::from(gradient[i]) / norm);
                    assert!(
                        (whole / norm - 1.0).abs() < 0.02,
                        "{family} {trained:?}: {whole} along, norm {norm}"
                    );
                    // Where it is largest in each tenth of the vector.
                    let tenth = values.len().div_ceil(10);
                    for (part, of_part) in gradient.chunks(tenth).enumerate() {
                        let largest = (0..of_part.len()).max_by(|a, b| of_part[*a].abs().total_cmp(&of_part[*b].abs()));
                        let at = part * tenth + largest.expect("a part holds values");
                        let found = slope(&|i| f64::from(u8::from(i == at)));
                        let wanted = f64::from(gradient[at]);
                        assert!(
                            (found - wanted).abs() < 0.03 * wanted.abs() + 2e-3,
                            "{family} {trained:?}, value {at}: {found} and {wanted}"
                        );
                    }
                }
            }
        }
    }

    /// A batch's sum is that of its records by themselves, each of norm at most C; of a unit of several their mean.
    #[test]
    fn p5_a_record_of_an_encoder_is_bounded_by_itself() {
        let texts = ["a fine film", "dull", "a dull film and a fine end", "", "fine"];
        let examples: Vec<Example> = (0..5).map(|i| example(texts[i], i % 2)).collect();
        // The last two are one unit's.
        let units = Units::of_groups(examples.clone(), &[0, 1, 2, 3, 3], 2);
        for trained in SETS {
            let encoder = encoder("bert_roberta", trained);
            let (stop, progress) = (AtomicBool::new(false), crate::progress::Silent);
            let training = Training {
                units: &units,
                bound: Bound {
                    clipping: Clipping::Flat,
                    max_grad_norm: 0.1,
                },
                learning_rate: 1.0,
                checkpoint: Path::new("nowhere"),
                checkpoint_every: 1,
                stop: &stop,
                progress: &progress,
            };
            let values = moved(&encoder);
            let mut learning = Learning {
                encoder: &encoder,
                training: &training,
                optimizer: AdamW::new(values.len(), 0.0),
                values,
                workers: Workers::with(3),
            };
            let mut sum = |members: &[usize]| learning.query(members).expect("a sum").0;
            let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            let alone: Vec<Vec<f64>> = (0..4).map(|unit| sum(&[unit])).collect();
            for own in &alone {
                assert!((1e-3..=0.1 + 1e-6).contains(&norm(own)), "{trained:?}: {}", norm(own));
            }
            let together = sum(&[0, 1, 2, 3]);
            for (i, all) in together.iter().enumerate() {
                let each: f64 = alone.iter().map(|own| own[i]).sum();
                // Nothing of another record is in a gradient, so only the order of f64 sums differs.
                assert!((all - each).abs() < 1e-12, "{trained:?}: {all} and {each}");
            }
            assert!(sum(&[]).iter().all(|s| *s == 0.0), "no record, no sum (P6)");

            learning.values.iter_mut().for_each(|v| *v = f32::NAN);
            let broken = learning.query(&[0, 1]).expect("a sum").0;
            assert!(
                broken.iter().all(|s| *s == 0.0),
                "{trained:?}: what is no number adds nothing"
            );
        }
    }

    #[test]
    fn a_pair_is_read_as_one() {
        let encoder = encoder("bert", Trained::LastLayer);
        let pair = format!("a fine{}dull film", crate::records::PAIR);
        let pieces = encoder.text.pieces(&pair).expect("pieces");
        let plain = encoder.text.pieces("a fine dull film").expect("pieces");
        assert_eq!(plain.second, plain.ids.len());
        assert!(pieces.second < pieces.ids.len(), "{pieces:?}");
        let values = moved(&encoder);
        let read = |second: usize| {
            let batch = TokenBatch::new(&[&pieces.ids], &Device::flex()).with_second(&[second]);
            crate::models::read(placed(&encoder, &values).valid().logits(&batch))
        };
        assert_ne!(
            read(pieces.second),
            read(pieces.ids.len()),
            "BERT's second segment is another"
        );
    }
}
