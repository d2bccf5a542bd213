//! What a person sees: bars on a terminal, plain lines in a pipe, nothing on standard output but results.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dpsynth::progress::{Progress, Task, Unit};
use dpsynth::{Error, Result};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

/// Progress and notes go to standard error; results to standard output.
pub struct Ui {
    /// None: plain lines.
    bars: Option<MultiProgress>,
    deserted: AtomicBool,
}

impl Ui {
    /// Bars where standard error is a terminal that can draw them and somebody looks at it.
    pub fn detect() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Ui {
            bars: draws_bars(terminal, |name| std::env::var_os(name)).then(MultiProgress::new),
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

/// Whether bars are drawn: on a terminal that moves its cursor (`TERM`), unless a CI service keeps what is written (`CI`).
///
/// Bars have no colours, so `NO_COLOR` and `CLICOLOR` say nothing about them; help and usage errors follow both.
fn draws_bars(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let moves_cursor = match variable("TERM") {
        Some(term) => !term.is_empty() && term != "dumb",
        None => cfg!(windows),
    };
    let kept = variable("CI").is_some_and(|ci| !["", "0", "false"].iter().any(|no| ci == *no));
    terminal && moves_cursor && !kept
}

impl Progress for Ui {
    fn begin(&self, task: &str, total: u64, unit: Unit) -> Box<dyn Task> {
        if let Some(bars) = &self.bars {
            let bar = bars.add(ProgressBar::new(total));
            let template = match unit {
                Unit::Bytes => "{msg_head}{bar:30} {bytes}/{total_bytes} {bytes_per_sec} left {left} {msg}",
                _ => "{msg_head}{bar:30} {pos}/{len} left {left} {msg}",
            };
            let template = template.replace("{msg_head}", &format!("{task:<12} "));
            let pace = Arc::new(Mutex::new(Pace::new(total)));
            let left = {
                let pace = Arc::clone(&pace);
                move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let left = pace.lock().expect("no panic while counting").left(Instant::now());
                    let _ = match left {
                        Some(left) => write!(out, "{:#}", HumanDuration(left)),
                        None => write!(out, "?"),
                    };
                }
            };
            let style = ProgressStyle::with_template(&template).expect("template is valid");
            bar.set_style(style.with_key("left", left));
            bar.enable_steady_tick(Duration::from_millis(500));
            Box::new(Bar { bar, pace })
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
        let write = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bars {
            // A line in the middle of a bar would tear it.
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// How fast a task goes, by its mean so far: steps may be minutes apart.
struct Pace {
    total: u64,
    begun: Instant,
    /// What had been done before it was begun anew: what it says in its first moment.
    before: u64,
    last: (Instant, u64),
}

impl Pace {
    fn new(total: u64) -> Self {
        let now = Instant::now();
        Pace {
            total,
            begun: now,
            before: 0,
            last: (now, 0),
        }
    }

    fn set(&mut self, now: Instant, done: u64) {
        if now - self.begun < Duration::from_millis(200) {
            self.before = done;
        }
        if done != self.last.1 {
            self.last = (now, done);
        }
    }

    /// None until something is done.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (at, done) = self.last;
        if done >= self.total {
            return Some(Duration::ZERO);
        }
        let each = (at - self.begun).as_secs_f64() / done.checked_sub(self.before).filter(|n| *n > 0)? as f64;
        let left = each * (self.total - done) as f64 - (now - at).as_secs_f64();
        Some(Duration::from_secs_f64(left.max(0.0)))
    }
}

struct Bar {
    bar: ProgressBar,
    pace: Arc<Mutex<Pace>>,
}

impl Task for Bar {
    fn set(&self, done: u64, detail: &str) {
        self.pace
            .lock()
            .expect("no panic while counting")
            .set(Instant::now(), done);
        self.bar.set_position(done);
        self.bar.set_message(detail.to_string());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_all_that_was_done_though_steps_are_minutes_apart() {
        let mut pace = Pace::new(10);
        let at = |seconds: u64| pace.begun + Duration::from_secs(seconds);
        let (begun, four, five, six) = (at(0), at(200), at(260), at(290));
        assert_eq!(pace.left(four), None);
        // Taken up again after 2 of 10.
        pace.set(begun, 2);
        assert_eq!(pace.left(four), None);
        pace.set(four, 4);
        assert_eq!(pace.left(four), Some(Duration::from_secs(600)));
        assert_eq!(pace.left(five), Some(Duration::from_secs(540)));
        pace.set(six, 10);
        assert_eq!(pace.left(six), Some(Duration::ZERO));
    }

    #[test]
    fn bars_are_for_a_terminal_that_someone_looks_at() {
        let draws = |terminal: bool, set: &[(&str, &str)]| {
            draws_bars(terminal, |name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
            })
        };
        assert!(draws(true, &[("TERM", "xterm-256color")]));
        assert!(draws(true, &[("TERM", "xterm"), ("CI", "false"), ("NO_COLOR", "1")]));
        assert!(!draws(false, &[("TERM", "xterm")]));
        assert!(!draws(true, &[("TERM", "dumb")]));
        assert_eq!(draws(true, &[]), cfg!(windows));
        assert!(!draws(true, &[("TERM", "xterm"), ("CI", "true")]));
    }
}
