//! A causal language model: weights on a device, and an architecture that says how they are applied.
//!
//! One forward serves training, prefill and decoding. Activations are `[rows · tokens, width]` wherever attention does
//! not need more; how a weight is applied is left to [`Apply`], so that architectures know no LoRA.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rayon::prelude::*;

use super::cache::Past;
use super::fused::{Heads, Rotary, causal_attention, layer_norm, rms_norm};
use super::load::Held;
use super::packed::Packed;
use super::product::matmul;
use super::shape::{Attention, Shape, Slot};
use super::{read, shape::Kind};
use crate::Result;

/// A family of models: what a file in this room declares.
pub trait Architecture: std::fmt::Debug + Send + Sync {
    /// Weights and attention.
    fn shape(&self) -> &Shape;

    /// Embeddings `[n, width]` of `tokens [n]`.
    fn embed(&self, tokens: Tensor<1, Int>, f: &mut Forward) -> Tensor<2>;

    /// One block: `x [n, width]` plus attention, plus the rest. Row by row: nothing but [`Forward::attend`] may look at
    /// another row, or one record would move another's gradient (P5).
    fn block(&self, layer: usize, x: Tensor<2>, f: &mut Forward) -> Tensor<2>;

    /// The last block's output, normed for the head.
    fn last(&self, x: Tensor<2>, f: &mut Forward) -> Tensor<2>;

    /// `config.json` of transformers, without element types and token numbers.
    fn config(&self) -> serde_json::Value;

    /// Whether a checkpoint's tensor of this name computes nothing.
    fn ignores(&self, _tensor: &str) -> bool {
        false
    }
}

/// How weights are applied: plainly when sampling; when training, so that their gradients are seen.
///
/// A forward calls these in the order of [`Shape::slots`].
pub trait Apply {
    /// `x [n, in]` through `weight [out, in]`, giving `[n, out]`.
    fn map(&mut self, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2>;

    /// `shift [width]` added to each row of `x [n, width]`.
    fn shift(&mut self, _: usize, shift: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        x + shift.clone().unsqueeze()
    }

    /// `x [n, width]` normed, times `gain [width]`.
    fn norm(&mut self, _: usize, norm: Norm, gain: &Tensor<1>, x: Tensor<2>) -> Tensor<2> {
        norm.of(x, gain)
    }

    /// Rows `ids [n]` of `table [_, width]`.
    fn rows(&mut self, _: usize, table: &Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        table.clone().select(0, ids)
    }

    /// Embeddings `x [n, width]` with what the model adds at the beginning of each row, where it does.
    fn begun(&mut self, x: Tensor<2>) -> Tensor<2> {
        x
    }
}

/// x·Wᵀ and nothing else.
pub struct Plain;

impl Apply for Plain {
    fn map(&mut self, _: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        matmul(x, weight.clone().transpose())
    }
}

/// How rows are normed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Over the root of their mean square.
    Rms { epsilon: f64 },
    /// Less their mean, over their standard deviation.
    Layer { epsilon: f64 },
}

impl Norm {
    /// `x [n, width]` normed, times `gain [width]`.
    pub fn of(self, x: Tensor<2>, gain: &Tensor<1>) -> Tensor<2> {
        match self {
            Norm::Rms { epsilon } => rms_norm(x, gain, epsilon),
            Norm::Layer { epsilon } => layer_norm(x, gain, epsilon),
        }
    }
}

/// A weight on a device.
#[derive(Clone)]
enum Weight {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
    /// A linear map's.
    Packed(Packed),
}

impl Weight {
    fn new(values: Vec<f32>, shape: &[usize], device: &Device) -> Self {
        match *shape {
            [n] => Weight::Vector(Tensor::from_data(TensorData::new(values, [n]), device)),
            [rows, columns] => Weight::Matrix(Tensor::from_data(TensorData::new(values, [rows, columns]), device)),
            _ => unreachable!("a slot has one or two dimensions"),
        }
    }

    /// A linear map packed, else as it is.
    fn packed(held: Held, slot: &Slot, device: &Device) -> Self {
        match slot.map() {
            Some([input, output]) => Weight::Packed(Packed::new(held, [output, input], device)),
            None => Weight::new(held.numbers(), &slot.shape, device),
        }
    }

    fn vector(&self) -> &Tensor<1> {
        match self {
            Weight::Vector(w) => w,
            _ => unreachable!("the slot is a vector's"),
        }
    }

    /// Unpacked where it is packed.
    fn matrix(&self) -> Tensor<2> {
        match self {
            Weight::Matrix(w) => w.clone(),
            Weight::Packed(packed) => packed.unpacked(),
            Weight::Vector(_) => unreachable!("the slot is a matrix's"),
        }
    }
}

/// Cosines and sines of all positions, `[context, head_width / 2]` each, for the layers of one rotation and width.
#[derive(Clone)]
struct Angles {
    rotation: Option<Arc<[f64]>>,
    head_width: usize,
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Angles {
    fn new(attention: &Attention, context: usize, device: &Device) -> Self {
        let half = attention.head_width / 2;
        let angle = |i: usize| match &attention.rotation {
            Some(of_pairs) => (i / half) as f64 / of_pairs[i % half],
            // Turned by nothing: exactly the same numbers.
            None => 0.0,
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..context * half).map(|i| f(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [context, half]), device)
        };
        Angles {
            rotation: attention.rotation.clone(),
            head_width: attention.head_width,
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    fn are_of(&self, attention: &Attention) -> bool {
        (&self.rotation, self.head_width) == (&attention.rotation, attention.head_width)
    }

    /// Of the first `len` positions, or of given ones.
    fn at(&self, len: usize, positions: Option<&Tensor<1, Int>>) -> Rotary {
        let of = |table: &Tensor<2>| match positions {
            None => table.clone().narrow(0, 0, len),
            Some(positions) => table.clone().select(0, positions.clone()),
        };
        Rotary {
            cos: of(&self.cos),
            sin: of(&self.sin),
        }
    }
}

/// A model.
#[derive(Clone)]
pub struct LanguageModel {
    architecture: Arc<dyn Architecture>,
    /// By slot.
    weights: Vec<Weight>,
    angles: Vec<Angles>,
    /// What is added to the embeddings of a row's first tokens `[tokens, width]`, where something is.
    beginning: Option<Tensor<2>>,
}

impl LanguageModel {
    /// A model of `architecture` whose weights `held` gives, slot by slot.
    pub(crate) fn new(
        architecture: Arc<dyn Architecture>,
        held: impl Fn(usize) -> Result<Held>,
        device: &Device,
    ) -> Result<Self> {
        LanguageModel::of(architecture, device, |i, slot| {
            Ok(Weight::new(held(i)?.numbers(), &slot.shape, device))
        })
    }

    /// The same, its linear maps in a few bits a weight: those that their file packs as they are, others in NF4.
    pub(crate) fn packed(
        architecture: Arc<dyn Architecture>,
        held: impl Fn(usize) -> Result<Held>,
        device: &Device,
    ) -> Result<Self> {
        LanguageModel::of(architecture, device, |i, slot| {
            Ok(Weight::packed(held(i)?, slot, device))
        })
    }

    fn of(
        architecture: Arc<dyn Architecture>,
        device: &Device,
        weight: impl Fn(usize, &Slot) -> Result<Weight>,
    ) -> Result<Self> {
        let shape = architecture.shape();
        shape.check()?;
        let weights = shape.slots.iter().enumerate().map(|(i, slot)| weight(i, slot));
        let weights = weights.collect::<Result<_>>()?;
        let mut angles: Vec<Angles> = Vec::new();
        for attention in &shape.attention {
            if !angles.iter().any(|known| known.are_of(attention)) {
                angles.push(Angles::new(attention, shape.context, device));
            }
        }
        Ok(LanguageModel {
            architecture,
            weights,
            angles,
            beginning: None,
        })
    }

    /// What it declares.
    pub fn shape(&self) -> &Shape {
        self.architecture.shape()
    }

    /// The family.
    pub fn architecture(&self) -> &dyn Architecture {
        &*self.architecture
    }

    /// Where the weights live.
    pub fn device(&self) -> Device {
        self.head().device()
    }

    /// Whether its linear maps are packed: a forward unpacks each where it is applied.
    pub fn is_packed(&self) -> bool {
        self.weights.iter().any(|weight| matches!(weight, Weight::Packed(_)))
    }

    /// The same model with whole numbers in its maps, for many forwards.
    pub fn unpacked(&self) -> Self {
        match self.is_packed() {
            true => self.with_maps(|_, weight| weight),
            false => self.clone(),
        }
    }

    /// All weights, one after the other, in the order of [`Shape::slots`].
    pub fn values(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.shape().parameters());
        for weight in &self.weights {
            out.extend(match weight {
                Weight::Vector(w) => read(w.clone()),
                other => read(other.matrix()),
            });
        }
        out
    }

    /// The same model with other weights, in the order of [`Shape::slots`].
    pub fn with_values(&self, values: &[f32]) -> Self {
        assert_eq!(values.len(), self.shape().parameters(), "a value for each weight");
        let (device, mut rest) = (self.device(), values);
        let weights = self.shape().slots.iter().map(|slot| {
            let (own, others) = rest.split_at(slot.len());
            rest = others;
            Weight::new(own.to_vec(), &slot.shape, &device)
        });
        LanguageModel {
            weights: weights.collect(),
            ..self.clone()
        }
    }

    /// The values of the vector in `slot`.
    ///
    /// # Panics
    /// There is a matrix.
    pub fn vector_values(&self, slot: usize) -> Vec<f32> {
        read(self.weights[slot].vector().clone())
    }

    /// The same model with other vectors, by slot.
    pub fn with_vectors(&self, values: &BTreeMap<usize, &[f32]>) -> Self {
        let (device, mut out) = (self.device(), self.clone());
        for (slot, values) in values {
            out.weights[*slot] = Weight::new(values.to_vec(), &self.shape().slots[*slot].shape, &device);
        }
        out
    }

    /// The same model with `added [tokens, width]` on the embeddings of each row's first tokens.
    pub fn beginning_with(&self, added: Tensor<2>) -> Self {
        LanguageModel {
            beginning: Some(added),
            ..self.clone()
        }
    }

    /// The same weights with `delta(slot)` (`[out, in]`) added to each linear map, for sampling without LoRA's cost.
    pub fn merged(&self, delta: impl Fn(usize) -> Tensor<2> + Sync) -> Self {
        self.with_maps(|slot, w| w + delta(slot))
    }

    /// The same model with `change(slot, weight)` (`[out, in]`) in the place of each linear map's weight.
    pub fn with_maps(&self, change: impl Fn(usize, Tensor<2>) -> Tensor<2> + Sync) -> Self {
        let mut out = self.clone();
        let slots = &self.shape().slots;
        let changed = |(slot, weight): (usize, &mut Weight)| {
            if slots[slot].map().is_some() {
                *weight = Weight::Matrix(change(slot, weight.matrix()));
            }
        };
        match self.device() == Device::flex() {
            // Most operations there use one core.
            true => out.weights.par_iter_mut().enumerate().for_each(changed),
            false => out.weights.iter_mut().enumerate().for_each(changed),
        }
        out
    }

    /// The same model with its maps in another element type, for products of that type.
    pub fn maps_in(&self, dtype: DType) -> Self {
        if !self.is_packed() {
            return self.with_maps(|_, w| w.cast(dtype));
        }
        let mut out = self.clone();
        for weight in &mut out.weights {
            if let Weight::Packed(packed) = weight {
                *packed = packed.into_type(dtype);
            }
        }
        out
    }

    /// Bytes of the weights that a forward pass reads: all maps and the head.
    pub fn bytes_read(&self) -> usize {
        let bytes = |weight: &Weight| match weight {
            Weight::Vector(_) => 0,
            Weight::Matrix(w) => w.shape().num_elements() * w.dtype().size(),
            Weight::Packed(packed) => packed.bytes(),
        };
        let maps = self.shape().maps().map(|(slot, _)| bytes(&self.weights[slot]));
        bytes(&self.weights[self.shape().head()]) + maps.sum::<usize>()
    }

    /// The last hidden states `[rows · tokens, width]` of `tokens [rows, tokens]`, normed for the head.
    ///
    /// Without a `past` each token looks at itself and at those before it in its row. With one, it is the past that says
    /// where in their rows the tokens stand and what they look at, and that keeps their keys and values.
    pub fn hidden(&self, tokens: Tensor<2, Int>, past: Option<&mut dyn Past>, apply: &mut dyn Apply) -> Tensor<2> {
        let [rows, len] = tokens.dims();
        // Lent for no longer than the weights are.
        let past = past.map(|past| past as &mut dyn Past);
        let mut forward = self.forward([rows, len], past, apply);
        let mut x = self.architecture.embed(tokens.reshape([rows * len]), &mut forward);
        for layer in 0..self.shape().layers() {
            x = self.architecture.block(layer, x, &mut forward);
        }
        if let Some(past) = &mut forward.past {
            past.advance();
        }
        self.architecture.last(x, &mut forward)
    }

    /// A forward of `rows` rows of `tokens` tokens, to be taken part by part.
    pub(crate) fn forward<'a>(
        &'a self,
        [rows, tokens]: [usize; 2],
        past: Option<&'a mut dyn Past>,
        apply: &'a mut dyn Apply,
    ) -> Forward<'a> {
        let positions = past.as_ref().map(|past| past.positions());
        let angles = self.angles.iter().map(|a| a.at(tokens, positions.as_ref())).collect();
        Forward {
            model: self,
            rows,
            tokens,
            positions,
            angles,
            past,
            apply,
        }
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, width]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        matmul(hidden, self.head().transpose())
    }

    /// The head's weights `[vocabulary, width]`, for losses that never build all logits.
    pub fn head(&self) -> Tensor<2> {
        self.weights[self.shape().head()].matrix()
    }
}

/// What an architecture applies its weights with.
pub struct Forward<'a> {
    model: &'a LanguageModel,
    rows: usize,
    tokens: usize,
    /// Of each token in its row; none where each row begins at 0.
    positions: Option<Tensor<1, Int>>,
    angles: Vec<Rotary>,
    past: Option<&'a mut dyn Past>,
    apply: &'a mut dyn Apply,
}

impl Forward<'_> {
    /// `x [n, in]` through the map in `slot`, and shifted where a shift follows it.
    pub fn map(&mut self, slot: usize, x: Tensor<2>) -> Tensor<2> {
        let y = self.apply.map(slot, &self.model.weights[slot].matrix(), x);
        self.shifted(slot, y)
    }

    /// `x [n, width]` normed with the gain in `slot`, and shifted where a shift follows it.
    pub fn norm(&mut self, slot: usize, norm: Norm, x: Tensor<2>) -> Tensor<2> {
        let y = self.apply.norm(slot, norm, self.model.weights[slot].vector(), x);
        self.shifted(slot, y)
    }

    fn shifted(&mut self, slot: usize, y: Tensor<2>) -> Tensor<2> {
        match self.model.shape().slots.get(slot + 1) {
            Some(next) if next.kind == Kind::Shift => {
                let shift = self.model.weights[slot + 1].vector();
                self.apply.shift(slot + 1, shift, y)
            }
            _ => y,
        }
    }

    /// Rows `tokens [n]` of the table in `slot`.
    pub fn embed(&mut self, slot: usize, tokens: Tensor<1, Int>) -> Tensor<2> {
        let x = self.apply.rows(slot, &self.model.weights[slot].matrix(), tokens);
        match &self.model.beginning {
            None => x,
            Some(added) => {
                let added = self.at_the_beginning(added);
                self.apply.begun(x + added)
            }
        }
    }

    /// `added [tokens, width]` at the first positions of each row, zeros elsewhere.
    fn at_the_beginning(&self, added: &Tensor<2>) -> Tensor<2> {
        let [tokens, width] = added.dims();
        match &self.positions {
            Some(positions) => {
                let none = Tensor::zeros([1, width], &added.device());
                let at = positions.clone().clamp_max(tokens as i64);
                Tensor::cat(vec![added.clone(), none], 0).select(0, at)
            }
            None => {
                let begun = tokens.min(self.tokens);
                let mut row = added.clone().narrow(0, 0, begun);
                if begun < self.tokens {
                    let none = Tensor::zeros([self.tokens - begun, width], &added.device());
                    row = Tensor::cat(vec![row, none], 0);
                }
                row.unsqueeze::<3>().repeat_dim(0, self.rows).flatten(0, 1)
            }
        }
    }

    /// `x [n, heads · width]`, each head normed by itself with the gain in `slot`.
    pub fn norm_heads(&mut self, slot: usize, norm: Norm, x: Tensor<2>) -> Tensor<2> {
        let [n, all] = x.dims();
        let width = self.model.shape().slots[slot].len();
        self.norm(slot, norm, x.reshape([n * all / width, width]))
            .reshape([n, all])
    }

    /// The rows of the table of positions in `slot`, one for each token at hand.
    pub fn positions(&mut self, slot: usize) -> Tensor<2> {
        let table = self.model.weights[slot].matrix();
        let positions = match &self.positions {
            Some(positions) => positions.clone(),
            None => {
                let row = Tensor::<1, Int>::arange(0..self.tokens as i64, &table.device());
                row.unsqueeze::<2>().repeat_dim(0, self.rows).flatten(0, 1)
            }
        };
        self.apply.rows(slot, &table, positions)
    }

    /// What `q [n, heads · head_width]` sees of `k` and `v [n, kv_heads · head_width]`, and of the past.
    pub fn attend(&mut self, layer: usize, q: Tensor<2>, k: Tensor<2>, v: Tensor<2>) -> Tensor<2> {
        let attention = &self.model.shape().attention[layer];
        let heads = Heads {
            rows: self.rows,
            tokens: self.tokens,
            heads: attention.heads,
            kv_heads: attention.kv_heads,
            head_width: attention.head_width,
            window: attention.window,
        };
        let angles = self.model.angles.iter().position(|angles| angles.are_of(attention));
        let rotary = &self.angles[angles.expect("each layer has its angles")];
        match &mut self.past {
            None => causal_attention(q, k, v, heads, rotary),
            Some(past) => past.attend(layer, q, k, v, heads, rotary),
        }
    }
}
