//! Where tensors live: chosen at run time, from what the program was built with and what the machine can do.
//!
//! A GPU is used once it has computed something: without NVRTC, or with its memory taken by others, it is found all the
//! same and fails at the first operation.

use std::sync::OnceLock;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where the models compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// CUDA where the program was built with it and a GPU is there, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda,
}

/// Memory that must be free on a GPU: the weights of SmolLM2-135M in f32 and a small micro-batch. Larger ones are found
/// to be too large when they run.
#[cfg(feature = "cuda")]
const LEAST_BYTES: usize = 1 << 30;

/// Why the GPU is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// A part of a sentence: "no CUDA device was found".
    pub reason: String,
    /// How to mend it.
    pub hint: &'static str,
}

/// The device for `choice`; `Auto` takes a GPU where one works, see [`fallback`].
///
/// # Errors
/// CUDA asked for where the program was built without it (usage), or where it does not work, with the reason.
pub fn choose(choice: DeviceChoice) -> Result<Device> {
    if choice == DeviceChoice::Cpu {
        return Ok(Device::flex());
    }
    cuda().or_else(|why| {
        if choice == DeviceChoice::Auto {
            return Ok(Device::flex());
        }
        let message = format!("CUDA cannot be used: {}", why.reason);
        let error = match cfg!(feature = "cuda") {
            true => Error::other(message),
            false => Error::usage(message),
        };
        Err(error.hint(format!("{}, or choose `device=cpu`", why.hint)))
    })
}

/// What to tell a person where `choice` leaves a GPU aside that the program was built for.
pub fn fallback(choice: DeviceChoice) -> Option<String> {
    let wanted = cfg!(feature = "cuda") && choice == DeviceChoice::Auto;
    if !wanted {
        return None;
    }
    let why = cuda().err()?;
    Some(format!(
        "computing on the CPU, since CUDA cannot be used: {} ({})",
        why.reason, why.hint
    ))
}

/// The GPU, or why there is none. Tried once in the life of the program, by a product of two small matrices.
pub fn cuda() -> std::result::Result<Device, Unusable> {
    static TRIED: OnceLock<std::result::Result<Device, Unusable>> = OnceLock::new();
    TRIED.get_or_init(try_cuda).clone()
}

/// Whether a GPU works.
pub fn has_cuda() -> bool {
    cuda().is_ok()
}

#[cfg(not(feature = "cuda"))]
fn try_cuda() -> std::result::Result<Device, Unusable> {
    Err(Unusable {
        reason: "this program was built without it".into(),
        hint: "build it with `make build CUDA=1`",
    })
}

#[cfg(feature = "cuda")]
fn try_cuda() -> std::result::Result<Device, Unusable> {
    use burn::tensor::{DeviceType, Tensor};

    let trial = || {
        let Some(device) = Device::enumerate(DeviceType::Cuda).into_iter().next() else {
            return Err("no device was found".to_string());
        };
        // Compiles a kernel: needs NVRTC and the toolkit's headers.
        let ones = Tensor::<2>::ones([32, 32], &device);
        let sum: f32 = ones.clone().matmul(ones).sum().into_scalar();
        if sum != 32_768.0 {
            return Err(format!("it computes 32·32·32 as {sum}"));
        }
        let room = Tensor::<1>::zeros([LEAST_BYTES / 4], &device);
        device.sync().map_err(|e| format!("{e:?}"))?;
        drop(room);
        device.memory_cleanup();
        Ok(device)
    };
    // What is missing makes the libraries below panic, with a message that is for their authors.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tried = std::panic::catch_unwind(trial);
    std::panic::set_hook(hook);
    let message = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other
            .downcast::<&str>()
            .map_or_else(|_| "it fails at the first product".into(), |text| text.to_string()),
    };
    tried
        .unwrap_or_else(|panic| Err(message(panic)))
        .map_err(|message| explain(&message))
}

/// Whether a message in small letters says that memory is missing, in the words of CUDA's driver and of CubeCL.
pub fn says_out_of_memory(message: &str) -> bool {
    let words = [
        "out of memory",
        "out-of-memory",
        "out_of_memory",
        "outofmemory",
        "out of device memory",
        "can't allocate buffer",
    ];
    words.iter().any(|words| message.contains(words))
}

/// What a failure means to a person.
#[cfg(any(feature = "cuda", test))]
fn explain(message: &str) -> Unusable {
    let text = message.to_lowercase();
    let known: [(&[&str], &str, &str); 2] = [
        (
            &["nvrtc", "cuda_runtime.h", "cuda_fp16.h"],
            "NVRTC or the toolkit's headers are missing",
            "install CUDA's NVRTC of the driver's version or before, and set CUDA_PATH",
        ),
        (
            &[
                "no device",
                "nodevice",
                "libcuda",
                "no_device",
                "\"cuda\" shared library",
            ],
            "no device was found",
            "is the NVIDIA driver loaded? `nvidia-smi` lists what it sees",
        ),
    ];
    if says_out_of_memory(&text) {
        return Unusable {
            reason: "less than 1 GiB of its memory is free".into(),
            hint: "`nvidia-smi` lists what takes it",
        };
    }
    let found = known.iter().find(|(signs, ..)| signs.iter().any(|s| text.contains(s)));
    match found {
        Some((_, reason, hint)) => Unusable {
            reason: reason.to_string(),
            hint,
        },
        None => Unusable {
            reason: message.lines().next().unwrap_or_default().chars().take(200).collect(),
            hint: "`nvidia-smi` says whether driver and device are well",
        },
    }
}

/// What a person calls the device.
pub fn name(device: &Device) -> &'static str {
    if *device == Device::flex() { "cpu" } else { "cuda" }
}

/// What `choice` computes on, as far as it decides how numbers are rounded: the same seed gives the same records there.
///
/// # Errors
/// As [`choose`].
pub fn arithmetic(choice: DeviceChoice) -> Result<String> {
    let device = choose(choice)?;
    let vectors = match name(&device) {
        "cpu" => vectors(),
        _ => "",
    };
    Ok(format!("{} {vectors}", name(&device)).trim_end().to_string())
}

/// The widest vectors of this processor that kernels are chosen by.
#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    match () {
        () if is_x86_feature_detected!("avx512f") => "avx512",
        () if is_x86_feature_detected!("avx2") => "avx2",
        () => "sse2",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_in_words_for_people() {
        for (message, reason, hint) in [
            (
                "Unable to dynamically load the \"nvrtc\" shared library - searched for library names: [\"nvrtc\"]",
                "NVRTC",
                "install",
            ),
            (
                "called `Result::unwrap()` on an `Err` value: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "1 GiB",
                "nvidia-smi",
            ),
            (
                "Unable to dynamically load the \"cuda\" shared library - searched for library names: [\"cuda\"]",
                "no device",
                "driver",
            ),
            ("something new\nin two lines", "something new", "nvidia-smi"),
        ] {
            let found = explain(message);
            assert!(
                found.reason.starts_with(reason) || found.reason.contains(reason),
                "{found:?}"
            );
            assert!(!found.reason.contains('\n') && found.hint.contains(hint), "{found:?}");
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(name(&choose(DeviceChoice::Cpu).expect("a CPU")), "cpu");
        if !has_cuda() {
            assert_eq!(name(&choose(DeviceChoice::Auto).expect("a CPU")), "cpu");
            let refused = choose(DeviceChoice::Cuda).expect_err("there is none");
            assert!(refused.to_string().contains("CUDA") && refused.hint_text().is_some());
        }
    }
}
