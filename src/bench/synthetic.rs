//! A model with the shape that is asked for and weights that mean nothing, as a GGUF in memory: it then goes the way of
//! every other model.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Result;
use crate::models::llama::{Llama, LlamaConfig};
use crate::models::load::gguf::Gguf;

/// ggml's numbers for the kinds of values.
const U32: u32 = 4;
const F32: u32 = 6;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// ggml's number for tensors of f32.
const TENSOR_F32: u32 = 0;
const ALIGNMENT: usize = 32;

/// A model of shape `c` with weights uniform in ±1/√inputs: activations keep their size, so no number is subnormal.
pub fn gguf(c: &LlamaConfig) -> Result<Gguf> {
    let tensors = Llama::new(c.clone(), serde_json::Value::Null).gguf_tensors();
    let counts = [
        ("block_count", c.layers),
        ("embedding_length", c.width),
        ("feed_forward_length", c.hidden),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("context_length", c.context),
    ];
    let numbers = [
        ("rope.freq_base", c.rope_base),
        ("attention.layer_norm_rms_epsilon", c.norm_epsilon),
    ];
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((2 + counts.len() as u64 + numbers.len() as u64).to_le_bytes());
    key(&mut file, "general.architecture", TEXT);
    text(&mut file, "llama");
    for (name, value) in counts {
        key(&mut file, &format!("llama.{name}"), U32);
        file.extend((value as u32).to_le_bytes());
    }
    for (name, value) in numbers {
        key(&mut file, &format!("llama.{name}"), F32);
        file.extend((value as f32).to_le_bytes());
    }
    key(&mut file, "tokenizer.ggml.tokens", LIST);
    file.extend(TEXT.to_le_bytes());
    file.extend((c.vocabulary as u64).to_le_bytes());
    (0..c.vocabulary).for_each(|_| text(&mut file, ""));

    let mut offset = 0usize;
    for (name, shape) in &tensors {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|n| file.extend((*n as u64).to_le_bytes()));
        file.extend(TENSOR_F32.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += bytes(shape);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT) + offset, 0);
    let start = file.len() - offset;
    let mut at = start;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for (_, shape) in &tensors {
        let values = file[at..at + bytes(shape)].chunks_exact_mut(4);
        match shape[..] {
            [_, input] => {
                let bound = 1.0 / (input as f32).sqrt();
                let count = shape.iter().product::<usize>();
                values
                    .take(count)
                    .for_each(|b| b.copy_from_slice(&rng.random_range(-bound..bound).to_le_bytes()));
            }
            // A norm's weights.
            _ => values
                .take(shape[0])
                .for_each(|b| b.copy_from_slice(&1f32.to_le_bytes())),
        }
        at += bytes(shape);
    }
    Gguf::parse("the synthetic model".into(), file)
}

/// What a tensor takes in the file.
fn bytes(shape: &[usize]) -> usize {
    (4 * shape.iter().product::<usize>()).next_multiple_of(ALIGNMENT)
}

fn key(file: &mut Vec<u8>, name: &str, kind: u32) {
    text(file, name);
    file.extend(kind.to_le_bytes());
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}
