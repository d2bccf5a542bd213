//! Causal attention in one kernel: no transposed copies, and no tokens × tokens tensor that outlives a block of it.
//!
//! Only the inputs are kept for the way back; rotation and probabilities are computed again there, a block of query
//! tokens at a time, as FlashAttention does (Dao et al. 2022).

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::attention::Heads;
use super::composed;
use super::cpu::{contiguous, tensor};
use super::gemm::{Matrix, add_product, product};
use super::has_kernel;
use super::lanes::{Pass, dot, softmax, vectorised};
use super::rotary::Rotary;

#[cfg(feature = "cuda-plain")]
mod gpu;

/// Each token looks at itself and at those before it in its row, as far as the window goes.
///
/// `q [rows · tokens, heads · head_width]`, `k` and `v [rows · tokens, kv_heads · head_width]`, not yet rotated; gives
/// the shape of `q`.
pub fn causal_attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: Heads, rotary: &Rotary) -> Tensor<2> {
    if ![&q, &k, &v, &rotary.cos, &rotary.sin].into_iter().all(has_kernel) {
        return composed::causal_attention(q, k, v, shape, rotary);
    }
    let [q, k, v, cos, sin] = [q, k, v, rotary.cos.clone(), rotary.sin.clone()].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as Causal>::causal_attention(q, k, v, cos, sin, shape))
}

#[cfg_attr(not(feature = "cuda-plain"), backend_extension(Autodiff, Flex))]
#[cfg_attr(feature = "cuda-plain", backend_extension(Autodiff, Flex, Cube))]
trait Causal: Backend {
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
    ) -> FloatTensor<Self>;

    /// The gradients by `q`, `k` and `v`.
    fn causal_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Query tokens a block: scratch is `BLOCK · heads / kv_heads · tokens` scores.
const BLOCK: usize = 64;

/// The inputs as slices.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    shape: Heads,
}

/// The query heads of one row that share a key head, rotated and side by side.
///
/// Query row `t·heads + h` is token `t` of the group's head `h`: one product serves all heads, and the queries up to a
/// token are the first ones.
struct Group<'a> {
    /// `[tokens · heads, width]`, times 1 / √width.
    q: Vec<f32>,
    /// `[tokens, width]`.
    k: Vec<f32>,
    /// `[tokens, width]`.
    v: Matrix<'a>,
    tokens: usize,
    width: usize,
    sees: Sees,
}

/// What a query row sees of the tokens up to its block's end.
#[derive(Clone, Copy)]
struct Sees {
    /// Query rows of a token.
    heads: usize,
    shape: Heads,
}

impl Sees {
    /// The tokens that query row `row` sees.
    #[inline(always)]
    fn of(self, row: usize) -> std::ops::Range<usize> {
        let token = row / self.heads;
        self.shape.first_seen(token)..token + 1
    }
}

/// Some tokens' queries.
struct Block {
    /// The tokens.
    first: usize,
    end: usize,
}

impl Block {
    fn all(tokens: usize) -> impl Iterator<Item = Block> {
        (0..tokens).step_by(BLOCK).map(move |first| Block {
            first,
            end: (first + BLOCK).min(tokens),
        })
    }
}

impl<'a> Inputs<'a> {
    /// Where the group's first value stands in `x [rows · tokens, kv_heads · each]`, up to its row's end.
    fn part<'b>(&self, x: &'b [f32], group: usize, each: usize) -> &'b [f32] {
        let Heads { tokens, kv_heads, .. } = self.shape;
        let (row, kv_head) = (group / kv_heads, group % kv_heads);
        let row_len = tokens * kv_heads * each;
        &x[row * row_len + kv_head * each..(row + 1) * row_len]
    }

    /// The angles of token `t`.
    fn angles(&self, t: usize) -> (&'a [f32], &'a [f32]) {
        let half = self.shape.head_width / 2;
        (&self.cos[t * half..][..half], &self.sin[t * half..][..half])
    }

    fn group(&self, group: usize) -> Group<'a> {
        let Heads {
            tokens,
            heads,
            kv_heads,
            head_width: width,
            ..
        } = self.shape;
        let heads = heads / kv_heads;
        let scale = 1.0 / (width as f32).sqrt();
        let rotated = |x: &[f32], each: usize, scale: f32| {
            let mut out = vec![0f32; tokens * each];
            let tokens = out.chunks_exact_mut(each).zip(x.chunks(kv_heads * each));
            for (t, (out, x)) in tokens.enumerate() {
                vectorised(Turn, (out, &x[..each], self.angles(t), [scale, scale]));
            }
            out
        };
        Group {
            q: rotated(self.part(self.q, group, heads * width), heads * width, scale),
            k: rotated(self.part(self.k, group, width), width, 1.0),
            v: Matrix::new(self.part(self.v, group, width), [tokens, width], kv_heads * width),
            tokens,
            width,
            sees: Sees {
                heads,
                shape: self.shape,
            },
        }
    }
}

/// One token's heads `x [heads · head_width]`, each pair turned by its angle; the cosines count `factors[0]` times, the
/// sines `factors[1]` times.
struct Turn;

impl Pass<(&mut [f32], &[f32], (&[f32], &[f32]), [f32; 2])> for Turn {
    type Output = ();

    #[inline(always)]
    fn run((out, x, (cos, sin), factors): (&mut [f32], &[f32], (&[f32], &[f32]), [f32; 2])) {
        let half = cos.len();
        for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
            let ((left, right), (a, b)) = (out.split_at_mut(half), x.split_at(half));
            let (out, x) = (left.iter_mut().zip(right), a.iter().zip(b));
            for (((left, right), (a, b)), (cos, sin)) in out.zip(x).zip(cos.iter().zip(sin)) {
                let (cos, sin) = (factors[0] * cos, factors[1] * sin);
                *left = a * cos - b * sin;
                *right = b * cos + a * sin;
            }
        }
    }
}

/// Scores of rows of `seen` tokens, the query rows from `first` on, into probabilities of what they see.
struct CausalSoftmax;

impl Pass<(&mut [f32], usize, usize, Sees)> for CausalSoftmax {
    type Output = ();

    #[inline(always)]
    fn run((p, seen, first, sees): (&mut [f32], usize, usize, Sees)) {
        for (row, p) in p.chunks_exact_mut(seen).enumerate() {
            let live = sees.of(first + row);
            let (before, after) = (live.start, live.end);
            softmax(&mut p[live]);
            p[..before].fill(0.0);
            p[after..].fill(0.0);
        }
    }
}

/// p ∘ (s − Σ p ∘ s) of each such row, in the place of s.
struct CausalSoftmaxGradient;

impl Pass<(&mut [f32], &[f32], usize, usize, Sees)> for CausalSoftmaxGradient {
    type Output = ();

    #[inline(always)]
    fn run((s, p, seen, first, sees): (&mut [f32], &[f32], usize, usize, Sees)) {
        for (row, (s, p)) in s.chunks_exact_mut(seen).zip(p.chunks_exact(seen)).enumerate() {
            let live = sees.of(first + row);
            let (before, after) = (live.start, live.end);
            let (own, p) = (&mut s[live.clone()], &p[live]);
            let mean = dot(own, p);
            own.iter_mut().zip(p).for_each(|(s, p)| *s = p * (*s - mean));
            s[..before].fill(0.0);
            s[after..].fill(0.0);
        }
    }
}

impl Group<'_> {
    fn queries(&self, block: &Block) -> &[f32] {
        &self.q[block.first * self.sees.heads * self.width..block.end * self.sees.heads * self.width]
    }

    /// Rows of a block's scores, and the tokens that they see.
    fn scores(&self, block: &Block) -> [usize; 2] {
        [(block.end - block.first) * self.sees.heads, block.end]
    }

    /// softmax(q·kᵀ) of a block's queries over the tokens up to its end, zero for what comes after a query's token.
    fn probabilities(&self, block: &Block, p: &mut [f32]) {
        let [rows, seen] = self.scores(block);
        let q = Matrix::new(self.queries(block), [rows, self.width], self.width);
        let k = Matrix::new(&self.k, [seen, self.width], self.width);
        product(p, q, k.transposed());
        vectorised(CausalSoftmax, (p, seen, block.first * self.sees.heads, self.sees));
    }

    /// Writes each token's mix of values to its part of the output.
    fn forward(&self, out: Vec<&mut [f32]>) {
        let mut out = out.into_iter();
        for block in Block::all(self.tokens) {
            let [rows, seen] = self.scores(&block);
            let mut p = vec![0f32; rows * seen];
            self.probabilities(&block, &mut p);
            let mut mixed = vec![0f32; rows * self.width];
            product(&mut mixed, Matrix::new(&p, [rows, seen], seen), self.v.first_rows(seen));
            // The output second: `zip` takes from its first before it finds its second empty.
            for (mixed, out) in mixed.chunks_exact(self.sees.heads * self.width).zip(out.by_ref()) {
                out.copy_from_slice(mixed);
            }
        }
    }
}

/// What belongs to each (row, key head) of `x [rows · tokens, kv_heads · each]`: a slice of `each` for each token.
fn by_group(x: &mut [f32], shape: Heads) -> Vec<Vec<&mut [f32]>> {
    let Heads {
        rows, tokens, kv_heads, ..
    } = shape;
    let each = (x.len() / (rows * tokens * kv_heads).max(1)).max(1);
    let mut out: Vec<Vec<&mut [f32]>> = (0..rows * kv_heads).map(|_| Vec::with_capacity(tokens)).collect();
    for (i, part) in x.chunks_exact_mut(each).enumerate() {
        let (token, kv_head) = (i / kv_heads, i % kv_heads);
        out[token / tokens * kv_heads + kv_head].push(part);
    }
    out
}

impl Causal for Flex {
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
    ) -> FloatTensor<Self> {
        let held = [q, k, v, cos, sin].map(contiguous);
        let inputs = inputs(&held, shape);
        let mut out = vec![0f32; inputs.q.len()];
        let tasks: Vec<_> = by_group(&mut out, shape).into_iter().enumerate().collect();
        tasks
            .into_par_iter()
            .for_each(|(group, out)| inputs.group(group).forward(out));
        tensor(out, shape.heads * shape.head_width)
    }

    fn causal_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let held = [q, k, v, cos, sin].map(contiguous);
        let inputs = inputs(&held, shape);
        let gradient = contiguous(gradient);
        let gradient = gradient.storage::<f32>();
        let [mut by_q, mut by_k, mut by_v] = [inputs.q, inputs.k, inputs.v].map(|x| vec![0f32; x.len()]);
        let out = by_group(&mut by_q, shape)
            .into_iter()
            .zip(by_group(&mut by_k, shape))
            .zip(by_group(&mut by_v, shape));
        let tasks: Vec<_> = out.enumerate().collect();
        tasks
            .into_par_iter()
            .for_each(|(group, ((by_q, by_k), by_v))| inputs.backward(group, gradient, by_q, by_k, by_v));
        let kv = shape.kv_heads * shape.head_width;
        (
            tensor(by_q, shape.heads * shape.head_width),
            tensor(by_k, kv),
            tensor(by_v, kv),
        )
    }
}

fn inputs(held: &[FloatTensor<Flex>; 5], shape: Heads) -> Inputs<'_> {
    let [q, k, v, cos, sin] = held.each_ref().map(|t| t.storage::<f32>());
    Inputs {
        q,
        k,
        v,
        cos,
        sin,
        shape,
    }
}

impl Inputs<'_> {
    /// One group's gradients. With P the probabilities and G the output's gradient: by v it is Pᵀ·G, by the scores
    /// dS = P ∘ (G·vᵀ − rowsum(P ∘ G·vᵀ)), by the rotated q and k dS·k and dSᵀ·q, then turned back.
    fn backward(
        &self,
        index: usize,
        gradient: &[f32],
        by_q: Vec<&mut [f32]>,
        by_k: Vec<&mut [f32]>,
        by_v: Vec<&mut [f32]>,
    ) {
        let group = self.group(index);
        let (width, tokens) = (group.width, group.tokens);
        let each = group.sees.heads * width;
        let gradient = self.part(gradient, index, each);
        let gradient: Vec<f32> = gradient
            .chunks(self.shape.kv_heads * each)
            .flat_map(|token| &token[..each])
            .copied()
            .collect();
        let scale = 1.0 / (width as f32).sqrt();
        let mut sums = [vec![0f32; tokens * width], vec![0f32; tokens * width]];
        let [sum_k, sum_v] = &mut sums;
        let mut by_q = by_q.into_iter().enumerate();
        for block in Block::all(tokens) {
            let [rows, seen] = group.scores(&block);
            let q = Matrix::new(group.queries(&block), [rows, width], width);
            let k = Matrix::new(&group.k, [seen, width], width);
            let g = Matrix::new(&gradient[block.first * each..block.end * each], [rows, width], width);
            let mut p = vec![0f32; rows * seen];
            group.probabilities(&block, &mut p);
            add_product(
                &mut sum_v[..seen * width],
                Matrix::new(&p, [rows, seen], seen).transposed(),
                g,
            );
            let mut scores = vec![0f32; rows * seen];
            product(&mut scores, g, group.v.first_rows(seen).transposed());
            let first = block.first * group.sees.heads;
            vectorised(
                CausalSoftmaxGradient,
                (&mut scores[..], &p[..], seen, first, group.sees),
            );
            let scores = Matrix::new(&scores, [rows, seen], seen);
            add_product(&mut sum_k[..seen * width], scores.transposed(), q);
            let mut rotated = vec![0f32; rows * width];
            product(&mut rotated, scores, k);
            for (x, (t, out)) in rotated.chunks_exact(each).zip(by_q.by_ref()) {
                vectorised(Turn, (out, x, self.angles(t), [scale, -scale]));
            }
        }
        for (t, (out, x)) in by_k.into_iter().zip(sum_k.chunks_exact(width)).enumerate() {
            vectorised(Turn, (out, x, self.angles(t), [1.0, -1.0]));
        }
        for (out, x) in by_v.into_iter().zip(sum_v.chunks_exact(width)) {
            out.copy_from_slice(x);
        }
    }
}

#[derive(Debug)]
struct CausalBackward;

impl<B: Causal> Backward<B, 3> for CausalBackward {
    type State = ([FloatTensor<B>; 5], Heads);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [q, k, v] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let ([at_q, at_k, at_v, cos, sin], shape) = ops.state;
        let (by_q, by_k, by_v) = B::causal_attention_backward(at_q, at_k, at_v, cos, sin, shape, gradient);
        for (parent, gradient) in [(q, by_q), (k, by_k), (v, by_v)] {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Causal, C: CheckpointStrategy> Causal for Autodiff<B, C> {
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        shape: Heads,
    ) -> FloatTensor<Self> {
        let [(q, q_node), (k, k_node), (v, v_node)] = [q, k, v].map(|t| t.into_parts());
        let [cos, sin] = [cos, sin].map(|t| t.into_primitive());
        let kept = [q, k, v, cos, sin];
        let [q, k, v, cos, sin] = kept.clone();
        let out = B::causal_attention(q, k, v, cos, sin, shape);
        let prepared = CausalBackward.prepare::<C>([q_node, k_node, v_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((kept, shape), out),
            OpsKind::UnTracked(step) => step.finish(out),
        }
    }

    fn causal_attention_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: Heads,
        _: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("second derivatives are never asked for")
    }
}
