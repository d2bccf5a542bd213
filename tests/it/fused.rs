//! The CPU's kernels against the same operations composed of Burn's, and rows that must not see each other.

use crate::support::device;
use burn::tensor::{DType, Tensor, TensorData};
use dpsynth::models::fused::{Heads, Rotary, causal_attention, composed, geglu, rms_norm, swiglu};
use dpsynth::training::cross_entropy::{self, cross_entropy};

/// Values in ±2, the same each time.
fn values(n: usize, seed: usize) -> Vec<f32> {
    let wave = |i: usize| (i as f32 * 12.9 + seed as f32).sin() + (i as f32 * 7.3 + seed as f32 * 0.7).cos();
    (0..n).map(wave).collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device().autodiff())
}

fn read<const D: usize>(t: Tensor<D>) -> Vec<f32> {
    t.try_into_vec_as().expect("f32")
}

/// An operation on matrices.
type Operation<'a> = &'a dyn Fn(&[Tensor<2>]) -> Tensor<2>;

/// The output, and the gradient by each input of a sum that weighs every output value differently.
fn forward_and_backward(operation: Operation, inputs: &[(Vec<f32>, [usize; 2])]) -> Vec<Vec<f32>> {
    let inputs: Vec<Tensor<2>> = inputs.iter().map(|(v, s)| tensor(v, *s).require_grad()).collect();
    let y = operation(&inputs);
    let shape = y.dims();
    let weights = tensor(&values(shape[0] * shape[1], 5), shape);
    let gradients = (y.clone() * weights).sum().backward();
    let by = |x: &Tensor<2>| read(x.grad(&gradients).expect("a gradient by every input"));
    std::iter::once(read(y)).chain(inputs.iter().map(by)).collect()
}

/// ‖a − b‖ / ‖b‖
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let off: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b))).sum();
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (off / size.max(f64::MIN_POSITIVE)).sqrt()
}

fn assert_agree(what: &str, kernel: Operation, composed: Operation, inputs: &[(Vec<f32>, [usize; 2])]) {
    let (ours, theirs) = (
        forward_and_backward(kernel, inputs),
        forward_and_backward(composed, inputs),
    );
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let off = relative(ours, theirs);
        assert!(off < 1e-5, "{what}, part {i}: {off:e} off");
    }
}

/// Records stand in rows, `rows` of them: with NaN in the first input's `broken` row, all other rows of the output and of
/// every gradient are bit by bit what they were, and the output shows the broken row.
fn assert_rows_apart(what: &str, operation: Operation, inputs: &[(Vec<f32>, [usize; 2])], rows: usize, broken: usize) {
    let whole = forward_and_backward(operation, inputs);
    let mut inputs = inputs.to_vec();
    let len = inputs[0].0.len() / rows;
    inputs[0].0[broken * len + len / 2] = f32::NAN;
    let spoiled = forward_and_backward(operation, &inputs);
    for (i, (whole, spoiled)) in whole.iter().zip(&spoiled).enumerate() {
        let len = whole.len() / rows;
        for row in (0..rows).filter(|row| *row != broken) {
            let bits = |of: &[f32]| -> Vec<u32> { of[row * len..][..len].iter().map(|x| x.to_bits()).collect() };
            assert_eq!(bits(whole), bits(spoiled), "{what}, part {i}, row {row}");
        }
        let shows = spoiled[broken * len..][..len].iter().any(|x| x.is_nan());
        assert!(shows || i > 0, "{what}: the broken row is not finite");
    }
}

// ---------------------------------------------------------------------------------------------- norm and gate

/// Odd sizes, and one of more than a task.
const MATRICES: [[usize; 2]; 4] = [[1, 8], [7, 33], [100, 576], [257, 100]];

#[test]
fn rms_norm_and_its_gradient_are_those_of_burn() {
    for [n, width] in MATRICES {
        let gain = Tensor::<1>::from_data(TensorData::new(values(width, 2), [width]), &device());
        assert_agree(
            &format!("{n} × {width}"),
            &|x| rms_norm(x[0].clone(), &gain, 1e-5),
            &|x| composed::rms_norm(x[0].clone(), &gain, 1e-5),
            &[(values(n * width, 1), [n, width])],
        );
    }
}

type Gate = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;

fn assert_gates_agree(ours: Gate, burns: Gate) {
    for [n, width] in MATRICES {
        let wide = |seed| (values(n * width, seed).iter().map(|x| 8.0 * x).collect(), [n, width]);
        assert_agree(
            &format!("{n} × {width}"),
            &|x| ours(x[0].clone(), x[1].clone()),
            &|x| burns(x[0].clone(), x[1].clone()),
            &[wide(1), wide(2)],
        );
    }
}

#[test]
fn swiglu_and_its_gradients_are_those_of_burn() {
    assert_gates_agree(swiglu, composed::swiglu);
}

#[test]
fn geglu_and_its_gradients_are_those_of_burn() {
    assert_gates_agree(geglu, composed::geglu);
}

#[test]
fn a_broken_row_spoils_no_other_row_of_norm_and_gate() {
    let gain = Tensor::<1>::from_data(TensorData::new(values(33, 2), [33]), &device());
    let x = |seed| (values(5 * 33, seed), [5, 33]);
    assert_rows_apart("norm", &|x| rms_norm(x[0].clone(), &gain, 1e-5), &[x(1)], 5, 3);
    assert_rows_apart("gate", &|x| swiglu(x[0].clone(), x[1].clone()), &[x(1), x(2)], 5, 3);
    assert_rows_apart("gelu gate", &|x| geglu(x[0].clone(), x[1].clone()), &[x(1), x(2)], 5, 3);
}

#[test]
fn infinity_is_not_hidden() {
    let mut x = values(16, 1);
    x[3] = f32::INFINITY;
    let gain = Tensor::<1>::ones([8], &device());
    let y = read(rms_norm(tensor(&x, [2, 8]), &gain, 1e-5));
    assert!(!y[3].is_finite() && y[8..].iter().all(|y| y.is_finite()));
    let y = read(swiglu(tensor(&x, [2, 8]), tensor(&[1.0; 16], [2, 8])));
    assert_eq!(y[3], f32::INFINITY);
    x[3] = f32::NEG_INFINITY;
    let y = read(swiglu(tensor(&[1.0; 16], [2, 8]), tensor(&x, [2, 8])));
    assert_eq!(y[3], f32::NEG_INFINITY);
}

// ---------------------------------------------------------------------------------------------- attention

fn rotary(shape: Heads) -> Rotary {
    let half = shape.head_width / 2;
    let angle = |i: usize| (i / half) as f32 * 0.3f32.powi((i % half) as i32);
    let table = |f: fn(f32) -> f32| -> Tensor<2> {
        let values: Vec<f32> = (0..shape.tokens * half).map(|i| f(angle(i))).collect();
        Tensor::from_data(TensorData::new(values, [shape.tokens, half]), &device())
    };
    Rotary {
        cos: table(f32::cos),
        sin: table(f32::sin),
    }
}

fn heads(rows: usize, tokens: usize, kv_heads: usize, groups: usize) -> Heads {
    Heads {
        window: None,
        rows,
        tokens,
        heads: kv_heads * groups,
        kv_heads,
        head_width: 16,
    }
}

/// Queries, keys and values.
fn inputs(shape: Heads) -> [(Vec<f32>, [usize; 2]); 3] {
    let n = shape.rows * shape.tokens;
    [(shape.heads, 1), (shape.kv_heads, 2), (shape.kv_heads, 3)].map(|(heads, seed)| {
        let width = heads * shape.head_width;
        (values(n * width, seed), [n, width])
    })
}

#[test]
fn causal_attention_and_its_gradients_are_those_of_burn() {
    for tokens in [1, 7, 64, 100, 257] {
        for (rows, kv_heads, groups, window) in [
            (1, 2, 1, None),
            (5, 1, 3, None),
            (5, 2, 3, Some(1)),
            (1, 3, 3, None),
            (2, 2, 2, Some(70)),
        ] {
            let shape = Heads {
                window,
                ..heads(rows, tokens, kv_heads, groups)
            };
            let rotary = rotary(shape);
            assert_agree(
                &format!("{shape:?}"),
                &|x| causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary),
                &|x| composed::causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary),
                &inputs(shape),
            );
        }
    }
}

#[test]
fn a_broken_record_spoils_no_other_records_attention() {
    for input in 0..3 {
        let shape = heads(5, 100, 2, 3);
        let rotary = rotary(shape);
        let mut inputs = inputs(shape).to_vec();
        inputs.swap(0, input);
        let attend = |x: &[Tensor<2>]| {
            let mut x = x.to_vec();
            x.swap(0, input);
            causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary)
        };
        assert_rows_apart(&format!("input {input}"), &attend, &inputs, 5, 2);
    }
}

#[test]
fn scores_that_leave_the_range_of_f32_show() {
    let shape = heads(1, 7, 1, 1);
    let [q, k, v] = inputs(shape).map(|(v, s)| tensor(&v, s));
    let y = read(causal_attention(q * 1e20, k * 1e20, v, shape, &rotary(shape)));
    assert!(y.iter().any(|y| !y.is_finite()));
}

#[test]
fn scores_of_hundreds_are_no_harm() {
    let shape = heads(2, 100, 1, 3);
    let rotary = rotary(shape);
    let mut inputs = inputs(shape);
    inputs[0].0.iter_mut().for_each(|q| *q *= 100.0);
    assert_agree(
        "large scores",
        &|x| causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary),
        &|x| composed::causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary),
        &inputs,
    );
}

#[test]
fn other_element_types_take_burns_operations() {
    let shape = heads(2, 7, 1, 3);
    let half = |t: Tensor<2>| t.cast(DType::BF16);
    let Rotary { cos, sin } = rotary(shape);
    let rotary_half = Rotary {
        cos: half(cos.clone()),
        sin: half(sin.clone()),
    };
    let [q, k, v] = inputs(shape).map(|(v, s)| tensor(&v, s));
    let y = causal_attention(half(q.clone()), half(k.clone()), half(v.clone()), shape, &rotary_half);
    assert_eq!(y.dtype(), DType::BF16);
    let exact = read(causal_attention(q.clone(), k, v, shape, &Rotary { cos, sin }));
    assert!(relative(&read(y.cast(DType::F32)), &exact) < 5e-2);
    let gain = Tensor::<1>::ones([48], &device());
    let y = rms_norm(half(q.clone()), &gain.clone().cast(DType::BF16), 1e-5);
    assert!(relative(&read(y.cast(DType::F32)), &read(rms_norm(q.clone(), &gain, 1e-5))) < 2e-2);
    let y = swiglu(half(q.clone()), half(q.clone()));
    assert!(relative(&read(y.cast(DType::F32)), &read(swiglu(q.clone(), q))) < 2e-2);
}

// ---------------------------------------------------------------------------------------------- cross-entropy

/// Hidden states, head, targets and weights of `n` predictions.
fn predictions(n: usize, width: usize, vocabulary: usize) -> (Vec<f32>, Tensor<2>, Vec<u32>, Vec<f32>) {
    let head = Tensor::from_data(
        TensorData::new(values(vocabulary * width, 2), [vocabulary, width]),
        &device(),
    );
    let targets = (0..n).map(|i| ((i * 7919) % vocabulary) as u32).collect();
    let weights = (0..n).map(|i| 1.0 / (1 + i % 9) as f32).collect();
    (values(n * width, 1), head, targets, weights)
}

/// Losses, and the gradient by the hidden states.
fn by_kernel(h: &[f32], head: &Tensor<2>, targets: &[u32], weights: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let hidden = tensor(h, [targets.len(), head.dims()[1]]).require_grad();
    let found = cross_entropy(hidden.clone(), head, targets, |_| weights.to_vec());
    let gradients = found.surrogate.backward();
    (found.losses, read(hidden.grad(&gradients).expect("hidden is tracked")))
}

#[test]
fn losses_and_their_gradient_are_those_of_burn() {
    // One row, less than a chunk, more than one for each thread; a vocabulary of more than a run.
    for (n, width, vocabulary) in [(1, 8, 11), (7, 33, 1501), (300, 24, 100), (529, 16, 257)] {
        let (h, head, targets, weights) = predictions(n, width, vocabulary);
        let (losses, gradient) = by_kernel(&h, &head, &targets, &weights);
        let inner = tensor(&h, [n, width]).inner();
        let (expected, expected_gradient) = cross_entropy::composed(inner, head, &targets);
        let weights = TensorData::new(weights, [n, 1]);
        let expected_gradient = expected_gradient * Tensor::from_data(weights, &device());
        assert!(relative(&losses, &expected) < 1e-5, "losses of {n}");
        let off = relative(&gradient, &read(expected_gradient));
        assert!(off < 1e-5, "gradient of {n}: {off:e} off");
    }
}

#[test]
fn a_prediction_that_is_not_finite_shows_and_spoils_no_other() {
    let (mut h, head, targets, weights) = predictions(300, 24, 100);
    let whole = by_kernel(&h, &head, &targets, &weights);
    for (broken, value) in [(5, f32::NAN), (200, f32::INFINITY)] {
        h[broken * 24 + 3] = value;
        let spoiled = by_kernel(&h, &head, &targets, &weights);
        h[broken * 24 + 3] = 0.5;
        assert!(!spoiled.0[broken].is_finite());
        assert!(spoiled.1[broken * 24..][..24].iter().all(|g| !g.is_finite()));
        for row in (0..300).filter(|row| ![5, 200].contains(row)) {
            assert_eq!(spoiled.0[row].to_bits(), whole.0[row].to_bits(), "loss {row}");
            let rows = |of: &[f32]| -> Vec<u32> { of[row * 24..][..24].iter().map(|g| g.to_bits()).collect() };
            assert_eq!(rows(&spoiled.1), rows(&whole.1), "gradient {row}");
        }
    }
}

#[test]
fn results_are_the_same_on_any_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (h, head, targets, weights) = predictions(529, 16, 257);
            let shape = heads(5, 100, 2, 3);
            let rotary = rotary(shape);
            let attend = |x: &[Tensor<2>]| causal_attention(x[0].clone(), x[1].clone(), x[2].clone(), shape, &rotary);
            (
                by_kernel(&h, &head, &targets, &weights),
                forward_and_backward(&attend, &inputs(shape)),
            )
        })
    };
    let one = on(1);
    assert!(one == on(2) && one == on(5));
}
