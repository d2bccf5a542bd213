//! Peaks of memory.

use burn::tensor::Device;
use serde::Serialize;

/// Peak of a process since [`restart`], in bytes.
#[derive(Clone, Copy, Debug, Serialize, serde::Deserialize)]
pub struct Peak {
    /// Resident memory of the process.
    pub rss_bytes: u64,
    /// What the device's allocator holds; it gives pages back seldom, so this is close to a peak. None on a CPU.
    pub device_bytes: Option<u64>,
}

/// Forgets the peak of resident memory so far, which loading a model may have set (Linux; elsewhere, and where that is
/// not allowed, it stays).
pub fn restart() {
    // Linux' proc_pid_clear_refs(5): 5 resets the peak.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak by now.
pub fn peak(device: &Device) -> Peak {
    Peak {
        rss_bytes: crate::machine::peak_rss_bytes(),
        device_bytes: device.memory_pool_usage().map(|usage| usage.bytes_reserved),
    }
}
