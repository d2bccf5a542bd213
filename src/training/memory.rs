//! Out of device memory: the micro-batch is halved and the work goes on. The logical batch and the account stay as they
//! were, since records are bounded one by one (rule P3).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;

use super::shapes::Shapes;
use crate::models::device::{panic_text, says_out_of_memory, watched};

/// How many records go through the model at once: fewer each time that memory ran out.
#[derive(Debug)]
pub struct AtOnce(AtomicUsize);

impl AtOnce {
    /// At first `size`, 1 at least.
    pub fn new(size: usize) -> Self {
        AtOnce(AtomicUsize::new(size.max(1)))
    }

    /// Records that go through at once by now.
    pub fn size(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// `work` on pieces of `items`, in order, each as large as memory on `device` has allowed so far, or filled up to that
    /// in [`Shapes::Fixed`].
    ///
    /// Tensor operations report missing memory by a panic, from which nothing of the piece has come: it is tried again
    /// in halves. One record that does not fit panics on, as does everything else.
    pub fn each<T, R>(&self, device: &Device, shapes: Shapes, items: &[T], work: impl Fn(&[T]) -> R) -> Vec<R> {
        let (mut rest, mut out) = (items, Vec::with_capacity(1));
        while !rest.is_empty() {
            let at_once = self.size();
            let (piece, others) = rest.split_at(at_once.min(rest.len()));
            let through = piece.len().max(shapes.room(at_once));
            match catch_unwind(AssertUnwindSafe(|| watched(device, || work(piece)))) {
                Ok(done) => {
                    out.push(done);
                    rest = others;
                }
                Err(panic) if through > 1 && is_out_of_memory(panic.as_ref()) => {
                    self.0.fetch_min(through.div_ceil(2), Ordering::Relaxed);
                }
                Err(panic) => resume_unwind(panic),
            }
        }
        out
    }
}

/// Whether a panic says that memory is missing.
fn is_out_of_memory(panic: &(dyn Any + Send)) -> bool {
    panic_text(panic).is_some_and(says_out_of_memory)
}
