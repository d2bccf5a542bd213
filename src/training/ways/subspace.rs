//! A few directions among all trained values, found from public gradients.

use super::{dot, norm, unit};

/// What of a direction lies outside of those before it, below which it is one of them.
const SAME: f64 = 1e-4;

/// Directions of length 1 that are at right angles.
#[derive(Clone, Debug, Default)]
pub struct Subspace {
    rows: Vec<Vec<f32>>,
}

impl Subspace {
    /// What `gradients` span: each less its part along those before it (Gram and Schmidt, twice, which is enough in floating
    /// point). What is not finite, or a sum of others, is left out.
    pub fn of(gradients: impl IntoIterator<Item = Vec<f32>>) -> Self {
        let mut out = Subspace::default();
        for mut row in gradients.into_iter().filter_map(unit) {
            for _ in 0..2 {
                let along = out.coordinates(&row);
                out.take_off(&mut row, &along);
            }
            if norm(&row) > SAME {
                out.rows.extend(unit(row));
            }
        }
        out
    }

    /// How many directions there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How far `vector` goes along each.
    pub fn coordinates(&self, vector: &[f32]) -> Vec<f32> {
        self.rows.iter().map(|row| dot(row, vector) as f32).collect()
    }

    /// Takes its part in the subspace off `vector`.
    pub fn take_off(&self, vector: &mut [f32], coordinates: &[f32]) {
        for (row, along) in self.rows.iter().zip(coordinates) {
            vector.iter_mut().zip(row).for_each(|(v, r)| *v -= along * r);
        }
    }

    /// Adds what has these `coordinates` to `vector`.
    pub fn add_to(&self, vector: &mut [f32], coordinates: &[f32]) {
        add_along(&self.rows, coordinates, vector);
    }
}

/// Adds so much of each of `rows` to `vector`.
pub(super) fn add_along(rows: &[Vec<f32>], coefficients: &[f32], vector: &mut [f32]) {
    for (row, along) in rows.iter().zip(coefficients) {
        vector.iter_mut().zip(row).for_each(|(v, r)| *v += along * r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_at_right_angles_and_span_what_they_came_from() {
        let gradients = vec![
            vec![3.0, 0.0, 4.0, 0.0],
            vec![6.0, 0.0, 8.0, 0.0],
            vec![f32::NAN; 4],
            vec![1.0, 2.0, 0.0, 0.0],
            vec![0.0; 4],
        ];
        let subspace = Subspace::of(gradients.clone());
        assert_eq!(subspace.len(), 2);
        for (i, a) in subspace.rows.iter().enumerate() {
            for (j, b) in subspace.rows.iter().enumerate() {
                assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-6);
            }
        }
        for gradient in [&gradients[0], &gradients[3]] {
            let coordinates = subspace.coordinates(gradient);
            let mut rest = gradient.clone();
            subspace.take_off(&mut rest, &coordinates);
            assert!(norm(&rest) < 1e-5, "{rest:?}");
            let mut again = vec![0f32; 4];
            subspace.add_to(&mut again, &coordinates);
            assert!(again.iter().zip(gradient).all(|(a, g)| (a - g).abs() < 1e-5));
        }
    }
}
