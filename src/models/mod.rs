//! The models, one readable file each, and their loaders.
//!
//! A family is a file here: it declares its [`shape`] and applies its weights ([`Architecture`]); `open` has a line for it.
//! [`LanguageModel::open`] is the one way in.

pub mod bert;
pub mod cache;
pub mod device;
pub mod fused;
pub mod gemma3;
pub mod gpt2;
pub mod ia3;
mod language_model;
pub mod llama;
pub mod load;
pub mod lora;
pub mod lora_fa;
pub mod nf4;
mod open;
pub mod packed;
pub mod product;
pub mod rotation;
pub mod shape;
pub mod soft_prompt;
pub mod vectors;
pub mod weights;

use burn::tensor::{Tensor, Transaction};

pub(crate) use language_model::Forward;
pub use language_model::{Apply, Architecture, LanguageModel, Norm, Plain};
pub use open::{ModelFiles, declared};

/// A tensor's values on the host.
pub fn read<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.into_data().try_into_vec::<f32>().expect("the tensor holds f32")
}

/// The values of many tensors: a GPU is waited for once.
pub fn read_all(tensors: impl IntoIterator<Item = Tensor<1>>) -> Vec<Vec<f32>> {
    let together = tensors.into_iter().fold(Transaction::default(), Transaction::register);
    let read = together.execute().into_iter();
    read.map(|data| data.try_into_vec::<f32>().expect("the tensor holds f32"))
        .collect()
}
