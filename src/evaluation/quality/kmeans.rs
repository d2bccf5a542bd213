//! k-means (Lloyd 1982) with k-means++ seeding (Arthur and Vassilvitskii 2007).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Starts; the best is kept.
const STARTS: u64 = 5;
/// Steps of a start, if nothing comes to rest before.
const STEPS: usize = 100;

/// Points of `width` numbers each, one behind the other.
#[derive(Clone, Copy)]
pub struct Points<'a> {
    pub values: &'a [f32],
    pub width: usize,
}

impl<'a> Points<'a> {
    fn len(self) -> usize {
        self.values.len() / self.width
    }

    fn get(self, i: usize) -> &'a [f32] {
        &self.values[i * self.width..][..self.width]
    }
}

/// The cluster of each point, below `k`; at most as many clusters as there are different points.
pub fn clusters(points: Points, k: usize) -> Vec<usize> {
    if points.width == 0 || points.len() == 0 {
        return Vec::new();
    }
    let starts = (0..STARTS).map(|seed| lloyd(points, k, seed));
    let best = starts.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(clusters, _)| clusters).unwrap_or_default()
}

/// Clusters, and the sum of squared distances to their centres.
fn lloyd(points: Points, k: usize, seed: u64) -> (Vec<usize>, f64) {
    let mut centres = seeds(points, k, &mut ChaCha8Rng::seed_from_u64(seed));
    let mut assigned: Vec<(usize, f32)> = Vec::new();
    for _ in 0..STEPS {
        let now: Vec<(usize, f32)> = (0..points.len())
            .into_par_iter()
            .map(|i| nearest(points.get(i), &centres))
            .collect();
        let rests = now.iter().map(|a| a.0).eq(assigned.iter().map(|a| a.0));
        assigned = now;
        if rests {
            break;
        }
        move_centres(points, &assigned, &mut centres);
    }
    let spread = assigned.iter().map(|(_, d)| f64::from(*d)).sum();
    (assigned.into_iter().map(|(cluster, _)| cluster).collect(), spread)
}

/// First centres: points, each drawn by its squared distance to those drawn before.
fn seeds(points: Points, k: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut centres = vec![points.get(rng.random_range(0..points.len())).to_vec()];
    let mut distances = vec![f32::INFINITY; points.len()];
    while centres.len() < k {
        let last = &centres[centres.len() - 1];
        distances
            .par_iter_mut()
            .enumerate()
            .for_each(|(i, d)| *d = d.min(squared(points.get(i), last)));
        let total: f64 = distances.iter().map(|d| f64::from(*d)).sum();
        let mut left = rng.random::<f64>() * total;
        let drawn = distances.iter().position(|d| {
            left -= f64::from(*d);
            *d > 0.0 && left <= 0.0
        });
        // Rounding may leave the last; where no point is away from all centres, there is no other cluster.
        match drawn.or_else(|| distances.iter().rposition(|d| *d > 0.0)) {
            Some(i) => centres.push(points.get(i).to_vec()),
            None => break,
        }
    }
    centres
}

/// Each centre to the mean of its points; one without points stays.
fn move_centres(points: Points, assigned: &[(usize, f32)], centres: &mut [Vec<f32>]) {
    let mut counts = vec![0usize; centres.len()];
    let mut sums = vec![vec![0f64; points.width]; centres.len()];
    for (i, (cluster, _)) in assigned.iter().enumerate() {
        counts[*cluster] += 1;
        let sum = sums[*cluster].iter_mut();
        sum.zip(points.get(i)).for_each(|(s, v)| *s += f64::from(*v));
    }
    for ((centre, sum), count) in centres
        .iter_mut()
        .zip(&sums)
        .zip(counts)
        .filter(|(_, count)| *count > 0)
    {
        let mean = sum.iter().map(|s| (s / count as f64) as f32);
        centre.iter_mut().zip(mean).for_each(|(c, m)| *c = m);
    }
}

/// The first of the nearest centres, and the squared distance to it.
fn nearest(point: &[f32], centres: &[Vec<f32>]) -> (usize, f32) {
    let distances = centres.iter().map(|c| squared(point, c)).enumerate();
    distances.fold(
        (0, f32::INFINITY),
        |best, (i, d)| if d < best.1 { (i, d) } else { best },
    )
}

/// Eight sums side by side: additions of floats may not be reordered, so one sum would not use the vector unit.
fn squared(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}
