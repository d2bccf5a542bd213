//! Where tensors live: chosen at run time, from what the program was built with and what the machine can do.
//!
//! A GPU is used once it has computed something: without NVRTC, or with its memory taken by others, it is found all the
//! same and fails at the first operation.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Once, OnceLock};

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
#[cfg(feature = "cuda-plain")]
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
        let error = match cfg!(feature = "cuda-plain") {
            true => Error::other(message),
            false => Error::usage(message),
        };
        Err(error.hint(format!("{}, or choose `device=cpu`", why.hint)))
    })
}

/// What to tell a person where `choice` leaves a GPU aside that the program was built for.
pub fn fallback(choice: DeviceChoice) -> Option<String> {
    let wanted = cfg!(feature = "cuda-plain") && choice == DeviceChoice::Auto;
    if !wanted {
        return None;
    }
    let why = cuda().err()?;
    Some(format!(
        "computing on the CPU, since CUDA cannot be used: {} ({})",
        why.reason, why.hint
    ))
}

static TRIED: OnceLock<std::result::Result<Device, Unusable>> = OnceLock::new();

/// The GPU, or why there is none. Tried once in the life of the program, by a product of two small matrices.
pub fn cuda() -> std::result::Result<Device, Unusable> {
    TRIED.get_or_init(try_cuda).clone()
}

/// Whether a GPU works.
pub fn has_cuda() -> bool {
    cuda().is_ok()
}

#[cfg(not(feature = "cuda-plain"))]
fn try_cuda() -> std::result::Result<Device, Unusable> {
    Err(Unusable {
        reason: "this program was built without it".into(),
        hint: "build it with `make build CUDA=1`",
    })
}

#[cfg(feature = "cuda-plain")]
fn try_cuda() -> std::result::Result<Device, Unusable> {
    use burn::tensor::{DeviceType, Tensor};

    use super::product::matmul;

    let trial = || {
        let Some(device) = Device::enumerate(DeviceType::Cuda).into_iter().next() else {
            return Err("no device was found".to_string());
        };
        let sum: f32 = watched(&device, || {
            // Read, so that a failure says what it was.
            let _: f32 = Tensor::<1>::zeros([LEAST_BYTES / 4], &device)
                .narrow(0, 0, 1)
                .into_scalar();
            // Compiles kernels: needs NVRTC and the toolkit's headers.
            let ones = Tensor::<2>::ones([32, 32], &device);
            matmul(ones.clone(), ones).sum().into_scalar()
        });
        if sum != 32_768.0 {
            return Err(format!("it computes 32·32·32 as {sum}"));
        }
        device.memory_cleanup();
        Ok(device)
    };
    // What is missing makes the libraries below panic, with a message that is for their authors.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tried = catch_unwind(trial);
    std::panic::set_hook(hook);
    let message = |panic: &(dyn Any + Send)| panic_text(panic).unwrap_or("it fails at the first product").to_string();
    tried
        .unwrap_or_else(|panic| Err(message(panic.as_ref())))
        .map_err(|message| explain(&message))
}

/// Whether a message says that memory is missing, in the words of CUDA's driver and of CubeCL.
pub fn says_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
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

/// Runs `work`, in which a GPU may fail: tensor operations report that by a panic, in words for their authors.
///
/// # Errors
/// What `work` says, or that the GPU failed.
pub fn reported<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if failure(info.payload()).is_none() {
                before(info);
            }
        }));
    });
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(failure(panic.as_ref()).unwrap_or_else(|| resume_unwind(panic))))
}

/// Runs `work` on `device`, all of whose kernels must have run.
///
/// CubeCL marks the memory that a failed kernel should have written, and to read it fails. It takes the mark away where
/// a later kernel writes a part of that memory (`p5_no_sum_is_made_of_what_a_failed_launch_left`): sums would be made of
/// what lay there before. A window for measuring hears of every failure, also of those that autotune provokes when it
/// tries the forms of a kernel. Those do not come twice, so `work` may be run again.
///
/// # Panics
/// A kernel failed each time, in CubeCL's words.
pub fn watched<R>(device: &Device, work: impl Fn() -> R) -> R {
    #[cfg(feature = "cuda-plain")]
    if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
        let client = device.client();
        let mut left = 3;
        loop {
            let window = client
                .profile_start()
                .unwrap_or_else(|e| panic!("{KERNEL_FAILED}: {e}"));
            let done = catch_unwind(AssertUnwindSafe(&work));
            let failed = client.profile_end(window).err().map(|e| e.to_string());
            left -= 1;
            match (done, failed) {
                (Ok(done), None) => return done,
                (Err(panic), _) => resume_unwind(panic),
                (Ok(_), Some(e)) if left == 0 || says_out_of_memory(&e) => {
                    panic!("{KERNEL_FAILED}: {e}")
                }
                (Ok(_), Some(_)) => {}
            }
        }
    }
    #[cfg(not(feature = "cuda-plain"))]
    let _ = device;
    work()
}

/// What a panic of [`watched`] begins with.
const KERNEL_FAILED: &str = "a kernel failed";

/// What a panic says of a GPU that failed; nothing where it is about something else, or no GPU is used.
fn failure(panic: &(dyn Any + Send)) -> Option<Error> {
    let used = TRIED.get().is_some_and(std::result::Result::is_ok);
    used.then(|| panic_text(panic).and_then(told)).flatten()
}

/// What a GPU's failure means to a person, where `text` is about one.
fn told(text: &str) -> Option<Error> {
    if says_out_of_memory(text) {
        let error = Error::other("the GPU has too little memory");
        return Some(error.hint(
            "smaller `finetune.micro_batch_size` or `sample.batch_size`, shorter records, or `device=cpu`; \
             a run goes on with the same command, and what it paid is kept",
        ));
    }
    let signs = [
        KERNEL_FAILED,
        "is poisoned",
        "was poisoned",
        "error happened during launch",
        "Too many resources were requested",
    ];
    if !signs.iter().any(|sign| text.contains(sign)) && !text.lines().any(is_drivers) {
        return None;
    }
    Some(Error::other(format!("the GPU failed: {}", cause(text))).hint(
        "a run goes on with the same command, also with `device=cpu`, and what it paid is kept; \
         `nvidia-smi` and `dmesg` say more",
    ))
}

/// Whether a line is in the driver's words: `cuLaunchKernel failed with status 719`, `CUDA_ERROR_…`.
fn is_drivers(line: &str) -> bool {
    let call = line.split_once(" failed with status").map(|(before, _)| before);
    let call = call.and_then(|before| before.split_whitespace().last());
    line.contains("CUDA_ERROR_") || call.is_some_and(|call| call.starts_with("cu"))
}

/// The line of a failure's words that comes from the driver: the last of them, below who was waiting for what. Else the
/// last that says anything.
fn cause(text: &str) -> String {
    let lines = || text.lines().map(str::trim).take_while(|line| *line != "Backtrace:");
    let line = text.lines().rfind(|line| is_drivers(line));
    let line = line.or_else(|| lines().filter(|line| !line.is_empty()).last());
    line.unwrap_or("it gave no reason").trim().chars().take(200).collect()
}

/// What a panic says, where it says something.
pub fn panic_text(panic: &(dyn Any + Send)) -> Option<&str> {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// What a failure means to a person.
#[cfg(any(feature = "cuda-plain", test))]
fn explain(message: &str) -> Unusable {
    let text = message.to_lowercase();
    let known: [(&[&str], &str, &str); 3] = [
        (
            &["status 222", "unsupported_ptx"],
            "the driver is older than the NVRTC that compiles the kernels",
            "update the driver, or set CUDA_PATH to a CUDA that it knows (`nvidia-smi` names the newest)",
        ),
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
    if says_out_of_memory(message) {
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
            reason: cause(message),
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
            ("something new\nin two lines", "in two lines", "nvidia-smi"),
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
    fn a_gpu_that_fails_is_told_from_any_other_panic() {
        let said = |text: &str| told(text).map(|error| error.to_string());
        let launch = "The device is poisoned\nCaused by:\n  cuLaunchKernel failed with status 719\nBacktrace:\n  none";
        assert_eq!(
            said(launch).as_deref(),
            Some("the GPU failed: cuLaunchKernel failed with status 719")
        );
        let compiled = "a kernel failed: A launch error happened\nCaused by:\n  no such header\nBacktrace:\nnone";
        assert_eq!(said(compiled).as_deref(), Some("the GPU failed: no such header"));
        let full = said("called on an `Err`: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert_eq!(full.as_deref(), Some("the GPU has too little memory"));
        for other in ["something else", "the fetch failed with status 404"] {
            assert_eq!(said(other), None);
        }
    }

    #[test]
    fn a_panic_on_the_cpu_stays_one() {
        let full = || -> Result<()> { panic!("Os {{ kind: OutOfMemory }}") };
        assert!(has_cuda() || catch_unwind(|| reported(full)).is_err());
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
