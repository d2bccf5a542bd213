//! The models, one readable file each, and their loaders.

pub mod bert;
pub mod device;
pub mod llama;
pub mod load;
pub mod lora;
