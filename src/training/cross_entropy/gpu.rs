use std::iter::repeat_n;

use burn::backend::Cube;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{FloatDType, TensorData};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Head;
use crate::models::fused::gpu::{by_part, columns, from_row, like, shaped, warp_max, warp_sum};
use crate::models::product::exact;

/// Rows of logits that exist at once. Every piece has as many, so that how a row is computed does not depend on how many
/// tokens its neighbours have (P5).
const PIECE: usize = 512;

/// In the logits' place softmax(logits) − onehot(targets), and −log p of each target: a block a row.
#[cube(launch, address_type = "dynamic")]
fn residuals_kernel(
    logits: &mut Tensor<f32>,
    targets: &Tensor<i32>,
    losses: &mut Tensor<f32>,
    first: usize,
    #[comptime] warps: usize,
) {
    let (row, vocabulary) = (CUBE_POS_Y as usize, logits.shape(1));
    let start = row * logits.stride(0);
    let mut peaks = Shared::<[f32]>::new_slice(warps);
    let mut sums = Shared::<[f32]>::new_slice(warps);

    let mut peak = f32::min_value();
    let mut i = UNIT_POS as usize;
    while i < vocabulary {
        peak = max(peak, logits[start + i]);
        i += CUBE_DIM as usize;
    }
    let of_warp = warp_max(peak);
    if UNIT_POS_X == 0 {
        peaks[UNIT_POS_Y as usize] = of_warp;
    }
    sync_cube();
    let mut peak = peaks[0];
    for warp in 1..warps {
        peak = max(peak, peaks[warp]);
    }

    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < vocabulary {
        sum += (logits[start + i] - peak).exp();
        i += CUBE_DIM as usize;
    }
    let of_warp = warp_sum(sum);
    if UNIT_POS_X == 0 {
        sums[UNIT_POS_Y as usize] = of_warp;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for warp in 0..warps {
        sum += sums[warp];
    }

    let target = targets[first + row] as usize;
    if UNIT_POS == 0 {
        losses[first + row] = peak + sum.ln() - logits[start + target];
    }
    // The target's logit is read before it is written over.
    sync_cube();
    let share = 1.0 / sum;
    let mut i = UNIT_POS as usize;
    while i < vocabulary {
        let mut residual = (logits[start + i] - peak).exp() * share;
        if i == target {
            residual -= 1.0;
        }
        logits[start + i] = residual;
        i += CUBE_DIM as usize;
    }
}

/// Some rows in front of a head, a piece of them at a time. There are more than asked for, up to a whole piece.
pub(in crate::training) struct Rows {
    /// `[rows, width]`; those not asked for are 0.
    pub hidden: CubeTensor,
    /// `[vocabulary, width]`.
    pub head: CubeTensor,
    /// `[rows]`.
    targets: CubeTensor,
    /// −log p of each target, `[rows, 1]`.
    pub losses: CubeTensor,
}

impl Rows {
    pub fn new(hidden: CubeTensor, head: CubeTensor, targets: &[u32]) -> Self {
        let (n, device) = (targets.len(), hidden.device.clone());
        let rows = n.next_multiple_of(PIECE);
        let ids = targets.iter().map(|t| *t as i32).chain(repeat_n(0, rows - n)).collect();
        let hidden = match rows == n {
            true => columns(hidden),
            false => {
                let none = Cube::float_zeros([rows - n, hidden.meta.shape()[1]].into(), &device, FloatDType::F32);
                Cube::float_cat(vec![hidden, none], 0)
            }
        };
        Rows {
            targets: Cube::int_from_data(TensorData::new::<i32, _>(ids, [rows]), &device),
            losses: shaped(&hidden, [rows, 1]),
            hidden,
            head: into_contiguous(head),
        }
    }

    /// The first row of each piece.
    pub fn pieces(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.losses.meta.shape()[0]).step_by(PIECE)
    }

    /// The rows of a piece of `x [rows, ..]`.
    pub fn piece(&self, x: &CubeTensor, first: usize) -> CubeTensor {
        from_row(x.clone(), first, PIECE)
    }

    /// softmax(h·headᵀ) − onehot of a piece's rows, `[PIECE, vocabulary]`; their losses are filled in.
    pub fn residuals(&self, first: usize) -> CubeTensor {
        let head = Cube::float_swap_dims(self.head.clone(), 0, 1);
        let logits = exact::on_gpu(self.piece(&self.hidden, first), head);
        let (blocks, threads) = by_part(1, PIECE);
        residuals_kernel::launch(
            &logits.client,
            blocks,
            threads,
            logits.required_address_type(),
            logits.clone().into_tensor_arg(),
            self.targets.clone().into_tensor_arg(),
            self.losses.clone().into_tensor_arg(),
            first,
            threads.y as usize,
        );
        logits
    }
}

impl Head for Cube {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let n = targets.len();
        let all = Rows::new(hidden, head, &targets);
        let gradient = like(&all.hidden);
        for first in all.pieces() {
            exact::into(all.residuals(first), all.head.clone(), all.piece(&gradient, first));
        }
        (from_row(all.losses, 0, n), from_row(gradient, 0, n))
    }
}
