//! One forward and one backward of a micro-batch: the gradients of each weight, record by record.

use std::borrow::Cow;
use std::iter::repeat_n;
use std::time::Instant;

use burn::tensor::{Gradients, Tensor};

use super::batch::Batch;
use super::cross_entropy::{CrossEntropy, cross_entropy, token_losses};
use super::entry::{Entries, Entry};
use super::gradients::Seconds;
use super::objective::Objective;
use super::shapes::{Shapes, nobody};
use super::taps::{Tap, Taps, Untapped};
use super::tied::{Embedding, Head, Tied};
use super::trainable::{Placed, Trains};
use crate::models::Forward;
use crate::models::product::matmul;
use crate::records::Encoded;

/// A micro-batch behind the model.
pub struct Pass {
    /// In the order of the flat vector.
    pub entries: Vec<Entry>,
    /// Mean loss per token of each record's text behind its own label's prompt.
    pub losses: Vec<f64>,
    pub seconds: Seconds,
}

impl Pass {
    /// The gradients of `objective`, behind those of `records` as many of nobody's as `fillers`. `bounded`: record by record; else of all records as one, which is the plain sum.
    ///
    /// With `checkpointed`, only each block's input is kept, and its forward is taken again before its backward (Chen et
    /// al. 2016); what is then held of a block are its gradients, small with LoRA. So it is always where weights are packed: a
    /// block's alone are unpacked at a time.
    pub fn new(
        placed: &Placed,
        objective: &Objective,
        records: &[&Encoded],
        fillers: usize,
        bounded: bool,
        checkpointed: bool,
    ) -> Self {
        let (mut rows, device) = (objective.rows(records), placed.model.device());
        rows.extend(repeat_n(Cow::Owned(nobody()), fillers * objective.rows_per_record()));
        let shapes = Shapes::of(&device, placed.model.shape().context);
        let batch = Batch::new(&rows, objective.rows_per_record(), shapes, &device.autodiff());
        let work = Work {
            placed,
            objective,
            examples: if bounded { records.len() + fillers } else { 1 },
            bounded,
            batch,
        };
        match checkpointed || placed.model.is_packed() {
            true => work.block_by_block(),
            false => work.at_once(),
        }
    }
}

struct Work<'a> {
    placed: &'a Placed,
    objective: &'a Objective,
    batch: Batch,
    /// Equal parts of the micro-batch whose gradients are wanted one by one.
    examples: usize,
    bounded: bool,
}

impl Work<'_> {
    fn at_once(self) -> Pass {
        let begun = Instant::now();
        let mut taps = Taps::new(self.placed);
        let hidden = self.placed.model.hidden(self.batch.tokens.clone(), None, &mut taps);
        let taps = taps.taken();
        let (loss, mut head) = self.loss(hidden);
        let forward = begun.elapsed().as_secs_f64();
        let gradients = loss.surrogate.backward();
        let backward = begun.elapsed().as_secs_f64() - forward;
        let mut entries = Entries::default();
        for tap in taps {
            self.enter(tap, &gradients, &mut head, &mut entries);
        }
        let mut entries = entries.end();
        // What the table did not take has weights of its own, behind all others.
        entries.extend(head.map(|head| Entry::Head(Box::new(head))));
        self.done(entries, &loss.losses, begun, [forward, backward])
    }

    fn block_by_block(self) -> Pass {
        let begun = Instant::now();
        let (model, architecture) = (&self.placed.model, self.placed.model.architecture());
        let tokens = self.batch.tokens.clone().inner();
        let [rows, len] = tokens.dims();
        let tokens = tokens.reshape([rows * len]);
        let layers = model.shape().layers();
        let untapped = |part: &dyn Fn(&mut Forward) -> Tensor<2>| {
            part(&mut model.forward([rows, len], None, &mut Untapped(self.placed)))
        };
        let tapped = |part: &dyn Fn(&mut Forward) -> Tensor<2>| {
            let mut taps = Taps::new(self.placed);
            let y = part(&mut model.forward([rows, len], None, &mut taps));
            (y, taps.taken())
        };
        let mut inputs = vec![untapped(&|f| architecture.embed(tokens.clone(), f))];
        for layer in 0..layers {
            let x = inputs[layer].clone();
            inputs.push(untapped(&|f| architecture.block(layer, x.clone(), f)));
        }
        let leaf = |x: Tensor<2>| Tensor::from_inner(x).require_grad();
        let last = leaf(inputs.pop().expect("the last block's output"));
        let (hidden, taps) = tapped(&|f| architecture.last(last.clone(), f));
        let (loss, mut head) = self.loss(hidden);
        let forward = begun.elapsed().as_secs_f64();

        // From the last block to the first; turned around at the end.
        let mut reversed: Vec<Vec<Entry>> = Vec::with_capacity(inputs.len() + 2);
        let gradients = loss.surrogate.backward();
        let mut collect = |taps: Vec<Tap>, gradients: &Gradients| {
            let mut entries = Entries::default();
            for tap in taps {
                self.enter(tap, gradients, &mut head, &mut entries);
            }
            reversed.push(entries.end());
        };
        collect(taps, &gradients);
        let mut gradient = caught(&last, &gradients);
        for (layer, x) in inputs.into_iter().enumerate().rev() {
            let x = leaf(x);
            let (y, taps) = tapped(&|f| architecture.block(layer, x.clone(), f));
            let gradients = (y * Tensor::from_inner(gradient)).sum().backward();
            collect(taps, &gradients);
            gradient = caught(&x, &gradients);
        }
        if matches!(self.placed.trains, Trains::Weights | Trains::Beginning { .. }) {
            let (x, taps) = tapped(&|f| architecture.embed(tokens.clone(), f));
            collect(taps, &(x * Tensor::from_inner(gradient)).sum().backward());
        }
        let mut entries: Vec<Entry> = reversed.into_iter().rev().flatten().collect();
        entries.extend(head.map(|head| Entry::Head(Box::new(head))));
        let backward = begun.elapsed().as_secs_f64() - forward;
        self.done(entries, &loss.losses, begun, [forward, backward])
    }

    /// The loss of the last hidden states, and the head's part of its weights' gradient where those are trained.
    fn loss(&self, hidden: Tensor<2>) -> (CrossEntropy, Option<Head>) {
        let (batch, table) = (&self.batch, self.placed.model.head());
        let predicting = hidden.select(0, batch.predicting.clone());
        match self.placed.trains {
            Trains::Factors { .. } | Trains::Vectors | Trains::Scales(_) | Trains::Beginning { .. } => {
                let loss = cross_entropy(predicting, &table, &batch.targets, |losses| self.weights(losses));
                (loss, None)
            }
            Trains::Weights => {
                // The head takes its weights beforehand: an objective that makes them of the losses needs a look ahead.
                let losses = match self.objective.is_text() {
                    true => vec![0.0; batch.targets.len()],
                    false => token_losses(predicting.clone().inner(), &table.clone().inner(), &batch.targets),
                };
                let (loss, head) = Head::new(predicting, &table, batch, self.weights(&losses), self.bounded);
                (loss, Some(head))
            }
        }
    }

    /// What each target weighs, by the losses of all.
    fn weights(&self, losses: &[f32]) -> Vec<f32> {
        let batch = &self.batch;
        batch.weights(&self.objective.factors(&batch.means(losses), &batch.counts))
    }

    /// The table's, which are the head's too where that has none of its own: then it is taken.
    fn of_table(&self, gradient: Tensor<2>, head: &mut Option<Head>) -> Entry {
        let shape = self.placed.model.shape();
        let embedding = Embedding::new(self.batch.tokens_by_record(), gradient);
        match head.take_if(|_| !shape.is_untied()) {
            Some(head) => Entry::Tied(Box::new(Tied::new(head, embedding))),
            None => Entry::Embedding {
                embedding,
                vocabulary: shape.vocabulary,
            },
        }
    }

    /// Adds the gradients of a tap's weights.
    fn enter(&self, tap: Tap, gradients: &Gradients, head: &mut Option<Head>, into: &mut Entries) {
        match tap {
            Tap::Map {
                slot,
                input,
                tag,
                beside,
            } => {
                let gradient = caught(&tag, gradients);
                match &self.placed.trains {
                    // y = W·x + s·(x·A)·B: A's gradient is xᵀ(s·g·Bᵀ), B's is (s·x·A)ᵀg.
                    Trains::Factors {
                        factors, second_alone, ..
                    } => {
                        let of = factors[&slot].clone();
                        if !second_alone {
                            let at_a = match &beside {
                                Some(beside) => caught(&beside.tag, gradients) * of.scale,
                                None => matmul(gradient.clone(), of.scaled_b.transpose()),
                            };
                            into.whole(self.split(input.clone()), self.split(at_a));
                        }
                        let before_b = match beside {
                            Some(beside) => beside.hidden,
                            None => matmul(input, of.scaled_a),
                        };
                        into.whole(self.split(before_b), self.split(gradient));
                    }
                    Trains::Vectors | Trains::Scales(_) | Trains::Beginning { .. } => {
                        unreachable!("a map is no vector, no scale and no beginning")
                    }
                    Trains::Weights => into.product(self.split(gradient), self.split(input)),
                }
            }
            Tap::Gain { norm, input, tag } => {
                let ones = Tensor::ones([input.dims()[1]], &input.device());
                into.push(self.summed(caught(&tag, gradients) * norm.of(input, &ones)));
            }
            Tap::Scale { before, tag } => into.push(self.summed(caught(&tag, gradients) * before)),
            Tap::Shift { tag } => into.push(self.summed(caught(&tag, gradients))),
            Tap::Table { tag } => {
                into.push(self.of_table(caught(&tag, gradients), head));
            }
            Tap::Positions { context, tag } => {
                let gradient = caught(&tag, gradients);
                let [len, width] = [self.batch.len, gradient.dims()[1]];
                let rows = self.batch.tokens.dims()[0] / self.examples;
                let each = gradient.reshape([self.examples, rows, len * width]).sum_dim(1);
                // Rows may be longer than what there is for their beginning.
                let begun = len.min(context) * width;
                into.push(Entry::Beginning {
                    each: each.narrow(2, 0, begun).reshape([self.examples, begun]),
                    of: context * width,
                });
            }
        }
    }

    /// What each record's tokens sum to, as its gradient.
    fn summed(&self, of_tokens: Tensor<2>) -> Entry {
        let width = of_tokens.dims()[1];
        Entry::Whole(self.split(of_tokens).sum_dim(1).reshape([self.examples, width]))
    }

    /// `[examples · T, width]` as `[examples, T, width]`.
    fn split(&self, t: Tensor<2>) -> Tensor<3> {
        let [n, width] = t.dims();
        t.reshape([self.examples, n / self.examples, width])
    }

    /// `begun` and the seconds of forward and backward since; the rest went into the entries.
    fn done(&self, entries: Vec<Entry>, losses: &[f32], begun: Instant, [forward, backward]: [f64; 2]) -> Pass {
        let of_rows = self.batch.means(losses);
        Pass {
            entries,
            losses: of_rows.into_iter().step_by(self.batch.rows_per_record).collect(),
            seconds: Seconds {
                forward,
                backward,
                norms: begun.elapsed().as_secs_f64() - forward - backward,
            },
        }
    }
}

/// The gradient of a tag or a leaf.
fn caught(tag: &Tensor<2>, gradients: &Gradients) -> Tensor<2> {
    tag.grad(gradients).expect("it lies on the way to the loss")
}
