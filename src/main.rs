//! Parses the command line, calls one command, turns an error into a message, a hint and an exit code.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Training makes and drops tensors of many megabytes by the thousand; the system's allocator hands each back to the
/// kernel, at about a fifth of all time and a quarter more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ui = cli::Ui::detect();
    match cli::Cli::parse().run(&ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that went away (`2>&1 | head`) changes nothing about the exit code.
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "error: {error}");
            if let Some(hint) = error.hint_text() {
                let _ = writeln!(stderr, "hint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
