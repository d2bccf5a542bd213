//! A linear map in a few bits a weight: it lies in memory as its file has it or as NF4, and is unpacked where it is applied.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::load::Held;
use super::load::blocks::Blocks;
use super::nf4::Nf4;

/// A map `[out, in]`, packed.
#[derive(Clone)]
pub struct Packed {
    weights: Arc<Weights>,
    shape: [usize; 2],
    device: Device,
    /// Of what is unpacked.
    dtype: DType,
}

enum Weights {
    Blocks(Blocks),
    Nf4(Nf4),
}

impl Packed {
    /// What a file packs stays as it is; whole numbers become NF4.
    pub fn new(held: Held, shape: [usize; 2], device: &Device) -> Self {
        let weights = match held {
            Held::Blocks(blocks) if blocks.format.is_packed() => Weights::Blocks(blocks),
            whole => Weights::Nf4(Nf4::of(&whole.numbers())),
        };
        Packed {
            weights: Arc::new(weights),
            shape,
            device: device.clone(),
            dtype: DType::F32,
        }
    }

    /// The same, unpacked into another element type.
    pub fn into_type(&self, dtype: DType) -> Self {
        Packed { dtype, ..self.clone() }
    }

    /// The weights `[out, in]`.
    pub fn unpacked(&self) -> Tensor<2> {
        let numbers = match &*self.weights {
            Weights::Blocks(blocks) => blocks.numbers(),
            Weights::Nf4(nf4) => nf4.numbers(),
        };
        Tensor::<2>::from_data(TensorData::new(numbers, self.shape), &self.device).cast(self.dtype)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        match &*self.weights {
            Weights::Blocks(blocks) => blocks.bytes.len(),
            Weights::Nf4(_) => Nf4::bytes(self.shape[0] * self.shape[1]),
        }
    }
}
