//! LoRA (Hu et al. 2021): each linear map W gains (alpha / rank)·B·A, and only A and B are trained.
//!
//! All values live in one flat vector, since that is what clipping, noise and the optimizer act on.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use safetensors::tensor::{Dtype, SafeTensors};

use super::product::matmul;
use super::shape::{Shape, transposed};
use crate::files::{Values, write_tensors};
use crate::{Error, Result};

/// Where the two factors of one linear map stand in the flat vector.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    slot: usize,
    /// The map's name in checkpoints, without `.weight`.
    module: String,
    input: usize,
    output: usize,
    /// A `[input, rank]` begins here, B `[rank, output]` follows.
    start: usize,
}

impl Place {
    /// PEFT's name of a factor, `A` or `B`.
    fn name(&self, part: &str) -> String {
        format!("base_model.model.{}.lora_{part}.weight", self.module)
    }
}

/// A `[input, rank]` and B `[rank, output]` by the slot of their map.
pub type Factors = BTreeMap<usize, (Tensor<2>, Tensor<2>)>;

/// The factors of a map on a device: it gains (x·A)·B times alpha / rank.
#[derive(Clone, Debug)]
pub struct Placed {
    /// A times alpha / rank, `[input, rank]`.
    pub scaled_a: Tensor<2>,
    /// `[rank, output]`.
    pub b: Tensor<2>,
    /// B times alpha / rank, `[rank, output]`.
    pub scaled_b: Tensor<2>,
    /// alpha / rank.
    pub scale: f64,
}

/// An adapter for every linear map of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    rank: usize,
    alpha: f64,
    places: Vec<Place>,
    values: Vec<f32>,
}

impl Adapter {
    /// A fresh adapter: A uniform in ±1/√input (Kaiming with a = √5, as PEFT does), B zero, so that it changes nothing yet.
    ///
    /// The initial values are public: `seed` costs no privacy.
    pub fn new(shape: &Shape, rank: usize, alpha: f64, seed: u64) -> Self {
        let mut places = Vec::new();
        let mut start = 0;
        for (slot, [input, output]) in shape.maps() {
            places.push(Place {
                slot,
                module: shape.slots[slot].module().to_string(),
                input,
                output,
                start,
            });
            start += rank * (input + output);
        }
        let mut values = vec![0f32; start];
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for p in &places {
            let bound = 1.0 / (p.input as f32).sqrt();
            for v in &mut values[p.start..p.start + p.input * rank] {
                *v = rng.random_range(-bound..bound);
            }
        }
        Adapter {
            rank,
            alpha,
            places,
            values,
        }
    }

    /// Number of trained values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// LoRA's scale, alpha / rank.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// All values, in the order of [`Shape::maps`], A before B.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, for the optimizer.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Where B of each linear map stands in the values.
    pub fn seconds(&self) -> impl Iterator<Item = Range<usize>> {
        let of = |p: &Place| {
            let start = p.start + self.rank * p.input;
            start..start + self.rank * p.output
        };
        self.places.iter().map(of)
    }

    /// A `[input, rank]` and B `[rank, output]` of each linear map, by slot, on `device`.
    pub fn tensors(&self, device: &Device) -> Factors {
        self.places.iter().map(|p| (p.slot, self.factors(p, device))).collect()
    }

    /// What training needs of each linear map, by slot, on `device`.
    pub fn placed(&self, device: &Device) -> BTreeMap<usize, Placed> {
        let scale = self.scale() as f32;
        let times = |scale: f32, values: &[f32], shape: [usize; 2]| -> Tensor<2> {
            let values: Vec<f32> = values.iter().map(|v| v * scale).collect();
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let place = |p: &Place| {
            let (a, b) = self.slices(p);
            let placed = Placed {
                scaled_a: times(scale, a, [p.input, self.rank]),
                b: times(1.0, b, [self.rank, p.output]),
                scaled_b: times(scale, b, [self.rank, p.output]),
                scale: self.scale(),
            };
            (p.slot, placed)
        };
        self.places.iter().map(place).collect()
    }

    /// (alpha / rank)·B·A of one linear map, `[output, input]`.
    ///
    /// # Panics
    /// Where there is no linear map in `slot`.
    pub fn delta(&self, slot: usize, device: &Device) -> Tensor<2> {
        let place = self.places.binary_search_by_key(&slot, |p| p.slot);
        let (a, b) = self.factors(&self.places[place.expect("a linear map has its factors")], device);
        matmul(b.transpose(), a.transpose() * self.scale())
    }

    /// A and B of one linear map, row by row.
    fn slices(&self, p: &Place) -> (&[f32], &[f32]) {
        self.values[p.start..p.start + self.rank * (p.input + p.output)].split_at(p.input * self.rank)
    }

    fn factors(&self, p: &Place, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let (a, b) = self.slices(p);
        let on_device = |v: &[f32], shape: [usize; 2]| Tensor::from_data(TensorData::new(v.to_vec(), shape), device);
        (on_device(a, [p.input, self.rank]), on_device(b, [self.rank, p.output]))
    }

    /// PEFT's name, shape and values of each factor, row by row: `lora_A.weight [rank, input]`, `lora_B.weight [output, rank]`.
    pub fn by_name(&self) -> Vec<(String, [usize; 2], Vec<f32>)> {
        let mut out = Vec::with_capacity(2 * self.places.len());
        for p in &self.places {
            let (a, b) = self.slices(p);
            out.push((p.name("A"), [self.rank, p.input], transposed(a, p.input, self.rank)));
            out.push((p.name("B"), [p.output, self.rank], transposed(b, self.rank, p.output)));
        }
        out
    }

    /// Writes safetensors with PEFT's names and shapes.
    pub fn save(&self, path: &Path) -> Result<()> {
        let held = self.by_name();
        let tensors = held.iter().map(|(name, shape, values)| Values {
            name,
            shape: shape.to_vec(),
            values: values.into(),
        });
        // One entry: two would be written in an order of their own each time.
        let settings = format!("{{\"rank\":{},\"alpha\":{}}}", self.rank, self.alpha);
        let metadata = HashMap::from([("lora".to_string(), settings)]);
        write_tensors(path, tensors.collect(), metadata)
    }

    /// Reads what [`Adapter::save`] wrote, for a model of `shape`.
    pub fn load(path: &Path, shape: &Shape, rank: usize, alpha: f64) -> Result<Self> {
        let file = std::fs::read(path).map_err(|e| Error::io("read the adapter", path, e))?;
        let broken = |what: String| {
            Error::data(format!("{} is not a usable adapter: {what}", path.display()))
                .hint("delete it and run the same command again: it is rebuilt from the checkpoint")
        };
        let tensors = SafeTensors::deserialize(&file).map_err(|e| broken(e.to_string()))?;
        let mut out = Adapter::new(shape, rank, alpha, 0);
        for p in out.places.clone() {
            for (part, dims, at) in [
                ("A", [rank, p.input], p.start),
                ("B", [p.output, rank], p.start + p.input * rank),
            ] {
                let name = p.name(part);
                let view = tensors.tensor(&name).map_err(|e| broken(format!("{name}: {e}")))?;
                if view.shape() != dims || view.dtype() != Dtype::F32 {
                    return Err(broken(format!("{name} has shape {:?}, not {dims:?}", view.shape())));
                }
                let values = transposed(&floats(view.data()), dims[0], dims[1]);
                out.values[at..at + values.len()].copy_from_slice(&values);
            }
        }
        Ok(out)
    }
}

fn floats(b: &[u8]) -> Vec<f32> {
    b.chunks_exact(4)
        .map(|c| f32::from_le_bytes(c.try_into().expect("chunks of four")))
        .collect()
}
