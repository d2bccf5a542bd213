//! How the vectors that records show are bounded before they add up (P5).

use crate::machine::workers::Workers;
use crate::training::clip::{Clip, Norm};

/// Bounds on the parts of a vector, such that the whole has norm C at most.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long each part is, and its bound.
    parts: Vec<(usize, Clip)>,
}

impl Bounds {
    /// One bound on a vector of `len`.
    pub fn whole(len: usize, clip: Clip) -> Self {
        Bounds {
            parts: vec![(len, clip)],
        }
    }

    /// A bound on each of two parts, of norm C/√2, or C/2 where sizes add up: two releases of one vector, whose norm is C at most.
    pub fn halves(lengths: [usize; 2], clip: Clip) -> Self {
        let half = Clip {
            max_grad_norm: clip.max_grad_norm
                / match clip.norm {
                    Norm::Euclidean => 2f64.sqrt(),
                    Norm::SumOfSizes => 2.0,
                },
            ..clip
        };
        Bounds {
            parts: lengths.map(|len| (len, half)).into(),
        }
    }

    /// Length of the vector.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(len, _)| len).sum()
    }

    /// Whether there is nothing to bound.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum over `records`, each with its unit's size, of what `vector` makes of them: bounded, and of a unit the mean. What
    /// cannot be read adds nothing (P5): to stop at it would show that it was drawn.
    pub fn sum<R: Sync>(
        &self,
        workers: &Workers,
        records: &[(usize, R)],
        vector: impl Fn(&R) -> Option<Vec<f32>> + Sync,
    ) -> Vec<f64> {
        let mut sum = vec![0f64; self.len()];
        workers.each(
            records,
            |(_, record)| vector(record),
            |(size, _), vector| {
                if let Some(vector) = vector {
                    self.add(&vector, 1.0 / *size as f64, &mut sum);
                }
            },
        );
        sum
    }

    /// Adds `share` times `vector`, bounded, to `sum`. One that is not finite adds nothing.
    ///
    /// # Panics
    /// It is not as long as the bounds say.
    pub fn add(&self, vector: &[f32], share: f64, sum: &mut [f64]) {
        assert_eq!(
            (vector.len(), sum.len()),
            (self.len(), self.len()),
            "a value for each place"
        );
        let mut from = 0;
        for (len, clip) in &self.parts {
            let part = &vector[from..from + len];
            let factor = clip.factor(clip.norm.of(part)) * share;
            // 0 · ∞ is not 0.
            if factor > 0.0 {
                let places = sum[from..from + len].iter_mut().zip(part);
                places.for_each(|(s, v)| *s += factor * f64::from(*v));
            }
            from += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Clipping;

    #[test]
    fn p5_no_vector_adds_more_than_its_bound_however_it_is_parted() {
        let cases = [Clipping::Flat, Clipping::Automatic].map(|c| [Norm::Euclidean, Norm::SumOfSizes].map(|n| (c, n)));
        for (clipping, norm) in cases.into_iter().flatten() {
            let clip = Clip {
                norm,
                ..Clip::new(clipping, 0.7)
            };
            for bounds in [Bounds::whole(5, clip), Bounds::halves([2, 3], clip)] {
                for scale in [1e-12, 0.3, 1.0, 1e20] {
                    let vector: Vec<f32> = (0..5).map(|i| scale * (i as f32 + 0.5).sin()).collect();
                    let mut sum = vec![0f64; 5];
                    bounds.add(&vector, 0.5, &mut sum);
                    let length = match norm {
                        Norm::Euclidean => sum.iter().map(|v| v * v).sum::<f64>().sqrt(),
                        Norm::SumOfSizes => sum.iter().map(|v| v.abs()).sum(),
                    };
                    assert!(length <= 0.35 * (1.0 + 1e-9), "{clipping:?} {norm:?} {scale}: {length}");
                }
                let mut sum = vec![0f64; 5];
                bounds.add(&[f32::NAN; 5], 1.0, &mut sum);
                assert!(sum.iter().all(|s| *s == 0.0), "what is no number adds nothing");
            }
        }
    }

    /// One part can be broken and the other whole: what is whole is within its own bound still.
    #[test]
    fn p5_a_broken_part_does_not_free_the_other() {
        let bounds = Bounds::halves([1, 2], Clip::new(Clipping::Flat, 1.0));
        let mut sum = vec![0f64; 3];
        bounds.add(&[f32::INFINITY, 30.0, 40.0], 1.0, &mut sum);
        let half = 0.5f64.sqrt();
        assert!(sum[0] == 0.0 && (sum[1] - 0.6 * half).abs() < 1e-9 && (sum[2] - 0.8 * half).abs() < 1e-9);
    }
}
