//! The gradient of one weight, record by record, in the cheaper of two forms (mixed ghost clipping, Bu et al. 2022).

use burn::tensor::Tensor;

use super::clip::Factors;
use super::rows;
use super::tied::{Embedding, Head, Tied};
use crate::models::product::matmul;

/// Gradients gᵢ of one weight for each record i of a micro-batch.
#[allow(
    clippy::large_enum_variant,
    reason = "tensors are handles, and there are a few hundred entries"
)]
pub enum Entry {
    /// The gradients themselves, `[rows, n]`: of one weight, or of several that follow each other.
    Whole(Tensor<2>),
    /// gᵢ = leftᵢᵀ·rightᵢ, never formed: `left [rows, T, a]`, `right [rows, T, b]`.
    Product { left: Tensor<3>, right: Tensor<3> },
    /// Gradients `[rows, m]` of the first m of `of` values; the others' are 0.
    Beginning { each: Tensor<2>, of: usize },
    /// Of an embedding that is the head too.
    Tied(Box<Tied>),
    /// Of an embedding of `vocabulary` rows that is the embedding alone.
    Embedding { embedding: Embedding, vocabulary: usize },
    /// Of a head with weights of its own.
    Head(Box<Head>),
}

impl Entry {
    /// Whether gᵢ = leftᵢᵀ·rightᵢ is cheaper formed. Whole, a·b values a record and T·a·b products; as inner products, T·(a + b) values and
    /// T²·(a + b) products: the shapes decide, for time and memory alike.
    fn is_whole(left: &Tensor<3>, right: &Tensor<3>) -> bool {
        let ([_, tokens, a], b) = (left.dims(), right.dims()[2]);
        a * b <= tokens * (a + b)
    }

    /// ‖gᵢ‖² of each record, in equally many parts, `[rows · parts]`.
    pub fn squares(&self) -> Tensor<1> {
        match self {
            Entry::Whole(each) | Entry::Beginning { each, .. } => rows::squares(each.clone()),
            Entry::Product { left, right } => {
                // ‖ΣₜlₜrₜT‖² = Σₜₛ (lₜ·lₛ)(rₜ·rₛ).
                let inner = |x: &Tensor<3>| matmul(x.clone(), x.clone().swap_dims(1, 2));
                // One axis after the other: f32 loses less over T terms twice than over T² at once.
                let pairs = inner(left) * inner(right);
                pairs.sum_dim(2).sum_dim(1).reshape([left.dims()[0]])
            }
            Entry::Tied(tied) => tied.squares(),
            Entry::Embedding { embedding, .. } => embedding.squares(),
            Entry::Head(head) => head.squares(),
        }
    }

    /// Σᵢ factorsᵢ·gᵢ, flat.
    pub fn sum(self, factors: &Factors) -> Tensor<1> {
        match self {
            Entry::Whole(each) => rows::weighted(each, factors),
            Entry::Product { left, right } => {
                let [rows, tokens, a] = left.dims();
                let b = right.dims()[2];
                let factors = factors.placed().reshape([rows, 1, 1]);
                let left = left.reshape([rows * tokens, a]);
                let right = (right * factors).reshape([rows * tokens, b]);
                matmul(left.transpose(), right).flatten(0, 1)
            }
            Entry::Beginning { each, of } => {
                let begun = Entry::Whole(each).sum(factors);
                if begun.dims()[0] == of {
                    return begun;
                }
                let rest = Tensor::zeros([of - begun.dims()[0]], &begun.device());
                Tensor::cat(vec![begun, rest], 0)
            }
            Entry::Tied(tied) => tied.sum(factors.values()),
            Entry::Embedding { embedding, vocabulary } => embedding.sum(vocabulary, factors.values()),
            Entry::Head(head) => head.sum(factors.values()),
        }
    }
}

/// Values that stand together, about: a gigabyte. A GPU gives no more than a part of its memory at once.
const TOGETHER: usize = 1 << 28;

/// The gradients of weights, in the order of the flat vector.
#[derive(Default)]
pub struct Entries {
    done: Vec<Entry>,
    /// Pairs whose products will stand side by side.
    open: Vec<[Tensor<3>; 2]>,
    /// How many values those will be.
    values: usize,
}

impl Entries {
    /// The next: gᵢ = leftᵢᵀ·rightᵢ of `left [rows, T, a]` and `right [rows, T, b]`, in the cheaper form.
    pub fn product(&mut self, left: Tensor<3>, right: Tensor<3>) {
        match Entry::is_whole(&left, &right) {
            true => self.whole(left, right),
            false => self.push(Entry::Product { left, right }),
        }
    }

    /// The next, formed whatever the shapes: norm and sum are then taken of the same numbers.
    pub fn whole(&mut self, left: Tensor<3>, right: Tensor<3>) {
        let together = rows::stand_together(&left);
        let ([records, _, a], b) = (left.dims(), right.dims()[2]);
        self.values += records * a * b;
        self.open.push([left, right]);
        // What follows would not begin where four values are read at once.
        if !together || self.values >= TOGETHER || !(a * b).is_multiple_of(4) {
            self.form();
        }
    }

    /// The next.
    pub fn push(&mut self, entry: Entry) {
        self.form();
        self.done.push(entry);
    }

    /// All of them.
    pub fn end(mut self) -> Vec<Entry> {
        self.form();
        self.done
    }

    fn form(&mut self) {
        if !self.open.is_empty() {
            self.values = 0;
            let formed = rows::formed(std::mem::take(&mut self.open));
            self.done.extend(formed.into_iter().map(Entry::Whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::models::read;

    fn pair(rows: usize, tokens: usize, a: usize, b: usize, distribution: Distribution) -> [Tensor<3>; 2] {
        [a, b].map(|width| Tensor::random([rows, tokens, width], distribution, &Device::flex()))
    }

    #[test]
    fn p5_both_forms_have_the_same_norms_and_the_same_sum() {
        for (tokens, a, b) in [(1, 5, 7), (9, 40, 3), (60, 8, 30)] {
            let [left, right] = pair(4, tokens, a, b, Distribution::Normal(0.0, 1.0));
            let forms = || {
                let (left, right) = (left.clone(), right.clone());
                let mut whole = Entries::default();
                whole.whole(left.clone(), right.clone());
                let whole = whole.end().pop().expect("one weight");
                [whole, Entry::Product { left, right }]
            };
            let [whole, product] = forms().map(|entry| read(entry.squares()));
            for (whole, product) in whole.iter().zip(product) {
                assert!((whole / product - 1.0).abs() < 1e-5, "{whole} and {product}");
            }
            let [whole, product] =
                forms().map(|entry| read(entry.sum(&Factors::new(vec![0.5, -2.0, 0.0, 1.5], &Device::flex()))));
            for (whole, product) in whole.iter().zip(product) {
                assert!((whole - product).abs() < 1e-4, "{whole} and {product}");
            }
        }
    }

    /// All terms of one sign and size, as of a token that is repeated: rounding has nothing to cancel with.
    #[test]
    fn p5_norms_over_many_positions_lose_nothing_to_rounding() {
        let [left, right] = pair(1, 1000, 3, 2, Distribution::Uniform(0.9, 1.1));
        let exact: f64 = {
            let [l, r] = [left.clone(), right.clone()].map(|t| read(t.flatten::<1>(0, 2)));
            let value = |i: usize, j: usize| {
                (0..1000)
                    .map(|t| f64::from(l[t * 3 + i]) * f64::from(r[t * 2 + j]))
                    .sum()
            };
            (0..6).map(|k| -> f64 { value(k / 2, k % 2) }).map(|g| g * g).sum()
        };
        let product = f64::from(read(Entry::Product { left, right }.squares())[0]);
        assert!((product / exact - 1.0).abs() < 2e-6, "{product} and {exact}");
    }
}
