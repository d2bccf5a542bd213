//! Parses the command line, calls one command, turns an error into a message, a hint and an exit code.

mod cli;

use std::ffi::{c_int, c_long};
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Training makes and drops tensors of many megabytes by the thousand; the system's allocator hands each back to the
/// kernel, at about a fifth of all time and a quarter more memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets [`ALLOCATOR`] keep the memory that it has, for the next tensors.
///
/// By default it gives back what lay unused for a second, and the kernel clears each page anew: a third of a private LoRA
/// step's time on two cores. Keeping it costs 18 % more memory (SmolLM2-135M: 3.1 GB for 2.6). `MIMALLOC_PURGE_DELAY`
/// in the environment still decides.
fn keep_memory() {
    /// `mi_option_purge_delay` of mimalloc 3; −1 is never.
    const PURGE_DELAY: c_int = 15;
    // SAFETY: as in mimalloc's header, with its enumeration as an int; mimalloc is linked as the allocator.
    unsafe extern "C" {
        fn mi_option_set_default(option: c_int, value: c_long);
    }
    // SAFETY: writes one word of a static table, after a check of the index, before any other thread runs.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

fn main() -> ExitCode {
    keep_memory();
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
