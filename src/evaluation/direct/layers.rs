//! Which layers get a prefix, where not all do (DP-Flat across layers; Chen et al. 2024, arXiv 2403.04124): those without whose
//! prefix the loss is sharpest. It is looked at on public records alone and costs no privacy.

use super::encoder::DirectEncoder;
use super::{Learner, mean_gradient, trained_on};
use crate::evaluation::Example;
use crate::models::bert::classifier::Layers;
use crate::training::ways::{moved, unit};
use crate::{Error, Result};

/// How far up the gradient the loss is looked at, as [`crate::config::Update::Flat`] does by default.
const RADIUS: f64 = 0.05;

/// `wanted` of the layers of an encoder, of which `open` gives the prefixes asked for.
///
/// Prefixes in all layers are first trained on `examples`, without privacy; then each is taken out by itself.
///
/// # Errors
/// Those of `open` and of `go_on`, which is asked before each layer. Data: no loss of `examples` can be taken.
pub fn choose(
    wanted: usize,
    layers: usize,
    examples: &[Example],
    learning_rate: f64,
    open: impl Fn(Layers) -> Result<DirectEncoder>,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<Vec<usize>> {
    let whole = open(Layers::ALL)?;
    let values = trained_on(&whole, examples, learning_rate);
    let mut by_sharpness = Vec::with_capacity(layers);
    for layer in 0..layers {
        go_on()?;
        let without = open(Layers::ALL.without(layer))?;
        // Prefixes come first among the values, layer by layer.
        let of_layer = values.len() - without.initial().len();
        let rest = [&values[..layer * of_layer], &values[(layer + 1) * of_layer..]].concat();
        let sharpness = sharpness(&without, &rest, examples).ok_or_else(|| {
            Error::data("the public records tell no layers apart: no loss of theirs can be taken")
                .hint("check `evaluate.dp_direct.public`, or leave out `prefix_layers`")
        })?;
        by_sharpness.push((sharpness, layer));
    }
    by_sharpness.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut chosen: Vec<usize> = by_sharpness.iter().take(wanted).map(|(_, layer)| *layer).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// By how much the mean loss rises along its own gradient; none where that is no number.
fn sharpness(learner: &dyn Learner, values: &[f32], examples: &[Example]) -> Option<f64> {
    let up = unit(mean_gradient(learner, examples, values))?;
    let rise = loss(learner, &moved(values, RADIUS, &up), examples) - loss(learner, values, examples);
    rise.is_finite().then_some(rise)
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
        let of =
            |wanted, examples: &[Example]| choose(wanted, 2, examples, 0.05, |layers| Ok(open(layers)), &|| Ok(()));
        let chosen = |wanted| of(wanted, &examples).expect("opens");
        assert!(of(1, &[]).is_err(), "of nothing there is no choice");
        let values = trained_on(&open(Layers::ALL), &examples, 0.05);
        let of_layer = values.len() - open(Layers::of([0])).initial().len();
        let without = [
            (open(Layers::of([1])), values[of_layer..].to_vec()),
            (
                open(Layers::of([0])),
                [&values[..of_layer], &values[2 * of_layer..]].concat(),
            ),
        ];
        let sharp = without.map(|(encoder, values)| sharpness(&encoder, &values, &examples).expect("a number"));
        assert!(sharp[0] != sharp[1] && sharp.iter().all(|s| *s > 0.0), "{sharp:?}");
        let sharpest = if sharp[0] > sharp[1] { 0 } else { 1 };
        assert_eq!(chosen(1), [sharpest]);
        assert_eq!(chosen(2), [0, 1]);
    }
}
