//! Requests that several workers draw from, so that none of them waits while there is work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// One record to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Fixes the record's own randomness, whatever batch it is in.
    pub id: u64,
    /// Which try this is; another try draws something else.
    pub attempt: u64,
    /// Joint label.
    pub label: usize,
}

/// Requests in the order in which they are begun.
pub struct Queue<'a> {
    open: Mutex<VecDeque<Request>>,
    closed: AtomicBool,
    stop: Option<&'a AtomicBool>,
}

impl<'a> Queue<'a> {
    pub fn new(requests: impl IntoIterator<Item = Request>) -> Self {
        Queue {
            open: Mutex::new(requests.into_iter().collect()),
            closed: AtomicBool::new(false),
            stop: None,
        }
    }

    /// Closes as soon as `stop` is set.
    pub fn until(self, stop: &'a AtomicBool) -> Self {
        Queue {
            stop: Some(stop),
            ..self
        }
    }

    /// The next request, if there is one.
    pub fn next(&self) -> Option<Request> {
        self.lock().pop_front()
    }

    /// Takes a request before all others.
    pub fn put(&self, request: Request) {
        self.lock().push_front(request);
    }

    /// Tells all who draw from the queue to leave, with what they have begun.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether to leave.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.open.lock().expect("nobody panics with the queue in hand")
    }
}
