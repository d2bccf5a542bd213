//! The CPU's fused kernels beside the same operations composed of Burn's, forward and backward, at the shapes of a
//! micro-batch of SmolLM2-135M: 8 records of 104 tokens. On one thread, as each training worker runs; in turns, so that
//! both see the same machine: `cargo bench --profile release --bench kernels`.
#![allow(clippy::print_stdout, reason = "its figures go to standard output")]

mod common;

use burn::tensor::{Device, Tensor, TensorData};
use dpsynth::models::fused::{Heads, Rotary, causal_attention, composed, rms_norm, swiglu};
use dpsynth::training::cross_entropy::{self, cross_entropy};

/// The allocator that the program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: Heads = Heads {
    rows: 8,
    tokens: 104,
    heads: 9,
    kv_heads: 3,
    head_width: 64,
    window: None,
};
const TOKENS: usize = SHAPE.rows * SHAPE.tokens;
const WIDTH: usize = SHAPE.heads * SHAPE.head_width;
const KV_WIDTH: usize = SHAPE.kv_heads * SHAPE.head_width;
const HIDDEN: usize = 1536;
const VOCABULARY: usize = 49_152;
/// Tokens of a micro-batch that follow the prompt.
const PREDICTED: usize = SHAPE.rows * 64;

fn main() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    one_thread.expect("a thread").install(measure);
}

fn measure() {
    let gain = Tensor::<1>::ones([WIDTH], &Device::flex());
    compare(
        "rms_norm",
        31,
        &[tracked(TOKENS, WIDTH)],
        &|x| rms_norm(x[0].clone(), &gain, 1e-5),
        &|x| composed::rms_norm(x[0].clone(), &gain, 1e-5),
    );
    compare(
        "swiglu",
        21,
        &[tracked(TOKENS, HIDDEN), tracked(TOKENS, HIDDEN)],
        &|x| swiglu(x[0].clone(), x[1].clone()),
        &|x| composed::swiglu(x[0].clone(), x[1].clone()),
    );
    let rotary = Rotary {
        cos: constant(SHAPE.tokens, SHAPE.head_width / 2),
        sin: constant(SHAPE.tokens, SHAPE.head_width / 2),
    };
    compare(
        "causal_attention",
        21,
        &[
            tracked(TOKENS, WIDTH),
            tracked(TOKENS, KV_WIDTH),
            tracked(TOKENS, KV_WIDTH),
        ],
        &|x| causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), SHAPE, &rotary),
        &|x| composed::causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), SHAPE, &rotary),
    );
    let head = constant(VOCABULARY, WIDTH);
    let targets: Vec<u32> = (0..PREDICTED).map(|i| (i * 97 % VOCABULARY) as u32).collect();
    let weights = [1.0 / 64.0; PREDICTED];
    let hidden = tracked(PREDICTED, WIDTH);
    in_turns(
        "cross_entropy",
        3,
        &|| drop(cross_entropy(hidden.clone(), &head, &targets, |_| weights.to_vec())),
        &|| drop(cross_entropy::composed(hidden.clone().inner(), head.clone(), &targets)),
    );
}

fn constant(rows: usize, width: usize) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.618).sin()).collect();
    Tensor::from_data(TensorData::new(values, [rows, width]), &Device::flex())
}

fn tracked(rows: usize, width: usize) -> Tensor<2> {
    Tensor::from_inner(constant(rows, width)).require_grad()
}

/// Forward and backward of two forms of one operation.
fn compare(
    name: &str,
    times: usize,
    inputs: &[Tensor<2>],
    kernel: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
    composed: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
) {
    // The sum's own gradient is one number broadcast.
    let both = |f: &dyn Fn(&[Tensor<2>]) -> Tensor<2>| drop(f(inputs).sum().backward());
    in_turns(name, times, &|| both(kernel), &|| both(composed));
}

/// Medians of `times` runs of each, taken in turns, and their ratio.
fn in_turns(name: &str, times: usize, kernel: &dyn Fn(), composed: &dyn Fn()) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..times {
        ours.push(common::median(1, kernel));
        theirs.push(common::median(1, composed));
    }
    let [ours, theirs] = [ours, theirs].map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[times / 2]
    });
    common::report(&format!("{name}, composed"), theirs, 1.0);
    common::report(&format!("{name}, kernel; times as fast"), ours, theirs / ours);
}
