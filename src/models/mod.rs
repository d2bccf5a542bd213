//! The models, one readable file each, and their loaders.

pub mod bert;
pub mod cache;
pub mod device;
pub mod fused;
pub mod llama;
pub mod load;
pub mod lora;
