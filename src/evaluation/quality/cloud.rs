//! Clouds of points: mean, covariance and what follows from their eigenvalues.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Sentence vectors, one a row of equally many numbers.
pub type Vectors = [Vec<f32>];

/// `[points, numbers]`, the rows in an order of their own, so that the result does not depend on the order given.
pub fn matrix(vectors: &Vectors) -> DMatrix<f64> {
    let width = vectors.first().map_or(0, Vec::len);
    DMatrix::from_fn(vectors.len(), width, {
        let rows = in_order(vectors);
        move |i, j| f64::from(vectors[rows[i]][j])
    })
}

/// The numbers of the vectors in lexicographic order.
pub fn in_order(vectors: &Vectors) -> Vec<usize> {
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    let compare = |a: &usize, b: &usize| {
        let different = vectors[*a].iter().zip(&vectors[*b]).map(|(x, y)| x.total_cmp(y));
        different.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    };
    order.sort_by(compare);
    order
}

/// Subtracts the mean of the rows from each; the mean.
pub fn centre(points: &mut DMatrix<f64>) -> DVector<f64> {
    let mean = points.row_mean();
    points.row_iter_mut().for_each(|mut row| row -= &mean);
    mean.transpose()
}

/// XᵀX / (n − 1) of n ≥ 2 centred rows.
pub fn covariance(centred: &DMatrix<f64>) -> DMatrix<f64> {
    centred.tr_mul(centred) / (centred.nrows() as f64 - 1.0)
}

/// The leading eigenvectors of a covariance that together hold at least `share` of the variance (principal components),
/// as columns, the largest first; no column where nothing varies.
pub fn principal(covariance: DMatrix<f64>, share: f64) -> DMatrix<f64> {
    let SymmetricEigen {
        eigenvalues,
        eigenvectors,
    } = covariance.symmetric_eigen();
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|a, b| eigenvalues[*b].total_cmp(&eigenvalues[*a]));
    let total: f64 = eigenvalues.iter().map(|v| v.max(0.0)).sum();
    let mut held = 0.0;
    let kept = order.into_iter().take_while(|i| {
        let more = held < share * total;
        held += eigenvalues[*i].max(0.0);
        more
    });
    let columns: Vec<_> = kept.map(|i| eigenvectors.column(i).into_owned()).collect();
    match columns.is_empty() {
        true => DMatrix::zeros(eigenvectors.nrows(), 0),
        false => DMatrix::from_columns(&columns),
    }
}

/// The root of a positive semidefinite matrix; what rounding made negative counts as 0.
pub fn root(matrix: DMatrix<f64>) -> DMatrix<f64> {
    let SymmetricEigen {
        eigenvalues,
        eigenvectors,
    } = matrix.symmetric_eigen();
    let roots = DMatrix::from_diagonal(&eigenvalues.map(|v| v.max(0.0).sqrt()));
    &eigenvectors * roots * eigenvectors.transpose()
}
