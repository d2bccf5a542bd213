use burn::backend::Cube;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Head;
use crate::models::fused::gpu::{by_part, columns, from_row, shaped};
use crate::models::product::exact;

/// Logits that exist at once, in values: a quarter of a gigabyte.
const LOGITS: usize = 1 << 26;

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
    let of_warp = plane_max(peak);
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
    let of_warp = plane_sum(sum);
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

/// Some rows in front of a head, a piece of them at a time.
pub(in crate::training) struct Rows {
    /// `[n, width]`.
    pub hidden: CubeTensor,
    /// `[vocabulary, width]`.
    pub head: CubeTensor,
    /// `[n]`.
    targets: CubeTensor,
    /// −log p of each target, `[n, 1]`.
    pub losses: CubeTensor,
    /// Rows of a piece, at most.
    piece: usize,
}

impl Rows {
    pub fn new(hidden: CubeTensor, head: CubeTensor, targets: &[u32]) -> Self {
        let n = targets.len();
        let ids: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
        Rows {
            targets: Cube::int_from_data(TensorData::new(ids, [n]), &hidden.device),
            losses: shaped(&hidden, [n, 1]),
            piece: (LOGITS / head.meta.shape()[0]).clamp(1, n.max(1)),
            hidden: columns(hidden),
            head: into_contiguous(head),
        }
    }

    /// The first row of each piece, and how many it has.
    pub fn pieces(&self) -> Vec<(usize, usize)> {
        let n = self.losses.meta.shape()[0];
        let firsts = (0..n).step_by(self.piece);
        firsts.map(|first| (first, self.piece.min(n - first))).collect()
    }

    /// softmax(h·headᵀ) − onehot of the piece's rows, `[rows, vocabulary]`; their losses are filled in.
    pub fn residuals(&self, (first, rows): (usize, usize)) -> CubeTensor {
        let hidden = from_row(self.hidden.clone(), first, rows);
        let head = Cube::float_swap_dims(self.head.clone(), 0, 1);
        let logits = exact::on_gpu(hidden, head);
        let (blocks, threads) = by_part(1, rows);
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
        let shape = [0, 1].map(|axis| hidden.meta.shape()[axis]);
        let gradient = shaped(&hidden, shape);
        let all = Rows::new(hidden, head, &targets);
        for (first, rows) in all.pieces() {
            let residuals = all.residuals((first, rows));
            exact::into(residuals, all.head.clone(), from_row(gradient.clone(), first, rows));
        }
        (all.losses, gradient)
    }
}
