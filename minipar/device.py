"""Where a rank computes: on the CPU with NumPy, or on its GPU with CuPy.

    --device cuda         rank    0   1   2   3   4      of those on this host
                          GPU     0   1   2   0   1      if there are three

A model built with the array module of its device lies there, and whatever meets its arrays is sent
(`array.beside`). Nothing else in minipar knows of devices.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from minipar.errors import UsageError

INSTALL = "pip install 'minipar[cuda]' (CUDA 13; with CUDA 12: pip install 'cupy-cuda12x[ctk]')"


class Missing(NamedTuple):
    """What keeps this machine from computing on a GPU, and how to get it."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}"


def modules_of(device: str, local_rank: int = 0) -> Any:
    """NumPy; or CuPy, with the GPU of this rank as the current one of this thread.

    device: "cpu" or "cuda".  local_rank: among the ranks of this host; they share GPUs if they are
    more than these, which the first one to do so says.
    Raises: UsageError with one sentence that says what is missing.
    """
    if device == "cpu":
        return np
    if missing := missing_for_cuda():
        raise UsageError(f"--device {device}: {missing}")
    import cupy

    gpus = cupy.cuda.runtime.getDeviceCount()
    if local_rank == gpus:
        print(
            f"minipar: more ranks than GPUs ({gpus}): from rank {gpus} on they share them.",
            file=sys.stderr,
        )
    cupy.cuda.Device(local_rank % gpus).use()
    return cupy


def missing_for_cuda(compute: bool = True) -> Missing | None:
    """What is missing, in the order in which it is needed: package, driver, device, libraries.

    compute: whether to try the libraries, which takes a second and some of the GPU's memory.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        what = "CuPy is not installed" if error.name == "cupy" else f"CuPy needs {error.name}"
        return Missing(what, f"Install it: {INSTALL}.")
    except ImportError as error:
        return Missing(f"CuPy cannot be imported ({_first_line(error)})", f"Install it: {INSTALL}.")
    try:
        gpus = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises what its parts raise
        return _why_no_device(error)
    if not gpus:
        return _why_no_device("no device")
    if not compute:
        return None
    try:
        one = cupy.ones((2, 2), "float32")
        float((one @ one + one).sum())
    except Exception as error:  # a library that is loaded when it is first used
        return Missing(
            f"CuPy finds a GPU, but cannot compute on it ({_first_line(error)})",
            f"CUDA's libraries come with: {INSTALL}.",
        )
    return None


def _why_no_device(error: object) -> Missing:
    text = _first_line(error)
    if "NoDevice" in text or text == "no device":
        return Missing(
            "there is no NVIDIA GPU that CUDA may use",
            "nvidia-smi lists those of this machine, CUDA_VISIBLE_DEVICES says which may be used.",
        )
    return Missing(
        f"there is no NVIDIA driver that CuPy can use ({text})",
        "Install the driver of the GPU (580 or later for CUDA 13); nvidia-smi shows it.",
    )


def _first_line(error: object) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
