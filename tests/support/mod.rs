//! The tiny Llama of `fixtures/llama.py` and what PyTorch, transformers and PEFT say about it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use dpsynth::config::DeviceChoice;
use dpsynth::models::LanguageModel;
use dpsynth::models::device::choose;
use dpsynth::models::load::gguf::Gguf;
use dpsynth::models::lora::Adapter;
use dpsynth::records::{Encoded, Vocabulary};
use safetensors::SafeTensors;
use serde_json::Value;

/// Where the tests compute: on the CPU, or on CUDA with `DPSYNTH_TEST_DEVICE=cuda`.
///
/// # Panics
/// CUDA is asked for and does not work: no test passes for want of a device.
pub fn device() -> Device {
    match std::env::var("DPSYNTH_TEST_DEVICE").as_deref() {
        Err(_) | Ok("" | "cpu") => Device::flex(),
        Ok("cuda") => choose(DeviceChoice::Cuda).expect("CUDA"),
        Ok(other) => panic!("DPSYNTH_TEST_DEVICE is cpu or cuda, not {other}"),
    }
}

/// A file beside `fixtures/llama.py`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/llama")
        .join(name)
}

pub fn gguf_bytes() -> Vec<u8> {
    std::fs::read(fixture("model.gguf")).unwrap()
}

pub fn gguf() -> Gguf {
    Gguf::open(&fixture("model.gguf")).unwrap()
}

pub fn model() -> LanguageModel {
    LanguageModel::open(&fixture("model.gguf"), &device()).unwrap()
}

pub fn vocabulary() -> Vocabulary {
    Vocabulary::from_gguf(&gguf()).unwrap()
}

pub fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// The adapter that PEFT saved: rank 2, alpha 6, B not zero.
pub fn adapter(model: &LanguageModel) -> Adapter {
    Adapter::load(&fixture("adapter.safetensors"), model.shape(), 2, 6.0).unwrap()
}

/// The records whose gradients PyTorch took, all of different lengths; the second repeats a token.
pub fn records() -> Vec<Encoded> {
    let all = &expected()["lora"]["records"];
    let record = |r: &Value| Encoded {
        tokens: ids(&r["tokens"]),
        prompt: r["prompt"].as_u64().unwrap() as usize,
        label: 0,
    };
    all.as_array().unwrap().iter().map(record).collect()
}

/// PyTorch's gradient of each of [`records`], in the adapter's order.
pub fn gradients() -> Vec<Vec<f32>> {
    let file = std::fs::read(fixture("gradients.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let values = |i: usize| {
        let data = tensors.tensor(&i.to_string()).unwrap().data().to_vec();
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    (0..tensors.len()).map(values).collect()
}

pub fn floats(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub fn ids(v: &Value) -> Vec<u32> {
    v.as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_u64().unwrap() as u32)
        .collect()
}

pub fn block(rows: &[&[u32]]) -> Tensor<2, Int> {
    let ids: Vec<i32> = rows.iter().flat_map(|r| r.iter().map(|t| *t as i32)).collect();
    Tensor::from_data(TensorData::new(ids, [rows.len(), rows[0].len()]), &device())
}

pub fn values<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.into_data().try_into_vec::<f32>().unwrap()
}

/// The largest difference between two lists of equal length; NaN counts as infinitely far.
pub fn furthest(a: impl IntoIterator<Item = impl Into<f64>>, b: impl IntoIterator<Item = impl Into<f64>>) -> f64 {
    let (a, b): (Vec<f64>, Vec<f64>) = (
        a.into_iter().map(Into::into).collect(),
        b.into_iter().map(Into::into).collect(),
    );
    assert_eq!(a.len(), b.len(), "lists of equal length");
    let distance = |(x, y): (&f64, &f64)| if (x - y).is_nan() { f64::INFINITY } else { (x - y).abs() };
    a.iter().zip(&b).map(distance).fold(0.0, f64::max)
}

/// Euclidean norm.
pub fn norm(v: impl IntoIterator<Item = impl Into<f64>>) -> f64 {
    v.into_iter().map(|x| x.into().powi(2)).sum::<f64>().sqrt()
}

/// Euclidean distance.
pub fn distance<A: Copy + Into<f64>, B: Copy + Into<f64>>(a: &[A], b: &[B]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of equal length");
    norm(a.iter().zip(b).map(|(x, y)| (*x).into() - (*y).into()))
}
