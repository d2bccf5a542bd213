use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use burn_cubecl::tensor::CubeTensor;

use super::Logits;
use crate::models::fused::gpu::from_row;
use crate::models::product::exact;
use crate::training::cross_entropy::gpu::Rows;

/// A row's residuals times its weight.
fn weighted(residuals: CubeTensor, weights: &[f32]) -> CubeTensor {
    let weights = TensorData::new(weights.to_vec(), [weights.len(), 1]);
    let weights = Cube::float_from_data(weights, &residuals.device);
    Cube::float_mul(residuals, weights)
}

impl Logits for Cube {
    fn logits_gradient(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let rows = Rows::new(hidden, table, &targets);
        let g = weighted(rows.residuals((0, targets.len())), &weights);
        (rows.losses, g)
    }

    fn logits_outer(
        hidden: FloatTensor<Self>,
        table: FloatTensor<Self>,
        targets: Vec<u32>,
        weights: Vec<f32>,
    ) -> FloatTensor<Self> {
        let all = Rows::new(hidden, table, &targets);
        let part = |(first, rows): (usize, usize)| {
            let g = weighted(all.residuals((first, rows)), &weights[first..first + rows]);
            exact::on_gpu(
                Cube::float_swap_dims(g, 0, 1),
                from_row(all.hidden.clone(), first, rows),
            )
        };
        let parts = all.pieces().into_iter().map(part);
        parts.reduce(Cube::float_add).expect("there are rows")
    }
}
