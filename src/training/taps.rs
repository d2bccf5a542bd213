//! Book-keeping (Bu et al. 2023): where a weight acts, its input is kept and the gradient of its output is caught.

use burn::tensor::{Int, Tensor};

use super::probe::probe;
use super::trainable::{Placed, Trains};
use crate::models::ia3::Side;
use crate::models::lora;
use crate::models::product::{matmul, product};
use crate::models::shape::Kind;
use crate::models::{Apply, Norm};

/// A weight's input `[n, in]`, and the tag that will hold the gradient of its output `[n, out]`.
pub enum Tap {
    /// A linear map.
    Map {
        slot: usize,
        input: Tensor<2>,
        tag: Tensor<2>,
        beside: Option<Box<Beside>>,
    },
    /// A norm's gain; the input is before the norm.
    Gain {
        norm: Norm,
        input: Tensor<2>,
        tag: Tensor<2>,
    },
    /// What is added to each row.
    Shift { tag: Tensor<2> },
    /// What each row is multiplied by; the tag is of the product.
    Scale { before: Tensor<2>, tag: Tensor<2> },
    /// The embedding, which may be the head too; its input are the tokens.
    Table { tag: Tensor<2> },
    /// The table of positions, or what is added to the first ones, of so many rows; each row of the batch begins at its first.
    Positions { context: usize, tag: Tensor<2> },
}

/// What an adapter beside its weights computed on the way.
pub struct Beside {
    /// x·A times alpha / rank, `[n, rank]`.
    pub hidden: Tensor<2>,
    /// The tag of its gradient.
    pub tag: Tensor<2>,
}

/// The forward of training.
pub struct Taps<'a> {
    placed: &'a Placed,
    /// What tags begin as: one value for all of them.
    none: Tensor<2>,
    taps: Vec<Tap>,
    /// The slot that was met last.
    met: Option<usize>,
}

impl<'a> Taps<'a> {
    /// For a forward on `placed`.
    pub fn new(placed: &'a Placed) -> Self {
        Taps {
            placed,
            none: Tensor::zeros([1, 1], &placed.model.device()),
            taps: Vec::new(),
            met: None,
        }
    }

    /// A forward that met its slots in another order would lay gradients onto the wrong weights.
    fn meet(&mut self, slot: usize) {
        let name = &self.placed.model.shape().slots[slot].name;
        assert!(
            self.met.is_none_or(|met| met < slot),
            "`{name}` is declared before a slot that was met before it"
        );
        self.met = Some(slot);
    }

    /// In the order of the forward, which is the order of the flat vector.
    pub fn taken(self) -> Vec<Tap> {
        self.taps
    }

    /// Whether the weight in `slot` is trained itself.
    fn trains(&self, slot: usize) -> bool {
        match self.placed.trains {
            Trains::Weights => true,
            Trains::Vectors => self.placed.model.shape().slots[slot].is_vector(),
            Trains::Factors { .. } | Trains::Scales(_) | Trains::Beginning { .. } => false,
        }
    }

    /// `y`, tapped where the weight in `slot` is trained itself.
    fn tapped(&mut self, slot: usize, y: Tensor<2>, tap: impl FnOnce(Tensor<2>) -> Tap) -> Tensor<2> {
        if !self.trains(slot) {
            return y;
        }
        let (y, tag) = probe(y, &self.none);
        self.taps.push(tap(tag));
        y
    }
}

impl Taps<'_> {
    /// `x` times the scale of that side of `slot`, tapped; `x` where there is none.
    fn scaled(&mut self, slot: usize, side: Side, x: Tensor<2>) -> Tensor<2> {
        let Some(scale) = scale(self.placed, slot, side) else {
            return x;
        };
        let before = x.clone().inner();
        let (y, tag) = probe(x * scale, &self.none);
        self.taps.push(Tap::Scale { before, tag });
        y
    }
}

impl Apply for Taps<'_> {
    fn map(&mut self, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        self.meet(slot);
        match self.placed.trains {
            Trains::Vectors | Trains::Beginning { .. } => return forward(self.placed, slot, weight, x),
            Trains::Scales(_) => {
                let x = self.scaled(slot, Side::Input, x);
                let y = product(x, weight.clone().transpose());
                return self.scaled(slot, Side::Output, y);
            }
            Trains::Factors { .. } | Trains::Weights => {}
        }
        let input = x.clone().inner();
        let (y, beside) = match adapter(self.placed, slot) {
            None => (forward(self.placed, slot, weight, x), None),
            Some(of) => {
                let base = product(x.clone(), weight.clone().transpose());
                let (hidden, tag) = probe(matmul(x, of.scaled_a.clone()), &self.none);
                let y = base + matmul(hidden.clone(), of.b.clone());
                let hidden = hidden.inner();
                (y, Some(Box::new(Beside { hidden, tag })))
            }
        };
        let (y, tag) = probe(y, &self.none);
        self.taps.push(Tap::Map {
            slot,
            input,
            tag,
            beside,
        });
        y
    }

    fn shift(&mut self, slot: usize, shift: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        self.meet(slot);
        let y = self.scaled(slot, Side::Output, x + shift.clone().unsqueeze());
        self.tapped(slot, y, |tag| Tap::Shift { tag })
    }

    fn norm(&mut self, slot: usize, norm: Norm, gain: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        self.meet(slot);
        let input = x.clone().inner();
        self.tapped(slot, norm.of(x, gain), |tag| Tap::Gain { norm, input, tag })
    }

    fn rows(&mut self, slot: usize, table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        self.meet(slot);
        let kind = self.placed.model.shape().slots[slot].kind;
        let context = table.dims()[0];
        self.tapped(slot, table.clone().select(0, ids), |tag| match kind {
            Kind::Positions => Tap::Positions { context, tag },
            _ => Tap::Table { tag },
        })
    }

    fn begun(&mut self, x: Tensor<2>) -> Tensor<2> {
        let Trains::Beginning { tokens } = self.placed.trains else {
            return x;
        };
        let (x, tag) = probe(x, &self.none);
        self.taps.push(Tap::Positions { context: tokens, tag });
        x
    }
}

/// The same forward without taps.
pub struct Untapped<'a>(pub &'a Placed);

impl Apply for Untapped<'_> {
    fn map(&mut self, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let x = self.scaled(slot, Side::Input, x);
        let y = forward(self.0, slot, weight, x);
        self.scaled(slot, Side::Output, y)
    }

    fn shift(&mut self, slot: usize, shift: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        self.scaled(slot, Side::Output, x + shift.clone().unsqueeze())
    }
}

impl Untapped<'_> {
    fn scaled(&self, slot: usize, side: Side, x: Tensor<2>) -> Tensor<2> {
        match scale(self.0, slot, side) {
            None => x,
            Some(scale) => x * scale,
        }
    }
}

/// What that side of `slot` is multiplied by, `[1, width]`; none where it is not.
fn scale(placed: &Placed, slot: usize, side: Side) -> Option<Tensor<2>> {
    let Trains::Scales(scales) = &placed.trains else {
        return None;
    };
    let (of, scale) = scales.get(&slot)?;
    (*of == side).then(|| scale.clone().unsqueeze())
}

/// x·Wᵀ, and the adapter's part where the weights do not hold it.
fn forward(placed: &Placed, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    let base = product(x.clone(), weight.clone().transpose());
    match adapter(placed, slot) {
        None => base,
        Some(of) => base + matmul(matmul(x, of.scaled_a.clone()), of.b.clone()),
    }
}

/// The adapter that stands beside the map in `slot`; none where there is none, or the weights hold it.
fn adapter(placed: &Placed, slot: usize) -> Option<&lora::Placed> {
    match &placed.trains {
        Trains::Factors {
            factors, merged: false, ..
        } => Some(&factors[&slot]),
        _ => None,
    }
}
