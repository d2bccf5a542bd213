//! Micro-batches side by side on a CPU: each worker computes alone on one core, since most tensor operations there use one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use rayon::ThreadPool;

/// Threads that each run whole micro-batches.
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// As many workers as cores on a CPU; a GPU gets one.
    pub fn on(device: &Device) -> Self {
        let count = if *device == Device::flex() {
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
        let mut out = Vec::with_capacity(items.len());
        self.each(items, f, |_, done| out.push(done));
        out
    }

    /// `f` of each item, handed to `take` in order, as soon as those before it are done.
    ///
    /// The order is that of one worker, so that what is added up does not depend on who was faster; and results do not
    /// pile up until the end.
    pub fn each<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync, mut take: impl FnMut(&T, R) + Send) {
        if self.pools.is_empty() {
            return items.iter().for_each(|item| take(item, f(item)));
        }
        let next = AtomicUsize::new(0);
        let inbox = Mutex::new((0, BTreeMap::new(), &mut take));
        let work = |pool: &ThreadPool| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(i) else { return };
                let done = pool.install(|| f(item));
                let mut guard = inbox.lock().expect("a worker does not panic");
                let (turn, waiting, take) = &mut *guard;
                waiting.insert(i, done);
                while let Some(done) = waiting.remove(turn) {
                    take(&items[*turn], done);
                    *turn += 1;
                }
            }
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = self.pools.iter().map(|pool| scope.spawn(|| work(pool))).collect();
            for worker in running {
                worker.join().expect("a worker does not panic");
            }
        });
    }
}
