//! How rooms tell a person where they are without printing: the command line decides what is shown.

/// Receives what a long piece of work has to say.
pub trait Progress: Sync {
    /// Begins a task of `total` units (steps, bytes, records); `unit` names one of them.
    fn begin(&self, task: &str, total: u64, unit: Unit) -> Box<dyn Task>;
    /// A line that stays on the screen.
    fn note(&self, line: &str);
}

/// What a task counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a download.
    Bytes,
    /// Optimizer steps.
    Steps,
    /// Records written or read.
    Records,
}

/// One task under way; dropping it ends its display.
pub trait Task: Send {
    /// `done` units are finished; `detail` is shown beside the bar (for example a loss).
    fn set(&self, done: u64, detail: &str);
}

/// Shows nothing: for library users and tests.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: Unit) -> Box<dyn Task> {
        Box::new(Silent)
    }
    fn note(&self, _: &str) {}
}

impl Task for Silent {
    fn set(&self, _: u64, _: &str) {}
}
