//! Where tensors live: chosen at run time, from what the program was built with and what the machine has.

use burn::tensor::Device;

use crate::config::DeviceChoice;
use crate::{Error, Result};

/// The device for `choice`; `Auto` takes a GPU where there is one.
///
/// # Errors
/// CUDA asked for where the program was built without it, or where no GPU is found.
pub fn choose(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        DeviceChoice::Cuda => cuda().ok_or_else(|| {
            if cfg!(feature = "cuda") {
                Error::other("no CUDA device was found")
                    .hint("`dpsynth doctor` says what is seen; `--set device=cpu` goes without")
            } else {
                Error::usage("this program was built without CUDA")
                    .hint("build it with `make CUDA=1`, or `--set device=cpu`")
            }
        }),
        DeviceChoice::Auto => Ok(cuda().unwrap_or_else(Device::flex)),
    }
}

/// How many CUDA devices this program can use.
pub fn cuda_devices() -> usize {
    #[cfg(feature = "cuda")]
    {
        Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().count()
    }
    #[cfg(not(feature = "cuda"))]
    {
        0
    }
}

// `Device::cuda(0)` succeeds without a GPU and panics at the first operation: enumerate first.
#[cfg(feature = "cuda")]
fn cuda() -> Option<Device> {
    (cuda_devices() > 0).then(|| Device::cuda(0))
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Option<Device> {
    None
}

/// What a person calls the device.
pub fn name(device: &Device) -> &'static str {
    if *device == Device::flex() { "cpu" } else { "cuda" }
}
