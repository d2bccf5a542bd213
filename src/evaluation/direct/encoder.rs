//! An encoder whose own weights are trained: all of them, or few beside frozen ones. A record goes forward and backward by
//! itself (P5).

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{Learner, Placed};
use crate::Result;
use crate::evaluation::Example;
use crate::evaluation::encoder::{EncoderFiles, Pieces, TextEncoder, batch_of, cross_entropy, vectors};
use crate::machine::workers::Workers;
use crate::models::bert::BertConfig;
use crate::models::bert::classifier::{Classifier, Trained};
use crate::models::device::watched;
use crate::training::scorer::softmax;

/// An encoder with a fresh head, of which some weights are trained.
pub struct DirectEncoder {
    text: TextEncoder,
    /// As it came, on a device that differentiates.
    base: Classifier,
    device: Device,
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

    fn with(&self, values: &[f32]) -> Classifier {
        self.base.clone().with(values, &self.device.clone().autodiff())
    }

    /// −log p(label | text) on `classifier`, `device` being its own; none of a text that cannot be read.
    fn loss_of(&self, classifier: &Classifier, example: &Example, device: &Device) -> Option<Tensor<1>> {
        let pieces = self.text.pieces(&example.text).ok()?;
        let batch = batch_of(&[pieces], &[0], device);
        Some(cross_entropy(classifier.logits(&batch), &[example.label], device))
    }
}

/// The encoder with its values, tracked.
struct At<'a> {
    encoder: &'a DirectEncoder,
    classifier: Classifier,
}

impl Placed for At<'_> {
    fn gradient(&self, example: &Example) -> Option<Vec<f32>> {
        let autodiff = self.encoder.device.clone().autodiff();
        watched(&self.encoder.device, || {
            // Leaves of its own: graphs that share one wait for each other.
            let own = self.classifier.clone().fork(&autodiff);
            let loss = self.encoder.loss_of(&own, example, &autodiff)?;
            Some(own.gradient(loss.backward()))
        })
    }

    fn loss(&self, example: &Example) -> Option<f64> {
        watched(&self.encoder.device, || {
            let own = self.classifier.clone().valid();
            let loss = self.encoder.loss_of(&own, example, &self.encoder.device)?;
            Some(f64::from(loss.into_scalar::<f32>()))
        })
    }
}

impl Learner for DirectEncoder {
    fn initial(&self) -> Vec<f32> {
        self.base.values()
    }

    fn place(&self, values: &[f32]) -> Box<dyn Placed + '_> {
        Box::new(At {
            encoder: self,
            classifier: self.with(values),
        })
    }

    fn probabilities(
        &self,
        values: &[f32],
        examples: &[Example],
        each_batch: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Vec<f32>>> {
        let classifier = self.with(values).valid();
        let pieces = examples.iter().map(|e| self.text.pieces(&e.text));
        let pieces: Vec<Pieces> = pieces.collect::<Result<_>>()?;
        let scores = vectors(
            &pieces,
            &self.device,
            &self.workers(),
            |batch| classifier.logits(batch),
            each_batch,
        )?;
        Ok(scores.iter().map(|scores| softmax_of(scores)).collect())
    }

    fn workers(&self) -> Workers {
        Workers::on(&self.device)
    }

    fn computes_elsewhere(&self) -> bool {
        self.device != Device::flex()
    }
}

fn softmax_of(scores: &[f32]) -> Vec<f32> {
    let mut all: Vec<f64> = scores.iter().map(|s| f64::from(*s)).collect();
    softmax(&mut all);
    all.into_iter().map(|p| p as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SETS, encoder};
    use super::*;
    use crate::models::bert::TokenBatch;

    const FAMILIES: [&str; 3] = ["bert", "bert_distil", "bert_roberta"];

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

    fn loss(encoder: &DirectEncoder, values: &[f32], example: &Example) -> f64 {
        encoder.place(values).loss(example).expect("a loss")
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
                    let gradient = encoder.place(&values).gradient(&example).expect("a gradient");
                    let norm = crate::training::ways::norm(&gradient);
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
            crate::models::read(encoder.with(&values).valid().logits(&batch))
        };
        assert_ne!(
            read(pieces.second),
            read(pieces.ids.len()),
            "BERT's second segment is another"
        );
    }
}
