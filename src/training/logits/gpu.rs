use std::iter::repeat;

use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use burn_cubecl::tensor::CubeTensor;

use super::Logits;
use crate::models::fused::gpu::from_row;
use crate::models::product::exact;
use crate::training::cross_entropy::gpu::Rows;

/// Weights of rows, 0 for those that nobody asked for.
fn placed(weights: Vec<f32>, rows: &Rows) -> CubeTensor {
    let all = rows.losses.meta.shape()[0];
    let padded: Vec<f32> = weights.into_iter().chain(repeat(0.0)).take(all).collect();
    Cube::float_from_data(TensorData::new(padded, [all, 1]), &rows.losses.device)
}

impl Logits for Cube {
    fn logits_gradient(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let n = targets.len();
        let rows = Rows::new(hidden, table, &targets);
        let weights = placed(weights, &rows);
        let piece = |first| Cube::float_mul(rows.residuals(first), rows.piece(&weights, first));
        let mut pieces: Vec<CubeTensor> = rows.pieces().map(piece).collect();
        let g = match pieces.len() {
            1 => pieces.remove(0),
            _ => Cube::float_cat(pieces, 0),
        };
        (from_row(rows.losses, 0, n), from_row(g, 0, n))
    }

    fn logits_outer(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> FloatTensor<Self> {
        let rows = Rows::new(hidden, table, &targets);
        let weights = placed(weights, &rows);
        let part = |first| {
            let g = Cube::float_mul(rows.residuals(first), rows.piece(&weights, first));
            exact::on_gpu(Cube::float_swap_dims(g, 0, 1), rows.piece(&rows.hidden, first))
        };
        rows.pieces().map(part).reduce(Cube::float_add).expect("there are rows")
    }
}
