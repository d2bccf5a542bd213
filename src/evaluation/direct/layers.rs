//! Which layers get a prefix, where not all do (DP-Flat across layers; Chen et al. 2024, arXiv 2403.04124): those without whose
//! prefix the loss is sharpest. It is looked at on public records alone and costs no privacy.

use super::encoder::DirectEncoder;
use super::{Learner, public, trained_on};
use crate::Result;
use crate::evaluation::Example;
use crate::models::bert::classifier::Layers;
use crate::training::ways::{moved, unit};

/// How far up the gradient the loss is looked at, as [`crate::config::Update::Flat`] does by default.
const RADIUS: f64 = 0.05;

/// `wanted` of the layers of an encoder, of which `open` gives the prefixes asked for.
///
/// Prefixes in all layers are first trained on `examples`, without privacy; then each is taken out by itself.
///
/// # Errors
/// Those of `open`.
pub fn choose(
    wanted: usize,
    layers: usize,
    examples: &[Example],
    learning_rate: f64,
    open: impl Fn(Layers) -> Result<DirectEncoder>,
) -> Result<Layers> {
    let whole = open(Layers::ALL)?;
    let values = trained_on(&whole, examples, learning_rate);
    let mut by_sharpness = Vec::with_capacity(layers);
    for layer in 0..layers {
        let without = open(Layers::ALL.without(layer))?;
        // Prefixes come first among the values, layer by layer.
        let of_layer = values.len() - without.initial().len();
        let rest = [&values[..layer * of_layer], &values[(layer + 1) * of_layer..]].concat();
        by_sharpness.push((sharpness(&without, &rest, examples), layer));
    }
    by_sharpness.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(Layers::of(by_sharpness.iter().take(wanted).map(|(_, layer)| *layer)))
}

/// By how much the mean loss rises along its own gradient.
fn sharpness(learner: &dyn Learner, values: &[f32], examples: &[Example]) -> f64 {
    let mut mean = vec![0f32; values.len()];
    for gradient in public(learner, examples, values) {
        mean.iter_mut().zip(gradient).for_each(|(m, g)| *m += g);
    }
    let Some(up) = unit(mean) else { return 0.0 };
    loss(learner, &moved(values, RADIUS, &up), examples) - loss(learner, values, examples)
}

/// The mean over what can be read; 0 of nothing.
fn loss(learner: &dyn Learner, values: &[f32], examples: &[Example]) -> f64 {
    let placed = learner.place(values);
    let losses = learner.workers().map(examples, |example| placed.loss(example));
    let read: Vec<f64> = losses.into_iter().flatten().collect();
    read.iter().sum::<f64>() / read.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::models::bert::classifier::Trained;

    fn examples() -> Vec<Example> {
        let texts = ["a fine film", "dull", "a dull film and a fine end", "fine"];
        let example = |(i, text): (usize, &&str)| Example {
            text: (*text).into(),
            label: i % 2,
        };
        texts.iter().enumerate().map(example).collect()
    }

    fn open(layers: Layers) -> DirectEncoder {
        fixture::encoder("bert_roberta", Trained::Prefix { tokens: 3, layers })
    }

    /// What is left of the values is what an encoder without that prefix begins with, and their losses are its own.
    #[test]
    fn a_layer_without_its_prefix_is_left_out_of_the_values_and_nothing_else() {
        let whole = open(Layers::ALL);
        let (first, second) = (open(Layers::of([1])), open(Layers::of([0])));
        let of_layer = whole.initial().len() - first.initial().len();
        assert_eq!(second.initial().len(), first.initial().len());
        assert_eq!(first.initial(), whole.initial()[of_layer..]);
        let rest = [&whole.initial()[..of_layer], &whole.initial()[2 * of_layer..]].concat();
        assert_eq!(second.initial(), rest);
        let at = |encoder: &DirectEncoder| loss(encoder, &encoder.initial(), &examples());
        assert!(at(&whole) != at(&first) && at(&first) != at(&second));
    }

    /// The one layer that is chosen is the one without which a step up costs more, and all are chosen where all are wanted.
    #[test]
    fn layers_are_chosen_by_what_the_loss_does_without_them() {
        let examples = examples();
        let chosen = |wanted| choose(wanted, 2, &examples, 0.05, |layers| Ok(open(layers))).expect("opens");
        let values = trained_on(&open(Layers::ALL), &examples, 0.05);
        let of_layer = values.len() - open(Layers::of([0])).initial().len();
        let without = [
            (open(Layers::of([1])), values[of_layer..].to_vec()),
            (
                open(Layers::of([0])),
                [&values[..of_layer], &values[2 * of_layer..]].concat(),
            ),
        ];
        let sharp = without.map(|(encoder, values)| sharpness(&encoder, &values, &examples));
        assert!(sharp[0] != sharp[1] && sharp.iter().all(|s| *s > 0.0), "{sharp:?}");
        let sharpest = if sharp[0] > sharp[1] { 0 } else { 1 };
        assert_eq!(chosen(1), Layers::of([sharpest]));
        assert_eq!(chosen(2), Layers::of([0, 1]));
    }
}
