//! What a person sees: bars on a terminal, plain lines in a pipe, nothing on standard output but results.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dpsynth::progress::{Progress, Task, Unit};
use dpsynth::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Progress and notes go to standard error; results to standard output.
pub struct Ui {
    terminal: bool,
    deserted: AtomicBool,
}

impl Ui {
    /// Bars where standard error is a terminal.
    pub fn detect() -> Self {
        Ui {
            terminal: std::io::stderr().is_terminal(),
            deserted: AtomicBool::new(false),
        }
    }

    /// Prints a result. A reader that went away (`| head`) is not an error: what has effects beside its words, and what
    /// has an exit code to tell, goes on as without one.
    ///
    /// # Errors
    /// Other: it cannot be written, to a full disk for example.
    pub fn print(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                self.deserted.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => Err(Error::other(format!("cannot write to standard output: {e}"))
                .hint("free some space there, or send the output to another place, and run the same command again")),
        }
    }

    /// Prints one JSON object on one line.
    ///
    /// # Errors
    /// As [`Ui::print`].
    pub fn print_json<T: serde::Serialize>(&self, value: &T) -> Result<()> {
        self.print(&serde_json::to_string(value).expect("results serialise"))
    }

    /// Whether the reader of the results went away: nothing more need be computed for them alone.
    pub fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed)
    }
}

impl Progress for Ui {
    fn begin(&self, task: &str, total: u64, unit: Unit) -> Box<dyn Task> {
        if self.terminal {
            let bar = ProgressBar::new(total);
            let template = match unit {
                Unit::Bytes => "{msg_head}{bar:30} {bytes}/{total_bytes} {bytes_per_sec} left {eta} {msg}",
                _ => "{msg_head}{bar:30} {pos}/{len} left {eta} {msg}",
            };
            let template = template.replace("{msg_head}", &format!("{task:<12} "));
            bar.set_style(ProgressStyle::with_template(&template).expect("template is valid"));
            bar.enable_steady_tick(Duration::from_millis(500));
            Box::new(Bar(bar))
        } else {
            Box::new(Lines {
                task: task.to_string(),
                total,
                unit,
                begun: Instant::now(),
                shown: Mutex::new(None),
            })
        }
    }

    fn note(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

struct Bar(ProgressBar);

impl Task for Bar {
    fn set(&self, done: u64, detail: &str) {
        self.0.set_position(done);
        self.0.set_message(detail.to_string());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line each 15 seconds, and one at the end.
struct Lines {
    task: String,
    total: u64,
    unit: Unit,
    begun: Instant,
    shown: Mutex<Option<Instant>>,
}

impl Task for Lines {
    fn set(&self, done: u64, detail: &str) {
        let mut shown = self.shown.lock().expect("no panic while printing");
        let due = shown.is_none_or(|at| at.elapsed() >= Duration::from_secs(15));
        if !due && done < self.total {
            return;
        }
        *shown = Some(Instant::now());
        let unit = match self.unit {
            Unit::Bytes => "bytes",
            Unit::Steps => "steps",
            Unit::Records => "records",
        };
        let seconds = self.begun.elapsed().as_secs();
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!(", {detail}")
        };
        let _ = writeln!(
            std::io::stderr(),
            "{}: {done}/{} {unit}, {seconds} s{detail}",
            self.task,
            self.total
        );
    }
}
