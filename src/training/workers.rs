//! Micro-batches side by side on a CPU: each worker computes alone on one core, since most tensor operations there use one.

use burn::tensor::Device;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::models::llama::Llama;

/// Threads that each run whole micro-batches.
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// As many workers as cores on a CPU; a GPU gets one.
    pub fn new(model: &Llama) -> Self {
        let count = if model.device() == Device::flex() {
            rayon::current_num_threads()
        } else {
            1
        };
        Workers::with(count)
    }

    /// `count` workers of one thread each. A single worker uses the caller's threads.
    pub fn with(count: usize) -> Self {
        let pool = || {
            rayon::ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .expect("a thread can be started")
        };
        Workers {
            pools: if count > 1 {
                (0..count).map(|_| pool()).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// How many items are under way at once.
    pub fn count(&self) -> usize {
        self.pools.len().max(1)
    }

    /// `f` of each item, in order.
    pub fn map<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
        if self.pools.is_empty() {
            return items.iter().map(f).collect();
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = |pool: &ThreadPool| {
            let mut out = Vec::new();
            loop {
                let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(item) = items.get(i) else { return out };
                out.push((i, pool.install(|| f(item))));
            }
        };
        let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
            let running: Vec<_> = self.pools.iter().map(|pool| scope.spawn(|| work(pool))).collect();
            running
                .into_iter()
                .flat_map(|t| t.join().expect("a worker does not panic"))
                .collect()
        });
        done.par_sort_unstable_by_key(|(i, _)| *i);
        done.into_iter().map(|(_, r)| r).collect()
    }
}
