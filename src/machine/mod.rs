//! The machine that computes: its memory, what it could do at best, and its cores side by side.

pub mod ceiling;
pub mod gpus;
pub mod workers;

use sysinfo::System;

/// The most memory this process has held, where the system says so.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Total and available memory; inside a container its limits.
pub fn memory() -> Option<(u64, u64)> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let (total, free) = (system.total_memory(), system.available_memory());
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 => Some((total.min(limits.total_memory), free.min(limits.free_memory))),
        _ => Some((total, free)),
    }
}
