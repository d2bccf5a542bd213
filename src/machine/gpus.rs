//! GPUs that people rent or have, by name, and their memory: what `dpsynth plan --gpu` holds a model against.

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    pub name: &'static str,
    /// Of its makers' data sheet, in units of 2³⁰ bytes.
    pub gibibytes: u64,
}

impl Gpu {
    /// Bytes of memory.
    pub fn bytes(&self) -> f64 {
        (self.gibibytes << 30) as f64
    }
}

const fn gpu(name: &'static str, gibibytes: u64) -> Gpu {
    Gpu { name, gibibytes }
}

/// All that have a name here.
pub const GPUS: [Gpu; 13] = [
    gpu("t4", 16),
    gpu("v100", 32),
    gpu("a10g", 24),
    gpu("l4", 24),
    gpu("l40s", 48),
    gpu("a100-40gb", 40),
    gpu("a100-80gb", 80),
    gpu("h100", 80),
    gpu("h200", 140),
    gpu("b200", 178),
    gpu("rtx-3090", 24),
    gpu("rtx-4090", 24),
    gpu("rtx-5090", 32),
];

/// The GPU of this name.
pub fn named(name: &str) -> Option<Gpu> {
    GPUS.into_iter().find(|gpu| gpu.name == name)
}
