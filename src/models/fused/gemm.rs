//! Matrix products inside kernels, on the thread that asks for them.

/// A matrix that lies in a slice.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, columns]`, each row's values side by side, rows `stride` apart.
    ///
    /// # Panics
    /// Where that does not lie within `values`.
    pub fn new(values: &'a [f32], [rows, columns]: [usize; 2], stride: usize) -> Self {
        let last_row = rows.saturating_sub(1).checked_mul(stride);
        let end = last_row.and_then(|start| start.checked_add(columns));
        assert!(
            end.is_some_and(|end| end <= values.len()),
            "a matrix lies within its slice"
        );
        Matrix {
            values,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The first `rows` of its rows.
    pub fn first_rows(self, rows: usize) -> Self {
        Matrix {
            rows: rows.min(self.rows),
            ..self
        }
    }

    /// The transpose; nothing is moved.
    pub fn transposed(self) -> Self {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = a·b`, rows side by side.
pub fn product(out: &mut [f32], a: Matrix, b: Matrix) {
    run(out, false, a, b);
}

/// `out += a·b`, rows side by side.
pub fn add_product(out: &mut [f32], a: Matrix, b: Matrix) {
    run(out, true, a, b);
}

fn run(out: &mut [f32], add: bool, a: Matrix, b: Matrix) {
    assert_eq!(a.columns, b.rows, "the matrices fit together");
    assert_eq!(
        Some(out.len()),
        a.rows.checked_mul(b.columns),
        "the product fills its slice"
    );
    let stride =
        |n: usize| isize::try_from(n).expect("no stride is longer than its slice, whose bytes an isize counts");
    // SAFETY: gemm reads a[i·row_stride + k·column_stride] for i < rows, k < columns, and b likewise: at most
    // (rows − 1)·stride + columns − 1, which `Matrix::new`, their only origin, has checked to lie in the slice (transposing
    // permutes these indices, `first_rows` drops some). It reads (where it adds) and writes out[i·b.columns + j] for i < a.rows, j < b.columns, which
    // is below out.len() by the assertion. `out` is borrowed mutably, hence overlaps neither operand. A stride that
    // does not fit an isize stops above; one beyond its slice belongs to a single row or column and is never stepped.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            stride(b.columns),
            add,
            a.values.as_ptr(),
            stride(a.column_stride),
            stride(a.row_stride),
            b.values.as_ptr(),
            stride(b.column_stride),
            stride(b.row_stride),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [[1, 2, 3], [4, 5, 6]], rows four apart.
    const VALUES: [f32; 7] = [1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0];

    #[test]
    fn a_matrix_times_its_transpose() {
        let a = Matrix::new(&VALUES, [2, 3], 4);
        let mut out = [1.0; 4];
        add_product(&mut out, a, a.transposed());
        assert_eq!(out, [15.0, 33.0, 33.0, 78.0]);
        product(&mut out, a, a.transposed());
        assert_eq!(out, [14.0, 32.0, 32.0, 77.0], "what stood there is gone");
        let mut out = [0.0; 9];
        product(&mut out, a.transposed(), a);
        assert_eq!(out, [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
    }

    #[test]
    #[should_panic(expected = "lies within its slice")]
    fn a_matrix_beyond_its_slice_is_refused() {
        Matrix::new(&VALUES, [2, 4], 4);
    }

    #[test]
    #[should_panic(expected = "fills its slice")]
    fn a_product_into_a_slice_of_another_size_is_refused() {
        let a = Matrix::new(&VALUES, [2, 3], 4);
        product(&mut [0.0; 3], a, a.transposed());
    }
}
