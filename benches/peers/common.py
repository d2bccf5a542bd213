"""What the scripts of this folder share: the model out of its GGUF, shapes, clocks, peaks."""

import argparse
import logging
import os
import resource
import time
import warnings

import torch

def arguments(description):
    """Shapes and device; each script adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="the GGUF that dpsynth uses; `dpsynth fetch smollm2-135m-instruct` names it")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads on a CPU")
    return parser


def load(path, threads):
    """The GGUF in transformers, dequantised to f32. TF32 stays off: f32 means f32."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    folder, file = os.path.split(os.path.abspath(path))
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, local_files_only=True
    )


def synchronised(device):
    """Seconds now, with all work on `device` done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peaks(device):
    """Peak memory of this process, in bytes."""
    out = {"torch": torch.__version__, "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if device == "cuda":
        out["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    return out
